"""What the options of the loop cost and gain: speed, memory and held-out loss after equal steps, side by side.

    python benchmarks/training.py music21:bach --config configs/chorales-lstm.yaml
    python benchmarks/training.py folder-of-midi --steps 300 --only plain bf16

Each row is the same run but for the option that it names: the same weights to begin with, the same music in the same
order. Seconds are of processor time (of the clock on a GPU), looks left out. *Kept* is what one chunk keeps for the way
back; it is measured at chunks spread over an epoch, and the most and least of them tell whether it depends on the
pieces. *Padding* is the share of computed steps that no loss comes from.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as musicgen.cli does: waiting threads do not spin for long

import torch

from musicgen.checkpoint import build_model
from musicgen.config import RunConfig, load_config
from musicgen.corpus import Corpus, load_corpus, split_pieces, whole_pieces
from musicgen.runs import choose_device
from musicgen.training.loop import Trainer, make_streams
from musicgen.training.measure import choose_precision, kept_bytes

PLAIN = {"precision": "fp32", "average": 0.0, "compile": False}
ROWS: dict[str, dict] = {
    "plain": {},
    "bf16": {"precision": "bf16"},
    "averaged weights": {"average": 0.999},
    "half the chunk, two an update": {"accumulate": 2},
    "compiled": {"compile": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music", nargs="+", help="a folder, a file, or music21:NAME")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write the figures down")
    options = parser.parse_args()
    device = choose_device(options.device)
    config = load_config(options.config, [*options.changes, f"training.steps={options.steps}"])
    corpus = load_corpus(options.music, config.tokenizer.build())
    rows = [measure(name, config, corpus, device) for name in options.only]
    print("| option | nats a note | seconds | notes/s | kept a chunk, MiB |")
    print("|---|---|---|---|---|")
    for row in rows:
        kept = f"{row['kept_least_mib']:.1f} to {row['kept_most_mib']:.1f}"
        print(
            f"| {row['option']} | {row['nats_a_note']:.3f} | {row['seconds']:.0f} | {row['notes_per_second']:,.0f} "
            f"| {kept} |"
        )
    found = {"rows": rows, **laid_out(corpus, config), **probed(corpus, config, device)}
    tried = "" if found["bf16_speed"] is None else f", {found['bf16_speed']:.2f} times as fast with bf16"
    print(
        f"\n{options.steps} steps of {config.model.decoder}, on {device}; pieces of {found['shortest']:,} to "
        f"{found['longest']:,} steps. Padding: {found['padding']:.1%} in training, {found['padding_held_out']:.1%} in "
        f"evaluation.\nThe probe chooses {found['precision']}{tried}."
    )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def measure(name: str, config: RunConfig, corpus: Corpus, device: torch.device) -> dict:
    """One run with one option."""
    changes = {**PLAIN, **ROWS[name], "evaluate_every": config.training.steps, "patience": 10**6}
    if "accumulate" in ROWS[name]:
        changes["chunk"] = config.training.chunk // 2
    training = config.training.model_copy(update=changes)
    train, valid = split_pieces(corpus.pieces, training.valid_share)
    torch.manual_seed(training.seed)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    trainer = Trainer(build_model(config, corpus.tokenizer), corpus, train, valid, training, device, clock=clock)
    reports = list(trainer.run())
    warm = reports[min(5, len(reports) - 1) :]
    streams = make_streams(corpus, train, training, config.model.recall)
    epoch = sum(piece.length for piece in train) // (training.streams * training.chunk) + 1
    kept = []
    for at in range(epoch):
        batch = next(streams)
        if at % max(epoch // 8, 1) == 0:
            kept.append(kept_bytes(trainer.chunk_loss, batch, device) / 2**20)
    last = reports[-1].evaluation
    return {
        "option": name,
        "nats_a_note": last.per_note if last else reports[-1].nats_per_note,
        "seconds": sum(report.seconds for report in reports),
        "notes_per_second": sum(report.notes for report in warm) / sum(report.seconds for report in warm),
        "kept_least_mib": min(kept),
        "kept_most_mib": max(kept),
    }


def laid_out(corpus: Corpus, config: RunConfig) -> dict:
    """How long pieces are, and what share of the steps that are computed is padding."""
    train, valid = split_pieces(corpus.pieces, config.training.valid_share)
    streams = make_streams(corpus, train, config.training)
    epoch = sum(piece.length for piece in train) // (streams.streams * streams.chunk) + 1
    batches = [next(streams).valid for _ in range(epoch)]
    held_out = [batch.valid for batch in whole_pieces(corpus, valid, streams=16, chunk=256)]

    def padding(valid: list) -> float:
        return 1 - sum(int(v.sum()) for v in valid) / max(sum(v.size for v in valid), 1)

    lengths = [piece.length for piece in corpus.pieces]
    return {
        "shortest": min(lengths),
        "longest": max(lengths),
        "padding": padding(batches),
        "padding_held_out": padding(held_out) if held_out else 0.0,
    }


def probed(corpus: Corpus, config: RunConfig, device: torch.device) -> dict:
    train, _ = split_pieces(corpus.pieces, config.training.valid_share)
    model = build_model(config, corpus.tokenizer).to(device).train()
    chosen, ratio = choose_precision(
        model, next(make_streams(corpus, train, config.training, config.model.recall)), device
    )
    return {"precision": chosen, "bf16_speed": ratio}


if __name__ == "__main__":
    main()
