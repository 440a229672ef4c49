"""Musical operations on scores: transpose, clip, take bars, quantise, unfold repeats. Each returns a new Score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from musicgen.errors import ScoreError
from musicgen.score.score import NOTE, Key, Metre, Score, Sign, Tempo

Event = TypeVar("Event", Tempo, Metre, Key)


def transpose(score: Score, semitones: int) -> Score:
    """Every pitched note moved by `semitones`, keys with it (the enharmonic with fewest accidentals); drums stay.

    Raises ScoreError where a note would leave 0..127.
    """
    parts = []
    for part in score.parts:
        notes = part.notes.copy()
        if not part.is_drum:
            notes["pitch"] += semitones
        graces = part.graces.copy()
        graces["pitch"] += 0 if part.is_drum else semitones
        parts.append(replace(part, notes=notes, graces=graces))
    keys = tuple(replace(key, fifths=transpose_fifths(key.fifths, semitones)) for key in score.keys)
    return replace(score, parts=tuple(parts), keys=keys, chord_symbols=())


def transpose_fifths(fifths: int, semitones: int) -> int:
    """The key signature `semitones` higher, in -5..6: a semitone is seven fifths; by octaves, the same."""
    return fifths if semitones % 12 == 0 else (fifths + 7 * semitones + 5) % 12 - 5


def clip(score: Score, end: int) -> Score:
    """The score up to tick `end`: later notes go, notes that sound over it are cut there."""
    parts = []
    for part in score.parts:
        notes = part.notes[part.notes["onset"] < end].copy()
        notes["duration"] = np.minimum(notes["duration"], end - notes["onset"])
        parts.append(replace(part, notes=notes, graces=part.graces[part.graces["onset"] < end]))
    return replace(
        score,
        parts=tuple(parts),
        tempos=tuple(t for t in score.tempos if t.onset < max(end, 1)),
        metres=tuple(m for m in score.metres if m.onset < max(end, 1)),
        keys=tuple(k for k in score.keys if k.onset < max(end, 1)),
        bars=score.bars[score.bars < max(end, 1)],
        length=min(end, score.length),
        signs=tuple(s for s in score.signs if s.onset < end),
        chord_symbols=tuple(c for c in score.chord_symbols if c.onset < end),
    )


def bars_between(score: Score, first: int, last: int) -> Score:
    """Bars first..last-1 (counted from 0) as a score of its own that starts at tick 0."""
    if not 0 <= first < last <= len(score.bars):
        raise ScoreError(f"bars {first}..{last} of a score of {len(score.bars)} bars")
    start = int(score.bars[first])
    end = int(score.bars[last]) if last < len(score.bars) else score.length
    return paste([(score, start, end)])


def paste(pieces: list[tuple[Score, int, int]]) -> Score:
    """Spans (score, start, end) in ticks, one after the other, as one score; all have the same parts.

    A note belongs to the span it starts in and is cut where the span ends, unless the next span takes up where this one
    stops. Maps of tempo, metre and key say at each seam what holds there; signs and the order of sections are dropped.
    """
    first = pieces[0][0]
    note_lists: list[list[np.ndarray]] = [[] for _ in first.parts]
    grace_lists: list[list[np.ndarray]] = [[] for _ in first.parts]
    maps: dict[str, list] = {"tempos": [], "metres": [], "keys": []}
    bars: list[int] = []
    chords: list = []
    at = 0
    for i, (score, start, end) in enumerate(pieces):
        follows = i + 1 < len(pieces) and pieces[i + 1][0] is score and pieces[i + 1][1] == end
        for part, found, found_graces in zip(score.parts, note_lists, grace_lists, strict=True):
            graces = part.graces[(part.graces["onset"] >= start) & (part.graces["onset"] < end)].copy()
            graces["onset"] += at - start
            found_graces.append(graces)
            chosen = (part.notes["onset"] >= start) & (part.notes["onset"] < end)
            notes = part.notes[chosen].copy()
            if not follows:
                notes["duration"] = np.minimum(notes["duration"], end - notes["onset"])
            notes["onset"] += at - start
            found.append(notes)
        for name, now in (
            ("tempos", score.tempo_at(start)),
            ("metres", score.metre_at(start)),
            ("keys", score.key_at(start)),
        ):
            inside = [e for e in getattr(score, name) if start < e.onset < end]
            for event in [replace(now, onset=start), *inside]:
                moved = replace(event, onset=event.onset + at - start)
                if not maps[name] or replace(maps[name][-1], onset=moved.onset) != moved:
                    maps[name].append(moved)
        # a bar cut in two by a repeat sign is one bar again when its halves meet
        bars += [int(b) + at - start for b in score.bars if start <= b < end]
        if not bars or (i == 0 and bars[0] != 0):
            bars.insert(0, 0)
        chords += [replace(c, onset=c.onset + at - start) for c in score.chord_symbols if start <= c.onset < end]
        at += end - start
    return replace(
        first,
        parts=tuple(
            replace(part, notes=np.concatenate(found), graces=np.concatenate(graces))
            for part, found, graces in zip(first.parts, note_lists, grace_lists, strict=True)
        ),
        tempos=tuple(maps["tempos"]),
        metres=tuple(maps["metres"]),
        keys=tuple(maps["keys"]),
        bars=np.array(sorted(set(bars)), dtype=np.int32),
        length=at,
        signs=(),
        chord_symbols=tuple(chords),
        order=(),
    )


MAX_PLAYED_NOTES = 2_000_000
MAX_PLAYED_BARS = 100_000
"""Beyond which repeats are not played out: a few signs can ask for any number."""

_PLAYED = {"repeat_end", "ending", "da_capo", "dal_segno"}


def unfold(score: Score) -> Score:
    """Repeats, endings, jumps and the order of sections played out: what is heard, with no signs left.

    A repeat without a start sign goes back to the last repeat's end or double bar, or to the piece's beginning. Each
    stretch is played as many times as its endings ask for, two where there are none. After a jump back (D.C., D.S.)
    repeats are not taken again and last endings are played; the piece stops at "fine", or goes on at the coda. Where
    sections have an order, that decides, and jumps count for nothing.
    """
    if not score.order and not any(s.kind in _PLAYED for s in score.signs):
        return replace(score, signs=(), order=())
    spans = played_spans(score)
    if not spans:
        return replace(score, signs=(), order=())
    onsets = np.sort(np.concatenate([np.zeros(0, dtype=np.int32), *(part.notes["onset"] for part in score.parts)]))
    for what, ticks, most in (("notes", onsets, MAX_PLAYED_NOTES), ("bars", score.bars, MAX_PLAYED_BARS)):
        played = sum(int(np.diff(np.searchsorted(ticks, span))[0]) for span in spans)
        if played > most:
            raise ScoreError(f"{played:,} {what} once its repeats are played out, more than {most:,}; split it")
    return merge_short_bars(paste([(score, start, end) for start, end in spans]))


def played_spans(score: Score) -> list[tuple[int, int]]:
    """The (start, end) tick spans of a score as written, in the order in which they are played."""
    spans = _repeated(score)
    sections = [s for s in score.signs if s.kind == "section"]
    if score.order and sections:
        stops = [s.onset for s in sections[1:]] + [score.length]
        places: dict[str, tuple[int, int]] = {}
        for sign, stop in zip(sections, stops, strict=True):
            places.setdefault(sign.label, (sign.onset, stop))
        found = _between(spans, 0, sections[0].onset)
        for label in score.order:
            found += _between(spans, *places[label]) if label in places else []
        return found

    once = _repeated(score, straight=True)
    onsets: dict[str, list[int]] = {}
    for sign in score.signs:
        onsets.setdefault(sign.kind, []).append(sign.onset)
    found = []
    for jump in [s for s in score.signs if s.kind in ("da_capo", "dal_segno")]:
        played, spans = _until(spans, jump.onset)
        found += played
        segno = [tick for tick in onsets.get("segno", []) if tick < jump.onset]
        target = segno[-1] if segno and jump.kind == "dal_segno" else 0
        fine = [tick for tick in onsets.get("fine", []) if tick > target]
        leave = [tick for tick in onsets.get("to_coda", []) if target < tick]
        coda = [tick for tick in onsets.get("coda", []) if leave and tick >= leave[0]]
        if coda and jump.label != "al fine":
            return found + _between(once, target, leave[0]) + _between(_repeated(score), coda[0], score.length)
        if fine:
            return found + _between(once, target, fine[0])
        found += _between(once, target, jump.onset)
    return found + spans


def written_of_played(score: Score) -> tuple[tuple[int, int, int], ...]:
    """Where `unfold(score)` is written: stretches (played from, played to, written from) in ticks, in order of playing.

    Of a score without repeats or jumps it is one stretch.
    """
    stretches: list[tuple[int, int, int]] = []
    at = 0
    for start, end in played_spans(score) or [(0, score.length)]:
        if stretches and stretches[-1][2] + at - stretches[-1][0] == start:  # it goes on where the last one stopped
            stretches[-1] = (stretches[-1][0], at + end - start, stretches[-1][2])
        else:
            stretches.append((at, at + end - start, start))
        at += end - start
    return tuple(stretches)


def _until(spans: list[tuple[int, int]], tick: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(what is played until the music comes to `tick` for the last time, what follows)."""
    arrivals = [i for i, (start, end) in enumerate(spans) if start < tick <= end]
    if not arrivals:
        return [], spans
    last = arrivals[-1]
    start, end = spans[last]
    rest = [(tick, end)] if end > tick else []
    return [*spans[:last], (start, tick)], rest + spans[last + 1 :]


def _between(spans: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """What of the spans lies in start..end."""
    cut = [(max(first, start), min(last, end)) for first, last in spans]
    return [(first, last) for first, last in cut if last > first]


def with_repeat_starts(score: Score) -> Score:
    """The score with the signs written that a repeat goes back to, where they were understood."""
    there = {sign.onset for sign in score.signs if sign.kind == "repeat_start"}
    starts = {start for start, _, voltas, times in _stretches(score) if (voltas or times > 1) and start not in there}
    return replace(score, signs=(*score.signs, *(Sign(start, "repeat_start") for start in starts)))


def _repeated(score: Score, straight: bool = False) -> list[tuple[int, int]]:
    """The spans played where repeats and endings alone decide; `straight`: each once, with its last ending."""
    spans: list[tuple[int, int]] = []
    for start, end, voltas, times in _stretches(score):
        if not voltas:
            spans += [(start, end)] * (1 if straight else times)
            continue
        body_end = voltas[0][0]
        stops = [onset for onset, _ in voltas[1:]] + [end]
        passes = max(max(p) for _, p in voltas)
        for number in range(passes if straight else 1, passes + 1):
            chosen = [(onset, stop) for (onset, p), stop in zip(voltas, stops, strict=True) if number in p]
            if body_end > start:
                spans.append((start, body_end))
            spans += chosen[:1]
    return [s for s in spans if s[1] > s[0]]


Stretch = tuple[int, int, list[tuple[int, tuple[int, ...]]], int]
"""What is repeated as one: its start and end, (onset, passes) of its endings, how often it is played without them."""


def _stretches(score: Score) -> list[Stretch]:
    """The score cut where repeats begin and end."""
    section_start = 0
    boundaries = score.signs
    bars = set(score.bars.tolist())
    going_back = {sign.onset for sign in boundaries if sign.kind == "repeat_end"}
    endings: list[tuple[int, tuple[int, ...]]] = []  # (onset, passes) of the section's voltas
    repeat_ends: dict[int, int] = {}  # onset -> how often it is played
    sections: list[Stretch] = []

    def close(end: int) -> None:
        nonlocal section_start, endings, repeat_ends
        if end > section_start:
            sections.append((section_start, end, endings, max([1, *repeat_ends.values()])))
        section_start, endings, repeat_ends = end, [], {}

    open_ending = False
    started = False  # the section began with a repeat start
    for sign in boundaries:
        if sign.kind == "repeat_start":
            close(sign.onset)
            open_ending = False
            started = True
        elif sign.kind == "repeat_end":
            repeat_ends[sign.onset] = max(sign.passes, default=1) + 1
            if not endings:
                close(sign.onset)
                started = False
        elif sign.kind == "section" and sign.onset in bars:  # a repeat does not reach back over a section's beginning
            close(sign.onset)
            open_ending = started = False
        elif sign.kind in ("double", "final") and not started and not endings:
            close(sign.onset)
        elif sign.kind == "ending":
            # another first ending without a repeat start in between opens a new section where the last ending began
            if endings and sign.passes and 1 in sign.passes:
                close(sign.onset)
            endings.append((sign.onset, sign.passes or (len(endings) + 1,)))
            open_ending = True
        elif sign.kind == "ending_stop" and open_ending:
            open_ending = False
            followed = any(s.kind == "ending" and s.onset == sign.onset for s in boundaries)
            if not followed and sign.onset not in repeat_ends:
                if sign.onset in going_back and len(endings) == 1:  # a first ending alone: then it goes on after it
                    endings.append((sign.onset, (max(endings[0][1]) + 1,)))
                close(sign.onset)
                started = False
    close(score.length)
    return sections


def merge_short_bars(score: Score) -> Score:
    """Two neighbouring incomplete bars that fill one become one: the close of a repeat and the pickup after it."""
    bars = score.bars.tolist()
    merged = [bars[0]]
    i = 1
    lengths = score.bar_lengths
    while i < len(bars):
        full = score.metre_at(bars[i]).ticks
        whole = lengths[i - 1] + lengths[i] == full and score.metre_at(bars[i - 1]).ticks == full
        if whole and lengths[i - 1] < full and i > 1:
            if i + 1 < len(bars):
                merged.append(bars[i + 1])
            i += 2
            continue
        merged.append(bars[i])
        i += 1
    return replace(score, bars=np.array(merged, dtype=np.int32))


def quantise(score: Score, grid: int) -> Score:
    """Onsets and durations rounded to multiples of `grid` ticks, at least one; maps and bars too. Half rounds up.

    Doubled notes (one onset, part and pitch) become one, the longest and loudest; a note struck again while it sounds
    is cut at the new onset.
    """

    def nearest(ticks):
        return (np.asarray(ticks, dtype=np.int64) + grid // 2) // grid * grid

    parts = []
    for part in score.parts:
        onset = nearest(part.notes["onset"])
        end = nearest(part.notes["onset"] + part.notes["duration"])
        notes = np.zeros(len(part.notes), dtype=NOTE)
        notes["onset"], notes["pitch"], notes["velocity"] = onset, part.notes["pitch"], part.notes["velocity"]
        notes["duration"] = np.maximum(end - onset, grid)
        graces = part.graces
        if len(graces):
            graces = graces.copy()
            graces["onset"] = nearest(graces["onset"])
        parts.append(replace(part, notes=merge_doubled(notes), graces=graces))

    def moved(events):
        latest = {}
        for e in events:
            latest[int(nearest(e.onset))] = replace(e, onset=int(nearest(e.onset)))
        return tuple(latest.values())

    bars = np.unique(nearest(score.bars)).astype(np.int32)
    last = max((p.end for p in parts), default=0)
    length = max(int(nearest(score.length)), last)
    bars = bars[(bars < length) | (bars == 0)]
    return replace(
        score,
        parts=tuple(parts),
        tempos=moved(score.tempos),
        metres=moved(score.metres),
        keys=moved(score.keys),
        bars=bars,
        length=length,
        signs=tuple(replace(s, onset=int(nearest(s.onset))) for s in score.signs),
        chord_symbols=tuple(replace(c, onset=int(nearest(c.onset))) for c in score.chord_symbols),
    )


def merge_doubled(notes: np.ndarray) -> np.ndarray:
    """NOTE array with one note an onset and pitch (longest, loudest), none overlapping the next of its pitch."""
    if not len(notes):
        return notes
    notes = notes[np.lexsort((notes["onset"], notes["pitch"]))]
    same = (notes["pitch"][1:] == notes["pitch"][:-1]) & (notes["onset"][1:] == notes["onset"][:-1])
    first = np.flatnonzero(np.concatenate(([True], ~same)))
    merged = notes[first].copy()
    merged["duration"] = np.maximum.reduceat(notes["duration"], first)
    merged["velocity"] = np.maximum.reduceat(notes["velocity"], first)
    room = merged["onset"][1:] - merged["onset"][:-1]
    again = merged["pitch"][1:] == merged["pitch"][:-1]
    merged["duration"][:-1] = np.where(again, np.minimum(merged["duration"][:-1], room), merged["duration"][:-1])
    return merged[np.lexsort((merged["pitch"], merged["onset"]))]


def changes(events: Iterable[Event], length: int) -> tuple[Event, ...]:
    """Events of one map, in time, without those that say again what holds, or come where the music has stopped.

    Of several at one tick the last.
    """
    latest = {event.onset: event for event in events if event.onset < max(length, 1)}
    kept: list[Event] = []
    for event in latest.values():
        if not kept or replace(kept[-1], onset=event.onset) != event:
            kept.append(event)
    return tuple(kept)


def from_zero(events: Sequence[Event], default: Event) -> tuple[Event, ...]:
    """The events, with the default before a first that is late."""
    late = not events or events[0].onset != 0
    return tuple([default] * late + list(events))
