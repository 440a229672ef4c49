"""What was written, made to be heard and seen: files beside it, and the one page."""

from __future__ import annotations

import re
import shutil
import wave
from pathlib import Path
from xml.etree import ElementTree

import pytest

from musicgen import renditions, workflows
from musicgen.config import check_config
from musicgen.errors import FormatError, RenderError
from musicgen.fill_and_harmonise import fill_score, harmonise_score
from musicgen.formats import read_score, write_score
from musicgen.formats.musicxml_part import MARK_COLOUR
from musicgen.render.beside import piece_in
from musicgen.render.engraving import engrave
from musicgen.render.page import page_html
from musicgen.score import unfold

SMALL = {
    "model": {"dim": 16, "layers": 1},
    "training": {"steps": 4, "streams": 2, "chunk": 16, "evaluate_every": 4, "warmup": 1, "preview": 0.5},
}


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("renditions") / "model"
    workflows.train(data / "orchestra", check_config(SMALL, "test"), out)
    return out


@pytest.fixture
def scherzo(data) -> Path:
    return data / "schubert-d759" / "scherzo.mid"


def test_every_kind_of_rendition_lies_beside_the_score(scherzo, tmp_path):
    score = Path(shutil.copy(scherzo, tmp_path))
    made = renditions.render(score, ["wav", "mp3", "svg", "pdf", "png", "roll", "html"])
    starts = {"wav": b"RIFF", "mp3": b"", "svg": b"<svg", "pdf": b"%PDF", "png": b"\x89PNG", "html": b"<!doctype html>"}
    for kind, start in starts.items():
        content = (tmp_path / f"scherzo.{kind}").read_bytes()
        assert content.lower().startswith(start.lower()), kind
        assert len(content) > 10_000
    assert (tmp_path / "scherzo.roll.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"scherzo.mid", *(path.name for path in made.files)}
    assert set(made.seconds) == {"wav", "mp3", "svg", "pdf", "png", "roll", "html"}


def test_audio_lasts_as_long_as_the_music(scherzo, tmp_path):
    renditions.render(scherzo, ["wav"], out=tmp_path / "played")
    score = read_score(scherzo)
    with wave.open(str(tmp_path / "played.wav")) as file:
        seconds = file.getnframes() / file.getframerate()
    assert score.seconds_at(score.length) <= seconds < score.seconds_at(score.length) + 6


def test_out_is_a_folder_a_name_or_a_name_with_the_suffix(scherzo, tmp_path):
    for out, name in ((tmp_path, "scherzo.svg"), (tmp_path / "a", "a.svg"), (tmp_path / "b.svg", "b.svg")):
        assert renditions.render(scherzo, ["svg"], out=out).files[0] == tmp_path / name
    assert renditions.render(scherzo, ["svg"], out=f"{tmp_path}/new/").files[0] == tmp_path / "new" / "scherzo.svg"


def test_a_score_with_repeats_is_played_with_them(data, tmp_path):
    tune = tmp_path / "tune.abc"
    tune.write_text("X:1\nT:Twice\nM:2/4\nL:1/8\nQ:1/4=120\nK:D\n|:DEFG|ABcd:|\n")
    renditions.render(tune, ["wav"])
    with wave.open(str(tmp_path / "tune.wav")) as file:
        assert file.getnframes() / file.getframerate() > 4  # two bars of a second each, twice


def test_a_file_of_several_tunes_is_refused_in_a_line(data, tmp_path):
    with pytest.raises(RenderError, match="holds 60 tunes"):
        renditions.render(data / "irish" / "tunes.abc", ["mp3"], out=tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_score_that_can_not_be_read_leaves_no_folder(tmp_path):
    with pytest.raises(FormatError):
        renditions.render(tmp_path / "none.mid", ["svg"], out=tmp_path / "new" / "a")
    assert not list(tmp_path.iterdir())


def test_a_missing_soundfont_is_said_before_anything_is_made(scherzo, tmp_path):
    with pytest.raises(RenderError, match=r"nowhere\.sf2"):
        renditions.render(scherzo, ["svg", "wav"], out=tmp_path / "x", soundfont=tmp_path / "nowhere.sf2")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mid", ".musicxml"])
def test_each_take_has_its_own_renditions_and_all_stand_on_one_page(data, checkpoint, tmp_path, suffix):
    fragment = data / "schubert-d759" / f"scherzo{suffix}"
    report = workflows.finish_score(fragment, checkpoint, tmp_path / f"f{suffix}", bars=4, takes=2)
    made = renditions.render_pieces(renditions.finished_pieces(report), ["png", "mp3"])
    assert {"f.mp3", "f-take2.mp3", "f.png", "f-take2.png"} <= {path.name for path in made.files}
    page = renditions.finish_page(report)
    assert "Take 1" in page
    assert "Take 2" in page
    assert "Given: bars 1 to 9. New from bar 10 on." in page
    minutes = sum(take.whole.seconds_at(take.whole.length) for take in report.takes) / 60
    assert len(page) < 3e6 * minutes


def test_the_seam_of_a_finished_midi_file_is_found_again(data, checkpoint, tmp_path):
    fragment = data / "schubert-d759" / "scherzo.mid"
    report = workflows.finish_score(fragment, checkpoint, tmp_path / "f.mid", bars=2)
    shown = renditions.show(piece_in(report.files[0]), "again")
    assert shown.seam == report.takes[0].seam == read_score(fragment).length
    assert renditions.show(piece_in(fragment), "never continued").seam is None


def test_a_continuation_is_written_behind_the_repeats_of_its_fragment(checkpoint, tmp_path):
    tune = tmp_path / "tune.abc"
    tune.write_text("X:1\nT:Twice\nM:2/4\nL:1/8\nK:D\n|:DEFG|ABcd:|\n")
    report = workflows.finish_score(tune, checkpoint, tmp_path / "f.abc", bars=2)
    assert report.written is not None
    seam, bar = report.takes[0].seam, 960
    assert seam == 4 * bar
    page = renditions.finish_page(report)
    assert "Given: bars 1 to 2. New from bar 3 on." in page
    shown = renditions.show(piece_in(report.files[0]), "read again")
    assert shown.score.length == report.takes[0].whole.length
    assert shown.written_of == ((0, 2 * bar, 0), (2 * bar, shown.score.length, 0))


def test_behind_repeats_all_that_is_new_is_engraved_in_blue_and_nothing_else(checkpoint, tmp_path):
    tune = tmp_path / "tune.abc"
    tune.write_text("X:1\nT:Twice\nM:2/4\nL:1/8\nK:D\n|:DEFG|ABcd:|\n")
    report = workflows.finish_score(tune, checkpoint, tmp_path / "f.abc", bars=2)
    (page,) = renditions.render_pieces(renditions.finished_pieces(report), ["svg"]).files
    blue = {
        inner.get("id")
        for outer in ElementTree.parse(page).iter()
        if outer.get("color") == MARK_COLOUR
        for inner in outer.iter()
    }
    notes = [note for moment in engrave(report.files[0], report.written.length).moments for note in moment.ids]
    assert not blue & set(notes[:8])
    assert set(notes[8:]) <= blue


@pytest.mark.parametrize("suffix", [".abc", ".mid"])
@pytest.mark.parametrize(
    ("seam", "played", "again"),
    [(2, 4, ()), (1, 1, ((2, 3),))],
    ids=["after the repeat", "within what is repeated"],
)
def test_a_take_that_is_written_with_repeats_is_shown_as_it_is_played(tmp_path, suffix, seam, played, again):
    tune, bar = tmp_path / f"tune{suffix}", 960
    source = tmp_path / "tune.abc"
    source.write_text("X:1\nT:Twice\nM:2/4\nL:1/8\nK:D\n|:DEFG|ABcd:|GFED|\n")
    score = read_score(source, as_written=True)
    write_score(score, tune)
    shown = renditions.show(piece_in(tune, score, seam * bar), "Take 1")
    assert shown.score.length == 5 * bar
    assert shown.sound.seconds > shown.score.seconds_at(shown.score.length)
    assert (shown.seam, shown.again) == (played * bar, tuple((a * bar, b * bar) for a, b in again))
    assert shown.written_of == ((0, 2 * bar, 0), (2 * bar, 5 * bar, 0))
    assert f"New from bar {seam + 1} on." in page_html("Twice", [shown])


def test_what_fills_a_hole_is_marked_from_bar_to_bar(data, checkpoint, tmp_path):
    report = fill_score(data / "schubert-d759" / "scherzo.mid", checkpoint, tmp_path / "f.mid", bars="4-5")
    page = renditions.fill_page(report)
    assert re.search(r"[Nn]ew[^.<]* bars? 4 to 5", page)


def test_what_fills_a_tune_with_repeats_is_blue_on_the_sheet_and_new_where_it_is_played_first(checkpoint, tmp_path):
    tune = tmp_path / "tune.abc"
    tune.write_text("X:1\nT:Twice\nM:2/4\nL:1/8\nK:D\n|:DEFG|ABcd|e2d2|d4:|\n")
    report = fill_score(tune, checkpoint, tmp_path / "f.abc", bars="2-3")
    (piece,), bar = renditions.filled_pieces(report), 960
    assert (piece.seam, piece.until, piece.played.length) == (bar, 3 * bar, 8 * bar)
    (page,) = renditions.render_pieces([piece], ["svg"]).files
    assert MARK_COLOUR in page.read_text()
    assert "given" in renditions.fill_page(report).lower()


def test_parts_under_a_tune_are_blue_in_musicxml_and_on_its_sheet(checkpoint, tmp_path):
    tune = tmp_path / "tune.abc"
    tune.write_text("X:1\nT:Air\nM:2/4\nL:1/8\nK:D\nDEFG|ABcd|e2d2|D4|]\n")
    report = harmonise_score(tune, checkpoint, tmp_path / "h.musicxml", add=["Viola"])
    first, second = ElementTree.parse(report.files[0]).iter("part")
    assert not [note for note in first.iter("note") if note.get("color") or note.find("notehead[@color]") is not None]
    assert MARK_COLOUR in ElementTree.tostring(second, encoding="unicode")


def test_parts_that_were_added_are_new_on_the_page(data, checkpoint, tmp_path):
    tune = tmp_path / "tune.abc"
    tune.write_text("X:1\nT:Air\nM:2/4\nL:1/8\nK:D\nDEFG|ABcd|e2d2|D4|]\n")
    report = harmonise_score(tune, checkpoint, tmp_path / "h.mid", add=["Viola"])
    page = renditions.harmonise_page(report)
    assert "Viola" in page
    assert unfold(read_score(report.files[0])).parts[-1].name == "Viola"


def test_a_page_that_can_not_be_written_is_a_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FormatError, match="file"):
        renditions.write_page("<!doctype html>", tmp_path / "file" / "page.html")
