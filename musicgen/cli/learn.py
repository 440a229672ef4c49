"""check, prepare, train and evaluate: what a model learns from, and how well."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musicgen.cli.options import (
    CheckpointArgument,
    ConfigOption,
    Device,
    DeviceOption,
    FolderArgument,
    FoldersArgument,
    JsonOption,
    SetOption,
    chosen_config,
    kinds_named,
)
from musicgen.errors import ConfigError
from musicgen.terminal import (
    files_bar,
    in_words,
    print_dry_run,
    print_next,
    print_skipped,
    print_table,
    printable,
    train_with_progress,
)

if TYPE_CHECKING:
    from musicgen.config import RunConfig


def check(
    folders: FoldersArgument,
    config: ConfigOption = None,
    changes: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read a folder as training would: what is kept, what is skipped and why, and what training would cost."""
    from dataclasses import asdict

    from musicgen import workflows

    run = chosen_config(config, changes)
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

    run = chosen_config(config, changes)
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
    samples: Annotated[
        str,
        typer.Option(
            metavar="KINDS",
            help="make these of each evaluation's sample too: roll, mp3, wav, svg, pdf, png, with commas between",
        ),
    ] = "",
    device: DeviceOption = Device.auto,
    as_json: JsonOption = False,
) -> None:
    """Train a model on a folder of scores. Ctrl-C saves; --resume goes on.

    `torchrun --nproc-per-node 2 -m musicgen train ...` makes it one run in several processes.
    """
    changes = [*(changes or []), *([f"training.budget={budget}"] if budget else [])]
    if dry_run:
        _dry_run(folders, chosen_config(config, changes), device.value, as_json)
        return
    if out is None:
        raise ConfigError("train: needs --out, the checkpoint folder to make")
    if resume:
        from musicgen.workflows import resume_config

        run = resume_config(out, changes)
    else:
        run = chosen_config(config, changes)
    report = train_with_progress(
        folders,
        run,
        out,
        resume,
        device.value,
        quiet=as_json,
        tensorboard=tensorboard,
        samples=kinds_named(samples),
    )
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


def _same_config(run: RunConfig, path: Path | None, changes: list[str] | None) -> str:
    """The options that give this configuration again; of none, one made for the tokenizer."""
    made_for = {"abc": "irish", "grid": "chorales-grid", "performance": "performance", "bars": "orchestra"}
    chosen = path or (None if changes else Path(f"configs/{made_for[run.tokenizer.name]}-lstm.yaml"))
    return " ".join([*([f"--config {chosen}"] if chosen else []), *(f"--set {change}" for change in changes or [])])
