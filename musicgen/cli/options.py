"""The options that several commands share, by their names and help; and the configuration they choose."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from musicgen.config import RunConfig


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


WHERE = "a folder of scores (.mid .abc .musicxml .mxl .krn), one file, or music21:NAME for a part of music21's corpus"
FolderArgument = Annotated[str, typer.Argument(metavar="FOLDER", help=WHERE)]
FoldersArgument = Annotated[
    list[str],
    typer.Argument(metavar="FOLDER...", help=f"{WHERE}; a corpus made by `prepare`; or several of these"),
]
CheckpointArgument = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="a folder that `musicgen train` made")]
ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="a YAML file, as in configs/")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="NAME=VALUE", help="change one value: model.dim=256")
]
DeviceOption = Annotated[Device, typer.Option(help="where to compute")]
SeedOption = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="the same seed gives the same files")]
JsonOption = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
TemperatureOption = Annotated[
    float, typer.Option(min=0, max=10, help="below 1 safer, above 1 bolder, 0: the likeliest")
]
TopKOption = Annotated[int, typer.Option("--top-k", min=0, help="draw among this many likeliest values; 0: all")]
TopPOption = Annotated[
    float, typer.Option("--top-p", min=0.01, max=1, help="draw among the likeliest of this probability")
]
RemindersOption = Annotated[
    int,
    typer.Option(
        "--reminders",
        min=0,
        metavar="TIMES",
        help="a model that recalls is reminded of what came next until it has come so often; more leads round in "
        "circles, 0: always",
    ),
]
ExactOption = Annotated[
    bool, typer.Option("--exact", help="draw in 32 bits, also where onnxruntime would do it faster in 8")
]
WavOption = Annotated[bool, typer.Option("--wav", help="play what is written into a .wav beside it")]
Mp3Option = Annotated[bool, typer.Option("--mp3", help="play it into an .mp3 beside it")]
SvgOption = Annotated[bool, typer.Option("--svg", help="engrave it beside it: a file a page")]
PdfOption = Annotated[bool, typer.Option("--pdf", help="engrave it as a .pdf beside it")]
PngOption = Annotated[bool, typer.Option("--png", help="engrave it as pictures beside it")]
HtmlOption = Annotated[
    bool, typer.Option("--html", help="make one page beside it to hear, see and download all of it; needs no network")
]
OpenOption = Annotated[bool, typer.Option("--open", help="make that page, and open it in the browser")]
SoundfontOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="the SoundFont that plays it, .sf2; left out, $MUSICGEN_SOUNDFONT, the system's, or pretty_midi's",
    ),
]
MinPOption = Annotated[float, typer.Option("--min-p", min=0, max=0.99, help="drop values below this share of the best")]


def chosen_config(path: Path | None, changes: list[str] | None) -> RunConfig:
    from musicgen.config import load_config

    return load_config(path, changes or ())


def kinds_chosen(**asked: bool) -> list[str]:
    """The names that were asked for."""
    return [kind for kind, wanted in asked.items() if wanted]


def kinds_named(words: str) -> list[str]:
    """ "wav, mp3" as a list of kinds."""
    return [word.strip() for word in words.split(",") if word.strip()]
