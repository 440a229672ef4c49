"""What is done on the bench: reading a score, finishing it, writing new pieces. Each calls the workflow that the
command line calls, in the folder it is given, and tells how far it is.

Out go plain values that JSON can hold. All heavy imports are inside; `warm_up` brings them ahead of the first task.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from musicgen.errors import CheckpointError, FormatError, MusicgenError
from musicgen.web.shelf import Piece

if TYPE_CHECKING:
    from musicgen.finishing import FinishReport

Tell = Callable[..., None]
"""tell(stage, count=0, total=None): so many bars of all, or takes of all, are done in this stage."""

READING, COMPOSING, RENDERING = "reading", "composing", "playing and engraving"
MOST_BARS, MOST_TAKES = 512, 8


class Asked(BaseModel):
    """What both kinds of job are told. The bounds keep a job to minutes, the seed to what JavaScript can count."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: Annotated[str, Field(max_length=200)] | None = None
    """By name; None: the one that suits."""
    bars: Annotated[int, Field(ge=1, le=MOST_BARS)] | None = None
    """None: it ends by itself."""
    takes: int = Field(1, ge=1, le=MOST_TAKES)
    temperature: float = Field(1.0, ge=0, le=3, allow_inf_nan=False)
    seed: int = Field(0, ge=0, le=2**53 - 1)


class FinishAsked(Asked):
    score: str = Field(max_length=100)
    """As the answer to an upload names it."""


def warm_up() -> None:
    """Load what jobs need: PyTorch, music21, the workflows, the renderers."""
    import music21  # noqa: F401

    from musicgen import renditions, workflows  # noqa: F401


# -------------------------------------------------------------------------------------------------------------- reading


def read(tell: Tell, source: Path) -> dict[str, Any]:
    """What was understood of a score: the facts, the same in words, and the checkpoint that suits, if one ships.

    Raises FormatError or FinishError.
    """
    from musicgen import given
    from musicgen.render.page import name_alone
    from musicgen.sampling.understanding import in_lines, understand
    from musicgen.score import unfold

    written = given.one_tune(source)
    found = understand(unfold(written))
    words = [line.partition(" ") for line in in_lines(found) if not line.startswith(" ")]
    parts = list(asdict(found)["parts"])
    if len(parts) == 1 and name_alone(written.parts[0]) == "One melody":
        parts[0].update(name="One melody", instrument="")
    suits = None
    with suppress(CheckpointError):
        suits = given.checkpoint_for(written).name
    return {
        **asdict(found),
        "parts": parts,
        "words": [(name, value.strip()) for name, _, value in words],
        "suits": suits,
    }


def lay_out(tell: Tell, piece: Piece, source: Path, folder: Path) -> Path:
    """A copy of a bundled piece in `folder`; of a file of many tunes the one, of a long piece its beginning."""
    target = folder / source.name
    if piece.bars is None:
        target.write_bytes(source.read_bytes())
        return target
    from musicgen.formats import WRITERS, read_scores, write_score
    from musicgen.score import bars_between

    score = read_scores(source)[piece.tune]
    target = folder / f"{piece.key}{source.suffix if source.suffix in WRITERS else '.musicxml'}"
    write_score(bars_between(score, 0, piece.bars), target)
    return target


# ------------------------------------------------------------------------------------------------------------ composing


def finish(tell: Tell, asked: FinishAsked, source: Path, checkpoint: Path | None) -> dict[str, Any]:
    """Finish the score `source`, in its own folder; out go names of what lies there then. Raises MusicgenError."""
    from musicgen import renditions, workflows
    from musicgen.formats import WRITERS
    from musicgen.sampling import SamplingConfig

    tell(READING)

    def write(suffix: str) -> FinishReport:
        return workflows.finish_score(
            source,
            checkpoint,
            source.with_name(f"{source.stem}-finished{suffix}"),
            bars=asked.bars,
            takes=asked.takes,
            seed=asked.seed,
            config=SamplingConfig(temperature=asked.temperature, top_p=0.95),
            progress=_bars_told(tell, asked),
        )

    kind = WRITERS.get(source.suffix.lower())
    try:
        report = write(".musicxml" if kind is None else source.suffix.lower())
    except FormatError:
        if kind is None:
            raise
        # some can't be gone on with in their own file, which is found out before a note is composed
        report = write(".musicxml" if kind == "midi" else ".mid")
    takes = []
    pieces = renditions.finished_pieces(report)
    for number, (path, piece) in enumerate(zip(report.files, pieces, strict=True), start=1):
        title = f"Take {number}" if len(report.takes) > 1 else "Files"
        others = renditions.also_written(piece, path.parent)
        takes.append({"title": title, "files": [path.name, *(other.name for other in others)]})
    make, page = partial(renditions.finish_page, report), report.files[0].with_suffix(".html")
    return {"takes": takes, "report": report.page.name, **_write_page(tell, page, make, asked.takes)}


def sample(tell: Tell, asked: Asked, folder: Path, checkpoint: Path | None) -> dict[str, Any]:
    """Write new pieces into the folder; out go names of what lies there then. Raises MusicgenError."""
    from musicgen import renditions, workflows
    from musicgen.sampling import SamplingConfig

    tell(READING)
    written = workflows.sample_pieces(
        checkpoint,
        folder,
        count=asked.takes,
        bars=asked.bars,
        seed=asked.seed,
        config=SamplingConfig(temperature=asked.temperature, top_p=0.98),
        progress=_bars_told(tell, asked, before=0),
    )
    pieces = []
    for number, piece in enumerate(written, start=1):
        title = f"Piece {number}" if len(written) > 1 else "Files"
        pieces.append({"title": title, "files": [file.name for file in piece.files]})
    make, page = partial(renditions.sample_page, written), folder / "new-pieces.html"
    return {"takes": pieces, "report": None, **_write_page(tell, page, make, asked.takes)}


def _bars_told(tell: Tell, asked: Asked, before: int | None = None) -> Callable[[int], None]:
    """The callback of a workflow, which counts the bars of all takes together, those that were given included.

    before: how many those are; None: as many as it says first.
    """
    total = asked.bars * asked.takes if asked.bars is not None else None

    def told(bars: int) -> None:
        nonlocal before
        if before is None:
            before = bars
        composed = bars - before
        tell(COMPOSING, composed if total is None else min(composed, total), total)

    return told


def _write_page(tell: Tell, path: Path, make: Callable[..., str], takes: int) -> dict[str, str | None]:
    """Make the page of a result, and say its name; or why it can't be made: the files are there even so."""
    from musicgen.renditions import write_page

    begun = 0

    def progress(what: str) -> None:
        nonlocal begun
        tell(RENDERING, begun, takes)
        begun += 1

    tell(RENDERING, 0, takes)
    try:
        write_page(make(progress=progress), path)
    except MusicgenError as error:
        return {"page": None, "no_page": str(error)}
    return {"page": path.name, "no_page": None}
