"""A linear layer whose way back is quicker in half precision on a processor.

The gradient of the weights is a product over all positions, G^T X, and what stands on the left of it lies the wrong
way round in memory: a processor's matrix units then spend as long again on turning it, a piece at a time and more than
once. Here the narrower of the two is turned first, in one go, and the product taken that has it on the left.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGE = 2**19
"""Weights of a layer from which on turning costs less than it saves."""

TURNED = 64
"""Positions that are turned at a time: few enough that what is written lies together."""


class Linear(nn.Linear):
    """PyTorch's, but for the way back."""

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: (..., D_in); returns (..., D_out)."""
        dtype = working_type(inputs)
        if inputs.device.type != "cpu" or dtype != torch.bfloat16 or self.weight.numel() < LARGE:
            return super().forward(inputs)
        bias = None if self.bias is None else self.bias.to(dtype)
        return _Linear.apply(inputs.to(dtype), self.weight.to(dtype), bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return F.linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        inputs, weight = ctx.saved_tensors
        by_inputs, by_weight, by_bias = None, None, None
        came, gone = inputs.flatten(0, -2), gradient.flatten(0, -2)  # (N, D_in), (N, D_out)
        if ctx.needs_input_grad[2]:
            by_bias = gone.sum(0)
        if ctx.needs_input_grad[0]:
            by_inputs = gradient @ weight
        if ctx.needs_input_grad[1] and gone.shape[1] < came.shape[1]:
            by_weight = _turned(gone) @ came
        elif ctx.needs_input_grad[1]:
            by_weight = (_turned(came) @ gone).t().contiguous()
        return by_inputs, by_weight, by_bias


def _turned(vectors: Tensor) -> Tensor:
    """(N, D) -> (D, N), laid out anew."""
    return torch.cat([part.t() for part in vectors.split(TURNED)], 1)


def working_type(inputs: Tensor) -> torch.dtype:
    """What a linear layer makes of these inputs."""
    device = inputs.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else inputs.dtype
