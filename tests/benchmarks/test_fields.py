"""The flat tokens of benchmarks/fields.py: the same music, bounded and placed as the steps that they were made of."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from musicgen.checkpoint import build_model
from musicgen.config import RunConfig
from musicgen.corpus import compile_corpus, find_source
from musicgen.decoders.model import ModelConfig
from musicgen.formats import read_score
from musicgen.tokens import BarsTokenizer, GridTokenizer, PerformanceTokenizer
from musicgen.training.evaluate import evaluate

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from fields import Flat, flat_corpus, held_out  # noqa: E402

CHORALES = find_source("music21:bach").root
TOKENIZERS = [BarsTokenizer(), GridTokenizer(), GridTokenizer(holds=False)]


@cache
def steps_in(tokenizer) -> np.ndarray:
    """An orchestral movement for `bars`, a chorale for `grid`."""
    haydn, bach = ROOT / "data" / "orchestra" / "haydn-104-1.mid", CHORALES / "bwv66.6.mxl"
    return tokenizer.encode(read_score(haydn if tokenizer.name == "bars" else bach))


@pytest.fixture(params=TOKENIZERS, ids=lambda tokenizer: tokenizer.name)
def of(request):
    return request.param


def test_flat_tokens_are_the_steps_again(of):
    steps, flat = steps_in(of), Flat(of)
    tokens = flat.flatten(steps)
    assert tokens.shape == (np.count_nonzero(steps), 1)
    assert np.array_equal(flat.steps(tokens), steps)


def test_flat_tokens_count_every_note_once(of):
    steps, flat = steps_in(of), Flat(of)
    assert flat.is_note(flat.flatten(steps)).sum() == of.is_note(steps).sum()


def test_a_token_may_be_what_its_field_may_be_and_nothing_else(of):
    steps, flat = steps_in(of)[:400], Flat(of)
    tokens = flat.flatten(steps)
    found = flat.masks(tokens, flat.locate(tokens), 1, len(tokens))[0]
    own = of.masks(steps, of.locate(steps), 1, len(steps))
    step, field = np.nonzero(steps)
    for row, (t, f) in enumerate(zip(step[1:], field[1:], strict=True)):
        values = np.flatnonzero(own[f][t - 1]) if f in own else np.arange(of.fields[f].size)
        labels = {flat.fields[0].labels[token] for token in np.flatnonzero(found[row])}
        assert labels == {f"{of.fields[f].name} {of.fields[f].labels[value]}" for value in values if value}


def test_masks_of_a_chunk_that_cuts_a_step_are_those_of_the_whole(of):
    flat = Flat(of)
    tokens = flat.flatten(steps_in(of)[:200])
    places = flat.locate(tokens)
    whole = flat.masks(tokens, places, 1, len(tokens))[0]
    for start, stop in ((1, 7), (90, 153), (301, 302)):
        assert np.array_equal(flat.masks(tokens, places, start, stop)[0], whole[start - 1 : stop - 1])


def test_coordinates_are_told_from_the_past_alone(of):
    steps, flat = steps_in(of), Flat(of)
    tokens = flat.flatten(steps)
    told = [i for i, coordinate in enumerate(flat.coordinates) if not coordinate.ahead]
    whole = flat.locate(tokens)[:, told]
    for end in (9, 50, 111, 302):
        assert np.array_equal(flat.locate(tokens[:end])[: end - 1, told], whole[: end - 1])


def test_the_token_that_completes_a_step_is_where_the_step_is(of):
    steps, flat = steps_in(of), Flat(of)
    places = flat.locate(flat.flatten(steps))
    completes = np.append(np.diff(np.nonzero(steps)[0]) > 0, True)
    assert np.array_equal(places[completes, :-1], of.locate(steps))


def test_flat_tokens_are_transposed_as_steps(of):
    steps, flat = steps_in(of), Flat(of)
    moved = flat.transpose(flat.flatten(steps), -2)
    assert np.array_equal(moved, flat.flatten(of.transpose(steps, -2)))
    assert flat.transpose(flat.flatten(steps), 90) is None


def test_a_flat_pitch_is_heard_at_its_own_place(of):
    flat, field = Flat(of), max(of.hearing.places)
    pitches = np.flatnonzero(flat.kinds == field)
    assert np.array_equal(flat.hearing.places[0][pitches], of.hearing.places[field][1:])
    assert set(flat.hearing.kinds[0][pitches]) == {len(of.hearing.places) - 1}


def test_one_field_is_flat_already():
    with pytest.raises(ValueError, match="flat already"):
        Flat(PerformanceTokenizer())


def test_held_out_is_what_the_program_says_and_the_same_pieces_in_both_forms(data: Path):
    corpus = compile_corpus(find_source(data / "freedoom" / "d_intro.mid"), BarsTokenizer(), workers=1)
    config = RunConfig(model=ModelConfig(decoder="lstm", dim=8, layers=1))
    torch.manual_seed(0)
    model, flat = build_model(config, corpus.tokenizer), flat_corpus(corpus)
    found = held_out(model, corpus, corpus.pieces)
    assert found.all == pytest.approx(evaluate(model, corpus, corpus.pieces).per_note)
    in_flat = held_out(build_model(config, flat.tokenizer), flat, flat.pieces)
    assert in_flat.by_field.keys() == found.by_field.keys()
    assert flat.pieces[0].length == np.count_nonzero(corpus.steps_of(corpus.pieces[0]))


@pytest.mark.slow
def test_the_command_prints_a_row_for_each_form_of_each_music(tmp_path: Path, data: Path):
    (tmp_path / "chorales").mkdir()
    for name in ("bwv66.6.mxl", "bwv269.mxl", "bwv7.7.mxl"):
        shutil.copy(CHORALES / name, tmp_path / "chorales")
    command = [sys.executable, "-W", "ignore", ROOT / "benchmarks" / "fields.py", "--quick", "--as-much"]
    command += ["--grid", tmp_path / "chorales", "--bars", data / "freedoom", "--limit", 2, "--decoders", "lstm"]
    command += ["--json", tmp_path / "found.json"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "found.json").read_text())
    expected = [("fields", ""), ("flat", ""), ("fields", "as many updates")]
    assert [(row["form"], row["change"]) for row in rows] == expected * 2
    for fields, flat, as_many in (rows[:3], rows[3:]):
        assert fields["notes_in_memory"] > 2 * flat["notes_in_memory"]
        assert flat["updates"] == as_many["updates"]
