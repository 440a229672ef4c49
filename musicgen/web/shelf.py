"""What is there to choose from: pieces of music that are bundled, and checkpoints. Found by looking, nothing is loaded.

Both lie in the folder that the server was started in (./data, ./checkpoints), or beside the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from musicgen.errors import ConfigError

BESIDE = Path(__file__).resolve().parents[2]
WEIGHTS = "best.safetensors"
"""checkpoint.BEST; that module would bring PyTorch with it, for which the page does not wait."""


@dataclass(frozen=True)
class Piece:
    """A bundled piece to begin with. tune: its number in its file, from 0. bars: so many from the beginning."""

    key: str
    title: str
    about: str
    file: str
    tune: int = 0
    bars: int | None = None


PIECES = (
    Piece(
        "scherzo",
        "Schubert’s unfinished scherzo",
        "orchestra of 13 parts; the nine bars that he scored",
        "schubert-d759/scherzo.musicxml",
    ),
    Piece("hymn", "New Britain", "“Amazing Grace” over a bass; its first 8 bars", "kern/new-britain.krn", bars=9),
    Piece("tune", "Boys of Bluehill", "a hornpipe, one melody; its first 8 bars", "irish/tunes.abc", tune=2, bars=9),
    Piece(
        "song",
        "Wandrers Nachtlied",
        "Schubert, voice and piano; all of it, to be gone on with",
        "songs/schubert-wandrers-nachtlied-d768.mxl",
    ),
    Piece(
        "game", "On the Next Day", "game music with drums, in 3/4; its first 12 bars", "freedoom/d_e1m8.mid", bars=12
    ),
)


def find_pieces() -> dict[str, tuple[Piece, Path]]:
    """The bundled pieces that are there, by key."""
    found = {}
    for piece in PIECES:
        for home in (Path("data"), BESIDE / "data"):
            if piece.key not in found and (home / piece.file).is_file():
                found[piece.key] = piece, home / piece.file
    return found


@dataclass(frozen=True)
class Model:
    """A checkpoint that can be chosen, and what it is in a few words."""

    name: str
    about: str
    folder: Path


FOR = {
    "abc": "one melody",
    "bars": "any band",
    "grid": "a choir of voices",
    "performance": "one instrument, as played",
}
"""What a model of each tokenizer writes."""


def find_models(chosen: Path | None = None) -> dict[str, Model]:
    """Checkpoints by name: those in the folder `chosen`, or else in ./checkpoints, and those that ship.

    Raises ConfigError for a chosen folder without any.
    """
    if chosen is not None and not _folders(chosen):
        raise ConfigError(f"--checkpoints {chosen}: holds no checkpoint folder; `musicgen train` makes one")
    found: dict[str, Model] = {}
    for home in (chosen or Path("checkpoints"), BESIDE / "checkpoints"):
        for folder in _folders(home):
            found.setdefault(folder.name, Model(folder.name, _about(folder), folder))
    return found


def _folders(home: Path) -> list[Path]:
    """A checkpoint itself, or those in a folder."""
    home = home.resolve()
    return [home] if (home / WEIGHTS).is_file() else sorted(path.parent for path in home.glob(f"*/{WEIGHTS}"))


def _about(folder: Path) -> str:
    import yaml

    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        tokenizer, decoder = config["tokenizer"]["name"], config["model"]["decoder"]
        return f"{FOR.get(tokenizer, tokenizer)}; {decoder}"
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError):
        return "damaged"  # whoever chooses it is told more
