"""Training under truncated backpropagation through time: one loop for every decoder.

B streams of music run side by side. Each update reads the next chunk of every stream, starting from the state in which
the last chunk left the decoder; the state is detached, so the gradient stops at the chunk's beginning while the past
itself is kept. A stream that starts a new piece forgets its row. (Williams & Peng 1990; for the Transformer this makes
the memory of Transformer-XL, Dai et al. 2019.)

`Trainer.run` yields a report a step and never saves or prints: whoever runs it decides. Between any two steps `tensors`
and `facts` hold everything there is, and a trainer restored from them goes on to the same weights, bit by bit on a CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from musicgen.corpus import Corpus, Piece, Streams
from musicgen.decoders import detach, forget
from musicgen.decoders.model import Model
from musicgen.errors import TrainingError
from musicgen.training.config import TrainingConfig
from musicgen.training.evaluate import Evaluation, evaluate, to_tensors


@dataclass(frozen=True)
class StepReport:
    """One update. Losses in nats. `looked`: this step was followed by a look at how well the model does now.

    `evaluation` is what was seen on the validation pieces, None if there are none.
    """

    step: int
    epoch: int
    nats_per_step: float
    nats_per_note: float
    gradient_norm: float
    clipped: bool
    learning_rate: float
    notes: int
    tokens: int
    padded: float
    seconds: float
    looked: bool = False
    evaluation: Evaluation | None = None
    is_best: bool = False


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then a cosine down to `final_share`. step: counted from 0."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = min((step - config.warmup) / max(config.steps - config.warmup, 1), 1.0)
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * (config.final_share + (1 - config.final_share) * cosine)


def make_optimizer(model: Model, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices, none on biases, norms and embeddings of coordinates."""
    decayed = [p for n, p in model.named_parameters() if p.dim() >= 2 and "coordinates" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() < 2 or "coordinates" in n]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))


class Trainer:
    """A training run, between two steps of which it can be put away and taken up again."""

    def __init__(
        self,
        model: Model,
        corpus: Corpus,
        train: Sequence[Piece],
        valid: Sequence[Piece],
        config: TrainingConfig,
        device: torch.device,
    ) -> None:
        self.model = model.to(device)
        self.corpus, self.valid, self.config, self.device = corpus, list(valid), config, device
        self.optimizer = make_optimizer(self.model, config)
        self.streams = Streams(
            corpus,
            train,
            streams=config.streams,
            chunk=config.chunk,
            generator=np.random.default_rng(config.seed),
            transpose=config.transpose,
            hide=config.hide_bars_left,
        )
        self.state = self.model.initial_state(config.streams)
        self.step = 0
        self.best = math.inf
        self.since_best = 0
        self.clipped = 0
        self.seconds = 0.0
        self.recent: list[float] = []  # training losses since the last look

    @property
    def finished(self) -> bool:
        return self.step >= self.config.steps or self.since_best >= self.config.patience

    def run(self) -> Iterator[StepReport]:
        """Train until the last step or until validation has stopped improving, a report a step."""
        self.model.train()
        while not self.finished:
            yield self._update()

    def _update(self) -> StepReport:
        began = time.perf_counter()
        batch = next(self.streams)
        (steps, coordinates, targets, valid, fresh), masks = to_tensors(batch, self.device)
        state = forget(detach(self.state), fresh)
        outputs, self.state = self.model(steps, coordinates, state)
        nats = self.model.head.nll(outputs, targets, valid, masks).sum()
        tokens = int(batch.valid.sum())
        loss = nats / max(tokens, 1)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip))
        if not math.isfinite(norm):
            raise TrainingError(
                f"step {self.step + 1}: the gradient is {norm}; the last save stands: "
                "train again with a lower training.learning_rate or training.clip"
            )
        rate = learning_rate(self.step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.step += 1
        self.clipped += norm > self.config.clip

        seconds = time.perf_counter() - began
        self.recent.append(float(loss.detach()))
        evaluation, is_best = None, False
        looked = self.step % self.config.evaluate_every == 0 or self.step == self.config.steps
        if looked:
            evaluation, is_best = self._look()
        self.seconds += time.perf_counter() - began
        return StepReport(
            step=self.step,
            epoch=self.streams.epoch,
            nats_per_step=float(loss.detach()),
            nats_per_note=float(nats.detach()) / max(batch.notes, 1),
            gradient_norm=norm,
            clipped=norm > self.config.clip,
            learning_rate=rate,
            notes=batch.notes,
            tokens=tokens,
            padded=1 - tokens / batch.valid.size,
            seconds=seconds,
            looked=looked,
            evaluation=evaluation,
            is_best=is_best,
        )

    def _look(self) -> tuple[Evaluation | None, bool]:
        """Without validation pieces the mean training loss since the last look decides, and nothing stops early."""
        evaluation, loss = None, sum(self.recent) / max(len(self.recent), 1)
        self.recent = []
        if self.valid:
            evaluation = evaluate(self.model, self.corpus, self.valid, streams=self.config.streams)
            loss = evaluation.per_step
        if loss < self.best:
            self.best, self.since_best = loss, 0
            return evaluation, True
        self.since_best += bool(self.valid)
        return evaluation, False

    def tensors(self) -> dict[str, Tensor]:
        """Weights, the optimiser's moments, the decoder's state and the random generator: all tensors of the run."""
        found = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                found[f"optimizer.{kind}.{name}"] = torch.as_tensor(value)
        for i, part in enumerate(self.state):
            found[f"state.{i}"] = part.detach()
        found["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            found["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return {name: value.detach().cpu().contiguous().clone() for name, value in found.items()}

    def facts(self) -> dict:
        """Everything else, as plain values."""
        return {
            "step": self.step,
            "best": None if math.isinf(self.best) else self.best,
            "since_best": self.since_best,
            "clipped": self.clipped,
            "seconds": self.seconds,
            "recent": self.recent,
            "streams": self.streams.state(),
        }

    def restore(self, tensors: dict[str, Tensor], facts: dict) -> None:
        """Take up a run that `tensors` and `facts` put away."""
        self.model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
        kinds = {n.split(".")[1] for n in tensors if n.startswith("optimizer.")}
        for name, parameter in self.model.named_parameters():
            found = {k: tensors[f"optimizer.{k}.{name}"] for k in kinds if f"optimizer.{k}.{name}" in tensors}
            if found:
                self.optimizer.state[parameter] = {
                    k: v.clone() if k == "step" else v.clone().to(self.device) for k, v in found.items()
                }
        count = sum(n.startswith("state.") for n in tensors)
        self.state = tuple(tensors[f"state.{i}"].to(self.device) for i in range(count))
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        self.step, self.since_best = facts["step"], facts["since_best"]
        self.best = math.inf if facts["best"] is None else facts["best"]
        self.clipped, self.seconds = facts["clipped"], facts["seconds"]
        self.recent = list(facts["recent"])
        self.streams.restore(facts["streams"])
