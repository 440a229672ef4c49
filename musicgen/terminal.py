"""What a terminal shows: bars while something runs, tables when it is done, and the next command to type.

Progress goes to stderr, results to stdout. Off a terminal, training writes one line an evaluation instead of a bar.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musicgen.config import RunConfig
    from musicgen.corpus import FileReport
    from musicgen.training.loop import StepReport
    from musicgen.workflows import TrainReport


MOST_ALIKE = 5
"""Lines of one kind that are printed one by one."""


def train_with_progress(
    folders: list[str], run: RunConfig, out: Path, resume: bool, device: str, quiet: bool = False
) -> TrainReport:
    """Train with a bar on a terminal, and one line an evaluation elsewhere."""
    from tqdm import tqdm

    from musicgen import workflows

    tty = sys.stderr.isatty()
    bar: tqdm | None = None
    best = float("inf")

    def start(corpus, parameters: int) -> None:
        nonlocal bar
        where = "from the cache" if corpus.cached else "compiled"
        notes = sum(p.notes for p in corpus.pieces)
        print(
            f"{len(corpus.pieces):,} pieces, {notes:,} notes ({where}); {run.model.decoder}, {parameters:,} parameters",
            file=sys.stderr,
        )
        bar = tqdm(total=run.training.steps, unit="step", disable=not tty, file=sys.stderr)

    def step(report: StepReport) -> None:
        nonlocal best
        assert bar is not None
        bar.update(report.step - bar.n)  # a resumed run begins further on
        if report.looked:
            held_out = ""
            if report.evaluation is not None:
                best = min(best, report.evaluation.per_note)
                held_out = f"validation {report.evaluation.per_note:.3f} (best {best:.3f})  "
            if not tty:
                print(
                    f"step {report.step}/{run.training.steps}  loss {report.nats_per_note:.3f} nats a note  "
                    f"{held_out}{report.tokens / report.seconds:,.0f} tokens/s",
                    file=sys.stderr,
                    flush=True,
                )
        if tty and report.step % 5 == 0:
            shown = {"loss": f"{report.nats_per_note:.3f}"}
            if best < float("inf"):
                shown["best valid"] = f"{best:.3f}"
            shown["tokens/s"] = f"{report.tokens / report.seconds:,.0f}"
            bar.set_postfix(shown, refresh=False)

    with files_bar() as files:
        report = workflows.train(
            folders, run, out, resume=resume, device=device, on_files=files, on_start=start, on_step=step
        )
    if bar is not None:
        bar.close()
    if not report.valid_pieces and not report.interrupted:
        print(
            "nothing was held out: the model learns this by heart, and no loss tells how well; add more scores",
            file=sys.stderr,
        )
    if report.interrupted or quiet:
        return report
    unit = "a character" if report.valid and report.valid.per_character is not None else "a note"

    def rate(found) -> str:
        if found is None:
            return "-"
        value = found.per_character if unit == "a character" else found.per_note
        return f"{value:.3f}"

    print_table(
        ("checkpoint", str(report.folder)),
        ("parameters", f"{report.parameters:,} ({run.model.decoder}, on {report.device})"),
        ("pieces", f"{report.pieces:,} to learn from, {report.valid_pieces:,} kept for validation"),
        ("steps", f"{report.step:,}{', stopped early' if report.stopped_early else ''}; best at {report.best_step:,}"),
        ("time", f"{report.seconds / 60:.1f} minutes; {report.clipped_share:.0%} of gradients clipped"),
        (
            f"nats {unit}",
            f"unigram {rate(report.unigram)}, train {rate(report.train)}, validation {rate(report.valid)}",
        ),
    )
    return report


@contextmanager
def files_bar() -> Iterator[Callable[[int, int], None]]:
    """A callback(done, total) that draws a bar of files once there are more than a few."""
    from tqdm import tqdm

    bar: tqdm | None = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, unit="file", desc="reading", file=sys.stderr, disable=None, leave=False)
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def bars_bar(total: int) -> Iterator[Callable[[int], None]]:
    """A callback(bars written so far) that draws a bar of musical bars."""
    from tqdm import tqdm

    bar = tqdm(total=total or None, unit="bar", desc="writing", file=sys.stderr, disable=None, delay=1, leave=False)
    try:

        def show(bars: int) -> None:
            bar.update(bars - bar.n)

        yield show
    finally:
        bar.close()


def print_skipped(files: Sequence[FileReport]) -> None:
    """A line for what was not kept of each file; where many are alike, the first few and their number."""
    alike: dict[str, int] = {}
    for file in files:
        for reason in file.skipped:
            # the same words but for names and numbers: "waltz: 2 parts that play", "reel: 3 parts that play"
            kind = re.sub(r"\d+", "", reason.partition(": ")[2] or reason)
            alike[kind] = alike.get(kind, 0) + 1
            if alike[kind] <= MOST_ALIKE:
                print(printable(f"skipped  {file.path}: {reason}"))
    for kind, count in alike.items():
        if count > MOST_ALIKE:
            print(printable(f"skipped  ... and {count - MOST_ALIKE:,} more like these: {kind.strip()[:90]}"))


def printable(text: str) -> str:
    """One line that a terminal shows as it is: what a file says may hold newlines and commands to the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_table(*rows: tuple[str, str]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def in_words(found: dict[str, int], most: int = 8) -> str:
    shown = [f"{name} ({count})" for name, count in list(found.items())[:most]]
    return ", ".join(shown) + (f", and {len(found) - most} more" if len(found) > most else "")


def print_next(command: str) -> None:
    print(f"next: {command}", file=sys.stderr)
