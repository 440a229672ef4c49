"""Bars of the fragment brought back where they were asked for: note for note, in every take, by any model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musicgen.checkpoint import build_model
from musicgen.config import check_config
from musicgen.decoders.model import Model
from musicgen.errors import FinishError
from musicgen.formats import read_score, write_score
from musicgen.sampling import SamplingConfig, finish
from musicgen.sampling.finish import make_prompt, parts_named
from musicgen.sampling.recalled import RecalledBars, given_steps, parse_recall
from musicgen.sampling.sampler import Sampled, sample
from musicgen.score import Score, bars_between, clip
from musicgen.score.tonality import find_tonality
from musicgen.tokens import TOKENIZERS
from musicgen.tokens.bars_vocabulary import BAR
from musicgen.workflows import finish_score

TOKENIZER = TOKENIZERS["bars"]()
BARS, TAKES = 12, 3
RECALL = (RecalledBars(1, 4, 3), RecalledBars(6, 6, 9))
CONFIG = SamplingConfig()


@pytest.fixture(scope="module", params=["lstm", "transformer"])
def model(request) -> Model:
    """One that has learnt nothing."""
    torch.manual_seed(5)
    values = {"model": {"decoder": request.param, "dim": 16, "layers": 1, "heads": 2, "memory": 64}}
    return build_model(check_config(values, "test"), TOKENIZER).eval()


@pytest.fixture(scope="module")
def scherzo(data) -> Score:
    return read_score(data / "schubert-d759" / "scherzo.mid")


@pytest.fixture(scope="module")
def takes(model, scherzo):
    return finish(scherzo, model, TOKENIZER, bars=BARS, takes=TAKES, seed=1, config=CONFIG, recalled=RECALL)


def in_bar(score: Score, bar: int) -> list[list[tuple[int, int, int]]]:
    """Part by part, what begins in a bar (from 1): onset in the bar, pitch, duration."""
    starts = [*score.bars.tolist(), score.length]
    found = []
    for part in score.parts:
        notes = part.notes[(part.notes["onset"] >= starts[bar - 1]) & (part.notes["onset"] < starts[bar])]
        rows = zip(notes["onset"] - starts[bar - 1], notes["pitch"], notes["duration"], strict=True)
        found.append(sorted((int(a), int(b), int(c)) for a, b, c in rows))
    return found


def tonic_chord(score: Score) -> set[int]:
    """The pitch classes of what sounds last."""
    sounding = [
        part.notes["pitch"][part.notes["onset"] + part.notes["duration"] == score.length] for part in score.parts
    ]
    return set((np.concatenate(sounding) % 12).tolist())


def test_the_bars_come_back_note_for_note_in_every_part_of_every_take(takes, scherzo):
    for take in takes:
        for old, new in zip((1, 2, 3, 4, 6), (3, 4, 5, 6, 9), strict=True):
            assert in_bar(take.whole, 9 + new) == in_bar(scherzo, old)


def test_the_takes_differ_elsewhere(takes):
    for bar in (1, 2, 7, 8, 10, 11):
        assert len({str(in_bar(take.whole, 9 + bar)) for take in takes}) == TAKES


def test_bars_are_exact_and_the_last_one_is_the_tonic_chord(takes, scherzo):
    for take in takes:
        assert len(take.whole.bars) == 9 + BARS
        assert tonic_chord(take.whole) <= set(find_tonality(scherzo).triad)


def test_the_original_comes_before_them_as_it_was(takes, scherzo):
    for take in takes:
        for bar in range(1, 10):
            assert in_bar(take.whole, bar) == in_bar(scherzo, bar)


def test_the_same_seed_gives_the_same_takes(takes, model, scherzo):
    again = finish(scherzo, model, TOKENIZER, bars=BARS, takes=TAKES, seed=1, config=CONFIG, recalled=RECALL)
    assert [take.whole for take in again] == [take.whole for take in takes]


def test_a_take_is_the_same_whatever_the_others_are(model, scherzo):
    recalled = [RecalledBars(2, 3, 2)]
    alone, together = (
        finish(scherzo, model, TOKENIZER, bars=6, takes=takes, seed=2, config=CONFIG, recalled=recalled)
        for takes in (1, 3)
    )
    assert alone[0].whole in [take.whole for take in together]


def at_seam(fragment: Score, bars: int):
    """The prompt, and its cursor held to the fragment's course."""
    prompt = make_prompt(fragment, TOKENIZER)
    cursor = prompt.cursor(prompt.bars + bars)
    for step in prompt.steps[1:]:
        cursor.advance(step.tolist())
    prompt.hold(cursor)
    return prompt, cursor


def test_steps_that_are_given_are_taken_and_cost_no_nats(model, scherzo):
    """With two bars recalled, nothing but the closing chord is drawn; with that given too, nothing at all."""

    def continued(more: dict[int, np.ndarray]) -> Sampled:
        prompt, cursor = at_seam(scherzo, 3)
        given = given_steps([RecalledBars(1, 2, 1)], scherzo, prompt, cursor, 3)
        places = TOKENIZER.locate(prompt.steps)
        return sample(
            model, TOKENIZER, [cursor], prompt.steps, config=CONFIG, seed=3, most_bars=12,
            prompt_coordinates=places, given=given | more,
        )[0]  # fmt: skip

    first = continued({})
    chord = first.steps[np.flatnonzero(first.steps[:, 0] == BAR)[2] + 1 :]
    again = continued({12: chord})
    assert np.array_equal(again.steps, first.steps)
    assert first.nats > 0.0
    assert again.nats == 0.0


def test_what_is_given_keeps_the_grammar(model, scherzo):
    """Every step of a take, those that were given too, is one that might have been drawn."""
    prompt, cursor = at_seam(scherzo, 6)
    for bar, steps in given_steps([RecalledBars(1, 4, 2)], scherzo, prompt, cursor, 6).items():
        while cursor.bar < bar:
            cursor.advance((BAR, 0, 0, cursor.metre_units, 0))
        for step in steps.tolist():
            for field in range(5):
                assert cursor.allowed(step[:field])[step[field]], (bar, step, field)
            cursor.advance(step)


def test_parts_that_do_not_go_on_are_silent_there_too(model, scherzo):
    only = parts_named(scherzo, ["Violino I", "Viola"])
    (take,) = finish(scherzo, model, TOKENIZER, bars=5, config=CONFIG, only=only, recalled=[RecalledBars(1, 2, 2)])
    found = in_bar(take.whole, 9 + 2)
    for number, notes in enumerate(in_bar(scherzo, 1)):
        assert found[number] == (notes if number in only else [])


def test_a_note_that_sounds_on_is_cut_before_the_closing_chord_only(model, data):
    """The fourth bar of Beethoven's fifth: its note is held through the next."""
    symphony = read_score(data / "orchestra" / "beethoven-op67-1.mid")
    score = clip(symphony, int(symphony.bars[20]))
    assert max(duration for notes in in_bar(score, 4) for _, _, duration in notes) > score.bar_lengths[3]
    early, late = (
        finish(score, model, TOKENIZER, bars=8, config=CONFIG, recalled=[RecalledBars(4, 4, at)])[0].whole
        for at in (3, 7)
    )
    for found, own in zip(in_bar(early, 20 + 3), in_bar(score, 4), strict=True):
        assert [note[:2] for note in found] == [note[:2] for note in own]
    # one of its own pitch may be struck in the next bar, and cut it there
    assert max(duration for notes in in_bar(early, 20 + 3) for _, _, duration in notes) > score.bar_lengths[3]
    stops = [onset + duration for notes in in_bar(late, 20 + 7) for onset, _, duration in notes]
    assert max(stops) == late.bar_lengths[26]


@pytest.mark.parametrize(
    ("words", "expected"),
    [("1-4@17", (1, 4, 17)), ("3@1", (3, 3, 1)), (" 2 - 3 @ 5 ", (2, 3, 5)), ("7-7@9", (7, 7, 9))],
)
def test_what_is_asked_for_is_read(words, expected):
    assert parse_recall(words) == RecalledBars(*expected)


@pytest.mark.parametrize("words", ["", "4", "1-4", "@3", "4-1@3", "0-2@3", "1-4@0", "a-b@c", "1-4@17@2", "-1@2", "٣@1"])
def test_what_is_not_bars_at_a_bar_is_refused_in_one_line(words):
    with pytest.raises(FinishError, match="--recall") as refused:
        parse_recall(words)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("recalled", "bars", "message"),
    [
        ([RecalledBars(1, 4, 3)], None, "say with --bars"),
        ([RecalledBars(1, 4, 6)], 8, "up to new bar 9, and --bars is 8"),
        ([RecalledBars(1, 4, 5)], 8, "new bar 8 is the last, and will be the closing chord"),
        ([RecalledBars(8, 10, 1)], 8, "the fragment has 9 bars"),
        ([RecalledBars(1, 4, 1), RecalledBars(1, 1, 4)], 8, "new bar 4 is taken by --recall 1-4@1"),
    ],
)
def test_bars_that_are_not_there_or_do_not_fit_are_refused(model, scherzo, recalled, bars, message):
    with pytest.raises(FinishError, match=message):
        finish(scherzo, model, TOKENIZER, bars=bars, config=CONFIG, recalled=recalled)


def test_a_bar_of_another_metre_is_refused(model, data):
    """In the third movement of the Pastoral, 3/4 becomes 2/4."""
    fragment = bars_between(read_score(data / "orchestra" / "beethoven-op68-3.mid"), 0, 180)
    with pytest.raises(FinishError, match="bar 2 is not as long as a bar of the continuation"):
        finish(fragment, model, TOKENIZER, bars=8, config=CONFIG, recalled=[RecalledBars(2, 2, 2)])


def test_an_upbeat_is_refused(model, data):
    fragment = bars_between(read_score(data / "orchestra" / "beethoven-op55-3.mid"), 0, 12)
    with pytest.raises(FinishError, match="bar 1 is not as long as a bar of the continuation"):
        finish(fragment, model, TOKENIZER, bars=8, config=CONFIG, recalled=[RecalledBars(1, 4, 2)])


def test_a_last_bar_that_is_not_complete_is_refused(model, scherzo):
    fragment = clip(scherzo, scherzo.length - 480)
    with pytest.raises(FinishError, match="bar 9 is not complete"):
        finish(fragment, model, TOKENIZER, bars=8, config=CONFIG, recalled=[RecalledBars(8, 9, 2)])


def test_after_a_half_filled_bar_new_bars_are_counted_from_the_next(model, scherzo):
    fragment = clip(scherzo, scherzo.length - 480)
    (take,) = finish(fragment, model, TOKENIZER, bars=4, config=CONFIG, recalled=[RecalledBars(2, 2, 1)])
    assert in_bar(take.whole, 10) == in_bar(scherzo, 2)


def test_a_model_of_one_melody_brings_no_bars_back(tunes, data, tmp_path):
    tune = tmp_path / "tune.abc"
    tune.write_text("X:1\nT:A\nM:4/4\nL:1/4\nK:C\nCDEF|GAGF|EDCD|\n")
    with pytest.raises(FinishError, match="models of `abc` can't bring bars back; use a `bars` model"):
        finish_score(tune, tunes.folder, tmp_path / "out.abc", bars=4, recall=["1@2"])
    assert [path.name for path in tmp_path.iterdir()] == ["tune.abc"]


def test_the_report_says_which_bars_and_where_themes_are_quoted(orchestra, data, tmp_path):
    fragment = tmp_path / "eroica.mid"
    score = read_score(data / "orchestra" / "beethoven-op55-3.mid")
    write_score(clip(score, int(score.bars[60])), fragment)
    out = tmp_path / "out.mid"
    report = finish_score(fragment, orchestra.folder, out, bars=14, takes=2, recall=["8-16@2"])
    page = report.page.read_text()
    assert "- bars 8 to 16 brought back as new bars 2 to 10" in page
    first = report.themes[0]
    assert first.first.bar == 8
    for name in ("out.mid", "out-take2.mid"):
        line = next(line for line in page.splitlines() if line.startswith(f"- {name}: bar"))
        assert f"bar 62 theme 1, all {len(first.notes)} notes" in line
