"""A melody ends when told, with an ending: on the very bar that was asked for, on its tonic, held. For any model."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from musicgen.checkpoint import build_model
from musicgen.config import check_config
from musicgen.corpus import find_source
from musicgen.formats import read_scores
from musicgen.formats.abc import read_text
from musicgen.sampling import SamplingConfig, Take, finish
from musicgen.sampling.prompts import PROMPTS, heard_as
from musicgen.score import Score, clip
from musicgen.score.tonality import find_tonality
from musicgen.tokens import AbcTokenizer
from musicgen.tokens.abc_grammar import last_onset
from musicgen.tokens.abc_symbols import END, ID, PITCHES, VOCABULARY
from musicgen.tokens.ending import Ending

SYMBOLS = AbcTokenizer()
CHARACTERS = AbcTokenizer(characters=True)
BOTH = pytest.mark.parametrize("tokenizer", [SYMBOLS, CHARACTERS], ids=["symbols", "characters"])
METRES = {"4/4": (1920, 480), "2/4": (960, 480), "3/4": (1440, 480), "6/8": (1440, 720), "9/8": (2160, 720)}


@cache
def untrained(characters: bool = False):
    values = {"tokenizer": {"name": "abc", "characters": characters}, "model": {"dim": 16, "layers": 1}}
    config = check_config(values, "test")
    return build_model(config, config.tokenizer.build())


def takes_of(fragment: Score, tokenizer: AbcTokenizer = SYMBOLS, **options) -> list[Take]:
    model = untrained(tokenizer.spelled)
    return finish(fragment, model, tokenizer, config=SamplingConfig(), **{"bars": 3, "takes": 5, **options})


def complaint(fragment: Score, whole: Score, bars: int) -> str:
    """What is wrong with an ending; nothing, if all is well."""
    tonality = find_tonality(fragment)
    assert tonality is not None
    notes = np.concatenate([part.notes for part in whole.parts])
    last = notes[notes["onset"].argmax()]
    if len(whole.bars) != bars:
        return f"{len(whole.bars)} bars, not {bars}"
    if last["pitch"] % 12 != tonality.tonic:
        return f"ends on {last['pitch']}, not on {tonality.name}"
    if last["onset"] + last["duration"] != whole.length:
        return "the last note stops before the bar does"
    if 4 * last["duration"] < whole.length - whole.bars[-1]:
        return f"the last note lasts {last['duration']} ticks"
    return ""


def cuts(tune: Score, generator: np.random.Generator) -> list[int]:
    """Ticks at which to break a tune off: at a barline, where a note begins, on some beat, anywhere."""
    found = [
        int(generator.choice(tune.bars[1:])),
        int(generator.choice(tune.parts[0].notes["onset"][1:])),
        240 * int(generator.integers(1, tune.length // 240)),
        int(generator.integers(240, tune.length)),
    ]
    return [max(cut, 240) for cut in found]


def irregular(score: Score, first: int) -> list[int]:
    """Bars from number `first` on that do not sum to their metre, but for those that a repeat or a section cuts."""
    edges = {sign.onset for sign in score.signs} | {score.length}
    found = []
    for number, (start, length) in enumerate(zip(score.bars.tolist(), score.bar_lengths.tolist(), strict=True)):
        parted = length < score.metre_at(start).ticks and (start in edges or start + length in edges)
        if number >= first and length != score.metre_at(start).ticks and not parted:
            found.append(number)
    return found


# --- where the last note stands ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metre", "stop", "onset"),
    [
        ("4/4", 1920, 960),
        ("2/4", 960, 480),
        ("3/4", 1440, 480),
        ("6/8", 1440, 720),
        ("9/8", 2160, 720),
        ("6/8", 1200, 720),  # an eighth short, for a pickup: a quarter after the second beat
        ("4/4", 1440, 480),
    ],
)
def test_the_last_note_begins_on_the_last_beat_from_which_it_lasts_half_the_bar(metre: str, stop: int, onset: int):
    assert last_onset(0, stop, *METRES[metre]) == onset


def test_where_no_beat_will_do_the_last_note_begins_wherever_it_is_longest():
    assert last_onset(0, 1320, 1440, 720) == 360
    assert last_onset(0, 30, 1920, 480) == 0
    assert last_onset(0, 0, 1920, 480) is None


# --- the grammar ------------------------------------------------------------------------------------------------------


def after(text: str, tonic: int, bars: int) -> set[str]:
    """What may follow these symbols, written with spaces between, with an ending on a pitch class."""
    cursor = SYMBOLS.cursor(bars)
    cursor.ending = Ending(tonic, (tonic, (tonic + 4) % 12, (tonic + 7) % 12))
    for symbol in text.split():
        cursor.advance((ID[symbol],))
    return {VOCABULARY[i] for i in np.flatnonzero(cursor.allowed(()))}


def test_the_last_note_is_the_tonic_where_the_tune_has_been():
    assert after("M:4/4 K:G g 8 | B, 4", tonic=7, bars=2) == {"G", "g"}
    assert after("M:4/4 K:G B 8 | A 4", tonic=7, bars=2) == {"G"}  # none was used: the nearest


def test_the_tonic_is_spelled_as_the_bar_asks_for_it():
    assert after("M:4/4 K:D A 8 | B d", tonic=2, bars=2) >= {"2"}
    assert after("M:4/4 K:D A 8 | B e ^d 2", tonic=2, bars=2) == {"=d"}
    assert after("M:4/4 K:A c 8 | A 4", tonic=1, bars=2) == {"c"}  # C sharp, in three sharps
    assert after("M:4/4 K:A c 8 | =c 4", tonic=1, bars=2) == {"^c"}


def test_it_takes_up_what_is_left_of_the_bar():
    assert after("M:4/4 K:C G 8 | G 4 c", tonic=0, bars=2) == {"4"}
    assert after("M:4/4 K:C G 8 | G 4 c 4", tonic=0, bars=2) == {"|]"}
    assert after("M:4/4 K:C G 8 | G 4 c 4 |]", tonic=0, bars=2) == {"END"}


def test_it_may_come_before_its_place_if_it_is_held_all_the_longer():
    assert "8" in after("M:4/4 K:C G 8 | C", tonic=0, bars=2)
    assert "8" not in after("M:4/4 K:C G 8 | D", tonic=0, bars=2)


def test_what_comes_before_does_not_run_over_its_place():
    assert not {"6", "8"} & after("M:4/4 K:C G 8 | D", tonic=0, bars=2)
    assert not {"-", "z", "[", "(3"} & after("M:4/4 K:C G 8 | D 4", tonic=0, bars=2)
    assert "-" not in after("M:4/4 K:C C 8", tonic=0, bars=2)


def test_other_bars_are_free():
    free = SYMBOLS.cursor(3)
    for symbol in ["M:4/4", "K:C", "D", "8", "|", "D", "4"]:
        free.advance((ID[symbol],))
    allowed = {VOCABULARY[i] for i in np.flatnonzero(free.allowed(()))}
    assert after("M:4/4 K:C D 8 | D 4", tonic=0, bars=3) == allowed


def test_a_pickup_is_made_up_for_by_the_last_bar_of_a_repeat():
    assert after("M:6/8 K:G |: D | G 6 | D G A", tonic=7, bars=3) & set(PITCHES) == {"G"}
    assert after("M:6/8 K:G |: D | G 6 | D G A G 2", tonic=7, bars=3) == {":|"}


def walk(tokenizer: AbcTokenizer, bars: int | None, ending: Ending, rng: np.random.Generator):
    """Steps (T, 1) chosen evenly among what is allowed, and the cursor's coordinates (T, C)."""
    cursor = tokenizer.cursor(bars)
    cursor.ending = ending
    steps, coordinates = [tokenizer.start[0]], [cursor.coordinates()]
    while not cursor.done:
        choices = np.flatnonzero(cursor.allowed(()))
        assert len(choices), f"stuck after {tokenizer.text(np.array(steps))[-80:]}"
        step = int(rng.choice(choices))
        if cursor.bars is None and (cursor.bar > 5 or (step == END and not cursor.closed)):
            cursor.bars = cursor.bar + 1
            continue
        steps.append(step)
        cursor.advance((step,))
        coordinates.append(cursor.coordinates())
    return np.array(steps, dtype=np.int16)[:, None], np.array(coordinates)


@pytest.mark.parametrize(("tokenizer", "walks"), [(SYMBOLS, 300), (CHARACTERS, 60)], ids=["symbols", "characters"])
def test_random_walks_end_on_the_tonic(tokenizer: AbcTokenizer, walks: int):
    rng = np.random.default_rng(11)
    for number in range(walks):
        tonic, bars = number % 12, (1, 2, 3, 5, 8, None)[number % 6]
        steps, coordinates = walk(tokenizer, bars, Ending(tonic, (tonic, (tonic + 4) % 12, (tonic + 7) % 12)), rng)
        score = tokenizer.decode(steps)
        last = score.parts[0].notes[-1]
        text = tokenizer.text(steps)
        assert last["pitch"] % 12 == tonic, text
        assert last["onset"] + last["duration"] == score.length, text
        assert 4 * last["duration"] >= score.length - score.bars[-1], text
        if bars is not None:
            assert len(score.bars) == bars
            assert np.array_equal(tokenizer.locate(steps), coordinates), text


# --- real tunes -------------------------------------------------------------------------------------------------------


@BOTH
def test_irish_tunes_cut_anywhere_end_on_their_tonic(data: Path, tokenizer: AbcTokenizer):
    generator = np.random.default_rng(2)
    tunes = read_scores(data / "irish" / "tunes.abc")[:: 6 if tokenizer is SYMBOLS else 30]
    ended = 0
    for number, tune in enumerate(tunes):
        fragment = clip(tune, cuts(tune, generator)[number % 4])
        bars = 1 + number % 3
        for take in takes_of(fragment, tokenizer, bars=bars, takes=10 if tokenizer is SYMBOLS else 3, seed=number):
            assert not complaint(fragment, take.whole, len(fragment.bars) + bars), tune.title
            ended += 1
    assert ended == (100 if tokenizer is SYMBOLS else 6)


@pytest.mark.parametrize(
    "text",
    [
        "M:6/8\nL:1/8\nK:D\n|:A|dAF DFA|ded cBA|dcd efg|fe",
        "M:9/8\nL:1/8\nK:Edor\n|:BEE G2E FED|BEE G2B d2",
        "M:3/4\nL:1/8\nK:Am\nE2|A3B c2|d2 c2 B2|^G",
        "M:4/4\nL:1/8\nK:C\nCDEF (3GAB c|(3cde",
        "M:2/4\nL:1/8\nK:Bb\n|:BdfB|[1 cdef",
        "M:4/4\nL:1/8\nK:G\n|:D2|G4 G4|A4 B2:|D2|",
        "M:5/4\nL:1/8\nK:Emix\nE4 G4 B2|",
    ],
    ids=["6/8", "9/8", "3/4", "triplet", "first ending", "pickup owed", "5/4"],
)
@pytest.mark.parametrize("bars", [1, 2])
def test_whatever_is_open_at_the_seam_the_tune_ends(text: str, bars: int):
    fragment = read_text(f"X:1\n{text}\n")[0]
    for take in takes_of(fragment, bars=bars):
        assert not complaint(fragment, take.whole, len(fragment.bars) + bars)


def test_a_bar_that_stopped_inside_a_triplet_is_filled_to_its_metre():
    fragment = read_text("X:1\nM:4/4\nL:1/8\nK:C\nCDEF G4|(3cde (3fga\n")[0]
    fragment = clip(fragment, 1920 + 480 + 320)
    for take in takes_of(fragment):
        assert take.whole.bar_lengths.tolist() == [1920] * 5


def test_a_tune_that_ends_when_it_likes_ends_on_its_tonic(data: Path):
    tune = read_scores(data / "irish" / "tunes.abc")[3]
    fragment = clip(tune, int(tune.bars[4]) + 480)
    for take in takes_of(fragment, bars=None, max_bars=9):
        assert len(fragment.bars) < len(take.whole.bars) <= len(fragment.bars) + 9
        assert not complaint(fragment, take.whole, len(take.whole.bars))


def test_a_melody_stays_in_the_range_of_its_instrument(data: Path):
    tune = read_scores(data / "irish" / "tunes.abc")[3]
    flute = replace(tune, parts=(replace(tune.parts[0], program=73),))
    for take in takes_of(clip(flute, int(flute.bars[4])), bars=4):
        assert take.new.parts[0].notes["pitch"].min() >= 59


@pytest.fixture(scope="module")
def wild(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Score]:
    """Tunes of four collections: irish.abc, Nottingham, Ryan's Mammoth, O'Neill's."""
    folder = tmp_path_factory.mktemp("nottingham")
    with tarfile.open(shared_data / "nottingham.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    files = [
        *sorted(folder.rglob("*.abc")),
        *find_source("music21:ryansMammoth").scores[::40],
        *find_source("music21:oneills1850").scores[::4],
    ]
    found = read_scores(shared_data / "irish" / "irish.abc")[::10]
    for path in files:
        scores = read_scores(path)
        found += scores[:: max(len(scores) // 4, 1)]
    return [tune for tune in found if tune.note_count > 20]


@pytest.mark.slow
def test_a_hundred_takes_of_tunes_from_four_collections_all_end_on_their_tonic(wild: list[Score]):
    generator = np.random.default_rng(3)
    chosen = generator.choice(len(wild), 50, replace=False)
    for number, index in enumerate(chosen.tolist()):
        tune = wild[index]
        fragment = clip(tune, cuts(tune, generator)[number % 4])
        bars = (1, 2, 4)[number % 3]
        for take in takes_of(fragment, bars=bars, takes=2, seed=number):
            assert not complaint(fragment, take.whole, len(fragment.bars) + bars), tune.title
            assert not irregular(take.whole, len(fragment.bars)), tune.title


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("abc2midi") is None, reason="abc2midi is not installed")
def test_abc2midi_reads_what_was_finished_and_says_no_more_than_of_the_fragment(wild: list[Score], tmp_path: Path):
    generator = np.random.default_rng(4)
    tokenizer = SYMBOLS
    for number, index in enumerate(generator.choice(len(wild), 40, replace=False).tolist()):
        tune = wild[index]
        if irregular(tune, 1):
            continue
        fragment = clip(tune, cuts(tune, generator)[number % 4])
        prompt = PROMPTS["abc"](fragment, heard_as(fragment, tokenizer), tokenizer, None)
        cursor = prompt.cursor(prompt.bars + 2)
        for step in prompt.steps[1:].tolist():
            cursor.advance(step)
        prompt.hold(cursor)
        drawn = []
        while not cursor.done:
            drawn.append([int(generator.choice(np.flatnonzero(cursor.allowed(()))))])
            cursor.advance(drawn[-1])
        text = tokenizer.text(np.concatenate([prompt.steps, np.array(drawn)]))
        (tmp_path / "a.abc").write_text(text)
        command = ["abc2midi", str(tmp_path / "a.abc"), "-o", str(tmp_path / "a.mid")]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        assert not re.findall(r".*(?:Warning|Error).*", said), text
