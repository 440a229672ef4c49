"""Score to MusicXML 4.0, partwise, built directly as XML: fast for a full orchestra, and nothing is guessed on the way.

Every part is written at sounding pitch (a concert score), so no part transposes. Keyboards and harp with a wide range
get two staves. Notes that overlap go into up to four voices a staff; where those don't do, the bar is written as one
voice of tied chords. Grace notes stand before what begins on their onset, or where nothing does in a voice of their
own. Sections are rehearsal marks, with repeat signs for the order in which they are played where those can say it;
jumps are words and signs that sound. Read back, a written score has the same notes,
grace notes, bars, signs and maps.

Knowingly lost: a nameless part takes its instrument's name; tempos keep six significant digits; a metre or key that
begins inside a bar is written at the next barline; signs that are off the barlines and chord symbols that don't begin
with a root are left out; grace notes lose gaps in the count of their places, and those of one place share a slash; the
last barline is always drawn as final. Lengths off the grid of 128ths, triplets and quintuplets are exact in sound but
printed as the nearest value: quantise a performance before engraving it.
"""

from __future__ import annotations

import json
import re
import zipfile
from bisect import bisect_left, bisect_right
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from musicgen.errors import FormatError
from musicgen.formats.instruments import (
    DRUM_STAFF,
    Clef,
    abbreviate,
    clef_for,
)
from musicgen.formats.musicxml_read import DRAWN_FIELD, ORDER_FIELD
from musicgen.formats.notation import Piece, beam_notes, signature_alter, spell, split_bar
from musicgen.formats.sections import draw_order
from musicgen.formats.voices import MAX_VOICES, Event, Note, assign_voices, chordify, split_staves
from musicgen.score import TICKS_PER_QUARTER, Part, Score, bar_ticks
from musicgen.score.general_midi import DRUM_KIT, PROGRAM_NAMES

MARK_COLOUR = "#1f5fbf"


def write(score: Score, path: str | Path, *, mark_from: int | None = None) -> None:
    """Write one score, zipped where the suffix is .mxl. mark_from: noteheads from that tick on are blue, to tell new
    notes from old.

    Raises FormatError where the score has no part, or the file can't be written.
    """
    if not score.parts:
        raise FormatError(f"{path}: a score without parts can't be written as MusicXML")
    root = Element("score-partwise", version="4.0")
    if score.title:
        _add(SubElement(root, "work"), "work-title", _clean(score.title))
    identification = SubElement(root, "identification")
    encoding = SubElement(identification, "encoding")
    _add(encoding, "software", "musicgen")
    for feature in ("accidental", "beam"):
        SubElement(encoding, "supports", element=feature, type="yes")
    drawn = draw_order(score)
    if score.order:
        fields = SubElement(identification, "miscellaneous")
        _add(fields, "miscellaneous-field", json.dumps(score.order), name=ORDER_FIELD)
        if drawn:
            _add(fields, "miscellaneous-field", "yes", name=DRAWN_FIELD)
            score = replace(score, signs=score.signs + drawn)
    part_list = SubElement(root, "part-list")
    for number, part in enumerate(score.parts, 1):
        _list_part(part_list, part, number)
    for number, part in enumerate(score.parts, 1):
        root.append(_PartWriter(score, part, number, mark_from).write())
    ElementTree.indent(root, " ")
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE score-partwise PUBLIC '
        '"-//Recordare//DTD MusicXML 4.0 Partwise//EN" "http://www.musicxml.org/dtds/partwise.dtd">\n'
        + ElementTree.tostring(root, encoding="unicode")
        + "\n"
    )
    try:
        if Path(path).suffix.lower() == ".mxl":
            _write_zipped(text, path)
        else:
            Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from error


_CONTAINER = """<?xml version="1.0" encoding="UTF-8"?>
<container>
 <rootfiles>
  <rootfile full-path="score.musicxml" media-type="application/vnd.recordare.musicxml+xml"/>
 </rootfiles>
</container>
"""


def _write_zipped(text: str, path: str | Path) -> None:
    """An .mxl file: the score, and the container that names it. The same score gives the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (("META-INF/container.xml", _CONTAINER), ("score.musicxml", text)):
            entry = zipfile.ZipInfo(name)  # dated 1980, as there is no other date
            archive.writestr(entry, content.encode("utf-8"), zipfile.ZIP_DEFLATED)


def _add(parent: Element, tag: str, text: object = None, **attributes: str) -> Element:
    child = SubElement(parent, tag, attributes)
    if text is not None:
        child.text = str(text)
    return child


def _clean(text: str) -> str:
    """Without the control characters that XML can't hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)


def _list_part(part_list: Element, part: Part, number: int) -> None:
    """The part's <score-part>: name, sound, and for drums one instrument a key."""
    listed = _add(part_list, "score-part", id=f"P{number}")
    name = _clean(part.name) or ("Drumset" if part.is_drum else PROGRAM_NAMES[part.program])
    _add(listed, "part-name", name)
    _add(listed, "part-abbreviation", abbreviate(name, None if part.is_drum else part.program))
    if part.is_drum:
        keys = sorted({*part.notes["pitch"].tolist(), *part.graces["pitch"].tolist()}) or [38]
        for key in keys:
            _add(_add(listed, "score-instrument", id=f"P{number}-I{key + 1}"), "instrument-name", _drum_name(key))
        for key in keys:
            midi = _add(listed, "midi-instrument", id=f"P{number}-I{key + 1}")
            _add(midi, "midi-channel", 10)
            _add(midi, "midi-program", 1)
            _add(midi, "midi-unpitched", key + 1)
        return
    _add(_add(listed, "score-instrument", id=f"P{number}-I1"), "instrument-name", PROGRAM_NAMES[part.program])
    midi = _add(listed, "midi-instrument", id=f"P{number}-I1")
    channel = (number - 1) % 15 + 1
    _add(midi, "midi-channel", channel if channel < 10 else channel + 1)
    _add(midi, "midi-program", part.program + 1)


def _drum_name(key: int) -> str:
    return DRUM_KIT.get(key, f"Percussion {key}")


GraceGroup = list[tuple[int, bool]]
"""The grace notes of one place, (pitch, slashed): one, or a chord."""

Spelling = tuple[str, int, int, str]
"""Step, alter, octave, and the accidental to print or ""."""

_LEAVING = {"to_coda": "To Coda", "fine": "Fine", "da_capo": "D.C.", "dal_segno": "D.S."}
"""Signs at the end of a bar -> the words that are printed."""
_SOUNDS = {
    "to_coda": ("tocoda", "coda"), "fine": ("fine", "yes"), "da_capo": ("dacapo", "yes"),
    "dal_segno": ("dalsegno", "segno"), "segno": ("segno", "segno"), "coda": ("coda", "coda"),
}  # fmt: skip
"""Kind of sign -> the attribute of <sound> that says it, and its value."""


class _PartWriter:
    """Writes one <part>, bar by bar."""

    def __init__(self, score: Score, part: Part, number: int, mark_from: int | None) -> None:
        self.score, self.part, self.number, self.mark_from = score, part, number, mark_from
        self.starts = score.bars.tolist()
        self.ends = [*self.starts[1:], self.starts[-1] + int(score.bar_lengths[-1])]
        self.staves = split_staves(part, score)
        self.voices = [assign_voices(notes) for notes in self.staves]
        self.cursors = [0] * len(self.staves)
        self.sounding: list[list[tuple[int, Event]]] = [[] for _ in self.staves]
        self.graces = self._group_graces()

    def write(self) -> Element:
        element = Element("part", id=f"P{self.number}")
        number = 1
        for index, (start, end) in enumerate(zip(self.starts, self.ends, strict=True)):
            full = self.score.metre_at(start).ticks
            pickup = index == 0 and len(self.starts) > 1 and end - start < full
            measure = _add(element, "measure", number="0" if pickup else str(number))
            if end - start != full:
                measure.set("implicit", "yes")
            number += not pickup
            self._left_barline(measure, start)
            self._attributes(measure, index, start)
            if self.number == 1:
                self._directions(measure, start, end)
            self._music(measure, start, end)
            if self.number == 1:
                self._jumps(measure, end)
            self._right_barline(measure, end, last=index == len(self.starts) - 1)
        return element

    # --- what stands at barlines ---

    def _left_barline(self, measure: Element, start: int) -> None:
        here = [s for s in self.score.signs if s.onset == start]
        repeat = any(s.kind == "repeat_start" for s in here)
        ending = next((s for s in here if s.kind == "ending"), None)
        if not repeat and ending is None:
            return
        barline = _add(measure, "barline", location="left")
        if repeat:
            _add(barline, "bar-style", "heavy-light")
        if ending is not None:
            _add(barline, "ending", number=_passes(ending.passes), type="start")
        if repeat:
            _add(barline, "repeat", direction="forward")

    def _right_barline(self, measure: Element, end: int, last: bool) -> None:
        here = [s for s in self.score.signs if s.onset == end]
        kinds = {s.kind for s in here}
        if last and "double" not in kinds:
            kinds.add("final")
        if not kinds & {"repeat_end", "ending_stop", "double", "final"}:
            return
        barline = _add(measure, "barline", location="right")
        heavy = bool(kinds & {"repeat_end", "final"})
        if heavy or "double" in kinds:
            _add(barline, "bar-style", "light-heavy" if heavy else "light-light")
        if "ending_stop" in kinds:
            before = [s for s in self.score.signs if s.kind == "ending" and s.onset < end]
            passes = before[-1].passes if before else ()
            _add(barline, "ending", number=_passes(passes), type="stop" if heavy else "discontinue")
        if "repeat_end" in kinds:
            back = next(s.passes for s in here if s.kind == "repeat_end")
            _add(barline, "repeat", direction="backward", **({"times": str(max(back) + 1)} if len(back) > 1 else {}))

    def _attributes(self, measure: Element, index: int, start: int) -> None:
        key, metre = self.score.key_at(start), self.score.metre_at(start)
        previous = self.starts[index - 1] if index else None
        new_key = previous is None or self.score.key_at(previous) != key
        new_metre = previous is None or self.score.metre_at(previous) != metre
        if not new_key and not new_metre:
            return
        attributes = _add(measure, "attributes")
        if index == 0:
            _add(attributes, "divisions", TICKS_PER_QUARTER)
        if new_key:
            signature = _add(attributes, "key")
            _add(signature, "fifths", 0 if self.part.is_drum else key.fifths)
            _add(signature, "mode", key.mode)
        if new_metre:
            time = _add(attributes, "time")
            _add(time, "beats", metre.numerator)
            _add(time, "beat-type", metre.denominator)
        if index == 0:
            if len(self.staves) > 1:
                _add(attributes, "staves", len(self.staves))
            for staff in range(len(self.staves)):
                sign, line, octave = self._clef(staff)
                clef = _add(attributes, "clef", **({"number": str(staff + 1)} if len(self.staves) > 1 else {}))
                _add(clef, "sign", sign)
                if sign != "percussion":
                    _add(clef, "line", line)
                if octave:
                    _add(clef, "clef-octave-change", octave)

    def _clef(self, staff: int) -> Clef:
        if self.part.is_drum:
            return ("percussion", 2, 0)
        if len(self.staves) > 1:
            return (("G", 2, 0), ("F", 4, 0))[staff]
        pitches = sorted(n[2] for n in self.staves[staff])
        middle = pitches[len(pitches) // 2] if pitches else 60 + 12 * (self.part.program in (72, 73))
        return clef_for(self.part.program, middle)

    def _directions(self, measure: Element, start: int, end: int) -> None:
        """What begins at this bar, and its tempo marks and chord symbols, over the first part."""
        for sign in self.score.signs:
            if sign.onset == start and sign.kind in ("section", "segno", "coda"):
                direction = _add(measure, "direction", placement="above")
                place = _add(direction, "direction-type")
                if sign.kind == "section":
                    _add(place, "rehearsal", _clean(sign.label))
                else:
                    _add(place, sign.kind)
                    name, value = _SOUNDS[sign.kind]
                    _add(direction, "sound", **{name: value})
        for tempo in self.score.tempos:
            if start <= tempo.onset < end:
                direction = _add(measure, "direction", placement="above")
                metronome = _add(_add(direction, "direction-type"), "metronome")
                _add(metronome, "beat-unit", "quarter")
                _add(metronome, "per-minute", f"{tempo.bpm:.6g}")
                if tempo.onset > start:
                    _add(direction, "offset", tempo.onset - start, sound="yes")
                _add(direction, "sound", tempo=f"{tempo.bpm:.6g}")
        for chord in self.score.chord_symbols:
            if start <= chord.onset < end:
                _write_chord_symbol(measure, chord.text, chord.onset - start)

    def _jumps(self, measure: Element, end: int) -> None:
        """Where the music leaves at this bar's end, over the first part."""
        for sign in self.score.signs:
            if sign.onset == end and sign.kind in _LEAVING:
                direction = _add(measure, "direction", placement="above")
                words = " ".join(
                    [_LEAVING[sign.kind], *sign.label.replace("coda", "Coda").replace("fine", "Fine").split()]
                )
                _add(_add(direction, "direction-type"), "words", words)
                name, value = _SOUNDS[sign.kind]
                _add(direction, "sound", **{name: value})

    # --- notes ---

    def _group_graces(self) -> dict[tuple[int, int], dict[int, list[GraceGroup]]]:
        """(start of the bar, staff) -> onset -> grace notes by place; the staff whose notes there are nearest to them.

        Those after the last bar are written at its end.
        """
        found: dict[int, dict[int, GraceGroup]] = {}
        for onset, place, pitch, slashed in self.part.graces.tolist():
            found.setdefault(min(onset, self.ends[-1]), {}).setdefault(place, []).append((pitch, slashed))
        made: dict[tuple[int, int], dict[int, list[GraceGroup]]] = {}
        for onset, places in found.items():
            groups = list(places.values())
            near: list[tuple[int, int]] = []
            for staff, notes in enumerate(self.staves):
                first = bisect_left(notes, (onset,))
                last = bisect_left(notes, (onset + 1,))
                near += [(abs(n[2] - groups[-1][0][0]), staff) for n in notes[first:last]]
            middle = int(groups[-1][0][0] < 60 and len(self.staves) > 1)
            bar = self.starts[max(bisect_right(self.starts, onset) - 1, 0)]
            made.setdefault((bar, min(near)[1] if near else middle), {})[onset] = groups
        return made

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
            homes = _place_graces(graces, laid, 2 * MAX_VOICES + 1 + staff, start + shift, end + shift)
            marks, grace_marks = self._accidentals(laid, graces, start, shift)
            for number, pieces in laid:
                if written:
                    _add(_add(measure, "backup"), "duration", length)
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
                forward = _add(measure, "forward")
                _add(forward, "duration", length)
                continue
            for j, single in enumerate(notes or [None]):
                element = SubElement(measure, "note")
                begin, stop = piece.start - shift, piece.end - shift
                tie_in = single is not None and single[0] < begin
                tie_out = single is not None and single[1] > stop
                self._write_head(element, single, j, length, piece, marks.get((voice, i, j)), tie_in, tie_out)
                _add(element, "voice", voice)
                if piece.type != "measure":
                    _add(element, "type", piece.type)
                    for _ in range(piece.dots):
                        _add(element, "dot")
                mark = marks.get((voice, i, j))
                if mark is not None and mark[3]:
                    _add(element, "accidental", mark[3])
                if piece.tuplet is not None:
                    ratio = _add(element, "time-modification")
                    _add(ratio, "actual-notes", piece.tuplet.actual)
                    _add(ratio, "normal-notes", piece.tuplet.normal)
                    _add(ratio, "normal-type", piece.tuplet.unit)
                self._write_notehead(element, single)
                if len(self.staves) > 1:
                    _add(element, "staff", staff + 1)
                if j == 0:
                    for level, value in enumerate(beams[i], 1):
                        _add(element, "beam", value, number=str(level))
                _write_notations(element, piece, j, tie_in, tie_out)

        for place, groups in graces.items():
            self._write_graces(measure, groups, place, voice, staff, shift, grace_marks)

    def _write_graces(
        self, measure: Element, groups: list[GraceGroup], place: int, voice: int, staff: int, shift: int, marks: dict
    ) -> None:
        """Grace notes as notes of no length: an eighth, or beamed sixteenths."""
        for i, group in enumerate(groups):
            for j, (pitch, slashed) in enumerate(group):
                element = _add(measure, "note")
                _add(element, "grace", **({"slash": "yes"} if slashed else {}))
                if j > 0:
                    _add(element, "chord")
                mark = marks.get((place, i, pitch))
                self._write_pitch(element, pitch, mark)
                if self.part.is_drum:
                    _add(element, "instrument", id=f"P{self.number}-I{pitch + 1}")
                _add(element, "voice", voice)
                _add(element, "type", "16th" if len(groups) > 1 else "eighth")
                if mark is not None and mark[3]:
                    _add(element, "accidental", mark[3])
                self._write_notehead(element, (place - shift, 0, pitch, 0))
                if len(self.staves) > 1:
                    _add(element, "staff", staff + 1)
                if j == 0 and len(groups) > 1:
                    value = "begin" if i == 0 else "end" if i == len(groups) - 1 else "continue"
                    for level in "12":
                        _add(element, "beam", value, number=level)

    def _write_pitch(self, element: Element, pitch: int, mark: Spelling | None) -> None:
        """<pitch>, or for drums the place on the staff."""
        if mark is None:
            step, octave, _ = DRUM_STAFF.get(pitch, ("C", 5, "normal"))
            place = _add(element, "unpitched")
            _add(place, "display-step", step)
            _add(place, "display-octave", octave)
            return
        step, alter, octave, _ = mark
        place = _add(element, "pitch")
        _add(place, "step", step)
        if alter:
            _add(place, "alter", alter)
        _add(place, "octave", octave)

    def _write_head(self, element, single, j, length, piece, mark, tie_in: bool, tie_out: bool) -> None:
        """Everything of a <note> up to its voice."""
        if single is None:
            rest = _add(element, "rest")
            if piece.type == "measure":
                rest.set("measure", "yes")
            _add(element, "duration", length)
            return
        _, _, pitch, velocity = single
        element.set("dynamics", f"{velocity / 0.9:.2f}")
        if j > 0:
            _add(element, "chord")
        self._write_pitch(element, pitch, mark)
        _add(element, "duration", length)
        if tie_in:
            _add(element, "tie", type="stop")
        if tie_out:
            _add(element, "tie", type="start")
        if self.part.is_drum:
            _add(element, "instrument", id=f"P{self.number}-I{pitch + 1}")

    def _write_notehead(self, element: Element, single: Note | None) -> None:
        if single is None:
            return
        head = DRUM_STAFF.get(single[2], ("C", 5, "normal"))[2] if self.part.is_drum else "normal"
        marked = self.mark_from is not None and single[0] >= self.mark_from
        if marked:
            _add(element, "notehead", head, color=MARK_COLOUR)
        elif head != "normal":
            _add(element, "notehead", head)


def _place_graces(graces: dict[int, list[GraceGroup]], laid: list, spare: int, start: int, end: int) -> dict[int, int]:
    """Place in the bar -> number of the voice whose note or rest the grace notes there stand before.

    Where every voice sounds on, they get a further voice (number `spare`) that is added to `laid`.
    """
    homes: dict[int, int] = {}
    alone: list[int] = []
    for place, groups in graces.items():
        if place >= end:
            homes[place] = laid[0][0]
            continue
        last = groups[-1][0][0]
        near = [
            (min((abs(note[2] - last) for note in notes), default=128) if notes else 128, number)
            for number, pieces in laid
            for piece, notes in pieces
            if piece.start == place and piece.type != "gap"
        ]
        if near:
            homes[place] = min(near)[1]
        else:
            homes[place] = spare
            alone.append(place)
    if alone:
        bounds = sorted({start, *alone, end})
        laid.append((spare, [(Piece(a, b, "gap"), None) for a, b in pairwise(bounds)]))
    return homes


def _write_notations(element: Element, piece: Piece, j: int, tie_in: bool, tie_out: bool) -> None:
    """Ties as drawn, and where a tuplet's bracket begins and stops."""
    tuplet = piece.tuplet
    starts = tuplet is not None and j == 0 and piece.start == tuplet.start
    stops = tuplet is not None and j == 0 and piece.end == tuplet.end
    if not (tie_in or tie_out or starts or stops):
        return
    notations = _add(element, "notations")
    if tie_in:
        _add(notations, "tied", type="stop")
    if tie_out:
        _add(notations, "tied", type="start")
    if starts:
        _add(notations, "tuplet", type="start", number="1")
    if stops:
        _add(notations, "tuplet", type="stop", number="1")


def _passes(passes: tuple[int, ...]) -> str:
    return ", ".join(map(str, passes)) or "1"


# --- chord symbols ----------------------------------------------------------------------------------------------------

_KINDS = {
    "": "major", "m": "minor", "7": "dominant", "m7": "minor-seventh", "maj7": "major-seventh", "dim": "diminished",
    "dim7": "diminished-seventh", "m7b5": "half-diminished", "aug": "augmented", "+": "augmented",
    "sus4": "suspended-fourth", "sus2": "suspended-second", "6": "major-sixth", "m6": "minor-sixth",
    "9": "dominant-ninth", "m9": "minor-ninth", "maj9": "major-ninth",
}  # fmt: skip
_CHORD = re.compile(r"([A-G])(#|b)?([^/]*)(?:/([A-G])(#|b)?)?$")


def _write_chord_symbol(measure: Element, text: str, offset: int) -> None:
    match = _CHORD.match(text)
    if match is None:
        return
    harmony = _add(measure, "harmony")
    for tag, step, sign in (("root", match[1], match[2]), ("bass", match[4], match[5])):
        if step:
            if tag == "bass":
                SubElement(harmony, "kind", text=match[3]).text = _KINDS.get(match[3], "other")
            place = _add(harmony, tag)
            _add(place, f"{tag}-step", step)
            if sign:
                _add(place, f"{tag}-alter", 1 if sign == "#" else -1)
    if not match[4]:
        SubElement(harmony, "kind", text=match[3]).text = _KINDS.get(match[3], "other")
    if offset:
        _add(harmony, "offset", offset)
