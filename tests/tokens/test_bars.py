"""The bars tokenizer: what goes in comes out, quantised; what is lost is what its docstring says."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from musicgen.errors import MusicgenError, TokenError
from musicgen.formats import READERS, read_scores
from musicgen.score import Key, Metre, Part, Score, Sign, Tempo, clip, notes_array, transpose
from musicgen.tokens import BarsTokenizer
from musicgen.tokens.bars_vocabulary import (
    BAR,
    BARS_LEFT,
    CONDUCTOR,
    DRUM,
    DURATIONS,
    END,
    INSTRUMENT,
    KEY,
    KEYS,
    KINDS,
    METRE,
    METRES,
    PART,
    PITCH,
    POSITION,
    START,
    TEMPI,
    TEMPO,
    UNIT,
    VELOCITIES,
    duration_class,
    tempo_class,
    velocity_class,
)

DATA = Path(__file__).resolve().parents[2] / "data"
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
BUNDLED = sorted(p for p in DATA.rglob("*") if p.suffix in READERS)
TOKENIZER = BarsTokenizer()
QUARTER = 24


@cache
def scores_of(path: Path) -> list[Score]:
    return read_scores(path)


def small() -> list[Score]:
    """Real scores with few enough notes to be walked through step by step."""
    scores = [score for path in BUNDLED for score in scores_of(path)]
    return [score for score in scores if score.note_count < 1500]


def part(*notes: tuple[int, int, int, int], **kinds) -> Part:
    return Part(notes=notes_array(notes), **kinds)


def held(score: Score) -> Score:
    """What comes back of a score; and that is what `quantise` says."""
    back = TOKENIZER.decode(TOKENIZER.encode(score))
    assert back == TOKENIZER.quantise(score)
    return back


def value(program: int, instance: int = 0) -> int:
    return INSTRUMENT + 8 * program + instance


# round trips


@pytest.mark.parametrize("path", BUNDLED, ids=lambda p: p.relative_to(DATA).as_posix())
def test_every_bundled_score_comes_back_quantised(path):
    for score in scores_of(path):
        steps = TOKENIZER.encode(score)
        assert steps.dtype == np.int16
        assert (steps >= 0).all()
        assert (steps.max(axis=0) < [field.size for field in TOKENIZER.fields]).all()
        assert TOKENIZER.decode(steps) == TOKENIZER.quantise(score), score.title


@pytest.mark.parametrize("path", BUNDLED, ids=lambda p: p.relative_to(DATA).as_posix())
def test_what_has_come_back_once_comes_back_the_same_ever_after(path):
    for score in scores_of(path):
        steps = TOKENIZER.encode(score)
        assert np.array_equal(TOKENIZER.encode(TOKENIZER.decode(steps)), steps), score.title


@pytest.mark.parametrize("path", sorted((DATA / "orchestra").glob("*.mid")), ids=lambda p: p.stem)
def test_no_onset_of_a_notated_orchestral_movement_is_moved_by_the_grid(path):
    score = scores_of(path)[0]
    ours = sum((p.notes["onset"] % UNIT != 0).sum() for p in score.parts)
    # grace notes and tuplets of five and seven; a thunderstorm of quintuplets, and 64ths in an Allegretto
    share = {"beethoven-op68-4": 0.08, "beethoven-op93-2": 0.04}.get(path.stem, 0.02)
    assert ours <= score.note_count * share


def test_one_note_is_hardly_more_than_one_step():
    steps = [TOKENIZER.encode(score) for path in BUNDLED for score in scores_of(path)]
    notes = sum(int(TOKENIZER.is_note(s).sum()) for s in steps)
    assert sum(map(len, steps)) < 1.15 * notes
    for path in (DATA / "orchestra").glob("*.mid"):
        piece = TOKENIZER.encode(scores_of(path)[0])
        assert len(piece) < 1.3 * TOKENIZER.is_note(piece).sum(), path.name


def shared_scores(folder: Path, most: int) -> list[Path]:
    """About `most` readable files over all shared archives, evenly from each; fewer where music21 reads them."""
    archives = sorted(SHARED.glob("*.tar.gz"))
    for archive in archives:
        with tarfile.open(archive) as tar:
            fits = [m for m in tar.getmembers() if m.isfile() and Path(m.name).suffix.lower() in READERS]
            fits = [m for m in fits if m.size < 150_000]
            chosen = fits[:: max(1, -(-len(fits) * len(archives) // most))]
            if chosen and Path(chosen[0].name).suffix in (".krn", ".mxl"):  # half a second to three seconds a file
                chosen = chosen[::3]
            tar.extractall(folder, chosen, filter="data")
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in READERS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning:music21")
def test_scores_of_every_shared_set_come_back_quantised(tmp_path_factory):
    if not SHARED.is_dir():
        pytest.skip("the shared archives are not beside the repository")
    sets, notes, steps = set(), 0, 0
    for path in shared_scores(tmp_path_factory.mktemp("shared"), 150):
        try:
            scores = read_scores(path)[:40]
        except MusicgenError:
            continue
        for score in scores:
            if not score.note_count:
                continue
            encoded = TOKENIZER.encode(score)
            back = TOKENIZER.decode(encoded)
            assert back == TOKENIZER.quantise(score), (path.name, score.title)
            assert np.array_equal(TOKENIZER.encode(back), encoded), (path.name, score.title)
            assert np.array_equal(walked(encoded), TOKENIZER.locate(encoded)), (path.name, score.title)
            notes += int(TOKENIZER.is_note(encoded).sum())
            steps += len(encoded)
            sets.add(path.parent.name)
    assert len(sets) >= 8
    assert steps < 1.3 * notes


# the steps themselves


def test_a_waltz_is_these_steps():
    score = Score(
        parts=(part((0, 480, 74, 80), (480, 960, 76, 64), program=73), part((0, 1440, 50, 80), program=48)),
        tempos=(Tempo(0, 180),),
        metres=(Metre(0, 3, 4),),
        keys=(Key(0, 2),),
    )
    strings, flute = value(48), value(73)
    metre = METRE + METRES.index((3, 4))
    key = KEY + KEYS.index((2, "major"))
    tempo = TEMPO + 38
    assert TEMPI[38] == 183.1
    assert TOKENIZER.encode(score).tolist() == [
        [START, 0, 0, 0, 0],
        [PART, strings, 0, 0, 0],
        [PART, flute, 0, 0, 0],
        [BAR, 0, 0, 72, 0],
        [POSITION, CONDUCTOR, metre, 0, 0],
        [POSITION, CONDUCTOR, key, 0, 0],
        [POSITION, CONDUCTOR, tempo, 0, 0],
        [POSITION, strings, PITCH + 50, 72, 5],
        [POSITION, flute, PITCH + 74, 24, 5],
        [POSITION + 24, flute, PITCH + 76, 48, 4],
        [END, 0, 0, 0, 0],
    ]
    words = [TOKENIZER.describe(step) for step in TOKENIZER.encode(score)]
    assert words[2:5] == ["PART Flute 1", "BAR 72", "0 conductor 3/4"]
    assert words[9] == "24 Flute 1 E5 48 mp"


def test_drums_have_pitches_of_their_own():
    score = Score(parts=(part((0, 480, 36, 80), is_drum=True), part((0, 480, 36, 80))))
    steps = TOKENIZER.encode(score)
    notes = steps[TOKENIZER.is_note(steps)]
    assert notes[:, 1].tolist() == [value(0), value(KINDS - 1)]
    assert notes[:, 2].tolist() == [PITCH + 36, DRUM + 36]


def test_the_steps_of_a_piece_are_in_time_then_by_part_then_by_pitch():
    steps = TOKENIZER.encode(scores_of(DATA / "freedoom" / "d_e1m8.mid")[0]).astype(int)
    bar = np.cumsum(steps[:, 0] == BAR)
    placed = steps[:, 0] >= POSITION
    keys = np.column_stack([bar, steps[:, :3]])[placed].tolist()
    assert keys == sorted(keys)
    assert len({tuple(k) for k in keys}) == len(keys)  # no unison twice at one onset


def test_the_steps_that_are_notes_are_as_many_as_the_notes():
    for score in small():
        steps = TOKENIZER.encode(score)
        assert TOKENIZER.is_note(steps).sum() == TOKENIZER.quantise(score).note_count


def test_an_unfinished_piece_is_decoded_without_its_end():
    steps = TOKENIZER.encode(small()[0])
    assert TOKENIZER.decode(steps[:-1]) == TOKENIZER.decode(steps)


def test_steps_without_a_bar_are_refused():
    with pytest.raises(TokenError, match="no bar"):
        TOKENIZER.decode(np.array([TOKENIZER.start, (PART, value(0), 0, 0, 0)]))


def test_a_note_before_the_first_bar_is_refused():
    steps = np.array([TOKENIZER.start, (POSITION, value(0), 61, 24, 5), (BAR, 0, 0, 96, 0)])
    with pytest.raises(TokenError, match="before the first bar"):
        TOKENIZER.decode(steps)


def test_a_score_without_notes_is_refused():
    with pytest.raises(TokenError, match="Silence: no notes"):
        TOKENIZER.encode(Score(title="Silence", parts=(part(),), length=1920))


def test_more_parts_than_the_vocabulary_holds_are_refused():
    parts = tuple(part((0, 480, 60, 80), program=p) for p in range(65))
    with pytest.raises(TokenError, match="65 parts"):
        TOKENIZER.encode(Score(parts=parts))
    assert len(held(Score(parts=parts[:64])).parts) == 64


# what survives, and what is lost


def test_triplets_and_32nds_stay_exact():
    triplets = [(160 * i, 160, 60, 80) for i in range(12)]
    thirty_seconds = [(60 * i, 60, 72, 80) for i in range(32)]
    back = held(Score(parts=(part(*triplets, program=1), part(*thirty_seconds, program=2))))
    assert [p.notes.tolist() for p in back.parts] == [triplets, thirty_seconds]


def test_a_tie_across_the_barline_is_one_note_and_one_step():
    score = Score(parts=(part((1440, 960, 60, 80)),))
    steps = TOKENIZER.encode(score)
    assert TOKENIZER.is_note(steps).sum() == 1
    assert held(score).parts[0].notes.tolist() == [(1440, 960, 60, 80)]


def test_pickup_changes_of_metre_tempo_and_key_come_through():
    score = Score(
        parts=(part((0, 480, 60, 80), (480, 5760, 62, 80)),),
        tempos=(Tempo(0, TEMPI[20]), Tempo(700, TEMPI[10])),
        metres=(Metre(0, 4, 4), Metre(2400, 3, 4), Metre(3840, 7, 8)),
        keys=(Key(0, -3, "minor"), Key(2400, 0)),
        bars=np.array([0, 480, 2400, 3840, 5520]),
    )
    back = held(score)
    assert (back.metres, back.keys, back.pickup) == (score.metres, score.keys, 480)
    assert back.tempos == (Tempo(0, TEMPI[20]), Tempo(700, TEMPI[10]))
    assert back.bars.tolist() == score.bars.tolist()


def test_the_last_bar_is_made_full_unless_a_pickup_took_its_beat():
    assert held(Score(parts=(part((0, 2400, 60, 80)),))).length == 3840
    bars = np.array([0, 480, 2400])
    assert held(Score(parts=(part((0, 3840, 60, 80)),), bars=bars)).length == 3840
    assert held(Score(parts=(part((0, 3900, 60, 80)),), bars=bars)).length == 4320


def test_bars_of_odd_length_inside_a_piece_stay():
    bars = np.array([0, 1920, 2400, 4320])
    assert held(Score(parts=(part((0, 6240, 60, 80)),), bars=bars)).bars.tolist() == bars.tolist()


@pytest.mark.parametrize(
    ("metre", "becomes", "bar"),
    [((12, 4), (6, 4), 2880), ((4, 1), (2, 1), 3840), ((11, 4), (1, 4), 480), ((9, 4), (3, 4), 1440)],
)
def test_bars_longer_than_eight_quarters_are_cut_into_equal_ones(metre, becomes, bar):
    length = 2 * Metre(0, *metre).ticks
    back = held(Score(parts=(part((0, length, 60, 80)),), metres=(Metre(0, *metre),)))
    assert back.metres == (Metre(0, *becomes),)
    assert back.bars.tolist() == list(range(0, length, bar))
    assert back.length == length


def test_a_bar_left_out_for_sixteen_quarters_of_rest_is_cut_too():
    bars = np.array([0, 1920, 1920 + 16 * 480])
    back = held(Score(parts=(part((0, 480, 60, 80), (9600, 1920, 62, 80)),), bars=bars))
    assert back.bars.tolist() == [0, 1920, 3840, 5760, 7680, 9600]


def test_repeats_are_played_out():
    score = Score(
        parts=(part((0, 1920, 60, 80), (1920, 1920, 62, 80)),),
        signs=(Sign(0, "repeat_start"), Sign(1920, "repeat_end")),
    )
    assert held(score).parts[0].notes["pitch"].tolist() == [60, 60, 62]


def test_parts_come_back_in_the_order_of_their_programs_named_by_them():
    score = Score(
        title="lost",
        parts=(part((0, 9, 60, 80), name="Oboe d'amore", program=68), part(name="tacet"),
               part((0, 9, 50, 80), program=4), part((0, 9, 50, 80), program=68)),
    )  # fmt: skip
    back = held(score)
    assert back.title == ""
    assert [(p.name, p.program, p.notes["pitch"].tolist()) for p in back.parts] == [
        ("Electric Piano 1 1", 4, [50]), ("Oboe 1", 68, [60]), ("Oboe 2", 68, [50]),
    ]  # fmt: skip


def test_a_ninth_part_of_one_program_joins_the_eighth():
    back = held(Score(parts=tuple(part((0, 480, 40 + i, 80), program=40) for i in range(10))))
    assert len(back.parts) == 8
    assert back.parts[7].notes["pitch"].tolist() == [47, 48, 49]


def test_parts_that_never_play_do_not_count_among_their_kind():
    parts = (part(program=40), part((0, 9, 60, 80), program=40), part(program=40), part((0, 9, 62, 80), program=40))
    score = Score(parts=parts)
    assert [p.name for p in held(score).parts] == ["Violin 1", "Violin 2"]
    assert held(score) == held(replace(score, parts=tuple(p for p in score.parts if len(p.notes))))


def test_doubled_and_overlapping_unisons_become_one():
    score = Score(parts=(part((0, 960, 60, 64), (0, 480, 60, 80), (480, 960, 60, 80)),))
    assert held(score).parts[0].notes.tolist() == [(0, 480, 60, 80), (480, 960, 60, 80)]


@pytest.mark.parametrize(("quarters", "kept"), [(0.25, 0.25), (8, 8), (8.4, 8), (8.6, 9), (30, 30), (64, 64), (70, 64)])
def test_a_note_is_exact_to_eight_quarters_then_to_the_quarter_and_at_most_64(quarters, kept):
    score = Score(parts=(part((0, int(480 * quarters), 60, 80), (480 * 80, 480, 62, 80)),))
    assert held(score).parts[0].notes["duration"][0] == 480 * kept


def test_no_note_is_rounded_past_the_end():
    score = Score(parts=(part((0, 4560, 60, 80)),), metres=(Metre(0, 19, 8),))  # 9.5 quarters, and so the bar
    assert held(score).parts[0].notes["duration"].tolist() == [9 * 480]


def test_every_velocity_goes_to_the_nearest_of_eight():
    for velocity in range(1, 128):
        kept = int(VELOCITIES[velocity_class(velocity)])
        assert abs(kept - velocity) == min(abs(int(v) - velocity) for v in VELOCITIES[1:])
    assert velocity_class(VELOCITIES[1:]).tolist() == list(range(1, 9))


def test_tempi_go_to_the_nearest_in_steps_of_six_percent():
    assert [tempo_class(bpm) for bpm in TEMPI] == list(range(len(TEMPI)))
    for bpm in np.geomspace(20, 340, 200):
        assert max(bpm / TEMPI[tempo_class(bpm)], TEMPI[tempo_class(bpm)] / bpm) < 1.0305


def test_every_duration_class_is_its_own():
    assert duration_class(DURATIONS[1:]).tolist() == list(range(1, len(DURATIONS)))


def test_other_modes_become_major_or_minor():
    keys = (Key(0, 1, "dorian"), Key(480, 1, "mixolydian"))
    assert held(Score(parts=(part((0, 960, 60, 80)),), keys=keys)).keys == (Key(0, 1, "minor"), Key(480, 1, "major"))


# transposing


@pytest.mark.parametrize("semitones", [-12, -5, -1, 1, 3, 6, 12])
def test_transposing_steps_is_encoding_the_transposed_score(semitones):
    scores = [s for s in small() if len(s.keys) == 1]
    assert any(p.is_drum for s in scores for p in s.parts)
    moved = 0
    for score in scores:
        steps = TOKENIZER.transpose(TOKENIZER.encode(score), semitones)
        pitches = np.concatenate([p.notes["pitch"] for p in score.parts if not p.is_drum])
        if steps is None:
            assert not 0 <= pitches.min() + semitones <= pitches.max() + semitones <= 127
            continue
        assert np.array_equal(steps, TOKENIZER.encode(transpose(score, semitones))), score.title
        moved += 1
    assert moved > 50


@pytest.mark.parametrize("fifths", range(-7, 8))
def test_octaves_leave_every_key_as_it_is(fifths):
    score = Score(parts=(part((0, 480, 60, 80)),), keys=(Key(0, fifths),))
    steps = TOKENIZER.transpose(TOKENIZER.encode(score), 12)
    assert steps is not None
    assert TOKENIZER.decode(steps).keys == (Key(0, fifths),)


def test_transposing_leaves_the_steps_it_was_given_as_they_were():
    steps = TOKENIZER.encode(small()[0])
    before = steps.copy()
    TOKENIZER.transpose(steps, 2)
    assert np.array_equal(steps, before)
    assert TOKENIZER.transpose(steps, 0) is steps


@pytest.mark.parametrize(
    ("pitch", "semitones", "possible"), [(127, 1, False), (126, 1, True), (0, -1, False), (1, -1, True)]
)
def test_what_would_leave_the_keyboard_is_not_transposed(pitch, semitones, possible):
    drums = part((0, 480, 127, 80), (0, 480, 0, 80), is_drum=True)  # drums stay, so they don't count
    steps = TOKENIZER.encode(Score(parts=(part((0, 480, pitch, 80)), drums)))
    assert (TOKENIZER.transpose(steps, semitones) is not None) == possible


# where in the music a step leaves us


def walked(steps: np.ndarray) -> np.ndarray:
    """The coordinates as the cursor finds them, step by step."""
    cursor = TOKENIZER.cursor(int((steps[:, 0] == BAR).sum()))
    found = [cursor.coordinates()]
    for step in steps[1:].tolist():
        cursor.advance(step)
        found.append(cursor.coordinates())
    return np.array(found)


def test_coordinates_of_a_whole_piece_are_those_of_a_walk_through_it():
    for score in small():
        steps = TOKENIZER.encode(score)
        located = TOKENIZER.locate(steps)
        assert np.array_equal(located, walked(steps)), score.title
        assert (located >= 0).all()
        assert (located.max(axis=0) < [c.size for c in TOKENIZER.coordinates]).all()


def test_bars_left_count_down_to_none_and_stop_counting_above_64():
    notes = [(1920 * i, 480, 60, 80) for i in range(BARS_LEFT + 3)]
    steps = TOKENIZER.encode(Score(parts=(part(*notes),)))
    left = TOKENIZER.locate(steps)[:, 2]
    assert left[0] == 1 + BARS_LEFT
    assert left[steps[:, 0] == BAR].tolist() == [1 + min(BARS_LEFT + 2 - i, BARS_LEFT) for i in range(BARS_LEFT + 3)]
    assert left[-1] == 1  # 1 is none: 0 is "not told"


def test_the_beat_is_that_of_the_last_step_and_zero_before_the_first_bar():
    score = Score(parts=(part((240, 240, 60, 80), (1440, 240, 62, 80), (1920, 240, 64, 80)),))
    steps = TOKENIZER.encode(score)
    beat, bar_length, *_ = TOKENIZER.locate(steps).T
    # START, PART, BAR, metre, key, tempo, two notes, BAR, a note, END
    assert beat.tolist() == [0, 0, 1, 1, 1, 1, 13, 73, 1, 1, 1]
    assert bar_length.tolist() == [0, 0] + [96] * 9


def test_a_piece_cut_in_the_middle_of_a_bar_is_the_beginning_of_the_piece():
    score = TOKENIZER.quantise(scores_of(DATA / "orchestra" / "beethoven-op93-3.mid")[0])
    seam = int(score.bars[20]) + 480
    cut = TOKENIZER.encode(clip(score, seam))
    whole = TOKENIZER.encode(replace(score, parts=clip(score, seam).parts))
    bars = np.flatnonzero(cut[:, 0] == BAR)
    assert len(bars) == 21
    assert np.array_equal(cut[: bars[20], :], whole[: bars[20], :])


def test_an_unfinished_score_is_encoded_with_its_last_bar_full_and_without_an_end():
    score = Score(parts=(part((0, 1920, 60, 80), (1920, 480, 62, 80)),), bars=np.array([0, 480]))  # 1/4, then 4/4
    steps = TOKENIZER.encode(score, unfinished=True)
    assert steps[-1].tolist() == [POSITION + 72, value(0), PITCH + 62, 24, 5]
    assert steps[steps[:, 0] == BAR][:, 3].tolist() == [24, 96]


def test_the_tokenizer_is_built_again_from_its_options():
    assert BarsTokenizer(**TOKENIZER.options).fields == TOKENIZER.fields
    assert TOKENIZER.characters(TOKENIZER.encode(small()[0])) is None
