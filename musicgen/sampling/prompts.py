"""A fragment becomes a prompt: what each tokenizer makes of an unfinished score, and the way back to it.

In comes the fragment, out comes a Prompt: steps for the model to read, a cursor that goes on from them, and `join`,
which puts what was drawn after the fragment, whose own notes stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from musicgen.errors import FinishError, ScoreError, TokenError
from musicgen.formats.instruments import family, playing_range
from musicgen.score import TICKS_PER_QUARTER, Part, Score, Sign, clip
from musicgen.score.timing import as_typed, in_even_lengths
from musicgen.tokens import AbcTokenizer, BarsTokenizer, GridTokenizer, PerformanceTokenizer, Tokenizer
from musicgen.tokens.bars_grammar import BarsCursor
from musicgen.tokens.bars_vocabulary import (
    BAR,
    INSTANCES,
    INSTRUMENT,
    KINDS,
    LONGEST_BAR,
    PART,
    START,
    UNIT,
    part_values,
)
from musicgen.tokens.ending import Ending
from musicgen.tokens.grid_grammar import REST, GridCursor
from musicgen.tokens.performance_grammar import UNIT as HUNDREDTH
from musicgen.tokens.performance_grammar import Barlines, PerformanceCursor

BEYOND = 7
"""Semitones that a part may go below and above what it has played: models that are lost tend to climb."""
SLACK = TICKS_PER_QUARTER // 8
"""A 32nd note: so much too early or too late, a last note is still taken to stop at the barline."""
RECENT_BARS = 8
"""A part that has played in so many last bars of the fragment was playing when it broke off."""


@dataclass(frozen=True)
class Prompt:
    """A fragment as one tokenizer's steps, and the way back.

    cursor: makes the cursor of a piece of so many bars; None: it ends when it likes. hold: told the cursor that has
    walked the steps, holds the fragment's course, and what it is to end on. join: from the steps that were drawn, and
    the number of new bars that was asked for, to (the whole, the new alone).
    """

    steps: np.ndarray
    bars: int
    cursor: Callable[[int | None], Any]
    hold: Callable[[Any], None]
    join: Callable[[np.ndarray, int | None], tuple[Score, Score]]
    players: Mapping[int, int] = field(default_factory=dict)
    """Value of field `part` -> index of the fragment's part, where a model chooses who plays."""


def heard_as(fragment: Score, tokenizer: Tokenizer) -> Score:
    """The fragment as the model reads it: straightened where its notes lie around its bar lines and bars matter.

    Raises FinishError where it was played without regard to bar lines and the tokenizer counts in bars.
    """
    if tokenizer.clock:
        return fragment
    try:
        typed = as_typed(fragment)
    except ScoreError as error:
        raise FinishError(f"the fragment can't be continued in bars: {error}") from error
    return fragment if typed is fragment else replace(fragment, parts=clip(typed, fragment.length).parts)


def settle(fragment: Score) -> Score:
    """The fragment as it was meant where it was played: a last note let go just before or just after the barline.

    Within a 32nd note of it, the bar is held to be full, or the next one not begun. Only for counting bars and filling
    them; the notes that are kept are the fragment's own.
    """
    last = int(fragment.bars[-1])
    full = fragment.metre_at(last).ticks
    struck = max((int(part.notes["onset"].max()) for part in fragment.parts if len(part.notes)), default=0)
    if 0 < fragment.length - last <= SLACK and struck < last:
        return clip(fragment, last)
    if 0 < last + full - fragment.length <= SLACK:
        return replace(fragment, length=last + full)
    return fragment


def bars_prompt(fragment: Score, heard: Score, tokenizer: BarsTokenizer, seen: Sequence[int] | None) -> Prompt:
    """The fragment for the `bars` tokenizer: its last bar made full, its instruments lent programs the model knows.

    Who has played in its last bars takes part again; the last bar is to be the tonic chord.
    """
    read = settle(heard)
    last = int(read.bars[-1])
    bar = _check_bar(read, "bars")
    lent = lend_programs(read.parts, seen)
    steps = tokenizer.encode(replace(read, parts=lent, signs=()), unfinished=True)
    playing = [i for i, part in enumerate(read.parts) if len(part.notes)]
    values = part_values([lent[i] for i in playing])
    part_of_value = dict(reversed(list(zip(values, playing, strict=True))))
    lengths = steps[steps[:, 0] == BAR, 3]
    ranges = {value: _range(fragment.parts[i]) for value, i in part_of_value.items()}
    most = dict.fromkeys(part_of_value, 0)
    for value, i in zip(values, playing, strict=True):
        most[value] += _most_together(fragment.parts[i])
    ending = Ending.of(fragment)
    recent = int(read.bars[max(len(read.bars) - RECENT_BARS, 0)])
    band = {value for value, i in part_of_value.items() if read.parts[i].end > recent} or set(part_of_value)
    # the tokenizer's bars lie on its grid, the fragment's need not: what is new is moved by the difference
    grid_end = int(lengths.sum()) * UNIT
    shift = last + bar - grid_end

    def hold(cursor: BarsCursor) -> None:
        cursor.keep_course()
        cursor.ranges, cursor.most = ranges, most
        cursor.ending, cursor.must_play = ending, set(band)
        cursor.not_before = int(lengths[-1]) - (last + bar - read.length) // UNIT  # the seam, rounded up to the grid

    def join(drawn: np.ndarray, bars: int | None = None) -> tuple[Score, Score]:
        skeleton = steps[np.isin(steps[:, 0], (START, PART, BAR))]
        decoded = tokenizer.decode(np.concatenate([skeleton, drawn]))
        new = [fragment.parts[0].notes[:0]] * len(fragment.parts)
        for part, value in zip(decoded.parts, part_values(decoded.parts), strict=True):
            if len(part.notes):
                notes = part.notes.copy()
                stops = notes["onset"] + shift + notes["duration"]
                notes["onset"] = np.maximum(notes["onset"] + shift, fragment.length)
                notes["duration"] = np.maximum(stops - notes["onset"], 1)
                new[part_of_value[value]] = notes
        more = decoded.bars[decoded.bars >= grid_end] + shift
        return _join(fragment, new, np.concatenate([read.bars, more]), decoded.length + shift, fragment.signs)

    return Prompt(steps, len(lengths), tokenizer.cursor, hold, join, part_of_value)


def melody_prompt(fragment: Score, heard: Score, tokenizer: AbcTokenizer, seen: Sequence[int] | None) -> Prompt:
    """The fragment for the `abc` tokenizer: one melody, repeats as written, its last bar left open.

    A melody whose lengths have no symbols, as from most MIDI files, is read in even ones. It is to end on its tonic.
    """
    read = heard
    try:
        steps = tokenizer.encode(read, unfinished=True)
    except TokenError:
        read = in_even_lengths(settle(heard))
        steps = tokenizer.encode(read, unfinished=True)
    playing = [i for i, part in enumerate(fragment.parts) if len(part.notes)]
    compass, ending = _range(fragment.parts[playing[0]]), Ending.of(fragment)

    def join(drawn: np.ndarray, bars: int | None = None) -> tuple[Score, Score]:
        decoded = tokenizer.decode(np.concatenate([steps, drawn]))
        new = [part.notes[:0] for part in fragment.parts]
        notes = decoded.parts[0].notes
        notes = notes[notes["onset"] >= read.length].copy()
        stops = notes["onset"] + notes["duration"]
        notes["onset"] = np.maximum(notes["onset"], fragment.length)  # even lengths may end a few ticks before it
        notes["duration"] = np.maximum(stops - notes["onset"], 1)
        new[playing[0]] = notes
        starts = np.concatenate([read.bars, decoded.bars[decoded.bars > read.bars[-1]]])
        return _join(fragment, new, starts, decoded.length, decoded.signs)

    def cursor(bars: int | None) -> Any:
        return tokenizer.cursor(bars, strict=False)  # real tunes have bars of any length; keep_course ends that

    def hold(cursor: Any) -> None:
        cursor.keep_course()
        cursor.compass, cursor.ending = compass, ending

    return Prompt(steps, len(read.bars), cursor, hold, join)


def grid_prompt(fragment: Score, heard: Score, tokenizer: GridTokenizer, seen: Sequence[int] | None) -> Prompt:
    """The fragment for the `grid` tokenizer: a part a voice, its last bar left open; what sounds is let go at the seam.

    Without holds (`tokenizer.holds`) a pitch that goes on over the seam is struck again there. The last bar is to be
    the tonic chord, of all voices.
    """
    read = settle(heard)
    _check_bar(read, "grid")
    steps = tokenizer.encode(read, unfinished=True)
    playing = [i for i, part in enumerate(read.parts) if len(part.notes)]
    begun = tokenizer.decode(steps)
    ending = Ending.of(fragment)
    shift = int(read.bars[-1] - begun.bars[-1])  # the tokenizer's bars lie on its grid, the fragment's need not

    def hold(cursor: GridCursor) -> None:
        cursor.keep_course()
        cursor.ranges = {voice: _range(fragment.parts[i]) for voice, i in enumerate(playing)}
        cursor.ending = ending
        cursor.heard = (REST,) * tokenizer.voices

    def join(drawn: np.ndarray, bars: int | None = None) -> tuple[Score, Score]:
        decoded = tokenizer.decode(np.concatenate([steps, drawn]))
        end = max(decoded.length + shift, fragment.length)
        new = [part.notes[:0] for part in fragment.parts]
        for i, part in zip(playing, decoded.parts, strict=True):
            stops = part.notes["onset"] + part.notes["duration"]
            notes = part.notes[(stops > begun.length) & (stops + shift > fragment.length)].copy()
            stops = np.minimum(notes["onset"] + notes["duration"] + shift, end)
            notes["onset"] = np.maximum(notes["onset"] + shift, fragment.length)
            notes["duration"] = np.maximum(stops - notes["onset"], 1)
            new[i] = notes
        more = decoded.bars[len(begun.bars) :] + shift
        return _join(fragment, new, np.concatenate([read.bars, more]), end, fragment.signs)

    return Prompt(steps, len(begun.bars), tokenizer.cursor, hold, join)


def performance_prompt(
    fragment: Score, heard: Score, tokenizer: PerformanceTokenizer, seen: Sequence[int] | None
) -> Prompt:
    """The fragment for the `performance` tokenizer: one instrument, in seconds; new bars are of its last metre.

    Several parts of one program are the hands of one player: a new note goes to the one that has played nearest to it.
    The last bar is to be the tonic chord, which stands on its barline to the tick.
    """
    playing = [i for i, part in enumerate(fragment.parts) if len(part.notes)]
    if len({(fragment.parts[i].program, fragment.parts[i].is_drum) for i in playing}) > 1:
        raise FinishError(
            f"{len(playing)} parts that play, on different instruments: a `performance` model goes on with one "
            "pitched instrument; use a `bars` model"
        )
    if fragment.parts[playing[0]].is_drum:
        raise FinishError("drums: a `performance` model goes on with one pitched instrument; use a `bars` model")
    middles = np.array([np.median(fragment.parts[i].notes["pitch"]) for i in playing])
    ranges = [_range(fragment.parts[i]) for i in playing]
    read = settle(fragment)
    steps = tokenizer.encode(fragment, unfinished=True)
    last = int(read.bars[-1])
    metre = read.metre_at(last).ticks
    filled = last + max(metre, read.length - last)
    ticks_per_ms = TICKS_PER_QUARTER * fragment.tempo_at(fragment.length).bpm / 60_000
    seam_ms = tokenizer.decode(steps).length

    barlines = Barlines(len(read.bars), seam_ms + (filled - fragment.length) / ticks_per_ms, metre / ticks_per_ms)
    ending = Ending.of(fragment)

    def cursor(bars: int | None) -> PerformanceCursor:
        made = tokenizer.cursor()
        made.barlines, made.bar, made.bars = barlines, barlines.bars, bars
        return made

    def hold(cursor: PerformanceCursor) -> None:
        cursor.keep_course()
        cursor.compass = min(low for low, _ in ranges), max(high for _, high in ranges)
        cursor.ending = ending

    def join(drawn: np.ndarray, bars: int | None = None) -> tuple[Score, Score]:
        decoded = tokenizer.decode(np.concatenate([steps, drawn]))
        bars = barlines.begun(decoded.length) - barlines.bars if bars is None else bars
        end = filled + bars * metre
        notes = decoded.parts[0].notes
        notes = notes[notes["onset"] >= seam_ms].copy()
        closes = (notes["onset"] + notes["duration"] == decoded.length) & (
            notes["onset"] == notes["onset"].max(initial=0)
        )
        stops = notes["onset"] + notes["duration"] - seam_ms
        onsets = fragment.length + np.rint((notes["onset"] - seam_ms) * ticks_per_ms).astype(np.int64)
        stops = np.minimum(fragment.length + np.rint(stops * ticks_per_ms).astype(np.int64), end)
        chord = end - round(barlines.hold * ticks_per_ms)
        if (np.abs(onsets[closes] - chord) <= HUNDREDTH * ticks_per_ms + 1).all():
            stops = np.where(closes, end, np.minimum(stops, chord))
            onsets[closes] = chord
        notes["onset"] = onsets
        notes["duration"] = np.maximum(stops - onsets, 1)
        new = [part.notes[:0] for part in fragment.parts]
        hand = np.abs(notes["pitch"][:, None] - middles).argmin(axis=1)
        for i, number in enumerate(playing):
            new[number] = notes[hand == i]
        starts = np.concatenate([read.bars, filled + metre * np.arange(bars)])
        return _join(fragment, new, starts, end, fragment.signs)

    return Prompt(steps, len(read.bars), cursor, hold, join)


PROMPTS: dict[str, Callable[..., Prompt]] = {
    "abc": melody_prompt,
    "bars": bars_prompt,
    "grid": grid_prompt,
    "performance": performance_prompt,
}
"""Tokenizer -> how a fragment becomes its prompt: (fragment, the fragment as heard, tokenizer, parts seen)."""


def _check_bar(read: Score, name: str) -> int:
    """Ticks of the last bar once it is full. Raises FinishError where that is more than a model of bars holds."""
    last = int(read.bars[-1])
    bar = max(read.metre_at(last).ticks, read.length - last)
    if bar > LONGEST_BAR * UNIT:
        quarters = bar / TICKS_PER_QUARTER
        raise FinishError(f"bar {len(read.bars)} is {quarters:g} quarters long; a `{name}` model holds 8 at most")
    return bar


def _join(
    fragment: Score, new: Sequence[np.ndarray], bars: np.ndarray, length: int, signs: tuple[Sign, ...]
) -> tuple[Score, Score]:
    """(fragment and continuation, continuation alone) from the new notes of each part, and the bars of both."""
    whole = replace(
        fragment,
        parts=tuple(
            part.with_notes(np.concatenate([part.notes, notes]))
            for part, notes in zip(fragment.parts, new, strict=True)
        ),
        bars=bars,
        length=max(length, fragment.length),
        signs=signs,
    )
    only = replace(whole, parts=tuple(p.with_notes(notes) for p, notes in zip(fragment.parts, new, strict=True)))
    return whole, only


def lend_programs(parts: Sequence[Part], seen: Sequence[int] | None) -> tuple[Part, ...]:
    """Parts whose instrument (and which one of its kind) the model has met, as near as can be to the real ones.

    seen: values of field `part` met in training; None means all. Each part keeps its own where it can; the others take,
    in this order, the same program, the same family, anything; where all are taken, their own.
    """
    if seen is None:
        return tuple(parts)
    free: dict[int, int] = {}  # kind -> how many instances of it were met
    for value in seen:
        if value >= INSTRUMENT:
            kind, instance = divmod(value - INSTRUMENT, INSTANCES)
            free[kind] = max(free.get(kind, 0), instance + 1)
    chosen: list[int | None] = []  # None: an instrument that was never met
    for part in parts:
        own = KINDS - 1 if part.is_drum else part.program
        if free.get(own, 0) > 0 and len(part.notes):
            free[own] -= 1
            chosen.append(own)
        else:
            chosen.append(own if part.is_drum or not len(part.notes) else None)
    lent = []
    for part, own_kind in zip(parts, chosen, strict=True):
        kind = part.program if own_kind is None else own_kind
        if own_kind is None:
            choices = [k for k, left in free.items() if left > 0 and k < KINDS - 1]
            choices.sort(key=lambda k: (family(k) != family(part.program), _distance(k, part), k))
            if choices:
                kind = choices[0]
                free[kind] -= 1
        lent.append(part if part.is_drum else replace(part, program=kind))
    return tuple(lent)


def _distance(program: int, part: Part) -> float:
    """How far the middle of an instrument's range lies from where a part plays, in semitones."""
    low, high = playing_range(program)
    return abs((low + high) / 2 - float(np.median(part.notes["pitch"]))) if len(part.notes) else 0.0


def _range(part: Part) -> tuple[int, int]:
    """What a part may play: up to BEYOND what it has, in its instrument's range; of drums, what it has."""
    lowest, highest = int(part.notes["pitch"].min()), int(part.notes["pitch"].max())
    low, high = (127, 0) if part.is_drum else playing_range(part.program)
    return min(max(low, lowest - BEYOND), lowest), max(min(high, highest + BEYOND), highest)


def _most_together(part: Part) -> int:
    """How many notes a part has struck at once, at most: two flutes on one staff do not play a chord of five."""
    return int(np.unique(part.notes["onset"], return_counts=True)[1].max())
