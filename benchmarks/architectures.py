"""rnn, lstm and transformer of one size on the same music: loss against unigram entropy, and are samples valid?

    python benchmarks/architectures.py irish music.abc --out out/irish
    python benchmarks/architectures.py chorales music21:bach --out out/chorales
    python benchmarks/architectures.py orchestra folder-of-midi --out out/orchestra

Trains configs/NAME-{rnn,lstm,transformer}.yaml on the music (a checkpoint that is there already is used as it is),
draws 100 pieces of 16 bars from each, reads every one with music21, mido and pretty_midi, and prints a Markdown table.
Losses are nats a note, or nats a character where the model writes ABC; validation is on whole pieces held out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as musicgen.cli does: waiting threads do not spin for long

import mido
import music21
import numpy as np
import pretty_midi

from musicgen import workflows
from musicgen.checkpoint import load_checkpoint
from musicgen.config import load_config
from musicgen.corpus import compile_corpus, find_source, split_pieces
from musicgen.errors import MusicgenError
from musicgen.formats import read_score
from musicgen.sampling import SamplingConfig
from musicgen.training.evaluate import evaluate, unigram

ARCHITECTURES = ("rnn", "lstm", "transformer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("irish", "chorales", "orchestra"))
    parser.add_argument("music", help="a folder, a file, or music21:NAME")
    parser.add_argument("--out", type=Path, required=True, help="checkpoints go to OUT-rnn, OUT-lstm, OUT-transformer")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--samples", type=int, default=100)
    options = parser.parse_args()
    configs = Path(__file__).resolve().parents[1] / "configs"
    unit = "character" if options.name == "irish" else "note"
    print(f"| {options.name} | parameters | unigram | train | validation | minutes | valid samples |")
    print("|---|---|---|---|---|---|---|")
    for architecture in ARCHITECTURES:
        folder = Path(f"{options.out}-{architecture}")
        if not (folder / "best.safetensors").exists():
            run = load_config(configs / f"{options.name}-{architecture}.yaml", options.changes)
            workflows.train(options.music, run, folder)
        loaded = load_checkpoint(folder)
        corpus = compile_corpus(find_source(options.music), loaded.tokenizer)
        train, valid = split_pieces(corpus.pieces, loaded.config.training.valid_share)
        some = train[:: max(1, len(train) // max(len(valid), 1))][: len(valid)]
        found = [
            unigram(corpus, train, valid),
            evaluate(loaded.model, corpus, some),
            evaluate(loaded.model, corpus, valid),
        ]
        losses = [f.per_character if unit == "character" else f.per_note for f in found]
        seconds = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["seconds"]
        readable = sample_and_read(folder, options.samples)
        print(
            f"| {architecture} | {loaded.model.parameter_count / 1e6:.2f} M | "
            + " | ".join(f"{loss:.3f}" for loss in losses)
            + f" | {seconds / 60:.1f} | {readable} of {options.samples} |",
            flush=True,
        )
    print(f"\nnats a {unit}; {len(train)} pieces to learn from, {len(valid)} held out")


def sample_and_read(folder: Path, count: int) -> int:
    """How many of `count` samples music21, mido and pretty_midi all read, with the same notes as this program."""
    good = 0
    written = workflows.sample_pieces(
        folder, folder / "samples", count=count, bars=16, seed=1, config=SamplingConfig(top_p=0.98)
    )
    for piece in written:
        try:
            good += piece.bars == 16 and agree(piece.files[0])
        except (MusicgenError, OSError, ValueError, music21.exceptions21.Music21Exception) as error:
            print(f"{piece.files[0]}: {error}", file=sys.stderr)
    return good


def agree(path: Path) -> bool:
    """Our reader, mido and pretty_midi find the same pitches, and music21 finds notes too."""
    own = read_score(path)
    pitches = sorted(np.concatenate([part.notes["pitch"] for part in own.parts]).tolist())
    by_mido = sorted(
        m.note for track in mido.MidiFile(path).tracks for m in track if m.type == "note_on" and m.velocity > 0
    )
    by_pretty = sorted(n.pitch for i in pretty_midi.PrettyMIDI(str(path)).instruments for n in i.notes)
    parsed = music21.converter.parse(str(path))
    struck = [n for n in parsed.recurse().notes if n.tie is None or n.tie.type == "start"]
    by_music21 = sum(len(n.pitches) or 1 for n in struck)
    return by_music21 > 0 and pitches == by_mido == by_pretty


if __name__ == "__main__":
    main()
