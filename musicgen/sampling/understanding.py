"""What a fragment is, said aloud before it is continued, so that a musician can check it at a glance.

In comes the fragment, out comes an Understanding: parts, key, metre, tempo, where exactly it stops and what sounds
there; or a FinishError where there is nothing that could be continued. `in_lines` lays it out for a terminal or a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from musicgen.errors import FinishError
from musicgen.formats.instruments import playing_range
from musicgen.sampling.prompts import RECENT_BARS, settle
from musicgen.score import TICKS_PER_QUARTER, Key, Part, Score
from musicgen.score.general_midi import DRUM_NAMES, PITCH_NAMES, PROGRAM_NAMES
from musicgen.score.score import MINOR_MODES, MODE_FIFTHS
from musicgen.score.tonality import Tonality, find_tonality

DRUM_KEYS = (27, 87)
"""Keys of the General MIDI drum map, level 2."""
MOST_SHOWN = 6
"""Changes of tempo or metre that are listed one by one; a performance has thousands."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class PartRead:
    """What was understood of one part of a fragment. Pitches by name (C4 is middle C), of drums none."""

    name: str
    instrument: str
    program: int
    is_drum: bool
    notes: int
    lowest: str
    highest: str
    """What it plays in the fragment; "-" where it does not play, or beats drums."""
    can_play: tuple[str, str] | None
    """Lowest and highest pitch of its instrument; None where it has no natural bounds."""
    plays_lately: bool
    """Whether it plays in the last 8 bars."""
    sounding: tuple[str, ...]
    """The pitches that sound up to the seam; of drums, what is struck."""


@dataclass(frozen=True)
class Understanding:
    """What was read of a fragment, and where it stops. Bars are counted from 1, a pickup too."""

    title: str
    parts: tuple[PartRead, ...]
    key: str
    """As it is written at the seam."""
    tonality: str | None
    """The key that the notes are in, where that is another than what is written."""
    metre: str
    metres: tuple[tuple[int, str], ...]
    """(bar, metre) from the beginning and at each change."""
    tempo_bpm: float
    tempos: tuple[tuple[int, float], ...]
    """(bar, quarter notes a minute) from the beginning and at each change."""
    bars: int
    pickup: bool
    """Whether bar 1 is an upbeat."""
    seam: int
    """Tick at which the fragment stops (480 to the quarter note)."""
    last_bar_filled: float
    """Share of the last bar that is there; 1.0 where it is full."""
    last_complete_bar: int
    """0 where there is none."""
    quarters_there: float
    quarters_full: float
    """Quarter notes of the last bar that are there, and that it has when it is full."""


def understand(fragment: Score) -> Understanding:
    """What a fragment is, in words a musician can check. Raises FinishError where there is nothing to continue."""
    check_fragment(fragment)
    seam = fragment.length
    meant = settle(fragment)
    start = int(meant.bars[-1])
    metre, key = meant.metre_at(start), meant.key_at(start)
    there = min(meant.length - start, metre.ticks)
    tonality = find_tonality(fragment, seam)
    lately = int(meant.bars[max(len(meant.bars) - RECENT_BARS, 0)])
    metres = _changes([(meant.bar_at(m.onset) + 1, f"{m.numerator}/{m.denominator}") for m in fragment.metres])
    tempos = _changes([(meant.bar_at(t.onset) + 1, t.bpm) for t in fragment.tempos])
    return Understanding(
        title=fragment.title,
        parts=tuple(_read_part(part, lately, seam) for part in fragment.parts),
        key=key.name,
        tonality=None if tonality is None or _is_in(tonality, key) else tonality.name,
        metre=f"{metre.numerator}/{metre.denominator}",
        metres=tuple(metres),
        tempo_bpm=fragment.tempo_at(seam).bpm,
        tempos=tuple(tempos),
        bars=len(meant.bars),
        pickup=meant.pickup > 0,
        seam=seam,
        last_bar_filled=there / metre.ticks,
        last_complete_bar=len(meant.bars) - (there < metre.ticks),
        quarters_there=there / TICKS_PER_QUARTER,
        quarters_full=metre.ticks / TICKS_PER_QUARTER,
    )


def check_fragment(fragment: Score) -> None:
    """Raises FinishError where a score can't be continued by any model: it has no notes, or drums nobody can name."""
    if not fragment.note_count:
        raise FinishError(
            f"{fragment.title or 'the score'}: no notes, so there is nothing to continue; begin it, or use `sample`"
        )
    for part in fragment.parts:
        if part.is_drum and len(part.notes):
            keys = part.notes["pitch"]
            strange = (keys < DRUM_KEYS[0]) | (keys > DRUM_KEYS[1])
            if 2 * int(strange.sum()) > len(keys):
                raise FinishError(
                    f"{name_of(part)}: an unknown drum map, {int(strange.sum())} of {len(keys)} notes have keys (first "
                    f"{int(keys[strange][0])}) outside General MIDI's {DRUM_KEYS[0]}..{DRUM_KEYS[1]}; move them to "
                    "General MIDI's keys, or leave the part out"
                )


def name_of(part: Part) -> str:
    """The part's name; of one without, its instrument's."""
    return part.name or ("drums" if part.is_drum else PROGRAM_NAMES[part.program])


def _read_part(part: Part, lately: int, seam: int) -> PartRead:
    pitches, named = part.notes["pitch"], len(part.notes) > 0 and not part.is_drum
    ends = part.notes["onset"] + part.notes["duration"]
    low, high = playing_range(part.program)
    bounded = not part.is_drum and (low, high) != (0, 127)
    return PartRead(
        name=name_of(part),
        instrument="drums" if part.is_drum else PROGRAM_NAMES[part.program],
        program=part.program,
        is_drum=part.is_drum,
        notes=len(part.notes),
        lowest=PITCH_NAMES[pitches.min()] if named else "-",
        highest=PITCH_NAMES[pitches.max()] if named else "-",
        can_play=(PITCH_NAMES[low], PITCH_NAMES[high]) if bounded else None,
        plays_lately=bool((ends > lately).any()),
        sounding=tuple(
            (DRUM_NAMES if part.is_drum else PITCH_NAMES)[pitch] for pitch in pitches[ends >= seam].tolist()
        ),
    )


def _is_in(tonality: Tonality, key: Key) -> bool:
    """Whether they have the same tonic and the same third."""
    tonic = 7 * (key.fifths + MODE_FIFTHS[key.mode]) % 12
    return (tonality.tonic, tonality.minor) == (tonic, key.mode in MINOR_MODES)


def _changes(events: Sequence[tuple[int, Value]]) -> list[tuple[int, Value]]:
    """Those that say something new."""
    found: list[tuple[int, Value]] = []
    for bar, value in events:
        if not found or found[-1][1] != value:
            found.append((bar, value))
    return found


# ---------------------------------------------------------------------------------------------------------- for reading


def in_lines(found: Understanding) -> list[str]:
    """A compact, aligned block of text: what stands at the seam, then a line a part."""
    begun = "complete" if found.last_bar_filled == 1 else f"filled to {_number(found.quarters_there)} of "
    if found.last_bar_filled < 1:
        begun += f"{_number(found.quarters_full)} quarters ({found.last_bar_filled:.0%})"
    last = found.last_complete_bar
    before = f"; the last complete one is bar {last}" if last and found.last_bar_filled < 1 else ""
    upbeat = ", the first an upbeat" if found.pickup else ""
    lately = sum(part.plays_lately for part in found.parts)
    rows = [
        ("bars", f"{found.bars} bars of {found.metre}{upbeat}; bar {found.bars} is {begun}{before}"),
        ("key", found.key + (f" as written; by its notes {found.tonality}" if found.tonality else "")),
        ("metre", _course([(bar, metre) for bar, metre in found.metres])),
        ("tempo", _course([(bar, f"{bpm:.4g}") for bar, bpm in found.tempos], " quarters a minute")),
        (
            "band",
            f"{len(found.parts)} part{'s' * (len(found.parts) != 1)}, {lately} playing in the last {RECENT_BARS} bars",
        ),
    ]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows] + ["  " + line for line in _parts_table(found.parts)]


def _parts_table(parts: Sequence[PartRead]) -> list[str]:
    table = [("part", "instrument", "plays", "can play", "notes", "lately", "at the seam")]
    for part in parts:
        table.append(
            (
                part.name[:28],
                part.instrument,
                f"{part.lowest} to {part.highest}" if part.lowest != "-" else "-",
                " to ".join(part.can_play) if part.can_play else "-",
                f"{part.notes:,}",
                "plays" if part.plays_lately else "silent",
                " ".join(part.sounding),
            )
        )
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    aligned = []
    for row in table:
        cells = [
            cell.rjust(w) if i == 4 else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        aligned.append("  ".join(cells).rstrip())
    return aligned


def _course(changes: Sequence[tuple[int, str]], unit: str = "") -> str:
    """A value, and where it changes: "3/4", or "4/4, 3/4 from bar 9"."""
    first, *rest = changes
    shown = [first[1] + unit, *(f"{value} from bar {bar}" for bar, value in rest)]
    if len(shown) > MOST_SHOWN:
        shown = [shown[0], f"then {len(rest) - 1:,} changes", shown[-1]]
    return ", ".join(shown)


def _number(quarters: float) -> str:
    return f"{quarters:.2f}".rstrip("0").rstrip(".")
