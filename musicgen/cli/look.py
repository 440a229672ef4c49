"""convert, tokens and render: one score in another form."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from musicgen.cli.options import ConfigOption, JsonOption, SetOption, SoundfontOption, chosen_config, kinds_named
from musicgen.terminal import kinds_bar, printable


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="a score: .mid .abc .musicxml .xml .mxl .krn")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="the file to write: .mid .abc .musicxml .mxl")],
    as_written: Annotated[
        bool, typer.Option("--as-written", help="keep repeat signs, endings and jumps, and do not play them out")
    ] = False,
) -> None:
    """Convert between formats, by suffix; a file of several tunes becomes several files. Repeats are played out."""
    from musicgen import workflows

    report = workflows.convert(source, target, as_written=as_written)
    for path in report.files:
        print(path)
    for reason in report.skipped:
        print(f"musicgen: not converted: {printable(reason)}", file=sys.stderr)
    if report.skipped:
        raise typer.Exit(2)


def tokens(
    score: Annotated[Path, typer.Argument(metavar="SCORE", help="a score: .mid .abc .musicxml .mxl .krn")],
    tokenizer: Annotated[
        str | None, typer.Option(metavar="NAME", help="abc, bars, grid or performance; left out, the configuration's")
    ] = None,
    config: ConfigOption = None,
    changes: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a score as the tokens a model would read, in words, bar by bar."""
    from dataclasses import asdict

    from musicgen import workflows

    named = [f"tokenizer.name={tokenizer}"] if tokenizer else []
    pieces, skipped = workflows.tokens(score, chosen_config(config, [*named, *(changes or [])]))
    for reason in skipped:
        print(f"musicgen: left out: {printable(reason)}", file=sys.stderr)
    if as_json:
        found = [{**asdict(p), "steps": p.steps.tolist(), "bars": p.bars.tolist()} for p in pieces]
        print(json.dumps(found, ensure_ascii=False))
    for piece in [] if as_json else pieces:
        print(
            f"{printable(piece.title)}: {len(piece.steps):,} steps of {', '.join(piece.fields)}; {piece.notes:,} notes"
        )
        bar = None
        for number, words in zip(piece.bars.tolist(), piece.words, strict=True):
            if number != bar:
                print(f"bar {number}" if number else "before the first bar")
                bar = number
            print(f"  {words}")
    if skipped:
        raise typer.Exit(2)


def render(
    score: Annotated[Path, typer.Argument(metavar="SCORE", help="a score: .mid .abc .musicxml .mxl .krn")],
    to: Annotated[
        str,
        typer.Option(
            metavar="KINDS",
            help="wav, mp3, svg, pdf, png (engraved), roll, html (a page with all), with commas between",
        ),
    ],
    out: Annotated[  # text: a path would lose the stroke that ends the name of a folder
        str | None,
        typer.Option(metavar="PATH", help="a folder, or a name without suffix; left out, beside the score"),
    ] = None,
    soundfont: SoundfontOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hear and see a score: audio, engraved pages, the piano roll."""
    from musicgen import renditions

    kinds = kinds_named(to)
    with kinds_bar() as bar:
        made = renditions.render(score, kinds, out=out, soundfont=soundfont, on_kind=bar)
    if as_json:
        plain = {"files": [str(path) for path in made.files], "player": made.player, "seconds": made.seconds}
        print(json.dumps(plain, ensure_ascii=False, indent=1))
        return
    for path in made.files:
        print(path)
    if made.player:
        print(f"played by {made.player}", file=sys.stderr)
