"""Who plays in a continuation: which program a model is lent for a part, what a part may play, and parts that join in.

In come a fragment's parts and what was asked for by `--add-part`, out come parts, programs, ranges. Nothing here knows
of steps but the values of field `part`, by which a model of the `bars` tokenizer knows its instruments.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from musicgen.errors import FinishError
from musicgen.formats.instruments import family, playing_range, program_by_name
from musicgen.score import DRUM_PROGRAM, Part
from musicgen.score.general_midi import DRUM_KIT, PROGRAM_NAMES
from musicgen.tokens.bars_vocabulary import INSTANCES, INSTRUMENT, KINDS

BEYOND = 7
"""Semitones that a part may go below and above what it has played: models that are lost tend to climb."""
PIANO = (21, 108)
"""A piano's compass, within which a part stays that has not played yet."""
MOST_OF_CHORD = 4
"""Notes that a part which has not played yet may strike at once, where its instrument can play chords."""
_ONE_NOTE = (*range(32, 44), *range(56, 61), *range(64, 80))
"""Programs that play one note at a time: basses, solo strings, brass, reeds, pipes."""

# ------------------------------------------------------------------------------------------------------ parts that join


def parts_to_add(asked: Sequence[str], there: Sequence[Part]) -> tuple[Part, ...]:
    """Empty parts for what was asked for: General MIDI names, other names of instruments, numbers 0 to 127, "drums".

    there: the parts of the score, whose names are not given twice. Raises FinishError.
    """
    taken = {part.name.casefold() for part in there}
    added = []
    for words in asked:
        program = None if words.strip().casefold() in ("drums", "drum kit") else program_asked(words)
        plain = "Drums" if program is None else PROGRAM_NAMES[program]
        name, number = plain, 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain} {number}"
        taken.add(name.casefold())
        added.append(Part(name, DRUM_PROGRAM if program is None else program, is_drum=program is None))
    return tuple(added)


def program_asked(words: str) -> int:
    """The General MIDI program of a name or of a number 0 to 127. Raises FinishError, naming the nearest names."""
    plain = words.strip()
    if plain.isdecimal() and plain.isascii() and int(plain) < len(PROGRAM_NAMES):
        return int(plain)
    known = {name.casefold(): program for program, name in enumerate(PROGRAM_NAMES)}
    program = known.get(plain.casefold())
    program = program_by_name(plain) if program is None and not plain.isdecimal() else program
    if program is None:
        near = difflib.get_close_matches(plain.casefold(), known, n=1, cutoff=0.7)
        meant = f" ({PROGRAM_NAMES[known[near[0]]]}?)" if near else ""
        raise FinishError(
            f"--add-part: {plain!r} is no General MIDI instrument{meant}; give its name (English Horn), its number "
            "(0 to 127), or drums"
        )
    return program


# ------------------------------------------------------------------------------------------------------------- programs


def lend_programs(parts: Sequence[Part], seen: Sequence[int] | None, joining: Collection[int] = ()) -> tuple[Part, ...]:
    """Parts whose instrument (and which one of its kind) the model has met, as near as can be to the real ones.

    seen: values of field `part` met in training; None means all. Each part keeps its own where it can; the others take,
    in this order, the same program, the same family, anything; where all are taken, their own. joining: the parts, by
    index, that have not played yet but will; they choose after the others.
    """
    if seen is None:
        return tuple(parts)
    free: dict[int, int] = {}  # kind -> how many instances of it were met
    for value in seen:
        if value >= INSTRUMENT:
            kind, instance = divmod(value - INSTRUMENT, INSTANCES)
            free[kind] = max(free.get(kind, 0), instance + 1)
    lent = list(parts)
    playing = [i for i, part in enumerate(parts) if len(part.notes)]
    for group in (playing, [i for i in joining if i not in playing]):
        strange = []  # instruments that were never met, or not so many of them
        for i in group:
            own = KINDS - 1 if parts[i].is_drum else parts[i].program
            if free.get(own, 0) > 0:
                free[own] -= 1
            elif not parts[i].is_drum:
                strange.append(i)
        for i in strange:
            part = parts[i]
            choices = [kind for kind, left in free.items() if left > 0 and kind < KINDS - 1]
            choices.sort(key=lambda kind: (family(kind) != family(part.program), _distance(kind, part), kind))
            if choices:
                free[choices[0]] -= 1
                lent[i] = replace(part, program=choices[0])
    return tuple(lent)


def _distance(program: int, part: Part) -> float:
    """How far the middle of an instrument's range lies from where a part plays, or would, in semitones."""
    low, high = playing_range(program)
    own = float(np.median(part.notes["pitch"])) if len(part.notes) else sum(playing_range(part.program)) / 2
    return abs((low + high) / 2 - own)


# --------------------------------------------------------------------------------------------------------------- bounds


def pitch_range(part: Part) -> tuple[int, int]:
    """What a part may play: up to BEYOND what it has, in its instrument's range; of drums, what it has.

    A part that has not played yet may play what its instrument can, within a piano's compass; drums, General MIDI's.
    """
    low, high = playing_range(part.program)
    if not len(part.notes):
        return (min(DRUM_KIT), max(DRUM_KIT)) if part.is_drum else (max(low, PIANO[0]), min(high, PIANO[1]))
    lowest, highest = int(part.notes["pitch"].min()), int(part.notes["pitch"].max())
    low, high = (127, 0) if part.is_drum else (low, high)
    return min(max(low, lowest - BEYOND), lowest), max(min(high, highest + BEYOND), highest)


def most_together(part: Part) -> int:
    """How many notes a part has struck at once, at most: two flutes on one staff do not play a chord of five."""
    if not len(part.notes):
        return 1 if not part.is_drum and part.program in _ONE_NOTE else MOST_OF_CHORD
    return int(np.unique(part.notes["onset"], return_counts=True)[1].max())


def is_one_line(part: Part) -> bool:
    """Whether a part plays one note at a time: none of its notes is struck while another sounds.

    Of a part that has not played yet, whether its instrument does.
    """
    if not len(part.notes):
        return not part.is_drum and part.program in _ONE_NOTE
    onsets, stops = part.notes["onset"], part.notes["onset"] + part.notes["duration"]
    return not part.is_drum and bool((onsets[1:] >= stops[:-1]).all())


def one_after_another(notes: np.ndarray) -> np.ndarray:
    """A NOTE array, sorted by onset, in which no note sounds on when the next onset comes."""
    if len(notes) < 2:
        return notes
    notes = notes.copy()
    following = np.searchsorted(notes["onset"], notes["onset"], side="right")
    later = np.append(notes["onset"], np.iinfo(np.int32).max)[following]
    notes["duration"] = np.minimum(notes["duration"], later - notes["onset"])
    return notes
