"""Instruments out of music21 parts: which staves are one, how it is named, how it transposes, and its Part.

In come music21 parts, the facts that a file states of them, and the staves that `music21_score` filled; out come Parts:
ties joined, dynamics made velocities, a General MIDI program chosen. music21 is imported inside: it takes a while to
load.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from musicgen.formats.instruments import GRAND_STAFF, choose_program, is_drum_name, program_by_name
from musicgen.formats.music21_staff import PartFacts, RawNote, Staff
from musicgen.score import DRUM_PROGRAM, Part, graces_array, notes_array

DEFAULT_VELOCITY = 80


def part_id(part: Any) -> str:
    """The id that the file gives the part, which is that of its facts; "" where it has none."""
    instrument = _instruments(part)[:1]
    return (instrument[0].partId or "") if instrument else ""


def _instruments(part: Any) -> list[Any]:
    from music21.instrument import Instrument

    return list(part.getElementsByClass(Instrument))


def part_name(part: Any, entry: PartFacts | None) -> str:
    """The part's name: the file's own, or music21's, or that of its instrument; white space made single."""
    name = entry.name if entry is not None else part.partName or ""
    if not name:
        name = next((i.partName or i.instrumentName or "" for i in _instruments(part)), "")
    return " ".join(name.split())


def transposition(part: Any, entry: PartFacts | None) -> list[tuple[int, Fraction, int]]:
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


def group_staves(parts: list[Any]) -> list[list[int]]:
    """Indices of the music21 parts that are one instrument: staves of one part id, or kern's two keyboard spines."""
    groups: list[list[int]] = []
    previous = ("", "")
    for i, part in enumerate(parts):
        identity, name = part_id(part), part_name(part, None)
        same_id = identity and identity == previous[0]
        program = program_by_name(name) if name else None
        keyboard = program is not None and program in GRAND_STAFF
        if groups and (same_id or (not identity and not previous[0] and keyboard and name == previous[1])):
            groups[-1].append(i)
        else:
            groups.append([i])
        previous = (identity, name)
    return groups


def make_part(name: str, part: Any, staves: list[Staff], facts: dict[str, PartFacts], own: bool, singers: bool) -> Part:
    """One instrument out of its staves: ties joined, dynamics applied, program chosen."""
    entry = facts.get(part_id(part))
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
