"""Which note is home."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musicgen.formats.files import read_tunes
from musicgen.score import Key, clip, notes_array, transpose
from musicgen.score.tonality import find_tonality, pitch_class_lengths


@pytest.fixture(scope="module")
def scherzo(data):
    return read_tunes(data / "schubert-d759" / "scherzo.musicxml")[0]


@pytest.mark.parametrize(
    ("name", "tonality"),
    [
        ("beethoven-op67-3.mid", "C minor"),
        ("beethoven-op55-3.mid", "E flat major"),
        ("beethoven-op93-3.mid", "F major"),
        ("beethoven-op92-3.mid", "F major"),
        ("haydn-104-1.mid", "D major"),
        ("schubert-d485-1.mid", "B flat major"),
    ],
)
def test_symphonies_are_in_the_keys_on_their_title_pages(data, name, tonality):
    assert find_tonality(read_tunes(data / "orchestra" / name)[0]).name == tonality


def test_the_unfinished_scherzo_is_in_b_minor_from_nine_bars(scherzo):
    assert find_tonality(scherzo).name == "B minor"


def test_without_a_signature_the_notes_decide(data):
    score = read_tunes(data / "orchestra" / "haydn-104-1.mid")[0]
    assert find_tonality(replace(score, keys=(Key(0, 0),))).name == "D major"


@pytest.mark.parametrize("semitones", range(-5, 7))
def test_moved_music_is_in_the_moved_key(scherzo, semitones):
    assert find_tonality(transpose(scherzo, semitones)).tonic == (11 + semitones) % 12


def test_a_movement_of_which_a_quarter_is_missing_is_in_the_same_key(data):
    score = read_tunes(data / "orchestra" / "beethoven-op67-3.mid")[0]
    beginning = clip(score, int(score.bars[len(score.bars) * 3 // 4]))
    assert find_tonality(beginning).name == "C minor"


def test_where_all_twelve_sound_alike_the_signature_decides(scherzo):
    octave = notes_array([(480 * i, 480, 60 + i, 80) for i in range(12)])
    parts = (scherzo.parts[0].with_notes(octave),)
    score = replace(scherzo, parts=parts, bars=np.arange(0, 5760, 1440), length=5760)
    assert find_tonality(score).name == "B minor"


def test_music_without_pitches_has_no_tonality(scherzo):
    silent = replace(scherzo, parts=tuple(part.with_notes(part.notes[:0]) for part in scherzo.parts))
    assert find_tonality(silent) is None


def test_lengths_of_pitch_classes_are_those_of_the_notes_between_two_ticks(scherzo):
    start, stop = 1000, 5000
    expected = np.zeros(12)
    for part in scherzo.parts:
        for onset, duration, pitch, _ in part.notes.tolist():
            expected[pitch % 12] += max(min(onset + duration, stop) - max(onset, start), 0)
    assert np.array_equal(pitch_class_lengths(scherzo, start, stop), expected)
    assert expected.sum() > 0
