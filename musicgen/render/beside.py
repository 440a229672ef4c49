"""A score that was written, made to be heard and seen: audio, the engraved page, the piano roll, beside its file.

In come the file that was written and, where it is known, the score as it is played and the tick from which it is new;
out go files of the same name with other suffixes. Each is written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from musicgen.errors import FormatError, RenderError, ScoreError
from musicgen.formats import read_tunes
from musicgen.formats.midi_events import marked_seam
from musicgen.render.audio import Audio, play, play_score, write_audio
from musicgen.render.engraving import A4, Engraving, Layout, engrave
from musicgen.render.roll import draw_roll
from musicgen.render.sheet import write_sheet
from musicgen.render.soundfonts import find_soundfont
from musicgen.score import Score, unfold, written_of_played
from musicgen.score.timing import for_notation

AUDIO = ("wav", "mp3")
SHEETS = ("svg", "pdf", "png")
KINDS = (*AUDIO, *SHEETS, "roll")
"""What can be made: two kinds of audio, three of engraved pages, and the piano roll (NAME.roll.png)."""

AS_WRITTEN = (".musicxml", ".xml", ".mxl", ".abc")
"""Suffixes of files that are engraved as they stand, with their slurs and words."""
MIDI = (".mid", ".midi")


@dataclass(frozen=True)
class Beside:
    """The files that were made, and what played the audio, if any was asked for."""

    files: tuple[Path, ...]
    player: str | None = None


def check_kinds(kinds: Sequence[str], soundfont: Path | None = None, known: Sequence[str] = KINDS) -> None:
    """Raises RenderError for a kind that is none, or, where one is to be heard, a SoundFont that is none.

    To be called before work is done.
    """
    for kind in kinds:
        if kind not in known:
            raise RenderError(f"{kind!r} is nothing that can be made; choose among {', '.join(known)}")
    if not {*kinds} <= {*SHEETS, "roll"}:
        find_soundfont(soundfont)


@dataclass(frozen=True)
class Piece:
    """A score that stands in a file: as it is written there, as it is played, and what of it is new.

    seam, until: the ticks of what is played between which it is new; None: nothing, and to the end. drawn: the same in
    ticks of what is written. parts: numbers of parts that are new altogether. written_of: where what is played is
    written (`score.written_of_played`), None where that is the same. again: (from, to) in played ticks where repeats
    bring back what was given.
    """

    path: Path
    written: Score
    played: Score
    seam: int | None = None
    until: int | None = None
    drawn: tuple[int | None, int | None] = (None, None)
    parts: tuple[int, ...] = ()
    written_of: tuple[tuple[int, int, int], ...] | None = None
    again: tuple[tuple[int, int], ...] = ()


def piece_in(
    path: Path,
    score: Score | None = None,
    seam: int | None = None,
    until: int | None = None,
    parts: Sequence[int] = (),
    written_of: tuple[tuple[int, int, int], ...] | None = None,
) -> Piece:
    """The piece in a file. score: what the file holds, of which `seam` and `until` are ticks; None: it is read.

    written_of: given where `score` has been played out already while the file has its repeats. Raises RenderError or
    FormatError.
    """
    if score is None:
        score = read_written(path)
        seam = marked_seam(path) if seam is None and path.suffix.lower() in MIDI else seam
    if written_of:  # what is played from the seam on is written elsewhere
        drawn = None if seam is None else next((w + seam - a for a, b, w in written_of if a <= seam < b), None)
        return Piece(path, score, score, seam, until, (drawn, None), tuple(parts), written_of)
    stretches = written_of_played(score)
    if len(stretches) < 2:
        return Piece(path, score, unfold(score), seam, until, (seam, until), tuple(parts))
    again: tuple[tuple[int, int], ...] = ()
    from_tick, to_tick = None, None
    if seam is not None:
        again = _given_again(stretches, seam)
        at = next(((a, b, w) for a, b, w in stretches if w <= seam < w + b - a), None)
        if at is not None:
            from_tick = at[0] + seam - at[2]
            to_tick = None if until is None else min(at[0] + until - at[2], at[1])
    return Piece(path, score, unfold(score), from_tick, to_tick, (seam, until), tuple(parts), stretches, again)


def _given_again(stretches: Sequence[tuple[int, int, int]], seam: int) -> tuple[tuple[int, int], ...]:
    """Played ticks at which repeats bring back what is written before `seam`, a written tick, once it was passed."""
    passed = next((place for place, (a, b, w) in enumerate(stretches) if w <= seam < w + b - a), len(stretches))
    return tuple((a, min(b, a + seam - w)) for a, b, w in stretches[passed + 1 :] if w < seam)


def render_beside(
    piece: Piece,
    kinds: Sequence[str],
    *,
    stem: Path | None = None,
    soundfont: Path | None = None,
    on_kind: Callable[[str], None] = lambda kind: None,
) -> Beside:
    """Make `kinds` of a piece, as STEM.wav and so on; stem None: its file's own name. What is new is blue.

    on_kind: called before each kind is made. Raises RenderError or FormatError.
    """
    check_kinds(kinds, soundfont)
    stem = stem or piece.path.with_suffix("")
    files: list[Path] = []
    audio = engraving = None
    for kind in dict.fromkeys(kinds):
        on_kind(kind)
        target = stem.with_name(f"{stem.name}.{'roll.png' if kind == 'roll' else kind}")
        if kind in AUDIO:
            audio = audio or played_audio(piece, soundfont)
            write_audio(audio, target)
            files.append(target)
        elif kind in SHEETS:
            engraving = engraving or engrave_piece(piece)
            files += write_sheet(engraving, target)
        else:
            draw_roll(piece.played, target, piece.seam, piece.until, piece.parts)
            files.append(target)
    return Beside(tuple(files), audio.player if audio else None)


def played_audio(piece: Piece, soundfont: Path | None = None) -> Audio:
    """A MIDI file with its pedal, its bends and its volumes; anything else as our MIDI."""
    if piece.path.suffix.lower() in MIDI:
        return play(piece.path.read_bytes(), soundfont)
    return play_score(piece.played, soundfont)


def engrave_piece(piece: Piece, layout: Layout = A4) -> Engraving:
    """A file of notation as it is written; any other as the notes that a page would show of it.

    Raises FormatError or RenderError.
    """
    as_written = piece.path.suffix.lower() in AS_WRITTEN
    source = piece.path if as_written else as_notation(piece.path, piece.written)
    seam, until = piece.drawn
    return engrave(source, seam, layout, until=until, new_parts=piece.parts)


def as_notation(path: Path, played: Score) -> Score:
    """What stands in a MIDI file in the lengths that a page would show; anything else is written so already.

    Raises FormatError for MIDI that was played without regard to bar lines.
    """
    try:
        return for_notation(played) if path.suffix.lower() in MIDI else played
    except ScoreError as error:
        raise FormatError(f"{path}: can't be written as notes on a page: {error}") from error


def read_written(path: Path) -> Score:
    """The one piece in a file, with its repeats. Raises RenderError where there are several, or no notes."""
    tunes = read_tunes(path)
    if len(tunes) > 1:
        raise RenderError(f"{path}: holds {len(tunes)} tunes; put the one to be rendered into a file of its own")
    if not isinstance(tunes[0], Score):
        raise tunes[0]
    if not tunes[0].note_count:
        raise RenderError(f"{path}: no notes, so there is nothing to hear or to see")
    return tunes[0]
