"""What of a finished score is new, as a score of its own: what is written after the original's last element.

In come the fragment and the whole; out comes the tail of one part, from the tick where the part's own text stops. Both
formats whose original stays as it is, MusicXML and ABC, make their additions from it. An original can be continued in
its own file only where its repeats and jumps lead on from its last bar: that is asked here too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from musicgen.errors import FormatError
from musicgen.score import Key, Metre, Score, Tempo, TempoMap
from musicgen.score.edit import played_spans

ELSEWHERE = "write to .mid, or convert it first and continue the converted file"
"""What to do where an original can't be continued in its own file."""

_BEGINNING = frozenset(("section", "segno", "coda", "repeat_start", "ending"))
"""Kinds of signs that belong to the bar they stand before, not to the one they stand after."""


def tail_of(
    fragment: Score, whole: Score, number: int, start: int, *, fifths: int | None = None, semitones: int = 0
) -> Score:
    """What is new in part `number`, as a score of that part alone; tick `start` becomes its 0.

    start: where the part's own text stops, at or before the seam (`fragment.length`) and in the bar of the first new
    note; what is left of that bar is the tail's first bar. fifths: the signature that the part is written in at its
    end; it moves as the score's key does, if it stood for it, else it stays. semitones: sounding less written pitch.
    The first entry of each map is what held before the seam: an entry after it at 0 is new.
    """
    seam, part = fragment.length, whole.parts[number]
    own = fragment.parts[number].graces if number < len(fragment.parts) else part.graces[:0]
    notes = part.notes[part.notes["onset"] >= seam].copy()
    notes["onset"] -= start
    notes["pitch"] -= semitones
    graces = part.graces[part.graces["onset"] >= seam]
    there = {tuple(grace) for grace in own.tolist()}
    graces = graces[[tuple(grace) not in there for grace in graces.tolist()]] if len(graces) else graces.copy()
    graces["onset"] -= start
    graces["pitch"] -= semitones
    signs = [s for s in whole.signs if s.onset > seam or (s.onset == seam and s not in fragment.signs)]
    symbols = [c for c in whole.chord_symbols if c.onset >= seam and c not in fragment.chord_symbols]
    keys = _since(whole.keys, seam, start)
    return Score(
        parts=(replace(part, notes=notes, graces=graces),),
        tempos=TempoMap.of(_since(whole.tempos, seam, start)),
        metres=tuple(_since(whole.metres, seam, start)),
        keys=tuple(_signed(keys, fifths, semitones)),
        bars=np.concatenate([[0], whole.bars[whole.bars > start] - start]).astype(np.int32),
        length=whole.length - start,
        signs=tuple(replace(s, onset=s.onset - start) for s in signs),
        chord_symbols=tuple(replace(c, onset=c.onset - start) for c in symbols),
    )


def changes_between(fragment: Score, whole: Score) -> list[Metre | Key | Tempo]:
    """The changes of metre, key and tempo that `whole` has from the end of `fragment` on, in time."""
    seam = fragment.length
    found: list[Metre | Key | Tempo] = []
    for name in ("metres", "keys", "tempos"):
        there, before = getattr(whole, name), getattr(fragment, name)
        since = [event for event in there if event.onset >= seam] if there is not before else []
        found += [event for event in since if event not in before]
    return sorted(found, key=lambda event: event.onset)


def _since(events: Iterable[Any], seam: int, start: int) -> list[Any]:
    """What held before the seam, at 0, and the changes from the seam on."""
    events = list(events)
    before = [e for e in events if e.onset < max(seam, 1)] or events[:1]
    found = [replace(before[-1], onset=0)]
    for event in events:
        if event.onset >= max(seam, 1) and replace(event, onset=found[-1].onset) != found[-1]:
            found.append(replace(event, onset=event.onset - start))
    return found


def _signed(keys: list[Key], fifths: int | None, semitones: int) -> list[Key]:
    """The keys as the part is written: moved by as much as its signature is from the score's, or all as it stands."""
    if fifths is None or fifths == keys[0].fifths:
        return keys
    distance = fifths - keys[0].fifths
    stands_for_it = (distance + 7 * semitones) % 12 == 0
    moved = [key.fifths + distance if stands_for_it else fifths for key in keys]
    moved = [m - 12 if m > 7 else m + 12 if m < -7 else m for m in moved]
    return [replace(key, fifths=m) for key, m in zip(keys, moved, strict=True)]


def check_leads_on(original: Path, written: Score) -> None:
    """Raises FormatError unless what is written after the last bar of a score as written is also played last.

    It is not after a da capo al fine, inside a repeat that is not closed as the order of sections has it, and the like.
    """
    end = written.length
    bar = written.metre_at(end).ticks
    bars = np.append(written.bars, end).astype(np.int32)
    longer = replace(written, bars=bars, length=end + bar)
    if _joined(played_spans(longer)) != _joined([*played_spans(written), (end, end + bar)]):
        raise FormatError(
            f"{original}: its repeats and jumps don't end at its last bar, so that what is written after it would "
            f"not be played last; {ELSEWHERE}"
        )


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans with those that follow on made one."""
    found: list[tuple[int, int]] = []
    for start, end in spans:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        elif end > start:
            found.append((start, end))
    return found
