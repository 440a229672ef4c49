"""Verovio in a process of its own: what it is given comes from anybody's file, and it can crash or run on for ever.

In come MusicXML and verovio's options, out come its pages of SVG and its timemap. Of 300 files damaged at random, it
ended its process over 13 (divisions by zero, bad memory, memory without bound) and was not done with one after minutes;
here all that becomes a RenderError. Starting the process takes a twentieth of a second.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from musicgen.errors import RenderError

ROOT = Path(__file__).resolve().parents[2]
"""What the package lies in, for where it is run without being installed."""

SECONDS = 300
"""Longer than the largest symphonic movement takes by far (700 bars of 19 parts: 9 s)."""
MEMORY_BYTES = 4 * 2**30
"""Address space of the process, where the system can bound it; the largest movement takes an eighth."""


def run_verovio(text: str, options: dict[str, Any], name: str) -> tuple[list[str], list[dict]]:
    """(a page of SVG each, the timemap: dicts with "qstamp", and "on", "off", "measureOn" where something begins).

    name: of the score, for errors. Raises RenderError.
    """
    asked = json.dumps({"text": text, "options": options}).encode()
    # -P, and the root at the end: a verovio.py in the folder where one stands is not the one meant
    program = f"import sys; sys.path.append({str(ROOT)!r}); import {__name__} as m; m.main()"
    command = [sys.executable, "-P", "-c", program]
    try:
        done = subprocess.run(command, input=asked, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise RenderError(f"{name}: not engraved after {SECONDS} seconds; cut it in pieces") from None
    except OSError as error:
        raise RenderError(f"{name}: Python can't be started to engrave it ({error})") from error
    if done.returncode == 0:
        made = json.loads(done.stdout)
        return made["pages"], made["timemap"]
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    if done.returncode == 1 and said:
        raise RenderError(f"{name}: {said[-1]}")
    raise RenderError(f"{name}: verovio broke down over it; open it in a notation program and export it again")


def main() -> None:
    """Answer what stands on standard input, on standard output; a reason on standard error where it can't be done."""
    _bound_memory()
    try:
        import verovio
    except ImportError as error:
        sys.exit(f"verovio can't be loaded ({error}); install it: pip install verovio")
    asked = json.loads(sys.stdin.buffer.read())
    verovio.enableLog(verovio.LOG_OFF)
    toolkit = verovio.toolkit()
    if not toolkit.setOptions(asked["options"]):
        sys.exit("verovio does not know an option that is needed; install a newer one")
    if not toolkit.loadData(asked["text"]) or not toolkit.getPageCount():
        sys.exit("verovio finds no music in it; export it again")
    pages = [toolkit.renderToSVG(number) for number in range(1, toolkit.getPageCount() + 1)]
    timemap = toolkit.renderToTimemap({"includeMeasures": True})
    sys.stdout.buffer.write(json.dumps({"pages": pages, "timemap": timemap}).encode())


def _bound_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):
        return
