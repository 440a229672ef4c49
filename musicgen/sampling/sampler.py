"""One sampler for every decoder and tokenizer: streams of steps, drawn field by field under the grammar's mask.

Each stream has a cursor. It says what may come next, so what comes out is valid music whatever the model thinks, and it
gives the coordinates that the model reads beside each step. Streams that have ended leave the batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from musicgen.decoders.model import Model
from musicgen.decoders.model_step import ModelStepper
from musicgen.sampling.filters import SamplingConfig, draw, masked
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
    if not len(prompt) or not len(cursors):
        raise ValueError("a prompt holds START at least, and there is a cursor for each stream")
    was_training = model.training
    if was_training:
        model.eval()
    device = next(model.parameters()).device
    count = len(cursors)
    if prompt_coordinates is None:
        prompt_coordinates = np.array([cursors[0].coordinates()])
    if len(prompt_coordinates) != len(prompt):
        raise ValueError(f"coordinates of {len(prompt_coordinates)} steps, and the prompt has {len(prompt)}")
    recaller = None if model.recall is None else Recaller(model.recall)
    if recaller is not None:
        told = [recaller.advance(step) for step in prompt.tolist()]
        prompt_coordinates = np.concatenate([prompt_coordinates, told], axis=1)
        recaller.most = config.most_recalled
    state = model.initial_state(1)
    read, places = prompt.astype(np.int64), prompt_coordinates.astype(np.int64)
    for at in range(0, len(read) - 1, PROMPT_CHUNK):
        chunk = slice(at, min(at + PROMPT_CHUNK, len(read) - 1))
        _, state = model(*(torch.from_numpy(part[None, chunk]).to(device) for part in (read, places)), state)
    stepper = model.stepper(tuple(part.expand(count, *part.shape[1:]) for part in state), config.exact)
    stepper.step([[*read[-1], *places[-1]]] * count)

    end = tokenizer.fields[0].labels.index("END")
    streams = [
        _Stream(cursor, stream_generator(seed, number), recaller and recaller.copy())
        for number, cursor in enumerate(cursors)
    ]
    live, bars_seen = streams, 0
    while live:
        for stream in live:
            cursor = stream.cursor
            if cursor.bars is None and cursor.bar >= most_bars - ENDING_BARS:
                cursor.bars = min(cursor.bar + ENDING_BARS, most_bars)
        drawn = _draw_step(stepper, live, config)
        early = [row for row, (step, _) in enumerate(drawn) if step[0] == end and _may_end(live[row].cursor)]
        if early:
            again = [live[row] for row in early]
            for stream in again:
                stream.cursor.bars = stream.cursor.bar + 1
            for row, instead in zip(early, _draw_step(stepper, again, config, early), strict=True):
                drawn[row] = instead
        for stream, (step, cost) in zip(live, drawn, strict=True):
            cursor, begun = stream.cursor, stream.cursor.bar
            cursor.advance(step)
            if given and cursor.bar > begun and cursor.bar in given:
                stream.coming.extend(given[cursor.bar].tolist())
            stream.drawn.append(step)
            stream.nats += cost
        bars = sum([cursor.bar for cursor in cursors])
        if bars > bars_seen:
            bars_seen = bars
            progress(bars)
        going = [row for row, stream in enumerate(live) if not stream.cursor.done]
        if len(going) < len(live):
            live = [live[row] for row in going]
            if not live:
                break
            stepper.pick(going)
        stepper.step([stream.taken() for stream in live])
    model.train(was_training)
    return [Sampled(np.array(stream.drawn, dtype=np.int16), stream.nats) for stream in streams]


@dataclass(eq=False)
class _Stream:
    """One of the pieces that are being drawn."""

    cursor: Cursor
    generator: np.random.Generator
    recaller: Recaller | None
    coming: deque[list[int]] = field(default_factory=deque)
    """Steps that it takes next, whatever the model thinks."""
    drawn: list[list[int]] = field(default_factory=list)  # F values a step
    nats: float = 0.0

    def taken(self) -> list[int]:
        """The last step, and what the model is told beside it: where it left us, and what is recalled."""
        step = self.drawn[-1]
        recalled = () if self.recaller is None else self.recaller.advance(step)
        return [*step, *self.cursor.coordinates(), *recalled]


def stream_generator(seed: int, stream: int) -> np.random.Generator:
    """The randomness of one stream: the same whatever the other streams are.

    By exact steps so is what it draws; quick ones round a little otherwise in a batch of another size.
    """
    return np.random.default_rng([seed, stream])


def _may_end(cursor: Cursor) -> bool:
    """Whether a piece that is to close on a chord ends when it likes, and that is not yet settled."""
    return cursor.ending is not None and cursor.bars is None and not getattr(cursor, "closed", False)


def _draw_step(
    stepper: ModelStepper, streams: Sequence[_Stream], config: SamplingConfig, rows: Sequence[int] | None = None
) -> list[tuple[list[int], float]]:
    """The next step of each of some streams, F values, and its negative log-likelihood.

    rows: which of the stepper's they are; None: all of them. Where there is no choice, nothing is drawn.
    """
    steps: list[list[int]] = [[] for _ in streams]
    costs = [0.0] * len(streams)
    known = [stream.coming.popleft() if stream.coming else None for stream in streams]
    for index in range(len(stepper.sizes)):
        masks, open_rows = [], []
        for row, (stream, step, coming) in enumerate(zip(streams, steps, known, strict=True)):
            if coming is not None:
                step.append(coming[index])
                continue
            mask = stream.cursor.allowed(step)
            choices = np.count_nonzero(mask)
            if choices > 1:
                masks.append(mask)
                open_rows.append(row)
            elif choices:
                step.append(int(mask.argmax()))
            else:
                raise RuntimeError("the grammar allows nothing after what was drawn: it would be walked for ever")
        if not open_rows:
            continue
        asked = None
        if rows is not None or len(open_rows) < len(streams):
            asked = open_rows if rows is None else [rows[row] for row in open_rows]
        logits = masked(stepper.field(index, [steps[row] for row in open_rows], asked), masks)
        values, nats = draw(logits, config, [streams[row].generator for row in open_rows])
        for row, value, cost in zip(open_rows, values, nats, strict=True):
            steps[row].append(value)
            costs[row] += cost
    return list(zip(steps, costs, strict=True))
