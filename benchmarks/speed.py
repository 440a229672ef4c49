"""How fast the decoders train, beside what people would pick instead; and whether the speed costs quality.

    python benchmarks/speed.py

- The Transformer beside Hugging Face's GPT-2 (single precision, its own SDPA attention): the same layers, heads, width,
  vocabulary, batch and length, dropout in the same places. Neither carries a memory from batch to batch.
- The lstm, gru and rnn beside a plain loop over PyTorch's cells, between the same embedding and head.

A step is forward, backward and AdamW (PyTorch's fused one, for both), and the process holds on to its memory as it does
while training (`musicgen.training.memory`, of which both have the use). Steps of the two are taken in turn, in one
process, on one core; each pair gives a ratio of processor times, and the median of the ratios is printed. Then all are
trained from the same start for the same number of steps on the same tunes, character by character, and their loss on
tunes they have not seen is put beside.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicgen.decoders import DECODERS, Decoder, State
from musicgen.decoders.decoder import Dropout
from musicgen.training.memory import held

DATA = Path(__file__).resolve().parents[1] / "data"
HALF = torch.bfloat16
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}


@dataclass(frozen=True)
class Size:
    """What both of a pair are made to."""

    dim: int
    layers: int
    heads: int
    batch: int
    length: int
    vocabulary: int
    dropout: float = 0.1

    @property
    def tokens(self) -> int:
        return self.batch * self.length


class Language(nn.Module):
    """A decoder between an embedding and logits, (B, T) -> (B, T, V). No memory is carried from call to call."""

    def __init__(self, decoder: Decoder, size: Size) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size.vocabulary, size.dim)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.dropout = Dropout(size.dropout)
        self.decoder = decoder
        self.logits = nn.Linear(size.dim, size.vocabulary)
        self.state = decoder.initial_state(size.batch)

    def forward(self, steps: Tensor) -> Tensor:
        state = tuple(part[: len(steps)] for part in self.state)
        return self.logits(self.decoder(self.dropout(self.embedding(steps)), state)[0])


class CellLoop(Decoder):
    """What a textbook would write with PyTorch's cells: a loop over time, and in it a loop over layers.

    It starts from the weights that ours would start from.
    """

    def __init__(self, name: str, size: Size) -> None:
        super().__init__()
        self.dim, self.name = size.dim, name
        self.cells = nn.ModuleList(CELLS[name](size.dim, size.dim) for _ in range(size.layers))
        self.dropout = nn.Dropout(size.dropout)
        start = DECODERS[name](dim=size.dim, layers=size.layers).state_dict()
        for layer, cell in enumerate(self.cells):
            cell.load_state_dict({key: start[f"kernel.{key}_l{layer}"] for key in cell.state_dict()})

    def initial_state(self, batch: int, device=None, dtype=None) -> State:
        return (self._zeros(batch, len(self.cells), self.dim, device=device, dtype=dtype),)

    def forward(self, inputs: Tensor, state: State, fresh: Tensor | None = None) -> tuple[Tensor, State]:
        carried = [part if self.name != "lstm" else (part, part) for part in state[0].unbind(1)]
        outputs = []
        for vector in inputs.unbind(1):
            for layer, cell in enumerate(self.cells):
                carried[layer] = cell(self.dropout(vector) if layer else vector, carried[layer])
                vector = carried[layer][0] if self.name == "lstm" else carried[layer]
            outputs.append(vector)
        return torch.stack(outputs, 1), state


def gpt2(size: Size) -> nn.Module:
    """Hugging Face's, with its SDPA attention. Ours has no dropout on attention weights, so neither has this."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=size.vocabulary,
        n_positions=size.length,
        n_embd=size.dim,
        n_layer=size.layers,
        n_head=size.heads,
        resid_pdrop=size.dropout,
        embd_pdrop=size.dropout,
        attn_pdrop=0.0,
        attn_implementation="sdpa",
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def ours(name: str, size: Size) -> Language:
    options = {"heads": size.heads, "memory": size.length} if name == "transformer" else {}
    return Language(DECODERS[name](dim=size.dim, layers=size.layers, dropout=size.dropout, **options), size)


@dataclass(frozen=True)
class Contest:
    """Who runs against whom. `make` and `reference` build models; ours also runs in half precision."""

    title: str
    other: str
    size: Size
    make: Callable[[Size], nn.Module]
    reference: Callable[[Size], nn.Module]


def contests(quick: bool) -> list[Contest]:
    def transformer(dim: int) -> Contest:
        size = Size(dim, *((2, 2, 2, 32) if quick else (6, 8, 8, 512)), vocabulary=128)
        title = f"transformer {size.layers} x {dim}"
        return Contest(title, "GPT-2 of Hugging Face", size, lambda size: ours("transformer", size), gpt2)

    def recurrent(name: str) -> Contest:
        size = Size(*((16, 2, 1, 2, 16) if quick else (512, 2, 1, 8, 128)), vocabulary=128)
        return Contest(
            f"{name} {size.layers} x {size.dim}",
            f"a loop over nn.{CELLS[name].__name__}",
            size,
            lambda size: ours(name, size),
            lambda size: Language(CellLoop(name, size), size),
        )

    return [*(transformer(dim) for dim in ((16,) if quick else (256, 512))), *(recurrent(name) for name in CELLS)]


class Runner:
    """A model in training, one step at a call."""

    def __init__(self, model: nn.Module, *, half: bool, rate: float) -> None:
        self.model, self.half = model.train(), half
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=True)

    def loss(self, batch: Tensor) -> Tensor:
        """Nats a token; batch: (B, T + 1)."""
        with torch.autocast("cpu", HALF, enabled=self.half):
            found = self.model(batch[:, :-1])
            logits = found if isinstance(found, Tensor) else found.logits
        return F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())

    def step(self, batch: Tensor) -> float:
        """Returns the processor seconds that it took."""
        began = time.process_time()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(batch).backward()
        self.optimizer.step()
        return time.process_time() - began

    @torch.no_grad()
    def held_out(self, batches: list[Tensor]) -> float:
        self.model.eval()
        found = sum(self.loss(batch).item() for batch in batches) / len(batches)
        self.model.train()
        return found


def race(contest: Contest, pairs: int) -> list[dict]:
    """Rows of the table: the reference, and ours in single and in half precision."""
    torch.manual_seed(0)
    size = contest.size
    batch = torch.randint(0, size.vocabulary, (size.batch, size.length + 1))
    runners = {
        "reference": Runner(contest.reference(size), half=False, rate=1e-4),
        "fp32": Runner(contest.make(size), half=False, rate=1e-4),
        "bf16": Runner(contest.make(size), half=True, rate=1e-4),
    }
    with held():
        for runner in runners.values():  # the first step makes kernels
            runner.step(batch)
        seconds = [{name: runner.step(batch) for name, runner in runners.items()} for _ in range(pairs)]
    return [
        {
            "model": contest.title,
            "reference": contest.other,
            "precision": name,
            "tokens_per_second": size.tokens / statistics.median(found[name] for found in seconds),
            "ratio": statistics.median(found["reference"] / found[name] for found in seconds),
        }
        for name in runners
    ]


def characters() -> tuple[Tensor, Tensor, int]:
    """The bundled tunes as one string of characters: what is trained on, what is held out, the last tenth."""
    text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(DATA.rglob("*.abc")))
    known = sorted(set(text))
    numbers = {character: number for number, character in enumerate(known)}
    steps = torch.tensor([numbers[character] for character in text])
    cut = len(steps) * 9 // 10
    return steps[:cut], steps[cut:], len(known)


def learn(contest: Contest, steps: int, quick: bool) -> list[dict]:
    """Held-out loss after the same number of steps on the same batches."""
    train, held_out, vocabulary = characters()
    recurrent = contest.size.heads == 1
    small = Size(16, 1, 1, 2, 16, vocabulary) if quick else Size(128, 2, 4, 8, 128, vocabulary)
    size = small if not recurrent else Size(small.dim, 2, 1, small.batch, small.length, vocabulary)
    places = len(held_out) // (size.length + 1)
    rows = held_out[: places * (size.length + 1)].view(places, -1)
    unseen = list(rows[: len(rows) // size.batch * size.batch].split(size.batch))[: 1 if quick else 16]
    found = []
    for name, make, half in (
        ("reference", contest.reference, False),
        ("fp32", contest.make, False),
        ("bf16", contest.make, True),
    ):
        torch.manual_seed(1)
        runner = Runner(make(size), half=half, rate=1e-3)
        drawn = torch.Generator().manual_seed(2)
        for _ in range(steps):
            begins = torch.randint(0, len(train) - size.length - 1, (size.batch,), generator=drawn)
            runner.step(torch.stack([train[begin : begin + size.length + 1] for begin in begins]))
        found.append({"precision": name, "held_out": runner.held_out(unseen)})
    return found


def has_half() -> float:
    """How many times faster this processor multiplies matrices in bf16 than in fp32."""
    single = torch.randn(512, 512)
    half = single.to(HALF)
    ratios = []
    for _ in range(9):
        times = []
        for matrix in (single, half):
            began = time.process_time()
            for _ in range(4):
                matrix @ matrix
            times.append(time.process_time() - began)
        ratios.append(times[0] / max(times[1], 1e-9))
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="everything in small, to see that it runs")
    parser.add_argument("--pairs", type=int, default=7, help="how many pairs of steps the medians are of")
    parser.add_argument("--steps", type=int, default=300, help="steps of training before losses are compared")
    parser.add_argument("--json", type=Path, help="write the figures down too")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    pairs, steps = (2, 3) if options.quick else (options.pairs, options.steps)
    faster = has_half()
    print(
        f"One core; bf16 products run at {faster:.1f} times the speed of fp32 ones here; PyTorch {torch.__version__}.\n"
    )
    print("| model | beside | its tokens/s | ours, fp32 | ours, bf16 | held out: its | fp32 | bf16 |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    figures = []
    learnt: dict[str, list[dict]] = {}
    for contest in contests(options.quick):
        rows = race(contest, pairs)
        kind = contest.title.split()[0]
        if kind not in learnt:
            learnt[kind] = learn(contest, steps, options.quick)
        for row, loss in zip(rows, learnt[kind], strict=True):
            figures.append({**row, **loss, "size": asdict(contest.size)})
        losses = " | ".join(f"{loss['held_out']:.3f}" for loss in learnt[kind])
        speeds = " | ".join(f"{row['ratio']:.2f} x" for row in rows[1:])
        print(
            f"| {contest.title} | {contest.other} | {rows[0]['tokens_per_second']:,.0f} | {speeds} | {losses} |",
            flush=True,
        )
    print(f"\nHeld out: nats a character after {steps} steps at a small size, on unseen parts of the bundled tunes.")
    if options.json:
        options.json.write_text(json.dumps({"half_over_single": faster, "rows": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
