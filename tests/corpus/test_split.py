"""The split is honest: what is nearly the same music is never on both sides."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from musicgen.corpus import Piece, compile_corpus, find_source, split_pieces
from musicgen.corpus.split import COMMON, SKETCH, groups_of, likeness, melody_sketch, split_places
from musicgen.formats import read_score, read_scores, write_score
from musicgen.score import NOTE, Part, Score, bars_between, notes_array, transpose
from musicgen.tokens import BarsTokenizer

DATA = Path(__file__).resolve().parents[2] / "data"


@pytest.fixture(scope="module")
def tunes() -> list[Score]:
    """Sixty Irish tunes, no two of them the same."""
    return read_scores(DATA / "irish" / "tunes.abc")


def with_changes(tune: Score, share: float) -> Score:
    """The tune with some of its notes a step higher, as another setting of it has them."""
    notes = tune.parts[0].notes.copy()
    changed = np.random.default_rng(0).random(len(notes)) < share
    notes["pitch"][changed] += 2
    return replace(tune, parts=(tune.parts[0].with_notes(notes),))


def test_a_melody_is_itself_in_every_key_and_at_every_pace(tunes):
    tune = tunes[0]
    notes = tune.parts[0].notes.copy()
    notes["onset"] *= 2
    slower = Score(parts=(tune.parts[0].with_notes(notes),), metres=tune.metres)
    assert np.array_equal(melody_sketch(tune), melody_sketch(transpose(tune, 5)))
    assert np.array_equal(melody_sketch(tune), melody_sketch(slower))
    assert likeness(melody_sketch(tune), melody_sketch(tune)) == 1


def test_a_melody_is_itself_with_an_accompaniment_below(tunes):
    tune = tunes[0]
    bass = notes_array((int(bar), 480, 36, 60) for bar in tune.bars)
    accompanied = replace(tune, parts=(*tune.parts, replace(tune.parts[0], notes=bass)))
    assert np.array_equal(melody_sketch(tune), melody_sketch(accompanied))


def test_different_tunes_are_not_alike(tunes):
    sketches = [melody_sketch(tune) for tune in tunes]
    found = [likeness(a, b) for i, a in enumerate(sketches) for b in sketches[:i]]
    assert max(found) < 0.5
    assert sum(value > 0.1 for value in found) <= 3


def test_another_setting_of_a_tune_is_nearly_the_same_and_a_new_tune_is_not(tunes):
    tune = max(tunes, key=lambda t: t.note_count)
    assert likeness(melody_sketch(tune), melody_sketch(with_changes(tune, 0.02))) > 0.5
    assert likeness(melody_sketch(tune), melody_sketch(with_changes(tune, 0.5))) < 0.2


def melody(*pitches: int) -> Score:
    return Score(parts=(Part(notes=notes_array((i * 240, 240, pitch, 80) for i, pitch in enumerate(pitches))),))


def test_a_plain_or_short_melody_is_known_as_a_whole_and_by_nothing_less():
    scale, longer, short = melody(*range(40, 80)), melody(*range(40, 81)), melody(60, 62, 64, 60)
    for one in (scale, longer, short):
        assert likeness(melody_sketch(one), melody_sketch(transpose(one, 3))) == 1
    assert likeness(melody_sketch(scale), melody_sketch(longer)) == 0
    assert likeness(melody_sketch(short), melody_sketch(melody(60, 62, 64, 62))) == 0


def test_music_without_a_melody_has_no_sketch():
    for notes in (notes_array(), np.zeros(0, dtype=NOTE)):
        assert not melody_sketch(Score(parts=(Part(notes=notes),))).any()


def test_a_tune_in_more_copies_than_are_held_against_each_other_is_still_one_group(tunes):
    sketches = np.stack([melody_sketch(tunes[0])] * (COMMON + 30) + [melody_sketch(tunes[1])])
    assert groups_of(sketches).tolist() == [0] * (COMMON + 30) + [COMMON + 30]


def made_of(groups: list[int]) -> list[Piece]:
    """Pieces of which each number in `groups` makes a group of so many."""
    fingerprints, numbers = [], []
    for number, size in enumerate(groups):
        for member in range(size):
            fingerprints.append(f"{hash((number, member)) % 2**64:032x}")
            numbers.append(len(fingerprints) - 1 - member)
    places = split_places(fingerprints, np.array(numbers))
    return [
        Piece("t", "f", i, 1, 1, 1, 1, None, name, split=place, group=fingerprints[number])
        for i, (name, place, number) in enumerate(zip(fingerprints, places, numbers, strict=True))
    ]


@pytest.mark.parametrize("large", [1, 20, 40, 60])
def test_a_large_group_does_not_swell_what_is_held_out(large):
    pieces = made_of([large, *[1] * (100 - large)])
    train, valid = split_pieces(pieces, 0.1)
    assert (len(valid), len(train)) == (10, 90)


@pytest.mark.parametrize(("groups", "held"), [([5, 7], 5), ([3, 3, 3], 3), ([4], 0), ([1, 1], 1), ([9, 1], 1)])
def test_where_groups_are_all_there_is_the_smallest_that_fits_is_held_out(groups, held):
    train, valid = split_pieces(made_of(groups), 0.1)
    assert len(valid) == held
    assert len(train) == sum(groups) - held


def test_pieces_are_grouped_by_their_melodies_whatever_lies_between(tunes):
    some = [tunes[0], tunes[1], with_changes(tunes[0], 0.02), tunes[2], transpose(tunes[1], 3)]
    assert groups_of(np.stack([melody_sketch(t) for t in some])).tolist() == [0, 1, 0, 3, 1]


def test_pieces_without_a_melody_are_alone():
    assert groups_of(np.zeros((3, SKETCH), dtype=np.uint32)).tolist() == [0, 1, 2]


def test_a_group_stands_together_in_the_order_of_the_split():
    groups = np.array([0, 1, 0, 3, 1, 0])
    places = split_places([f"{i:032x}" for i in range(6)], groups)
    order = groups[np.argsort(places)].tolist()
    assert sorted(places) == [i / 6 for i in range(6)]
    assert sum(a != b for a, b in pairwise(order)) == 2  # three groups, each in one stretch


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_near_duplicates_never_fall_on_both_sides(tunes, tmp_path, share):
    folder = tmp_path / "music"
    for i, tune in enumerate(tunes[:20]):
        write_score(tune, folder / f"{i:02d}.mid")
    for i in range(0, 20, 3):
        write_score(transpose(with_changes(tunes[i], 0.02), 2), folder / f"other-{i:02d}.mid")
    corpus = compile_corpus(find_source(folder), BarsTokenizer(), cache=tmp_path / "cache", workers=1)
    train, valid = split_pieces(corpus.pieces, share)
    assert len(corpus.pieces) == 27
    assert corpus.near_duplicates[0] >= 10
    assert not {p.group for p in train} & {p.group for p in valid}
    assert len(train) + len(valid) == 27
    assert abs(len(valid) - 27 * share) <= 2


def test_the_beginning_of_a_piece_is_nearly_the_same_as_most_of_it(tunes):
    tune = max(tunes, key=lambda t: len(t.bars))
    most = bars_between(tune, 0, len(tune.bars) * 4 // 5)
    assert likeness(melody_sketch(tune), melody_sketch(most)) > 0.5


def test_another_encoding_of_a_movement_is_nearly_the_same_and_another_movement_is_not(shared_data, tmp_path):
    movements = [
        ("Beethoven/pathetique_1.mid", "Beethoven__Piano_Sonatas__8-1.mid"),
        ("Beethoven/waldstein_2.mid", "Beethoven__Piano_Sonatas__21-2.mid"),
        ("Mozart/mz_332_1.mid", "Mozart__Piano_Sonatas__12-1.mid"),
        ("Schumann/scn16_4.mid", "Schumann__Kreisleriana__4.mid"),
    ]
    sketches = []
    for number, name in enumerate(("piano-midi-de", "asap-score-midi")):
        with tarfile.open(shared_data / f"{name}.tar.gz") as archive:
            for pair in movements:
                member = next(m for m in archive.getnames() if m.endswith(pair[number]))
                archive.extract(member, tmp_path, filter="data")
        found = [next(tmp_path.rglob(pair[number].rpartition("/")[2])) for pair in movements]
        sketches.append([melody_sketch(read_score(path)) for path in found])
    for i, one in enumerate(sketches[0]):
        for j, other in enumerate(sketches[1]):
            assert (likeness(one, other) >= 0.5) == (i == j)
