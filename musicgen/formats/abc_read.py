"""ABC text to scores, by the ABC 2.1 standard as tunes in the wild use it.

In comes the text of a file of one or many tunes; out comes one Score a tune, as written: a repeat sign is a Sign, not
music played twice (`musicgen.score.unfold` does that), and so are the parts of a tune (P:) and its jumps (!D.C.!,
!fine!, ...). A voice is a part; the first voice with notes states the bars, metres and keys. One compiled regex cuts
the lines, so that a thousand tunes take half a second. Here tunes are read line by line and made into scores; header
and fields are taken by `abc_tune`, the music by `abc_music`.

Left out, knowingly: slurs, the lengths of grace notes and those that lead to nothing, decorations other than jumps,
annotations, lyrics, beaming, lines of typeset text. Macros (m:) are not expanded: their notes are read as they stand.
Microtones are rounded to semitones. Where P: in the header names parts that the tune has not, it counts for nothing.

The standard decides where programs differ: an accidental holds to the end of the bar in every octave (11.3, unless
%%propagate-accidentals says otherwise); a tied note keeps its accidental over the barline, the notes after it do not;
`Q:120` counts unit lengths a minute (10.1); a chord lasts as long as its first note (4.17). What is between unequal
notes a broken rhythm leaves undefined (4.4); here each has its own length changed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from musicgen.errors import FormatError, ScoreError
from musicgen.formats.abc_fields import FINE, FieldError
from musicgen.formats.abc_music import read_body_line
from musicgen.formats.abc_text import COMMENT, decode_text, split_tunes
from musicgen.formats.abc_tune import Tune
from musicgen.formats.abc_voice import Mark, Voice
from musicgen.score import (
    NOTE,
    ChordSymbol,
    Key,
    Metre,
    Part,
    Score,
    Sign,
    Tempo,
    graces_array,
)
from musicgen.score.edit import changes

MAX_LINE = 100_000
MAX_NOTES = 200_000
"""Notes of one tune beyond which it is refused."""

VELOCITY = 80


def read(path: str | Path) -> list[Score]:
    """Every tune of a file that can be read, as written. Raises FormatError where none can.

    `read_tunes` tells of the tunes left out too.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from error
    return read_text(decode_text(data), str(path))


def read_text(text: str, source: str = "abc") -> list[Score]:
    """Every tune of ABC text that can be read, as written. Raises FormatError naming source and line where none can."""
    tunes = read_tunes(text, source)
    scores = [tune for tune in tunes if isinstance(tune, Score)]
    if not scores:
        raise next((t for t in tunes if isinstance(t, FormatError)), FormatError(f"{source}: empty"))
    return scores


def read_tunes(text: str, source: str = "abc") -> list[Score | FormatError]:
    """One entry a tune, in file order: its score as written, or the error that kept it from being read."""
    found: list[Score | FormatError] = []
    file_header, tunes = split_tunes(text)
    for first_line, lines in tunes:
        tune = Tune(source, first_line)
        try:
            found.append(read_tune(tune, file_header, lines))
        except FieldError as error:
            found.append(tune.error(str(error)))
        except FormatError as error:
            found.append(error)
        except ScoreError as error:
            found.append(FormatError(f"{source}:{first_line}: tune {tune.title!r}: {error}; correct it"))
    if not found:
        found.append(FormatError(f"{source}:1: no tune found; an ABC tune begins with X:1 and has a K: line"))
    return found


def read_tune(tune: Tune, file_header: list[str], lines: list[str]) -> Score:
    """The score of a tune, new at its first line, out of its lines.

    Raises FormatError, FieldError (without the line) or ScoreError.
    """
    first_line = tune.line
    in_header = True
    for line in file_header:
        tune.read_header_line(line)
    if any(line.startswith("+:") for line in lines):
        lines = joined(lines)
    for number, line in enumerate(lines, first_line):
        tune.line = number
        if in_header:
            in_header = not tune.read_header_line(line)
            if not in_header:
                tune.open_body()
        else:
            if len(line) > MAX_LINE:
                raise tune.error(f"a line of {len(line):,} characters, more than the {MAX_LINE:,} that are read")
            read_body_line(tune, line)
            voices = (*tune.voices.values(), tune.template)
            if sum([len(voice.notes) + len(voice.graces) for voice in voices]) > MAX_NOTES:
                raise tune.error(f"more than {MAX_NOTES:,} notes in one tune; split it")
    if in_header:
        tune.line = first_line
        raise tune.error("the tune has no K: line; add one, as in K:C, before the music")
    return to_score(tune, first_line)


def joined(lines: list[str]) -> list[str]:
    """The lines with what a +: line says put behind the field it continues; an empty comment stays in its place."""
    found: list[str] = []
    field = 0
    for line in lines:
        if line.startswith("+:") and found:
            found[field] += " " + COMMENT.sub("", line[2:]).strip()
            line = "%"
        elif not line.startswith("%"):
            field = len(found)
        found.append(line)
    return found


LEAVING = ("to_coda", "fine", "da_capo", "dal_segno")


def to_score(tune: Tune, first_line: int) -> Score:
    """The score of a tune that is read to its end. Raises FormatError at its first line where it has no notes."""
    voices = [v for v in tune.voices.values() if v.at] or ([tune.template] if tune.template.at else [])
    for voice in voices:
        voice.finish()
    lead = next((v for v in voices if v.notes), None)
    if lead is None:
        tune.line = first_line
        raise tune.error(f"tune {tune.title!r} has no notes; write some after its K: line")
    longest = max(voices, key=lambda v: v.at)
    bars = [ticks(b) for b in lead.bars]
    if longest.at > lead.at:
        bars += [ticks(b) for b in longest.bars if b >= lead.at]
    parts = tuple(part_of(voice) for voice in voices)
    length = max(ticks(longest.at), *(part.end for part in parts))
    tempos: dict[int, Tempo] = {0: Tempo(0, 120.0)}
    for at, bpm in sorted(tune.tempos, key=lambda tempo: tempo[0]):
        tempos[ticks(at)] = Tempo(ticks(at), bpm)
    chords = sorted({(ticks(at), text) for v in voices for at, text in v.chords})
    others = [sign for voice in voices if voice is not lead for sign in voice.signs if sign[1] in LEAVING]
    marks = jumps(list(dict.fromkeys([*tune.marks, *others])), lead.signs)
    signs = lead.signs + [mark for mark in marks if mark[1] in LEAVING or ticks(mark[0]) < length]
    labels = {label for _, kind, _, label in signs if kind == "section"}
    return Score(
        parts=parts,
        title=tune.title,
        tempos=changes(list(tempos.values()), length),
        metres=changes([Metre(ticks(at), *metre) for at, metre in lead.metres], length),
        keys=changes([Key(ticks(at), fifths, mode) for at, fifths, mode in lead.keys], length),
        bars=sorted({b for b in bars if b < length or b == 0}),  # type: ignore[arg-type]
        length=length,
        signs=tuple(Sign(ticks(at), kind, passes, label) for at, kind, passes, label in signs),
        chord_symbols=tuple(ChordSymbol(at, text) for at, text in chords if at < length),
        order=tune.order if labels.issuperset(tune.order) else (),
    )


def part_of(voice: Voice) -> Part:
    """The voice as a part, its times rounded to ticks."""
    onset, end, pitch, _ = np.array(voice.notes, dtype=np.int64).reshape(-1, 4).T  # FINE parts of a tick: under 2**50
    notes = np.empty(len(onset), dtype=NOTE)
    notes["onset"], notes["pitch"], notes["velocity"] = ticks(onset), pitch, VELOCITY
    notes["duration"] = np.maximum(ticks(end) - notes["onset"], 1)
    graces = placed_graces(voice) if voice.graces else graces_array()
    return Part(voice.name, voice.program, voice.is_drum, notes, graces)


def placed_graces(voice: Voice) -> np.ndarray:
    """(n,) GRACE array: the voice's graces, numbered from 0 at each tick in the order they are written."""
    places: dict[int, int] = {}
    found = []
    for at, pitches, slashed in voice.graces:
        onset = ticks(at)
        place = places[onset] = places.get(onset, -1) + 1
        found += [(onset, place, pitch, slashed) for pitch in pitches]
    return graces_array(found)


def jumps(marks: list[Mark], signs: list[Mark]) -> list[Mark]:
    """The marks, in which all coda signs but the last say where to leave for it, unless !dacoda! says so."""
    codas = [mark for mark in marks if mark[1] == "coda"]
    if len(codas) < 2 or any(kind == "to_coda" for _, kind, _, _ in (*marks, *signs)):
        found = marks
    else:
        last = max(codas)
        found = [(m[0], "to_coda", (), "") if m[1] == "coda" and m is not last else m for m in marks]
    there = set(signs)
    return [mark for mark in found if mark not in there]


def ticks(fine):
    """FINE parts, one number or an array, rounded to ticks."""
    return (fine + FINE // 2) // FINE
