"""Musical operations on scores: transposing, cutting, playing out repeats, quantising."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from musicgen.errors import ScoreError
from musicgen.formats import read_score
from musicgen.score import (
    ChordSymbol,
    Key,
    Metre,
    Part,
    Score,
    Sign,
    Tempo,
    bars_between,
    clip,
    graces_array,
    notes_array,
    quantise,
    transpose,
    unfold,
    written_of_played,
)
from musicgen.score.edit import merge_doubled, paste, played_spans, transpose_fifths

DATA = Path(__file__).resolve().parents[2] / "data"
BAR = 1920


def part(*notes: tuple[int, int, int, int], **kinds) -> Part:
    return Part(notes=notes_array(notes), **kinds)


def notes_of(score: Score, index: int = 0) -> list[tuple[int, int, int, int]]:
    return score.parts[index].notes.tolist()


def written(bars: str, *signs: tuple, pickup: int = 0, order: str = "") -> Score:
    """One whole note a letter, a bar each, its pitch the letter's place in the alphabet; signs at the bar lines.

    With a pickup, the first letter lasts that long and the last one is so much shorter.
    """
    starts = [0, *(pickup or BAR) + BAR * np.arange(len(bars) - 1)]
    length = len(bars) * BAR if not pickup else (len(bars) - 1) * BAR
    ends = [*starts[1:], length]
    notes = [(int(a), int(b - a), ord(letter) - 96, 80) for letter, a, b in zip(bars, starts, ends, strict=True)]
    ticks = [*map(int, starts), length]
    return Score(
        parts=(part(*notes),),
        bars=np.array(starts),
        length=length,
        signs=[Sign(ticks[s[0]], *s[1:]) for s in signs],
        order=tuple(order),
    )


def named(*sections: tuple[int, str]) -> list[tuple]:
    return [(at, "section", (), label) for at, label in sections]


def letters(score: Score) -> str:
    return "".join(chr(pitch + 96) for pitch in score.parts[0].notes["pitch"])


def test_a_section_that_begins_inside_a_bar_does_not_stop_a_repeat():
    score = written("abc", (3, "repeat_end"))
    inside = replace(score, signs=(*score.signs, Sign(BAR + 480, "section", label="B")))
    assert letters(unfold(inside)) == "abcabc"


def test_bars_of_rest_that_would_take_all_memory_are_refused():
    score = Score(bars=np.arange(0, 480 * 20_000, 480), length=480 * 20_000, order=("A",) * 100)
    with pytest.raises(ScoreError, match="bars once its repeats"):
        unfold(replace(score, signs=(Sign(0, "section", label="A"),)))


def test_repeats_that_would_take_all_memory_are_refused():
    score = written("ab", *named((0, "A")), order="A" * 1000)
    crowd = notes_array((i // 50, 1, 60 + i % 50, 80) for i in range(5000))
    with pytest.raises(ScoreError, match="played out"):
        unfold(replace(score, parts=(part(*crowd.tolist()),)))


GRACES = graces_array([(0, 0, 72, True), (BAR, 0, 74, False), (BAR, 1, 76, False)])


def ornamented() -> Score:
    """Two bars, the second with two grace notes, repeated."""
    score = written("ab", (2, "repeat_end"))
    return replace(score, parts=(replace(score.parts[0], graces=GRACES),))


# grace notes


def test_grace_notes_are_played_out_with_their_notes():
    graces = unfold(ornamented()).parts[0].graces
    assert graces.tolist() == [(at + jump, *rest) for jump in (0, 2 * BAR) for at, *rest in GRACES.tolist()]


def test_grace_notes_are_transposed_and_cut_with_the_rest():
    assert transpose(ornamented(), 2).parts[0].graces["pitch"].tolist() == [74, 76, 78]
    assert clip(ornamented(), BAR).parts[0].graces.tolist() == [(0, 0, 72, True)]
    assert bars_between(ornamented(), 1, 2).parts[0].graces["onset"].tolist() == [0, 0]


def test_a_score_without_its_grace_notes_is_another():
    plain = replace(ornamented(), parts=(replace(ornamented().parts[0], graces=graces_array()),))
    assert plain != ornamented()


# transposing


def test_transposing_moves_notes_and_keys_and_leaves_drums_alone():
    score = Score(
        parts=(part((0, 480, 60, 80)), part((0, 480, 36, 90), is_drum=True)),
        keys=(Key(0, 0), Key(240, -1, "minor")),
        chord_symbols=(ChordSymbol(0, "C"),),
    )
    up = transpose(score, 2)
    assert notes_of(up, 0) == [(0, 480, 62, 80)]
    assert notes_of(up, 1) == [(0, 480, 36, 90)]
    assert up.keys == (Key(0, 2), Key(240, 1, "minor"))
    assert up.chord_symbols == ()  # they would name the old chords


@pytest.mark.parametrize(
    ("fifths", "semitones", "moved"),
    [
        (0, 1, -5),
        (0, 7, 1),
        (0, -7, -1),
        (0, 5, -1),
        (2, 3, -1),
        (5, 2, -5),
        (-3, 6, 3),
        (0, 6, 6),
        (6, 12, 6),
        (-7, -12, -7),
    ],
)
def test_a_key_moves_to_the_signature_with_fewest_accidentals(fifths, semitones, moved):
    assert transpose_fifths(fifths, semitones) == moved


@pytest.mark.parametrize("semitones", range(-11, 12))
def test_the_tonic_of_a_transposed_key_moves_with_the_notes(semitones):
    for fifths in range(-7, 8):
        moved = transpose_fifths(fifths, semitones)
        assert -7 <= moved <= 7
        assert (7 * moved - 7 * fifths - semitones) % 12 == 0


def test_transposing_up_and_down_again_gives_the_same_score():
    score = read_score(DATA / "orchestra" / "beethoven-op67-3.mid")
    assert transpose(score, 3) != score
    assert transpose(transpose(score, 3), -3) == score


def test_transposing_out_of_the_keyboard_is_refused():
    with pytest.raises(ScoreError, match="pitch"):
        transpose(Score(parts=(part((0, 480, 120, 80)),)), 8)


# cutting


def test_clipping_drops_later_notes_and_cuts_sounding_ones():
    score = Score(
        parts=(part((0, 3000, 48, 80), (960, 480, 60, 80), (1920, 480, 62, 80)),),
        tempos=(Tempo(0, 100), Tempo(1000, 90), Tempo(1500, 80)),
        metres=(Metre(0, 2, 4), Metre(1920, 3, 4)),
        chord_symbols=(ChordSymbol(0, "C"), ChordSymbol(1500, "G")),
        signs=(Sign(960, "double"), Sign(1920, "final")),
    )
    cut = clip(score, 1500)
    assert notes_of(cut) == [(0, 1500, 48, 80), (960, 480, 60, 80)]
    assert cut.length == 1500
    assert cut.bars.tolist() == [0, 960]
    assert cut.tempos == (Tempo(0, 100), Tempo(1000, 90))
    assert cut.metres == (Metre(0, 2, 4),)
    assert cut.signs == (Sign(960, "double"),)
    assert cut.chord_symbols == (ChordSymbol(0, "C"),)


def test_clipping_past_the_end_changes_nothing():
    score = read_score(DATA / "orchestra" / "beethoven-op93-3.mid")
    assert clip(score, score.length) == clip(score, score.length + 5) == score


def test_clipping_at_nothing_leaves_an_empty_bar():
    cut = clip(written("ab"), 0)
    assert (cut.note_count, cut.length, cut.bars.tolist()) == (0, 0, [0])


def test_bars_between_start_at_tick_zero_with_what_holds_there():
    score = Score(
        parts=(part((0, 480, 60, 80), (1920, 3000, 62, 80), (3360, 480, 64, 80)),),
        tempos=(Tempo(0, 100), Tempo(1440, 50), Tempo(2400, 60)),
        metres=(Metre(0, 4, 4), Metre(1920, 3, 4)),
        keys=(Key(0, 2), Key(3360, -1)),
        length=4920,
    )
    middle = bars_between(score, 1, 2)
    assert notes_of(middle) == [(0, 1440, 62, 80)]
    assert middle.length == 1440
    assert middle.tempos == (Tempo(0, 50), Tempo(480, 60))
    assert middle.metres == (Metre(0, 3, 4),)
    assert middle.keys == (Key(0, 2),)
    assert middle.bars.tolist() == [0]


def test_the_last_bars_end_where_the_score_does():
    score = written("abcd")
    assert letters(bars_between(score, 2, 4)) == "cd"
    assert bars_between(score, 0, 4) == score


@pytest.mark.parametrize(("first", "last"), [(-1, 2), (2, 2), (3, 2), (0, 5)])
def test_bars_that_are_not_there_are_refused(first, last):
    with pytest.raises(ScoreError, match="4 bars"):
        bars_between(written("abcd"), first, last)


def test_cutting_a_real_piece_bar_by_bar_and_pasting_it_gives_the_piece():
    score = read_score(DATA / "orchestra" / "beethoven-op93-3.mid")
    edges = [*score.bars.tolist(), score.length]
    assert paste([(score, a, b) for a, b in pairwise(edges)]) == score


def test_a_pasted_note_is_cut_at_the_seam_unless_the_music_goes_on_there():
    score = Score(parts=(part((0, 2 * BAR, 60, 80)),))
    assert notes_of(paste([(score, 0, BAR), (score, BAR, 2 * BAR)])) == [(0, 2 * BAR, 60, 80)]
    assert notes_of(paste([(score, 0, BAR), (score, 0, BAR)])) == [(0, BAR, 60, 80), (BAR, BAR, 60, 80)]


def test_pasting_says_again_at_each_seam_what_holds_there():
    score = Score(parts=(part((0, 2 * BAR, 60, 80)),), tempos=(Tempo(0, 60), Tempo(BAR, 90)), keys=(Key(0, 1),))
    twice = paste([(score, 0, 2 * BAR), (score, 0, 2 * BAR)])
    assert twice.tempos == (Tempo(0, 60), Tempo(BAR, 90), Tempo(2 * BAR, 60), Tempo(3 * BAR, 90))
    assert twice.keys == (Key(0, 1),)


# repeats

PLAYED = {
    "nothing to repeat": (written("abc"), "abc"),
    "from one sign to the other": (written("abcd", (1, "repeat_start"), (3, "repeat_end")), "abcbcd"),
    "three times": (written("abc", (1, "repeat_start"), (2, "repeat_end", (1, 2))), "abbbc"),
    "from the beginning": (written("abc", (2, "repeat_end")), "ababc"),
    "from the last repeat's end": (written("abcd", (2, "repeat_end"), (4, "repeat_end")), "ababcdcd"),
    "from a double bar": (written("abcd", (2, "double"), (4, "repeat_end")), "abcdcd"),
    "a double bar inside a repeat is no beginning": (
        written("abcd", (0, "repeat_start"), (2, "double"), (4, "repeat_end")),
        "abcdabcd",
    ),
    "back to back": (
        written("abcd", (0, "repeat_start"), (2, "repeat_end"), (2, "repeat_start"), (4, "repeat_end")),
        "ababcdcd",
    ),
    "first and second ending": (
        written("abcd", (0, "repeat_start"), (1, "ending", (1,)), (2, "ending_stop"), (2, "repeat_end"),
                (2, "ending", (2,)), (3, "ending_stop")),
        "abacd",
    ),
    "endings without a repeat sign at the beginning": (
        written("abcd", (2, "ending", (1,)), (3, "repeat_end"), (3, "ending", (2,)), (4, "final")),
        "abcabd",
    ),
    "three times, then out": (
        written("abc", (1, "ending", (1, 2)), (2, "repeat_end"), (2, "ending", (3,)), (3, "ending_stop")),
        "ababac",
    ),
    "endings without numbers": (
        written("abc", (1, "ending"), (2, "ending_stop"), (2, "repeat_end"), (2, "ending"), (3, "ending_stop")),
        "abac",
    ),
    "two sections, each with endings": (
        written("abcdef", (1, "ending", (1,)), (2, "repeat_end"), (2, "ending", (2,)), (3, "ending_stop"),
                (3, "repeat_start"), (4, "ending", (1,)), (5, "repeat_end"), (5, "ending", (2,)), (6, "ending_stop")),
        "abacdedf",
    ),
    "music after the second ending is played once": (
        written("abcde", (1, "ending", (1,)), (2, "repeat_end"), (2, "ending", (2,)), (3, "ending_stop")),
        "abacde",
    ),
    "a start sign that nothing answers": (written("abc", (1, "repeat_start")), "abc"),
    "a first ending without a second": (
        written("abcd", (1, "ending", (1,)), (2, "ending_stop"), (2, "repeat_end"), (2, "repeat_start")), "abacd",
    ),
    "sections in order": (written("abcd", *named((0, "A"), (2, "B")), order="ABA"), "abcdab"),
    "repeats inside the sections of an order": (
        written("abcd", *named((0, "A"), (2, "B")), (2, "repeat_end"), (3, "repeat_end"), order="BA"),
        "ccdabab",
    ),
    "an introduction before the first section": (written("abc", *named((1, "A"), (2, "B")), order="AB"), "abc"),
    "a section that is not there": (written("ab", *named((0, "A"), (1, "B")), order="AXB"), "ab"),
    "sections without an order": (written("abc", *named((0, "A"), (1, "B")), (3, "repeat_end")), "abcbc"),
    "da capo": (written("abc", (2, "da_capo")), "ababc"),
    "da capo al fine": (written("abcd", (2, "fine"), (4, "da_capo", (), "al fine")), "abcdab"),
    "no repeats and the last ending after da capo": (
        written("abcd", (1, "ending", (1,)), (2, "repeat_end"), (2, "ending", (2,)), (3, "ending_stop"),
                (3, "fine"), (4, "da_capo")),
        "abacdac",
    ),
    "dal segno": (written("abcd", (1, "segno"), (3, "fine"), (4, "dal_segno")), "abcdbc"),
    "dal segno al coda": (
        written("abcdef", (1, "segno"), (2, "to_coda"), (4, "dal_segno", (), "al coda"), (4, "coda")),
        "abcdbef",
    ),
    "the minuet again after its trio, repeats only the first time": (
        written("abcd", (1, "repeat_end"), (2, "repeat_end"), (2, "fine"), (2, "double"), (4, "repeat_end"),
                (4, "da_capo")),
        "aabbcdcdab",
    ),
    "da capo inside a repeat is for the last time": (
        written("abc", (0, "repeat_start"), (1, "da_capo"), (2, "repeat_end")), "abaabc",
    ),
    "a fine that nothing jumps back for": (written("abc", (2, "fine")), "abc"),
}  # fmt: skip


@pytest.mark.parametrize(("score", "played"), PLAYED.values(), ids=PLAYED)
def test_repeats_are_played_out(score, played):
    heard = unfold(score)
    assert letters(heard) == played
    assert heard.signs == ()
    assert heard.bars.tolist() == [BAR * i for i in range(len(played))]
    assert heard.length == BAR * len(played)


def test_unfolding_what_is_unfolded_changes_nothing():
    heard = unfold(PLAYED["first and second ending"][0])
    assert unfold(heard) == heard


def test_the_spans_of_a_repeat_are_in_the_order_of_playing():
    score = PLAYED["endings without a repeat sign at the beginning"][0]
    assert played_spans(score) == [(0, 2 * BAR), (2 * BAR, 3 * BAR), (0, 2 * BAR), (3 * BAR, 4 * BAR)]


@pytest.mark.parametrize(("score", "played"), PLAYED.values(), ids=PLAYED)
def test_where_each_played_bar_is_written_is_known(score, played):
    stretches = written_of_played(score)
    found = [w + at - a for at in range(0, len(played) * BAR, BAR) for a, b, w in stretches if a <= at < b]
    pitch = {onset: pitch for onset, _, pitch, _ in notes_of(score)}
    assert [pitch[tick] for tick in found] == [note[2] for note in notes_of(unfold(score))]


def test_what_is_played_in_one_go_is_one_stretch():
    score, _ = PLAYED["first and second ending"]
    assert written_of_played(score) == (
        (0, 2 * BAR, 0),  # a b
        (2 * BAR, 3 * BAR, 0),  # a
        (3 * BAR, 5 * BAR, 2 * BAR),  # c d
    )
    assert written_of_played(unfold(score)) == ((0, 5 * BAR, 0),)


def test_the_short_bar_before_a_repeat_and_the_pickup_after_it_are_one_bar():
    score = written("abcd", (4, "repeat_end"), pickup=480)
    assert score.bar_lengths.tolist() == [480, BAR, BAR, BAR - 480]
    heard = unfold(score)
    assert letters(heard) == "abcdabcd"
    assert heard.bar_lengths.tolist() == [480, BAR, BAR, BAR, BAR, BAR, BAR - 480]
    assert heard.bars.tolist() == [0, *(480 + BAR * np.arange(6))]


def test_a_repeat_in_the_middle_of_a_bar_leaves_no_bar_cut():
    starts = np.array([0, 480, 480 + BAR, 2 * BAR, 480 + 2 * BAR, 480 + 3 * BAR])  # |: a | b | c :|: d | e | f :|
    length = 4 * BAR
    ends = [*starts[1:], length]
    notes = [(int(a), int(b - a), 1 + i, 80) for i, (a, b) in enumerate(zip(starts, ends, strict=True))]
    signs = [
        Sign(0, "repeat_start"),
        Sign(2 * BAR, "repeat_end"),
        Sign(2 * BAR, "repeat_start"),
        Sign(length, "repeat_end"),
    ]
    heard = unfold(Score(parts=(part(*notes),), bars=starts, length=length, signs=signs))
    assert letters(heard) == "abcabcdefdef"
    assert heard.bars.tolist() == [0, *(480 + BAR * np.arange(8))]
    assert heard.length == 8 * BAR


def test_two_half_bars_in_a_row_that_a_repeat_did_not_make_stay_where_nothing_is_repeated():
    score = Score(parts=(part((0, 3 * BAR, 60, 80)),), bars=np.array([0, BAR, BAR + 960, 2 * BAR]))
    assert unfold(score).bars.tolist() == [0, BAR, BAR + 960, 2 * BAR]


# quantising


def test_triplets_stay_exact_at_24_to_the_quarter():
    triplets = [(160 * i, 160, 60 + i, 80) for i in range(6)]
    score = Score(parts=(part(*triplets),))
    assert quantise(score, 20) == score


def test_notes_go_to_the_nearest_place_and_half_goes_up():
    score = Score(parts=(part((9, 480, 60, 80), (490, 21, 62, 80), (971, 3, 64, 80)),))
    assert notes_of(quantise(score, 20)) == [(0, 480, 60, 80), (500, 20, 62, 80), (980, 20, 64, 80)]


def test_the_end_of_a_note_is_rounded_rather_than_its_duration():
    # 9 + 482 = 491 ends at 500, so that it still touches the next, though 482 alone would round to 480
    score = Score(parts=(part((9, 482, 60, 80), (491, 480, 62, 80)),))
    assert notes_of(quantise(score, 20)) == [(0, 500, 60, 80), (500, 480, 62, 80)]


def test_doubled_notes_become_one_the_longest_and_loudest():
    score = Score(parts=(part((0, 480, 60, 70), (5, 960, 60, 60), (8, 240, 60, 90)),))
    assert notes_of(quantise(score, 20)) == [(0, 960, 60, 90)]


def test_doubled_notes_of_two_parts_stay_two():
    score = Score(parts=(part((0, 480, 60, 70)), part((0, 480, 60, 70))))
    assert quantise(score, 20).note_count == 2


def test_a_note_struck_again_is_cut_where_it_is():
    notes = notes_array([(0, 960, 60, 80), (480, 960, 60, 80), (480, 960, 61, 80)])
    assert merge_doubled(notes).tolist() == [(0, 480, 60, 80), (480, 960, 60, 80), (480, 960, 61, 80)]


def test_maps_and_bars_are_rounded_too_and_the_later_of_two_events_holds():
    score = Score(
        parts=(part((0, 4000, 60, 80)),),
        tempos=(Tempo(0, 100), Tempo(1915, 90), Tempo(1925, 80)),
        metres=(Metre(0, 4, 4), Metre(1923, 3, 4)),
        bars=np.array([0, 1923, 3363]),
    )
    rounded = quantise(score, 20)
    assert rounded.tempos == (Tempo(0, 100), Tempo(1920, 80))
    assert rounded.metres == (Metre(0, 4, 4), Metre(1920, 3, 4))
    assert rounded.bars.tolist() == [0, 1920, 3360]


@pytest.mark.parametrize("path", sorted(DATA.rglob("*.mid")), ids=lambda p: p.stem)
def test_quantising_twice_is_quantising_once(path):
    once = quantise(read_score(path), 20)
    assert quantise(once, 20) == once
    for quantised in once.parts:
        assert not (quantised.notes["onset"] % 20).any()
        assert not (quantised.notes["duration"] % 20).any()
