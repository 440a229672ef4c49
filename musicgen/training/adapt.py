"""Adapting a model to one piece: a copy of it learns the beginning that is there before it writes the rest.

In come a trained model and the steps of a fragment, out comes a tuned copy and what that did to the loss on the
fragment's own last bars, which are not trained on. Updates go on while that loss falls, and as many, but no more, are
then made on the whole fragment, last bars and all. (Dynamic evaluation, Krause et al. 2018, done before sampling.)
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from musicgen.corpus import Corpus, Piece
from musicgen.decoders.likelihood import nats_of
from musicgen.decoders.model import Model
from musicgen.tokens import Tokenizer
from musicgen.training.config import TrainingConfig
from musicgen.training.loop import Trainer

HELD_OUT = 8
"""The last bars, at most, by which a copy is judged; at most a quarter of the fragment."""
LOOK_EVERY = 5
"""Updates between two looks at them."""
PATIENCE = 4
"""Looks without a new best, before a copy is held to have learnt what it can."""
FEWEST_STEPS = 128
"""Before those bars. A shorter fragment teaches nothing: copies tuned to 20 tunes were no better at their endings."""
MARGIN = 0.01
"""By this share the loss must fall, or chance will have done it."""


@dataclass(frozen=True)
class Adaptation:
    """What adapting did: nats a note of the fragment's last bars before and after, which the copy had not yet read."""

    updates: int
    before: float
    after: float
    bars: int
    """How many last bars that were."""
    in_time: bool
    """False where the time was up first: then the same seed need not give the same weights."""

    @property
    def in_words(self) -> str:
        """One line for a report."""
        nats = f"its last {self.bars} bars at {self.before:.2f} nats a note before, {self.after:.2f} after"
        if not self.updates:
            return f"not adapted: no update helped ({nats})"
        return f"adapted to the fragment by {self.updates} updates ({nats})" + (
            "" if self.in_time else "; the time was up first, so another run may differ"
        )


def adapt(
    model: Model,
    tokenizer: Tokenizer,
    steps: np.ndarray,
    *,
    updates: int = 100,
    seconds: float = 120.0,
    learning_rate: float = 3e-4,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Model, Adaptation | None]:
    """(a copy of `model` tuned on a fragment's `steps` (T, F), what that did); too short a one: (`model`, None).

    At most `updates` updates and about `seconds` for finding out how many help; where none does the copy is as it was.
    progress: called with (updates made, updates at most).
    """
    first = _first_held_out(steps, tokenizer)
    if first < FEWEST_STEPS:
        return model, None
    began = clock()
    before = held_out_loss(model, tokenizer, steps, first)
    trainer = _trainer(model, tokenizer, steps[:first], updates, learning_rate, seed)
    best, best_at, in_time = before, 0, True
    for report in trainer.run():
        progress(report.step, updates)
        if report.step % LOOK_EVERY == 0 or report.step == updates:
            loss = held_out_loss(trainer.model, tokenizer, steps, first)
            if loss < min(best, (1 - MARGIN) * before):
                best, best_at = loss, report.step
            if report.step - best_at >= PATIENCE * LOOK_EVERY:
                break
        if clock() - began > seconds:
            in_time = False
            break
    made = Adaptation(best_at, before, best, len(np.unique(tokenizer.bars_begun(steps)[first:])), in_time)
    if not best_at:
        return model, made
    trainer = _trainer(model, tokenizer, steps, updates, learning_rate, seed)
    for report in trainer.run():
        if report.step == best_at:
            break
    return trainer.model.eval(), made


def held_out_loss(model: Model, tokenizer: Tokenizer, steps: np.ndarray, first: int) -> float:
    """Nats a note of the steps from number `first` on, all before them being known and how many follow being not."""
    wanted = np.arange(len(steps)) >= first
    return nats_of(model, tokenizer, steps, wanted) / max(int(tokenizer.is_note(steps)[first:].sum()), 1)


def _first_held_out(steps: np.ndarray, tokenizer: Tokenizer) -> int:
    """Number of the first step of the bars that are held out; 0 where there are too few bars."""
    begun = np.asarray(tokenizer.bars_begun(steps))
    bars = int(begun[-1])
    held = min(HELD_OUT, bars // 4)
    return int(np.searchsorted(begun, bars - held + 1)) if held else 0


def _trainer(
    model: Model, tokenizer: Tokenizer, steps: np.ndarray, updates: int, learning_rate: float, seed: int
) -> Trainer:
    """A run over one piece, in several keys, on a copy of the model; the same updates for the same seed."""
    notes = int(tokenizer.is_note(steps).sum())
    piece = Piece("fragment", "", 0, len(steps), notes, 0, 0, None, "fragment")
    corpus = Corpus("fragment", tokenizer, (), "", (np.ascontiguousarray(steps),), (piece,), ())
    config = TrainingConfig(
        seed=seed,
        steps=updates,
        streams=4,
        chunk=int(np.clip(len(steps) // 4, 16, 128)),
        learning_rate=learning_rate,
        final_share=1.0,
        warmup=10,
        average=0.0,
        evaluate_every=updates + 1,
        precision="fp32",
        hide_bars_left=1.0,
        transpose=(-2, 2),
    )
    torch.manual_seed(seed)
    return Trainer(copy.deepcopy(model), corpus, [piece], [], config, next(model.parameters()).device)
