"""The hidden ending: what is hidden, how it is measured, and the n-gram that is measured beside the networks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import hidden_ending as he  # noqa: E402
from step_ngram import StepNgram  # noqa: E402

from musicgen.corpus import compile_corpus, find_source  # noqa: E402
from musicgen.score.tonality import find_tonality  # noqa: E402
from musicgen.tokens import TOKENIZERS  # noqa: E402


@pytest.fixture(scope="module")
def corpus(data):
    return compile_corpus(find_source(data / "irish"), TOKENIZERS["abc"]())


@pytest.fixture(scope="module")
def hidden(corpus):
    return [found for piece in corpus.pieces[:12] if (found := he.hide(corpus, piece))]


def test_a_quarter_of_the_bars_is_hidden_and_nothing_is_lost(corpus, hidden):
    for piece in hidden:
        shown = len(piece.fragment.bars)
        assert shown == 3 * (shown + piece.bars) // 4
        whole = corpus.tokenizer.decode(piece.steps)
        assert piece.fragment.note_count + piece.ending.note_count == whole.note_count


def test_the_steps_from_the_first_hidden_one_on_are_the_endings_notes(corpus, hidden):
    for piece in hidden:
        assert int(corpus.tokenizer.is_note(piece.steps)[piece.first :].sum()) == piece.notes > 0


def test_a_true_ending_leaps_less_than_one_of_another_piece(hidden):
    true = np.mean([he.seam_leap(h.fragment, h.ending) for h in hidden])
    others = [*hidden[1:], hidden[0]]
    wrong = np.mean([he.seam_leap(h.fragment, o.ending) for h, o in zip(hidden, others, strict=True)])
    assert true < wrong


def test_an_ending_closes_where_its_last_note_is_the_tonic(hidden):
    for piece in hidden:
        last = int(piece.ending.parts[0].notes[-1]["pitch"])
        assert he.closes(piece.fragment, piece.ending) == (last % 12 == find_tonality(piece.fragment).tonic)


def test_an_n_gram_gives_each_field_a_distribution_and_knows_what_it_has_seen():
    steps = np.array([[1, 0], [2, 3], [4, 1], [2, 3], [4, 1], [2, 3]])
    ngram = StepNgram([6, 4])
    ngram.learn(steps)
    rows = list(map(tuple, steps[:4].tolist()))
    shares = ngram.shares(rows, 4, ())
    assert shares.sum() == pytest.approx(1)
    assert shares.argmax() == 4
    assert ngram.cost(steps, 3) < -np.log(1 / 6) * 3


def test_the_benchmark_prints_a_row_for_every_ending(tmp_path, data):
    command = [sys.executable, "-W", "ignore", ROOT / "benchmarks" / "hidden_ending.py", "--tunes", data / "irish"]
    command += ["--out", tmp_path / "out", "--minutes", "0.02", "--pieces", "3", "--decoders", "rnn", "lstm", "--adapt"]
    changes = ["training.valid_share=0.2", "model.dim=16", "model.layers=1"]
    command += [word for change in changes for word in ("--set", change)]
    command += ["--json", tmp_path / "found.json"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["ending"]: row for row in json.loads((tmp_path / "found.json").read_text())}
    assert list(rows) == ["the composer's own", "another piece's", "the last bars again", "n-gram", "rnn", "lstm"]
    for written in ("n-gram", "rnn", "lstm"):
        assert rows[written]["valid"] == rows[written]["bars"] == rows[written]["cadence"] == 1.0
        assert rows[written]["nats"] > 0
    assert rows["lstm"]["adapted"] > 0
    assert rows["n-gram"]["adapted"] is None
