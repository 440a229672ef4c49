"""Filling a hole: bars in the middle of a score written anew, with what comes before and after in sight.

The contract, as far as it is kept here:
- whatever does not begin in the hole comes back unchanged, also a note that sounds into it; bars and maps stay;
- a note that begins in the hole goes whole, also what of it sounds past the end (MusicXML and ABC keep that as the
  note of its own that it is there);
- no new note begins before the hole or sounds past its end, and none strikes a pitch that its part still holds;
- only parts that play outside the hole play in it, in their ranges; those that play close by on both sides are never
  silent for more than a bar of it; a part that played one note at a time still does;
- the same seed gives the same music; a hole that can't be filled is refused with the reason.

The model has been trained on pieces with previews (see tokens.bars_preview). It reads the piece up to a few bars before
the hole, then what comes after it, then those few bars, and goes on from there. Several are drawn for each take, and
the one is kept after which what follows surprises the model least (sampling, importance, resampling: Rubin 1987, the
weight being the likelihood of what follows).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from musicgen.decoders.likelihood import nats_of
from musicgen.decoders.model import Model
from musicgen.errors import FinishError, TokenError
from musicgen.sampling.band import is_one_line, lend_programs, most_together, one_after_another, pitch_range
from musicgen.sampling.filters import SamplingConfig
from musicgen.sampling.prompts import heard_as
from musicgen.sampling.sampler import sample
from musicgen.sampling.takes import Figures, from_seam, measure
from musicgen.sampling.understanding import check_fragment
from musicgen.score import Part, Score, clip
from musicgen.score.lines import Melodies
from musicgen.tokens import PREVIEWS, Tokenizer
from musicgen.tokens.bars_grammar import BarsCursor
from musicgen.tokens.bars_preview import HOLE, LONGEST_AHEAD, LONGEST_HOLE, Block, arrange, follow, in_order
from musicgen.tokens.bars_vocabulary import BAR, CONDUCTOR, END, INSTANCES, POSITION, part_values

LEAD = 2
"""So many bars before the hole are read last, after what follows it, so that lines go on from where they are."""
TRIES = 8
"""So many are drawn for a take."""
HEARD_BEFORE = 8
"""Bars before the hole that are heard when it is judged how well what follows does follow."""
NEIGHBOURS = 4
"""A part that plays in so many bars on either side of the hole plays in it."""


@dataclass(frozen=True)
class Filling:
    """One way to fill a hole: `whole` as it is now, `new` without what was given; both have the score's parts."""

    whole: Score
    new: Score
    nats_per_note: float
    nats_after: float
    """Nats a note of the first notes of each part after the hole, once it is filled so."""
    notes: int
    figures: Figures


@dataclass(frozen=True)
class Hole:
    """Bars `first` to `last` of a score, from 1."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}" if self.last > self.first else f"{self.first}"

    @property
    def bars(self) -> int:
        return self.last - self.first + 1

    def ticks(self, score: Score) -> tuple[int, int]:
        """(first tick, the tick after the last) of it in a score."""
        stop = int(score.bars[self.last]) if self.last < len(score.bars) else score.length
        return int(score.bars[self.first - 1]), stop


def parse_hole(words: str) -> Hole:
    """'9-12' or '9'. Raises FinishError."""
    found = re.fullmatch(r"\s*([0-9]{1,6})(?:\s*-\s*([0-9]{1,6}))?\s*", words)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if found and 1 <= last < first:
        raise FinishError(f"--bars {words}: the last bar comes before the first; bars 9 to 12 are 9-12")
    if not 1 <= first <= last:
        raise FinishError(f"--bars {words}: not the bars of a hole; bars 9 to 12 are 9-12, counted from 1")
    return Hole(first, last)


def around(score: Score, hole: Hole) -> Score:
    """What is given: the score without the notes that begin in the hole. Raises FinishError where it has no such hole.

    score: as it is written, its repeats not played out.
    """
    count = len(score.bars)
    if hole.last > count:
        raise FinishError(f"--bars {hole}: the score has {count} bars (an upbeat is bar 1, repeats are not played out)")
    if hole.last == count:
        raise FinishError(f"--bars {hole}: nothing comes after bar {count}, so there is no hole; use `musicgen finish`")
    start, stop = hole.ticks(score)
    given = replace(score, parts=tuple(_without(part, start, stop) for part in score.parts))
    if score.note_count and not given.note_count:
        raise FinishError(f"--bars {hole}: all notes of the score are in these bars; leave some to go by")
    check_fragment(given)
    return given


def check_fills(tokenizer: Tokenizer, has_previewed: bool) -> None:
    """Raises FinishError where a model can't fill or harmonise. has_previewed: it was trained with previews."""
    if tokenizer.name not in PREVIEWS:
        raise FinishError(
            f"models of `{tokenizer.name}` read from left to right alone; use a `{'` or `'.join(PREVIEWS)}` model"
        )
    if not has_previewed:
        raise FinishError("this model was trained without previews; train one with --set training.preview=0.3")


def fill(
    score: Score,
    model: Model,
    tokenizer: Tokenizer,
    *,
    hole: Hole,
    takes: int = 1,
    seed: int = 0,
    config: SamplingConfig,
    seen_parts: Sequence[int] | None = None,
    melodies: Melodies | None = None,
    progress: Callable[[int], None] = lambda bars: None,
) -> list[Filling]:
    """Write the bars of a hole anew, `takes` times in one batch; first that after which what follows surprises least.

    score: as it is written, its repeats not played out. seen_parts, melodies: as for `finish`. Raises FinishError.
    """
    given = around(score, hole)
    start, stop = hole.ticks(score)
    steps, part_of_value = encode_as_written(given, tokenizer, seen_parts)
    prompt, following = _prompt(steps, hole)
    cursor = BarsCursor(len(given.bars))
    coordinates = walk(cursor, prompt)
    cursor.lengths = dict(enumerate(steps[steps[:, 0] == BAR, 3].tolist(), start=1))
    _hold(cursor, given, hole, part_of_value)
    sampled = sample(
        model,
        tokenizer,
        [copy.deepcopy(cursor) for _ in range(takes * TRIES)],
        prompt,
        config=config,
        seed=seed,
        most_bars=len(score.bars),
        prompt_coordinates=coordinates,
        given=following,
        progress=progress,
    )
    after = [
        _nats_after(model, tokenizer, steps, in_order(np.concatenate([prompt, drawn.steps[:-1]])), hole)
        for drawn in sampled
    ]
    made = []
    for first in range(0, len(sampled), TRIES):
        best = min(range(first, first + TRIES), key=lambda i: (after[i], i))
        decoded = tokenizer.decode(np.concatenate([prompt, sampled[best].steps[:-1]]))
        new = new_notes(decoded, given, part_of_value, start, stop)
        whole = replace(score, parts=_merged(given.parts, new))
        alone = replace(score, parts=tuple(only_new(p, notes) for p, notes in zip(score.parts, new, strict=True)))
        rate = sampled[best].nats / max(alone.note_count, 1)
        written = from_seam(clip(alone, stop), start)
        figures = measure(given, written, melodies=melodies, nats_per_note=rate, first_bar=hole.first)
        made.append(Filling(whole, alone, rate, after[best], alone.note_count, figures))
    return sorted(made, key=lambda filling: filling.nats_after)


def walk(cursor: BarsCursor, steps: np.ndarray) -> np.ndarray:
    """Take the steps (T, F) of a prompt after START; returns the coordinates (T, C) after each."""
    coordinates = [cursor.coordinates()]
    for step in steps[1:].tolist():
        cursor.advance(step)
        coordinates.append(cursor.coordinates())
    return np.array(coordinates)


def encode_as_written(
    given: Score, tokenizer: Tokenizer, seen_parts: Sequence[int] | None, joining: Sequence[int] = ()
) -> tuple[np.ndarray, dict[int, int]]:
    """(steps of a whole score in order, value of field `part` -> index of the part), bar for bar. Raises FinishError.

    joining: parts, by index, that have no notes yet and will; they have values too, and no PART step.
    """
    heard = heard_as(given, tokenizer)
    lent = lend_programs(heard.parts, seen_parts, joining)
    try:
        steps = tokenizer.encode(replace(heard, parts=lent, signs=()))
    except TokenError as error:
        raise FinishError(f"the score can't be read by this model: {error}") from error
    bars = int((steps[:, 0] == BAR).sum())
    if bars != len(given.bars):
        raise FinishError(
            f"the score has {len(given.bars)} bars, and the model would read {bars}: one is too long (8 quarters at "
            "most) or too short for it"
        )
    playing = [i for i, part in enumerate(heard.parts) if len(part.notes) or i in joining]
    values = part_values([lent[i] for i in playing])
    if len(set(values)) < len(values):
        raise FinishError(f"more than {INSTANCES} parts of one instrument, which the vocabulary does not tell apart")
    return steps, dict(reversed(list(zip(values, playing, strict=True))))


def new_notes(decoded: Score, given: Score, part_of_value: dict[int, int], start: int, stop: int) -> list[np.ndarray]:
    """For each part of `given` the NOTE array of what was drawn for it between two ticks, and fits what is there.

    decoded: the prompt with what was drawn, its bars those of `given` on the tokenizer's grid.
    """
    new = [part.notes[:0] for part in given.parts]
    for part, value in zip(decoded.parts, part_values(decoded.parts), strict=True):
        notes = part.notes.copy()
        bar = np.searchsorted(decoded.bars, notes["onset"], side="right") - 1
        shift = given.bars[bar] - decoded.bars[bar]  # the tokenizer's bars lie on its grid, the score's need not
        stops = np.minimum(notes["onset"] + notes["duration"] + shift, stop)
        notes["onset"] = notes["onset"] + shift
        notes["duration"] = np.maximum(stops - notes["onset"], 1)
        notes = notes[(notes["onset"] >= start) & (notes["onset"] < stop)]
        i = part_of_value[value]
        notes = notes[~_is_held(notes, given.parts[i].notes)]
        new[i] = one_after_another(notes) if is_one_line(given.parts[i]) else notes
    return new


def _prompt(steps: np.ndarray, hole: Hole) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """(what is read before the hole is written, steps that later bars of it are given) of a whole piece in order."""
    count = int((steps[:, 0] == BAR).sum())
    lead = max(min(LEAD, hole.first - 1, LONGEST_HOLE - hole.bars), 0)
    told = arrange(steps, [Block(hole.first - lead, lead + hole.bars, min(LONGEST_AHEAD, count - hole.last))])
    course = follow(told)
    inside = course.order == HOLE
    # the conductor goes on speaking in the hole: metre, key and tempo at a bar's beginning are given, the rest is kept
    speaks = inside & (told[:, 0] == POSITION) & (told[:, 1] == CONDUCTOR)
    begins = int(np.flatnonzero(inside & (course.bar == hole.first))[0])  # its BAR step, or BACK
    prompt = np.concatenate([told[: begins + 1], told[speaks & (course.bar == hole.first)]])
    later = {int(bar) for bar in course.bar[speaks] if bar > hole.first}
    return prompt, {bar: told[speaks & (course.bar == bar)] for bar in later}


def _nats_after(model: Model, tokenizer: Tokenizer, steps: np.ndarray, filled: np.ndarray, hole: Hole) -> float:
    """Nats a note with which each part enters after the hole, heard after what comes before and fills it.

    Of the bar after the hole the notes at each part's first onset. steps: the whole piece in order, its hole empty;
    filled: up to the end of the hole. 0.0 where nobody plays there.
    """
    bar, so_far = (np.cumsum(rows[:, 0] == BAR) for rows in (steps, filled))
    after = steps[bar == hole.last + 1]
    after = after[after[:, 0] != END]
    first = np.zeros(len(after), dtype=bool)
    for part in np.unique(after[after[:, 0] >= POSITION, 1]):
        own = after[:, 1] == part
        first |= own & (after[:, 0] == after[own, 0].min()) & (part > CONDUCTOR)
    heard = np.concatenate([filled[(so_far == 0) | (so_far >= hole.first - HEARD_BEFORE)], after])
    wanted = np.concatenate([np.zeros(len(heard) - len(after), dtype=bool), first])
    return nats_of(model, tokenizer, heard, wanted) / max(int(first.sum()), 1)


def _hold(cursor: BarsCursor, given: Score, hole: Hole, part_of_value: dict[int, int]) -> None:
    """Tell the cursor that stands at the hole who plays in it and how, and that the walk is done at its end."""
    cursor.keep_course()
    cursor.close = True
    start, stop = hole.ticks(given)
    before = int(given.bars[max(hole.first - 1 - NEIGHBOURS, 0)])
    after = min(hole.last + NEIGHBOURS, len(given.bars))
    until = int(given.bars[after]) if after < len(given.bars) else given.length
    for value, i in part_of_value.items():
        part = given.parts[i]
        onsets = part.notes["onset"]
        cursor.ranges[value], cursor.most[value] = pitch_range(part), most_together(part)
        if all(((onsets >= a) & (onsets < b)).any() for a, b in ((before, start), (stop, until))):
            cursor.band.add(value)
    if hole.bars == 1:
        cursor.waiting = cursor.band - cursor.sounds.keys()


def _is_held(notes: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(N,) bool: whether a note is struck while the same pitch of `given` still sounds."""
    held = np.zeros(len(notes), dtype=bool)
    if not len(notes):
        return held
    for note in given[given["onset"] + given["duration"] > notes["onset"].min()]:
        if note["onset"] <= notes["onset"].max():
            ends = note["onset"] + note["duration"]
            held |= (notes["pitch"] == note["pitch"]) & (notes["onset"] >= note["onset"]) & (notes["onset"] < ends)
    return held


def _without(part: Part, start: int, stop: int) -> Part:
    notes, graces = (held[(held["onset"] < start) | (held["onset"] >= stop)] for held in (part.notes, part.graces))
    return replace(part, notes=notes, graces=graces)


def only_new(part: Part, notes: np.ndarray) -> Part:
    """The part with these notes, and none of its own."""
    return replace(part, notes=notes, graces=part.graces[:0])


def _merged(parts: Sequence[Part], new: Sequence[np.ndarray]) -> tuple[Part, ...]:
    return tuple(part.with_notes(np.concatenate([part.notes, notes])) for part, notes in zip(parts, new, strict=True))
