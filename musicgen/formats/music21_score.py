"""A music21 stream to a Score: notes, bars, maps and signs, in one pass over its measures.

In comes a parsed stream, from a file or out of music21's corpus, out comes the score as written: sounding pitches, tied
notes joined, bars as they stand, repeat signs kept as signs. music21 is imported inside: it takes a while to load.

Knowingly lost: grace notes and ornaments, tremolos (kept as written), hairpins, lyrics, articulations, spelling,
microtones (rounded to the semitone). A length that is not a whole number of ticks is rounded to the nearest.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
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
    DRUM_PROGRAM,
    TICKS_PER_QUARTER,
    ChordSymbol,
    Key,
    Metre,
    Part,
    Score,
    Sign,
    Tempo,
    notes_array,
)
from musicgen.score.edit import transpose_fifths
from musicgen.score.score import MODES

MAX_PARTS = 64
MAX_NOTES = 500_000

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

    programs: declared General MIDI programs 0..127, in order. transposes: (bar index, semitones) to sounding pitch.
    """

    name: str = ""
    programs: list[int] = field(default_factory=list)
    is_drum: bool = False
    transposes: list[tuple[int, int]] = field(default_factory=list)


def from_music21(stream: Any) -> Score:
    """A music21 Score or Part, parsed from a file or out of music21's corpus, as a Score as written."""
    return convert(pieces(stream)[0], {}, False, "music21 stream")


def pieces(stream: Any) -> list[Any]:
    """The scores of an Opus; any other stream is one piece."""
    from music21.stream import Opus

    return list(stream.scores) if isinstance(stream, Opus) else [stream]


RawNote = tuple[int, int, int, int, str, str]


@dataclass
class Staff:
    """One music21 part on the clock. notes: (onset, end, pitch, velocity or 0, tie type or "", voice), in ticks."""

    measures: list[Any]
    starts: list[int]
    end: int
    notes: list[RawNote] = field(default_factory=list)
    loudness: list[tuple[int, int, bool]] = field(default_factory=list)  # (onset, velocity, holds on)
    keys: list[Key] = field(default_factory=list)
    metres: list[Metre] = field(default_factory=list)
    tempos: list[Tempo] = field(default_factory=list)
    chords: list[ChordSymbol] = field(default_factory=list)


def convert(stream: Any, facts: dict[str, PartFacts], own: bool, source: str) -> Score:
    """One music21 score as a Score. facts by part id, where a file gave some; own: its programs are to be trusted;
    source names it in errors.
    """
    from music21.stream import Part as M21Part

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = [stream] if isinstance(stream, M21Part) else list(stream.getElementsByClass(M21Part)) or [stream]
        staves = [_collect_measures(part) for part in parts]
        starts, end = _agree_on_bars(staves)
        for part, staff in zip(parts, staves, strict=True):
            _collect(staff, starts, _transposition(part, facts.get(_part_id(part))))
        total = sum(len(staff.notes) for staff in staves)
        if total > MAX_NOTES:
            raise FormatError(f"{source}: {total:,} notes, more than the {MAX_NOTES:,} that are read; split the file")
        groups = _group_staves(parts)
        if len(groups) > MAX_PARTS:
            raise FormatError(f"{source}: {len(groups)} parts, more than the {MAX_PARTS} that are read")
        signs = _signs(staves[0], [*parts[:1], stream], starts, end)
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
        signs=signs,
        chord_symbols=tuple(c for s in staves for c in s.chords),
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
    end = starts[-1] + max(_ticks(measures[-1].highestTime), 1) if measures else 0
    return Staff(measures, starts, end)


def _agree_on_bars(staves: list[Staff]) -> tuple[list[int], int]:
    """Bar starts and the end of the last bar, for all parts: a bar is as long as the longest part makes it.

    Parts are laid bar by bar where they have as many bars as the first; any other stays where music21 put it.
    """
    count = len(staves[0].starts)
    if count == 0:
        return [0], max(staff.end for staff in staves)
    alike = [s for s in staves if len(s.starts) == count]
    lengths = np.max([np.diff([*s.starts, s.end]) for s in alike], axis=0)
    lengths = lengths[: len(lengths)]
    # measures of no length (a stray barline) are no bars
    bounds = np.concatenate(([0], np.cumsum(np.maximum(lengths, 0))))
    for staff in alike:
        staff.starts = [int(b) for b in bounds[:-1]]
    keep = [int(b) for b, length in zip(bounds[:-1], lengths, strict=True) if length > 0]
    return keep or [0], int(bounds[-1])


def _collect(staff: Staff, bars: list[int], transposes: list[tuple[int, int]]) -> None:
    """Everything of a part that a Score holds, in one pass over its measures. transposes: (bar index, semitones)."""
    from music21 import chord, dynamics, harmony, key, meter, note, stream, tempo

    shift = 0
    for index, (measure, start) in enumerate(zip(staff.measures, staff.starts, strict=True)):
        for at, semitones in transposes:
            if at == index:
                shift = semitones
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
                    if element.duration.isGrace or length <= 0:
                        continue
                    onset = start + _ticks(offset)
                    end = max(start + _ticks(offset + length), onset + 1)
                    loud = _velocity(element)
                    for single in element.notes if isinstance(element, chord.Chord) else (element,):
                        pitch = round(single.pitch.ps) + shift
                        if not 0 <= pitch <= 127:
                            continue
                        tie = single.tie  # a chord's own tie is only its first note's
                        velocity = _velocity(single) or loud
                        staff.notes.append((onset, end, pitch, velocity, tie.type if tie is not None else "", voice))
                elif isinstance(element, note.Unpitched):
                    onset = start + _ticks(offset)
                    end = onset + max(_ticks(element.duration.quarterLength), 1)
                    place = (element.displayStep, element.displayOctave)
                    if not element.duration.isGrace:
                        staff.notes.append((onset, end, STAFF_DRUMS.get(place, 38), _velocity(element), "", voice))
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
    known = numerator >= 1 and denominator in (1, 2, 4, 8, 16, 32, 64)
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


def _transposition(part: Any, entry: PartFacts | None) -> list[tuple[int, int]]:
    """(bar index, semitones to sounding pitch), from the file's own words or from music21's instruments."""
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
        found.append((max(index, 0), int(interval.semitones) if interval is not None else 0))
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
    return Part(name=name, program=program, is_drum=is_drum, notes=notes)


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


def _signs(staff: Staff, holders: list[Any], bars: list[int], end: int) -> tuple[Sign, ...]:
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
                add(onset, "repeat_start" if barline.direction == "start" else "repeat_end")
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
    return tuple(found.values())


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
