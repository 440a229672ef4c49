"""A music21 stream to a Score: notes, bars, maps and signs, in one pass over its measures.

In comes a parsed stream, from a file or out of music21's corpus, out comes the score as written: sounding pitches, tied
notes joined, bars as they stand, repeat signs kept as signs. music21 is imported inside: it takes a while to load.

A tremolo on one note is that note, held for its whole length; a tremolo between two notes or chords is both of them
held together for the whole span: what sounds is right at every moment, and bars add up.

Knowingly lost: ornaments and arpeggios (the plain note or chord stays), slurs, hairpins, lyrics, articulations,
spelling, microtones (rounded to the semitone), pitches that MIDI has no number for. A length that is not a whole
number of ticks is rounded to the nearest.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from musicgen.errors import FormatError
from musicgen.formats.instruments import (
    DRUM_STAFF,
    GRAND_STAFF,
    choose_program,
    has_singers,
    is_drum_name,
    program_by_name,
)
from musicgen.score import (
    DENOMINATORS,
    DRUM_PROGRAM,
    TICKS_PER_QUARTER,
    ChordSymbol,
    Key,
    Metre,
    Part,
    Score,
    Sign,
    Tempo,
    graces_array,
    notes_array,
)
from musicgen.score.edit import transpose_fifths
from musicgen.score.score import MODES

MAX_PARTS = 64
MAX_NOTES = 200_000
"""music21 takes some 13 KiB of memory a note; Beethoven's longest movements have under 100,000."""

MAX_BEATS = 255
"""Of a bar: music21 takes a time that grows with the square of a metre's numerator."""

MOST_TIMES = 16
"""That a repeat is played."""

DEFAULT_VELOCITY = 80
DYNAMICS = {
    "pppppp": 8, "ppppp": 10, "pppp": 12, "ppp": 16, "pp": 33, "p": 49, "mp": 64, "mf": 80, "f": 96, "ff": 112,
    "fff": 122, "ffff": 126, "fffff": 127, "ffffff": 127,
}  # fmt: skip
"""Velocity of each dynamic mark; it holds in its part until the next one."""
ACCENTS = {"sf": 108, "sfz": 108, "fz": 108, "sffz": 118, "sfp": 108, "fp": 96, "rf": 104, "rfz": 104}
"""Marks that strike one moment; those that end in p leave the part piano after it."""

STAFF_DRUMS = {(step, octave): key for key, (step, octave, _) in sorted(DRUM_STAFF.items(), reverse=True)}
"""Place on a drum staff -> the drum set's key that is usually drawn there."""


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


def from_music21(stream: Any) -> Score:
    """A music21 Score or Part, parsed from a file or out of music21's corpus, as a Score as written."""
    return convert(pieces(stream)[0], {}, False, "music21 stream")


def pieces(stream: Any) -> list[Any]:
    """The scores of an Opus; any other stream is one piece."""
    from music21.stream import Opus

    return list(stream.scores) if isinstance(stream, Opus) else [stream]


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


def convert(
    stream: Any,
    facts: dict[str, PartFacts],
    own: bool,
    source: str,
    marks: Sequence[Mark] = (),
    order: tuple[str, ...] = (),
) -> Score:
    """One music21 score as a Score. facts by part id, where a file gave some; own: its programs are to be trusted;
    source names it in errors. marks: sections and jumps that the file states; order: of its sections.
    """
    from music21.stream import Part as M21Part

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = [stream] if isinstance(stream, M21Part) else list(stream.getElementsByClass(M21Part)) or [stream]
        staves = [_collect_measures(part) for part in parts]
        starts, end = _agree_on_bars(staves, list(facts.values()))
        tremolos = _two_note_tremolos([*parts, stream])
        for part, staff in zip(parts, staves, strict=True):
            _collect(staff, _transposition(part, facts.get(_part_id(part))), tremolos)
        total = sum(len(staff.notes) + len(staff.graces) for staff in staves)
        if total > MAX_NOTES:
            raise FormatError(f"{source}: {total:,} notes, more than the {MAX_NOTES:,} that are read; split the file")
        groups = _group_staves(parts)
        if len(groups) > MAX_PARTS:
            raise FormatError(f"{source}: {len(groups)} parts, more than the {MAX_PARTS} that are read")
        signs = _signs(staves[0], [*parts[:1], stream], end)
        signs += (
            _stated_signs(marks, staves[0], end) if marks or facts else [s for staff in staves for s in staff.signs]
        )
        title = _title(stream)
        names = [_part_name(parts[group[0]], facts.get(_part_id(parts[group[0]]))) for group in groups]
        singers = has_singers(names)
        made = [
            _make_part(name, parts[group[0]], [staves[i] for i in group], facts, own, singers)
            for name, group in zip(names, groups, strict=True)
        ]
    drums = {i for group, part in zip(groups, made, strict=True) if part.is_drum for i in group}
    return Score(
        parts=tuple(made),
        title=title,
        tempos=_tidy([t for s in staves for t in s.tempos], Tempo(0, 120.0)),
        metres=_tidy(next((s.metres for s in staves if s.metres), []), Metre(0, 4, 4)),
        keys=_usual_keys([s.keys for i, s in enumerate(staves) if i not in drums and s.keys]),
        bars=np.array(starts, dtype=np.int32),
        length=max([end, *(part.end for part in made)]),
        signs=tuple({(s.onset, s.kind, s.label if s.kind == "section" else ""): s for s in reversed(signs)}.values()),
        chord_symbols=tuple(c for s in staves for c in s.chords),
        order=order,
    )


def _ticks(quarters: Any) -> int:
    """Quarter notes (float or Fraction) in ticks, to the nearest."""
    return round(quarters * TICKS_PER_QUARTER)


def _collect_measures(part: Any) -> Staff:
    """A part's measures and where music21 puts them; a part without measures gets some."""
    from music21.stream import Measure

    measures = list(part.getElementsByClass(Measure))
    if not measures:
        if isinstance(part, Measure):
            return Staff([part], [0], _ticks(part.highestTime))
        part = part.makeMeasures()
        measures = list(part.getElementsByClass(Measure))
    starts = [_ticks(part.elementOffset(measure)) for measure in measures]
    end = starts[-1] + _ticks(measures[-1].highestTime) if measures else 0
    return Staff(measures, starts, end)


SLIP = TICKS_PER_QUARTER // 2
"""A bar that is too long by less than this, in one part and not in another, is a slip of the pen: ticks."""


def _agree_on_bars(staves: list[Staff], facts: list[PartFacts]) -> tuple[list[int], int]:
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
                metre = _ticks(element.barDuration.quarterLength)
        lengths.append(_ticks(length))
        full.append(metre)
    return lengths, full


def _collect(
    staff: Staff, transposes: list[tuple[int, Fraction, int]], tremolos: dict[int, tuple[Any, Any, bool]]
) -> None:
    """Everything of a part that a Score holds, in one pass over its measures.

    transposes: (bar index, quarters into the bar, semitones), sorted; tremolos: see `_two_note_tremolos`.
    """
    from music21 import chord, dynamics, harmony, humdrum, key, meter, note, repeat, stream, tempo

    SpineComment = humdrum.spineParser.SpineComment
    coming = list(transposes)
    written = 0  # what the part transposes by at the bar's beginning
    for index, (measure, start) in enumerate(zip(staff.measures, staff.starts, strict=True)):
        changes: list[tuple[Fraction, int]] = []  # inside this bar
        while coming and coming[0][0] <= index:
            _, inside, semitones = coming.pop(0)
            if inside:
                changes.append((inside, semitones))
            else:
                written = semitones
        shift = written
        places: Counter[tuple[int, str]] = Counter()  # grace notes so far of an onset and voice
        containers = [(measure, 0, "1")]
        while containers:
            holder, base, voice = containers.pop(0)
            for element in holder:
                offset = base + holder.elementOffset(element)
                if isinstance(element, (note.Note, chord.Chord)):
                    if isinstance(element, harmony.ChordSymbol):
                        text = _chord_text(element)
                        staff.chords += [ChordSymbol(start + _ticks(offset), text)] if text else []
                        continue
                    length = element.duration.quarterLength
                    if changes:
                        shift = next((n for at, n in reversed(changes) if at <= offset), written)
                    singles = element.notes if isinstance(element, chord.Chord) else (element,)
                    onset = start + _ticks(offset)
                    if element.duration.isGrace:
                        slashed = bool(getattr(element.duration, "slash", False))
                        pitches = [round(single.pitch.ps) + shift for single in singles]
                        place = places[onset, voice]
                        staff.graces += [(onset, place, pitch, slashed) for pitch in pitches if 0 <= pitch <= 127]
                        places[onset, voice] += 1
                        continue
                    if length <= 0:
                        continue
                    end = max(start + _ticks(offset + length), onset + 1)
                    if id(element) in tremolos:  # both notes sound for the whole span
                        first, last, is_first = tremolos[id(element)]
                        if is_first and holder.elementOffset(element) + length == _offset_in(holder, last):
                            end += _ticks(last.duration.quarterLength)
                        elif not is_first and _offset_in(holder, first) + first.duration.quarterLength == (
                            holder.elementOffset(element)
                        ):
                            onset -= _ticks(first.duration.quarterLength)
                    loud = _velocity(element)
                    for single in singles:
                        pitch = round(single.pitch.ps) + shift
                        if not 0 <= pitch <= 127:
                            continue
                        tie = single.tie  # a chord's own tie is only its first note's
                        velocity = _velocity(single) or loud
                        staff.notes.append((onset, end, pitch, velocity, tie.type if tie is not None else "", voice))
                elif isinstance(element, note.Unpitched):
                    onset = start + _ticks(offset)
                    end = onset + max(_ticks(element.duration.quarterLength), 1)
                    drum = STAFF_DRUMS.get((element.displayStep, element.displayOctave), 38)
                    if not element.duration.isGrace:
                        staff.notes.append((onset, end, drum, _velocity(element), "", voice))
                elif isinstance(element, stream.Voice):
                    containers.append((element, offset, str(element.id)))
                elif isinstance(element, meter.TimeSignature):
                    staff.metres += _metre(element, start + _ticks(offset))
                elif isinstance(element, key.KeySignature):
                    found = _key(element, start + _ticks(offset), shift)
                    # of several at one place (kern: signature, then key) the one with a mode counts
                    if found and isinstance(element, key.Key):
                        staff.keys = [k for k in staff.keys if k.onset != found[0].onset]
                    if found and not any(k.onset == found[0].onset for k in staff.keys):
                        staff.keys += found
                elif isinstance(element, tempo.MetronomeMark):
                    bpm = element.getQuarterBPM()
                    if bpm is not None and 1 <= bpm < 10_000:
                        staff.tempos.append(Tempo(start + _ticks(offset), float(f"{bpm:.6g}")))
                elif isinstance(element, dynamics.Dynamic):
                    _dynamic(staff, str(element.value), start + _ticks(offset))
                elif isinstance(element, SpineComment) and element.comment.startswith(SECTION_COMMENT):
                    staff.signs.append(Sign(start + _ticks(offset), "section", label=element.comment[1:]))
                elif isinstance(element, repeat.RepeatExpression):
                    kind, label = _jump(element)
                    stop = start + _ticks(measure.highestTime)
                    staff.signs += [Sign(stop if kind in LEAVING else start, kind, label=label)] if kind else []
        written = changes[-1][1] if changes else written


def _offset_in(holder: Any, element: Any) -> Any:
    """Where an element is in a measure or voice; -1 where it is not in it."""
    from music21.sites import SitesException

    try:
        return holder.elementOffset(element)
    except SitesException:
        return -1


def _two_note_tremolos(holders: list[Any]) -> dict[int, tuple[Any, Any, bool]]:
    """id of a note or chord that alternates with another -> (the first, the last, whether it is the first).

    holders: where music21 may have put them; of an instrument's staves the first holds those of all.
    """
    from music21.expressions import TremoloSpanner

    found: dict[int, tuple[Any, Any, bool]] = {}
    for spanner in (s for holder in holders for s in holder.getElementsByClass(TremoloSpanner)):
        ends = list(spanner.getSpannedElements())
        if len(ends) == 2:
            found[id(ends[0])] = (ends[0], ends[1], True)
            found[id(ends[1])] = (ends[0], ends[1], False)
    return found


def _jump(element: Any) -> tuple[str, str]:
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


def _stated_signs(marks: Sequence[Mark], staff: Staff, end: int) -> list[Sign]:
    """Marks of a file as signs at the barlines of its first part."""
    bounds = [*staff.starts, end]
    return [
        Sign(bounds[mark.bar + mark.at_end], mark.kind, label=mark.label)
        for mark in marks
        if mark.bar < len(staff.starts)
    ]


def _velocity(element: Any) -> int:
    """The velocity that a note states itself; 0 where it states none."""
    if not element.hasVolumeInformation():
        return 0
    scalar = element.volume.velocityScalar
    return max(1, min(127, round(127 * scalar))) if scalar is not None else 0


def _dynamic(staff: Staff, mark: str, onset: int) -> None:
    if mark in DYNAMICS:
        staff.loudness.append((onset, DYNAMICS[mark], True))
    elif mark in ACCENTS:
        staff.loudness.append((onset, ACCENTS[mark], False))
        if mark.endswith("p"):
            staff.loudness.append((onset + 1, DYNAMICS["p"], True))


def _metre(element: Any, onset: int) -> list[Metre]:
    try:
        numerator, denominator = int(element.numerator), int(element.denominator)
    except (TypeError, ValueError):
        return []
    known = numerator >= 1 and denominator in DENOMINATORS
    return [Metre(onset, numerator, denominator)] if known else []


def _key(element: Any, onset: int, shift: int) -> list[Key]:
    if element.sharps is None or not -7 <= element.sharps <= 7:
        return []
    mode = getattr(element, "mode", None) or "major"
    mode = {"ionian": "major", "aeolian": "minor"}.get(mode, mode)
    fifths = transpose_fifths(element.sharps, shift) if shift % 12 else element.sharps
    return [Key(onset, fifths, mode if mode in MODES else "major")]


def _chord_text(element: Any) -> str:
    """A chord symbol as a lead sheet has it: root, kind as written, bass after a slash."""
    try:
        root = element.root()
        if root is None or type(element).__name__ == "NoChord":
            return ""
        kind = element.chordKindStr
        if not kind:
            from music21.harmony import getAbbreviationListGivenChordType

            known = getAbbreviationListGivenChordType(element.chordKind) if element.chordKind else [""]
            kind = known[0]
        text = root.name.replace("-", "b") + kind
        bass = element.bass()
        return text + ("/" + bass.name.replace("-", "b") if bass is not None and bass.name != root.name else "")
    except Exception:  # a symbol that music21 can't spell is no reason to refuse the music
        return ""


def _part_id(part: Any) -> str:
    instrument = _instruments(part)[:1]
    return (instrument[0].partId or "") if instrument else ""


def _instruments(part: Any) -> list[Any]:
    from music21.instrument import Instrument

    return list(part.getElementsByClass(Instrument))


def _part_name(part: Any, entry: PartFacts | None) -> str:
    name = entry.name if entry is not None else part.partName or ""
    if not name:
        name = next((i.partName or i.instrumentName or "" for i in _instruments(part)), "")
    return " ".join(name.split())


def _transposition(part: Any, entry: PartFacts | None) -> list[tuple[int, Fraction, int]]:
    """(bar index, quarters into the bar, semitones to sounding pitch), from the file's own words or from music21's
    instruments."""
    if entry is not None:
        return entry.transposes
    # music21 gives a clarinet its usual transposition even where the notes stand at sounding pitch
    if part.atSoundingPitch is not False:
        return []
    from music21.stream import Measure

    offsets = [part.elementOffset(m) for m in part.getElementsByClass(Measure)]
    found = []
    for instrument in _instruments(part):
        index = int(np.searchsorted(offsets, part.elementOffset(instrument), side="right")) - 1
        interval = instrument.transposition
        found.append((max(index, 0), Fraction(0), int(interval.semitones) if interval is not None else 0))
    return found


def _group_staves(parts: list[Any]) -> list[list[int]]:
    """Indices of the music21 parts that are one instrument: staves of one part id, or kern's two keyboard spines."""
    groups: list[list[int]] = []
    previous = ("", "")
    for i, part in enumerate(parts):
        identity, name = _part_id(part), _part_name(part, None)
        same_id = identity and identity == previous[0]
        program = program_by_name(name) if name else None
        keyboard = program is not None and program in GRAND_STAFF
        if groups and (same_id or (not identity and not previous[0] and keyboard and name == previous[1])):
            groups[-1].append(i)
        else:
            groups.append([i])
        previous = (identity, name)
    return groups


def _make_part(
    name: str, part: Any, staves: list[Staff], facts: dict[str, PartFacts], own: bool, singers: bool
) -> Part:
    """One instrument out of its staves: ties joined, dynamics applied, program chosen."""
    entry = facts.get(_part_id(part))
    instruments = _instruments(part)[:1]
    if entry is not None:
        declared, is_drum = entry.programs, entry.is_drum
    else:
        declared = [i.midiProgram for i in instruments if i.midiProgram is not None]
        is_drum = any("UnpitchedPercussion" in i.classes for i in instruments) and is_drum_name(name)
    loudness = [mark for staff in staves for mark in staff.loudness]
    notes = _apply_dynamics(_join_ties([n for staff in staves for n in staff.notes]), loudness)
    if is_drum:
        program = DRUM_PROGRAM
    elif own and declared:
        program = declared[0]
    else:
        program = choose_program(name, declared, singers)
    graces = {grace[:3] for staff in staves for grace in staff.graces}
    slashed = {(onset, place) for staff in staves for onset, place, _, slash in staff.graces if slash}
    made = graces_array((*grace, grace[:2] in slashed) for grace in graces)  # a chord has one stem, and one slash
    return Part(name, program, is_drum, notes, made)


def _join_ties(raw: list[RawNote]) -> list[list[int]]:
    """[onset, end, pitch, velocity] with tied notes made one. A tie that finds nothing to hold on to is a new note."""
    joined: list[list[int]] = []
    open_ties: dict[tuple[int, int], list[tuple[list[int], str]]] = {}  # (pitch, where it stops) -> (note, voice)
    for onset, end, pitch, velocity, tie, voice in sorted(raw, key=lambda n: (n[0], n[4] == "start")):
        note = None
        waiting = open_ties.get((pitch, onset))
        if waiting and tie in ("stop", "continue"):
            # two voices may hold the same pitch: each goes on in its own
            place = next((i for i, (_, held_in) in enumerate(waiting) if held_in == voice), 0)
            note = waiting.pop(place)[0]
            note[1] = end
        if note is None:
            note = [onset, end, pitch, velocity]
            joined.append(note)
        if tie in ("start", "continue"):
            open_ties.setdefault((pitch, end), []).append((note, voice))
    return joined


def _apply_dynamics(notes: list[list[int]], loudness: list[tuple[int, int, bool]]) -> np.ndarray:
    """A NOTE array; a note that states no velocity takes the last mark's before it, mf where there is none."""
    held = sorted((onset, velocity) for onset, velocity, holds in loudness if holds)
    struck = {onset: velocity for onset, velocity, holds in loudness if not holds}
    onsets = np.array([onset for onset, _ in held], dtype=np.int64)
    made = []
    for onset, end, pitch, velocity in notes:
        if not velocity:
            place = int(np.searchsorted(onsets, onset, side="right")) - 1
            velocity = struck.get(onset) or (held[place][1] if place >= 0 else DEFAULT_VELOCITY)
        made.append((onset, end - onset, pitch, velocity))
    return notes_array(made)


def _signs(staff: Staff, holders: list[Any], end: int) -> list[Sign]:
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
            (b, start + _ticks(measure.elementOffset(b)))
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


def _tidy(events: Iterable[Any], default: Any) -> tuple[Any, ...]:
    """Events by onset, the first of several at one tick, none that repeats the last; `default` at 0 where none is."""
    kept: list[Any] = []
    for event in sorted(events, key=lambda e: e.onset):
        if not kept and event.onset > 0:
            kept.append(default)
        same = kept and {**vars(kept[-1]), "onset": 0} == {**vars(event), "onset": 0}
        if not same and not (kept and kept[-1].onset == event.onset):
            kept.append(event)
    return tuple(kept) or (default,)


def _usual_keys(candidates: list[list[Key]]) -> tuple[Key, ...]:
    """The keys that most parts carry at sounding pitch: natural horns and timpani are written without a signature."""
    tidied = [_tidy(keys, Key(0, 0)) for keys in candidates]
    if not tidied:
        return (Key(0, 0),)
    votes = Counter(tuple((k.onset, k.fifths) for k in keys) for keys in tidied)
    best = max(votes.values())
    return next(keys for keys in tidied if votes[tuple((k.onset, k.fifths) for k in keys)] == best)


def _title(stream: Any) -> str:
    metadata = getattr(stream, "metadata", None)
    if metadata is None:
        return ""
    titles = [str(t) for t in (metadata.title, metadata.movementName) if t]
    # kern titles may end in references to other records: "Piano Sonata, @{OTL}, K 331"
    plain = [" ".join(re.sub(r",?\s*@\{.*", "", t).split()) for t in titles]
    return ": ".join(dict.fromkeys(t for t in plain if t))
