"""One <part> of a MusicXML file, bar by bar: attributes, and the notes and rests of every staff and voice.

In come a score and one of its parts, out comes the element. Which staff and voice a note is in is said by `voices`, how
long bars are cut into note values by `notation`, where graces stand by `musicxml_graces`; here they become elements,
with the accidentals that a reader of the page needs. What else a bar says is added by `musicxml_signs`.
"""

from __future__ import annotations

from itertools import pairwise
from xml.etree.ElementTree import Element, SubElement

from musicgen.formats.instruments import DRUM_STAFF, Clef, clef_for
from musicgen.formats.musicxml_elements import add
from musicgen.formats.musicxml_graces import GraceGroup, group_graces, place_graces
from musicgen.formats.musicxml_header import find_hands
from musicgen.formats.musicxml_signs import write_directions, write_jumps, write_left_barline, write_right_barline
from musicgen.formats.notation import Piece, beam_notes, signature_alter, spell, split_bar
from musicgen.formats.voices import MAX_VOICES, Event, Note, assign_voices, chordify, split_staves
from musicgen.score import TICKS_PER_QUARTER, Part, Score, bar_ticks

MARK_COLOUR = "#1f5fbf"

Spelling = tuple[str, int, int, str]
"""Step, alter, octave, and the accidental to print or ""."""


class PartWriter:
    """Writes one <part>, bar by bar. number: of the part, from 1; notes that begin in [mark_from, mark_until) are blue,
    none where mark_from is None, all from there on where mark_until is None."""

    def __init__(
        self, score: Score, part: Part, number: int, mark_from: int | None, mark_until: int | None = None
    ) -> None:
        self.score, self.part, self.number = score, part, number
        self.mark_from, self.mark_until = mark_from, mark_until
        self.starts = score.bars.tolist()
        self.ends = [*self.starts[1:], self.starts[-1] + int(score.bar_lengths[-1])]
        self.staves = split_staves(part, score)
        hands = find_hands(score.parts)
        before = next(i for i in range(number) if number - 2 - i not in hands)  # hands right before this one
        self.is_lower_hand = number - 1 in hands and before % 2 == 1
        if len(self.staves) > 1 and number - 1 in hands:
            self.staves = [sorted(note for notes in self.staves for note in notes)]
        self.voices = [assign_voices(notes) for notes in self.staves]
        self.cursors = [0] * len(self.staves)
        self.sounding: list[list[tuple[int, Event]]] = [[] for _ in self.staves]
        self.graces = group_graces(part, self.staves, self.starts, self.ends[-1])

    def write(self) -> Element:
        """The whole <part>."""
        element = Element("part", id=f"P{self.number}")
        number = 1
        for index, (start, end) in enumerate(zip(self.starts, self.ends, strict=True)):
            full = self.score.metre_at(start).ticks
            pickup = index == 0 and len(self.starts) > 1 and end - start < full
            measure = add(element, "measure", number="0" if pickup else str(number))
            if end - start != full:
                measure.set("implicit", "yes")
            number += not pickup
            write_left_barline(measure, self.score, start)
            self._attributes(measure, index, start)
            if self.number == 1:
                write_directions(measure, self.score, start, end)
            self._music(measure, start, end)
            if self.number == 1:
                write_jumps(measure, self.score, end)
            write_right_barline(measure, self.score, end, last=index == len(self.starts) - 1)
        return element

    def _attributes(self, measure: Element, index: int, start: int) -> None:
        key, metre = self.score.key_at(start), self.score.metre_at(start)
        previous = self.starts[index - 1] if index else None
        new_key = previous is None or self.score.key_at(previous) != key
        new_metre = previous is None or self.score.metre_at(previous) != metre
        if not new_key and not new_metre:
            return
        attributes = add(measure, "attributes")
        if index == 0:
            add(attributes, "divisions", TICKS_PER_QUARTER)
        if new_key:
            signature = add(attributes, "key")
            add(signature, "fifths", 0 if self.part.is_drum else key.fifths)
            add(signature, "mode", key.mode)
        if new_metre:
            time = add(attributes, "time")
            add(time, "beats", metre.numerator)
            add(time, "beat-type", metre.denominator)
        if index == 0:
            if len(self.staves) > 1:
                add(attributes, "staves", len(self.staves))
            for staff in range(len(self.staves)):
                sign, line, octave = self._clef(staff)
                clef = add(attributes, "clef", **({"number": str(staff + 1)} if len(self.staves) > 1 else {}))
                add(clef, "sign", sign)
                if sign != "percussion":
                    add(clef, "line", line)
                if octave:
                    add(clef, "clef-octave-change", octave)

    def _clef(self, staff: int) -> Clef:
        if self.part.is_drum:
            return ("percussion", 2, 0)
        if len(self.staves) > 1:
            return (("G", 2, 0), ("F", 4, 0))[staff]
        pitches = (note[2] for note in self.staves[staff])
        return clef_for(self.part.program, pitches, self.part.name, lower_hand=self.is_lower_hand)

    # --- notes ---

    def _events(self, staff: int, start: int, end: int) -> list[list[Event]]:
        """What each voice of a staff does in a bar, cut to the bar."""
        ordered = self.voices[staff]
        alive = [(v, e) for v, e in self.sounding[staff] if e[1] > start]
        cursor = self.cursors[staff]
        while cursor < len(ordered) and ordered[cursor][1][0] < end:
            alive.append(ordered[cursor])
            cursor += 1
        self.cursors[staff], self.sounding[staff] = cursor, alive
        clipped = [(v, (max(e[0], start), min(e[1], end), e[2])) for v, e in alive]
        if any(v >= MAX_VOICES for v, _ in clipped):
            return chordify([event for _, event in clipped])
        by_voice: dict[int, list[Event]] = {}
        for voice, event in clipped:
            by_voice.setdefault(voice, []).append(event)
        return [by_voice.get(v, []) for v in range(max(by_voice, default=0) + 1)]

    def _music(self, measure: Element, start: int, end: int) -> None:
        metre = self.score.metre_at(start)
        length = end - start
        full = bar_ticks(metre.numerator, metre.denominator)
        pickup = start == 0 and length < full
        shift = (full - length if pickup else 0) - start  # from ticks of the piece to places in the bar
        written = False
        for staff in range(len(self.staves)):
            lines = self._events(staff, start, end)
            graces = {onset + shift: groups for onset, groups in self.graces.get((start, staff), {}).items()}
            laid = []  # (voice number, pieces with their notes; None: a gap that nothing fills)
            for voice, events in enumerate(lines):
                if events or voice == 0:
                    number = voice + 1 + MAX_VOICES * staff
                    cuts = [place - shift for place in graces] if voice == 0 else []
                    laid.append((number, self._lay_out(events, start, end, shift, metre, voice == 0, cuts)))
            homes = place_graces(graces, laid, 2 * MAX_VOICES + 1 + staff, start + shift, end + shift)
            marks, grace_marks = self._accidentals(laid, graces, start, shift)
            for number, pieces in laid:
                if written:
                    add(add(measure, "backup"), "duration", length)
                written = True
                here = {place: groups for place, groups in graces.items() if homes[place] == number}
                self._write_voice(measure, pieces, number, staff, shift, metre, marks, here, grace_marks)

    def _lay_out(
        self, events: list[Event], start: int, end: int, shift: int, metre, fill: bool, cuts: list[int]
    ) -> list:
        """[(piece, notes)] of one voice over a whole bar; notes None is a rest, piece type "gap" an empty stretch.

        Rests are cut at `cuts`, where grace notes come in.
        """
        # a bar's rest in a short bar would be read as a full bar
        if not events and end - start == metre.ticks and not any(start < cut < end for cut in cuts):
            return [(Piece(start + shift, end + shift, "measure"), None)]
        spans: list[tuple[int, int, list[Note] | None]] = []
        at = start
        for begin, stop, notes in [*events, (end, end, [])]:
            if begin > at:
                bounds = [at, *sorted(cut for cut in cuts if at < cut < begin), begin]
                spans += [(a, b, None) for a, b in pairwise(bounds)]
            if stop > begin:
                spans.append((begin, stop, notes))
            at = stop
        placed = [(a + shift, b + shift, notes is None) for a, b, notes in spans]
        pieces = split_bar(placed, metre.numerator, metre.denominator)
        laid: list[tuple[Piece, list[Note] | None]] = []
        for (_, _, held), written in zip(spans, pieces, strict=True):
            # rests of a second voice would only clutter the staff, but a tuplet needs its own
            if held is None and not fill and not any(p.tuplet for p in written):
                laid.append((Piece(written[0].start, written[-1].end, "gap"), None))
            else:
                laid += [(piece, held) for piece in written]
        return laid

    def _accidentals(
        self, laid: list, graces: dict[int, list[GraceGroup]], bar_start: int, shift: int
    ) -> tuple[dict[tuple[int, int, int], Spelling], dict[tuple[int, int, int], Spelling]]:
        """For a staff's bar: (voice, place, index in the chord) -> step, alter, octave, accidental to print; and for
        its grace notes (place in the bar, group, pitch) -> the same.

        Read across the voices in the order of time, as the eye does; a note tied over the barline needs none.
        """
        if self.part.is_drum:
            return {}, {}
        state: dict[tuple[str, int], int] = {}
        printed = self.score.key_at(bar_start).fifths

        def read(pitch: int, onset: int, begins: bool) -> Spelling:
            step, alter, octave = spell(pitch, self.score.key_at(onset).fifths)
            name = ""
            if begins and alter != state.get((step, octave), signature_alter(step, printed)):
                name = {-2: "flat-flat", -1: "flat", 0: "natural", 1: "sharp", 2: "double-sharp"}[alter]
                state[(step, octave)] = alter
            return step, alter, octave, name

        # grace notes stand left of everything on their onset: -1 where notes have their voice
        heads = [
            (piece.start - shift, voice, note[2], note[0], i, j)
            for voice, pieces in laid
            for i, (piece, notes) in enumerate(pieces)
            for j, note in enumerate(notes or ())
        ]
        heads += [
            (place - shift, -1, i, place - shift, i, pitch)
            for place, groups in graces.items()
            for i, group in enumerate(groups)
            for pitch, _ in group
        ]
        found, found_graces = {}, {}
        for begin, voice, pitch, onset, i, j in sorted(heads):
            if voice < 0:
                found_graces[(begin + shift, i, j)] = read(j, onset, True)
            else:
                found[(voice, i, j)] = read(pitch, onset, onset == begin)
        return found, found_graces

    def _write_voice(
        self,
        measure: Element,
        laid: list,
        voice: int,
        staff: int,
        shift: int,
        metre,
        marks: dict,
        graces: dict[int, list[GraceGroup]],
        grace_marks: dict,
    ) -> None:
        beams = beam_notes([piece if notes else None for piece, notes in laid], metre.numerator, metre.denominator)
        for i, (piece, notes) in enumerate(laid):
            self._write_graces(measure, graces.pop(piece.start, []), piece.start, voice, staff, shift, grace_marks)
            length = piece.end - piece.start
            if piece.type == "gap":
                forward = add(measure, "forward")
                add(forward, "duration", length)
                continue
            for j, single in enumerate(notes or [None]):
                element = SubElement(measure, "note")
                begin, stop = piece.start - shift, piece.end - shift
                tie_in = single is not None and single[0] < begin
                tie_out = single is not None and single[1] > stop
                self._write_head(element, single, j, length, piece, marks.get((voice, i, j)), tie_in, tie_out)
                add(element, "voice", voice)
                if piece.type != "measure":
                    add(element, "type", piece.type)
                    for _ in range(piece.dots):
                        add(element, "dot")
                mark = marks.get((voice, i, j))
                if mark is not None and mark[3]:
                    add(element, "accidental", mark[3])
                if piece.tuplet is not None:
                    ratio = add(element, "time-modification")
                    add(ratio, "actual-notes", piece.tuplet.actual)
                    add(ratio, "normal-notes", piece.tuplet.normal)
                    add(ratio, "normal-type", piece.tuplet.unit)
                self._write_notehead(element, single)
                if len(self.staves) > 1:
                    add(element, "staff", staff + 1)
                if j == 0:
                    for level, value in enumerate(beams[i], 1):
                        add(element, "beam", value, number=str(level))
                _write_notations(element, piece, j, tie_in, tie_out)

        for place, groups in graces.items():
            self._write_graces(measure, groups, place, voice, staff, shift, grace_marks)

    def _write_graces(
        self, measure: Element, groups: list[GraceGroup], place: int, voice: int, staff: int, shift: int, marks: dict
    ) -> None:
        """Grace notes as notes of no length: an eighth, or beamed sixteenths."""
        for i, group in enumerate(groups):
            for j, (pitch, slashed) in enumerate(group):
                element = add(measure, "note")
                add(element, "grace", **({"slash": "yes"} if slashed else {}))
                if j > 0:
                    add(element, "chord")
                mark = marks.get((place, i, pitch))
                self._write_pitch(element, pitch, mark)
                if self.part.is_drum:
                    add(element, "instrument", id=f"P{self.number}-I{pitch + 1}")
                add(element, "voice", voice)
                add(element, "type", "16th" if len(groups) > 1 else "eighth")
                if mark is not None and mark[3]:
                    add(element, "accidental", mark[3])
                self._write_notehead(element, (place - shift, 0, pitch, 0))
                if len(self.staves) > 1:
                    add(element, "staff", staff + 1)
                if j == 0 and len(groups) > 1:
                    value = "begin" if i == 0 else "end" if i == len(groups) - 1 else "continue"
                    for level in "12":
                        add(element, "beam", value, number=level)

    def _write_pitch(self, element: Element, pitch: int, mark: Spelling | None) -> None:
        """<pitch>, or for drums the place on the staff."""
        if mark is None:
            step, octave, _ = DRUM_STAFF.get(pitch, ("C", 5, "normal"))
            place = add(element, "unpitched")
            add(place, "display-step", step)
            add(place, "display-octave", octave)
            return
        step, alter, octave, _ = mark
        place = add(element, "pitch")
        add(place, "step", step)
        if alter:
            add(place, "alter", alter)
        add(place, "octave", octave)

    def _write_head(self, element, single, j, length, piece, mark, tie_in: bool, tie_out: bool) -> None:
        """Everything of a <note> up to its voice."""
        if single is None:
            rest = add(element, "rest")
            if piece.type == "measure":
                rest.set("measure", "yes")
            add(element, "duration", length)
            return
        _, _, pitch, velocity = single
        element.set("dynamics", f"{velocity / 0.9:.2f}")
        if j > 0:
            add(element, "chord")
        self._write_pitch(element, pitch, mark)
        add(element, "duration", length)
        if tie_in:
            add(element, "tie", type="stop")
        if tie_out:
            add(element, "tie", type="start")
        if self.part.is_drum:
            add(element, "instrument", id=f"P{self.number}-I{pitch + 1}")

    def _write_notehead(self, element: Element, single: Note | None) -> None:
        if single is None:
            return
        head = DRUM_STAFF.get(single[2], ("C", 5, "normal"))[2] if self.part.is_drum else "normal"
        marked = self.mark_from is not None and single[0] >= self.mark_from
        if marked and (self.mark_until is None or single[0] < self.mark_until):
            add(element, "notehead", head, color=MARK_COLOUR)
        elif head != "normal":
            add(element, "notehead", head)


def _write_notations(element: Element, piece: Piece, j: int, tie_in: bool, tie_out: bool) -> None:
    """Ties as drawn, and where a tuplet's bracket begins and stops."""
    tuplet = piece.tuplet
    starts = tuplet is not None and j == 0 and piece.start == tuplet.start
    stops = tuplet is not None and j == 0 and piece.end == tuplet.end
    if not (tie_in or tie_out or starts or stops):
        return
    notations = add(element, "notations")
    if tie_in:
        add(notations, "tied", type="stop")
    if tie_out:
        add(notations, "tied", type="start")
    if starts:
        add(notations, "tuplet", type="start", number="1")
    if stops:
        add(notations, "tuplet", type="stop", number="1")
