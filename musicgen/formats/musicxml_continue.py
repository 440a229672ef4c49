"""Continuing a MusicXML file without touching it: the original's bytes stay, new elements are put in between them.

In come the original file, the fragment that was read of it and the whole that it became; out goes a file that is the
original, byte for byte, with more in two places of each part: what fills a half-filled last bar, inside that measure
after its last note, and the further measures, behind it. New notes are written as the part is: at its own pitch if it
transposes, on its staves and in its voices, drums at their places; noteheads are blue. Of an .mxl every other member of
the zip stays too.

A part that stops some bars before the others rests until they do, and so does one that joins in at the seam, which is
put in behind the others. Where the last measure closes a repeat, what is left of its bar is a short measure of its own
after the sign. A final barline stays where it was, though the music goes on: it shows where the original stops. A note
that the original ties on into nothing is held by a new one of its pitch at the seam; any other is let go there, for a
tie would change it. What no whole number of the file's `divisions` can say is written in finer ones, stated from there
on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import lcm
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from musicgen.errors import FormatError
from musicgen.formats.musicxml_continue_file import in_utf8, insertions, open_score, write_score
from musicgen.formats.musicxml_continue_join import open_parts, put_in_parts
from musicgen.formats.musicxml_continue_scan import Bar, OpenPart, Staff, number, place_of, scan, ticks, written_pitch
from musicgen.formats.musicxml_elements import add
from musicgen.formats.musicxml_part import PartWriter
from musicgen.formats.musicxml_signs import write_directions, write_jumps, write_left_barline, write_right_barline
from musicgen.formats.tail import ELSEWHERE, check_leads_on, tail_of
from musicgen.formats.voices import MAX_VOICES
from musicgen.score import TICKS_PER_QUARTER, Part, Score

_ONE_STAFF = 40
"""A program that our writer gives one staff, whatever it plays."""
_LATELY, _REACH = 64, 9
"""How many of a staff's last notes say where a hand is, and how far from the middle the hands may part: semitones."""
ACCIDENTALS = {-2: "flat-flat", -1: "flat", 0: "natural", 1: "sharp", 2: "double-sharp"}
_MOST_VOICES = 2 * MAX_VOICES + 1
"""What our writer may number the voices of one staff up to, that of lone grace notes included."""


def check_continuation(original: Path, written: Score, fragment: Score) -> None:
    """Raises FormatError unless the file can be continued in place.

    written: as it is read; fragment: what is continued, `written` itself or with its repeats played out.
    """
    parts = scan(in_utf8(open_score(original)[2])[0], original)
    check_parts(original, parts, fragment)
    if not fragment.signs:
        check_leads_on(original, written)


def check_parts(original: Path, parts: Sequence[OpenPart], score: Score) -> None:
    """Raises FormatError unless the file has as many parts as the score."""
    if len(parts) != len(score.parts):
        raise FormatError(f"{original}: has {len(parts)} parts, and {len(score.parts)} are to go on; {ELSEWHERE}")


def write_continuation(original: Path, fragment: Score, whole: Score, path: Path) -> None:
    """Write `original` with what `whole` has from `fragment.length` on. Raises FormatError.

    Parts of `whole` that `fragment` has not join in there: they stand behind the others, and rest up to the seam.
    """
    members, name, raw = open_score(original)
    data, encoding = in_utf8(raw)
    parts = scan(data, original)
    check_parts(original, parts, fragment)
    bar = int(fragment.bars[-1])
    place = min(fragment.length - bar, whole.metre_at(bar).ticks)  # of the seam in its bar
    half_filled = fragment.length < whole.length and fragment.length not in whole.bars
    empty = not any(staff.end for part in parts if not part.missing for staff in part.staves)
    apart = empty or any(part.goes_back for part in parts)
    inside = half_filled and not apart
    places = []
    for index, part in enumerate(parts):
        tail = PartTail(part, index, fragment, whole, place, inside=inside)
        places += insertions(data, part, *tail.write())
    joining, key = whole.parts[len(parts) :], whole.key_at(fragment.length)
    if joining:
        opened = open_parts(data, parts, joining, key)
        tails = [PartTail(p, i, fragment, whole, place, inside=inside) for i, p in enumerate(opened, len(parts))]
        places += put_in_parts(data, parts, joining, opened, [tail.write()[1] for tail in tails], key)
    made, at = bytearray(), 0
    for offset, more, skipped in sorted(places, key=lambda put: put[0]):
        made += data[at:offset] + more
        at = offset + skipped
    made += data[at:]
    score = bytes(made) if encoding is None else bytes(made).decode("utf-8").encode(encoding)
    write_score(path, score, members, name)


# --- one part ---------------------------------------------------------------------------------------------------------


class PartTail:
    """What is written after one part: the elements that fill its last measure, and the measures after it.

    place: of the seam in its bar, in ticks; inside: the bar is filled in the last measure itself.
    """

    def __init__(self, part: OpenPart, index: int, fragment: Score, whole: Score, place: int, *, inside: bool) -> None:
        self.part, self.index = part, index
        self.inside = inside and not part.missing
        self.missing = part.missing[: len(part.missing) - inside]  # rests; the half-filled bar is a new measure here
        self.divisions, self.held = part.divisions, [] if part.missing else list(part.held)
        self.voices = name_voices(part.staves)
        self.ends = [place] * len(part.staves)
        if inside:
            self.ends = [0 if part.missing else min(ticks(staff.end), place) for staff in part.staves]
        self.place = place

        def tail(start: int) -> Score:
            return tail_of(fragment, whole, index, start, fifths=part.fifths, semitones=part.semitones)

        starts = [fragment.length - place + end for end in self.ends]
        shared = min(starts)
        notes = share_staves(tail(shared), part)
        self.tails = [
            replace(tail(start), parts=(put_on_one_staff(of_staff, shared - start, part.unpitched),))
            for of_staff, start in zip(notes, starts, strict=True)
        ]
        self.writers = [StaffWriter(tail) for tail in self.tails]

    def write(self) -> tuple[list[Element], list[Element]]:
        """(what goes into the last measure, the measures after it); lengths in the file's divisions."""
        there = [*self.part.bars, *self.missing]
        last_number = re.match(r"\d+", there[-1].number) if there else None
        following = int(last_number[0]) + 1 if last_number else len(there) + 1
        if not there:  # a part that joins in, in the first bar
            following = number(self.part.missing[0].number) or 0
        bounds = self.writers[0].bounds()
        filling, measures = Element("measure"), [self._rest_bar(bar) for bar in self.missing]
        for index, (start, end) in enumerate(bounds):
            last = index == len(bounds) - 1
            if index == 0 and self.inside:
                self._write_bar(filling, index, last)
                continue
            full = self.tails[0].metre_at(start).ticks
            part_of_bar = index == 0 and end - start < full
            measure = Element("measure", number=f"X{following}" if part_of_bar else str(following))
            following += not part_of_bar
            if end - start != full:
                measure.set("implicit", "yes")
            self._write_bar(measure, index, last)
            measures.append(measure)
        if self.inside:
            self._place(filling)
        self._fit(measures)
        return list(filling), measures

    def _rest_bar(self, bar: Bar) -> Element:
        """A bar of rest in each staff, with the metre where it changes."""
        measure = Element("measure", number=bar.number)
        length = ticks(bar.length)
        if bar.time is not None:
            add(measure, "attributes").append(bar.time)
        for staff, names in enumerate(self.voices if length else []):
            if staff:
                add(add(measure, "backup"), "duration", length)
            note = add(measure, "note")
            add(note, "rest", **({"measure": "yes"} if bar.full else {}))
            add(note, "duration", length)
            add(note, "voice", names[0])
            if len(self.voices) > 1:
                add(note, "staff", staff + 1)
        return measure

    def _write_bar(self, measure: Element, index: int, last: bool) -> None:
        tail = self.tails[0]
        start, end = self.writers[0].bounds()[index]
        inside = self.inside and index == 0
        if not inside:
            write_left_barline(measure, tail, start)
        self._write_attributes(measure, start)
        if self.index == 0:
            before = len(measure)
            write_directions(measure, tail, start, end)
            if index == 0:  # the first tempo held before
                measure.remove(next(d for d in measure[before:] if d.find("direction-type/metronome") is not None))
        for staff, writer in enumerate(self.writers):
            begun, stop = writer.bounds()[index]
            if staff:
                add(add(measure, "backup"), "duration", stop - begun)
            notes = writer.bar(index)
            if index == 0:
                self._hold(notes, self.place - self.ends[staff])
            for element in notes:
                self._make_own(element, staff)
                if inside:
                    _spell(element, self.part.staves[staff].alters)
            measure.extend(notes)
        if self.index == 0:
            write_jumps(measure, tail, end)
        if not (inside and self.part.barline):
            write_right_barline(measure, tail, end, last=last)

    def _write_attributes(self, measure: Element, start: int) -> None:
        """A key or metre that is new at this bar."""
        tail = self.tails[0]
        attributes = Element("attributes")
        for key in [k for k in tail.keys[1:] if k.onset == start]:
            signature = add(attributes, "key")
            add(signature, "fifths", 0 if self.part.unpitched else key.fifths)
            add(signature, "mode", key.mode)
        for metre in [m for m in tail.metres[1:] if m.onset == start]:
            time = add(attributes, "time")
            add(time, "beats", metre.numerator)
            add(time, "beat-type", metre.denominator)
        if len(attributes):
            measure.append(attributes)

    def _place(self, filling: Element) -> None:
        """Lengths as the file's, and the steps from where the original's last element leaves off to the first new one.

        Where the divisions change, they do so at the barline: many readers count what is before in them too.
        """
        cursor, start = self.part.cursor, Fraction(self.ends[0], TICKS_PER_QUARTER)
        before = self.divisions
        self._fit([filling])
        if self.divisions == before:
            _step(filling, 0, (start - cursor) * before)
        else:
            _step(filling, 1, start * self.divisions)
            _step(filling, 0, -cursor * before)

    def _fit(self, measures: Sequence[Element]) -> None:
        """Lengths from ticks to the file's divisions, or to finer ones, stated first, where need be."""
        lengths = [e for measure in measures for e in measure.iter() if e.tag in ("duration", "offset")]
        if any(int(e.text or 0) * self.divisions % TICKS_PER_QUARTER for e in lengths):
            self.divisions = lcm(self.divisions, TICKS_PER_QUARTER)
            attributes = next((e for e in measures[0] if e.tag == "attributes"), None)
            if attributes is None:
                attributes = Element("attributes")
                measures[0].insert(int(measures[0][0].tag == "barline"), attributes)
            stated = Element("divisions")
            stated.text = str(self.divisions)
            attributes.insert(0, stated)
        for element in lengths:
            element.text = str(int(element.text or 0) * self.divisions // TICKS_PER_QUARTER)

    def _make_own(self, element: Element, staff: int) -> None:
        """A note of our writer's as this file has them: its voice, its instrument, its staff."""
        if element.tag != "note":
            return
        voice = element.find("voice")
        assert voice is not None
        voice.text = self.voices[staff][(number(voice.text) or 1) - 1]
        instrument = element.find("instrument")
        if self.part.unpitched:
            if instrument is not None:
                self._strike(element, instrument)
        elif self.part.instrument and element.find("rest") is None:
            element.insert(list(element).index(voice), Element("instrument", id=self.part.instrument))
        if len(self.part.staves) > 1:
            place = next((i for i, e in enumerate(element) if e.tag in ("beam", "notations")), len(element))
            mark = Element("staff")
            mark.text = str(staff + 1)
            element.insert(place, mark)

    def _strike(self, note: Element, instrument: Element) -> None:
        """A drum at the place, with the notehead and the instrument that the file has for it."""
        key = (number(instrument.get("id", "").rpartition("-I")[2]) or 1) - 1
        drum = self.part.drums.get(key)
        if drum is None or not drum.instrument:
            note.remove(instrument)
        if drum is None:
            return
        instrument.set("id", drum.instrument)
        for path, text in (
            ("unpitched/display-step", drum.step),
            ("unpitched/display-octave", drum.octave),
            ("notehead", drum.head),
        ):
            found = note.find(path)
            if found is not None:
                found.text = text

    def _hold(self, notes: Sequence[Element], seam: int) -> None:
        """Notes at the seam (ticks into the elements) which the original ties on into: it holds them."""
        at = onset = 0
        for element in notes:
            length = number(element.findtext("duration")) or 0
            if element.tag == "note":
                onset = onset if element.find("chord") is not None else at
                pitch = written_pitch(element)
                if pitch is not None and onset == seam and pitch + self.part.semitones in self.held:
                    self.held.remove(pitch + self.part.semitones)
                    _tie_back(element)
                if element.find("chord") is not None or element.find("grace") is not None:
                    continue
            at += -length if element.tag == "backup" else length


def _step(measure: Element, index: int, divisions: Fraction) -> None:
    """A forward, or a backup where it is below zero, put in at a place among the elements."""
    if round(divisions):
        step = Element("forward" if divisions > 0 else "backup")
        add(step, "duration", abs(round(divisions)))
        measure.insert(index, step)


def _tie_back(note: Element) -> None:
    """The note made one that goes on from the one before it, in sound and as drawn."""
    place = next(i for i, child in enumerate(note) if child.tag == "duration")
    note.insert(place + 1, Element("tie", type="stop"))
    notations = note.find("notations")
    if notations is None:
        notations = add(note, "notations")
    notations.insert(0, Element("tied", type="stop"))


def _spell(note: Element, alters: dict[tuple[str, str], int]) -> None:
    """An accidental where the bar had another one on that line before the seam; `alters` is brought up to date."""
    place = place_of(note)
    if place is None or place[0] not in alters or note.find("tie[@type='stop']") is not None:
        return
    (line, alter), there = place, note.find("accidental")
    if there is None and alters[line] != alter:
        at = max(i for i, child in enumerate(note) if child.tag in ("voice", "type", "dot"))
        there = Element("accidental")
        there.text = ACCIDENTALS[alter]
        note.insert(at + 1, there)
    alters[line] = alter


class StaffWriter(PartWriter):
    """Our writer for one staff of a tail, bar by bar; every note of it is new."""

    def __init__(self, tail: Score) -> None:
        super().__init__(tail, tail.parts[0], 1, 0)

    def bounds(self) -> list[tuple[int, int]]:
        """(start, end) of each bar."""
        return list(zip(self.starts, self.ends, strict=True))

    def bar(self, index: int) -> list[Element]:
        """What stands in the bar: notes, backups, forwards. To be asked for bar by bar."""
        measure = Element("measure")
        self._music(measure, *self.bounds()[index])
        return list(measure)


def put_on_one_staff(part: Part, shift: int, unpitched: bool) -> Part:
    """The part moved by `shift` ticks, and such that our writer draws it on one staff, as pitches or as drums."""
    notes, graces = part.notes.copy(), part.graces.copy()
    notes["onset"] += shift
    graces["onset"] += shift
    return replace(part, notes=notes, graces=graces, program=_ONE_STAFF, is_drum=unpitched)


def share_staves(tail: Score, part: OpenPart) -> list[Part]:
    """The tail's part, one for each staff; of two staves the lower has what is below the widest gap of a bar.

    The gap is looked for around the middle of what the two staves have played of late. A third staff and more rest.
    """
    whole, count = tail.parts[0], len(part.staves)
    if count == 1:
        return [whole]
    lately = [staff.pitches[-_LATELY:] for staff in part.staves[:2]]
    middle = round(sum(float(np.median(p)) for p in lately) / 2) if all(lately) else 60
    upper, graces = np.zeros(len(whole.notes), dtype=bool), whole.graces["pitch"] >= middle
    for start, end in pairwise([*tail.bars.tolist(), tail.length]):
        here = slice(*np.searchsorted(whole.notes["onset"], [start, end]))
        inside = {int(p) for p in whole.notes["pitch"][here] if abs(int(p) - middle) < _REACH}
        near = sorted({middle - _REACH, middle + _REACH, *inside})
        *_, cut = max((b - a, -abs(a + b - 2 * middle), (a + b + 1) // 2) for a, b in pairwise(near))
        upper[here] = whole.notes["pitch"][here] >= cut
    return [
        replace(whole, notes=whole.notes[upper], graces=whole.graces[graces]),
        replace(whole, notes=whole.notes[~upper], graces=whole.graces[~graces]),
        *[replace(whole, notes=whole.notes[:0], graces=whole.graces[:0])] * (count - 2),
    ]


def name_voices(staves: Sequence[Staff]) -> list[list[str]]:
    """For each staff, what the file calls its first voice, its second and so on; new names are numbers not in use."""
    used = {voice for staff in staves for voice in staff.voices}
    named = []
    for index, staff in enumerate(staves):
        names = list(staff.voices)
        following = number(names[0]) if names else None
        following = 1 + MAX_VOICES * index if following is None else following
        while len(names) < _MOST_VOICES:
            if str(following) not in used:
                used.add(str(following))
                names.append(str(following))
            following += 1
        named.append(names)
    return named
