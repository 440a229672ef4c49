"""One sampler for every decoder and tokenizer: streams of steps, drawn field by field under the grammar's mask.

Each stream has a cursor. It says what may come next, so what comes out is valid music whatever the model thinks, and it
gives the coordinates that the model reads beside each step. Streams that have ended leave the batch.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from musicgen.decoders.model import Model
from musicgen.decoders.model_step import ModelStepper
from musicgen.sampling.filters import SamplingConfig, draw
from musicgen.tokens import Cursor, Tokenizer
from musicgen.tokens.recall import Recaller

PROMPT_CHUNK = 256
"""Steps of a prompt that the model reads in one call."""
ENDING_BARS = 2
"""So many bars before the most that is wanted, a piece that has not ended is told how many are left."""


@dataclass(frozen=True)
class Sampled:
    """The steps of one stream that were drawn (prompt not included), and how likely the model found them."""

    steps: np.ndarray  # (T, F) int16
    nats: float
    """Negative log-likelihood under the model and the grammar, before temperature and filters, of what was drawn."""


@torch.inference_mode()
def sample(
    model: Model,
    tokenizer: Tokenizer,
    cursors: Sequence[Cursor],
    prompt: np.ndarray,
    *,
    config: SamplingConfig,
    seed: int,
    most_bars: int,
    prompt_coordinates: np.ndarray | None = None,
    given: Mapping[int, np.ndarray] | None = None,
    progress: Callable[[int], None] = lambda bars: None,
) -> list[Sampled]:
    """Draw one continuation of `prompt` (T, F) for each cursor, all in one batch, until each has ended.

    cursors: each has taken the prompt's steps after START already. prompt_coordinates: (T, C), where each step of the
    prompt leaves us; needed where the prompt is longer than START alone. most_bars: a stream that may end when it likes
    is told to end on that bar; one that has an ending and draws END is given the next bar for it. given: number of a
    bar -> steps (n, F) that a stream takes once it has begun that bar, before it draws again; they cost no nats.
    progress(bars): called with the sum of bars begun whenever it has grown.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    count = len(cursors)
    if prompt_coordinates is None:
        prompt_coordinates = np.array([cursors[0].coordinates()])
    recallers: list[Recaller] = []
    if model.recall is not None:
        first = Recaller(model.recall)
        told = [first.advance(step) for step in prompt.tolist()]
        prompt_coordinates = np.concatenate([prompt_coordinates, told], axis=1)
        first.most = config.most_recalled
        recallers = [first.copy() for _ in cursors]
    state = model.initial_state(1)
    outputs = None
    for at in range(0, len(prompt), PROMPT_CHUNK):
        read = torch.from_numpy(prompt[None, at : at + PROMPT_CHUNK].astype(np.int64)).to(device)
        places = torch.from_numpy(prompt_coordinates[None, at : at + PROMPT_CHUNK].astype(np.int64)).to(device)
        outputs, state = model(read, places, state)
    if outputs is None:
        raise ValueError("the prompt holds START at least")
    state = tuple(part.expand(count, *part.shape[1:]) for part in state)
    stepper = model.stepper(outputs[:, -1].expand(count, -1), state, config.exact)

    end = tokenizer.fields[0].labels.index("END")
    generators = [stream_generator(seed, stream) for stream in range(count)]
    drawn: list[list[np.ndarray]] = [[] for _ in cursors]
    nats = np.zeros(count)
    live = list(range(count))
    coming: list[deque[list[int]]] = [deque() for _ in cursors]
    bars_seen = 0
    while live:
        for stream in live:
            cursor = cursors[stream]
            if cursor.bars is None and cursor.bar >= most_bars - ENDING_BARS:
                cursor.bars = min(cursor.bar + ENDING_BARS, most_bars)
        known = [coming[i].popleft() if coming[i] else None for i in live]
        steps, costs = _draw_step(
            stepper, list(range(len(live))), [cursors[i] for i in live], config, [generators[i] for i in live], known
        )
        early = [row for row, i in enumerate(live) if steps[row, 0] == end and _may_end(cursors[i])]
        if early:
            streams = [live[row] for row in early]
            for i in streams:
                cursors[i].bars = cursors[i].bar + 1
            again = [cursors[i] for i in streams], config, [generators[i] for i in streams]
            steps[early], costs[early] = _draw_step(stepper, early, *again)
        for row, stream in enumerate(live):
            begun = cursors[stream].bar
            cursors[stream].advance(steps[row])
            if given and cursors[stream].bar > begun and cursors[stream].bar in given:
                coming[stream].extend(given[cursors[stream].bar].tolist())
            drawn[stream].append(steps[row])
            nats[stream] += costs[row]
        bars = sum(cursor.bar for cursor in cursors)
        if bars > bars_seen:
            bars_seen = bars
            progress(bars)
        going = [row for row, stream in enumerate(live) if not cursors[stream].done]
        live = [live[row] for row in going]
        if not live:
            break
        if len(going) < len(steps):
            stepper.pick(torch.tensor(going, device=device))
        coordinates = np.array([cursors[i].coordinates() for i in live])
        if recallers:
            told = [recallers[i].advance(drawn[i][-1].tolist()) for i in live]
            coordinates = np.concatenate([coordinates, told], axis=1)
        stepper.step(torch.from_numpy(steps[going]).to(device), torch.from_numpy(coordinates).to(device))
    model.train(was_training)
    return [Sampled(np.array(s, dtype=np.int16), float(n)) for s, n in zip(drawn, nats, strict=True)]


def stream_generator(seed: int, stream: int) -> np.random.Generator:
    """The randomness of one stream: the same whatever the other streams are.

    By exact steps so is what it draws; quick ones round a little otherwise in a batch of another size.
    """
    return np.random.default_rng([seed, stream])


def _may_end(cursor: Cursor) -> bool:
    """Whether a piece that is to close on a chord ends when it likes, and that is not yet settled."""
    return cursor.ending is not None and cursor.bars is None and not getattr(cursor, "closed", False)


def _draw_step(
    stepper: ModelStepper,
    streams: Sequence[int],
    cursors: Sequence[Cursor],
    config: SamplingConfig,
    generators: Sequence[np.random.Generator],
    given: Sequence[Sequence[int] | None] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """The next step of some streams, (R, F) int64, and its negative log-likelihood (R,).

    streams: which of the stepper's. given: for each the step that it takes, whatever the model thinks, or None. Where
    there is no choice, nothing is drawn.
    """
    sizes, device = stepper.model.head.sizes, stepper.context.device
    steps = np.zeros((len(cursors), len(sizes)), dtype=np.int64)
    costs = np.zeros(len(cursors))
    for index, size in enumerate(sizes):
        masks = np.zeros((len(cursors), size), dtype=bool)  # (R, V)
        for row, (cursor, step) in enumerate(itertools.zip_longest(cursors, given)):
            if step is None:
                masks[row] = cursor.allowed(steps[row, :index].tolist())
            else:
                masks[row, step[index]] = True
        steps[:, index] = masks.argmax(axis=1)
        open_rows = np.flatnonzero(np.count_nonzero(masks, axis=1) > 1)  # where there is a choice
        if len(open_rows):
            asked = [streams[row] for row in open_rows.tolist()]
            rows = None if len(asked) == len(stepper.context) else torch.tensor(asked, device=device)
            known = list(torch.from_numpy(steps[open_rows, :index]).to(device).unbind(-1)) if index else []
            logits = stepper.field(index, known, rows).float().cpu().numpy()
            logits = np.where(masks if rows is None else masks[open_rows], logits, -np.inf)
            values, nats = draw(logits, config, [generators[row] for row in open_rows.tolist()])
            costs[open_rows] += nats
            steps[open_rows, index] = values
    return steps, costs
