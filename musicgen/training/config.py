"""What training can be told. Defaults live here and nowhere else; a YAML states what it changes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TrainingConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(
        0, ge=0, le=2**63 - 1, description="of everything that is drawn: weights, order of pieces, keys, dropout"
    )
    steps: int = Field(2000, ge=1, description="optimiser steps")
    streams: int = Field(8, ge=1, description="pieces read side by side: the batch")
    chunk: int = Field(128, ge=2, description="steps of music between two updates: how far back the gradient goes")
    learning_rate: float = Field(2e-3, gt=0, description="the highest, reached after the warm-up")
    final_share: float = Field(
        0.05, ge=0, le=1, description="what is left of the learning rate at the end of the cosine"
    )
    warmup: int = Field(100, ge=0, description="steps over which the learning rate rises")
    weight_decay: float = Field(0.05, ge=0, description="AdamW's, on matrices only")
    clip: float = Field(1.0, gt=0, description="longest gradient norm; longer gradients are scaled down to it")
    evaluate_every: int = Field(200, ge=1, description="steps between two looks at the validation pieces")
    patience: int = Field(8, ge=1, description="evaluations without a new best before training stops early")
    valid_share: float = Field(0.1, ge=0, lt=1, description="share of the pieces kept for validation")
    transpose: tuple[int, int] = Field((-5, 6), description="semitones, lowest and highest, pieces are moved by")
    hide_bars_left: float = Field(
        0.5, ge=0, le=1, description="share of plays in which the model is not told the length"
    )
