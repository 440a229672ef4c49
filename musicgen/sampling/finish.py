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
from dataclasses import dataclass

import numpy as np

from musicgen.decoders.model import Model
from musicgen.errors import FinishError, TokenError
from musicgen.sampling.filters import SamplingConfig
from musicgen.sampling.prompts import PROMPTS, heard_as, settle
from musicgen.sampling.sampler import sample
from musicgen.score import Score
from musicgen.score.general_midi import PITCH_NAMES, PROGRAM_NAMES
from musicgen.tokens import Tokenizer


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
    if tokenizer.name not in PROMPTS:
        raise FinishError(f"a model of {tokenizer.name!r} can't continue a score; use one of {' '.join(PROMPTS)}")
    try:
        prompt = PROMPTS[tokenizer.name](fragment, heard_as(fragment, tokenizer), tokenizer, seen_parts)
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
        whole, new = prompt.join(drawn.steps, bars)
        notes = new.note_count
        made.append(Take(whole, new, fragment.length, drawn.nats / max(notes, 1), notes))
    return sorted(made, key=lambda take: take.nats_per_note)
