"""What a run leaves behind as it goes: a line of metrics an evaluation, a sample to hear it by, TensorBoard, curves.

In come the reports of the trainer and the model as it is; out go files in the checkpoint's folder. Nothing here touches
the run's own randomness: with samples or without, the same weights come of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from musicgen import checkpoint as checkpoints
from musicgen.config import RunConfig
from musicgen.decoders.model import Model
from musicgen.errors import ConfigError, MusicgenError
from musicgen.formats import write_score
from musicgen.render.beside import check_kinds, piece_in, render_beside
from musicgen.render.curves import draw_curves
from musicgen.sampling import SamplingConfig
from musicgen.sampling.pieces import sample_scores
from musicgen.tokens import Tokenizer
from musicgen.training.loop import StepReport, Trainer

METRICS, CURVES, SAMPLES = "metrics.jsonl", "curves.png", "samples"


@dataclass(frozen=True)
class Samples:
    """Writes what the model makes of nothing at each evaluation: OUT/samples/STEP.mid, always of the same seed.

    bars: of each, 0 for none; kinds: what is made of it besides, as in `render.beside.KINDS`. Raises RenderError for a
    kind that is none.
    """

    out: Path
    config: RunConfig
    tokenizer: Tokenizer
    kinds: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_kinds(self.kinds)

    def __call__(self, model: Model, step: int) -> None:
        training = self.config.training
        if not training.sample_bars:
            return
        drawing = SamplingConfig(top_p=0.95, exact=True)
        path = self.out / SAMPLES / f"{step:06d}.mid"
        try:
            # a batch of other shapes is not worth compiling for
            with torch.compiler.set_stance("force_eager") if training.compile else nullcontext():
                ((score, _),) = sample_scores(
                    model, self.tokenizer, count=1, bars=training.sample_bars, seed=training.seed, config=drawing
                )
            score = replace(score, title=f"{self.out.name} after {step:,} steps")
            write_score(score, path)
            if self.tokenizer.name == "abc":
                write_score(score, path.with_suffix(".abc"))
            if score.note_count:
                render_beside(piece_in(path, score), self.kinds)
        except MusicgenError as error:  # a run of hours does not end for a sample of it
            path.parent.mkdir(parents=True, exist_ok=True)
            checkpoints.write_text(path.with_suffix(".txt"), f"{error}\n")


def what_is_left(out: Path) -> tuple[Path, ...]:
    """OUT/curves.png, drawn of OUT/metrics.jsonl, and the folder of samples; whichever there is."""
    lines = _lines(out / METRICS)
    if lines:
        draw_curves(lines, out / CURVES, title=out.name)
    return tuple(path for path in (out / CURVES, out / SAMPLES) if path.exists())


def _metrics(report: StepReport, trainer: Trainer) -> dict[str, Any]:
    """One look as plain values. Losses in nats; those of training are the mean since the last look."""
    found: dict[str, Any] = {
        "step": report.step,
        "epoch": report.epoch,
        "train_nats_per_step": report.mean_nats_per_step,
        "train_nats_per_note": report.mean_nats_per_note,
        "learning_rate": report.learning_rate,
        "gradient_norm": report.gradient_norm,
        "clipped_share": report.clipped_share,
        "notes_per_second": round(report.notes / report.seconds, 1),
        "tokens_per_second": round(report.tokens / report.seconds, 1),
        "precision": trainer.chunk_loss.precision,
        "seconds": round(trainer.seconds, 3),
        "best": report.is_best,
    }
    if report.evaluation:
        notes = max(report.evaluation.notes, 1)
        found |= {
            "valid_nats_per_step": report.evaluation.per_step,
            "valid_nats_per_note": report.evaluation.per_note,
            "valid_nats_per_character": report.evaluation.per_character,
            "valid_nats_per_note_by_field": {f: n / notes for f, n in report.evaluation.nats_by_field.items()},
        }
    return found


def log_metrics(folder: Path, report: StepReport, trainer: Trainer) -> None:
    with (folder / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(_metrics(report, trainer)) + "\n")


def keep_metrics(folder: Path, step: int) -> None:
    """Drop lines past the step that training resumes from: they will be written again."""
    if (folder / METRICS).exists():
        kept = [json.dumps(line) + "\n" for line in _lines(folder / METRICS) if line["step"] <= step]
        checkpoints.write_text(folder / METRICS, "".join(kept))


def _lines(path: Path) -> list[dict[str, Any]]:
    """The evaluations in a file of metrics; none where there is no file."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            values = json.loads(line)
            values["step"] + 0
        except (json.JSONDecodeError, KeyError, TypeError):
            continue  # the run was killed while it wrote this line
        found.append(values)
    return found


@contextmanager
def board_of(out: Path, wanted: bool) -> Iterator[Callable[[StepReport], None]]:
    """A callback that writes a step for TensorBoard into out/tensorboard, or does nothing. Raises ConfigError."""
    if not wanted:
        yield lambda report: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("--tensorboard: is not installed; pip install 'musicgen[tensorboard]'") from error
    writer: SummaryWriter | None = None

    def write(report: StepReport) -> None:
        nonlocal writer
        # what a run that was killed had told of steps past its last save is told again
        writer = writer or SummaryWriter(str(out / "tensorboard"), purge_step=report.step)
        shown = {
            "train/nats a note": report.nats_per_note,
            "train/gradient norm": report.gradient_norm,
            "train/learning rate": report.learning_rate,
            "train/notes a second": report.notes / report.seconds,
        }
        if report.evaluation:
            shown |= {
                "validation/nats a note": report.evaluation.per_note,
                "validation/nats a step": report.evaluation.per_step,
            }
        for name, value in shown.items():
            writer.add_scalar(name, value, report.step)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
