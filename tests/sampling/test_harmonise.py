"""Harmonising real melodies with models that have hardly been trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musicgen.errors import FinishError
from musicgen.formats import read_score, read_tunes
from musicgen.formats.instruments import playing_range
from musicgen.sampling import SamplingConfig
from musicgen.sampling.band import parts_to_add
from musicgen.sampling.harmonise import BLOCK, harmonise, usual_company
from musicgen.score import Score
from musicgen.tokens.bars_grammar import CHORD_GAP
from musicgen.tokens.bars_vocabulary import INSTANCES, INSTRUMENT

CONFIG = SamplingConfig(top_p=0.98)


@pytest.fixture(scope="module")
def chorale_melody() -> Score:
    """The soprano of a chorale with a pickup."""
    music21 = pytest.importorskip("music21")
    score = read_score(music21.corpus.getWork("bach/bwv269.mxl"))
    return replace(score, parts=score.parts[:1], signs=())


def harmonised(loaded, melody, added, **options):
    parts = parts_to_add(added, melody.parts)
    return harmonise(melody, loaded.model, loaded.tokenizer, added=parts, config=CONFIG, **options)


def test_the_melody_comes_back_and_the_others_follow_it(orchestra, chorale_melody):
    for take in harmonised(orchestra, chorale_melody, ["violin", "viola", "cello"], takes=2):
        assert take.whole.parts[0] == chorale_melody.parts[0]
        assert [part.program for part in take.whole.parts[1:]] == [40, 41, 42]
        assert (take.whole.length, take.whole.metres) == (chorale_melody.length, chorale_melody.metres)
        assert (take.whole.bars == chorale_melody.bars).all()


def test_each_added_part_plays_in_each_block_and_in_its_range(orchestra, chorale_melody):
    (take,) = harmonised(orchestra, chorale_melody, ["viola", "bassoon"])
    bars = chorale_melody.bars
    for part in take.whole.parts[1:]:
        low, high = playing_range(part.program)
        assert low <= part.notes["pitch"].min()
        assert part.notes["pitch"].max() <= high
        assert part.end <= chorale_melody.length
        for first in range(0, len(bars), BLOCK):
            stop = bars[first + BLOCK] if first + BLOCK < len(bars) else chorale_melody.length
            assert ((part.notes["onset"] >= bars[first]) & (part.notes["onset"] < stop)).any()


def test_a_single_line_stays_a_single_line(orchestra, chorale_melody):
    (take,) = harmonised(orchestra, chorale_melody, ["cello"])
    onsets = take.whole.parts[1].notes["onset"]
    assert len(set(onsets.tolist())) == len(onsets)


def test_an_irish_tune_is_harmonised_as_it_is_written(orchestra, data):
    tune = read_tunes(sorted((data / "irish").glob("*.abc"))[0])[0]
    (take,) = harmonised(orchestra, tune, ["cello"])
    assert take.whole.parts[0] == tune.parts[0]
    assert take.whole.signs == tune.signs


def test_the_same_seed_harmonises_alike(orchestra, chorale_melody):
    one, two = (harmonised(orchestra, chorale_melody, ["cello"], seed=3)[0].whole for _ in range(2))
    assert one == two


def test_two_melodies_are_harmonised_together(orchestra, data):
    score = read_score(data / "schubert-d759" / "scherzo.musicxml")
    (take,) = harmonised(orchestra, score, ["piano"])
    assert take.whole.parts[: len(score.parts)] == score.parts
    assert take.notes > 0


def test_too_many_parts_of_one_instrument_are_refused(orchestra, chorale_melody):
    with pytest.raises(FinishError, match="one instrument"):
        harmonised(orchestra, chorale_melody, ["flute"] * 9)


def test_strings_are_added_where_nobody_says_who_and_voices_to_a_voice(chorale_melody):
    violins, choir = ([INSTRUMENT + kind * INSTANCES + i for i in range(4)] for kind in (40, 52))
    viola, cello = (INSTRUMENT + kind * INSTANCES for kind in (41, 42))
    strings = [violins[0], viola, cello]
    voice = replace(chorale_melody, parts=(replace(chorale_melody.parts[0], program=52),))
    flute = replace(chorale_melody, parts=(replace(chorale_melody.parts[0], program=73),))
    assert usual_company(flute, None) == ("40", "41", "42")
    assert usual_company(voice, [*strings, *choir]) == ("52", "52", "52")
    assert usual_company(flute, [*strings, *choir]) == ("40", "41", "42")
    assert usual_company(flute, choir) == ("52", "52", "52")


def test_nothing_is_struck_above_the_melody(orchestra, chorale_melody):
    (take,) = harmonised(orchestra, chorale_melody, ["violin", "cello"])
    line = chorale_melody.parts[0].notes
    for part in take.whole.parts[1:]:
        for note in part.notes:
            sounding = line["pitch"][line["onset"] <= note["onset"]]
            assert note["pitch"] <= (sounding[-1] if len(sounding) else 127)


def test_all_close_together_on_the_tonic_chord(orchestra, chorale_melody):
    """Bach's melody ends on G, so what is struck with its last note is of G major, and held to the end."""
    for take in harmonised(orchestra, chorale_melody, ["violin", "viola", "cello"], takes=3):
        last = int(chorale_melody.parts[0].notes["onset"].max())
        struck = [note for part in take.new.parts for note in part.notes if note["onset"] >= last]
        assert struck
        assert all(int(note["pitch"]) % 12 in (7, 11, 2) for note in struck)
        assert all(note["onset"] + note["duration"] == chorale_melody.length for note in struck)


def test_a_keyboard_strikes_no_clusters(orchestra, chorale_melody):
    (take,) = harmonised(orchestra, chorale_melody, ["piano"])
    notes = take.new.parts[0].notes
    same = notes["onset"][1:] == notes["onset"][:-1]
    assert same.any()
    assert (np.diff(notes["pitch"].astype(int))[same] >= CHORD_GAP).all()


def test_a_cello_plays_one_note_after_another(orchestra, chorale_melody):
    (take,) = harmonised(orchestra, chorale_melody, ["cello"])
    notes = take.new.parts[0].notes
    assert (notes["onset"][1:] >= (notes["onset"] + notes["duration"])[:-1]).all()
