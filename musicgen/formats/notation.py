"""How a bar is written down: exact ticks to note values, dots, tuplets and ties; pitches to letters; beams.

In comes what sounds in one voice of one bar, out come pieces that a note value can express, split where a reader
expects to see the beat. Knows no file format; the MusicXML writer and whoever draws notes call it.

Positions and lengths are ticks, counted from where a full bar would begin (a pickup starts late in its bar).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import lru_cache

from musicgen.score import Metre, Score, Tempo

TYPES = {
    3840: "breve", 1920: "whole", 960: "half", 480: "quarter", 240: "eighth", 120: "16th", 60: "32nd", 30: "64th",
    15: "128th",
}  # fmt: skip
"""Ticks -> MusicXML's name of a plain note value."""

SMALLEST = 15
VALUES: dict[int, tuple[str, int]] = {ticks: (name, 0) for ticks, name in TYPES.items()}
"""Ticks -> (type, dots) of everything that one notehead can say."""
VALUES |= {ticks * 3 // 2: (name, 1) for ticks, name in TYPES.items() if ticks % 2 == 0 and ticks >= 30}
VALUES |= {ticks * 7 // 4: (name, 2) for ticks, name in TYPES.items() if ticks % 4 == 0 and ticks >= 240}


@dataclass(frozen=True)
class Tuplet:
    """`actual` notes in the time of `normal` notes of type `unit`, from start to end."""

    start: int
    end: int
    actual: int
    normal: int
    unit: str


@dataclass(frozen=True)
class Piece:
    """A stretch of a bar and the note value that says it: the nearest one where none fits, for the length is exact."""

    start: int
    end: int
    type: str
    dots: int = 0
    tuplet: Tuplet | None = None


@lru_cache(maxsize=64)
def beat_levels(numerator: int, denominator: int) -> tuple[tuple[int, ...], int, bool]:
    """(periods from the bar down, index of the beat among them, whether the metre is compound), in ticks."""
    unit = 1920 // denominator
    compound = denominator >= 8 and numerator % 3 == 0 and numerator > 3
    beat = unit * 3 if compound else unit
    levels = [unit * numerator]
    beats = numerator // 3 if compound else numerator
    if beats % 2 == 0 and beats >= 4:
        levels.append(levels[0] // 2)
    if levels[-1] != beat:
        levels.append(beat)
    index = len(levels) - 1
    size = beat
    if compound:
        size = beat // 3
        levels.append(size)
    while size % 2 == 0 and size // 2 >= SMALLEST:
        size //= 2
        levels.append(size)
    return tuple(levels), index, compound


def split_bar(spans: list[tuple[int, int, bool]], numerator: int, denominator: int) -> list[list[Piece]]:
    """Each span (start, end, is_rest) of one voice, in order and apart, as the tied pieces that write it."""
    levels, beat, compound = beat_levels(numerator, denominator)
    if not spans:
        return []
    bounds = sorted({t for start, end, _ in spans for t in (start, end)})
    tuplets = find_tuplets(bounds, spans[0][0], spans[-1][1], levels[beat], compound, levels[0])
    written = []
    for start, end, is_rest in spans:
        pieces: list[Piece] = []
        at = start
        for tuplet in tuplets:
            if tuplet.end <= at or tuplet.start >= end:
                continue
            if tuplet.start > at:
                pieces += _split_plain(at, tuplet.start, levels, beat, compound, is_rest)
                at = tuplet.start
            stop = min(end, tuplet.end)
            pieces += _split_in_tuplet(at, stop, tuplet)
            at = stop
        if at < end:
            pieces += _split_plain(at, end, levels, beat, compound, is_rest)
        written.append(pieces)
    return written


def _split_plain(
    start: int, end: int, levels: tuple[int, ...], beat: int, compound: bool, is_rest: bool
) -> list[Piece]:
    if _fits(start, end, levels, beat, compound, is_rest):
        name, dots = VALUES[end - start]
        return [Piece(start, end, name, dots)]
    cut = _strongest_inside(start, end, levels)
    if cut is None:
        return [Piece(start, end, _nearest_type(end - start))]
    return [
        *_split_plain(start, cut, levels, beat, compound, is_rest),
        *_split_plain(cut, end, levels, beat, compound, is_rest),
    ]


def _split_in_tuplet(start: int, end: int, tuplet: Tuplet) -> list[Piece]:
    """A stretch inside a tuplet: split as if the tuplet were a bar of its own, in the note values that are printed."""
    scale, whole = tuplet.actual, (tuplet.end - tuplet.start) * tuplet.actual // tuplet.normal
    unit = whole // tuplet.actual
    levels = [whole, unit]
    while levels[-1] % 2 == 0 and levels[-1] // 2 >= SMALLEST:
        levels.append(levels[-1] // 2)

    def printing(tick: int) -> int:
        place = (tick - tuplet.start) * scale / tuplet.normal
        # a seventh or ninth of a beat is no whole number of ticks: its place is the nearest
        return round(place / unit) * unit if tuplet.actual in ODD else int(place)

    first, last = printing(start), printing(end)
    printed = _split_plain(first, last, tuple(levels), 1, False, False)

    def sounding(tick: int) -> int:
        if tick in (first, last):
            return start if tick == first else end
        return tuplet.start + round(tick * tuplet.normal / scale)

    return [Piece(sounding(p.start), sounding(p.end), p.type, p.dots, tuplet) for p in printed]


def _strength(tick: int, levels: tuple[int, ...]) -> int:
    """Index of the longest period that `tick` falls on: 0 for the barline."""
    return next((i for i, period in enumerate(levels) if tick % period == 0), len(levels))


def _strongest_inside(start: int, end: int, levels: tuple[int, ...]) -> int | None:
    for period in levels:
        first = (start // period + 1) * period
        if first < end:
            return first
    return None


def _fits(start: int, end: int, levels: tuple[int, ...], beat: int, compound: bool, is_rest: bool) -> bool:
    """Whether one value says it and the beat is still seen: syncopation reaches over one level, no further."""
    length = end - start
    if length not in VALUES:
        return False
    inside = _strongest_inside(start, end, levels)
    if inside is None or length == levels[0]:
        return True
    crossed, at_start, at_end = _strength(inside, levels), _strength(start, levels), _strength(end, levels)
    if compound and crossed <= beat:
        return at_start <= beat and at_end <= beat
    if is_rest:
        return at_start <= crossed and (VALUES[length][1] == 0 or compound)
    if min(at_start, at_end) <= crossed:
        return True
    return min(at_start, at_end) == crossed + 1 and length <= levels[crossed]


def _nearest_type(length: int) -> str:
    return next((name for ticks, name in TYPES.items() if ticks <= length), TYPES[SMALLEST])


ODD = (7, 9, 11, 13)
"""Tuplets whose notes are no whole numbers of ticks long: they are known by their places, to the nearest tick."""


def _odd_tuplet(span: int, size: int, inside: list[int]) -> Tuplet | None:
    """A tuplet of seven, nine ... in [span, span + size) whose notes begin where `inside` has them."""
    for actual in ODD:
        normal = 8 if actual > 8 else 4
        if size % normal == 0 and size // normal in TYPES and len(inside) > 1:
            places = [b * actual / size for b in inside]
            if all(abs(p - round(p)) * size / actual <= 0.5 for p in places):
                return Tuplet(span, span + size, actual, normal, TYPES[size // normal])
    return None


def tempo_beat(score: Score, tempo: Tempo) -> tuple[bool, float]:
    """(whether the beat is a dotted quarter, beats a minute) of one of a score's tempi, as a musician would write it.

    Compound metres beat in dotted quarters, if every tempo there is as plain a number then; a performance of many tempi
    is left in quarters.
    """
    here = [t for t in score.tempos if _beats_in_three(score.metre_at(t.onset))] if len(score.tempos) <= 16 else []
    dotted = tempo in here and all(round(t.bpm / 1.5, 3) * 1.5 == t.bpm for t in here)
    return (True, round(tempo.bpm / 1.5, 3)) if dotted else (False, tempo.bpm)


def _beats_in_three(metre: Metre) -> bool:
    return metre.denominator == 8 and metre.numerator % 3 == 0 and metre.numerator > 3


def find_tuplets(bounds: list[int], start: int, end: int, beat: int, compound: bool, bar: int) -> list[Tuplet]:
    """The triplets, quintuplets, septuplets and so on that a voice needs, by where its notes begin and end."""
    if not any(b % SMALLEST for b in bounds):
        return []
    if compound or beat < 480:
        size = 240 if beat % 240 == 0 else beat
    else:
        size = 960 if bar % 960 == 0 else 480
    found: list[Tuplet] = []
    span = start // size * size
    while span < end:
        if compound and size == 240 and _is_triplet_of_eighths(bounds, span, start, end, beat):
            found.append(Tuplet(span, span + 480, 3, 2, TYPES[240]))
            span += 480
            continue
        found += _tuplets_in(span, size, start, end, bounds) or []
        span += size
    return found


def _is_triplet_of_eighths(bounds: list[int], span: int, start: int, end: int, beat: int) -> bool:
    """Whether three notes stand in the place of two eighths of one compound beat: (3ABc in a jig."""
    inside = [b - span for b in bounds[bisect_right(bounds, span) : bisect_left(bounds, span + 480)]]
    edges = {start, end, *bounds}
    return (
        span % beat + 480 <= beat
        and {span, span + 480} <= edges
        and any(b % SMALLEST for b in inside)
        and all(b % 160 == 0 for b in inside)
    )


def _tuplets_in(span: int, size: int, start: int, end: int, bounds: list[int]) -> list[Tuplet] | None:
    """Tuplets within [span, span + size); None where no tuplet fits and the lengths must stay irregular."""
    inside = [b - span for b in bounds[bisect_right(bounds, span) : bisect_left(bounds, span + size)]]
    if not any(b % SMALLEST for b in inside):
        return []
    half = size // 2
    whole = start <= span and span + size <= end
    if whole and size // 2 in TYPES:
        if all(b * 3 % size == 0 for b in inside):
            return [Tuplet(span, span + size, 3, 2, TYPES[size // 2])]
        if size // 4 in TYPES and all(b * 5 % size == 0 for b in inside):
            return [Tuplet(span, span + size, 5, 4, TYPES[size // 4])]
        if any(b % 10 and b % 12 for b in inside):
            odd = _odd_tuplet(span, size, inside)
            if odd is not None:
                return [odd]
    halves = None
    if size % 2 == 0 and half >= 120:
        left = _tuplets_in(span, half, start, end, bounds)
        right = _tuplets_in(span + half, half, start, end, bounds)
        if left is not None and right is not None:
            halves = left + right
        if halves is not None and (size > 480 or half in inside or not whole):
            return halves
        if size > 480:
            return (left or []) + (right or [])
    if whole and size // 2 in TYPES:
        if all(b % 10 == 0 for b in inside):
            return [Tuplet(span, span + size, 3, 2, TYPES[size // 2])]
        if size // 4 in TYPES and all(b % 12 == 0 for b in inside):
            return [Tuplet(span, span + size, 5, 4, TYPES[size // 4])]
    return halves


# --- letters ----------------------------------------------------------------------------------------------------------


def spell(pitch: int, fifths: int) -> tuple[str, int, int]:
    """(step, alter, octave) of a MIDI pitch in a key signature: its own notes, and the usual ones around them.

    On the circle of fifths a key takes what lies from three under its tonic to eight over it: in C, E flat to G sharp.
    """
    place = (pitch * 7) % 12  # fifths above C, 0..11
    while place > fifths + 8:
        place -= 12
    while place < fifths - 3:
        place += 12
    alter, letter = divmod(place + 1, 7)
    return "FCGDAEB"[letter], alter, (pitch - alter) // 12 - 1


def signature_alter(step: str, fifths: int) -> int:
    """What a key signature does to a letter: 1 for sharp, -1 for flat."""
    if fifths > 0:
        return int("FCGDAEB".index(step) < fifths)
    return -int("BEADGCF".index(step) < -fifths)


# --- beams ------------------------------------------------------------------------------------------------------------

FLAGS = {"eighth": 1, "16th": 2, "32nd": 3, "64th": 4, "128th": 5}


def beam_notes(pieces: list[Piece | None], numerator: int, denominator: int) -> list[list[str]]:
    """For each piece of a voice in order (None: a rest), what its beams do, from the outermost in:
    "begin", "continue", "end", "forward hook", "backward hook"."""
    levels, beat, _ = beat_levels(numerator, denominator)
    span = levels[beat] if levels[beat] >= 480 else (levels[0] if levels[0] <= 720 else 480)
    span = min(span, 480) if levels[beat] > 720 else span
    beams: list[list[str]] = [[] for _ in pieces]
    group: list[int] = []

    def close() -> None:
        if len(group) > 1:
            flags = [FLAGS[pieces[i].type] for i in group]  # type: ignore[union-attr]
            for j, i in enumerate(group):
                for level in range(1, flags[j] + 1):
                    before = j > 0 and flags[j - 1] >= level
                    after = j + 1 < len(group) and flags[j + 1] >= level
                    if before or after:
                        beams[i].append("continue" if before and after else "end" if before else "begin")
                    else:
                        beams[i].append("backward hook" if j > 0 else "forward hook")
        group.clear()

    for i, piece in enumerate(pieces):
        if piece is None or piece.type not in FLAGS:
            close()
            continue
        if group:
            last = pieces[group[-1]]
            assert last is not None
            if last.end != piece.start or last.start // span != piece.start // span:
                close()
        group.append(i)
    close()
    return beams
