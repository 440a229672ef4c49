"""One run in several processes (torchrun), each with its share of the rows: what they must tell each other.

Gradients are averaged by PyTorch's DistributedDataParallel. All else that is global is here: sums, and tensors and
plain values brought together. A process alone is the ordinary case, and costs nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from musicgen.errors import ConfigError

LONGEST_WAIT = timedelta(hours=24)
"""For the first process, which compiles the corpus; torchrun ends all when one has failed."""
LET_GO = 0.5
"""Seconds in which gloo's threads let go of the last barrier's tensors, for which they want the interpreter: what joins
these threads later, when the gradients' reducer goes, holds it, and both would wait for ever."""


@dataclass(frozen=True)
class Processes:
    """This process, the `rank`-th of `count`, from 0, computing on `device`."""

    rank: int = 0
    count: int = 1
    device: torch.device | None = None

    @property
    def first(self) -> bool:
        """Whether this is the one that prints and saves."""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes, in float64."""
        if self.count == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return summed.tolist()

    def joined(self, tensor: Tensor) -> Tensor:
        """(n, ...) of every process, in order, as one (n * count, ...)."""
        if self.count == 1:
            return tensor
        own = tensor.to(self.device).contiguous()
        parts = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(parts, own)
        return torch.cat(parts)

    def listed(self, value: list) -> list:
        """The plain values of every process, in order, as one list."""
        if self.count == 1:
            return value
        parts: list = [None] * self.count
        dist.all_gather_object(parts, value)
        return [one for part in parts for one in part]

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def started(device: torch.device) -> Iterator[Processes]:
    """The processes that torchrun started (it says so in the environment), or this one alone.

    Speaks NCCL between GPUs, of which each process takes its own, and gloo elsewhere. Raises ConfigError if there are
    fewer GPUs than processes.
    """
    count, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if count == 1:
        yield Processes(device=device)
        return
    if device.type == "cuda":
        here, there = int(os.environ.get("LOCAL_WORLD_SIZE", count)), torch.cuda.device_count()
        if here > there:
            raise ConfigError(f"{here} processes and GPUs: {there}; start one process a GPU")
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)))
        torch.cuda.set_device(device)
    backend, own = ("nccl", device) if device.type == "cuda" else ("gloo", None)
    dist.init_process_group(backend, rank=rank, world_size=count, timeout=LONGEST_WAIT, device_id=own)
    yield Processes(rank, count, device)
    # Together, and not while gloo's own threads still let go of the last tensors. After an error nothing is waited for:
    # torchrun ends the others.
    dist.barrier()
    time.sleep(LET_GO)
    dist.destroy_process_group()
