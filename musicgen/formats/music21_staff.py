"""One part of a music21 stream on the clock: its measures, and the ticks at which each begins.

In come music21 parts, and what a file itself says of them; out come staves, with bars on which all parts agree, for
`music21_score` to fill. Parts of one piece often differ in the length of a bar, by a slip or by music21's own guesses,
so that bars are measured here before anything is placed in them. music21 is imported inside: it takes a while to load.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from musicgen.score import TICKS_PER_QUARTER, ChordSymbol, Key, Metre, Sign, Tempo


@dataclass
class PartFacts:
    """What one <score-part> and its <part> say that music21 doesn't pass on.

    programs: declared General MIDI programs 0..127, in order. transposes: (bar index, quarters into the bar, semitones
    to sounding pitch). lengths: what each bar holds, in ticks; full: what its metre would have it hold.
    """

    name: str = ""
    programs: list[int] = field(default_factory=list)
    is_drum: bool = False
    transposes: list[tuple[int, Fraction, int]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    full: list[int] = field(default_factory=list)


RawNote = tuple[int, int, int, int, str, str]
RawGrace = tuple[int, int, int, bool]


@dataclass
class Staff:
    """One music21 part on the clock. notes: (onset, end, pitch, velocity or 0, tie type or "", voice), in ticks;
    graces: (onset, place, pitch, slashed)."""

    measures: list[Any]
    starts: list[int]
    end: int
    notes: list[RawNote] = field(default_factory=list)
    graces: list[RawGrace] = field(default_factory=list)
    signs: list[Sign] = field(default_factory=list)
    loudness: list[tuple[int, int, bool]] = field(default_factory=list)  # (onset, velocity, holds on)
    keys: list[Key] = field(default_factory=list)
    metres: list[Metre] = field(default_factory=list)
    tempos: list[Tempo] = field(default_factory=list)
    chords: list[ChordSymbol] = field(default_factory=list)


def ticks(quarters: Any) -> int:
    """Quarter notes (float or Fraction) in ticks, to the nearest."""
    return round(quarters * TICKS_PER_QUARTER)


def collect_measures(part: Any) -> Staff:
    """A part's measures and where music21 puts them; a part without measures gets some."""
    from music21.stream import Measure

    measures = list(part.getElementsByClass(Measure))
    if not measures:
        if isinstance(part, Measure):
            return Staff([part], [0], ticks(part.highestTime))
        part = part.makeMeasures()
        measures = list(part.getElementsByClass(Measure))
    starts = [ticks(part.elementOffset(measure)) for measure in measures]
    end = starts[-1] + ticks(measures[-1].highestTime) if measures else 0
    return Staff(measures, starts, end)


SLIP = TICKS_PER_QUARTER // 2
"""A bar that is too long by less than this, in one part and not in another, is a slip of the pen: ticks."""


def agree_on_bars(staves: list[Staff], facts: list[PartFacts]) -> tuple[list[int], int]:
    """Bar starts and the end of the last bar, for all parts: a bar is as long as the longest part makes it, or as its
    metre says where that part overfills it a little and another does not.

    Parts are laid bar by bar where they have as many bars as the first; any other stays where music21 put it.
    """
    count = len(staves[0].starts)
    if count == 0:
        return [0], max(staff.end for staff in staves)
    alike = [s for s in staves if len(s.starts) == count]
    # the file's own durations, where they are known: music21 stretches bars for marks that stand to the right
    # of them, and for rests that it takes for a whole bar's
    stated = [(f.lengths, f.full) for f in facts if len(f.lengths) == count] or [_fill(staff) for staff in alike]
    lengths, full = np.max([row for row, _ in stated], axis=0), np.array(stated[0][1])
    slips = (lengths > full) & (lengths < full + SLIP) & np.any([np.array(row) == full for row, _ in stated], axis=0)
    lengths = np.where(slips, full, lengths)
    # measures of no length (a stray barline) are no bars
    bounds = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    for staff in alike:
        staff.starts = [int(b) for b in bounds[:-1]]
    keep = [int(b) for b, length in zip(bounds[:-1], lengths, strict=True) if length > 0]
    return keep or [0], int(bounds[-1])


def _fill(staff: Staff) -> tuple[list[int], list[int]]:
    """(what each bar of a music21 part holds, what it would by its metre), in ticks, by its notes and rests alone."""
    from music21 import meter, note, stream

    lengths, full, metre = [], [], 0
    for measure in staff.measures:
        length: Any = 0
        for element in measure:
            if isinstance(element, note.GeneralNote):
                length = max(length, measure.elementOffset(element) + element.duration.quarterLength)
            elif isinstance(element, stream.Voice):
                length = max(length, measure.elementOffset(element) + element.highestTime)
            elif isinstance(element, meter.TimeSignature):
                metre = ticks(element.barDuration.quarterLength)
        lengths.append(ticks(length))
        full.append(metre)
    return lengths, full
