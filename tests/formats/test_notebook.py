"""The bridge to pretty_midi: exact ticks there and back, and what is lost on the way."""

from __future__ import annotations

import pytest

from musicgen.formats.notebook import from_pretty_midi, to_pretty_midi
from musicgen.score import Key, Metre, Part, Score, Tempo, notes_array

SCORE = Score(
    parts=(
        Part("Violin", 40, False, notes_array([(0, 480, 60, 80), (480, 160, 62, 90), (640, 1280, 64, 100)])),
        Part("Drums", 0, True, notes_array([(0, 240, 36, 110), (960, 240, 38, 70)])),
    ),
    tempos=(Tempo(0, 100.0), Tempo(960, 80.0)),
    metres=(Metre(0, 2, 4),),
    keys=(Key(0, -2, "minor"),),
)


def test_notes_come_back_on_their_ticks():
    again = from_pretty_midi(to_pretty_midi(SCORE))
    assert again.parts == SCORE.parts


def test_metre_and_key_come_back():
    again = from_pretty_midi(to_pretty_midi(SCORE))
    assert (again.metres, again.keys) == (SCORE.metres, SCORE.keys)


def test_the_tempo_map_comes_back():
    again = from_pretty_midi(to_pretty_midi(SCORE))
    assert [t.onset for t in again.tempos] == [0, 960]
    assert [t.bpm for t in again.tempos] == pytest.approx([100.0, 80.0], abs=1e-3)


def test_pretty_midi_hears_the_tempo_change():
    assert to_pretty_midi(SCORE).get_end_time() == pytest.approx(SCORE.seconds_at(1920), abs=1e-3)


@pytest.mark.parametrize("fifths", range(-5, 7))
@pytest.mark.parametrize("mode", ["major", "minor"])
def test_every_key_has_its_signature_back(fifths, mode):
    score = Score(parts=(Part("", 0, False, notes_array([(0, 480, 60, 80)])),), keys=(Key(0, fifths, mode),))
    assert from_pretty_midi(to_pretty_midi(score)).keys == score.keys


def test_an_object_built_by_hand_is_read():
    import pretty_midi

    pm = pretty_midi.PrettyMIDI(initial_tempo=60.0)
    piano = pretty_midi.Instrument(0, name="Piano")
    piano.notes.append(pretty_midi.Note(velocity=90, pitch=60, start=0.5, end=1.5))
    pm.instruments.append(piano)
    score = from_pretty_midi(pm)
    assert score.parts[0].notes.tolist() == [(240, 480, 60, 90)]
    assert score.tempos == (Tempo(0, 60.0),)
