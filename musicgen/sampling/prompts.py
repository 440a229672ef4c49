"""A fragment becomes a prompt: what each tokenizer makes of an unfinished score, and the way back to it.

In comes the fragment, out comes a Prompt: steps for the model to read, a cursor that goes on from them, and `join`,
which puts what was drawn after the fragment, whose own notes stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from musicgen.errors import FinishError, ScoreError, TokenError
from musicgen.sampling.band import is_one_line, lend_programs, most_together, one_after_another, pitch_range
from musicgen.sampling.entrances import EnteringCursor
from musicgen.sampling.joining import changes_from, join_up, share_out
from musicgen.score import TICKS_PER_QUARTER, Score, clip
from musicgen.score.timing import as_typed, in_even_lengths
from musicgen.tokens import AbcTokenizer, BarsTokenizer, GridTokenizer, PerformanceTokenizer, Tokenizer
from musicgen.tokens.bars_grammar import BarsCursor
from musicgen.tokens.bars_vocabulary import (
    BAR,
    INSTANCES,
    LONGEST_BAR,
    MAX_PARTS,
    PART,
    START,
    UNIT,
    part_of,
    part_values,
)
from musicgen.tokens.ending import Ending
from musicgen.tokens.grid_grammar import REST, GridCursor
from musicgen.tokens.performance_grammar import UNIT as HUNDREDTH
from musicgen.tokens.performance_grammar import Barlines, PerformanceCursor

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
    players: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """Value of field `part` -> indices of the parts that have it, where a model chooses who plays."""


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


def bars_prompt(
    fragment: Score,
    heard: Score,
    tokenizer: BarsTokenizer,
    seen: Sequence[int] | None,
    joining: Collection[int] = (),
    only: Collection[int] | None = None,
) -> Prompt:
    """The fragment for the `bars` tokenizer: its last bar made full, its instruments lent programs the model knows.

    Who has played in its last bars takes part again; the last bar is to be the tonic chord. joining: parts, by index,
    that have no notes yet and are to play from the seam on. only: of parts that the model takes for one, those
    that play on.
    """
    read = settle(heard)
    last = int(read.bars[-1])
    bar = _check_bar(read, "bars")
    lent = lend_programs(read.parts, seen, joining)
    steps = tokenizer.encode(replace(read, parts=lent, signs=()), unfinished=True)
    playing = [i for i, part in enumerate(read.parts) if len(part.notes) or i in joining]
    values = part_values([lent[i] for i in playing])
    new_values = [value for value, i in zip(values, playing, strict=True) if i in joining]
    steps = _with_roster(steps, values, new_values)
    sharing: dict[int, list[int]] = {}  # value -> the parts that have it: the ninth of a program joins the eighth
    for value, i in zip(values, playing, strict=True):
        sharing.setdefault(value, []).append(i)
    lengths = steps[steps[:, 0] == BAR, 3]
    heirs = {value: [i for i in parts if only is None or i in only] or parts for value, parts in sharing.items()}
    own_ranges = {i: pitch_range(fragment.parts[i]) for i in playing}
    ranges = {
        value: (min(own_ranges[i][0] for i in parts), max(own_ranges[i][1] for i in parts))
        for value, parts in heirs.items()
    }
    most = {value: sum(most_together(fragment.parts[i]) for i in parts) for value, parts in heirs.items()}
    ending = Ending.of(fragment)
    recent = int(read.bars[max(len(read.bars) - RECENT_BARS, 0)])
    recently = {i for i in playing if read.parts[i].end > recent}
    band = {value for value, parts in sharing.items() if recently.intersection(parts)} or set(sharing)
    band |= set(new_values)
    # the tokenizer's bars lie on its grid, the fragment's need not: what is new is moved by the difference
    grid_end = int(lengths.sum()) * UNIT
    shift = last + bar - grid_end

    def hold(cursor: BarsCursor) -> None:
        cursor.keep_course()
        cursor.ranges, cursor.most = ranges, most
        cursor.ending, cursor.must_play = ending, set(band)
        cursor.metre_due = False  # the last bar is counted as it stands, be it long or short
        cursor.not_before = int(lengths[-1]) - (last + bar - read.length) // UNIT  # the seam, rounded up to the grid
        if isinstance(cursor, EnteringCursor):
            cursor.enter(new_values, seam_is_barline=cursor.not_before >= cursor.bar_units)

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
                own_ones = {i: own_ranges[i] for i in heirs[value]}
                for i, own in share_out(notes, own_ones, recently, part.is_drum).items():
                    new[i] = one_after_another(own) if is_one_line(fragment.parts[i]) else own
        more = decoded.bars[decoded.bars >= grid_end] + shift
        said = changes_from(decoded, fragment.length - shift, shift)
        return join_up(fragment, new, np.concatenate([read.bars, more]), decoded.length + shift, fragment.signs, said)

    return Prompt(steps, len(lengths), EnteringCursor if new_values else tokenizer.cursor, hold, join, sharing)


def _with_roster(steps: np.ndarray, values: Sequence[int], added: Sequence[int]) -> np.ndarray:
    """The steps (T, 5) with a PART step more for each of the `added` values of field `part`, in their places.

    values: of all parts that play or will, the added ones among them. Raises FinishError where the vocabulary has no
    room for them.
    """
    if not added:
        return steps
    roster = np.flatnonzero(steps[:, 0] == PART)
    wanted = sorted({*steps[roster, 1].tolist(), *added})
    if len(wanted) > MAX_PARTS:
        raise FinishError(f"--add-part: that makes {len(wanted)} parts; the vocabulary holds {MAX_PARTS}")
    shared = next((value for value in added if values.count(value) > 1), None)
    if shared is not None:
        raise FinishError(
            f"--add-part: the vocabulary holds {INSTANCES} parts of one instrument, and {part_of(shared).name!r} is "
            "taken; add another instrument"
        )
    rows = np.zeros((len(wanted), steps.shape[1]), dtype=steps.dtype)
    rows[:, 0], rows[:, 1] = PART, wanted
    return np.concatenate([steps[: roster[0]], rows, steps[roster[-1] + 1 :]])


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
    compass, ending = pitch_range(fragment.parts[playing[0]]), Ending.of(fragment)

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
        said = changes_from(decoded, read.length, 0)
        return join_up(fragment, new, starts, decoded.length, decoded.signs, said)

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
        cursor.ranges = {voice: pitch_range(fragment.parts[i]) for voice, i in enumerate(playing)}
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
        said = changes_from(decoded, begun.length, shift)
        return join_up(fragment, new, np.concatenate([read.bars, more]), end, fragment.signs, said)

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
    ranges = [pitch_range(fragment.parts[i]) for i in playing]
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
        return join_up(fragment, new, starts, end, fragment.signs)

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
