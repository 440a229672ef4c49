"""A folder becomes a corpus: the same folder the same bytes, nothing parsed twice, nothing lost without a line."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from musicgen.corpus import Corpus, Piece, compile_corpus, find_source, fingerprint, split_pieces, units
from musicgen.corpus.corpus import in_split_order
from musicgen.errors import CorpusError
from musicgen.formats import read_score, read_scores, write_score
from musicgen.score import Part, Score, notes_array, transpose
from musicgen.tokens import BarsTokenizer

DATA = Path(__file__).resolve().parents[2] / "data"


def compiled(folder: Path, **options) -> Corpus:
    return compile_corpus(find_source(folder), BarsTokenizer(), workers=options.pop("workers", 1), **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four formats, six pieces in four files, and a text."""
    music = tmp_path / "music"
    music.mkdir()
    tunes = (DATA / "irish" / "tunes.abc").read_text(encoding="utf-8").split("\n\n")
    (music / "tunes.abc").write_text("\n\n".join([t for t in tunes if "X:" in t][:3]) + "\n", encoding="utf-8")
    for name in ("freedoom/d_intro.mid", "freedoom/d_e1m8.mid", "kern/new-britain.krn"):
        shutil.copy(DATA / name, music)
    (music / "notes.txt").write_text("not a score")
    return music


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


# compiling


def test_every_piece_of_every_file_is_there_in_the_order_of_paths(folder, cache):
    corpus = compiled(folder, cache=cache)
    assert [p.file for p in corpus.pieces] == ["d_e1m8.mid", "d_intro.mid", "new-britain.krn"] + ["tunes.abc"] * 3
    assert [(f.path, f.kept, f.skipped) for f in corpus.files] == [
        ("d_e1m8.mid", 1, ()), ("d_intro.mid", 1, ()), ("new-britain.krn", 1, ()), ("tunes.abc", 3, ()),
    ]  # fmt: skip
    assert corpus.ignored == ("notes.txt",)


def test_the_steps_of_a_piece_are_what_the_tokenizer_makes_of_it(folder, cache):
    corpus = compiled(folder, cache=cache)
    tokenizer = BarsTokenizer()
    scores = [s for f in corpus.files for s in read_scores(folder / f.path)]
    assert len(scores) == len(corpus.pieces)
    for piece, score in zip(corpus.pieces, scores, strict=True):
        assert np.array_equal(corpus.steps_of(piece), tokenizer.encode(score))
        assert piece.notes == tokenizer.quantise(score).note_count
        assert (piece.bars, piece.parts) == (len(score.bars), len(score.parts))
    assert sum(p.length for p in corpus.pieces) == len(corpus.stores[0])


def test_the_steps_are_mapped_from_disk_and_cannot_be_written_to(folder, cache):
    corpus = compiled(folder, cache=cache)
    assert isinstance(corpus.stores[0], np.memmap) or isinstance(corpus.stores[0].base, np.memmap)
    assert corpus.stores[0].dtype == np.int16
    with pytest.raises(ValueError, match="read-only"):
        corpus.stores[0][0, 0] = 1


def test_the_same_folder_gives_the_same_bytes_wherever_it_lies(folder, cache, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    one, two = compiled(folder, cache=cache / "1"), compiled(elsewhere, cache=cache / "2")
    assert one.key == two.key
    for name in ("steps.bin", "melodies.npy", "manifest.json"):
        assert (one.folders[0] / name).read_bytes() == (two.folders[0] / name).read_bytes()


@pytest.mark.slow
def test_reading_in_parallel_gives_the_same_bytes_as_one_by_one(folder, cache):
    tunes = read_scores(DATA / "irish" / "tunes.abc")[10:20]
    for i, tune in enumerate(tunes):
        write_score(tune, folder / f"tune{i}.mid")
    (folder / "bad.mid").write_bytes(b"nonsense")
    assert len(find_source(folder).scores) >= units.PARALLEL_FROM
    one, two = compiled(folder, cache=cache / "1", workers=1), compiled(folder, cache=cache / "2", workers=2)
    assert not two.cached
    for name in ("steps.bin", "melodies.npy", "manifest.json"):
        assert (one.folders[0] / name).read_bytes() == (two.folders[0] / name).read_bytes()


def test_progress_is_told_file_by_file(folder, cache):
    told = []
    compiled(folder, cache=cache, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_manifest_says_what_each_file_was_and_what_was_made_of_it(folder, cache):
    corpus = compiled(folder, cache=cache)
    manifest = json.loads((corpus.folders[0] / "manifest.json").read_text())
    assert manifest["tokenizer"] == {"name": "bars", "options": {}}
    assert manifest["fields"] == ["when", "part", "pitch", "duration", "velocity"]
    assert manifest["files"]["path"] == ["d_e1m8.mid", "d_intro.mid", "new-britain.krn", "tunes.abc"]
    for path, sha256 in zip(manifest["files"]["path"], manifest["files"]["sha256"], strict=True):
        assert sha256 == hashlib.sha256((folder / path).read_bytes()).hexdigest()
    assert len(manifest["pieces"]["title"]) == 6


# the cache


def never(job):
    raise AssertionError(f"{job[0]} was parsed again")


def test_a_second_run_parses_nothing(folder, cache, monkeypatch):
    first = compiled(folder, cache=cache)
    monkeypatch.setattr(units, "encode_file", never)
    again = compiled(folder, cache=cache)
    assert (first.cached, again.cached) == (False, True)
    assert (again.pieces, again.files, again.ignored) == (first.pieces, first.files, first.ignored)
    assert np.array_equal(again.stores[0], first.stores[0])


def test_the_cache_of_the_environment_is_used_where_none_is_given(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICGEN_CACHE", str(tmp_path / "own"))
    assert compiled(folder).folders[0].parent == tmp_path / "own" / "corpora"
    assert compiled(folder).cached


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename"])
def test_a_folder_that_has_changed_is_compiled_again(change, folder, cache):
    first = compiled(folder, cache=cache)
    if change == "edit":
        write_score(transpose(read_score(folder / "d_e1m8.mid"), 1), folder / "d_intro.mid")
    elif change == "add":
        shutil.copy(DATA / "schubert-d759" / "scherzo.mid", folder)
    elif change == "remove":
        (folder / "d_intro.mid").unlink()
    else:
        (folder / "d_intro.mid").rename(folder / "other.mid")
    again = compiled(folder, cache=cache)
    assert not again.cached
    assert again.key != first.key
    assert [f.path for f in again.files] != [f.path for f in first.files] or again.pieces != first.pieces


def test_what_is_no_score_does_not_make_a_folder_another(folder, cache):
    compiled(folder, cache=cache)
    (folder / "notes.txt").write_text("changed")
    (folder / "more.txt").write_text("more")
    again = compiled(folder, cache=cache)
    assert again.cached
    assert again.ignored == ("more.txt", "notes.txt")


def test_nothing_but_the_finished_corpus_is_left_in_the_cache(folder, cache):
    corpus = compiled(folder, cache=cache)
    assert list((cache / "corpora").iterdir()) == list(corpus.folders)
    assert sorted(p.name for p in corpus.folders[0].iterdir()) == ["manifest.json", "melodies.npy", "steps.bin"]
    assert list((cache / "units").iterdir()) == []


def test_compiling_changes_nothing_in_the_folder(folder, cache):
    before = {p: p.read_bytes() for p in folder.rglob("*")}
    compiled(folder, cache=cache)
    assert {p: p.read_bytes() for p in folder.rglob("*")} == before


# what is not kept


def test_a_bad_file_is_a_line_and_not_the_end(folder, cache):
    (folder / "a-bad.mid").write_bytes(b"MThd and then nothing")
    (folder / "empty.abc").touch()
    (folder / "noise.musicxml").write_bytes(bytes(range(256)))
    corpus = compiled(folder, cache=cache)
    bad = {f.path: f for f in corpus.files if not f.kept}
    assert set(bad) == {"a-bad.mid", "empty.abc", "noise.musicxml"}
    for report in bad.values():
        assert len(report.skipped) == 1
        assert "\n" not in report.skipped[0]
        assert str(folder) not in report.skipped[0]
    assert bad["empty.abc"].skipped == ("the file is empty",)
    assert len(corpus.pieces) == 6


def test_a_bad_tune_in_a_file_of_many_is_a_line_and_the_others_are_kept(folder, cache):
    with (folder / "tunes.abc").open("a", encoding="utf-8") as file:
        file.write("\nX:99\nT:Broken\nL:1/4\nM:4/4\nK:C\n[[[|\n")
    report = next(f for f in compiled(folder, cache=cache).files if f.path == "tunes.abc")
    assert report.kept == 3
    assert len(report.skipped) == 1


def test_a_score_without_notes_is_a_line(folder, cache):
    write_score(Score(parts=(Part("silence"),), length=1920), folder / "silence.mid")
    report = next(f for f in compiled(folder, cache=cache).files if f.path == "silence.mid")
    assert report.kept == 0
    assert "no notes" in report.skipped[0]


def test_a_fault_of_our_own_reader_is_a_line_that_asks_to_be_reported(folder, cache, monkeypatch):
    real = units.read_tunes

    def faulty(path):
        if str(path).endswith(".krn"):
            raise KeyError("oops")
        return real(path)

    monkeypatch.setattr(units, "read_tunes", faulty)
    report = next(f for f in compiled(folder, cache=cache).files if f.path == "new-britain.krn")
    assert report.kept == 0
    assert "KeyError" in report.skipped[0]
    assert "report" in report.skipped[0]


def test_a_file_that_cannot_be_opened_is_a_line(folder, cache, monkeypatch):
    real = Path.open

    def locked(self, *arguments, **options):
        if self.name == "d_intro.mid":
            raise PermissionError(13, "Permission denied")
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", locked)
    report = next(f for f in compiled(folder, cache=cache).files if f.path == "d_intro.mid")
    assert (report.kept, report.sha256) == (0, "")
    assert "Permission denied" in report.skipped[0]


def test_a_folder_of_which_nothing_can_be_kept_is_refused_in_one_line(tmp_path, cache):
    for name in ("one.mid", "two.mid"):
        (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(CorpusError, match="none of 2 files") as caught:
        compiled(tmp_path, cache=cache)
    assert "one.mid" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((cache / "corpora").iterdir()) == []


# duplicates


def test_the_same_music_is_kept_once_also_in_another_key_and_another_format(folder, cache):
    score = read_score(folder / "d_e1m8.mid")
    shutil.copy(folder / "d_e1m8.mid", folder / "e-copy.mid")
    write_score(transpose(score, -3), folder / "f-lower.mid")
    corpus = compiled(folder, cache=cache)
    assert len(corpus.pieces) == 6
    for name in ("e-copy.mid", "f-lower.mid"):
        report = next(f for f in corpus.files if f.path == name)
        assert report.kept == 0
        assert "the same music as a piece of d_e1m8.mid" in report.skipped[0]


def test_a_tune_that_stands_twice_in_a_file_is_kept_once(tmp_path, cache):
    tune = "X:{}\nT:Tune {}\nL:1/4\nM:4/4\nK:{}\n{}|\n\n"
    text = tune.format(1, 1, "C", "CDEF") + tune.format(2, 2, "C", "CDEG") + tune.format(3, 3, "D", "DEFG")
    (tmp_path / "tunes.abc").write_text(text)
    corpus = compiled(tmp_path, cache=cache)
    assert [p.title for p in corpus.pieces] == ["Tune 1", "Tune 2"]
    assert corpus.files[0].skipped == ("Tune 3: the same music as a piece of tunes.abc",)


def part(*notes: tuple[int, int, int, int], **kinds) -> Part:
    return Part(notes=notes_array(notes), **kinds)


def test_a_fingerprint_does_not_hear_the_key_the_instruments_or_the_loudness():
    drums = part((0, 480, 36, 80), (0, 480, 70, 80), is_drum=True)
    one = Score(parts=(part((0, 480, 60, 80), (0, 480, 64, 80)), part((480, 480, 40, 80)), drums))
    other = Score(parts=(part((0, 480, 60, 9), (0, 480, 64, 9), (480, 480, 40, 9), program=5), drums), title="other")
    assert fingerprint(one) == fingerprint(other) == fingerprint(transpose(one, 7)) == fingerprint(transpose(one, -12))


def test_a_fingerprint_hears_rhythm_intervals_and_drums():
    base = Score(parts=(part((0, 480, 60, 80), (480, 480, 64, 80)), part((0, 9, 36, 80), is_drum=True)))
    others = [
        Score(parts=(part((0, 480, 60, 80), (480, 480, 65, 80)), base.parts[1])),
        Score(parts=(part((0, 480, 60, 80), (500, 480, 64, 80)), base.parts[1])),
        Score(parts=(part((0, 480, 60, 80), (480, 240, 64, 80)), base.parts[1])),
        Score(parts=(base.parts[0], part((0, 9, 38, 80), is_drum=True))),
        Score(parts=base.parts[:1]),
        Score(parts=base.parts[1:]),
    ]
    assert len({fingerprint(s) for s in (base, *others)}) == 7


def test_a_reason_names_the_line_and_not_the_path_again(tmp_path):
    good = "X:1\nT:good\nK:C\nCDEF GABc|\n\n"
    (tmp_path / "tunes.abc").write_text(good + "X:2\nT:bad\nK:C\n[CE|G]2 C|\n")
    corpus = compile_corpus(find_source(tmp_path), BarsTokenizer(), cache=tmp_path / "cache")
    (file,) = corpus.files
    (reason,) = file.skipped
    assert reason.startswith("line 9: ")
    assert file.kept == 1


# splits


def pieces(count: int) -> list[Piece]:
    made = [Piece(f"p{i}", "f", i, 1, 1, 1, 1, None, f"{i * 7919:032x}") for i in range(count)]
    return in_split_order(made, np.zeros((count, 32), dtype=np.uint32))


@pytest.mark.parametrize(
    ("count", "share", "valid"),
    [(10, 0.1, 1), (10, 0.25, 2), (100, 0.1, 10), (2, 0.01, 1), (3, 0.99, 2), (1, 0.5, 0), (5, 0.0, 0)],
)
def test_a_share_of_the_pieces_is_for_validation_and_of_two_at_least_one(count, share, valid):
    all_pieces = pieces(count)
    train, held_out = split_pieces(all_pieces, share)
    assert len(held_out) == valid
    assert sorted([*train, *held_out], key=lambda p: p.offset) == all_pieces
    assert train == [p for p in all_pieces if p in train]  # in their order


def test_a_split_depends_on_the_music_and_not_on_names_or_order():
    all_pieces = pieces(40)
    _, valid = split_pieces(all_pieces, 0.2)
    renamed = [p._replace(title="x", file="y", split=1.0) for p in reversed(all_pieces)]
    _, shuffled = split_pieces(in_split_order(renamed, np.zeros((40, 32), dtype=np.uint32)), 0.2)
    assert {p.fingerprint for p in valid} == {p.fingerprint for p in shuffled}


def test_a_few_more_pieces_leave_most_of_the_split_as_it_was():
    _, before = split_pieces(pieces(200), 0.1)
    _, after = split_pieces(pieces(210), 0.1)
    assert len({p.fingerprint for p in before} & {p.fingerprint for p in after}) >= 15


def test_the_manifest_says_where_terms_are_stated_and_in_which_order_pieces_are_held_out(data, tmp_path):
    source = find_source(data / "freedoom")
    corpus = compile_corpus(source, BarsTokenizer(), cache=tmp_path)
    manifest = json.loads((corpus.folders[0] / "manifest.json").read_text())
    assert manifest["licences"] == ["COPYING.adoc", "CREDITS-MUSIC"]
    assert sorted(manifest["pieces"]["split"]) == [0.0, 0.25, 0.5, 0.75]
    _, valid = split_pieces(corpus.pieces, 0.25)
    assert [piece.split for piece in valid] == [0.0]
