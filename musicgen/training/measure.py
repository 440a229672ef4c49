"""What is better measured than guessed: whether bf16 is faster here, and what a chunk keeps for the way back."""

from __future__ import annotations

import copy
import time

import torch
from torch import Tensor

from musicgen.corpus import Batch
from musicgen.decoders.model import Model
from musicgen.training.chunk import ChunkLoss
from musicgen.training.evaluate import to_tensors

FASTER = 1.15
"""How many times as fast bf16 must be to be worth its rounding."""

LARGE = 1_000_000
"""Weights from which on bf16 is tried: smaller models wait for other things than products."""

ROUNDS = 3


def fast_at_bf16(device: torch.device) -> bool:
    """Whether the processor has instructions for it, so that trying is worth the time."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def choose_precision(model: Model, batch: Batch, device: torch.device) -> tuple[str, float | None]:
    """("bf16" or "fp32", how many times as fast bf16 was): chunks forwards and backwards both ways, on a copy.

    The best of a few interleaved rounds is compared, so that other work on the machine decides nothing. None where it
    was not tried: the model is small, or the processor has no bf16.
    """
    if sum(p.numel() for p in model.parameters()) < LARGE or not fast_at_bf16(device):
        return "fp32", None
    ways = {precision: ChunkLoss(copy.deepcopy(model), precision) for precision in ("fp32", "bf16")}
    best = dict.fromkeys(ways, float("inf"))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for _ in range(ROUNDS + 1):
            for precision, chunk_loss in ways.items():
                best[precision] = min(best[precision], _seconds(chunk_loss, batch, device))
    ratio = best["fp32"] / best["bf16"]
    return ("bf16" if ratio >= FASTER else "fp32"), ratio


def _seconds(chunk_loss: ChunkLoss, batch: Batch, device: torch.device) -> float:
    tensors, masks = to_tensors(batch, device)
    state = chunk_loss.model.initial_state(len(batch.steps))
    began = time.perf_counter()
    nats, _ = chunk_loss(*tensors, masks, state)
    nats.sum().backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def kept_bytes(chunk_loss: ChunkLoss, batch: Batch, device: torch.device) -> int:
    """Bytes that autograd keeps of one chunk for the way back, weights left out, each tensor counted once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in chunk_loss.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tensors, masks = to_tensors(batch, device)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        chunk_loss(*tensors, masks, chunk_loss.model.initial_state(len(batch.steps)))
    return sum(kept.values())
