"""Harmonising: the other parts under a given one, a few bars at a time, each time with the given part read ahead.

The contract, as far as it is kept here:
- what was given comes back unchanged, and so do bars, metre, tempo and key;
- the parts that are added play in their instruments' ranges, all of them with the first note of a block; with
  the last note of what was given they strike theirs, of the tonic chord where it belongs there, and hold them;
- under one melody no note is struck above it, where the instrument can play below it;
- the same seed gives the same music; what can't be harmonised is refused with the reason.

The model has been trained on pieces with previews (see tokens.bars_preview): it reads what is given of some bars ahead,
then writes these bars, in which what was given comes again just so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from musicgen.decoders.model import Model
from musicgen.errors import FinishError
from musicgen.formats.instruments import playing_range
from musicgen.sampling.band import most_together, pitch_range
from musicgen.sampling.fill import encode_as_written, new_notes, walk
from musicgen.sampling.filters import SamplingConfig
from musicgen.sampling.sampler import sample
from musicgen.sampling.understanding import check_fragment
from musicgen.score import Part, Score
from musicgen.tokens import Tokenizer
from musicgen.tokens.bars_grammar import BarsCursor, Company
from musicgen.tokens.bars_preview import Block, arrange
from musicgen.tokens.bars_vocabulary import AHEAD, BACK, BAR, DRUM_PARTS, INSTANCES, INSTRUMENT, MAX_PARTS, PART
from musicgen.tokens.ending import Ending

BLOCK = 4
"""Bars of what is given that are read before the others are written."""
STRINGS = (40, 41, 42)
"""Violin, viola, cello: who is added where nobody says who, and the model knows them."""
VOICES = (52, 53, 54)
"""Choirs and voices, which are joined by three more of their kind, where the model knows four of it."""
MOST_ADDED = 3


@dataclass(frozen=True)
class Harmonisation:
    """One way to harmonise: `whole` has the given parts, then the added; `new` the added alone."""

    whole: Score
    new: Score
    nats_per_note: float
    notes: int


def usual_company(given: Score, seen_parts: Sequence[int] | None) -> tuple[str, ...]:
    """Programs, as `parts_to_add` takes them, of who is added where nobody says who.

    Three more voices to a voice, where the model has met four; else strings where it has met them; else up to three of
    the instruments it has met, from high to low.
    """
    if seen_parts is None:
        return tuple(str(program) for program in STRINGS)
    met = [divmod(value - INSTRUMENT, INSTANCES) for value in sorted(seen_parts) if INSTRUMENT <= value < DRUM_PARTS]
    own = next((part.program for part in given.parts if len(part.notes)), 0)
    if own in VOICES and (own, MOST_ADDED) in met:
        return (str(own),) * MOST_ADDED
    if set(STRINGS) <= {program for program, _ in met}:
        return tuple(str(program) for program in STRINGS)
    programs = [program for program, _ in met]
    chosen = programs[1 : 1 + MOST_ADDED] or programs
    return tuple(str(program) for program in sorted(chosen, key=lambda program: -sum(playing_range(program))))


def harmonise(
    given: Score,
    model: Model,
    tokenizer: Tokenizer,
    *,
    added: Sequence[Part],
    takes: int = 1,
    seed: int = 0,
    config: SamplingConfig,
    seen_parts: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda bars: None,
) -> list[Harmonisation]:
    """Write the `added` parts (empty ones) under a score, `takes` times in one batch; the likeliest first.

    given: as it is written, its repeats not played out. seen_parts: as for `finish`. Raises FinishError.
    """
    check_fragment(given)
    joining = range(len(given.parts), len(given.parts) + len(added))
    full = replace(given, parts=(*given.parts, *added))
    steps, part_of_value = encode_as_written(full, tokenizer, seen_parts, joining)
    company = sorted(value for value, i in part_of_value.items() if i in joining)
    if len(company) < len(added):
        raise FinishError(
            f"--add-part: the vocabulary holds {INSTANCES} parts of one instrument; add fewer of it, or others"
        )
    if len(part_of_value) > MAX_PARTS:
        raise FinishError(f"--add-part: that makes {len(part_of_value)} parts; the vocabulary holds {MAX_PARTS}")
    told, reading = _told_ahead(steps, sorted(part_of_value), len(given.bars))
    prompt = told[:reading]
    cursor = BarsCursor(len(given.bars))
    coordinates = walk(cursor, prompt)
    cursor.keep_course()
    cursor.lengths = dict(enumerate(steps[steps[:, 0] == BAR, 3].tolist(), start=1))
    cursor.company = Company(tuple(company), under=_is_line(given), final=Ending.of(given))
    cursor.waiting = set(company)
    for value in company:
        part = full.parts[part_of_value[value]]
        cursor.ranges[value], cursor.most[value] = pitch_range(part), most_together(part)
    sampled = sample(
        model,
        tokenizer,
        [copy.deepcopy(cursor) for _ in range(takes)],
        prompt,
        config=config,
        seed=seed,
        most_bars=len(given.bars),
        prompt_coordinates=coordinates,
        given=_blocks_after(told[reading:]),
        progress=progress,
    )
    made = []
    for drawn in sampled:
        decoded = tokenizer.decode(np.concatenate([prompt, drawn.steps]))
        new = new_notes(decoded, full, part_of_value, 0, given.length)
        parts = tuple(full.parts[i].with_notes(new[i]) for i in joining)
        alone = replace(given, parts=parts)
        rate = drawn.nats / max(alone.note_count, 1)
        made.append(Harmonisation(replace(given, parts=(*given.parts, *parts)), alone, rate, alone.note_count))
    return sorted(made, key=lambda one: one.nats_per_note)


def _is_line(score: Score) -> bool:
    """Whether a score is one melody: a part that strikes one pitch at a time."""
    playing = [part for part in score.parts if len(part.notes)]
    return len(playing) == 1 and not playing[0].is_drum and most_together(playing[0]) == 1


def _told_ahead(steps: np.ndarray, roster: Sequence[int], bars: int) -> tuple[np.ndarray, int]:
    """(the steps of what is given, told ahead block for block, and how many of them end with the first BACK).

    roster: values of field `part` of all that play, in order; each gets its PART step.
    """
    own = steps[steps[:, 0] == PART, 1]
    rows = np.zeros((len(roster), steps.shape[1]), dtype=steps.dtype)
    rows[:, 0], rows[:, 1] = PART, roster
    steps = np.concatenate([steps[:1], rows, steps[1 + len(own) :]])
    blocks = [Block(bar, 0, min(BLOCK, bars - bar + 1)) for bar in range(1, bars + 1, BLOCK)]
    told = arrange(steps, blocks, own.tolist())
    return told, int(np.flatnonzero(told[:, 0] == BACK)[0]) + 1


def _blocks_after(told: np.ndarray) -> dict[int, np.ndarray]:
    """Number of the bar that begins a block -> what is told from its AHEAD to its BACK."""
    begins, backs = (np.flatnonzero(told[:, 0] == mark).tolist() for mark in (AHEAD, BACK))
    return {
        1 + BLOCK * (number + 1): told[begin : back + 1]
        for number, (begin, back) in enumerate(zip(begins, backs, strict=True))
    }
