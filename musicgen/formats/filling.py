"""Which originals stay as they are while bars of them are filled, or parts are added: MIDI, MusicXML and ABC alike.

In come the original file, the score that was read of it as written and the whole that it became; out goes the file with
these bars' notes changed, or with parts added behind its own, and all else as it was. Where the suffix of what is
written is another kind's (see `continuation.goes_on_in_place`), `files` writes it anew. The modules are imported where
used, for music21 takes seconds to load.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from musicgen.errors import FormatError
from musicgen.formats.files import WRITERS
from musicgen.score import Score


def check_filling(original: Path, score: Score, first: int, until: int) -> None:
    """Raises FormatError, saying what to do, where bars first..until-1 (from 0) can't be filled in the file itself.

    score: the file as it is read, its repeats not played out.
    """
    if not 0 <= first < until <= len(score.bars):
        raise FormatError(f"{original}: bars {first + 1} to {until} of a score of {len(score.bars)} bars")
    kind = WRITERS[original.suffix.lower()]
    if kind == "midi":
        from musicgen.formats import midi_fill

        midi_fill.check_filling(original, score)
    elif kind == "musicxml":
        from musicgen.formats import musicxml_fill

        musicxml_fill.check_filling(original, score, first, until)
    else:
        from musicgen.formats import abc_fill

        abc_fill.check_filling(original, score, first, until)


def write_filled(original: Path, score: Score, whole: Score, first: int, until: int, path: Path) -> None:
    """`original` with the notes of bars first..until-1 (from 0) as `whole` has them, to a temporary file, then renamed.

    whole: has the parts, bars, maps and length of `score`, and the notes too but for those that begin in these bars;
    none of the new ones sounds past their end. A part that plays in them what it did stays as it is written. Raises
    FormatError.
    """
    kind = WRITERS[original.suffix.lower()]
    with _renamed(path) as temporary:
        if kind == "midi":
            from musicgen.formats import midi_fill

            midi_fill.write_filled(original, score, whole, first, until, temporary)
        elif kind == "musicxml":
            from musicgen.formats import musicxml_fill

            musicxml_fill.write_filled(original, score, whole, first, until, temporary)
        else:
            from musicgen.formats import abc_fill

            abc_fill.write_filled(original, score, whole, first, until, temporary)


def check_adding(original: Path, score: Score) -> None:
    """Raises FormatError, saying what to do, where no part can be put into the file itself, behind its own."""
    kind = WRITERS[original.suffix.lower()]
    if kind == "midi":
        from musicgen.formats import midi_events

        midi_events.read_tracks(original)
    elif kind == "musicxml":
        from musicgen.formats import musicxml_add

        musicxml_add.check_adding(original, score)
    else:
        from musicgen.formats import abc_add

        abc_add.check_adding(original, score)


def write_with_parts(original: Path, score: Score, whole: Score, path: Path) -> None:
    """`original` with the parts that `whole` has behind those of `score`, to a temporary file, then renamed.

    whole: its first parts, its bars and its maps are those of `score`. Raises FormatError.
    """
    kind = WRITERS[original.suffix.lower()]
    with _renamed(path) as temporary:
        if kind == "midi":
            from musicgen.formats import midi_fill

            midi_fill.write_with_parts(original, score, whole, temporary)
        elif kind == "musicxml":
            from musicgen.formats import musicxml_add

            musicxml_add.write_with_parts(original, score, whole, temporary)
        else:
            from musicgen.formats import abc_add

            abc_add.write_with_parts(original, score, whole, temporary)


@contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to, renamed to it once it is written. Raises FormatError."""
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
