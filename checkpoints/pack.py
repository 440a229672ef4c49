"""Make a checkpoint that ships from a finished run: `make checkpoints` calls it after training.

    python checkpoints/pack.py out/checkpoints/orchestra checkpoints/orchestra data/orchestra --music "..., CC0 1.0"

What ships is the best weights in 16 bits, the texts, the melodies by which copying is told, and a card. The packed
weights are evaluated on the run's own validation pieces, and the difference to 32 bits is said.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch

from musicgen.checkpoint import BEST, MELODIES, load_checkpoint, read_tensors, write_tensors, write_text
from musicgen.corpus import load_corpus
from musicgen.training.evaluate import Evaluation, evaluate

MOST_BYTES = 12_000_000
TEXTS = ("config.yaml", "vocabulary.json", "corpus.json", MELODIES)

CARD = """# {name}

{parameters:,} parameters ({decoder}, steps of the `{tokenizer}` tokenizer), {megabytes:.1f} MB: weights in 16 bits.

| | |
|---|---|
| learnt from | {music}: {pieces} pieces; {held_out} held out |
| command | `musicgen train {where} --config checkpoints/{name}.yaml --out out/checkpoints/{name}` |
| trained | {minutes:.0f} minutes of wall-clock, {steps:,} updates; the best weights are of update {best:,} |
| held out | {loss:.3f} nats a note, not told the length; in 32 bits {exact:.3f} |

The configuration is `config.yaml`, the pieces `corpus.json`. `make checkpoints` trains it again.
"""


def measured(folder: Path, where: list[str]) -> Evaluation:
    """The loss on the pieces that the run held out."""
    loaded = load_checkpoint(folder)
    corpus = load_corpus(where, loaded.tokenizer)
    held_out = {piece["fingerprint"] for piece in loaded.corpus["valid"]}
    return evaluate(loaded.model, corpus, [piece for piece in corpus.pieces if piece.fingerprint in held_out])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="the folder that `musicgen train` made")
    parser.add_argument("target", type=Path, help="the folder to ship")
    parser.add_argument("where", nargs="+", help="the music that it was trained on")
    parser.add_argument("--music", required=True, help="what that is, and under which licence")
    given = parser.parse_args()
    loaded = load_checkpoint(given.run)
    staging = given.target.with_name(f"{given.target.name}.part")  # what ships now stays until all is checked
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for name in TEXTS:
        shutil.copyfile(given.run / name, staging / name)
    tensors, facts = read_tensors(given.run / BEST)
    last = json.loads((given.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    write_tensors(staging / BEST, {name: t.to(torch.float16) for name, t in tensors.items()}, facts)
    exact, packed = measured(given.run, given.where), measured(staging, given.where)
    card = CARD.format(
        name=given.target.name,
        parameters=loaded.model.parameter_count,
        decoder=loaded.config.model.decoder,
        tokenizer=loaded.tokenizer.name,
        megabytes=sum((staging / name).stat().st_size for name in (BEST, *TEXTS)) / 1e6,
        music=given.music,
        pieces=len(loaded.corpus["train"]),
        held_out=len(loaded.corpus["valid"]),
        where=" ".join(given.where),
        minutes=last["seconds"] / 60,
        steps=last["step"],
        best=facts["step"],
        loss=packed.per_note,
        exact=exact.per_note,
    )
    write_text(staging / "README.md", card)
    size = sum(path.stat().st_size for path in staging.iterdir())
    if size > MOST_BYTES:
        print(f"{given.target}: {size:,} bytes, more than the {MOST_BYTES:,} that may ship", file=sys.stderr)
        raise SystemExit(1)
    for path in staging.iterdir():
        path.chmod(0o644)
    shutil.rmtree(given.target, ignore_errors=True)
    staging.rename(given.target)
    print(card)


if __name__ == "__main__":
    main()
