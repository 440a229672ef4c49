"""Jobs, the queue they wait in, and the one thread that does them, one at a time.

In comes a function that does the work, out comes a Job that says how far it is. The function tells its job of every
stage and bar; there it learns, by Cancelled, that nobody wants it any more: it was cancelled, nobody has been watching
for a while, or the server stops. All that a job leaves lies in its folder; the oldest go when there are too many.

One thread: two composers are each half as fast, and take twice the memory.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicgen.errors import MusicgenError

log = logging.getLogger(__name__)

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
OVER = (DONE, FAILED, CANCELLED)


class Cancelled(BaseException):
    """The job is not wanted any more. No Exception, so that nothing on its way takes it for a fault to be mended."""


class Busy(Exception):
    """Too many jobs are waiting already."""


@dataclass(frozen=True)
class Limits:
    """What the server spends at most."""

    waiting: int = 4
    """Jobs in the queue, besides the one that is done."""
    kept: int = 8
    """Jobs that are over and can still be looked at."""
    kept_bytes: int = 400 * 2**20
    """Of their files."""
    unwatched: float = 5.0
    """Seconds that a job goes on, or waits, when nobody is watching."""


@dataclass(eq=False)
class Job:
    """One piece of work. Written by the worker, but for `watchers` and `left`; read by everybody."""

    id: str
    name: str
    """What it is called in a folder of kept ones; empty: it is not kept."""
    folder: Path
    work: Callable[[Job], Any]
    limits: Limits
    state: str = WAITING
    stage: str = ""
    count: int = 0
    total: int | None = None
    """So many bars of all have been composed; None: nobody knows how many there will be."""
    result: Any = None
    sentence: str = ""
    """Why it failed; of one that is done, what could not be had."""
    watchers: int = 0
    left: float = field(default_factory=time.monotonic)
    """When the last watcher went."""
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def over(self) -> bool:
        return self.state in OVER

    @property
    def unwanted(self) -> bool:
        """Whether it was cancelled, or left by those who watched."""
        alone = self.watchers == 0 and time.monotonic() - self.left > self.limits.unwatched
        return self.stop.is_set() or alone

    def tell(self, stage: str, count: int = 0, total: int | None = None) -> None:
        """How far the work is. Raises Cancelled if nobody wants the rest."""
        if self.unwanted:
            raise Cancelled
        self.stage, self.count, self.total = stage, count, total

    def watch(self, change: int) -> None:
        """One more (1) or one less (-1) is watching."""
        self.watchers += change
        self.left = time.monotonic()


class Jobs:
    """The queue, the worker, and the jobs that are over. Folders lie in `home`, copies of those done in `keep`."""

    def __init__(self, home: Path, limits: Limits | None = None, keep: Path | None = None) -> None:
        self.home, self.keep = home, keep
        self.limits = limits or Limits()
        self.closing = False
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._over: deque[Job] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to work."""

        def run() -> None:
            while (job := self._next()) is not None:
                self._do(job)

        self._thread = threading.Thread(target=run, name="musicgen-worker", daemon=True)
        self._thread.start()

    def submit(self, name: str, work: Callable[[Job], Any], first: bool = False) -> Job:
        """Put work into the queue; `first`: before all that wait. Raises Busy where there is no room."""
        identity = secrets.token_urlsafe(16)
        job = Job(identity, name, self.home / identity, work, self.limits)
        with self._changed:
            for other in [other for other in self._waiting if other.unwanted]:
                self._waiting.remove(other)
                self._end(other, CANCELLED)
            if self.closing or len(self._waiting) >= self.limits.waiting:
                raise Busy
            self._waiting.insert(0 if first else len(self._waiting), job)
            self._changed.notify()
        return job

    def find(self, identity: str) -> Job | None:
        with self._changed:
            known = [*self._waiting, *([self._running] if self._running else []), *self._over]
        return next((job for job in known if job.id == identity), None)

    def cancel(self, job: Job) -> None:
        """A job that waits is over at once; one that runs, as soon as it next tells how far it is."""
        job.stop.set()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                self._end(job, CANCELLED)

    def forget(self, job: Job) -> None:
        """Of one that is over, keep nothing."""
        with self._changed:
            if job in self._over:
                self._over.remove(job)
        shutil.rmtree(job.folder, ignore_errors=True)

    def before(self, job: Job) -> int:
        """How many are to be done before this one."""
        with self._changed:
            at = self._waiting.index(job) if job in self._waiting else -1
            return at + (self._running is not None) if at >= 0 else 0

    def stop(self) -> None:
        """All that waits or runs is cancelled, and nothing more is taken. May be called where a signal is handled."""
        self.closing = True
        if running := self._running:
            running.stop.set()

    def close(self, seconds: float = 10.0) -> None:
        """Stop, and wait for the worker so long at most."""
        self.stop()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(seconds)

    # ------------------------------------------------------------------------------------------------------ the worker

    def _next(self) -> Job | None:
        """The next job, waited for; None when the server stops."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.closing)
            if self.closing:
                return None
            self._running = self._waiting.popleft()
            return self._running

    def _do(self, job: Job) -> None:
        state = FAILED
        try:
            job.tell("")
            job.state = RUNNING
            job.folder.mkdir()
            job.result = job.work(job)
            if self.keep is not None and job.name:
                try:
                    _copy(job.folder, self.keep, job.name)
                except OSError as error:  # it is there to be downloaded even so
                    job.sentence = f"not kept in {self.keep}: {error.strerror or error}"
            state = DONE
        except Cancelled:
            state = CANCELLED
        except MusicgenError as error:
            job.sentence = str(error)
        except Exception as error:
            log.exception("job %s", job.name)
            job.sentence = fault_in_words(error)
        with self._changed:
            self._running = None
            self._end(job, state)

    def _end(self, job: Job, state: str) -> None:
        """Enter a job among those that are over. Where these are too many, or too large, old ones go: first those that
        have nothing to show."""
        del job.work  # and with it the score that it was to begin with
        if state != DONE:
            shutil.rmtree(job.folder, ignore_errors=True)
        self._over.append(job)
        while len(self._over) > 1 and (
            len(self._over) > self.limits.kept or sum(map(_size, self._over)) > self.limits.kept_bytes
        ):
            oldest = min(list(self._over)[:-1], key=lambda other: other.state == DONE)
            self._over.remove(oldest)
            shutil.rmtree(oldest.folder, ignore_errors=True)
        job.state = state


def fault_in_words(error: Exception) -> str:
    """What the page says of a fault that is not the user's."""
    return f"musicgen itself is at fault ({type(error).__name__}); the terminal says more"


def _size(job: Job) -> int:
    """Bytes of its files."""
    return sum(path.stat().st_size for path in job.folder.rglob("*") if path.is_file())


def _copy(folder: Path, keep: Path, name: str) -> None:
    """A job's folder as NAME, or NAME-2 and so on, within `keep`."""
    number = 1
    while (target := keep / (f"{name}-{number}" if number > 1 else name)).exists():
        number += 1
    temporary = keep / f".{target.name}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(folder, temporary)
    os.replace(temporary, target)
