"""The bench: a process of its own in which the work is done, so that it can be stopped at any moment.

Reading, composing and engraving are long calls into other people's libraries. No thread can be made to leave one, and a
file that leads a library astray may take all memory there is, or the process with it. So the worker thread sends each
task (a function of `tasks`, with what it is given) to this process, hears how far it is, and ends it when nobody wants
the rest. The next one begins to load PyTorch and music21 at once, before there is anything to do.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from musicgen.errors import MusicgenError
from musicgen.web.jobs import Cancelled, Job, fault_in_words

log = logging.getLogger(__name__)

SCRATCH = "scratch"
"""Where temporary files lie, within the server's folder."""
LOOK = 0.05
"""Seconds between looks at whether the work is still wanted."""
SHARE = 0.75
"""Of the machine's memory, what the process may take; more, and its libraries are refused it (Linux)."""
DIED = "the work broke off (too little memory, or a fault in a library); fewer bars or takes may do"

TELL, DONE, FAILED = "tell", "done", "failed"


class Bench:
    """The process, begun by `start`; `run` is for one thread. What it leaves half done lies in the folder `scratch`."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.closed = False
        self._process: Any = None
        self._pipe: Connection | None = None

    def start(self) -> None:
        """Begin a process, which loads what work will need."""
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=work, args=(other, self.scratch), name="musicgen-bench", daemon=True)
        self._process.start()
        other.close()

    def run(self, job: Job, task: Callable[..., Any], *given: Any) -> Any:
        """task(tell, *given) in the process; `tell` is the job's. Raises Cancelled, or MusicgenError, a sentence."""
        if self._process is None or not self._process.is_alive():
            self._again()
        pipe = self._pipe
        if pipe is None:  # the server stops
            raise Cancelled
        try:
            pipe.send((task, given))
            while True:
                while not pipe.poll(LOOK):
                    if job.unwanted:
                        raise Cancelled
                kind, told = pipe.recv()
                if kind == TELL:
                    job.tell(*told)
                elif kind == DONE:
                    return told
                else:
                    raise MusicgenError(told)
        except Cancelled:
            self._again()
            raise
        except (EOFError, OSError):
            self._again()
            raise MusicgenError(DIED) from None

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self.closed = True
        self._end()

    def _again(self) -> None:
        self._end()
        if not self.closed:
            self.start()

    def _end(self) -> None:
        if self._process is not None:
            with suppress(OSError, AttributeError):  # verovio runs in a process of its own, below this one
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.join()
            self._process.close()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None
        shutil.rmtree(self.scratch, ignore_errors=True)


# ------------------------------------------------------------------------------------------------- within the process


def work(pipe: Connection, scratch: Path) -> None:
    """Do one task after another, until nobody is at the other end. scratch: for all temporary files."""
    from musicgen.web.tasks import warm_up

    scratch.mkdir(exist_ok=True)
    tempfile.tempdir = os.environ["TMPDIR"] = str(scratch)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches every process; the server sees to it
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    limit_memory()

    def tell(stage: str, count: int = 0, total: int | None = None) -> None:
        pipe.send((TELL, (stage, count, total)))

    with suppress(Exception):  # what can't be loaded is met again by the first task
        warm_up()
    while True:
        try:
            task, given = pipe.recv()
        except EOFError:
            return
        try:
            told = DONE, task(tell, *given)
        except MusicgenError as error:
            told = FAILED, str(error)
        except MemoryError:
            told = FAILED, DIED
        except Exception as error:
            log.exception("%s", task.__name__)
            told = FAILED, fault_in_words(error)
        with suppress(OSError):  # the server is gone: so is this process, in the next round
            pipe.send(told)


def limit_memory() -> None:
    """Where the system can: refuse this process more than SHARE of the machine's memory."""
    if sys.platform == "linux":
        import resource

        most = int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * SHARE)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (most if hard < 0 else min(most, hard), hard))
