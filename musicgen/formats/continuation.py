"""Which originals stay as they are while they are continued: MIDI as MIDI, MusicXML as MusicXML, ABC as ABC.

In come the original file, the fragment that was read of it and the whole that it became; out goes a file in which all
of the original stands untouched, and what is new is put in. Any other pair of suffixes is written anew, by `files`. The
modules are imported where used, for music21 takes seconds to load.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from musicgen.errors import FormatError
from musicgen.formats.files import WRITERS
from musicgen.formats.tail import changes_between
from musicgen.score import Part, Score


def goes_on_in_place(original: Path, out: Path) -> bool:
    """Whether a continuation of `original` that is called `out` holds the original untouched."""
    kind = WRITERS.get(original.suffix.lower())
    return kind is not None and kind == WRITERS.get(out.suffix.lower())


def check_continuation(original: Path, written: Score, fragment: Score, joining: Sequence[Part] = ()) -> None:
    """Raises FormatError, saying what to do, where the file can't be continued in place.

    written: as it is read; fragment: what is continued, `written` itself or with its repeats played out; joining: parts
    that are to join in.
    """
    kind = WRITERS[original.suffix.lower()]
    if joining and kind == "abc":
        raise FormatError(
            f"{original}: --add-part can't put a voice into an ABC tune without touching it; write to .mid or "
            ".musicxml, or give --new-only"
        )
    if kind == "midi":
        from musicgen.formats import midi_events

        midi_events.check_voices(original, fragment.parts)
    elif kind == "musicxml":
        from musicgen.formats import musicxml_continue

        musicxml_continue.check_continuation(original, written, fragment)
    else:
        from musicgen.formats import abc_continue

        abc_continue.check_continuation(original, fragment)


def write_continuation(original: Path, fragment: Score, whole: Score, path: Path) -> None:
    """`original` with what `whole` has from `fragment.length` on, to a temporary file first, then renamed.

    Parts of `whole` that `fragment` has not come after its own, and join in there. Raises FormatError.
    """
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    kind = WRITERS[original.suffix.lower()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "midi":
            from musicgen.formats import midi_events

            seam, count = fragment.length, len(fragment.parts)
            new = [part.notes[part.notes["onset"] >= seam] for part in whole.parts[:count]]
            midi_events.write_continuation(
                original,
                fragment.parts,
                new,
                seam,
                whole.length,
                temporary,
                joining=whole.parts[count:],
                changes=changes_between(fragment, whole),
            )
        elif kind == "musicxml":
            from musicgen.formats import musicxml_continue

            musicxml_continue.write_continuation(original, fragment, whole, temporary)
        else:
            from musicgen.formats import abc_continue

            abc_continue.write_continuation(original, fragment, whole, temporary)
        temporary.replace(path)
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
