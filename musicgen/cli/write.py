"""sample, finish, fill, harmonise and demo: the commands that write music."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from musicgen.cli.beside import Beside
from musicgen.cli.options import (
    Device,
    DeviceOption,
    ExactOption,
    HtmlOption,
    JsonOption,
    MinPOption,
    Mp3Option,
    OpenOption,
    PdfOption,
    PngOption,
    RemindersOption,
    SeedOption,
    SoundfontOption,
    SvgOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    WavOption,
    kinds_chosen,
)
from musicgen.errors import ConfigError
from musicgen.terminal import (
    adapting_bar,
    bars_bar,
    kinds_bar,
    print_fillings,
    print_harmonisations,
    print_next,
    print_table,
    print_takes,
    print_understood,
    printable,
)


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
    wav: WavOption = False,
    mp3: Mp3Option = False,
    svg: SvgOption = False,
    pdf: PdfOption = False,
    png: PngOption = False,
    html: HtmlOption = False,
    open_page: OpenOption = False,
    soundfont: SoundfontOption = None,
    device: DeviceOption = Device.cpu,
) -> None:
    """Write new pieces as MIDI (and as ABC, where the model writes ABC)."""
    from musicgen import renditions, workflows
    from musicgen.sampling import SamplingConfig

    beside = Beside(kinds_chosen(wav=wav, mp3=mp3, svg=svg, pdf=pdf, png=png), html, open_page, soundfont)
    beside.check(out / "pieces")
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
    made = beside.make(
        partial(renditions.sampled_pieces, written), partial(renditions.sample_page, written), out / "pieces.html"
    )
    for file in made:
        print(file)
    named = f" --checkpoint {checkpoint}" if checkpoint else ""
    print_next(f"musicgen finish SCORE{named} --out out/finished.mid")


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
    roll: Annotated[Path | None, typer.Option(help="draw the first take as a piano roll: .png, .svg or .pdf")] = None,
    seed: SeedOption = 0,
    temperature: TemperatureOption = 1.0,
    top_k: TopKOption = 0,
    top_p: TopPOption = 0.95,
    min_p: MinPOption = 0.0,
    reminders: RemindersOption = 3,
    exact: ExactOption = False,
    wav: WavOption = False,
    mp3: Mp3Option = False,
    svg: SvgOption = False,
    pdf: PdfOption = False,
    png: PngOption = False,
    html: HtmlOption = False,
    open_page: OpenOption = False,
    soundfont: SoundfontOption = None,
    device: DeviceOption = Device.cpu,
    as_json: JsonOption = False,
) -> None:
    """Finish an unfinished score: same instruments, metre and tempo, from where it stops."""
    from dataclasses import asdict

    from musicgen import renditions, workflows
    from musicgen.sampling import SamplingConfig

    def understood(found) -> None:
        if not as_json:
            print_understood(score, found)

    beside = Beside(kinds_chosen(wav=wav, mp3=mp3, svg=svg, pdf=pdf, png=png), html, open_page, soundfont)
    beside.check(out)
    if roll is not None:
        from musicgen.render.roll import check_picture, draw_roll

        check_picture(roll)
        if roll.suffix[1:].lower() in beside.kinds and roll.with_suffix("").resolve() == out.with_suffix("").resolve():
            raise ConfigError(f"--roll {roll}: --{roll.suffix[1:]} writes the engraved page there; choose another name")
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
        first = renditions.finished_pieces(report)[0]
        draw_roll(first.played, roll, seam=first.seam)
    made = [str(roll)] if roll is not None else []
    made += beside.make(
        partial(renditions.finished_pieces, report), partial(renditions.finish_page, report), out.with_suffix(".html")
    )
    if as_json:
        from musicgen.sampling.takes_report import as_plain

        understood_bars = report.understanding.bars
        plain = as_plain(report.takes, [str(path) for path in report.files], understood_bars, report.own, report.themes)
        plain["report"] = str(report.page)
        plain["beside"] = made
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
    for file in made:
        print(printable(f"made    {file}"))
    added = [word for names in add_part or () for word in ("--add-part", names)]
    print_next(another_go(score, checkpoint, out, takes, seed, bars, parts, [*added, *(["--free"] if free else [])]))


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
    wav: WavOption = False,
    mp3: Mp3Option = False,
    svg: SvgOption = False,
    pdf: PdfOption = False,
    png: PngOption = False,
    html: HtmlOption = False,
    open_page: OpenOption = False,
    soundfont: SoundfontOption = None,
    device: DeviceOption = Device.cpu,
    as_json: JsonOption = False,
) -> None:
    """Write bars in the middle of a score, with what comes before and after in sight; all else stays as it is."""
    from dataclasses import asdict

    from musicgen import fill_and_harmonise, renditions
    from musicgen.sampling import SamplingConfig

    beside = Beside(kinds_chosen(wav=wav, mp3=mp3, svg=svg, pdf=pdf, png=png), html, open_page, soundfont)
    beside.check(out)
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
    besides = beside.make(
        partial(renditions.filled_pieces, report), partial(renditions.fill_page, report), out.with_suffix(".html")
    )
    if as_json:
        made = [
            {"file": str(path), **asdict(take.figures), "nats_after": take.nats_after}
            for path, take in zip(report.files, report.takes, strict=True)
        ]
        print(json.dumps({"bars": str(report.hole), "takes": made, "beside": besides}, ensure_ascii=False, indent=1))
        return
    print_fillings(report)
    for file in besides:
        print(printable(f"made   {file}"))
    again = ["musicgen", "fill", str(score), "--bars", bars]
    print_next(shlex.join([*again, *_another_seed(checkpoint, out, takes, seed)]))


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
    wav: WavOption = False,
    mp3: Mp3Option = False,
    svg: SvgOption = False,
    pdf: PdfOption = False,
    png: PngOption = False,
    html: HtmlOption = False,
    open_page: OpenOption = False,
    soundfont: SoundfontOption = None,
    device: DeviceOption = Device.cpu,
    as_json: JsonOption = False,
) -> None:
    """Write other parts under a melody, or under any score; what was given stays as it is."""
    from musicgen import fill_and_harmonise, renditions
    from musicgen.sampling import SamplingConfig

    beside = Beside(kinds_chosen(wav=wav, mp3=mp3, svg=svg, pdf=pdf, png=png), html, open_page, soundfont)
    beside.check(out)
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
    besides = beside.make(
        partial(renditions.harmonised_pieces, report),
        partial(renditions.harmonise_page, report),
        out.with_suffix(".html"),
    )
    if as_json:
        made = [
            {"file": str(path), "nats_per_note": take.nats_per_note, "notes": take.notes}
            for path, take in zip(report.files, report.takes, strict=True)
        ]
        print(json.dumps({"added": list(report.added), "takes": made, "beside": besides}, ensure_ascii=False, indent=1))
        return
    print_harmonisations(report)
    for file in besides:
        print(printable(f"made   {file}"))
    named = [word for names in add_part or () for word in ("--add-part", names)]
    again = ["musicgen", "harmonise", str(score), *named]
    print_next(shlex.join([*again, *_another_seed(checkpoint, out, takes, seed)]))


def demo(
    out: Annotated[Path, typer.Option(help="folder to write into")] = Path("out/demo"),
    home: Annotated[Path, typer.Option(help="the folder that holds data/ and checkpoints/")] = Path("."),
    seed: SeedOption = 0,
) -> None:
    """The main job, with the checkpoints that ship: a tune, a piece for orchestra, and Schubert's scherzo finished."""
    from musicgen import renditions, workflows
    from musicgen.given import bundled
    from musicgen.render.roll import draw_roll
    from musicgen.sampling import SamplingConfig

    fragment, orchestra, folk = bundled(home)
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
    roll = out / "scherzo-finished.roll.png"
    draw_roll(report.takes[0].whole, roll, seam=report.takes[0].seam)
    page = out / "scherzo-finished.html"
    with kinds_bar() as bar:
        renditions.write_page(renditions.finish_page(report, progress=bar), page)
        played = renditions.render_pieces(renditions.sampled_pieces([tune, piece]), ["mp3"], on_kind=bar).files
    print_table(
        ("a new tune", f"{', '.join(map(str, (*tune.files, played[0])))}  {tune.bars} bars, {tune.notes} notes"),
        ("a new piece", f"{piece.files[0]}, {played[1]}  {piece.bars} bars, {piece.notes} notes, {piece.parts} parts"),
        *(("the scherzo, finished", f"{path}  9 + 32 bars, {report.takes[0].notes} new notes") for path in files),
        ("the four takes of it", str(report.page)),
        ("its piano roll", str(roll)),
        ("to hear and see it", f"{page}, in a browser"),
    )
    print_next("musicgen finish YOUR-UNFINISHED-SCORE --out out/finished.mid --takes 4")


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
