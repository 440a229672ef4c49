"""What can be measured of a continuation beside its fragment, and the order of several takes.

In come scores, out come figures: likeness to the fragment, repetition, and how long a run of notes is copied. They are
functions of (fragment, continuation) and know nothing of models: they serve any ending, also a composer's own.

The order of takes. Each take has a place in each of five rows: by likeness to the fragment, and by likeness to its last
bars (high is good; these two count twice); by how far its nats a note lie from those of the fragment's own last bars
under the same model (near is good); by how far its share of repeated bars lies from the fragment's own (near is good);
and by the longest run of notes that it copies from the training pieces (short is good, up to 8 notes all the same). A
row is left out where it is not known. A place is the number of takes that are better; the take with the smallest sum of
places comes first, of equal sums the one more like the fragment, then the one that was drawn first. The likeliest take
is not the best: long held notes and music that stands still are cheap (LOG.md has what that did to hidden endings). To
be typical is to cost as much as music does (Meister et al. 2023, "Locally typical sampling").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from musicgen.score import TICKS_PER_QUARTER, Score, bars_between
from musicgen.score.edit import paste
from musicgen.score.lines import OPENING, Melodies, as_known, find_lines, lines, longest_run

# ------------------------------------------------------------------------------------------------------------- likeness


def pitch_classes(score: Score) -> np.ndarray:
    """(12,) how many notes each pitch class has; drums left out."""
    found = [part.notes["pitch"] % 12 for part in score.parts if not part.is_drum]
    return np.bincount(np.concatenate([*found, np.zeros(0, dtype=np.int64)]), minlength=12)


def note_lengths(score: Score) -> np.ndarray:
    """(17,) how many notes last so long: a class to half a power of 2, from a 64th to 16 quarters.

    Eighth, dotted eighth and quarter are neighbours; what was played a little short is in the class of what was meant.
    """
    found = [part.notes["duration"] for part in score.parts]
    quarters = np.concatenate([*found, np.zeros(0, dtype=np.int64)]) / TICKS_PER_QUARTER
    return np.bincount(_half_powers(quarters, -8, 8), minlength=17)


def melodic_intervals(score: Score) -> np.ndarray:
    """(25,) how many steps of the parts' lines are so large: -12 .. 12 semitones, larger ones counted as octaves."""
    found = [np.clip(intervals.astype(np.int64), -12, 12) + 12 for intervals in lines(score)]
    return np.bincount(np.concatenate([*found, np.zeros(0, dtype=np.int64)]), minlength=25)


def bar_density(score: Score) -> np.ndarray:
    """(25,) how many bars hold so many onsets: none, or a class to half a power of 2; of full bars if there are any."""
    per_bar = np.zeros(len(score.bars), dtype=np.int64)
    for part in score.parts:
        np.add.at(per_bar, np.searchsorted(score.bars, part.notes["onset"], side="right") - 1, 1)
    full = score.bar_lengths >= np.array([score.metre_at(start).ticks for start in score.bars.tolist()])
    per_bar = per_bar[full] if full.any() else per_bar
    classes = np.where(per_bar > 0, 1 + _half_powers(np.maximum(per_bar, 1), 0, 23), 0)
    return np.bincount(classes, minlength=25)


def _half_powers(values: np.ndarray, low: int, high: int) -> np.ndarray:
    """Classes 0 .. high - low: 2 log2 of values, rounded, within low .. high."""
    return np.clip(np.rint(2 * np.log2(values)), low, high).astype(np.int64) - low


FEATURES: dict[str, Callable[[Score], np.ndarray]] = {
    "pitch classes": pitch_classes,
    "note lengths": note_lengths,
    "intervals": melodic_intervals,
    "density": bar_density,
}
"""Name -> histogram of a score, by which a continuation is held against its fragment."""


def overlap(one: np.ndarray, other: np.ndarray) -> float | None:
    """The area that two histograms have in common once each is made to sum to 1: 0..1. None where one is empty.

    Overlapped area, as in Yang & Lerch 2020, "On the evaluation of generative models in music", of the features' own
    distributions.
    """
    if not one.sum() or not other.sum():
        return None
    return float(np.minimum(one / one.sum(), other / other.sum()).sum())


def overlaps(fragment: Score, continuation: Score) -> dict[str, float | None]:
    """For each of FEATURES, how much of its distribution the two have in common."""
    return {name: overlap(feature(fragment), feature(continuation)) for name, feature in FEATURES.items()}


def likeness(found: dict[str, float | None]) -> float | None:
    """The mean of the overlaps that there are."""
    known = [value for value in found.values() if value is not None]
    return sum(known) / len(known) if known else None


# ----------------------------------------------------------------------------------------------------------- repetition


def bar_contents(score: Score) -> list[bytes]:
    """What each bar holds: its notes (part, place in the bar, pitch, duration), so that equal bars are equal bytes."""
    rows = []
    for number, part in enumerate(score.parts):
        bar = np.searchsorted(score.bars, part.notes["onset"], side="right") - 1
        place = part.notes["onset"] - score.bars[bar]
        pitch, duration = part.notes["pitch"], part.notes["duration"]
        rows.append(np.stack([bar, np.full(len(bar), number), place, pitch, duration], axis=1).astype(np.int32))
    table = np.concatenate(rows) if rows else np.zeros((0, 5), dtype=np.int32)
    table = table[np.lexsort(table.T[::-1])]
    edges = np.searchsorted(table[:, 0], np.arange(len(score.bars) + 1))
    return [table[a:b, 1:].tobytes() for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]


def repetition(score: Score) -> float:
    """Share of the bars with notes that hold exactly what an earlier bar holds; 0.0 where there are none."""
    held = [content for content in bar_contents(score) if content]
    return 1 - len(set(held)) / len(held) if held else 0.0


# ---------------------------------------------------------------------------------------------------------- originality


@dataclass(frozen=True)
class Copied:
    """The longest run of notes that stands elsewhere too, in any key: intervals and rhythm alike."""

    notes: int
    part: str = ""
    """The part that plays it here."""
    bar: int = 0
    """The bar it begins in, from 1."""
    source: str = ""
    """Title of the piece that it stands in."""


def longest_copy(score: Score, melodies: Melodies, first_bar: int = 1) -> Copied:
    """The longest run of notes of `score` that stands in `melodies`; its bars are counted from `first_bar` on."""
    run = longest_run(find_lines(score), melodies.known, melodies.rhythm)
    if not run.notes:
        return Copied(0)
    bar = score.bar_at(run.onset) + first_bar
    return Copied(run.notes, _name(score, run.part), bar, melodies.title_at(run.place))


def melodies_of(score: Score) -> Melodies:
    """The lines of one score, to be held against."""
    known = as_known(find_lines(score))
    return Melodies(known, np.array([len(known)]), (score.title,), 1)


def _name(score: Score, part: int) -> str:
    return score.parts[part].name or f"part {part + 1}"


# -------------------------------------------------------------------------------------------------------------- figures


@dataclass(frozen=True)
class Figures:
    """What was measured of one continuation."""

    notes: int
    nats_per_note: float | None
    """How little the model was surprised by what it wrote; None where no model was asked."""
    likeness: float | None
    """Mean of the overlaps: 0 nothing, 1 everything in common with the fragment."""
    overlaps: dict[str, float | None]
    repetition: float
    """Share of its bars that repeat an earlier one of its own exactly."""
    copied: Copied | None
    """From the training pieces; None where these are not known."""
    quoted: Copied
    """From the fragment."""
    late_likeness: float | None = None
    """The likeness to the fragment's last bars, as many as it has itself, but LATE_BARS at least."""


LATE_BARS = 8


def late_bars(fragment: Score, count: int) -> Score:
    """The last `count` bars of a fragment, LATE_BARS at least where there are so many."""
    first = max(len(fragment.bars) - max(count, LATE_BARS), 0)
    return bars_between(fragment, first, len(fragment.bars))


def measure(
    fragment: Score,
    continuation: Score,
    *,
    melodies: Melodies | None = None,
    nats_per_note: float | None = None,
    first_bar: int = 1,
) -> Figures:
    """All figures of a continuation: a score of its own that starts at tick 0, as `from_seam` gives it.

    melodies: those of the training pieces. first_bar: the number of the bar that the continuation begins in.
    """
    found = overlaps(fragment, continuation)
    return Figures(
        notes=continuation.note_count,
        nats_per_note=nats_per_note,
        likeness=likeness(found),
        overlaps=found,
        repetition=repetition(continuation),
        copied=longest_copy(continuation, melodies, first_bar) if melodies is not None else None,
        quoted=longest_copy(continuation, melodies_of(fragment), first_bar),
        late_likeness=likeness(overlaps(late_bars(fragment, len(continuation.bars)), continuation)),
    )


def measure_own(fragment: Score, melodies: Melodies | None = None, nats_per_note: float | None = None) -> Figures:
    """The same figures of a fragment itself, for comparison: its second half beside its first.

    Repetition, and what is copied from the training pieces, are of the whole fragment; `nats_per_note` are those of its
    last bars under the model. Of one bar there are no halves.
    """
    half = len(fragment.bars) // 2
    first = bars_between(fragment, 0, half) if half else None
    second = bars_between(fragment, half, len(fragment.bars)) if half else None
    found: dict[str, float | None] = dict.fromkeys(FEATURES)
    quoted, late = Copied(0), None
    if first is not None and second is not None:
        found, quoted = overlaps(first, second), longest_copy(second, melodies_of(first), half + 1)
        late = likeness(overlaps(late_bars(first, len(second.bars)), second))
    return Figures(
        notes=fragment.note_count,
        nats_per_note=nats_per_note,
        likeness=likeness(found),
        overlaps=found,
        repetition=repetition(fragment),
        copied=longest_copy(fragment, melodies) if melodies is not None else None,
        quoted=quoted,
        late_likeness=late,
    )


def from_seam(new: Score, seam: int) -> Score:
    """The part of a score from tick `seam` on as a score of its own; what is left of a begun bar is its first."""
    return paste([(new, seam, max(new.length, seam + 1))])


def order_of_takes(figures: Sequence[Figures], own_repetition: float, own_nats: float | None = None) -> list[int]:
    """Indices of takes, best first; see the module's opening.

    own_repetition: the fragment's share; own_nats: nats a note of its last bars, None where these were not asked for.
    """
    alike = [-(f.likeness or 0.0) for f in figures]
    late = [-(f.late_likeness or 0.0) for f in figures]
    away = [0.0 if own_nats is None or f.nats_per_note is None else abs(f.nats_per_note - own_nats) for f in figures]
    rows = [
        *(alike, alike, late, late, away),
        [abs(f.repetition - own_repetition) for f in figures],
        [float(max(f.copied.notes, OPENING)) if f.copied else 0.0 for f in figures],
    ]
    sums = [sum(sum(other < row[i] for other in row) for row in rows) for i in range(len(figures))]
    return sorted(range(len(figures)), key=lambda i: (sums[i], alike[i], i))
