"""A recurrent layer unrolled over time on a processor: the equations of `recurrent`, and their derivatives, by hand.

Left to autograd, a loop over time adds up a gradient as large as the recurrent matrix at every step. Here the way back
goes over time with the hidden vectors alone, and the gradient of the matrix is one product over all steps at the end.
What does not depend on the step before is computed for all steps at once. PyTorch's kernels on a processor do neither,
or not for every cell; on a GPU cuDNN's do both, and are used.

What is carried is kept in single precision at least: under autocast only the products over all steps at once, which
are most of the work, are in half precision.

Inside, time comes first: T steps of B rows. The three cells stand at the end, each with the way there and the way back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Reset = dict[int, Tensor]
"""Steps before which rows forget: step -> (B, 1), 0 for a row that forgets and 1 for one that goes on."""


@torch.compiler.disable
def unroll(
    cell: type[Cell], drives: Tensor, carried: tuple[Tensor, ...], weight: Tensor, bias: Tensor, fresh: Tensor | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One layer over T steps: outputs (B, T, D), and what is carried on, (B, D) each, the hidden vector first.

    drives: (B, T, G · D), what the inputs say; carried: (B, D) each; weight (G · D, D) and bias (G · D,) make what the
    past says; fresh: (B, T) bool, true where a row forgets before the step, or None.
    """
    wide = torch.promote_types(drives.dtype, torch.float32)
    reset = {}
    if fresh is not None:
        for step in fresh.any(0).nonzero().flatten().tolist():
            reset[step] = (~fresh[:, step, None]).to(wide)
    past = (part.to(wide) for part in carried)
    outputs, *ends = cell.apply(drives.to(wide), weight, bias, reset, *past)
    return outputs, tuple(end.to(part.dtype) for end, part in zip(ends, carried, strict=True))


class Cell(torch.autograd.Function):
    """What the cells share: memory layout, forgetting, and the gradients of weight and bias."""

    @staticmethod
    def there(
        drives: Tensor, turned: Tensor, bias: Tensor, reset: Reset, past: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """What is to be kept for the way back, (T, B, ...) each: first what is carried, after each step.

        drives: (T, B, G · D), to be written over; turned: the weight, (D, G · D); past: what is carried at first.
        """
        raise NotImplementedError

    @staticmethod
    def back(
        by_outputs: Tensor, weight: Tensor, reset: Reset, by_ends: tuple[Tensor, ...], found: list[Tensor], kept: Any
    ) -> tuple[Tensor, ...]:
        """Gradients of the drives and of what the past says, (T, B, G · D) each, then of what is carried at first.

        by_outputs: (T, B, D); by_ends: (B, D) each, of what is carried at last; found: (T, B, D) each, what is carried
        before each step; kept: what `there` returned.
        """
        raise NotImplementedError

    @classmethod
    def _run(cls, ctx: Any, drives: Tensor, weight: Tensor, bias: Tensor, reset: Reset, *past: Tensor) -> Any:
        long = drives.shape[1] > 4
        drives = drives.transpose(0, 1).clone(memory_format=torch.contiguous_format)  # (T, B, G · D)
        turned = weight.to(drives.dtype).t()
        turned = turned.contiguous() if long else turned  # a product with it is then more than twice as fast
        kept = cls.there(drives, turned, bias.to(drives.dtype), reset, past)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(weight, *past, *kept)
            ctx.reset, ctx.carried = reset, len(past)
            ctx.half = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        return kept[0].transpose(0, 1), *(part[-1].clone() for part in kept[: len(past)])

    @classmethod
    def _turn_back(cls, ctx: Any, by_outputs: Tensor, *by_ends: Tensor) -> tuple[Tensor | None, ...]:
        weight, *saved = ctx.saved_tensors
        past, kept = saved[: ctx.carried], saved[ctx.carried :]
        found = [torch.cat([first[None], after[:-1]]) for first, after in zip(past, kept, strict=False)]
        for step, keep in ctx.reset.items():
            for part in found:
                part[step].mul_(keep)
        by_outputs = by_outputs.transpose(0, 1).contiguous()  # (T, B, D)
        wide = weight.to(by_outputs.dtype)
        by_drives, by_recalls, *by_past = cls.back(by_outputs, wide, ctx.reset, by_ends, found, kept)
        working = ctx.half or by_recalls.dtype
        left, right = by_recalls.flatten(0, 1), found[0].flatten(0, 1)  # (T · B, G · D), (T · B, D)
        by_weight = (left.to(working).t() @ right.to(working)).to(weight.dtype)
        return by_drives.transpose(0, 1), by_weight, left.sum(0).to(weight.dtype), None, *by_past


class TanhCell(Cell):
    """h_t = tanh(W_xh x_t + W_hh h_{t-1} + b)"""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        return TanhCell._run(ctx, *arguments)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return TanhCell._turn_back(ctx, *gradients)

    activate = staticmethod(torch.tanh_)

    @staticmethod
    def slope(hiddens: Tensor) -> Tensor:
        return 1 - hiddens.square()

    @classmethod
    def there(cls, drives, turned, bias, reset, past):  # type: ignore[no-untyped-def, override]
        (hidden,) = past
        for step, drive in enumerate(drives.add_(bias).unbind(0)):
            hidden = hidden * reset[step] if step in reset else hidden
            hidden = cls.activate(drive.addmm_(hidden, turned))
        return (drives,)

    @classmethod
    def back(cls, by_outputs, weight, reset, by_ends, found, kept):  # type: ignore[no-untyped-def, override]
        (by_hidden,) = by_ends
        by_sum = cls.slope(kept[0])  # (T, B, D), by and by the gradient of what stands in the bracket
        for step in range(len(by_sum) - 1, -1, -1):
            by_hidden = by_hidden + by_outputs[step]
            by_hidden = by_sum[step].mul_(by_hidden) @ weight
            by_hidden = by_hidden * reset[step] if step in reset else by_hidden
        return by_sum, by_sum, by_hidden


class ReluCell(TanhCell):
    """h_t = relu(W_xh x_t + W_hh h_{t-1} + b)"""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        return ReluCell._run(ctx, *arguments)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ReluCell._turn_back(ctx, *gradients)

    activate = staticmethod(torch.relu_)

    @staticmethod
    def slope(hiddens: Tensor) -> Tensor:
        return (hiddens > 0).to(hiddens.dtype)


class GruCell(Cell):
    """r, z = sigmoid(...); n = tanh(W_xh x + r * (W_hh h + b)); h = (1 - z) * n + z * h. Gates lie as r, z, n."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        return GruCell._run(ctx, *arguments)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return GruCell._turn_back(ctx, *gradients)

    @staticmethod
    def there(drives, turned, bias, reset, past):  # type: ignore[no-untyped-def, override]
        (hidden,) = past
        width = hidden.shape[1]
        hiddens = drives.new_empty(*drives.shape[:2], width)
        recalls = torch.empty_like(drives)  # W_hh h + b
        both, fresh = drives[..., : 2 * width].unbind(0), drives[..., 2 * width :].unbind(0)
        reset_gate, update = drives[..., :width].unbind(0), drives[..., width : 2 * width].unbind(0)
        recalled_both, recalled = recalls[..., : 2 * width].unbind(0), recalls[..., 2 * width :].unbind(0)
        for step, (recall, after) in enumerate(zip(recalls.unbind(0), hiddens.unbind(0), strict=True)):
            hidden = hidden * reset[step] if step in reset else hidden
            torch.addmm(bias, hidden, turned, out=recall)
            both[step].add_(recalled_both[step]).sigmoid_()
            fresh[step].addcmul_(reset_gate[step], recalled[step]).tanh_()
            hidden = torch.lerp(fresh[step], hidden, update[step], out=after)
        return hiddens, drives, recalls[..., 2 * width :].contiguous()

    @staticmethod
    def back(by_outputs, weight, reset, by_ends, found, kept):  # type: ignore[no-untyped-def, override]
        (by_hidden,), (before,) = by_ends, found
        _, gates, recalled = kept
        reset_gate, update, candidate = gates.chunk(3, -1)  # (T, B, D) each
        by_candidate = (1 - update) * (1 - candidate.square())
        by_update = (before - candidate) * update * (1 - update)
        by_reset = recalled * reset_gate * (1 - reset_gate)
        by_recalls = torch.empty_like(gates)
        shares = [share.unbind(0) for share in by_recalls.chunk(3, -1)]
        for step in range(len(gates) - 1, -1, -1):
            by_hidden = by_hidden + by_outputs[step]
            by_sum = by_candidate[step].mul_(by_hidden)
            torch.mul(by_sum, by_reset[step], out=shares[0][step])
            torch.mul(by_hidden, by_update[step], out=shares[1][step])
            torch.mul(by_sum, reset_gate[step], out=shares[2][step])
            by_hidden = (by_hidden * update[step]).addmm_(by_recalls[step], weight)
            by_hidden = by_hidden * reset[step] if step in reset else by_hidden
        by_drives = torch.cat([by_recalls[..., : 2 * update.shape[-1]], by_candidate], -1)
        return by_drives, by_recalls, by_hidden


class LstmCell(Cell):
    """i, f, o = sigmoid(...); g = tanh(...); c = f * c + i * g; h = o * tanh(c). Gates lie as i, f, g, o."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        return LstmCell._run(ctx, *arguments)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return LstmCell._turn_back(ctx, *gradients)

    @staticmethod
    def there(drives, turned, bias, reset, past):  # type: ignore[no-untyped-def, override]
        hidden, cell = past
        width = hidden.shape[1]
        hiddens, cells = (drives.new_empty(*drives.shape[:2], width) for _ in range(2))
        gates = drives.add_(bias)
        both = gates[..., : 2 * width].unbind(0)
        takes, keeps, candidates, gives = (share.unbind(0) for share in gates.chunk(4, -1))
        for step, (drive, after, left) in enumerate(
            zip(gates.unbind(0), hiddens.unbind(0), cells.unbind(0), strict=True)
        ):
            if step in reset:
                hidden, cell = hidden * reset[step], cell * reset[step]
            drive.addmm_(hidden, turned)
            both[step].sigmoid_()
            candidates[step].tanh_()
            gives[step].sigmoid_()
            cell = torch.mul(keeps[step], cell, out=left).addcmul_(takes[step], candidates[step])
            hidden = torch.tanh(cell, out=after).mul_(gives[step])
        return hiddens, cells, gates

    @staticmethod
    def back(by_outputs, weight, reset, by_ends, found, kept):  # type: ignore[no-untyped-def, override]
        by_hidden, by_cell = by_ends
        _, before = found
        _, cells, gates = kept
        take, keep, candidate, give = gates.chunk(4, -1)  # (T, B, D) each
        shown = cells.tanh()
        by_gates = torch.empty_like(gates)  # first what the gradient is multiplied by, then the gradient
        shares = by_gates.chunk(4, -1)
        torch.mul(candidate * take, 1 - take, out=shares[0])
        torch.mul(before * keep, 1 - keep, out=shares[1])
        torch.mul(take, 1 - candidate.square(), out=shares[2])
        torch.mul(shown * give, 1 - give, out=shares[3])
        through = give * (1 - shown.square())
        three = by_gates.unflatten(-1, (4, -1))[:, :, :3].unbind(0)  # (B, 3, D) each
        by_cell = by_cell.clone()
        for step in range(len(gates) - 1, -1, -1):
            by_hidden = by_hidden + by_outputs[step]
            by_cell.addcmul_(by_hidden, through[step])
            three[step].mul_(by_cell[:, None])
            shares[3][step].mul_(by_hidden)
            by_cell.mul_(keep[step])
            by_hidden = by_gates[step] @ weight
            if step in reset:
                by_hidden, by_cell = by_hidden * reset[step], by_cell.mul_(reset[step])
        return by_gates, by_gates, by_hidden, by_cell
