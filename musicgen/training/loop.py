"""Training under truncated backpropagation through time: one loop for every decoder.

B rows of music run side by side. Each chunk is read from the state in which the last chunk left the decoder; the state
is detached, so the gradient stops at the chunk's beginning while the past itself is kept. Where a piece begins, its row
forgets. (Williams & Peng 1990; for the Transformer this makes the memory of Transformer-XL, Dai et al. 2019.)

`Trainer.run` yields a report a step and never saves or prints: whoever runs it decides. Between any two steps `tensors`
and `facts` hold everything there is, and a trainer restored from them goes on to the same weights, bit by bit on a CPU.
In several processes each reads its share of the rows; what is yielded and put away is of the whole run, in each.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from musicgen.corpus import Batch, Corpus, Piece, Streams
from musicgen.decoders.model import Model
from musicgen.errors import ConfigError, TrainingError
from musicgen.training.chunk import ChunkLoss
from musicgen.training.config import TrainingConfig
from musicgen.training.evaluate import Evaluation, evaluate, to_tensors
from musicgen.training.measure import choose_precision
from musicgen.training.memory import held
from musicgen.training.processes import Processes
from musicgen.training.schedule import Pace


@dataclass(frozen=True)
class StepReport:
    """One update. Losses in nats. `looked`: this step was followed by a look at how well the model does now.

    `evaluation` is what was seen on the validation pieces, None if there are none. The means are over the
    updates since the last look, `clipped_share` over all. `seconds` are of the update alone; `left` is a guess of those
    until the end of the run. `save`: now is a time to save.
    """

    step: int
    epoch: int
    nats_per_step: float
    mean_nats_per_step: float
    mean_nats_per_note: float
    nats_per_note: float
    gradient_norm: float
    clipped: bool
    clipped_share: float
    learning_rate: float
    notes: int
    tokens: int
    seconds: float
    left: float
    save: bool
    looked: bool = False
    evaluation: Evaluation | None = None
    is_best: bool = False


def make_optimizer(model: Model, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices, none on biases, norms and embeddings of coordinates."""
    decayed = [p for n, p in model.named_parameters() if p.dim() >= 2 and "coordinates" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() < 2 or "coordinates" in n]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def make_streams(
    corpus: Corpus,
    pieces: Sequence[Piece],
    config: TrainingConfig,
    recall: bool = False,
    part: tuple[int, int] = (0, 1),
) -> Streams:
    """The rows of training, or the k-th of n shares of them. recall: for a model that recalls."""
    return Streams(
        corpus,
        pieces,
        streams=config.streams,
        chunk=config.chunk,
        generator=np.random.default_rng(config.seed),
        transpose=config.transpose,
        hide=config.hide_bars_left,
        hide_each=config.hide_coordinates,
        without=config.without_coordinates,
        mask=config.mask_notes,
        preview=config.preview,
        recall=recall,
        part=part,
    )


class Trainer:
    """A training run, between two steps of which it can be put away and taken up again.

    `averaged` is the model that is evaluated and kept: the moving average of `model`, or `model` itself if there is
    none. clock: seconds; processor time makes runs comparable on a machine with other work to do. Raises ConfigError if
    the rows do not divide among the processes. on_look(model, step): called by the first process at each look, and
    part of its time.
    """

    def __init__(
        self,
        model: Model,
        corpus: Corpus,
        train: Sequence[Piece],
        valid: Sequence[Piece],
        config: TrainingConfig,
        device: torch.device,
        clock: Callable[[], float] = time.perf_counter,
        processes: Processes | None = None,
        on_look: Callable[[Model, int], None] = lambda model, step: None,
    ) -> None:
        self.on_look = on_look
        self.model = model.to(device)
        self.corpus, self.valid, self.config, self.device = corpus, list(valid), config, device
        self.clock, self.processes = clock, processes or Processes()
        rank, count = self.processes.rank, self.processes.count
        if config.streams % count:
            raise ConfigError(f"training.streams {config.streams}: does not divide among {count} processes")
        self.optimizer = make_optimizer(self.model, config)
        self.averaged = copy.deepcopy(self.model).requires_grad_(False) if config.average else self.model
        self.streams = make_streams(corpus, train, config, model.recall is not None, (rank, count))
        self.read_to = self.streams.state()
        self.ahead: Batch | None = None
        """The next batch, read ahead; `read_to` is where the streams were before it."""
        self.state = self.model.initial_state(config.streams // count)
        self.chunk_loss = ChunkLoss(self.model, "fp32" if config.precision == "auto" else config.precision)
        self.wrapped: nn.Module = self.chunk_loss
        self.precision: str | None = None if config.precision == "auto" else config.precision
        """fp32 or bf16; None until `run` has tried both."""
        self.pace = Pace(config)
        self.held_out = sum(piece.length for piece in self.valid)
        self.best = math.inf
        self.since_best = 0
        self.clipped = 0
        self.stopped = False
        self.best_look: Evaluation | None = None
        """What the best weights scored on the validation pieces."""
        self.recent: list[tuple[float, float]] = []
        """(nats, notes) of each update since the last look."""
        if config.compile:
            self.model.decoder.compile()
        if count > 1:
            # another dropout in each process; the weights above are the same in all
            torch.manual_seed((torch.initial_seed() + rank) % 2**63)
            # a chunk may hold no step that uses some field's weights
            self.wrapped = nn.parallel.DistributedDataParallel(self.chunk_loss, find_unused_parameters=True)

    @property
    def step(self) -> int:
        return self.pace.step

    @property
    def seconds(self) -> float:
        """Since the run began, in updates and looks, over all its resumes."""
        return self.pace.seconds

    @property
    def finished(self) -> bool:
        return self.pace.over or self.since_best >= self.config.patience

    def run(self, interrupted: Callable[[], bool] = lambda: False) -> Iterator[StepReport]:
        """Train until the last step, until validation has stopped improving, or until a process is interrupted.

        A report a step. `interrupted` is asked in each; when it says so, that step is the last and `stopped` is true.
        """
        self.model.train()
        self.stopped = False
        if not self.finished:
            self._choose_precision()
        with held() if self.device.type == "cpu" else nullcontext():
            while not self.finished and not self.stopped:
                yield self._update(interrupted)

    def _choose_precision(self) -> None:
        began = self.clock()
        if self.precision is None:
            recall = self.model.recall is not None
            part = (0, self.processes.count)
            batch = next(make_streams(self.corpus, self.streams.pieces, self.config, recall, part))
            chosen, _ = choose_precision(self.model, batch, self.device)
            for_bf16 = self.processes.total([float(chosen == "bf16")])[0]  # they may have measured differently
            self.precision = "bf16" if for_bf16 * 2 > self.processes.count else "fp32"
        self.chunk_loss.precision = self.precision
        self.pace.seconds += self._of_first(self.clock() - began)

    def _of_first(self, value: float) -> float:
        """What the first process says."""
        return self.processes.total([value if self.processes.first else 0.0])[0]

    def _gradients(self) -> tuple[Tensor, int]:
        """(nats, notes) of this process's share of an update's chunks; the gradient is of the mean over all targets."""
        config, count = self.config, self.processes.count
        targets = config.accumulate * config.streams * config.chunk  # nothing is padding: known to all
        nats, notes = torch.zeros((), device=self.device), 0
        for chunk in range(config.accumulate):
            batch = self.ahead or next(self.streams)
            self.ahead = None
            tensors, masks = to_tensors(batch, self.device)
            last = chunk + 1 == config.accumulate
            shared = self.wrapped if isinstance(self.wrapped, nn.parallel.DistributedDataParallel) else None
            with nullcontext() if last or shared is None else shared.no_sync():
                losses, self.state = self.wrapped(*tensors, masks, self.state)
                loss = losses.sum()
                (loss * (count / targets)).backward()  # processes are averaged
            nats += loss.detach()
            notes += batch.notes
        return nats, notes

    def _update(self, interrupted: Callable[[], bool]) -> StepReport:
        began = self.clock()
        self.optimizer.zero_grad(set_to_none=True)
        own_nats, own_notes = self._gradients()
        length = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.read_to = self.streams.state()
        self.ahead = next(self.streams)  # while a GPU is still at work
        norm = float(length)
        if not math.isfinite(norm):
            raise TrainingError(
                f"step {self.step + 1}: the gradient is {norm}; the last save stands: "
                "train again with a lower training.learning_rate or training.clip"
            )
        rate = self.pace.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self._average()
        tokens = self.config.accumulate * self.config.streams * self.config.chunk
        said = [float(own_nats), own_notes, interrupted(), self.clock() - began if self.processes.first else 0.0]
        nats, notes, stops, seconds = self.processes.total(said)
        self.stopped = bool(stops)
        self.pace.updated(seconds)
        self.pace.guess = seconds / tokens * self.held_out  # reading takes no longer than learning
        self.clipped += norm > self.config.clip
        self.recent.append((nats, notes))
        recent_nats, recent_notes = (sum(values) for values in zip(*self.recent, strict=True))
        mean = recent_nats / (len(self.recent) * tokens)
        looked, evaluation, is_best = self.pace.look_is_due, None, False
        if looked:
            evaluation, is_best = self._look(mean)
        save = looked or self.stopped or self.pace.save_is_due
        if save:
            self.pace.saved = self.pace.seconds
        return StepReport(
            step=self.step,
            epoch=self.streams.epoch,
            nats_per_step=nats / tokens,
            mean_nats_per_step=mean,
            mean_nats_per_note=recent_nats / max(recent_notes, 1),
            nats_per_note=nats / max(notes, 1),
            gradient_norm=norm,
            clipped=norm > self.config.clip,
            clipped_share=self.clipped / self.step,
            learning_rate=rate,
            notes=int(notes),
            tokens=tokens,
            seconds=seconds,
            left=self.pace.left,
            save=save,
            looked=looked,
            evaluation=evaluation,
            is_best=is_best,
        )

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average a little towards the weights: over the last tenth of the steps, at most 1 / (1 - decay)."""
        if self.averaged is not self.model:
            decay = min(self.config.average, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), 1 - decay)

    def evaluated(self, model: Model, pieces: Sequence[Piece], processes: Processes | None = None) -> Evaluation:
        """A model of this run's on some pieces, as a look has it: untold what the run leaves out, at its precision."""
        # chunks of other shapes are not worth compiling for
        with torch.compiler.set_stance("force_eager") if self.config.compile else nullcontext():
            return evaluate(
                model,
                self.corpus,
                pieces,
                streams=max(self.config.streams, 16),
                without=self.config.without_coordinates,
                precision=self.chunk_loss.precision,
                processes=processes,
            )

    def _look(self, loss: float) -> tuple[Evaluation | None, bool]:
        """Without validation pieces the mean training loss since the last look decides, and nothing stops early."""
        began = self.clock()
        evaluation = None
        self.recent = []
        if self.valid:
            evaluation = self.evaluated(self.averaged, self.valid, self.processes)
            loss = evaluation.per_step
        if self.processes.first:
            self.on_look(self.averaged, self.step)
        self.pace.has_looked(self._of_first(self.clock() - began))
        if loss < self.best:
            self.best, self.since_best, self.best_look = loss, 0, evaluation
            return evaluation, True
        self.since_best += bool(self.valid)
        return evaluation, False

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the run, on the CPU: weights, their average, the optimiser's moments, the decoder's state and
        the random generators. To be called by all processes at once; each has the state of all rows then."""
        found = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self.averaged is not self.model:
            found |= {f"average.{name}": value for name, value in self.averaged.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                found[f"optimizer.{kind}.{name}"] = torch.as_tensor(value)
        for i, part in enumerate(self.state):
            found[f"state.{i}"] = self.processes.joined(part.detach())
        found["random.cpu"] = self.processes.joined(torch.get_rng_state()[None])  # (processes, bytes)
        if self.device.type == "cuda":
            found["random.cuda"] = self.processes.joined(torch.cuda.get_rng_state(self.device)[None])
        return {name: value.detach().cpu().contiguous().clone() for name, value in found.items()}

    def weights(self) -> dict[str, Tensor]:
        """The weights that are evaluated and kept, as a checkpoint has them."""
        return {f"model.{n}": t.detach().cpu().contiguous().clone() for n, t in self.averaged.state_dict().items()}

    def facts(self) -> dict:
        """Everything else, as plain values. To be called by all processes at once."""
        return {
            **self.pace.facts(),
            "best": None if math.isinf(self.best) else self.best,
            "best_look": self.best_look and asdict(self.best_look),
            "since_best": self.since_best,
            "clipped": self.clipped,
            "recent": self.recent,
            "precision": self.precision,
            "streams": {**self.read_to, "rows": self.processes.listed(self.read_to["rows"])},
        }

    def restore(self, tensors: dict[str, Tensor], facts: dict) -> None:
        """Take up a run that `tensors` and `facts` put away, in as many processes as there are now."""

        def of(kind: str) -> dict[str, Tensor]:
            return {n.removeprefix(f"{kind}."): t for n, t in tensors.items() if n.startswith(f"{kind}.")}

        self.model.load_state_dict(of("model"))
        if self.averaged is not self.model:
            self.averaged.load_state_dict(of("average"))
        moments = of("optimizer")
        kinds = {name.split(".")[0] for name in moments}
        for name, parameter in self.model.named_parameters():
            found = {k: moments[f"{k}.{name}"] for k in kinds if f"{k}.{name}" in moments}
            if found:
                self.optimizer.state[parameter] = {k: v.clone().to(self.device) for k, v in found.items()}
        rank, own = self.processes.rank, len(self.streams.numbers)
        state = of("state")
        self.state = tuple(state[str(i)][rank * own : (rank + 1) * own].to(self.device) for i in range(len(state)))
        if rank < len(tensors["random.cpu"]):  # a process more than there were keeps a generator of its own
            torch.set_rng_state(tensors["random.cpu"][rank])
            if self.device.type == "cuda" and "random.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["random.cuda"][rank], self.device)
        self.pace = Pace(self.config, **{name: facts[name] for name in self.pace.facts()})
        self.since_best, self.clipped = facts["since_best"], facts["clipped"]
        self.best = math.inf if facts["best"] is None else facts["best"]
        self.best_look = Evaluation(**facts["best_look"]) if facts["best_look"] else None
        self.recent = [(nats, notes) for nats, notes in facts["recent"]]
        self.precision = facts["precision"]
        self.streams.restore(facts["streams"])
        self.read_to, self.ahead = self.streams.state(), None
