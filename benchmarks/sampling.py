"""Speed of drawing music, beside what one would take instead; what the grammar costs; and whether long pieces slow it.

    python benchmarks/sampling.py --json out/sampling.json
    python benchmarks/sampling.py --long D759_mvt1.mid --checkpoint checkpoints/orchestra

One core. Transformers of 6 layers of 256 with a memory of 512: steps a second of our sampler, its cursor and
coordinates included, over tokens a second of Hugging Face's `generate` with its cache, for GPT-2 of the same size with
as large a vocabulary, both sampling at temperature 1. LSTMs of 2 layers of 512: over a plain loop of embedding,
`nn.LSTM`, linear layer and `torch.multinomial`. Both sides count processor time, each in a process of its own (how fast
nn.LSTM is depends on what the allocator of its process has learnt), after a first run each for what is prepared once.
Pairs are interleaved, and the median ratio counts. *Grammar* is the share of a step that goes to masks and coordinates.

--long finishes a score by 300 bars, and says the seconds a bar of the first and the last hundred, and the peak of
memory after each.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from musicgen.checkpoint import build_model, load_checkpoint
from musicgen.config import check_config
from musicgen.decoders.quick import installed
from musicgen.formats import read_score
from musicgen.sampling import SamplingConfig, finish, sample
from musicgen.score import unfold
from musicgen.tokens import TOKENIZERS

TOKENIZER = "abc"
"""One field a step, as theirs have one token."""
HAS_TRANSFORMERS = importlib.util.find_spec("transformers") is not None


class Timed:
    """A cursor whose own time is counted."""

    spent = 0.0

    def __init__(self, cursor: object) -> None:
        object.__setattr__(self, "inner", cursor)

    def __getattr__(self, name: str) -> object:
        value = getattr(self.inner, name)  # type: ignore[attr-defined]
        if name not in ("allowed", "advance", "coordinates"):
            return value

        def counted(*arguments: object) -> object:
            began = time.process_time()
            try:
                return value(*arguments)
            finally:
                Timed.spent += time.process_time() - began

        return counted

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.inner, name, value)  # type: ignore[attr-defined]


def ours(decoder: str, dim: int, layers: int, streams: int, steps: int) -> Callable[[], tuple[float, float]]:
    """A run of our sampler: (steps a second of all streams, share of the grammar)."""
    values = {
        "tokenizer": {"name": TOKENIZER},
        "model": {"decoder": decoder, "dim": dim, "layers": layers, "heads": 8, "memory": 512, "dropout": 0.0},
    }
    config = check_config(values, "benchmark")
    tokenizer = config.tokenizer.build()
    torch.manual_seed(0)
    model = build_model(config, tokenizer).eval()
    start = np.array([tokenizer.start], dtype=np.int16)

    def run(timed: bool = False) -> tuple[float, float]:
        cursors = [tokenizer.cursor(10_000) for _ in range(streams)]
        stop = Stop(steps * streams)
        for cursor in cursors:
            stop.watch(cursor)
        watched = [Timed(cursor) for cursor in cursors] if timed else cursors
        Timed.spent, began = 0.0, time.process_time()
        with contextlib.suppress(Enough):
            drawing = SamplingConfig()
            sample(model, tokenizer, watched, start, config=drawing, seed=1, most_bars=10_000)  # type: ignore[arg-type]
        seconds = time.process_time() - began
        return steps * streams / seconds, Timed.spent / seconds

    return run


class Enough(Exception):
    """So many steps were drawn."""


class Stop:
    """Ends a run after so many steps of all cursors."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def watch(self, cursor: Any) -> None:
        advance = cursor.advance

        def counted(step: object) -> None:
            self.left -= 1
            if self.left < 0:
                raise Enough
            advance(step)

        cursor.advance = counted


def hugging_face(dim: int, layers: int, streams: int, steps: int) -> Callable[[], float]:
    """Tokens a second of `generate` with its cache."""
    from transformers import GPT2Config, GPT2LMHeadModel

    size = TOKENIZERS[TOKENIZER]().fields[0].size
    config = GPT2Config(vocab_size=size, n_positions=1024, n_embd=dim, n_layer=layers, n_head=8, bos_token_id=0)
    config.eos_token_id = None
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).eval()
    prompt = torch.zeros(streams, 1, dtype=torch.long)
    mask = torch.ones_like(prompt)

    def run() -> float:
        began = time.process_time()
        with torch.inference_mode():
            model.generate(
                prompt, attention_mask=mask, do_sample=True, max_new_tokens=steps, min_new_tokens=steps, top_k=0,
                pad_token_id=0,
            )  # fmt: skip
        return steps * streams / (time.process_time() - began)

    return run


def plain_lstm(dim: int, layers: int, streams: int, steps: int) -> Callable[[], float]:
    """Tokens a second of a loop over nn.LSTM."""
    size = TOKENIZERS[TOKENIZER]().fields[0].size
    torch.manual_seed(0)
    table, lstm, head = nn.Embedding(size, dim), nn.LSTM(dim, dim, layers, batch_first=True), nn.Linear(dim, size)

    def run() -> float:
        began = time.process_time()
        with torch.inference_mode():
            token, state = torch.zeros(streams, 1, dtype=torch.long), None
            for _ in range(steps):
                output, state = lstm(table(token), state)
                token = torch.multinomial(head(output[:, 0]).softmax(-1), 1)
        return steps * streams / (time.process_time() - began)

    return run


class Side:
    """One side of a comparison, in a process of its own."""

    def __init__(self, make: Callable[..., Callable], *sizes: object) -> None:
        self.process = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare)
        self.sizes = make, *sizes
        self()

    def __call__(self, **options: object) -> Any:
        return self.process.submit(_run, *self.sizes, **options).result()


def _prepare() -> None:
    torch.set_num_threads(1)


@functools.cache
def _made(make: Callable[..., Callable], *sizes: object) -> Callable:
    return make(*sizes)


def _run(make: Callable[..., Callable], *sizes: object, **options: object) -> object:
    return _made(make, *sizes)(**options)


def long_piece(score: Path, checkpoint: Path, bars: int) -> dict:
    """Seconds a bar and the peak of memory over a long continuation."""
    loaded = load_checkpoint(checkpoint)
    fragment = unfold(read_score(score))
    marks: list[tuple[float, float]] = []
    began = time.perf_counter()

    def progress(bar: int) -> None:
        marks.append((time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))

    finish(
        fragment,
        loaded.model,
        loaded.tokenizer,
        bars=bars,
        config=SamplingConfig(top_p=0.95),
        seen_parts=loaded.corpus["seen"].get("part"),
        progress=progress,
    )
    third = len(marks) // 3
    return {
        "bars read": len(fragment.bars),
        "notes read": fragment.note_count,
        "seconds before the first new bar": marks[0][0] - began,
        "seconds a bar, first third": (marks[third][0] - marks[0][0]) / third,
        "seconds a bar, last third": (marks[-1][0] - marks[-third - 1][0]) / third,
        "MiB at the first new bar": marks[0][1],
        "MiB at the last": marks[-1][1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400, help="drawn in each run, of each stream")
    parser.add_argument("--long", type=Path, metavar="SCORE", help="finish this instead, and see whether it slows")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/orchestra"))
    parser.add_argument("--bars", type=int, default=300)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.long:
        found = long_piece(given.long, given.checkpoint, given.bars)
        for name, value in found.items():
            print(f"{name:34} {value:,.3f}" if isinstance(value, float) else f"{name:34} {value:,}")
        if given.json:
            given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    cases: list[tuple] = [("lstm", 512, 2, 1, "nn.LSTM in a loop", plain_lstm)]
    if HAS_TRANSFORMERS:
        cases += [("transformer", 256, 6, streams, "GPT-2, generate", hugging_face) for streams in (1, 16)]
    else:
        print("left out: Hugging Face's transformers is not installed", file=sys.stderr)
    if not installed():
        print("without onnx and onnxruntime (the extra `fast`): by exact steps", file=sys.stderr)
    rows = []
    print("| ours | beside | streams | steps/s | theirs | ratio | grammar |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for decoder, dim, layers, streams, other, make in cases:
        name = f"{decoder}, {layers} x {dim}"
        mine = Side(ours, decoder, dim, layers, streams, given.steps)
        theirs = Side(make, dim, layers, streams, given.steps)
        pairs = [(mine(), theirs()) for _ in range(given.pairs)]
        ratio = statistics.median(own[0] / their for own, their in pairs)
        speeds = statistics.median(own[0] for own, _ in pairs), statistics.median(their for _, their in pairs)
        share = statistics.median(mine(timed=True)[1] for _ in range(given.pairs))
        rows.append({"ours": name, "beside": other, "streams": streams, "ratio": ratio, "grammar": share})
        print(
            f"| {name} | {other} | {streams} | {speeds[0]:,.0f} | {speeds[1]:,.0f} | {ratio:.2f} | {share:.0%} |",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
