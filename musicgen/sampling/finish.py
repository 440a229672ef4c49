"""Finishing a score: the rest of it, starting exactly where the fragment stops.

The contract, as far as it is kept here:
- the original's notes come back unchanged, and no new note starts before the seam;
- a half-filled last bar is filled to its metre, and counts as the fragment's; then come exactly as many bars as asked;
- only the fragment's instruments play, each in its range; metre, tempo and key go on as they were;
- the same seed gives the same music; a fragment that can't be continued is refused with the reason.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from musicgen.decoders.model import Model
from musicgen.errors import FinishError, TokenError
from musicgen.formats.instruments import family, playing_range
from musicgen.sampling.filters import SamplingConfig
from musicgen.sampling.sampler import sample
from musicgen.score import TICKS_PER_QUARTER, Part, Score, Sign, clip
from musicgen.score.general_midi import PITCH_NAMES, PROGRAM_NAMES
from musicgen.tokens import AbcTokenizer, BarsTokenizer, Tokenizer
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

SLACK = TICKS_PER_QUARTER // 8
"""A 32nd note: so much too early or too late, a last note is still taken to stop at the barline."""


@dataclass(frozen=True)
class PartRead:
    """What was understood of one part of a fragment."""

    name: str
    program: int
    is_drum: bool
    notes: int
    lowest: str
    highest: str


@dataclass(frozen=True)
class Understanding:
    """What was read of a fragment, and where it stops."""

    parts: tuple[PartRead, ...]
    key: str
    metre: str
    tempo_bpm: float
    bars: int
    seam: int
    """Tick at which the fragment stops (480 to the quarter note)."""
    last_bar_filled: float
    """Share of the last bar that is there; 1.0 where it is full."""


@dataclass(frozen=True)
class Take:
    """One continuation: `whole` with the fragment, `new` without; both have the fragment's parts."""

    whole: Score
    new: Score
    seam: int
    nats_per_note: float
    notes: int


def understand(fragment: Score) -> Understanding:
    """What a fragment is, in words a musician can check. Raises FinishError where there is nothing to continue."""
    if not fragment.note_count:
        raise FinishError(f"{fragment.title or 'the score'}: no notes, so there is nothing to continue")
    seam = fragment.length
    meant = settle(fragment)
    start = int(meant.bars[-1])
    metre, key = meant.metre_at(start), meant.key_at(start)
    parts = tuple(
        PartRead(
            part.name or ("drums" if part.is_drum else PROGRAM_NAMES[part.program]),
            part.program,
            part.is_drum,
            len(part.notes),
            PITCH_NAMES[part.notes["pitch"].min()] if len(part.notes) else "-",
            PITCH_NAMES[part.notes["pitch"].max()] if len(part.notes) else "-",
        )
        for part in fragment.parts
    )
    return Understanding(
        parts=parts,
        key=key.name,
        metre=f"{metre.numerator}/{metre.denominator}",
        tempo_bpm=fragment.tempo_at(seam).bpm,
        bars=len(meant.bars),
        seam=seam,
        last_bar_filled=min((meant.length - start) / metre.ticks, 1.0),
    )


def finish(
    fragment: Score,
    model: Model,
    tokenizer: Tokenizer,
    *,
    bars: int,
    takes: int = 1,
    seed: int = 0,
    config: SamplingConfig,
    seen_parts: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda bars: None,
) -> list[Take]:
    """Continue a fragment by exactly `bars` bars (after its last one is filled), `takes` times in one batch.

    fragment: as the tokenizer wants it (repeats unfolded unless it encodes them). seen_parts: the values of field
    `part` that the model has met; instruments it has not met are lent the nearest one it has. Takes come best first, by
    the likelihood of a note. Raises FinishError.
    """
    understand(fragment)
    try:
        if isinstance(tokenizer, BarsTokenizer):
            prompt = _bars_prompt(fragment, tokenizer, seen_parts)
        elif isinstance(tokenizer, AbcTokenizer):
            prompt = _melody_prompt(fragment, tokenizer)
        else:
            raise FinishError(f"a model of {tokenizer.name!r} can't continue a score; use one of bars or abc")
    except TokenError as error:
        raise FinishError(f"the fragment can't be continued: {error}") from error
    total = prompt.bars + bars
    cursor = prompt.cursor(total)
    coordinates = [cursor.coordinates()]
    for step in prompt.steps[1:]:
        cursor.advance(step.tolist())
        coordinates.append(cursor.coordinates())
    prompt.hold(cursor)
    sampled = sample(
        model,
        tokenizer,
        [copy.deepcopy(cursor) for _ in range(takes)],
        prompt.steps,
        config=config,
        seed=seed,
        most_bars=total,
        prompt_coordinates=np.array(coordinates),
        progress=progress,
    )
    made = []
    for drawn in sampled:
        whole, new = prompt.join(drawn.steps)
        notes = new.note_count
        made.append(Take(whole, new, fragment.length, drawn.nats / max(notes, 1), notes))
    return sorted(made, key=lambda take: take.nats_per_note)


@dataclass(frozen=True)
class _Prompt:
    """A fragment as one tokenizer's steps, and the way back."""

    steps: np.ndarray
    bars: int
    cursor: Callable[[int], Any]
    hold: Callable[[Any], None]
    join: Callable[[np.ndarray], tuple[Score, Score]]


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


def _bars_prompt(fragment: Score, tokenizer: BarsTokenizer, seen_parts: Sequence[int] | None) -> _Prompt:
    """The fragment for the `bars` tokenizer: its last bar made full, its instruments lent programs the model knows."""
    read = settle(fragment)
    last = int(read.bars[-1])
    bar = max(read.metre_at(last).ticks, read.length - last)
    if bar > LONGEST_BAR * UNIT:
        quarters = bar / TICKS_PER_QUARTER
        raise FinishError(f"bar {len(read.bars)} is {quarters:g} quarters long; a `bars` model holds 8 at most")
    lent = lend_programs(read.parts, seen_parts)
    steps = tokenizer.encode(replace(read, parts=lent, signs=()), unfinished=True)
    playing = [i for i, part in enumerate(read.parts) if len(part.notes)]
    values = part_values([lent[i] for i in playing])
    part_of_value = dict(reversed(list(zip(values, playing, strict=True))))
    lengths = steps[steps[:, 0] == BAR, 3]
    ranges = {value: _range(fragment.parts[i]) for value, i in part_of_value.items()}
    # the tokenizer's bars lie on its grid, the fragment's need not: what is new is moved by the difference
    grid_end = int(lengths.sum()) * UNIT
    shift = last + bar - grid_end

    def hold(cursor: BarsCursor) -> None:
        cursor.keep_course()
        cursor.ranges = ranges
        cursor.not_before = -(-(read.length - last) // UNIT)  # the seam, rounded up to the grid

    def join(drawn: np.ndarray) -> tuple[Score, Score]:
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
        bars = decoded.bars[decoded.bars >= grid_end] + shift
        return _join(fragment, new, np.concatenate([read.bars, bars]), decoded.length + shift, fragment.signs)

    return _Prompt(steps, len(lengths), tokenizer.cursor, hold, join)


def _melody_prompt(fragment: Score, tokenizer: AbcTokenizer) -> _Prompt:
    """The fragment for the `abc` tokenizer: one melody, repeats as written, its last bar left open."""
    steps = tokenizer.encode(fragment, unfinished=True)
    playing = [i for i, part in enumerate(fragment.parts) if len(part.notes)]

    def join(drawn: np.ndarray) -> tuple[Score, Score]:
        decoded = tokenizer.decode(np.concatenate([steps, drawn]))
        new = [part.notes[:0] for part in fragment.parts]
        notes = decoded.parts[0].notes
        new[playing[0]] = notes[notes["onset"] >= fragment.length]
        bars = np.concatenate([fragment.bars, decoded.bars[decoded.bars > fragment.bars[-1]]])
        return _join(fragment, new, bars, decoded.length, decoded.signs)

    def cursor(bars: int) -> Any:
        return tokenizer.cursor(bars, strict=False)  # real tunes have bars of any length; keep_course ends that

    return _Prompt(steps, len(fragment.bars), cursor, lambda cursor: cursor.keep_course(), join)


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
    """What a part may play: its instrument's range, and what it has played already; of drums, the keys it has used."""
    pitches = part.notes["pitch"]
    low, high = (127, 0) if part.is_drum else playing_range(part.program)
    return min(low, int(pitches.min())), max(high, int(pitches.max()))
