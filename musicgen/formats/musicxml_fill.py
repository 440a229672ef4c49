"""Filling bars of a MusicXML file without touching the others: in the measures of the hole, notes and rests are new.

In come the original file, the score that was read of it and the whole that it became; out goes the original, byte for
byte, but for what plays or moves the clock in these measures. What else they hold stays, at its place in time:
attributes, barlines, dynamics, wedges, words, tempi, chord symbols, pedals, layout. New notes are written as the part
is: at its own pitch if it transposes, on its staves and in its voices, drums at their places; noteheads are blue. A
note that is held over from before the hole is written in it as the tied rest of that note, black. A part that plays in
the hole what it did stays as it is written there too. Of an .mxl every other member of the zip stays.

At the seams: a slur that leads into the hole ends on its first new note, one that leads out of it begins on its last.
Two things may change behind the hole, both in the next measure: a tie from a note that is gone is taken away (the note
that it led to is struck then, with the accidental that it needs), and where the hole needs finer `divisions` than the
file's, the file's are stated there again.

Knowingly lost in the hole: lyrics, articulations and cues of the notes that were there, and bars drawn as repeated or
as slashes. Beams that cross a seam are left as they are, and so is a bar's rest of several bars that begins before it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from musicgen.errors import FormatError
from musicgen.formats.musicxml_continue import (
    PartTail,
    StaffWriter,
    check_parts,
    name_voices,
    put_on_one_staff,
    share_staves,
)
from musicgen.formats.musicxml_continue_file import in_utf8, open_score, write_score
from musicgen.formats.musicxml_continue_scan import OpenPart, Staff, scan, written_pitch
from musicgen.formats.musicxml_fill_bar import Edit, bar_edits
from musicgen.formats.musicxml_fill_scan import ELSEWHERE, Child, Measure, measures_of, spans_over
from musicgen.formats.musicxml_fill_seams import attach, mend_ties, restate, taken
from musicgen.score import TICKS_PER_QUARTER, Key, Part, Score

_NEAR = 32
"""So many notes of a staff on either side of the hole say where a hand is."""


def check_filling(original: Path, score: Score, first: int, until: int) -> None:
    """Raises FormatError unless bars first..until-1 (from 0) can be filled in the file itself."""
    data, _ = in_utf8(open_score(original)[2])
    _open(original, data, score, first, until)


def _open(
    original: Path, data: bytes, score: Score, first: int, until: int
) -> tuple[list[OpenPart], list[list[Measure]], int, int]:
    """(the parts at their ends, their measures, the first measure of the hole, the one behind it)."""
    parts = scan(data, original)
    check_parts(original, parts, score)
    measures = measures_of(data, score, original)
    bars = [index for index, measure in enumerate(measures[0]) if measure.length]
    begin, end = bars[first], bars[until - 1] + 1
    for of_part, part in zip(measures, score.parts, strict=True):
        for measure in of_part[begin:end]:
            if measure.splits:
                raise FormatError(
                    f"{original}: in bar {bisect_right(score.bars, measure.start)} of {part.name or 'a part'} "
                    f"<divisions> change between notes, and it can't be filled in place; {ELSEWHERE}"
                )
    return parts, measures, begin, end


def write_filled(original: Path, score: Score, whole: Score, first: int, until: int, path: Path) -> None:
    """Write `original` with the notes that begin in bars first..until-1 (from 0) as `whole` has them.

    Raises FormatError.
    """
    members, name, raw = open_score(original)
    data, encoding = in_utf8(raw)
    parts, measures, begin, end = _open(original, data, score, first, until)
    edits: list[Edit] = []
    for index, (part, of_part) in enumerate(zip(parts, measures, strict=True)):
        hole = Hole(data, part, of_part, begin, end, score, whole, index)
        if hole.is_new():
            edits += hole.edits()
    made, at = bytearray(), 0
    for start, stop, text in sorted(edits, key=lambda edit: edit[:2]):
        made += data[at:start] + text
        at = stop
    made += data[at:]
    text = bytes(made) if encoding is None else bytes(made).decode("utf-8").encode(encoding)
    write_score(path, text, members, name)


# --- one part ---------------------------------------------------------------------------------------------------------


class Hole(PartTail):
    """The measures first..until-1 of one part, and what is written in them; notes are made the file's own as in a tail.

    part: as it stands at the end of the file; index: of the part in the score.
    """

    def __init__(
        self,
        data: bytes,
        part: OpenPart,
        measures: Sequence[Measure],
        first: int,
        until: int,
        score: Score,
        whole: Score,
        index: int,
    ) -> None:
        self.data, self.measures, self.first, self.until = data, measures, first, until
        self.hole = measures[first:until]
        self.start, self.stop = self.hole[0].start, self.hole[-1].start + self.hole[-1].length
        self.before, self.now, self.index = score.parts[index], whole.parts[index], index
        self.part = _near(part, measures, first, until)
        self.whole = whole

    def is_new(self) -> bool:
        """Whether the part plays anything else in the hole than it did."""

        def inside(events: np.ndarray) -> list:
            return events[(events["onset"] >= self.start) & (events["onset"] < self.stop)].tolist()

        return inside(self.before.notes) != inside(self.now.notes) or inside(self.before.graces) != inside(
            self.now.graces
        )

    def edits(self) -> list[Edit]:
        """What changes in the file."""
        found: list[Edit] = []
        divisions = self.hole[0].divisions if self.hole[0].stated else 0  # as they are in what is written
        bars = self._write_bars()
        for measure, staves in zip(self.hole, bars, strict=True):
            if measure.length:
                more, divisions = bar_edits(self.data, measure, staves, divisions)
                found += more
        found += mend_ties(self.data, self.measures, self.first, self.until, self.before)
        return found + restate(self.data, self.measures, self.until, divisions)

    # --- the new notes ------------------------------------------------------------------------------------------------

    def _write_bars(self) -> list[list[list[Element]]]:
        """For each measure of the hole and each staff its elements, with lengths in ticks."""
        held = self._held_over()
        staves = self._staves(held)
        writers = [_HoleWriter(local, self.start) for local in staves]
        usual = name_voices(self.part.staves)
        holding = [
            _holding(names, writer, [child for child in held if child.staff == staff], self.start)
            for staff, (names, writer) in enumerate(zip(usual, writers, strict=True))
        ]
        held_until = self.now.with_notes(self.now.notes[self.now.notes["onset"] < self.start]).end
        late = self._late_graces()
        bars = []
        for measure in self.hole:
            last = measure.start + measure.length == self.stop
            self.voices = holding if measure.start < held_until else usual
            written = []
            for staff, writer in enumerate(writers):
                at_end = late if last and staff == 0 else None
                elements = writer.bar_at(measure.start, measure.length, at_end) if measure.length else []
                for element in elements:
                    self._make_own(element, staff)
                written.append(elements)
            bars.append(written)
        for span in spans_over(self.measures, self.first, self.until):
            attach(bars, span)
        return bars

    def _staves(self, held: Sequence[Child]) -> list[Score]:
        """The whole with what this part has in the hole alone, as it is written: one for each staff."""
        notes, graces = self.now.notes, self.now.graces
        notes = notes[(notes["onset"] < self.stop) & (notes["onset"] + notes["duration"] > self.start)].copy()
        graces = graces[(graces["onset"] >= self.start) & (graces["onset"] < self.stop)].copy()
        there = Counter(self._graces_behind(self.first - 1))
        new = [not taken(there, pitch, onset == self.start) for onset, _, pitch, _ in graces.tolist()]
        graces = graces[np.array(new, dtype=bool)]
        for events in (notes, graces):
            events["pitch"] -= np.array([self._semitones(at) for at in events["onset"].tolist()], dtype=np.int16)
        keys = [Key(0, self.hole[0].fifths)]
        for measure in self.hole:
            keys += [Key(measure.start + round(at * TICKS_PER_QUARTER), fifths) for at, fifths in measure.keys]
        keys = [key for i, key in enumerate(keys) if i + 1 == len(keys) or keys[i + 1].onset > key.onset]
        local = replace(
            self.whole,
            parts=(replace(self.now, notes=notes, graces=graces),),
            keys=tuple(keys) if keys[0].onset == 0 else (Key(0, self.hole[0].fifths), *keys),
            signs=(),
            chord_symbols=(),
        )
        shared = share_staves(local, self.part)
        homes = {written_pitch(child.element): child.staff for child in held}
        if len(shared) > 1 and homes:
            shared = _at_home(shared, homes, self.start)
        return [replace(local, parts=(put_on_one_staff(part, 0, self.part.unpitched),)) for part in shared]

    def _semitones(self, onset: int) -> int:
        return next((m.semitones for m in reversed(self.hole) if m.start <= onset), self.hole[0].semitones)

    def _held_over(self) -> list[Child]:
        """The notes in the measure before the hole that are tied on into it."""
        if not self.first:
            return []
        return [
            child
            for child in self.measures[self.first - 1].music()
            if any(tie.get("type") == "start" for tie in child.element.findall("tie"))
        ]

    def _graces_behind(self, index: int) -> list[int]:
        """The sounding pitches of the grace notes at the end of a measure: they lead to the note after it."""
        if index < 0:
            return []
        measure = self.measures[index]
        end = Fraction(measure.length, TICKS_PER_QUARTER)
        graces = [child for child in measure.music() if child.element.find("grace") is not None and child.at >= end]
        pitches = [written_pitch(child.element) for child in graces]
        return [pitch + measure.semitones for pitch in pitches if pitch is not None]

    def _late_graces(self) -> list[list[tuple[int, bool]]]:
        """The grace notes at the end of the hole that lead to a note behind it, and stay: written pitches, slashed."""
        there = Counter(self._graces_behind(self.until - 1))
        graces = self.now.graces[self.now.graces["onset"] == self.stop].tolist()
        kept = [(place, pitch, slashed) for _, place, pitch, slashed in graces if taken(there, pitch, True)]
        semitones = self.hole[-1].semitones
        groups: dict[int, list[tuple[int, bool]]] = {}
        for place, pitch, slashed in kept:
            groups.setdefault(place, []).append((pitch - semitones, slashed))
        return list(groups.values())


class _HoleWriter(StaffWriter):
    """Our writer for one staff of the hole, measure by measure; notes from `start` on are new."""

    def __init__(self, local: Score, start: int) -> None:
        super().__init__(local)
        self.mark_from = start

    def bar_at(self, start: int, length: int, late: Sequence[list[tuple[int, bool]]] | None) -> list[Element]:
        """What stands in the measure; late: grace notes at its end that are not new."""
        if late:
            self.graces.setdefault((start, 0), {})[start + length] = list(late)
        measure = Element("measure")
        self._music(measure, start, start + length)
        elements = list(measure)
        if late:
            count = sum(map(len, late))
            graces = [note for note in elements if note.find("grace") is not None]
            for note in graces[len(graces) - count :]:
                for head in note.findall("notehead"):
                    head.attrib.pop("color", None)
        return elements


def _near(part: OpenPart, measures: Sequence[Measure], first: int, until: int) -> OpenPart:
    """The part as it is about the hole: the instrument of its notes, and where its hands are."""
    pitches: list[tuple[list[int], list[int]]] = [([], []) for _ in part.staves]
    instrument = ""
    for index, measure in enumerate(measures):
        for child in measure.music() if not first <= index < until else ():
            pitch, named = written_pitch(child.element), child.element.find("instrument")
            if named is not None and (index < first or not instrument):
                instrument = named.get("id", "")
            if pitch is not None:
                pitches[min(child.staff, len(pitches) - 1)][index >= until].append(pitch)
    staves = [
        Staff(list(staff.voices), pitches=before[-_NEAR:] + after[:_NEAR])
        for staff, (before, after) in zip(part.staves, pitches, strict=True)
    ]
    return replace(part, staves=staves, instrument=instrument if part.instrument else "")


def _at_home(shared: list[Part], homes: dict[int | None, int], start: int) -> list[Part]:
    """The staves with notes held over from before the hole on the staff where they were struck."""
    moved: list[list[np.ndarray]] = [[] for _ in shared]
    for staff, part in enumerate(shared):
        goes = [
            homes.get(pitch, staff) if onset < start else staff
            for onset, pitch in part.notes[["onset", "pitch"]].tolist()
        ]
        for target in range(len(shared)):
            moved[target].append(part.notes[np.array(goes, dtype=int) == target])
    return [replace(part, notes=np.concatenate(found)) for part, found in zip(shared, moved, strict=True)]


def _holding(names: Sequence[str], writer: _HoleWriter, held: Sequence[Child], start: int) -> list[str]:
    """The staff's names of voices, so arranged that a note held over from before the hole goes on in its own voice."""
    found, placed = list(names), set()
    for voice, (onset, _, notes) in writer.voices[0]:
        pitches = {note[2] for note in notes}
        own = next((c.element.findtext("voice") for c in held if written_pitch(c.element) in pitches), None)
        if onset < start and own in found and voice < len(found) and found.index(own) not in placed:
            other = found.index(own)
            found[voice], found[other] = found[other], found[voice]
            placed.add(voice)
    return found
