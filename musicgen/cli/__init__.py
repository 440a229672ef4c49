"""The command line: parse, call one workflow, print.

Progress goes to stderr, results to stdout; a user's error is one line and exit code 2.

Nothing heavy is imported here: `musicgen --help` answers before PyTorch would have loaded.
"""

from __future__ import annotations

import io
import os
import sys
import time
from typing import Annotated

import typer

from musicgen import __version__
from musicgen.cli.learn import check, evaluate, prepare, train
from musicgen.cli.look import convert, render, tokens
from musicgen.cli.page import serve
from musicgen.cli.write import demo, fill, finish, harmonise, sample
from musicgen.errors import MusicgenError
from musicgen.terminal import printable

app = typer.Typer(
    help="Learn music from a folder of scores, and finish the symphony.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

LET_FIRST_SPEAK = 5.0
"""Seconds that torchrun's other processes wait before they print an error: the first may have met it too."""


def _print_version(asked: bool) -> None:
    if asked:
        print(f"musicgen {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="print the version")
    ] = False,
) -> None:
    """Learn music from a folder of scores, and finish the symphony."""


for command in (check, prepare, train, sample, finish, fill, harmonise, render, convert, tokens, evaluate, serve, demo):
    app.command()(command)


def main() -> None:
    """Entry point: user errors become one line and exit code 2."""
    # PyTorch's waiting threads otherwise spin for long, which stalls training beside any busy process: 60 steps
    # of the demo took 240 s and not 9 (LOG.md). A short spin keeps the speed of a quiet machine. Read as torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    try:
        app()
    except MusicgenError as error:
        print(f"musicgen: {_process()}{printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("musicgen: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:  # no permission, no space: the user's to mend, not a fault of the program
        print(f"musicgen: {_process()}{error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)


def _process() -> str:
    """Which of torchrun's processes speaks, where it is not the first.

    What all of them meet, the first says: once it has, torchrun ends the others while they wait here.
    """
    rank = os.environ.get("RANK", "0")
    if rank == "0":
        return ""
    time.sleep(LET_FIRST_SPEAK)
    return f"process {rank}: "
