"""serve: the local page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def serve(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="where it listens, on this machine only; 0: any")] = 8000,
    checkpoints: Annotated[
        Path | None, typer.Option(help="a folder of checkpoints to choose from; left out, ./checkpoints")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="a folder that results are copied to; left out, nothing stays after it stops")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
) -> None:
    """A page on this machine: drop a score, finish it, listen, look, download."""
    from musicgen.web.server import serve as run

    def ready(address: str) -> None:
        print(address, flush=True)
        kept = f"results are kept in {keep}" if keep else "nothing is kept"
        print(f"Ctrl-C stops it; {kept}", file=sys.stderr)
        if open_page:
            import webbrowser

            webbrowser.open(address)

    run(port=port, keep=keep, checkpoints=checkpoints, on_ready=ready)
