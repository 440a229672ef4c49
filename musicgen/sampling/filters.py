"""Which values stay in the running when one is drawn: pure functions on logits.

Each takes logits (B, V) and returns them with what falls out set to -inf; at least one value a row always stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field


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
    exact: bool = Field(
        False, description="draw by the numbers the model was trained with, not by quick steps in 8 bits near them"
    )


def masked(logits: np.ndarray, masks: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """Logits (B, V) of the values that are allowed, where masks (B, V) is true."""
    return np.where(masks, logits, -np.inf)


def keep_top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """The k likeliest values (ties with the last of them stay too)."""
    if k <= 0 or k >= logits.shape[-1]:
        return logits
    least = np.partition(logits, -k)[:, -k, None]
    return np.where(logits < least, -np.inf, logits)


def keep_top_p(logits: np.ndarray, p: float) -> np.ndarray:
    """The fewest likeliest values whose probability sums to p or more (nucleus sampling, Holtzman et al. 2020)."""
    if p >= 1:
        return logits
    order = np.argsort(-logits, axis=-1, kind="stable")
    upto = np.cumsum(_weights(np.take_along_axis(logits, order, -1)), axis=-1)
    dropped = np.empty(logits.shape, dtype=bool)
    before = np.pad(upto[:, :-1], ((0, 0), (1, 0)))
    np.put_along_axis(dropped, order, before >= p * upto[:, -1:], -1)
    return np.where(dropped, -np.inf, logits)


def keep_min_p(logits: np.ndarray, p: float) -> np.ndarray:
    """Values at least p times as likely as the likeliest (Nguyen et al. 2024)."""
    if p <= 0:
        return logits
    return np.where(_weights(logits) < p, -np.inf, logits)


def draw(
    logits: np.ndarray, config: SamplingConfig, generators: Sequence[np.random.Generator]
) -> tuple[list[int], list[float]]:
    """One value a row of logits (B, V), in which what the grammar forbids is already -inf; and its negative
    log-likelihood by these logits, before temperature and filters.

    Each row has its own generator, so that what one stream draws does not depend on how many others there are. A number
    between 0 and 1 is looked up in the running sum of the row's probabilities.
    """
    logits = logits - logits.max(axis=-1, keepdims=True)
    upto = whole = np.exp(logits, dtype=np.float64).cumsum(axis=-1)
    if config.temperature and (config.temperature != 1 or config.top_k or config.top_p < 1 or config.min_p):
        kept = logits / config.temperature
        kept = keep_min_p(keep_top_p(keep_top_k(kept, config.top_k), config.top_p), config.min_p)
        upto = np.exp(kept, dtype=np.float64).cumsum(axis=-1)
    if config.temperature == 0:
        values = logits.argmax(axis=-1).tolist()
    else:  # what has no probability is passed over
        values = [
            int(row.searchsorted(generator.random() * row[-1], side="right"))
            for row, generator in zip(upto, generators, strict=True)
        ]
    return values, [math.log(whole[row, -1]) - float(logits[row, value]) for row, value in enumerate(values)]


def _weights(logits: np.ndarray) -> np.ndarray:
    """Probabilities over that of the likeliest value."""
    return np.exp(logits - logits.max(axis=-1, keepdims=True), dtype=np.float64)
