"""A dry run: what a training run would cost, told beforehand by a few updates of a throwaway copy.

Music and configuration in, parameters, memory and minutes out. Nothing is kept but the compiled corpus in the cache.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from musicgen.config import RunConfig
from musicgen.corpus.units import Progress, no_progress
from musicgen.runs import Places, choose_device, make_trainer, open_corpus
from musicgen.training.loop import make_streams
from musicgen.training.measure import kept_bytes
from musicgen.training.processes import Processes


@dataclass(frozen=True)
class DryRun:
    """What a run will cost, as far as a few steps on a throwaway copy tell. Memory in MiB, on the device."""

    source: str
    pieces: int
    valid_pieces: int
    notes: int
    tokens: int
    """Steps of music to learn from: what one epoch reads."""
    parameters: int
    device: str
    precision: str
    weights_mib: float
    optimiser_mib: float
    """Gradients, both moments, and the average of the weights."""
    activations_mib: float
    """What one chunk keeps for the way back."""
    memory_mib: float
    notes_per_second: float
    tokens_per_second: float
    updates: int
    epochs: float
    minutes: float
    """Looks at the validation pieces included; no more than these, as a run may stop early."""


TRIED = 8
"""Updates that a dry run times, after one to warm up."""


def dry_run(where: Places, config: RunConfig, *, device: str = "auto", on_files: Progress = no_progress) -> DryRun:
    """Compile `where` (into the cache, which the run itself will read), and time a few updates. Nothing is kept."""
    settings = config.training
    forever = settings.model_copy(update={"steps": 10**9, "budget": None, "evaluate_every": 10**9})
    alone = Processes(device=choose_device(device))
    corpus = open_corpus(where, config, alone, on_files)
    trainer, pieces = make_trainer(corpus, config.model_copy(update={"training": forever}), alone)
    reports = [report for _, report in zip(range(1 + TRIED), trainer.run(), strict=False)][1:]
    seconds = statistics.median(report.seconds for report in reports)
    batch = next(make_streams(corpus, pieces, settings, trainer.model.recall is not None))
    activations = kept_bytes(trainer.chunk_loss, batch, trainer.device) / 2**20
    weights = 4 * trainer.model.parameter_count / 2**20
    optimiser = weights * (4 if settings.average else 3)
    look = 0.0
    if trainer.valid:
        some = sorted(trainer.valid, key=lambda piece: piece.length)[: settings.streams]
        began = trainer.clock()
        trainer.evaluated(trainer.averaged, some)
        look = (trainer.clock() - began) * trainer.held_out / sum(piece.length for piece in some)
    if settings.budget is None:
        updates = settings.steps
        total = updates * seconds + math.ceil(updates / settings.evaluate_every) * look
    else:
        total = settings.budget
        updates = max(int((total - look) * 0.95 / seconds), 1)
    tokens = sum(p.length - 1 for p in pieces)
    a_step = settings.accumulate * settings.streams * settings.chunk
    return DryRun(
        source=corpus.source,
        pieces=len(pieces),
        valid_pieces=len(corpus.pieces) - len(pieces),
        notes=sum(p.notes for p in pieces),
        tokens=tokens,
        parameters=trainer.model.parameter_count,
        device=str(trainer.device),
        precision=trainer.chunk_loss.precision,
        weights_mib=weights,
        optimiser_mib=optimiser,
        activations_mib=activations,
        memory_mib=weights + optimiser + activations,
        notes_per_second=statistics.mean(report.notes for report in reports) / seconds,
        tokens_per_second=a_step / seconds,
        updates=updates,
        epochs=updates * a_step / tokens,
        minutes=total / 60,
    )
