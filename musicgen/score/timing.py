"""Was it typed or played? How a score's notes lie against its bar lines, and how to straighten them.

In comes a Score, out comes what its onsets tell (`timing`), or the score with its chords together again (`straighten`,
`as_typed`). A score from notation has its onsets on the grid; a sequencer that recorded without a click has them
anywhere, and its bar lines mean nothing: tokenizers that count in bars must not be given such a score. Between the two
lie files with bar lines that can be used though the notes are off the grid: all of them late by the same few ticks, or
loosened by a sequencer to sound human. Those are put straight.

Two figures tell them apart. The *error* is the mean distance of the onsets to the grid, in steps: 0 typed, 0.25 random.
The *pulse* is how far the onsets keep to any one division of the quarter note, counted from the bar lines: the length
of their mean direction on a circle once round a division, 1 if all keep to it, 0 if the bar lines say nothing of them.

What it can't tell: a played file whose own clock is no finer than the grid (24 ticks a quarter note or fewer) looks
typed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from musicgen.errors import ScoreError
from musicgen.score.edit import quantise
from musicgen.score.score import TICKS_PER_QUARTER, Part, Score

STEP = TICKS_PER_QUARTER // 24
"""The grid of the `bars` tokenizer: triplets and 32nds."""
FINE_STEPS = (STEP, TICKS_PER_QUARTER // 32)
"""A score is typed if it keeps to either: the second has the 64ths and 128ths that the first has not."""
TYPED_ERROR = 0.1
"""Mean onset error, in steps, up to which a score is typed."""
LEAST_PULSE = 0.4
"""Pulse from which bar lines can be used. Of 56 files off the grid whose bar lines hold the least is 0.51; of 430 piano
pieces rendered three times each with a straying tempo and recorded at a fixed one the most is 0.35.
"""
LEAST_ONSETS = 8
"""Fewer distinct onsets say nothing: such a score is taken as it stands."""
PULSES = (480, 240, 160, 120, 80, 60)
"""Divisions of the quarter note whose pulse is looked for, in ticks."""
DIVISIONS = {120: 0.0, 160: 5.0, 60: 8.0, 80: 10.0, STEP: 16.0}
"""The grids, in ticks, that a beat of loose notes may be put on, plainest first; and the mean error each must save."""
HABIT = 2.0
"""Mean error that a division must save, for each e-fold by which it is rarer in its part than the commonest."""
LOOSE = 7.0
"""Mean error for which those two hold; they grow and shrink with the part's own."""
NEAR = TICKS_PER_QUARTER // 8
"""A 32nd note: so much before another note begins, or after it, a note is taken to stop there."""
APART = 40
"""Onsets of one part further apart than this, in ticks, are not one chord."""


@dataclass(frozen=True)
class Timing:
    """How a score's onsets lie against its bar lines.

    error: mean distance of the onsets to the nearest grid point, in steps: 0 typed, 0.25 random.
    pulse: 0 to 1, how far the onsets keep to a division of the quarter note.
    late:  ticks by which the notes commonly lie behind the grid (negative: before it); 0 where typed or played.
    kind:  "typed"; "late": typed but for a shift of all notes; "loose": bar lines hold, the notes are around the
           grid; "played": the bar lines say nothing.
    """

    error: float
    pulse: float
    late: int
    kind: Literal["typed", "late", "loose", "played"]


def onset_error(score: Score, step: int = STEP) -> float:
    """Mean distance of the onsets to the nearest multiple of `step` ticks after their bar line, in steps.

    0 where all are on the grid (and where there are none), 0.25 at random, 0.5 if all are half a step off.
    """
    return _error(_in_bar(score.bars, _onsets(score)), step)


def timing(score: Score) -> Timing:
    """What the score's onsets tell of its origin. See Timing."""
    onsets = _onsets(score)
    places = _in_bar(score.bars, onsets)
    error = _error(places, STEP)
    count = len(np.unique(onsets // APART))
    _, pulse, late = _pulse(places)
    if count < LEAST_ONSETS or min(error, *(_error(places, step) for step in FINE_STEPS[1:])) <= TYPED_ERROR:
        return Timing(error, pulse, 0, "typed")
    shift, shifted_error = _best_shift(places)
    usable = pulse >= max(LEAST_PULSE, 3 / count**0.5)  # by chance few onsets have some
    if usable and shifted_error <= TYPED_ERROR:
        return Timing(error, pulse, shift + STEP * round((late - shift) / STEP), "late")
    return Timing(error, pulse, round(late), "loose") if usable else Timing(error, pulse, 0, "played")


_ADVICE = "; use a model of clock time (configs/performance-lstm.yaml)"


def was_played(score: Score) -> bool:
    """Whether the score's bar lines say nothing of its notes, as in a recording without a click."""
    return timing(score).kind == "played"


def as_typed(score: Score) -> Score:
    """The score if it was typed, straightened if its bar lines can be used. Raises ScoreError if it was played."""
    found = timing(score)
    if found.kind == "played":
        raise ScoreError(
            f"played, not typed: onsets are {found.error:.2f} of a grid step off on average (0.25 is random), "
            f"so it has no usable bar lines{_ADVICE}"
        )
    return straighten(score, found)


def straighten(score: Score, found: Timing | None = None) -> Score:
    """Late notes moved back; loose ones put on 16ths, triplets or finer, whichever fits the part in that beat.

    A typed score is returned as it is, and so is a played one: it has nothing to be straightened by. No note is lost
    and pitches, velocities and bar lines stay; an end that comes near to the same division is put on it.
    """
    found = timing(score) if found is None else found
    if found.kind in ("typed", "played"):
        return score
    if found.kind == "late":
        parts = tuple(part.with_notes(_moved(part.notes, -found.late)) for part in score.parts)
    else:
        period, _, _ = _pulse(_in_bar(score.bars, _onsets(score)))
        parts = tuple(_straight_part(part, score.bars, period, found.late) for part in score.parts)
    return replace(score, parts=parts, length=max(score.length, *(part.end for part in parts)))


def _onsets(score: Score) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=np.int32), *(part.notes["onset"] for part in score.parts)])


def _in_bar(bars: np.ndarray, onsets: np.ndarray) -> np.ndarray:
    """Ticks since the bar line before each onset."""
    return onsets - bars[np.searchsorted(bars, onsets, side="right") - 1]


def _error(places: np.ndarray, step: int) -> float:
    if not len(places):
        return 0.0
    after = places % step
    return float(np.minimum(after, step - after).mean()) / step


def _pulse(places: np.ndarray) -> tuple[int, float, float]:
    """(division in ticks, pulse 0..1, ticks by which the onsets are behind it) where the pulse is strongest."""
    if not len(places):
        return PULSES[0], 0.0, 0.0
    counts = np.bincount(places % TICKS_PER_QUARTER, minlength=TICKS_PER_QUARTER)
    means = [counts @ turns / len(places) for turns in _TURNS]
    best = int(np.argmax(np.abs(means)))
    return PULSES[best], float(abs(means[best])), float(np.angle(means[best])) / (2 * np.pi) * PULSES[best]


_TURNS = [np.exp(2j * np.pi * np.arange(TICKS_PER_QUARTER) / period) for period in PULSES]
"""For each of PULSES the direction of every tick of a quarter note."""


def _best_shift(places: np.ndarray) -> tuple[int, float]:
    """(ticks, error) of the shift within half a step that leaves the least error on the grid."""
    counts = np.bincount(places % STEP, minlength=STEP)
    ticks = np.arange(STEP)
    after = (ticks[None, :] - ticks[:, None]) % STEP  # [shift, place]
    errors = np.minimum(after, STEP - after) @ counts / (len(places) * STEP)
    best = int(errors.argmin())
    return (best - STEP if best > STEP // 2 else best), float(errors[best])


def _moved(notes: np.ndarray, ticks: int) -> np.ndarray:
    """The notes moved in time, none before tick 0."""
    moved = notes.copy()
    moved["onset"] = np.maximum(notes["onset"] + ticks, 0)
    return moved


def _straight_part(part: Part, bars: np.ndarray, period: int, late: int) -> Part:
    """One part of a loose score on the grid: its own delay taken off, then each beat on the division that fits it.

    period, late: the score's strongest division and its delay; the part's delay is looked for around it.
    """
    notes = part.notes
    if not len(notes):
        return part
    places = _in_bar(bars, notes["onset"])
    own = np.exp(2j * np.pi * (places - late) / period).mean()
    delay = float(np.angle(own)) / (2 * np.pi) * period
    if len(notes) >= 2 * LEAST_ONSETS and abs(own) >= LEAST_PULSE and abs(delay) <= APART:  # else it plays off the beat
        late += round(delay)
    onsets = np.maximum(notes["onset"].astype(np.int64) - late, 0)
    bar = np.searchsorted(bars, onsets, side="right") - 1
    places = onsets - bars[bar]
    beat = (places + APART) // TICKS_PER_QUARTER  # a note just before the beat belongs to it
    starts = np.flatnonzero(np.diff(bars[bar] + beat * TICKS_PER_QUARTER, prepend=-1))
    sizes = np.diff(np.append(starts, len(notes)))
    first = np.zeros(len(notes), dtype=bool)
    first[starts] = True
    rises = np.diff(places, prepend=0)
    chords = np.add.reduceat(first | (rises > APART), starts)

    errors = np.empty((len(DIVISIONS), len(starts)))
    merged = np.empty((len(DIVISIONS), len(starts)))
    for i, ticks in enumerate(DIVISIONS):
        snapped = (places + ticks // 2) // ticks
        errors[i] = np.add.reduceat(np.abs(places - snapped * ticks), starts) / sizes
        merged[i] = chords - np.add.reduceat(first | (np.diff(snapped, prepend=0) > 0), starts)
    costs = errors + 1000.0 * np.maximum(merged, 0)  # what was apart stays apart, if it can
    prices = np.array(list(DIVISIONS.values()))[:, None]
    for _ in range(2):  # the looser the part, the more a finer division must save
        chosen = (costs + prices).argmin(axis=0)
        usual = np.bincount(chosen, weights=sizes, minlength=len(DIVISIONS)) + 1
        loose = float(errors[chosen, np.arange(len(starts))] @ sizes) / len(notes)
        prices = np.array(list(DIVISIONS.values()))[:, None] + HABIT * np.log(usual.max() / usual)[:, None]
        prices *= np.clip(loose / LOOSE, 0.3, 3.0)
    division = np.array(list(DIVISIONS))[(costs + prices).argmin(axis=0)]
    grid = np.repeat(division, sizes)

    lines = np.append(bars, np.iinfo(np.int32).max)
    straight = notes.copy()
    straight["onset"] = np.minimum(bars[bar] + (places + grid // 2) // grid * grid, lines[bar + 1])
    ends = straight["onset"] + notes["duration"].astype(np.int64)
    since = ends - bars[bar]
    near = bars[bar] + (since + grid // 2) // grid * grid
    ends = np.where((np.abs(near - ends) <= STEP) & (near > straight["onset"]), near, ends)
    straight["duration"] = ends - straight["onset"]
    return part.with_notes(straight)


def for_notation(score: Score) -> Score:
    """The score as a page shows it: straight, and in even lengths if any of its notes starts or stops off the grid.

    Raises ScoreError if it was played without regard to bar lines.
    """
    try:
        typed = as_typed(score)
    except ScoreError as error:  # no model is asked for here
        raise ScoreError(str(error).removesuffix(_ADVICE)) from None
    notes = [part.notes for part in typed.parts if len(part.notes)]
    times = np.concatenate(
        [found for n in notes for found in (n["onset"], n["onset"] + n["duration"])] or [np.zeros(0)]
    )
    off = [bool((times % step != 0).any()) for step in FINE_STEPS]
    return in_even_lengths(typed, detached=True) if all(off) else typed


def in_even_lengths(score: Score, detached: bool = False) -> Score:
    """All notes on a grid of 24 to the quarter note; one that stops near where another of its part begins, stops there.

    So a tune from a MIDI file becomes what its player read: there notes stop a little early, or a little late. A last
    note, which has no next one, stops at the nearest 32nd. detached: one that sounds for a third of the way to the next
    one, or more, is held to it, if that is at most a quarter note off: what is played short is written long.
    """
    even = quantise(score, STEP)
    off = bool(even.length % 60 and even.length % 80)  # where a last note stops, unless the score's end is told
    parts = []
    for part in even.parts:
        notes = part.notes.copy()
        ends = notes["onset"] + notes["duration"]
        places = np.append(np.unique(notes["onset"]), [even.length, 2**31 - 1])
        after = np.searchsorted(places, ends)
        for place in (places[np.maximum(after - 1, 0)], places[after]):
            ends = np.where((np.abs(place - ends) <= NEAR) & (place > notes["onset"]), place, ends)
        if detached:
            following = places[np.searchsorted(places, notes["onset"], side="right")]
            way = following - notes["onset"]
            held = (way <= TICKS_PER_QUARTER) & (3 * (ends - notes["onset"]) >= way) & (ends < following)
            ends = np.where(held, following, ends)
        if off:
            last = ends == even.length
            ends[last] = np.maximum((ends[last] + 30) // 60 * 60, notes["onset"][last] + STEP)
        notes["duration"] = ends - notes["onset"]
        parts.append(part.with_notes(notes))
    length = max([0 if off else even.length, *(part.end for part in parts)])
    return replace(even, parts=tuple(parts), length=length, bars=even.bars[(even.bars < length) | (even.bars == 0)])
