"""A checkpoint is a folder: weights as safetensors, everything else as text. Nothing in it can run code.

    config.yaml        the whole configuration, defaults filled in
    vocabulary.json    the tokenizer's fields, value by value
    corpus.json        what it was trained on: source, pieces, which values were seen
    best.safetensors   the weights (their moving average) with the lowest validation loss
    last.safetensors   the whole state of the run, from which `--resume` goes on
    metrics.jsonl      one line an evaluation
    melodies.safetensors  the melody lines of what it was trained on, so that copying can be told: 4 MB at most
    tensorboard/       what TensorBoard shows, if `--tensorboard` was given

Each file is written whole, to a temporary name first: a run killed at any moment leaves a checkpoint that loads. What a
killed run loses is what it did since it last saved; a resumed one does it again, to the same weights.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from musicgen.config import RunConfig, check_config, dump_config
from musicgen.decoders.model import Model
from musicgen.errors import CheckpointError
from musicgen.score.lines import Melodies
from musicgen.tokens import HIDDEN, Tokenizer

BEST, LAST, MELODIES = "best.safetensors", "last.safetensors", "melodies.safetensors"
MOST_TURNS = 2_000_000
"""Notes of the training pieces' melody lines that a checkpoint keeps, at 2 bytes each."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained model, ready to use, with what made it."""

    folder: Path
    config: RunConfig
    tokenizer: Tokenizer
    model: Model
    facts: dict
    """Of the weights: step, validation loss."""
    corpus: dict
    """Of the music: source, pieces, the values of each field that occurred in training."""

    def melodies(self) -> Melodies | None:
        """The melody lines of the training pieces, read now; None where the folder keeps none (of earlier versions).

        Raises CheckpointError if the file is damaged.
        """
        path = self.folder / MELODIES
        if not path.exists():
            return None
        tensors, facts = read_tensors(path)
        try:
            high, low = tensors["turns"].numpy().astype(np.uint16).T
            train, ends = self.corpus["train"], tensors["ends"].numpy()
            if ends[-1:].tolist() != [len(high)][: len(ends)] or len(ends) != len(tensors["pieces"]):
                raise ValueError("its pieces do not lie where it says")
            titles = tuple(train[piece]["title"] for piece in tensors["pieces"].tolist())
            return Melodies(high << 8 | low, ends, titles, len(train), bool(facts["rhythm"]))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: damaged ({error!r}); delete it to do without") from error


def build_model(config: RunConfig, tokenizer: Tokenizer) -> Model:
    """A new model of that configuration, with fresh weights drawn from torch's generator."""
    fields, coordinates = [f.size for f in tokenizer.fields], [c.size for c in tokenizer.coordinates]
    return Model(config.model, fields, coordinates, tokenizer.hearing, tokenizer.recall)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_tensors(path: Path, tensors: dict[str, Tensor], facts: dict) -> None:
    """Tensors and plain facts in one safetensors file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    save_file(tensors, str(temporary), metadata={"facts": json.dumps(facts)})
    os.replace(temporary, path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """(tensors, facts) of a file that `write_tensors` wrote. Raises CheckpointError."""
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
        return load_file(str(path)), facts
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: not there; was the training stopped before it first saved?") from error
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({str(error)[:100]})") from error


def write_melodies(folder: Path, melodies: Melodies, pieces: Sequence[int]) -> None:
    """The lines of training pieces as two bytes a note. pieces: (P,) the place in corpus.json's "train" of each."""
    tensors = {
        "turns": torch.from_numpy(np.stack([melodies.known >> 8, melodies.known & 255], axis=1).astype(np.uint8)),
        "ends": torch.from_numpy(melodies.ends.astype(np.int64)),
        "pieces": torch.tensor(pieces, dtype=torch.int64),
    }
    turns = (
        "(N, 2): semitones to the next note + 128, and how much later it begins, in 24ths of a quarter; 0 0: line end"
    )
    facts = {"turns": turns, "rhythm": melodies.rhythm, "pieces": len(pieces), "of": melodies.of, "most": MOST_TURNS}
    write_tensors(folder / MELODIES, tensors, facts)


def begin(folder: Path, config: RunConfig, tokenizer: Tokenizer, corpus: dict) -> None:
    """Write the texts of a new checkpoint folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", dump_config(config))
    vocabulary = {"name": tokenizer.name, "fields": {f.name: list(f.labels) for f in tokenizer.fields}}
    write_text(folder / "vocabulary.json", json.dumps(vocabulary, ensure_ascii=False, indent=0))
    write_text(folder / "corpus.json", json.dumps(corpus, ensure_ascii=False, indent=1))


def load_checkpoint(folder: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """The best weights of a checkpoint folder, in evaluation mode. Raises CheckpointError, saying what is wrong."""
    import yaml

    folder = Path(folder)
    if not folder.is_dir():
        there = Path("checkpoints") / folder.name
        what = f"{there} is there" if there.is_dir() and there != folder else "`musicgen train` makes one"
        raise CheckpointError(f"{folder}: no such checkpoint folder; {what}")
    try:
        values = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        corpus = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: no checkpoint, {Path(error.filename).name} is missing") from error
    except (yaml.YAMLError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder}: damaged ({' '.join(str(error).split())[:100]})") from error
    for name, found, key in (
        ("config.yaml", values, "model"),
        ("vocabulary.json", vocabulary, "fields"),
        ("corpus.json", corpus, "seen"),
    ):
        if not isinstance(found, dict) or not isinstance(found.get(key), dict):
            raise CheckpointError(f"{folder}: damaged ({name} holds no {key!r})")
    config = check_config(values, str(folder / "config.yaml"))
    tokenizer = config.tokenizer.build()
    if vocabulary.get("fields") != {f.name: list(f.labels) for f in tokenizer.fields}:
        raise CheckpointError(
            f"{folder}: its vocabulary is not this version's {tokenizer.name!r} tokenizer; train it again"
        )
    tensors, facts = read_tensors(folder / BEST)
    model = build_model(config, tokenizer)
    try:
        model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: the weights do not fit config.yaml ({str(error).splitlines()[0]})") from error
    _withhold(model, tokenizer, config.training.without_coordinates)
    return Checkpoint(folder, config, tokenizer, model.to(device).eval(), facts, corpus)


@torch.no_grad()
def _withhold(model: Model, tokenizer: Tokenizer, names: Sequence[str]) -> None:
    """Read every value of these coordinates as "not told", as in training: whoever uses the model need not know."""
    for coordinate, table in zip(tokenizer.coordinates, model.embedding.coordinates, strict=True):
        if coordinate.name in names:
            weight = table.get_parameter("weight")
            weight.copy_(weight[HIDDEN].expand_as(weight).clone())
