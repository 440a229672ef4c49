"""The signs of a music21 stream: repeats, endings and double bars, sections, and where to jump.

In come a staff that is laid on the clock, music21's barlines, brackets and expressions, and the marks that a file
states where music21 drops them; out come Signs, which hold for all parts: repeats are read from the first alone.
music21 is imported inside: it takes a while to load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from musicgen.formats.music21_staff import Staff, ticks
from musicgen.score import Sign

MOST_TIMES = 16
"""That a repeat is played."""


@dataclass
class Mark:
    """A section, or a sign of where to jump, in a bar (index from 0): at the bar's end, or at its beginning."""

    bar: int
    at_end: bool
    kind: str
    label: str = ""


LEAVING = ("to_coda", "fine", "da_capo", "dal_segno")
"""Signs that hold at the end of the bar they are printed over, wherever over it; others hold at its beginning."""

SECTION_COMMENT = ">"
"""A kern comment that begins with it names a section: the reader makes it from the interpretation "*>A"."""


def barline_signs(staff: Staff, holders: list[Any], end: int) -> list[Sign]:
    """Repeats, endings and double bars from the first part's measures. The last barline needs no sign to be final."""
    from music21.bar import Repeat
    from music21.spanner import RepeatBracket

    stops = [*staff.starts[1:], end]
    found: dict[tuple[int, str], Sign] = {}

    def add(onset: int, kind: str, passes: tuple[int, ...] = ()) -> None:
        found.setdefault((onset, kind), Sign(onset, kind, passes))

    place = {}
    for measure, start, stop in zip(staff.measures, staff.starts, stops, strict=True):
        place[id(measure)] = (start, stop)
        barlines = [(measure.leftBarline, start), (measure.rightBarline, stop)]
        # kern's repeat signs in the middle of a bar stand in the measure itself
        barlines += [
            (b, start + ticks(measure.elementOffset(b)))
            for b in measure.getElementsByClass(Repeat)
            if b is not measure.leftBarline and b is not measure.rightBarline
        ]
        for barline, onset in barlines:
            if barline is None:
                continue
            if isinstance(barline, Repeat):
                times = min(barline.times or 2, MOST_TIMES)
                back = tuple(range(1, times)) if times > 2 else ()  # a plain repeat says no number
                add(onset, *(("repeat_start",) if barline.direction == "start" else ("repeat_end", back)))
            elif barline.type in ("double", "light-light"):
                add(onset, "double")
            elif barline.type in ("final", "light-heavy") and onset < end:
                add(onset, "final")
    for holder in holders:
        for bracket in holder.getElementsByClass(RepeatBracket):
            spans = [place[id(m)] for m in bracket.getSpannedElements() if id(m) in place]
            if spans:
                passes = tuple(int(n) for n in bracket.numberRange or () if 0 < int(n) < 100)
                add(min(s[0] for s in spans), "ending", passes)
                add(max(s[1] for s in spans), "ending_stop")
    return list(found.values())


def jump_of(element: Any) -> tuple[str, str]:
    """(kind, label) of one of music21's signs of where to go; ("", "") of any other."""
    names = {"Segno": "segno", "Coda": "coda", "Fine": "fine"}
    name = type(element).__name__
    if name == "Coda" and element.getText().lower().startswith(("to ", "al ")):
        return "to_coda", ""
    if name in names:
        return names[name], ""
    for start, kind in (("DaCapo", "da_capo"), ("DalSegno", "dal_segno")):
        if name.startswith(start):
            return kind, {"AlFine": "al fine", "AlCoda": "al coda"}.get(name[len(start) :], "")
    return ("to_coda", "") if name == "AlCoda" else ("", "")


def stated_signs(marks: Sequence[Mark], staff: Staff, end: int) -> list[Sign]:
    """Marks of a file as signs at the barlines of its first part."""
    bounds = [*staff.starts, end]
    return [
        Sign(bounds[mark.bar + mark.at_end], mark.kind, label=mark.label)
        for mark in marks
        if mark.bar < len(staff.starts)
    ]
