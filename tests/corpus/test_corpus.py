"""Compiled corpora on disk: shards that are joined, runs that are stopped and gone on with, damaged folders."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musicgen.corpus import (
    Corpus,
    compile,
    compile_corpus,
    find_source,
    is_compiled,
    join,
    load_corpus,
    open_corpus,
    units,
)
from musicgen.corpus.corpus import LAYOUT
from musicgen.errors import CorpusError
from musicgen.formats import read_scores, write_score
from musicgen.score import Tempo, transpose
from musicgen.tokens import TOKENIZERS, AbcTokenizer, BarsTokenizer, PerformanceTokenizer

DATA = Path(__file__).resolve().parents[2] / "data"
SHARDS = 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty tunes and two pieces with drums, a file each; one of them twice, and one in another key."""
    music = tmp_path / "music"
    tunes = read_scores(DATA / "irish" / "tunes.abc")[:20]
    for i, tune in enumerate(tunes):
        write_score(tune, music / f"tune{i:02d}.mid")
    write_score(transpose(tunes[4], 2), music / "tune05-lower.mid")
    for name in ("freedoom/d_intro.mid", "freedoom/d_e1m8.mid"):
        shutil.copy(DATA / name, music)
    (music / "bad.mid").write_bytes(b"nonsense")
    return music


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def shards_of(folder: Path, cache: Path, out: Path) -> list[Path]:
    """The folder's shards, compiled each by itself as on a machine of its own."""
    folders = [out / f"{k}-of-{SHARDS}" for k in range(1, SHARDS + 1)]
    for k, made in enumerate(folders, 1):
        source = find_source(folder, (k, SHARDS))
        compile_corpus(source, BarsTokenizer(), cache=cache / str(k), out=made, workers=1)
    return folders


def music_of(corpus: Corpus) -> set[tuple]:
    """What a corpus holds, whatever its order: file, split and group of each piece, and its steps."""
    return {(p.fingerprint, p.split, p.group, corpus.steps_of(p).tobytes()) for p in corpus.pieces}


# shards


def test_shards_take_each_file_once(folder):
    whole = find_source(folder)
    shards = [find_source(folder, (k, SHARDS)) for k in range(1, SHARDS + 1)]
    assert sorted(name for shard in shards for name in shard.score_names) == list(whole.score_names)
    assert max(len(s.score_names) for s in shards) - min(len(s.score_names) for s in shards) <= 1


def test_shards_that_are_listed_hold_what_the_whole_folder_does(folder, cache, tmp_path):
    whole = compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, workers=1)
    joined = load_corpus(shards_of(folder, cache, tmp_path / "shards"), BarsTokenizer())
    assert {fact[0] for fact in music_of(joined)} == {fact[0] for fact in music_of(whole)}
    assert len(joined.pieces) == len(whole.pieces) == 22
    assert sorted(p.split for p in joined.pieces) == sorted(p.split for p in whole.pieces)
    assert {f.path for f in joined.files} == {f.path for f in whole.files}
    assert sum(f.kept for f in joined.files) == 22
    assert sum(f.duplicates for f in joined.files) == 1


def test_music_that_is_in_two_shards_is_kept_once_and_said(folder, cache, tmp_path):
    one = compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, out=tmp_path / "one", workers=1)
    two = compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, out=tmp_path / "two", workers=1)
    both = join([one, two])
    assert len(both.pieces) == len(one.pieces)
    assert sum("the same music" in reason for f in both.files for reason in f.skipped) == len(one.pieces) + 2
    assert music_of(both) == music_of(one)


def test_the_steps_of_joined_corpora_are_those_of_each(folder, cache, tmp_path):
    folders = shards_of(folder, cache, tmp_path / "shards")
    parts = [open_corpus(made, BarsTokenizer()) for made in folders]
    joined = join(parts)
    expected = {p.fingerprint: c.steps_of(p).tobytes() for c in reversed(parts) for p in c.pieces}
    assert {p.fingerprint: joined.steps_of(p).tobytes() for p in joined.pieces} == expected


@pytest.mark.parametrize("shard", [(0, 3), (4, 3), (1, 0)])
def test_a_shard_that_is_none_is_refused(folder, shard):
    with pytest.raises(CorpusError, match="expected K/N"):
        find_source(folder, shard)


def test_a_shard_with_nothing_in_it_is_refused(folder):
    with pytest.raises(CorpusError, match="shard 90/90 is empty"):
        find_source(folder, (90, 90))


# a folder that was asked for


def test_a_prepared_folder_is_opened_and_not_compiled_again(folder, cache, tmp_path, monkeypatch):
    made = compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, out=tmp_path / "made", workers=1)
    shutil.rmtree(folder)
    monkeypatch.setattr(units, "encode_file", None)
    again = load_corpus(tmp_path / "made", BarsTokenizer())
    assert again.cached
    assert again.key == made.key
    assert again.pieces == made.pieces
    assert not (cache / "corpora").exists()


def test_a_folder_that_holds_something_else_is_left_alone(folder, cache, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "letter.txt").write_text("dear")
    with pytest.raises(CorpusError, match="not empty"):
        compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, out=tmp_path / "made", workers=1)
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["letter.txt"]


def test_another_corpus_is_not_written_over(folder, cache, tmp_path):
    compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, out=tmp_path / "made", workers=1)
    (folder / "tune00.mid").unlink()
    with pytest.raises(CorpusError, match="holds another corpus"):
        compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, out=tmp_path / "made", workers=1)


def test_a_corpus_of_another_tokenizer_is_refused(folder, cache, tmp_path):
    compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, out=tmp_path / "made", workers=1)
    with pytest.raises(CorpusError, match="prepared for the tokenizer bars") as caught:
        load_corpus(tmp_path / "made", AbcTokenizer())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["a column less", "a row less", "another order"])
def test_a_manifest_whose_columns_do_not_fit_is_refused(folder, cache, tmp_path, change):
    compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, out=tmp_path / "made", workers=1)
    path = tmp_path / "made" / "manifest.json"
    manifest = json.loads(path.read_text())
    if change == "a column less":
        del manifest["pieces"]["bars"]
    elif change == "a row less":
        manifest["files"]["kept"].pop()
    else:
        manifest["pieces"] = dict(sorted(manifest["pieces"].items()))
    path.write_text(json.dumps(manifest))
    with pytest.raises(CorpusError, match="damaged"):
        load_corpus(tmp_path / "made", BarsTokenizer())


@pytest.mark.parametrize("name", ["steps.bin", "manifest.json", "melodies.npy"])
def test_a_damaged_corpus_is_refused_in_one_line(folder, cache, tmp_path, name):
    compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, out=tmp_path / "made", workers=1)
    damaged = tmp_path / "made" / name
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(CorpusError, match="damaged") as caught:
        load_corpus(tmp_path / "made", BarsTokenizer())
    assert "\n" not in str(caught.value)


# a run that is stopped


def test_a_stopped_run_is_gone_on_with(folder, cache, monkeypatch):
    monkeypatch.setattr(units, "UNIT_FILES", 4)
    real, read = units.encode_file, []

    def until_the_tenth(job):
        read.append(job[0])
        if len(read) == 10:
            raise KeyboardInterrupt
        return real(job)

    monkeypatch.setattr(units, "encode_file", until_the_tenth)
    with pytest.raises(KeyboardInterrupt):
        compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, workers=1)
    assert not list(cache.glob("corpora/*"))
    told: list[tuple[int, int]] = []
    first, read[:] = list(read), ["nothing"] * 10
    corpus = compile_corpus(
        find_source(folder), BarsTokenizer(), cache=cache, workers=1, progress=lambda *done: told.append(done)
    )
    again = read[10:]
    assert set(first[:8]).isdisjoint(again)  # two whole units were kept
    assert sorted({*first, *again}) == [str(p) for p in find_source(folder).scores]
    assert told[0] == (8, 24)
    assert told[-1] == (24, 24)
    monkeypatch.setattr(units, "encode_file", real)
    whole = compile_corpus(find_source(folder), BarsTokenizer(), cache=cache / "other", workers=1)
    for name in ("steps.bin", "melodies.npy", "manifest.json"):
        assert (whole.folders[0] / name).read_bytes() == (corpus.folders[0] / name).read_bytes()


@pytest.mark.slow
def test_killed_in_the_middle_of_a_parallel_run_and_run_again_gives_the_same_bytes(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from musicgen.corpus import compile_corpus, find_source; from musicgen.tokens import BarsTokenizer\n"
        "if __name__ == '__main__':\n"
        "    compile_corpus(find_source(sys.argv[1]), BarsTokenizer(), cache=Path(sys.argv[2]), workers=2)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    command = [sys.executable, str(script), str(DATA), str(tmp_path / "cache")]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    done = tmp_path / "cache" / "units"
    while run.poll() is None and not list(done.glob("*/*.json")):
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert list(done.glob("*/*.json"))
    subprocess.run(command, check=True)
    whole = compile_corpus(find_source(DATA), BarsTokenizer(), cache=tmp_path / "other", workers=1)
    (resumed,) = (tmp_path / "cache" / "corpora").iterdir()
    assert resumed.name == whole.folders[0].name
    for name in ("steps.bin", "melodies.npy", "manifest.json"):
        assert (whole.folders[0] / name).read_bytes() == (resumed / name).read_bytes()


@pytest.mark.slow
def test_a_script_without_a_guarded_main_part_compiles_all_the_same(folder, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import sys; from pathlib import Path\n"
        "from musicgen.corpus import compile_corpus, find_source; from musicgen.tokens import BarsTokenizer\n"
        "source, cache = find_source(sys.argv[1]), Path(sys.argv[2])\n"
        "print(len(compile_corpus(source, BarsTokenizer(), cache=cache, workers=2).pieces))\n"
    )
    words = [sys.executable, str(script), str(folder), str(tmp_path / "cache")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "22\n"), done.stderr


# opening


def test_while_sizes_and_times_are_the_same_no_file_is_read_again(folder, cache, monkeypatch):
    first = compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, workers=1)
    monkeypatch.setattr(compile, "_hash", None)
    again = compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, workers=1)
    assert again.cached
    assert again.key == first.key


def test_a_copy_of_the_folder_is_known_by_its_content(folder, cache, tmp_path):
    first = compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, workers=1)
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    again = compile_corpus(find_source(tmp_path / "copy"), BarsTokenizer(), cache=cache, workers=1)
    assert again.cached
    assert again.key == first.key


def test_a_folder_of_scores_is_no_corpus(folder, cache, tmp_path):
    assert not is_compiled(folder)
    assert is_compiled(compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, workers=1).folders[0])
    assert not is_compiled(tmp_path / "nowhere")


def test_the_melodies_are_beside_the_pieces(folder, cache):
    corpus = compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, workers=1)
    assert np.load(corpus.folders[0] / "melodies.npy").shape == (len(corpus.pieces), 32)


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="names of files are text there")
def test_a_file_whose_name_is_no_text_is_opened_again(folder, cache):
    (folder / "d_intro.mid").rename(folder / os.fsdecode(b"caf\xe9.mid"))
    first = compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, workers=1)
    again = compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, workers=1)
    assert again.cached
    assert again.pieces == first.pieces
    assert os.fsdecode(b"caf\xe9.mid") in [report.path for report in again.files]


def test_a_file_that_could_not_be_opened_is_tried_again(folder, cache, monkeypatch):
    real = Path.open

    def locked(self, *arguments, **options):
        if self.name == "d_intro.mid":
            raise PermissionError(13, "Permission denied")
        return real(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", locked)
        first = compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, workers=1)
    again = compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, workers=1)
    assert not again.cached
    assert len(again.pieces) == len(first.pieces) + 1


def test_another_run_on_the_same_folder_that_ends_first_does_no_harm(folder, cache, monkeypatch):
    real = compile.read_units

    def overtaken(*arguments):
        monkeypatch.setattr(compile, "read_units", real)
        compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, workers=1)
        shutil.rmtree(cache / "units")
        real(*arguments)
        shutil.rmtree(cache / "units")

    monkeypatch.setattr(compile, "read_units", overtaken)
    corpus = compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, workers=1)
    assert len(corpus.pieces) == 22


def test_a_shard_of_bad_files_alone_is_an_empty_shard_and_merges(folder, cache, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "noise.mid").write_bytes(b"nonsense")
    empty = compile_corpus(find_source(bad), BarsTokenizer(), cache=cache, out=tmp_path / "empty", workers=1)
    assert empty.pieces == ()
    compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, out=tmp_path / "full", workers=1)
    joined = load_corpus([tmp_path / "empty", tmp_path / "full"], BarsTokenizer())
    assert len(joined.pieces) == 22
    assert any(report.path == "noise.mid" and report.skipped for report in joined.files)
    with pytest.raises(CorpusError, match="no pieces"):
        load_corpus(tmp_path / "empty", BarsTokenizer())


def test_a_name_that_is_not_utf_8_does_no_harm(folder, cache):
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.abc")).write_text("X:1\nK:C\nCDEF GABc|]\n")
    corpus = compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, workers=1)
    assert "bad\udcff.abc" in [report.path for report in corpus.files]
    assert compile_corpus(find_source(folder), BarsTokenizer(), cache=cache, workers=1).files == corpus.files


def test_performances_at_other_tempi_are_not_the_same_in_clock_time(tmp_path, cache):
    score = read_scores(DATA / "irish" / "tunes.abc")[0]
    for bpm in (60.0, 90.0):
        write_score(replace(score, tempos=(Tempo(0, bpm),)), tmp_path / f"{bpm:g}.mid")
    in_time = compile_corpus(find_source(tmp_path), PerformanceTokenizer(), cache=cache, workers=1)
    in_bars = compile_corpus(find_source(tmp_path), BarsTokenizer(), cache=cache, workers=1)
    assert (len(in_time.pieces), len(in_bars.pieces)) == (2, 1)


GOLDEN = {
    "irish": ("abc", "8 381788fd146b4bfd"),
    "orchestra": ("bars", "8 4edcfe63a1ba352d"),
    "freedoom": ("bars", "8 dc22b6b5d74347d4"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_layout_is_raised_when_the_same_file_becomes_other_steps(name, cache):
    tokenizer, expected = GOLDEN[name]
    corpus = compile_corpus(find_source(DATA / name), TOKENIZERS[tokenizer](), cache=cache, workers=1)
    found = f"{LAYOUT} {hashlib.sha256((corpus.folders[0] / 'steps.bin').read_bytes()).hexdigest()[:16]}"
    assert found == expected, "readers or tokenizers changed: raise LAYOUT in corpus/corpus.py, and write this down"
