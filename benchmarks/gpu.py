"""Training speed of the decoders on a GPU, beside nanoGPT's recipe and Hugging Face's GPT-2.

    python benchmarks/gpu.py --device cuda --out gpu.md      (benchmarks/gpu.sh runs this, after the tests)

A step is forward, backward and AdamW (fused) in bf16 autocast. nanoGPT's recipe is the GPT below, after
github.com/karpathy/nanoGPT: torch.compile, flash attention by F.scaled_dot_product_attention, tied embeddings. All
take the same batches of the same length and vocabulary. Rounds of steps are taken in turn; medians are printed.

Model FLOPs utilisation: 6 for each parameter that multiplies and 12 · layers · width · length for attention, a token
(Chowdhery et al. 2022), over what the GPU is said to do in dense bf16; measured by a large product if it is not in the
table. A model that does not compile or does not fit is reported, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicgen.decoders import DECODERS, State, detach

PEAKS = {  # dense bf16 in TFLOP/s, from the makers' data sheets; the first name that is part of the GPU's
    "H200": 989,
    "H100 PCIe": 756,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "A10G": 70,
    "A10": 125,
    "RTX 4090": 165,
    "RTX 3090": 71,
}


class Attention(nn.Module):
    """nanoGPT's CausalSelfAttention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(dim, 3 * dim, bias=False)
        self.c_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.c_proj(mixed.transpose(1, 2).flatten(2))


class NanoBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(dim, bias=False), nn.LayerNorm(dim, bias=False)
        self.attn = Attention(dim, heads)
        self.up, self.down = nn.Linear(dim, 4 * dim, bias=False), nn.Linear(4 * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.down(F.gelu(self.up(self.ln_2(x))))


class NanoGPT(nn.Module):
    """Learned positions, pre-norm blocks without biases, embedding and logits tied, no dropout: as nanoGPT trains."""

    def __init__(self, dim: int, layers: int, heads: int, vocabulary: int, length: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, dim), nn.Embedding(length, dim)
        self.blocks = nn.ModuleList(NanoBlock(dim, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(dim, bias=False)
        self.lm_head = nn.Linear(dim, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, steps: Tensor) -> Tensor:
        x = self.wte(steps) + self.wpe(torch.arange(steps.shape[1], device=steps.device))
        for block in self.blocks:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class Ours(nn.Module):
    """A decoder between an embedding and logits."""

    def __init__(self, dim: int, layers: int, heads: int, vocabulary: int, length: int, name: str) -> None:
        super().__init__()
        options = {"heads": heads, "memory": length} if name == "transformer" else {}
        self.embedding = nn.Embedding(vocabulary, dim)
        self.decoder = DECODERS[name](dim=dim, layers=layers, **options)
        self.logits = nn.Linear(dim, vocabulary)

    def forward(self, steps: Tensor, state: State) -> tuple[Tensor, State]:
        outputs, state = self.decoder(self.embedding(steps), state)
        return self.logits(outputs), state


class Runner:
    """A model in training. `forward(batch, model)` gives logits (B, T, V)."""

    def __init__(self, model: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor], compiled: bool) -> None:
        self.model = model.train()
        self.called = torch.compile(model) if compiled else model
        self.forward = forward
        self.device = next(model.parameters()).device
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), fused=True)

    def step(self, batch: Tensor) -> Tensor:
        """batch: (B, T + 1). Returns the loss, not waited for."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.forward(self.called, batch[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach()

    def seconds(self, batch: Tensor, steps: int) -> float:
        """Of one step, a mean over `steps` of them."""
        wait(self.device)
        began = time.perf_counter()
        for _ in range(steps):
            loss = self.step(batch)
        wait(self.device)
        if not torch.isfinite(loss):
            raise RuntimeError(f"the loss is {loss.item()}")
        return (time.perf_counter() - began) / steps


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gpt2(dim: int, layers: int, heads: int, vocabulary: int, length: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=length,
        n_embd=dim,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        attn_implementation="sdpa",
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def contestants(shape: tuple[int, int, int, int, int], batch: int, device: torch.device) -> dict[str, Callable]:
    """Title -> what makes a runner. Ours runs without memory, as the others do, and with one of T, as it trains."""

    def ours(name: str, compiled: bool, carried: bool) -> Runner:
        model = Ours(*shape, name=name).to(device)
        state = model.decoder.initial_state(batch)
        if name == "transformer" and not carried:  # no slots at all: plain causal attention
            state = (state[0][:, :, :0], state[1][:, :, :0], state[2][:, :0])
        kept = {"state": state}

        def forward(called: nn.Module, steps: Tensor) -> Tensor:
            logits, after = called(steps, kept["state"])
            if carried:
                kept["state"] = detach(after)
            return logits

        return Runner(model, forward, compiled)

    def theirs() -> Runner:
        return Runner(gpt2(*shape).to(device), lambda called, steps: called(steps).logits, False)

    def nano() -> Runner:
        return Runner(NanoGPT(*shape).to(device), lambda called, steps: called(steps), True)

    return {
        "nanoGPT's recipe, compiled": nano,
        "GPT-2 of Hugging Face": theirs,
        "transformer": lambda: ours("transformer", False, False),
        "transformer, compiled": lambda: ours("transformer", True, False),
        "transformer with memory": lambda: ours("transformer", False, True),
        "transformer with memory, compiled": lambda: ours("transformer", True, True),
        "lstm": lambda: ours("lstm", False, True),
    }


def flops_a_token(model: nn.Module, dim: int, layers: int, length: int, attends: bool) -> float:
    """Of a training step: 6 for each weight of a matrix that multiplies, and attention."""
    looked_up = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    multiplied = {id(part.weight) for part in model.modules() if isinstance(part, nn.Linear)}  # tied ones multiply too
    weights = sum(p.numel() for p in model.parameters() if p.dim() == 2 and id(p) not in looked_up - multiplied)
    return 6.0 * weights + (12.0 * layers * dim * length if attends else 0.0)


def peak(device: torch.device) -> tuple[float, str]:
    """FLOP/s in dense bf16, and where the figure is from."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
    for part, tera in PEAKS.items():
        if part in name:
            return tera * 1e12, f"{name}, {tera} TFLOP/s by its data sheet"
    size = 8192 if device.type == "cuda" else 512
    matrix = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    matrix @ matrix
    found = []
    for _ in range(5):
        wait(device)
        began = time.perf_counter()
        for _ in range(5):
            matrix @ matrix
        wait(device)
        found.append(5 * 2 * size**3 / (time.perf_counter() - began))
    return max(found), f"{name}, {max(found) / 1e12:.1f} TFLOP/s measured by a product of {size} x {size} matrices"


def measure(
    shape: tuple[int, int, int, int, int], batch: int, rounds: int, steps: int, device: torch.device, until: float
) -> list[dict]:
    """Rows of the table for one size."""
    dim, layers, _, vocabulary, length = shape
    data = torch.randint(0, vocabulary, (batch, length + 1), device=device)
    runners: dict[str, Runner] = {}
    rows: dict[str, dict] = {}
    for title, make in contestants(shape, batch, device).items():
        rows[title] = {"model": title, "size": f"{layers} x {dim}", "batch": batch, "length": length}
        if time.monotonic() > until:
            rows[title]["failed"] = "left out: out of time"
            continue
        try:
            runner = make()
            for _ in range(3):  # compiles, and finds its kernels
                runner.step(data)
            wait(device)
            runners[title] = runner
        except Exception as error:  # whatever a compiler may raise: the others go on
            lines = str(error).strip().splitlines() or [""]
            rows[title]["failed"] = f"{type(error).__name__}: {lines[0][:100]}"
            if device.type == "cuda":
                torch.cuda.empty_cache()
    seconds: dict[str, list[float]] = {title: [] for title in runners}
    for done in range(rounds):
        if done and time.monotonic() > until + 20:
            break
        for title, runner in runners.items():
            seconds[title].append(runner.seconds(data, steps))
    for title, runner in runners.items():
        needed = flops_a_token(runner.model, dim, layers, length, attends=title != "lstm")
        tokens = batch * length / statistics.median(seconds[title])
        rows[title].update(tokens_per_second=tokens, flops_a_token=needed)
    return list(rows.values())


def table(rows: list[dict], most: float, source: str) -> str:
    lines = [
        f"Peak: {source}. PyTorch {torch.__version__}.",
        "",
        "| size | model | batch | tokens/s | beside nanoGPT's recipe | utilisation |",
        "|---|---|---|---:|---:|---:|",
    ]
    nano = {row["size"]: row.get("tokens_per_second") for row in rows if row["model"].startswith("nanoGPT")}
    for row in rows:
        shape = f"| {row['size']} | {row['model']} | {row['batch']} x {row['length']} |"
        if "failed" in row:
            lines.append(f"{shape} {row['failed'].replace('|', '/')} | | |")
            continue
        speed, beside = row["tokens_per_second"], nano[row["size"]]
        ratio = f"{speed / beside:.2f} x" if beside else "-"
        lines.append(f"{shape} {speed:,.0f} | {ratio} | {speed * row['flops_a_token'] / most:.1%} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny models, to see that it runs")
    parser.add_argument("--seconds", type=float, default=300, help="start nothing new after so long")
    parser.add_argument("--out", type=Path, help="write the table here too")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    device = torch.device(options.device)
    torch.set_float32_matmul_precision("high")  # TF32 where something is left in single precision, as nanoGPT does
    began = time.monotonic()
    most, source = peak(device)
    if options.small:
        plans = [((16, 1, 2, 32, 16), 2)]
    else:
        plans = [((512, 6, 8, 512, 1024), 32), ((768, 12, 12, 512, 1024), 16)]
    rows = []
    for number, (shape, batch) in enumerate(plans, 1):
        until = began + options.seconds * number / len(plans)
        rows += measure(shape, batch, 2 if options.small else 5, 2 if options.small else 10, device, until)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        torch.compiler.reset()
    found = table(rows, most, source)
    print(found)
    if options.out:
        options.out.write_text(found)
    if options.json:
        options.json.write_text(json.dumps({"peak": most, "source": source, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
