"""Parts that join in where a fragment stops: heard from the start, in their range, and the original left as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from musicgen import workflows
from musicgen.checkpoint import build_model
from musicgen.config import check_config
from musicgen.errors import FinishError, FormatError
from musicgen.formats import read_score, write_score
from musicgen.formats.continuation import check_continuation, write_continuation
from musicgen.formats.instruments import playing_range
from musicgen.formats.midi_events import read_tracks
from musicgen.sampling import SamplingConfig, finish
from musicgen.sampling.band import lend_programs, parts_to_add
from musicgen.sampling.entrances import ENTERS_WITHIN, SILENT_AT_MOST
from musicgen.sampling.finish import Take, make_prompt
from musicgen.score import Part, Score, bars_between, clip, unfold
from musicgen.tokens import TOKENIZERS
from musicgen.tokens.bars_vocabulary import INSTANCES, MAX_PARTS

TOKENIZER = TOKENIZERS["bars"]()
BARS = 24


@pytest.fixture(scope="module")
def scherzo(data) -> Score:
    return read_score(data / "schubert-d759" / "scherzo.mid")


@pytest.fixture(scope="module", params=["rnn", "transformer"])
def untrained(request):
    torch.manual_seed(5)
    values = {"model": {"decoder": request.param, "dim": 16, "layers": 1, "heads": 2, "memory": 64}}
    return build_model(check_config(values, "test"), TOKENIZER).eval()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(5)
    return build_model(check_config({"model": {"dim": 16, "layers": 1}}, "test"), TOKENIZER).eval()


def extended(model, fragment: Score, *names: str, bars: int = 4, seed: int = 1) -> Take:
    added = parts_to_add(names, fragment.parts)
    return finish(fragment, model, TOKENIZER, bars=bars, seed=seed, config=SamplingConfig(), added=added)[0]


def in_place(original: Path, model, out: Path, *names: str) -> tuple[Score, Take]:
    """(what a file of the original's own format is read as, what was to be written)"""
    written = read_score(original, as_written=True)
    fragment = unfold(written)
    check_continuation(original, written, fragment, parts_to_add(names, fragment.parts))
    take = extended(model, fragment, *names)
    write_continuation(original, fragment, take.whole, out)
    return read_score(out), take


def notes_of(part: Part) -> list:
    return sorted(part.notes[["onset", "duration", "pitch"]].tolist())


def is_in(part: bytes, whole: bytes) -> bool:
    lines = iter(whole.split(b"\n"))
    return all(any(line == other for other in lines) for line in part.split(b"\n"))


# what is asked for


@pytest.mark.parametrize(
    ("words", "name", "program"),
    [("Oboe", "Oboe", 68), (" english horn ", "English Horn", 69), ("0", "Acoustic Grand Piano", 0),
     ("Posaune", "Trombone", 57), ("127", "Gunshot", 127)],
)  # fmt: skip
def test_an_instrument_is_named_as_it_is_printed_or_as_musicians_do_or_by_its_number(words, name, program):
    (part,) = parts_to_add([words], [])
    assert (part.name, part.program, part.is_drum) == (name, program, False)


def test_drums_are_a_drum_kit():
    (part,) = parts_to_add(["drums"], [])
    assert part.is_drum


@pytest.mark.parametrize("words", ["Kazoo", "128", "-1", "", "٣"])
def test_what_is_no_instrument_is_told(words):
    with pytest.raises(FinishError, match="no General MIDI instrument"):
        parts_to_add([words], [])


def test_a_slip_of_the_pen_is_told_with_what_was_meant():
    with pytest.raises(FinishError, match=r"\(Vibraphone\?\)"):
        parts_to_add(["Vibrafone"], [])


def test_new_parts_have_names_of_their_own(scherzo):
    names = [part.name for part in parts_to_add(["Viola", "Oboe", "Oboe", "68"], scherzo.parts)]
    assert names == ["Viola 2", "Oboe", "Oboe 2", "Oboe 3"]


# who plays what


def test_a_part_that_joins_in_is_heard_soon_and_again_and_again(untrained, scherzo):
    added = parts_to_add(["Tuba", "Trombone", "drums"], scherzo.parts)
    config = SamplingConfig()
    for take in finish(scherzo, untrained, TOKENIZER, bars=BARS, takes=3, seed=2, config=config, added=added):
        for part in take.new.parts[len(scherzo.parts) :]:
            bars = [take.whole.bar_at(onset) + 1 - len(scherzo.bars) for onset in part.notes["onset"].tolist()]
            assert bars[0] <= ENTERS_WITHIN, part.name
            assert max(b - a for a, b in zip(bars, [*bars[1:], BARS], strict=True)) <= SILENT_AT_MOST + 1, part.name


def test_nobody_who_joins_in_plays_before_the_seam_or_beyond_their_range(untrained, scherzo):
    take = extended(untrained, scherzo, "Tuba", "Piccolo", "Harp", bars=8)
    for part in take.whole.parts[len(scherzo.parts) :]:
        low, high = playing_range(part.program)
        assert part.notes["onset"].min() >= scherzo.length
        assert low <= part.notes["pitch"].min() <= part.notes["pitch"].max() <= high, part.name


def test_a_tuba_strikes_one_note_at_a_time(untrained, scherzo):
    onsets = extended(untrained, scherzo, "Tuba", bars=8).new.parts[-1].notes["onset"].tolist()
    assert len(onsets) == len(set(onsets))


def test_the_old_parts_keep_their_notes_and_who_played_plays_again(model, scherzo):
    whole = extended(model, scherzo, "Trombone").whole
    assert clip(whole, scherzo.length).parts[: len(scherzo.parts)] == clip(scherzo, scherzo.length).parts
    recent = int(scherzo.bars[-8])
    for old, part in zip(scherzo.parts, whole.parts, strict=False):
        assert (old.end > recent) <= (part.end > scherzo.length), old.name


@pytest.mark.parametrize("orchestra", ["lstm"], indirect=True)
def test_parts_and_newcomers_may_be_chosen_together(orchestra, data, tmp_path):
    report = workflows.finish_score(
        data / "schubert-d759" / "scherzo.mid",
        orchestra.folder,
        tmp_path / "a.mid",
        bars=4,
        parts=["Viola"],
        add=["Flute"],
    )
    assert {part.name for part in report.takes[0].new.parts if len(part.notes)} == {"Viola", "Flute"}
    assert "Flute joined in" in report.page.read_text()


def test_newcomers_do_not_change_whom_the_others_are_lent(scherzo):
    seen = [2 + 8 * program for program in (40, 41, 42, 57)]
    alone = lend_programs(scherzo.parts, seen)
    added = parts_to_add(["Violin", "Viola"], scherzo.parts)
    together = lend_programs((*scherzo.parts, *added), seen, range(len(alone), len(alone) + 2))
    assert together[: len(alone)] == alone


# in the original's own file


def test_every_event_of_a_midi_file_stays_and_the_new_part_is_its_last_track(model, data, tmp_path):
    original = data / "schubert-d759" / "scherzo.mid"
    back, take = in_place(original, model, tmp_path / "out.mid", "Trombone")
    before, after = read_tracks(original)[1], read_tracks(tmp_path / "out.mid")[1]
    assert len(after) == len(before) + 1
    for old, new in zip(before, after, strict=False):
        rest = iter([(e.tick, e.data) for e in new])
        assert all((e.tick, e.data) in rest for e in old)
    assert [(e.tick, e.data) for e in after[-1][:2]] == [(0, b"\xff\x03\x08Trombone"), (0, after[-1][1].data)]
    assert after[-1][1].data[0] & 0xF0 == 0xC0
    assert after[-1][1].data[1] == 57
    assert (back.parts[-1].name, back.parts[-1].program) == ("Trombone", 57)
    assert notes_of(back.parts[-1]) == notes_of(take.whole.parts[-1])


def test_a_file_of_one_track_gets_a_second(model, scherzo, tmp_path):
    import mido

    path = tmp_path / "one.mid"
    write_score(Score(parts=(scherzo.parts[-1],), bars=scherzo.bars, length=scherzo.length), path)
    mido.MidiFile(type=0, tracks=[mido.merge_tracks(mido.MidiFile(path).tracks)], ticks_per_beat=480).save(path)
    back, take = in_place(path, model, tmp_path / "out.mid", "Flute", "drums")
    assert (tmp_path / "out.mid").read_bytes()[8:12] == b"\0\x01\0\x03"
    assert [notes_of(part) for part in back.parts] == [notes_of(part) for part in take.whole.parts]
    assert [(part.program, part.is_drum) for part in back.parts[1:]] == [(73, False), (0, True)]


def test_where_all_channels_are_taken_each_part_still_has_its_program(model, data, tmp_path):
    """Sixteen instruments, so that the newcomer shares a channel."""
    source = read_score(data / "orchestra" / "haydn-104-1.mid")
    line = next(part for part in source.parts if len(part.notes) > 200)
    parts = tuple(Part(f"part {p}", p, notes=line.notes[:12]) for p in range(40, 55))
    path = tmp_path / "full.mid"
    write_score(Score(parts=parts), path)
    back, take = in_place(path, model, tmp_path / "out.mid", "Tuba")
    assert sorted((p.program, notes_of(p)) for p in back.parts) == sorted(
        (p.program, notes_of(p)) for p in take.whole.parts
    )


def test_drums_join_a_band_that_has_some(model, data, tmp_path):
    back, take = in_place(data / "freedoom" / "d_intro.mid", model, tmp_path / "out.mid", "drums")
    assert sorted(notes_of(part) for part in back.parts) == sorted(notes_of(part) for part in take.whole.parts)


@pytest.mark.parametrize(
    "name", ["schubert-d759/scherzo.musicxml", "songs/schubert-das-wandern-d795-1.mxl"], ids=["scherzo", "song"]
)
def test_a_part_joins_in_in_its_own_musicxml_behind_the_others(model, data, tmp_path, name):
    """The song repeats, and its bars are written once; newcomers on two staves and without pitch are among them."""
    original = data / name
    out = tmp_path / f"out{original.suffix}"
    back, take = in_place(original, model, out, "Trombone", "Harp", "drums")
    assert back.bars.tolist() == take.whole.bars.tolist()
    assert [(p.name, p.program, p.is_drum) for p in back.parts[-3:]] == [
        (p.name, p.program, p.is_drum) for p in take.whole.parts[-3:]
    ]
    assert [notes_of(part) for part in back.parts] == [notes_of(part) for part in take.whole.parts]
    if original.suffix == ".musicxml":
        assert is_in(original.read_bytes(), out.read_bytes())


def test_a_part_joins_in_inside_a_bar(model, data, tmp_path):
    """Its half-filled bar is a whole one of its own, whose rest comes before the seam."""
    whole = read_score(data / "schubert-d759" / "scherzo.musicxml")
    original = tmp_path / "cut.musicxml"
    write_score(clip(whole, int(whole.bars[5]) + 480), original)
    back, take = in_place(original, model, tmp_path / "out.musicxml", "Trombone")
    assert back.bars.tolist() == take.whole.bars.tolist()
    assert [notes_of(part) for part in back.parts] == [notes_of(part) for part in take.whole.parts]


def test_a_part_joins_in_inside_the_only_bar(model, data, tmp_path):
    whole = bars_between(read_score(data / "schubert-d759" / "scherzo.musicxml"), 0, 1)
    original = tmp_path / "cut.musicxml"
    write_score(clip(whole, 480), original)
    back, take = in_place(original, model, tmp_path / "out.musicxml", "Flute")
    assert [notes_of(part) for part in back.parts] == [notes_of(part) for part in take.whole.parts]


@pytest.mark.slow
def test_music21_reads_a_part_that_joined_in_as_we_do(model, data, tmp_path):
    from music21 import converter

    out = tmp_path / "out.musicxml"
    _, take = in_place(data / "schubert-d759" / "scherzo.musicxml", model, out, "Trombone")
    part = converter.parse(out).parts[-1].stripTies()
    heard = {(round(480 * n.offset), p.midi) for n in part.flatten().notes for p in n.pitches}
    assert part.partName == "Trombone"
    assert heard == {(onset, pitch) for onset, _, pitch in notes_of(take.whole.parts[-1])}


# what can't be done is said, and nothing is written


@pytest.mark.parametrize("orchestra", ["lstm"], indirect=True)
def test_an_abc_tune_gets_no_new_voice_in_its_own_file(orchestra, data, tmp_path):
    tune = tmp_path / "tune.abc"
    tune.write_text("X:1\nT:t\nM:4/4\nL:1/8\nK:D\nd2dB ABAF|d2dB A2FE|dBAF E2D2|\n")
    with pytest.raises(FormatError, match=r"write to \.mid or \.musicxml, or give --new-only"):
        workflows.finish_score(tune, orchestra.folder, tmp_path / "a.abc", bars=2, add=["Viola"])
    assert list(tmp_path.iterdir()) == [tune]
    report = workflows.finish_score(tune, orchestra.folder, tmp_path / "a.mid", bars=2, add=["Viola"])
    assert [part.name for part in read_score(report.files[0]).parts][1:] == ["Viola"]


@pytest.mark.parametrize("name", ["abc", "grid", "performance"])
def test_other_tokenizers_say_that_they_have_no_part_for_it(name, data):
    fragment = read_score(data / "schubert-d759" / "scherzo.mid")
    one = Score(parts=(fragment.parts[-1],), bars=fragment.bars, length=fragment.length)
    with pytest.raises(FinishError, match=f"--add-part: models of `{name}` have no part"):
        make_prompt(one, TOKENIZERS[name](), added=parts_to_add(["Oboe"], one.parts))


def test_a_ninth_part_of_one_instrument_does_not_fit(scherzo):
    parts = tuple(Part(f"{i}", 57, notes=scherzo.parts[-1].notes) for i in range(INSTANCES))
    fragment = Score(parts=parts, bars=scherzo.bars, length=scherzo.length)
    with pytest.raises(FinishError, match="holds 8 parts of one instrument, and 'Trombone 8' is taken"):
        make_prompt(fragment, TOKENIZER, added=parts_to_add(["Trombone"], parts))


def test_more_parts_than_the_vocabulary_holds_are_told(scherzo):
    parts = tuple(Part(f"{i}", i, notes=scherzo.parts[-1].notes) for i in range(MAX_PARTS))
    fragment = Score(parts=parts, bars=scherzo.bars, length=scherzo.length)
    with pytest.raises(FinishError, match="--add-part: that makes 65 parts; the vocabulary holds 64"):
        make_prompt(fragment, TOKENIZER, added=parts_to_add(["Gunshot"], parts))
