"""Finishing a score: the rest of it, starting exactly where the fragment stops.

The contract, as far as it is kept here:
- the original's notes come back unchanged, and no new note starts before the seam;
- a half-filled last bar is filled to its metre, and counts as the fragment's; then come exactly as many bars as asked,
  or as many as the model likes, up to a bound;
- only the fragment's instruments play, each within a fifth of what it has played and in its own range, and all that
  have played lately play again, unless others are asked for, and those that are added play, in their own range;
  metre, tempo and key go on as they were, unless they are free to change;
- the last bar is the tonic chord (of one melody the tonic), held to its end, the root lowest;
- several takes are drawn in one batch, measured and put in order, and all are kept;
- the same seed gives the same music; a fragment that can't be continued is refused with the reason.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from musicgen.decoders.model import Model
from musicgen.errors import FinishError, TokenError
from musicgen.sampling.filters import SamplingConfig
from musicgen.sampling.prompts import PROMPTS, Prompt, heard_as
from musicgen.sampling.recalled import RecalledBars, check_recall, given_steps, notes_given
from musicgen.sampling.sampler import sample
from musicgen.sampling.takes import Figures, from_seam, measure, order_of_takes, repetition
from musicgen.sampling.understanding import check_fragment, name_of
from musicgen.score import Part, Score
from musicgen.score.lines import Melodies
from musicgen.tokens import Tokenizer

MOST_BARS = 128
"""A continuation that may end when it likes is told to end after so many bars, unless something else is said."""


TYPICAL_BARS = 32
"""Last bars of a fragment, at most, whose nats a note say how surprising its music is."""


@dataclass(frozen=True)
class Take:
    """One continuation: `whole` with the fragment, `new` without; both have the fragment's parts, then those added."""

    whole: Score
    new: Score
    seam: int
    nats_per_note: float
    notes: int
    figures: Figures


def make_prompt(
    fragment: Score,
    tokenizer: Tokenizer,
    seen_parts: Sequence[int] | None = None,
    only: Collection[int] | None = None,
    added: Sequence[Part] = (),
    free: bool = False,
) -> Prompt:
    """The fragment as the model reads it, and the way back.

    only: the parts, by index, that play from the seam on. added: empty parts that join in there; they stand after the
    fragment's own. free: metre, tempo and key may change. Raises FinishError where it can't be continued, or not so.
    """
    check_fragment(fragment)
    name = tokenizer.name
    if name not in PROMPTS:
        raise FinishError(f"a model of {name!r} can't continue a score; use one of {' '.join(PROMPTS)}")
    if added and name != "bars":
        raise FinishError(f"--add-part: models of `{name}` have no part for another instrument; use a `bars` model")
    if free and name == "performance":
        raise FinishError("--free: a `performance` model writes no metre, tempo or key; use a `bars` model")
    if free and not isinstance(getattr(tokenizer.cursor(), "steady", None), bool):
        raise FinishError("--free: a model of characters holds its metre and key; use one of symbols")
    joining = range(len(fragment.parts), len(fragment.parts) + len(added))
    fragment = replace(fragment, parts=(*fragment.parts, *added))
    told: dict[str, Any] = {"joining": joining, "only": only} if name == "bars" else {}
    try:
        prompt = PROMPTS[name](fragment, heard_as(fragment, tokenizer), tokenizer, seen_parts, **told)
    except TokenError as error:
        raise FinishError(f"the fragment can't be continued: {error}") from error
    chosen = None
    if only is not None:
        if not prompt.players:
            raise FinishError(f"--parts: models of `{name}` write for all their voices; use a `bars` model")
        chosen = {value for value, parts in prompt.players.items() if {*only, *joining}.intersection(parts)}
        if not any(set(only).intersection(prompt.players[value]) for value in chosen):
            raise FinishError("--parts: none of these parts has played a note yet; name one that has")

    def hold(cursor: Any) -> None:
        prompt.hold(cursor)
        if free:
            cursor.steady = False
        if chosen is not None:
            cursor.keep_only(chosen)

    return replace(prompt, hold=hold)


def last_bars(steps: np.ndarray, tokenizer: Tokenizer) -> int:
    """The number of the first step of a prompt's last TYPICAL_BARS bars."""
    begun = tokenizer.bars_begun(steps)
    return max(int(np.searchsorted(begun, max(int(begun[-1]) - TYPICAL_BARS + 1, 1))), 1)


def parts_named(fragment: Score, names: Sequence[str]) -> set[int]:
    """Indices of a fragment's parts by name, capitals or not. Raises FinishError, saying which names there are."""
    known = [name_of(part) for part in fragment.parts]
    found = set()
    for name in names:
        alike = [i for i, own in enumerate(known) if own.casefold() == name.strip().casefold()]
        if not alike:
            near = get_close_matches(name.strip(), known, 1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise FinishError(f"--parts: no part is called {name.strip()!r}; there are {', '.join(known)}{meant}")
        found.update(alike)
    return found


def finish(
    fragment: Score,
    model: Model,
    tokenizer: Tokenizer,
    *,
    bars: int | None,
    max_bars: int = MOST_BARS,
    takes: int = 1,
    seed: int = 0,
    config: SamplingConfig,
    seen_parts: Sequence[int] | None = None,
    only: Collection[int] | None = None,
    added: Sequence[Part] = (),
    free: bool = False,
    recalled: Sequence[RecalledBars] = (),
    melodies: Melodies | None = None,
    own_nats: float | None = None,
    progress: Callable[[int], None] = lambda bars: None,
) -> list[Take]:
    """Continue a fragment by exactly `bars` bars (after its last one is filled), `takes` times in one batch.

    bars: None leaves it to the model, which ends within `max_bars`. fragment: as the tokenizer wants it (repeats
    unfolded unless it encodes them). seen_parts: the values of field `part` that the model has met; instruments it has
    not met are lent the nearest one it has. only: the parts, by index, that play from the seam on. added: empty parts
    that join in there. free: metre, tempo and key may change. recalled: bars of the fragment that every take brings
    back, for a `bars` model; its nats a note are of the others. melodies: those of the training pieces, to see what is
    copied from them. own_nats: a note, of the fragment's last TYPICAL_BARS bars under this model. Takes come best
    first, in the order that `takes` says. Raises FinishError.
    """
    check_recall(recalled, fragment, tokenizer, bars)
    if recalled and free:
        raise FinishError("--recall: bars can't be brought back where the metre is free to change; leave out --free")
    prompt = make_prompt(fragment, tokenizer, seen_parts, only, added, free)
    total = None if bars is None else prompt.bars + bars
    cursor = prompt.cursor(total)
    coordinates = [cursor.coordinates()]
    for step in prompt.steps[1:]:
        cursor.advance(step.tolist())
        coordinates.append(cursor.coordinates())
    prompt.hold(cursor)
    given = given_steps(recalled, fragment, prompt, cursor, bars) if recalled and bars is not None else {}
    sampled = sample(
        model,
        tokenizer,
        [copy.deepcopy(cursor) for _ in range(takes)],
        prompt.steps,
        config=config,
        seed=seed,
        most_bars=prompt.bars + max_bars if total is None else total,
        prompt_coordinates=np.array(coordinates),
        given=given,
        progress=progress,
    )
    made = []
    for drawn in sampled:
        whole, new = prompt.join(drawn.steps, bars)
        rate = drawn.nats / max(new.note_count - notes_given(given), 1)
        rest, first_bar = from_seam(new, fragment.length), new.bar_at(fragment.length) + 1
        figures = measure(fragment, rest, melodies=melodies, nats_per_note=rate, first_bar=first_bar)
        made.append(Take(whole, new, fragment.length, rate, new.note_count, figures))
    order = order_of_takes([take.figures for take in made], repetition(fragment), own_nats)
    return [made[i] for i in order]
