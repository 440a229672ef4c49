"""The command line: parse, call one workflow, print.

Progress goes to stderr, results to stdout; a user's error is one line and exit code 2.

Nothing heavy is imported here: `musicgen --help` answers before PyTorch would have loaded.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musicgen import __version__
from musicgen.errors import ConfigError, MusicgenError
from musicgen.terminal import (
    adapting_bar,
    bars_bar,
    files_bar,
    in_words,
    print_dry_run,
    print_fillings,
    print_harmonisations,
    print_next,
    print_skipped,
    print_table,
    print_takes,
    print_understood,
    printable,
    train_with_progress,
)

if TYPE_CHECKING:
    from musicgen.config import RunConfig

app = typer.Typer(
    help="Learn music from a folder of scores, and finish the symphony.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

LET_FIRST_SPEAK = 5.0
"""Seconds that torchrun's other processes wait before they print an error: the first may have met it too."""


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
MinPOption = Annotated[float, typer.Option("--min-p", min=0, max=0.99, help="drop values below this share of the best")]


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


@app.command()
def check(
    folders: FoldersArgument,
    config: ConfigOption = None,
    changes: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read a folder as training would: what is kept, what is skipped and why, and what training would cost."""
    from dataclasses import asdict

    from musicgen import workflows

    run = _config(config, changes)
    with files_bar() as bar:
        report = workflows.check(folders, run, progress=bar)
    if as_json:
        facts = asdict(report)
        facts["files"] = [file._asdict() for file in report.files]
        facts["pieces"] = [piece._asdict() for piece in report.pieces]
        print(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    print_skipped(report.files)
    for path in report.ignored[:5]:
        print(printable(f"not a score  {path}"))
    if len(report.ignored) > 5:
        print(f"not a score  ... and {len(report.ignored) - 5} more files")
    kept = sum(f.kept > 0 for f in report.files)
    skipped = sum(len(f.skipped) for f in report.files)
    share = report.left_out / max(report.notes + report.left_out, 1)
    left_out = f"{report.left_out:,} ({share:.0%}: doubled notes, and what {run.tokenizer.name} does not hold)"
    near = f"{report.near_duplicates} pieces in {report.near_groups} groups, each kept on one side of the split"
    print_table(
        ("files kept", f"{kept} of {len(report.files)}"),
        ("pieces", f"{len(report.pieces):,} kept, {skipped} skipped, {report.duplicates} of them duplicates"),
        ("nearly the same", near),
        ("notes", f"{report.notes:,}"),
        *([("notes left out", left_out)] if report.left_out else []),
        ("bars", f"{report.bars:,}"),
        ("metres", in_words(report.metres)),
        ("tempi", in_words(report.tempi)),
        ("instruments", in_words(report.instruments)),
        ("steps", f"{report.steps:,} ({report.steps / max(report.notes, 1):.2f} a note)"),
        ("model", f"{report.parameters:,} parameters ({run.model.decoder})"),
        (
            "updates an epoch",
            f"{report.epoch_updates:,} (streams x chunk = {run.training.streams} x {run.training.chunk})",
        ),
        ("memory to train", f"about {report.training_mib:,.0f} MiB"),
    )
    print_next(f"musicgen train {' '.join(folders)} {_same_config(run, config, changes)} --out checkpoints/mine")


@app.command()
def prepare(
    folder: FolderArgument,
    config: ConfigOption = None,
    changes: SetOption = None,
    out: Annotated[
        Path | None, typer.Option(help="folder to leave the compiled corpus in; left out, it goes into the cache")
    ] = None,
    shard: Annotated[
        str, typer.Option(metavar="K/N", help="compile only every N-th score from the K-th on, as in 3/16")
    ] = "1/1",
    workers: Annotated[int | None, typer.Option(min=1, max=1024, help="processes; left out, one a core")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compile a folder of scores, on all cores. Stopped and run again, it goes on. Shards merge by listing them."""
    from dataclasses import asdict

    from musicgen import workflows

    run = _config(config, changes)
    number, slash, shards = shard.partition("/")
    if not (slash and number.isdecimal() and shards.isdecimal()):
        raise ConfigError(f"--shard {shard}: expected K/N, as in 3/16")
    if shard != "1/1" and out is None:
        raise ConfigError("--shard: needs --out, the folder to leave the shard in")
    try:
        with files_bar() as bar:
            report = workflows.prepare(
                folder, run, out=out, shard=(int(number), int(shards)), workers=workers, progress=bar
            )
    except KeyboardInterrupt:
        print("stopped; what was read is kept. Run the same command again to go on", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        facts = {**asdict(report), "folder": str(report.folder), "files": [file._asdict() for file in report.files]}
        print(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    print_skipped(report.files)
    print_table(
        ("corpus", f"{report.folder}{' (was there already)' if report.was_there else ''}"),
        ("files kept", f"{sum(f.kept > 0 for f in report.files)} of {len(report.files)}"),
        ("pieces", f"{report.pieces:,}"),
        ("notes", f"{report.notes:,}"),
        ("steps", f"{report.steps:,}, {report.megabytes:.1f} MB"),
    )
    which = out.parent / "*" if out is not None and shard != "1/1" else out or folder
    print_next(f"musicgen train {which} {_same_config(run, config, changes)} --out checkpoints/mine")


@app.command()
def train(
    folders: FoldersArgument,
    out: Annotated[Path | None, typer.Option(help="the checkpoint folder to make")] = None,
    config: ConfigOption = None,
    changes: SetOption = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="train for a time, evaluations included: 90s, 10m or 1h30m; the table comes after it"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run in --out")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say parameters, memory and minutes by a few steps; keep nothing")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="write OUT/tensorboard too (needs the extra of that name)")
    ] = False,
    device: DeviceOption = Device.auto,
    as_json: JsonOption = False,
) -> None:
    """Train a model on a folder of scores. Ctrl-C saves; --resume goes on.

    `torchrun --nproc-per-node 2 -m musicgen train ...` makes it one run in several processes.
    """
    changes = [*(changes or []), *([f"training.budget={budget}"] if budget else [])]
    if dry_run:
        _dry_run(folders, _config(config, changes), device.value, as_json)
        return
    if out is None:
        raise ConfigError("train: needs --out, the checkpoint folder to make")
    if resume:
        from musicgen.workflows import resume_config

        run = resume_config(out, changes)
    else:
        run = _config(config, changes)
    report = train_with_progress(folders, run, out, resume, device.value, quiet=as_json, tensorboard=tensorboard)
    if as_json and not report.process:
        from musicgen.runs import as_plain

        print(json.dumps(as_plain(report), ensure_ascii=False, indent=1))
    if report.interrupted:
        if not report.process:
            print(f"stopped after step {report.step}; saved in {out}", file=sys.stderr)
            print_next(f"musicgen train {' '.join(folders)} --out {out} --resume")
        raise typer.Exit(130)
    if not report.process:
        print_next(f"musicgen sample {out} --out out/{out.name} -n 4")


def _dry_run(folders: list[str], run: RunConfig, device: str, as_json: bool) -> None:
    from dataclasses import asdict

    from musicgen.dry_run import dry_run

    with files_bar() as bar:
        found = dry_run(folders, run, device=device, on_files=bar)
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False, indent=1))
    else:
        print_dry_run(found, run)


@app.command()
def sample(
    out: Annotated[Path, typer.Option(help="folder to write into")],
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            metavar="CHECKPOINT", help="a folder that `musicgen train` made; left out, checkpoints/orchestra"
        ),
    ] = None,
    count: Annotated[int, typer.Option("-n", min=1, max=256, help="how many pieces")] = 4,
    bars: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="bars of each piece; left out, it ends by itself")
    ] = None,
    max_bars: Annotated[int, typer.Option(min=1, max=10_000, help="where a piece is told to end, if it has not")] = 64,
    seed: SeedOption = 0,
    temperature: TemperatureOption = 1.0,
    top_k: TopKOption = 0,
    top_p: TopPOption = 0.98,
    min_p: MinPOption = 0.0,
    reminders: RemindersOption = 3,
    prime: Annotated[Path | None, typer.Option(help="a score that the pieces begin with")] = None,
    exact: ExactOption = False,
    device: DeviceOption = Device.cpu,
) -> None:
    """Write new pieces as MIDI (and as ABC, where the model writes ABC)."""
    from musicgen import workflows
    from musicgen.sampling import SamplingConfig

    with bars_bar(count * (bars or max_bars)) as bar:
        written = workflows.sample_pieces(
            checkpoint,
            out,
            count=count,
            bars=bars,
            most_bars=max_bars,
            seed=seed,
            config=SamplingConfig(
                temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, most_recalled=reminders, exact=exact
            ),
            prime=prime,
            device=device.value,
            progress=bar,
        )
    for piece in written:
        files = "  ".join(str(path) for path in piece.files)
        print(
            f"{files}  {piece.bars} bars, {piece.notes} notes, {piece.parts} parts, "
            f"{piece.seconds:.0f} s, {piece.nats_per_note:.2f} nats a note"
        )
    named = f" --checkpoint {checkpoint}" if checkpoint else ""
    print_next(f"musicgen finish SCORE{named} --out out/finished.mid")


@app.command()
def finish(
    score: Annotated[Path, typer.Argument(metavar="SCORE", help="the unfinished score")],
    out: Annotated[Path, typer.Option(help="the file to write: .mid, .musicxml, .mxl or .abc")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="the model that goes on; left out, the one that ships for such music")
    ] = None,
    bars: Annotated[
        int | None,
        typer.Option(
            min=1, max=10_000, help="bars to add, after a half-filled last bar is filled; left out, it ends by itself"
        ),
    ] = None,
    max_bars: Annotated[int, typer.Option(min=1, max=10_000, help="where it is told to end, if it has not")] = 128,
    takes: Annotated[int, typer.Option(min=1, max=64, help="how many continuations; all are kept, best first")] = 1,
    new_only: Annotated[bool, typer.Option("--new-only", help="write the continuation alone")] = False,
    parts: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="who goes on, by name, with commas between; the others are silent"),
    ] = None,
    add_part: Annotated[
        list[str] | None,
        typer.Option(
            "--add-part",
            metavar="INSTRUMENTS",
            help="who joins in at the seam: General MIDI names, numbers 0 to 127 or drums, with commas between",
        ),
    ] = None,
    free: Annotated[
        bool, typer.Option("--free", help="let metre, tempo and key change; left out, they go on as they were")
    ] = False,
    recall: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BARS@AT",
            help="bring bars of the score back: 1-4@17 makes bars 1 to 4 new bars 17 to 20, counted from 1 after the "
            "seam (after a half-filled last bar is filled); may be given again",
        ),
    ] = None,
    adapting: Annotated[
        bool,
        typer.Option(
            "--adapt",
            help="tune a copy of the model to the fragment first; minutes, bounded by time",
        ),
    ] = False,
    roll: Annotated[Path | None, typer.Option(help="draw the first take as a piano roll: .png or .svg")] = None,
    seed: SeedOption = 0,
    temperature: TemperatureOption = 1.0,
    top_k: TopKOption = 0,
    top_p: TopPOption = 0.95,
    min_p: MinPOption = 0.0,
    reminders: RemindersOption = 3,
    exact: ExactOption = False,
    device: DeviceOption = Device.cpu,
    as_json: JsonOption = False,
) -> None:
    """Finish an unfinished score: same instruments, metre and tempo, from where it stops."""
    from dataclasses import asdict

    from musicgen import workflows
    from musicgen.sampling import SamplingConfig

    def understood(found) -> None:
        if not as_json:
            print_understood(score, found)

    if roll is not None:
        from musicgen.render.roll import check_picture, draw_roll

        check_picture(roll)
    with adapting_bar() as on_adapting, bars_bar(0) as bar:
        report = workflows.finish_score(
            score,
            checkpoint,
            out,
            bars=bars,
            max_bars=max_bars,
            takes=takes,
            new_only=new_only,
            parts=None if parts is None else parts.split(","),
            add=[name for names in add_part or () for name in names.split(",")],
            free=free,
            recall=recall or (),
            adapting=adapting,
            seed=seed,
            config=SamplingConfig(
                temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, most_recalled=reminders, exact=exact
            ),
            device=device.value,
            on_understood=understood,
            on_adapting=on_adapting,
            progress=bar,
        )
    if roll is not None:
        draw_roll(report.takes[0].whole, roll, seam=report.takes[0].seam)
    if as_json:
        from musicgen.sampling.takes_report import as_plain

        understood_bars = report.understanding.bars
        plain = as_plain(report.takes, [str(path) for path in report.files], understood_bars, report.own, report.themes)
        plain["report"] = str(report.page)
        plain["removed"] = [str(path) for path in report.removed]
        plain["adaptation"] = asdict(report.adaptation) if report.adaptation else None
        print(json.dumps({"understood": asdict(report.understanding), **plain}, ensure_ascii=False, indent=1))
        return
    print_takes(report)
    if report.adaptation:
        print(report.adaptation.in_words)
    elif adapting:
        print("not adapted: the fragment is too short")
    for path in report.removed:
        print(printable(f"removed {path}, a take of an earlier run"))
    print(f"report  {report.page}")
    if roll is not None:
        print(f"roll    {roll}")
    added = [word for names in add_part or () for word in ("--add-part", names)]
    print_next(another_go(score, checkpoint, out, takes, seed, bars, parts, [*added, *(["--free"] if free else [])]))


@app.command()
def fill(
    score: Annotated[Path, typer.Argument(metavar="SCORE", help="a score with a hole, or bars to be written anew")],
    bars: Annotated[str, typer.Option(metavar="FIRST-LAST", help="the bars to write, counted from 1, an upbeat too")],
    out: Annotated[Path, typer.Option(help="the file to write: .mid, .musicxml, .mxl or .abc")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="a model trained with training.preview; left out, the one that ships")
    ] = None,
    takes: Annotated[int, typer.Option(min=1, max=64, help="how many; all are kept, best first")] = 1,
    seed: SeedOption = 0,
    temperature: TemperatureOption = 1.0,
    top_k: TopKOption = 0,
    top_p: TopPOption = 0.95,
    min_p: MinPOption = 0.0,
    exact: ExactOption = False,
    device: DeviceOption = Device.cpu,
    as_json: JsonOption = False,
) -> None:
    """Write bars in the middle of a score, with what comes before and after in sight; all else stays as it is."""
    from dataclasses import asdict

    from musicgen import fill_and_harmonise
    from musicgen.sampling import SamplingConfig

    with bars_bar(0) as bar:
        report = fill_and_harmonise.fill_score(
            score,
            checkpoint,
            out,
            bars=bars,
            takes=takes,
            seed=seed,
            config=SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, exact=exact),
            device=device.value,
            progress=bar,
        )
    if as_json:
        made = [
            {"file": str(path), **asdict(take.figures), "nats_after": take.nats_after}
            for path, take in zip(report.files, report.takes, strict=True)
        ]
        print(json.dumps({"bars": str(report.hole), "takes": made}, ensure_ascii=False, indent=1))
        return
    print_fillings(report)
    again = ["musicgen", "fill", str(score), "--bars", bars]
    print_next(shlex.join([*again, *_another_seed(checkpoint, out, takes, seed)]))


@app.command()
def harmonise(
    score: Annotated[Path, typer.Argument(metavar="MELODY", help="a score; all its parts are given")],
    out: Annotated[Path, typer.Option(help="the file to write: .mid, .musicxml, .mxl or .abc")],
    add_part: Annotated[
        list[str] | None,
        typer.Option(
            "--add-part",
            metavar="INSTRUMENTS",
            help="who plays under it: General MIDI names or numbers, with commas between; left out, violin, viola and "
            "cello, or what the model knows",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="a model trained with training.preview; left out, the one that ships")
    ] = None,
    takes: Annotated[int, typer.Option(min=1, max=64, help="how many; all are kept, likeliest first")] = 1,
    seed: SeedOption = 0,
    temperature: TemperatureOption = 0.8,
    top_k: TopKOption = 0,
    top_p: TopPOption = 0.9,
    min_p: MinPOption = 0.0,
    exact: ExactOption = False,
    device: DeviceOption = Device.cpu,
    as_json: JsonOption = False,
) -> None:
    """Write other parts under a melody, or under any score; what was given stays as it is."""
    from musicgen import fill_and_harmonise
    from musicgen.sampling import SamplingConfig

    with bars_bar(0) as bar:
        report = fill_and_harmonise.harmonise_score(
            score,
            checkpoint,
            out,
            add=[name for names in add_part or () for name in names.split(",")],
            takes=takes,
            seed=seed,
            config=SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, exact=exact),
            device=device.value,
            progress=bar,
        )
    if as_json:
        made = [
            {"file": str(path), "nats_per_note": take.nats_per_note, "notes": take.notes}
            for path, take in zip(report.files, report.takes, strict=True)
        ]
        print(json.dumps({"added": list(report.added), "takes": made}, ensure_ascii=False, indent=1))
        return
    print_harmonisations(report)
    named = [word for names in add_part or () for word in ("--add-part", names)]
    again = ["musicgen", "harmonise", str(score), *named]
    print_next(shlex.join([*again, *_another_seed(checkpoint, out, takes, seed)]))


@app.command()
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


@app.command()
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
    pieces, skipped = workflows.tokens(score, _config(config, [*named, *(changes or [])]))
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


@app.command()
def evaluate(
    checkpoint: CheckpointArgument,
    folders: FoldersArgument,
    device: DeviceOption = Device.cpu,
    as_json: JsonOption = False,
) -> None:
    """Nats a step, a note and (for ABC) a character, on whole pieces that the model was not trained on."""
    from dataclasses import asdict

    from musicgen import workflows

    with files_bar() as bar:
        report = workflows.evaluate_checkpoint(checkpoint, folders, device=device.value, progress=bar)
    found = report.evaluation
    if as_json:
        rates = {"per_step": found.per_step, "per_note": found.per_note, "per_character": found.per_character}
        print(json.dumps({**asdict(found), **rates, "trained_on": report.trained_on}, indent=1))
        return
    rows = [
        ("pieces", f"{found.pieces} unseen ({report.trained_on} left out: the model was trained on them)"),
        ("nats a step", f"{found.per_step:.4f}"),
        ("nats a note", f"{found.per_note:.4f}"),
    ]
    if found.per_character is not None:
        rows.append(("nats a character", f"{found.per_character:.4f}"))
    rows += [
        (f"  of it {name}", f"{nats / max(found.notes, 1):.4f} a note") for name, nats in found.nats_by_field.items()
    ]
    print_table(*rows)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder to write into")] = Path("out/demo"),
    home: Annotated[Path, typer.Option(help="the folder that holds data/ and checkpoints/")] = Path("."),
    seed: SeedOption = 0,
) -> None:
    """The main job, with the checkpoints that ship: a tune, a piece for orchestra, and Schubert's scherzo finished."""
    from musicgen import workflows
    from musicgen.render.roll import draw_roll
    from musicgen.sampling import SamplingConfig

    fragment, orchestra, folk = workflows.bundled(home)
    drawing = SamplingConfig(top_p=0.95, exact=True)  # the same on every machine, with onnxruntime or without
    print("1/3  writing a tune and a piece for orchestra", file=sys.stderr)
    with bars_bar(16) as bar:
        (tune,) = workflows.sample_pieces(folk, out / "tune", count=1, bars=16, seed=seed, config=drawing, progress=bar)
    with bars_bar(16) as bar:
        (piece,) = workflows.sample_pieces(
            orchestra, out / "piece", count=1, bars=16, seed=seed, config=drawing, progress=bar
        )
    files: list[Path] = []
    for number, suffix in ((2, ".mid"), (3, ".musicxml")):
        print(f"{number}/3  finishing the nine bars of the scherzo of D.759, as {suffix}", file=sys.stderr)
        with bars_bar(0) as bar:
            report = workflows.finish_score(
                fragment.with_suffix(suffix),
                orchestra,
                out / f"scherzo-finished{suffix}",
                bars=32,
                takes=4,
                seed=seed,
                config=drawing,
                progress=bar,
            )
        files.append(report.files[0])
    roll = out / "scherzo-finished.png"
    draw_roll(report.takes[0].whole, roll, seam=report.takes[0].seam)
    print_table(
        ("a new tune", f"{', '.join(map(str, tune.files))}  {tune.bars} bars, {tune.notes} notes"),
        ("a new piece", f"{piece.files[0]}  {piece.bars} bars, {piece.notes} notes, {piece.parts} parts"),
        *(("the scherzo, finished", f"{path}  9 + 32 bars, {report.takes[0].notes} new notes") for path in files),
        ("the four takes of it", str(report.page)),
        ("its piano roll", str(roll)),
    )
    print_next("musicgen finish YOUR-UNFINISHED-SCORE --out out/finished.mid --takes 4")


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


def another_go(
    score: Path,
    checkpoint: Path | None,
    out: Path,
    takes: int,
    seed: int,
    bars: int | None,
    parts: str | None,
    more: Sequence[str] = (),
) -> str:
    """The command that finishes the same score otherwise: several takes at once, by another seed."""
    words = ["musicgen", "finish", str(score), *(["--checkpoint", str(checkpoint)] if checkpoint else [])]
    words += [*(["--bars", str(bars)] if bars else []), *(["--parts", parts] if parts else []), *more]
    return shlex.join([*words, *_another_seed(None, out, takes, seed)])


def _another_seed(checkpoint: Path | None, out: Path, takes: int, seed: int) -> list[str]:
    """The options by which a command writes other takes, beside those that are there."""
    other = (seed + 1) % 2**63
    words = ["--checkpoint", str(checkpoint)] if checkpoint else []
    words += ["--out", str(out.with_name(f"{out.stem}-{other}{out.suffix}"))]
    return [*words, "--takes", str(max(takes, 4)), "--seed", str(other)]


def _same_config(run: RunConfig, path: Path | None, changes: list[str] | None) -> str:
    """The options that give this configuration again; of none, one made for the tokenizer."""
    made_for = {"abc": "irish", "grid": "chorales-grid", "performance": "performance", "bars": "orchestra"}
    chosen = path or (None if changes else Path(f"configs/{made_for[run.tokenizer.name]}-lstm.yaml"))
    return " ".join([*([f"--config {chosen}"] if chosen else []), *(f"--set {change}" for change in changes or [])])


def _config(path: Path | None, changes: list[str] | None) -> RunConfig:
    from musicgen.config import load_config

    return load_config(path, changes or ())


if __name__ == "__main__":
    main()
