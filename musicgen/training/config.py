"""What training can be told. Defaults live here and nowhere else; a YAML states what it changes."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

TIME = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
UNITS = (3600, 60, 1)


def seconds_of(value: object) -> object:
    """ "90s", "10m" or "1h30m" in seconds; anything else as it is. Raises ValueError for other text."""
    if not isinstance(value, str):
        return value
    found = TIME.fullmatch(value.strip())
    if not found or not any(found.groups()):
        raise ValueError("expected a time such as 90s, 10m or 1h30m")
    return float(sum(int(number) * unit for number, unit in zip(found.groups(), UNITS, strict=True) if number))


class TrainingConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(
        0, ge=0, le=2**63 - 1, description="of everything that is drawn: weights, order of pieces, keys, dropout"
    )
    steps: int = Field(2000, ge=1, description="optimiser steps")
    budget: Annotated[float | None, BeforeValidator(seconds_of)] = Field(
        None,
        gt=0,
        description="train for a time instead (90s, 10m, 1h30m), evaluations included; `steps` is then no limit, and "
        "warmup / steps the share of the time that the warm-up takes; the closing table comes after it",
    )
    streams: int = Field(8, ge=1, description="rows of music read side by side: the batch")
    chunk: int = Field(128, ge=2, description="steps of music a row reads at once: how far back the gradient goes")
    accumulate: int = Field(1, ge=1, description="chunks an update: their gradients are added up")
    learning_rate: float = Field(2e-3, gt=0, description="the highest, reached after the warm-up")
    final_share: float = Field(
        0.05, ge=0, le=1, description="what is left of the learning rate at the end of the cosine"
    )
    warmup: int = Field(100, ge=0, description="steps over which the learning rate rises")
    weight_decay: float = Field(0.05, ge=0, description="AdamW's, on matrices only")
    clip: float = Field(1.0, gt=0, description="longest gradient norm; longer gradients are scaled down to it")
    average: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="decay a step of the moving average of the weights that is evaluated and kept as the best; less at "
        "first, so that it spans a tenth of the steps taken; 0: the weights themselves",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="of products; auto tries both at the start, and takes bf16 where it is clearly faster"
    )
    compile: bool = Field(False, description="torch.compile the decoder; needs a C++ compiler")
    evaluate_every: int = Field(
        200,
        ge=1,
        description="steps between two looks at the validation pieces; under a budget some are left out, so that they "
        "take at most a tenth of the time",
    )
    patience: int = Field(8, ge=1, description="evaluations without a new best before training stops early")
    sample_bars: int = Field(
        8,
        ge=0,
        le=512,
        description="bars of the sample that is written at each evaluation, beside the checkpoint; 0: none",
    )
    save_every: Annotated[float, BeforeValidator(seconds_of)] = Field(
        120.0, ge=0, description="seconds after which the run is saved, besides at each evaluation; 0: at each step"
    )
    valid_share: float = Field(0.1, ge=0, lt=1, description="share of the pieces kept for validation")
    transpose: tuple[int, int] = Field((-5, 6), description="semitones, lowest and highest, pieces are moved by")
    hide_bars_left: float = Field(
        0.5, ge=0, le=1, description="share of plays in which the model is not told the length"
    )
    hide_coordinates: float = Field(
        0.0, ge=0, le=1, description="share of plays in which it is not told another coordinate; drawn for each"
    )
    without_coordinates: tuple[str, ...] = Field(
        (), description="coordinates that it is never told, by name, in training or after"
    )
    mask_notes: float = Field(
        0.0, ge=0, lt=1, description="share of the values read (pitches, durations, ...) that are put out; targets stay"
    )
    preview: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of plays in which music is told ahead of its turn, so that the model learns to fill holes "
        "and to harmonise; `bars` only",
    )
