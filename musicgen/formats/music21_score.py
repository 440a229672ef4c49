"""A music21 stream to a Score: notes, bars, maps and signs, in one pass over its measures.

In comes a parsed stream, from a file or out of music21's corpus, out comes the score as written: sounding pitches, tied
notes joined, bars as they stand, repeat signs kept as signs. Bars are laid out by `music21_staff`, signs read by
`music21_signs`, staves made into instruments by `music21_parts`; here stands what a measure holds, and the piece as a
whole. music21 is imported inside: it takes a while to load.

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
from fractions import Fraction
from typing import Any

import numpy as np

from musicgen.errors import FormatError
from musicgen.formats.instruments import DRUM_STAFF, has_singers
from musicgen.formats.music21_parts import group_staves, make_part, part_id, part_name, transposition
from musicgen.formats.music21_signs import LEAVING, SECTION_COMMENT, Mark, barline_signs, jump_of, stated_signs
from musicgen.formats.music21_staff import PartFacts, Staff, agree_on_bars, collect_measures, ticks
from musicgen.score import DENOMINATORS, ChordSymbol, Key, Metre, Score, Sign, Tempo
from musicgen.score.edit import transpose_fifths
from musicgen.score.score import MODES

MAX_PARTS = 64
MAX_NOTES = 200_000
"""music21 takes some 13 KiB of memory a note; Beethoven's longest movements have under 100,000."""

MAX_BEATS = 255
"""Of a bar: music21 takes a time that grows with the square of a metre's numerator."""

DYNAMICS = {
    "pppppp": 8, "ppppp": 10, "pppp": 12, "ppp": 16, "pp": 33, "p": 49, "mp": 64, "mf": 80, "f": 96, "ff": 112,
    "fff": 122, "ffff": 126, "fffff": 127, "ffffff": 127,
}  # fmt: skip
"""Velocity of each dynamic mark; it holds in its part until the next one."""
ACCENTS = {"sf": 108, "sfz": 108, "fz": 108, "sffz": 118, "sfp": 108, "fp": 96, "rf": 104, "rfz": 104}
"""Marks that strike one moment; those that end in p leave the part piano after it."""

STAFF_DRUMS = {(step, octave): key for key, (step, octave, _) in sorted(DRUM_STAFF.items(), reverse=True)}
"""Place on a drum staff -> the drum set's key that is usually drawn there."""


def from_music21(stream: Any) -> Score:
    """A music21 Score or Part, parsed from a file or out of music21's corpus, as a Score as written."""
    return convert(pieces(stream)[0], {}, False, "music21 stream")


def pieces(stream: Any) -> list[Any]:
    """The scores of an Opus; any other stream is one piece."""
    from music21.stream import Opus

    return list(stream.scores) if isinstance(stream, Opus) else [stream]


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
        staves = [collect_measures(part) for part in parts]
        starts, end = agree_on_bars(staves, list(facts.values()))
        tremolos = _two_note_tremolos([*parts, stream])
        for part, staff in zip(parts, staves, strict=True):
            _collect(staff, transposition(part, facts.get(part_id(part))), tremolos)
        total = sum(len(staff.notes) + len(staff.graces) for staff in staves)
        if total > MAX_NOTES:
            raise FormatError(f"{source}: {total:,} notes, more than the {MAX_NOTES:,} that are read; split the file")
        groups = group_staves(parts)
        if len(groups) > MAX_PARTS:
            raise FormatError(f"{source}: {len(groups)} parts, more than the {MAX_PARTS} that are read")
        signs = barline_signs(staves[0], [*parts[:1], stream], end)
        signs += stated_signs(marks, staves[0], end) if marks or facts else [s for staff in staves for s in staff.signs]
        title = _title(stream)
        names = [part_name(parts[group[0]], facts.get(part_id(parts[group[0]]))) for group in groups]
        singers = has_singers(names)
        made = [
            make_part(name, parts[group[0]], [staves[i] for i in group], facts, own, singers)
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
                        staff.chords += [ChordSymbol(start + ticks(offset), text)] if text else []
                        continue
                    length = element.duration.quarterLength
                    if changes:
                        shift = next((n for at, n in reversed(changes) if at <= offset), written)
                    singles = element.notes if isinstance(element, chord.Chord) else (element,)
                    onset = start + ticks(offset)
                    if element.duration.isGrace:
                        slashed = bool(getattr(element.duration, "slash", False))
                        pitches = [round(single.pitch.ps) + shift for single in singles]
                        place = places[onset, voice]
                        staff.graces += [(onset, place, pitch, slashed) for pitch in pitches if 0 <= pitch <= 127]
                        places[onset, voice] += 1
                        continue
                    if length <= 0:
                        continue
                    end = max(start + ticks(offset + length), onset + 1)
                    if id(element) in tremolos:  # both notes sound for the whole span
                        first, last, is_first = tremolos[id(element)]
                        if is_first and holder.elementOffset(element) + length == _offset_in(holder, last):
                            end += ticks(last.duration.quarterLength)
                        elif not is_first and _offset_in(holder, first) + first.duration.quarterLength == (
                            holder.elementOffset(element)
                        ):
                            onset -= ticks(first.duration.quarterLength)
                    loud = _velocity(element)
                    for single in singles:
                        pitch = round(single.pitch.ps) + shift
                        if not 0 <= pitch <= 127:
                            continue
                        tie = single.tie  # a chord's own tie is only its first note's
                        velocity = _velocity(single) or loud
                        staff.notes.append((onset, end, pitch, velocity, tie.type if tie is not None else "", voice))
                elif isinstance(element, note.Unpitched):
                    onset = start + ticks(offset)
                    end = onset + max(ticks(element.duration.quarterLength), 1)
                    drum = STAFF_DRUMS.get((element.displayStep, element.displayOctave), 38)
                    if not element.duration.isGrace:
                        staff.notes.append((onset, end, drum, _velocity(element), "", voice))
                elif isinstance(element, stream.Voice):
                    containers.append((element, offset, str(element.id)))
                elif isinstance(element, meter.TimeSignature):
                    staff.metres += _metre(element, start + ticks(offset))
                elif isinstance(element, key.KeySignature):
                    found = _key(element, start + ticks(offset), shift)
                    # of several at one place (kern: signature, then key) the one with a mode counts
                    if found and isinstance(element, key.Key):
                        staff.keys = [k for k in staff.keys if k.onset != found[0].onset]
                    if found and not any(k.onset == found[0].onset for k in staff.keys):
                        staff.keys += found
                elif isinstance(element, tempo.MetronomeMark):
                    bpm = element.getQuarterBPM()
                    if bpm is not None and 1 <= bpm < 10_000:
                        staff.tempos.append(Tempo(start + ticks(offset), float(f"{bpm:.6g}")))
                elif isinstance(element, dynamics.Dynamic):
                    _dynamic(staff, str(element.value), start + ticks(offset))
                elif isinstance(element, SpineComment) and element.comment.startswith(SECTION_COMMENT):
                    staff.signs.append(Sign(start + ticks(offset), "section", label=element.comment[1:]))
                elif isinstance(element, repeat.RepeatExpression):
                    kind, label = jump_of(element)
                    stop = start + ticks(measure.highestTime)
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
