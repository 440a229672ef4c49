"""What was written, made to be heard and seen: audio, engraved pages, piano rolls, and the one page with all of it.

Typed in, typed out, like `workflows`; nothing is printed. `render` needs no model: what imports PyTorch is imported
where it is used.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from musicgen.errors import FormatError, MusicgenError, RenderError
from musicgen.formats import WRITERS, write_score
from musicgen.render.beside import (
    KINDS,
    Beside,
    Piece,
    as_notation,
    check_kinds,
    engrave_piece,
    piece_in,
    played_audio,
    render_beside,
)
from musicgen.render.engraving import SCREEN
from musicgen.render.page import Shown, page_html, sound_of
from musicgen.score import written_of_played

if TYPE_CHECKING:
    from musicgen.fill_and_harmonise import FillReport, HarmoniseReport
    from musicgen.workflows import FinishReport, Written

PAGE = "html"
"""The kind of rendition that has all the others in it."""

Progress = Callable[[str], None]
"""Called with a word or two before each thing is made."""


def no_progress(what: str) -> None:
    """For those who don't look."""


@dataclass(frozen=True)
class Rendered:
    """The files that were made, what played the audio, if any was made, and the seconds that each kind took."""

    files: tuple[Path, ...]
    player: str | None
    seconds: dict[str, float]


def render(
    source: str | Path,
    kinds: Sequence[str],
    *,
    out: str | Path | None = None,
    soundfont: str | Path | None = None,
    on_kind: Progress = no_progress,
) -> Rendered:
    """Make `kinds` (`render.beside.KINDS`, html) of a score, beside it, or as OUT.wav and so on, or in a folder `out`.

    The first of wav and mp3 has the time of playing in it, the first of svg, pdf and png that of engraving. Raises
    RenderError or FormatError.
    """
    source, font = Path(source), Path(soundfont) if soundfont is not None else None
    known = (*KINDS, PAGE)
    if not kinds:
        raise RenderError(f"nothing is asked for; choose among {', '.join(known)}")
    check_kinds(kinds, font, known)
    stem = source.with_suffix("")
    if out is not None:
        inside = Path(out).is_dir() or str(out).endswith(("/", os.sep))
        stem = Path(out) / stem.name if inside else Path(out)
        if not inside and stem.suffix[1:] in kinds:
            stem = stem.with_suffix("")
    began, running, seconds = time.perf_counter(), "", dict[str, float]()

    def stop() -> None:
        if running:
            seconds[running] = time.perf_counter() - began

    def note(kind: str) -> None:
        nonlocal began, running
        stop()
        began, running = time.perf_counter(), kind
        on_kind(kind)

    try:
        files = [kind for kind in kinds if kind != PAGE]
        piece = piece_in(source)
        made = render_beside(piece, files, stem=stem, soundfont=font, on_kind=note) if files else Beside(())
        if PAGE in kinds:
            note(PAGE)
            page = stem.with_name(f"{stem.name}.{PAGE}")
            shown = [show(piece, stem.name, soundfont=font)]
            write_page(page_html(piece.written.title or stem.name, shown, noun="Piece"), page)
            made = replace(made, files=(*made.files, page))
    except OSError as error:
        raise FormatError(f"{error.filename or stem}: {error.strerror or error}") from error
    stop()
    return Rendered(made.files, made.player, seconds)


def render_pieces(
    pieces: Sequence[Piece], kinds: Sequence[str], *, soundfont: Path | None = None, on_kind: Progress = no_progress
) -> Rendered:
    """Make `kinds` of every piece, beside its file, with what is new in blue. Raises RenderError or FormatError."""
    made = [render_beside(piece, kinds, soundfont=soundfont, on_kind=on_kind) for piece in pieces]
    return Rendered(tuple(file for one in made for file in one.files), made[0].player if made else None, {})


# ------------------------------------------------------------------------------------------------ what a workflow wrote


def finished_pieces(report: FinishReport) -> list[Piece]:
    """The takes of a continuation, new from their seam on."""
    from musicgen.finishing import from_seam

    found = []
    for path, take in zip(report.files, report.takes, strict=True):
        if report.new_only:
            found.append(piece_in(path, from_seam(take)))
            continue
        written_of = None
        if report.written is not None:  # the continuation stands behind the score with its repeats
            written_of = (*written_of_played(report.written), (take.seam, take.whole.length, report.written.length))
        found.append(piece_in(path, take.whole, take.seam, written_of=written_of))
    return found


def filled_pieces(report: FillReport) -> list[Piece]:
    """The ways to fill a hole, new from its first bar to its last."""
    found = []
    for path, take in zip(report.files, report.takes, strict=True):
        bars = [*take.whole.bars.tolist(), take.whole.length]
        found.append(piece_in(path, take.whole, bars[report.hole.first - 1], bars[report.hole.last]))
    return found


def harmonised_pieces(report: HarmoniseReport) -> list[Piece]:
    """The ways to harmonise, of which the last parts are new."""
    found = []
    for path, take in zip(report.files, report.takes, strict=True):
        count = len(take.whole.parts)
        found.append(piece_in(path, take.whole, parts=range(count - len(report.added), count)))
    return found


def sampled_pieces(written: Sequence[Written]) -> list[Piece]:
    """New pieces from nothing."""
    return [piece_in(piece.files[0]) for piece in written]


# ------------------------------------------------------------------------------------------------------------- the page


def finish_page(report: FinishReport, *, soundfont: Path | None = None, progress: Progress = no_progress) -> str:
    """All takes on one page of HTML that needs nothing but itself: to hear, to look at, to take away.

    Its table has the figures that the terminal shows; the report below it has all.
    """
    from musicgen.sampling.takes import FEATURES
    from musicgen.sampling.takes_report import TAKES_COLUMNS, takes_rows

    rows = takes_rows(report.takes, [path.name for path in report.files], report.understanding.bars)
    facts = [
        [(name, value) for name, value in zip(TAKES_COLUMNS[2:], row[2:], strict=True) if name not in FEATURES]
        for row in rows
    ]
    title = f"{report.understanding.title or report.files[0].stem}, continued"
    text = report.page.read_text(encoding="utf-8")
    return _takes_page(title, finished_pieces(report), facts, text, soundfont, progress)


def fill_page(report: FillReport, *, soundfont: Path | None = None, progress: Progress = no_progress) -> str:
    """All ways to fill a hole on one such page."""
    pieces = filled_pieces(report)
    title = f"{pieces[0].written.title or report.files[0].stem}: bars {report.hole}"
    facts = [[("notes", f"{take.notes:,}"), ("nats a note", f"{take.nats_per_note:.2f}")] for take in report.takes]
    return _takes_page(title, pieces, facts, "", soundfont, progress)


def harmonise_page(report: HarmoniseReport, *, soundfont: Path | None = None, progress: Progress = no_progress) -> str:
    """All ways to harmonise on one such page."""
    pieces = harmonised_pieces(report)
    title = f"{pieces[0].written.title or report.files[0].stem}, harmonised"
    facts = [[("notes", f"{take.notes:,}"), ("nats a note", f"{take.nats_per_note:.2f}")] for take in report.takes]
    return _takes_page(title, pieces, facts, "", soundfont, progress)


def sample_page(written: Sequence[Written], *, soundfont: Path | None = None, progress: Progress = no_progress) -> str:
    """New pieces on one such page."""
    shown = []
    for piece in sampled_pieces(written):
        progress(piece.path.name)
        shown.append(show(piece, piece.path.stem, soundfont=soundfont))
    return page_html("New music", shown, noun="Piece")


def _takes_page(
    title: str,
    pieces: Sequence[Piece],
    facts: Sequence[Sequence[tuple[str, str]]],
    text: str,
    soundfont: Path | None,
    progress: Progress,
) -> str:
    shown = []
    for number, (piece, figures) in enumerate(zip(pieces, facts, strict=True), 1):
        progress(f"take {number}")
        shown.append(show(piece, f"Take {number}", figures, soundfont))
    return page_html(title, shown, text)


def write_page(html: str, path: Path) -> None:
    """Whole or not at all. Raises FormatError."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(html, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def show(piece: Piece, name: str, facts: Sequence[tuple[str, str]] = (), soundfont: Path | None = None) -> Shown:
    """What a page needs of a piece. One that no page of notes can hold is shown without one, silence without sound."""
    try:
        engraving = engrave_piece(piece, SCREEN)
    except MusicgenError:
        engraving = None
    with tempfile.TemporaryDirectory() as folder:
        files = [piece.path, *also_written(piece, Path(folder))]
        downloads = tuple((file.name, file.read_bytes()) for file in files)
    return Shown(
        name=name,
        score=piece.played,
        seam=piece.seam,
        until=piece.until,
        new_parts=piece.parts,
        engraving=engraving,
        written_of=piece.written_of,
        again=piece.again,
        sound=sound_of(played_audio(piece, soundfont)) if piece.played.note_count else None,
        downloads=downloads,
        facts=tuple(facts),
    )


def also_written(piece: Piece, folder: Path) -> list[Path]:
    """A piece in the folder as MIDI, repeats played, and as MusicXML, where it is neither: what can be written."""
    files = []
    seam, until = piece.drawn if piece.written is not piece.played else (piece.seam, piece.until)
    for kind, suffix in (("midi", ".mid"), ("musicxml", ".musicxml")):
        if WRITERS.get(piece.path.suffix.lower()) != kind:
            with suppress(MusicgenError):
                other = folder / piece.path.with_suffix(suffix).name
                if kind == "midi":
                    write_score(piece.played, other)
                else:
                    score = as_notation(piece.path, piece.written)
                    write_score(score, other, mark_from=seam, mark_until=until, mark_parts=piece.parts)
                files.append(other)
    return files
