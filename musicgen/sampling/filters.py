"""Which values stay in the running when one is drawn: pure functions on logits.

Each takes logits (B, V) and returns them with what falls out set to -inf; at least one value a row always stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class SamplingConfig(BaseModel):
    """How boldly to draw. Filters apply in the order temperature, top_k, top_p, min_p."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(1.0, ge=0, le=10, description="below 1 safer, above 1 bolder, 0 always the likeliest")
    top_k: int = Field(0, ge=0, description="draw among this many likeliest values only; 0: all")
    top_p: float = Field(
        1.0, gt=0, le=1, description="draw among the likeliest values that together have this probability"
    )
    min_p: float = Field(0.0, ge=0, lt=1, description="drop values less likely than this share of the likeliest one")
    most_recalled: int = Field(
        3, ge=0, description="a model that recalls is not told of what has come so many times already; 0: always told"
    )


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The k likeliest values (ties with the last of them stay too)."""
    if k <= 0 or k >= logits.shape[-1]:
        return logits
    least = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The fewest likeliest values whose probability sums to p or more (nucleus sampling, Holtzman et al. 2020)."""
    if p >= 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    ordered = ordered.masked_fill(before >= p, -torch.inf)
    return torch.full_like(logits, -torch.inf).scatter(-1, order, ordered)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Values at least p times as likely as the likeliest (Nguyen et al. 2024)."""
    if p <= 0:
        return logits
    probabilities = logits.softmax(dim=-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(dim=-1, keepdim=True), -torch.inf)


def draw(logits: Tensor, config: SamplingConfig, generators: Sequence[torch.Generator]) -> Tensor:
    """One value a row, (B,) int64, of logits (B, V) in which what the grammar forbids is already -inf.

    Each row has its own generator, so that what one stream draws does not depend on how many others there are.
    """
    if config.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / config.temperature
    logits = keep_min_p(keep_top_p(keep_top_k(logits, config.top_k), config.top_p), config.min_p)
    rows = zip(logits.softmax(dim=-1), generators, strict=True)
    return torch.cat([torch.multinomial(row, 1, generator=generator) for row, generator in rows])
