"""The parts of benchmarks/irish.py: steps that join back to the text, places from the past alone, bars that add up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from irish_tunes.grammar import TuneCursor, complaints, faults  # noqa: E402
from irish_tunes.lab import Score, Tune, read_tunes  # noqa: E402
from irish_tunes.text import IrishTokenizer  # noqa: E402

TUNES = ROOT / "data" / "irish" / "tunes.abc"
TRAIN, UNSEEN = read_tunes(TUNES)
LEARNT = IrishTokenizer.learn([tune.text for tune in TRAIN])


def tune_in(key: str, body: str) -> str:
    return f"X:1\nT:A tune\nZ: id:dc-reel-1\nM:C\nL:1/8\nK:{key}\n{body}"


def walk(seed: int) -> TuneCursor:
    """A tune drawn evenly among what may come, of 12 bars or so."""
    generator = np.random.default_rng(seed)
    cursor = TuneCursor(LEARNT)
    while not cursor.done:
        if cursor.bars is None and cursor.bar >= 10:
            cursor.bars = cursor.bar + 2
        step: list[int] = []
        for _ in LEARNT.fields:
            step.append(int(generator.choice(np.flatnonzero(cursor.allowed(step)))))
        cursor.advance(step)
    return cursor


def test_a_triplet_stands_only_where_its_notes_have_a_length():
    """In half an eighth the grammar has 64ths for one, these tunes have not: a walk that began it could not go on."""
    for begun, fits in (("A2A2A3/2A2", False), ("A2A2A2A", True)):
        cursor = TuneCursor(LEARNT)
        for step in LEARNT.encode_text(tune_in("D Major", begun + "A|"))[1:]:
            cursor.advance(step)
            if cursor.text.endswith(begun):
                break
        assert cursor.text.endswith(begun)
        assert cursor.allowed([])[LEARNT.named["(3"]] == fits


def test_the_split_is_by_text_alone_and_leaves_no_tune_on_both_sides():
    assert len(TRAIN) + len(UNSEEN) == 60
    assert all(tune.first_byte < 26 for tune in UNSEEN)
    assert not {tune.text for tune in TRAIN} & {tune.text for tune in UNSEEN}


def test_the_protocol_has_734_tunes_to_learn_from_and_68_unseen_of_17066_characters(shared_data: Path):
    train, unseen = read_tunes(shared_data / "irish" / "irish.abc")
    assert (len(train), len(unseen), sum(tune.characters for tune in unseen)) == (734, 68, 17_066)


def test_every_tune_joins_back_to_its_text():
    for tune in (*TRAIN, *UNSEEN):
        assert LEARNT.decode_text(LEARNT.encode_text(tune.text)) == tune.text


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["", "X:1\nM:C\nL:1/8\nK:D Major\n"]))
def test_any_text_joins_back(text: str, before: str):
    assert LEARNT.decode_text(LEARNT.encode_text(before + text)) == before + text


def test_the_characters_of_the_steps_are_those_of_the_tune():
    tune = UNSEEN[0]
    steps = LEARNT.encode_text(tune.text)
    assert sum(count for count, _ in LEARNT.costs(steps, np.ones(len(steps) - 1).tolist())) == tune.characters


def test_a_tune_in_another_key_differs_in_the_step_that_names_the_key():
    tokenizer = IrishTokenizer.learn([tune_in("D Major", "d2 fA|=c2 ^GA:|!\n") * 2])
    steps = tokenizer.encode_text(tune_in("D Major", "d2 fA|=c2 ^GA:|!"))
    moved = tokenizer.in_key(steps, "F")
    assert (steps != moved).any(axis=1).sum() == 1
    assert tokenizer.decode_text(moved) == tune_in("F Major", "f2 ac|_e2 =Bc:|!")


def test_degrees_of_one_scale_are_the_same_in_every_key():
    in_g, in_a = (LEARNT.encode_text(tune_in(key, body)) for key, body in (("G Major", "G2Bd"), ("A Major", "A2ce")))
    assert in_g[-4:].tolist() == in_a[-4:].tolist()


def test_places_are_told_from_the_past_alone():
    steps = LEARNT.encode_text(TRAIN[0].text)
    whole = LEARNT.locate(steps)
    for end in range(1, len(steps), 7):
        assert np.array_equal(LEARNT.locate(steps[:end]), whole[:end])


def test_what_stood_there_four_bars_ago_is_told():
    body = "d2fA BGFE|A2ce dBAG|F2AF G2BG|EFGE D2FA|!\nd2fA BGFE|A2ce dBAG|F2AF G2BG|EFGE D4:|!"
    steps = LEARNT.encode_text(tune_in("D Major", body))
    names = [coordinate.name for coordinate in LEARNT.coordinates]
    told = LEARNT.locate(steps)[:-1, names.index("symbol 4 ago")]
    notes = LEARNT.is_note(steps)[1:]
    follows = told[notes] == steps[1:, 0][notes]
    assert not follows[:27].any()  # the first four bars
    assert follows[27:].all()


def test_walks_under_the_grammar_have_bars_that_add_up():
    for seed in range(3):
        text = walk(seed).text + "\n"
        assert not faults(text)
        assert not complaints(text)


def test_a_walk_is_where_its_steps_are_located():
    cursor = walk(5)
    assert cursor.coordinates() == tuple(LEARNT.locate(LEARNT.encode_text(cursor.text))[-1].tolist())


def test_a_bar_that_is_too_long_is_found():
    assert faults(tune_in("D Major", "d2fA BGFE|A2ce dBAGA|F2AF G2BG:|!\n")) == ["bar 2 does not sum to the metre"]


def test_a_pickup_and_the_short_bar_that_makes_up_for_it_are_no_fault():
    assert not faults(tune_in("D Major", "FA|d2fA BGFE|A2ce dB:|!\nAG|F2AF G2BG|EFGE D2:|!\n"))


def test_parts_of_a_score_add_up_to_the_whole():
    tune, score = Tune("X:1\nK:C\nabc"), Score()
    score.add(tune, [(4, 1.0), (4, 2.0), (3, 3.0), (2, 4.0)])
    assert (score.nats, score.header, sum(score.thirds)) == pytest.approx((10, 3, 10))


@pytest.mark.slow
def test_the_command_prints_a_row_for_each_model(tmp_path: Path):
    command = [sys.executable, ROOT / "benchmarks" / "irish.py", "--quick", "--samples", "1"]
    command += ["--json", tmp_path / "found.json", "--out", tmp_path / "tunes"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert {"n-gram", "the lab", "rnn", "lstm", "transformer", "these averaged"} <= set(found)
    assert [found[name]["sound"] for name in ("rnn", "lstm", "transformer")] == [1, 1, 1]
    assert len(list((tmp_path / "tunes").glob("*.abc"))) == 4
