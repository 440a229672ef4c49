"""The loss of one chunk, as one module: what is cast to bf16, compiled, or shared among processes, is this."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from musicgen.decoders import State, detach
from musicgen.decoders.model import Model


class ChunkLoss(nn.Module):
    """Model and head over one chunk. `precision`: fp32, or bf16 for products under autocast; losses are float32."""

    def __init__(self, model: Model, precision: str = "fp32") -> None:
        super().__init__()
        self.model, self.precision = model, precision

    def forward(
        self,
        steps: Tensor,
        coordinates: Tensor,
        targets: Tensor,
        valid: Tensor,
        fresh: Tensor | None,
        masks: dict[int, Tensor],
        state: State,
    ) -> tuple[Tensor, State]:
        """Nats of each field of each target, (N, F) float32, and the state after the chunk, in the type it came in.

        The state is detached: here backpropagation through time is truncated.
        """
        with torch.autocast(steps.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            outputs, after = self.model(steps, coordinates, state, fresh)
            nats = self.model.head.nll(outputs, targets, valid, masks)
        return nats, tuple(part.to(before.dtype) for part, before in zip(detach(after), state, strict=True))
