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
    from musicgen.dry_run import DryRun
    from musicgen.fill_and_harmonise import FillReport, HarmoniseReport
    from musicgen.finishing import FinishReport
    from musicgen.runs import TrainReport
    from musicgen.sampling import Understanding
    from musicgen.training.loop import StepReport, Trainer


MOST_ALIKE = 5
"""Lines of one kind that are printed one by one."""


def train_with_progress(
    folders: list[str],
    run: RunConfig,
    out: Path,
    resume: bool,
    device: str,
    quiet: bool = False,
    tensorboard: bool = False,
    samples: Sequence[str] = (),
) -> TrainReport:
    """Train with a bar on a terminal, and one line an evaluation elsewhere. quiet: no table at the end."""
    from tqdm import tqdm

    from musicgen import workflows

    tty = sys.stderr.isatty()
    budget = run.training.budget
    bar: tqdm | None = None
    running: Trainer | None = None

    def start(corpus, trainer) -> None:
        nonlocal bar, running
        running = trainer
        where = "from the cache" if corpus.cached else "compiled"
        notes = sum(p.notes for p in corpus.pieces)
        many = f", {trainer.processes.count} processes" if trainer.processes.count > 1 else ""
        print(
            f"{len(corpus.pieces):,} pieces, {notes:,} notes ({where}); {run.model.decoder}, "
            f"{trainer.model.parameter_count:,} parameters{many}",
            file=sys.stderr,
        )
        total, unit = (run.training.steps, "step") if budget is None else (round(budget), "s")
        bar = tqdm(total=total, unit=unit, disable=not tty, file=sys.stderr)

    def step(report: StepReport) -> None:
        assert bar is not None
        assert running is not None
        best = f"{running.best_look.per_note:.3f}" if running.best_look else "-"  # also from before a resume
        gone = report.step if budget is None else min(budget - report.left, budget)
        bar.update(round(gone) - bar.n)  # a resumed run begins further on
        notes_a_second = f"{report.notes / report.seconds:,.0f}"
        if report.looked:
            held_out = ""
            if report.evaluation is not None:
                held_out = f"validation {report.evaluation.per_note:.3f} (best {best})  "
            if not tty:
                of = f"/{run.training.steps}" if budget is None else ""
                print(
                    f"step {report.step}{of}  loss {report.nats_per_note:.3f} nats a note  {held_out}"
                    f"{notes_a_second} notes/s  {report.clipped_share:.0%} clipped  "
                    f"{report.left / 60:.1f} minutes left",
                    file=sys.stderr,
                    flush=True,
                )
        if tty and report.step % 5 == 0:
            shown = {"nats a note": f"{report.nats_per_note:.3f}"}
            if running.best_look:
                shown["best valid"] = best
            shown |= {"notes/s": notes_a_second, "clipped": f"{report.clipped_share:.0%}"}
            shown["minutes left"] = f"{report.left / 60:.1f}"
            bar.set_postfix(shown, refresh=False)

    with files_bar() as files:
        report = workflows.train(
            folders,
            run,
            out,
            resume=resume,
            device=device,
            tensorboard=tensorboard,
            samples=samples,
            on_files=files,
            on_start=start,
            on_step=step,
        )
    if bar is not None:
        bar.close()
    if report.process:  # the first of several processes speaks for all
        return report
    if not report.valid_pieces and not report.interrupted:
        print(
            "nothing was held out: the model learns this by heart, and no loss tells how well; add more scores",
            file=sys.stderr,
        )
    if not report.interrupted and not quiet:
        _print_run(report, run)
    return report


def _print_run(report: TrainReport, run: RunConfig) -> None:
    unit = "a character" if report.valid and report.valid.per_character is not None else "a note"

    def rate(found) -> str:
        if found is None:
            return "-"
        value = found.per_character if unit == "a character" else found.per_note
        return f"{value:.3f}"

    print_table(
        ("checkpoint", str(report.folder)),
        ("parameters", f"{report.parameters:,} ({run.model.decoder}, on {report.device}, {report.precision})"),
        ("pieces", f"{report.pieces:,} to learn from, {report.valid_pieces:,} kept for validation"),
        ("steps", f"{report.step:,}{', stopped early' if report.stopped_early else ''}; best at {report.best_step:,}"),
        *([("left", ", ".join(map(str, report.left)))] if report.left else []),
        ("time", f"{report.seconds / 60:.1f} minutes; {report.clipped_share:.0%} of gradients clipped"),
        (
            f"nats {unit}",
            f"unigram {rate(report.unigram)}, train {rate(report.train)}, validation {rate(report.valid)}",
        ),
    )


def print_dry_run(found: DryRun, run: RunConfig) -> None:
    """What a run will cost, as a table."""
    how = "less if it stops early" if run.training.budget is None else "the budget"
    print_table(
        ("pieces", f"{found.pieces:,} to learn from, {found.valid_pieces:,} kept for validation"),
        ("an epoch", f"{found.notes:,} notes, {found.tokens:,} tokens"),
        ("parameters", f"{found.parameters:,} ({run.model.decoder}, on {found.device}, {found.precision})"),
        (
            "memory",
            f"about {found.memory_mib:,.0f} MiB: weights {found.weights_mib:,.0f}, "
            f"optimiser {found.optimiser_mib:,.0f}, activations {found.activations_mib:,.0f}; PyTorch comes on top",
        ),
        ("speed", f"{found.notes_per_second:,.0f} notes/s, {found.tokens_per_second:,.0f} tokens/s"),
        ("updates", f"{found.updates:,}, {found.epochs:.1f} epochs"),
        ("time", f"about {found.minutes:.1f} minutes ({how})"),
    )


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


@contextmanager
def adapting_bar() -> Iterator[Callable[[int, int], None]]:
    """A callback(updates made, updates at most) that draws a bar of them."""
    from tqdm import tqdm

    bar = tqdm(unit="update", desc="adapting", file=sys.stderr, disable=None, delay=1, leave=False)
    try:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
    finally:
        bar.close()


@contextmanager
def kinds_bar() -> Iterator[Callable[[str], None]]:
    """A callback(what), before each thing is made to hear or to look at, that says so."""
    from tqdm import tqdm

    bar = tqdm(unit="file", file=sys.stderr, disable=None, delay=1, leave=False)
    begun = 0
    try:

        def show(kind: str) -> None:
            nonlocal begun
            bar.set_description(f"making {kind}")
            bar.update(begun - bar.n)
            begun += 1

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


def print_columns(rows: Sequence[Sequence[str]], left: int) -> None:
    """Rows of cells under the first row's names, the first `left` columns to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def print_understood(score: Path, found: Understanding) -> None:
    """What was read of a fragment, to stderr."""
    from musicgen.sampling.understanding import in_lines

    print(printable(f"read {score}{f': {found.title}' if found.title else ''}"), file=sys.stderr)
    for line in in_lines(found):
        print(printable(f"  {line}"), file=sys.stderr)


def print_takes(report: FinishReport) -> None:
    """The figures of every take, best first; the report beside the files has more of them."""
    from musicgen.sampling.takes import FEATURES
    from musicgen.sampling.takes_report import TAKES_COLUMNS, copies_in_words, takes_rows

    names = [str(path) for path in report.files]
    rows = takes_rows(report.takes, names, report.understanding.bars, report.own)
    shown = [i for i, column in enumerate(TAKES_COLUMNS) if column not in FEATURES]
    print_columns([[printable(row[i]) for i in shown] for row in [TAKES_COLUMNS, *rows]], left=2)
    for line in copies_in_words(report.takes, names):
        print(printable(line))


def print_fillings(report: FillReport) -> None:
    """The figures of each way to fill a hole, best first, with those of what was given; and who stays silent."""
    rows = [("take", "file", "notes", "nats a note", "of what follows", "likeness", "bars repeated", "longest quote")]
    for number, (path, take) in enumerate(zip(report.files, report.takes, strict=True), start=1):
        f = take.figures
        alike = "-" if f.likeness is None else f"{f.likeness:.2f}"
        figures = (
            f"{take.nats_per_note:.2f}",
            f"{take.nats_after:.2f}",
            alike,
            f"{f.repetition:.0%}",
            f"{f.quoted.notes} notes",
        )
        rows.append((str(number), str(path), f"{take.notes:,}", *figures))
    own = "-" if report.own.likeness is None else f"{report.own.likeness:.2f}"
    rows.append(("given", "", f"{report.own.notes:,}", "", "", own, f"{report.own.repetition:.0%}", ""))
    print_columns([[printable(cell) for cell in row] for row in rows], left=2)
    print(f"bars   {report.hole} of {report.bars}, counted from 1, an upbeat too; repeats are not played out")
    if report.silent:
        print(printable(f"silent {', '.join(report.silent)}: no notes outside these bars to go by"))


def print_harmonisations(report: HarmoniseReport) -> None:
    """Each way to harmonise, likeliest first, and who was added."""
    rows = [("take", "file", "notes", "nats a note")]
    for number, (path, take) in enumerate(zip(report.files, report.takes, strict=True), start=1):
        rows.append((str(number), str(path), f"{take.notes:,}", f"{take.nats_per_note:.2f}"))
    print_columns([[printable(cell) for cell in row] for row in rows], left=2)
    print(printable(f"added  {', '.join(report.added)}"))


def in_words(found: dict[str, int], most: int = 8) -> str:
    shown = [f"{name} ({count})" for name, count in list(found.items())[:most]]
    return ", ".join(shown) + (f", and {len(found) - most} more" if len(found) > most else "")


def print_next(command: str) -> None:
    print(f"next: {command}", file=sys.stderr)
