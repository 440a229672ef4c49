"""The benchmarks run, on a few bundled files, as their documentation says; what they measure is not judged here."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HAS_MIDITOK = importlib.util.find_spec("miditok") is not None
needs_miditok = pytest.mark.skipif(not HAS_MIDITOK, reason="MidiTok is not installed: pip install -e '.[benchmarks]'")


def run(name: str, *arguments: object) -> str:
    """What a benchmark prints; warnings of other people's libraries are not ours to raise."""
    command = [sys.executable, "-W", "ignore", ROOT / "benchmarks" / name, *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("music")
    for name in ("d_intro.mid", "d_e1m8.mid"):
        shutil.copy(data / "freedoom" / name, folder)
    return folder


def test_every_benchmark_has_its_command_in_the_readme():
    listed = (ROOT / "benchmarks" / "README.md").read_text()
    for path in (ROOT / "benchmarks").glob("*.py"):
        assert f"`python benchmarks/{path.name} " in listed


def test_bars_takes_under_1_3_steps_a_note_on_bundled_pieces(data: Path, tmp_path: Path):
    run("economy.py", data / "freedoom", data / "orchestra", "--only", "bars", "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert [count["music"] for count in found] == ["freedoom", "orchestra"]
    assert [count["refused"] for count in found] == [0, 0]
    assert all(1 < count["steps_a_note"] < 1.3 for count in found)


@pytest.mark.slow
@needs_miditok
def test_the_economy_of_miditok_is_counted_on_the_same_pieces(music: Path, tmp_path: Path):
    run("economy.py", music, "--vocabularies", 1500, "--json", tmp_path / "found.json")
    found = {count["tokenizer"]: count for count in json.loads((tmp_path / "found.json").read_text())}
    for name in ("REMI", "TSD", "REMI + BPE", "TSD + BPE"):
        assert found[name]["pieces"] == found["bars"]["pieces"] == 2
    assert found["REMI"]["notes"] == found["bars"]["notes"]
    assert found["REMI + BPE"]["steps"] < found["REMI"]["steps"]


def test_reading_is_compared_with_pretty_midi_file_by_file(music: Path, tmp_path: Path):
    run("reading.py", "--short", music, "--rounds", 1, "--json", tmp_path / "found.json")
    claims = {c["beside"]: c for c in json.loads((tmp_path / "found.json").read_text())["claims"]}
    assert claims["pretty_midi"]["files"] == 2
    assert 1 < claims["pretty_midi"]["lowest"] <= claims["pretty_midi"]["ratio"]
    assert ("MidiTok REMI, as `bars`" in claims) == HAS_MIDITOK


def test_a_compiled_corpus_is_opened_again_and_not_compiled(music: Path, tmp_path: Path):
    run("reading.py", "--compile", music, "--rounds", 2, "--json", tmp_path / "found.json")
    by_folder, by_scores = json.loads((tmp_path / "found.json").read_text())["claims"]
    assert by_folder["files"] == by_scores["files"] == 2
    assert min(by_folder["ratio"], by_scores["ratio"]) > 2


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from /proc/self/smaps_rollup")
def test_streaming_is_measured_over_a_whole_epoch(music: Path, tmp_path: Path):
    run("reading.py", "--stream", music, "--json", tmp_path / "found.json")
    memory = json.loads((tmp_path / "found.json").read_text())["memory"]
    assert memory["notes"] > 500
    assert memory["batches"] >= 1
    assert memory["batch_mib"] > 0
    assert memory["all"] >= memory["opened"]


def test_the_options_of_training_are_measured_side_by_side(music: Path, tmp_path: Path):
    small = ("--set", "model.dim=16", "--set", "model.layers=1", "--set", "training.chunk=16", "--steps", 3)
    run("training.py", music, *small, "--only", "plain", "bf16", "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["option"] for row in found["rows"]] == ["plain", "bf16"]
    assert found["rows"][0]["kept_most_mib"] > 0
    assert found["padding"] == found["padding_held_out"] == 0


@pytest.mark.slow
def test_abc_is_compared_with_music21(data: Path, tmp_path: Path):
    tune = (data / "irish" / "tunes.abc").read_text(encoding="utf-8").split("\n\n")[0]
    (tmp_path / "tune.abc").write_text(tune + "\n", encoding="utf-8")
    run("reading.py", "--abc", tmp_path, "--rounds", 1, "--json", tmp_path / "found.json")
    (claim,) = json.loads((tmp_path / "found.json").read_text())["claims"]
    assert claim["beside"] == "music21"
    assert claim["ratio"] > 1
