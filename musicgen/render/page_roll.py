"""The piano roll of a page: a drawing without words that stretches to any width, its colours left to the page's style.

In come a score as it is played and what of it is new; out comes SVG. Across it counts ticks, so that the playhead is a
share of its width; upwards it counts semitones, drums in a band of their own below.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from musicgen.score import Score

GAP = 2
"""Semitones of room above and below, and between pitched parts and drums."""


def page_roll(
    score: Score,
    seam: int | None = None,
    until: int | None = None,
    new_parts: Container[int] = (),
    again: Sequence[tuple[int, int]] = (),
) -> str:
    """SVG; new are the notes from `seam` to `until` (ticks; None: to the end), and all of the parts in `new_parts`.

    again: stretches (from, to) among them that are not new.
    """
    tuned = [part.notes["pitch"] for part in score.parts if not part.is_drum and len(part.notes)]
    drums = [part.notes["pitch"] for part in score.parts if part.is_drum and len(part.notes)]
    top = max((int(p.max()) for p in tuned), default=72) + GAP
    bottom = min((int(p.min()) for p in tuned), default=60) - GAP
    rows = {key: row for row, key in enumerate(sorted({int(k) for p in drums for k in p}, reverse=True))}
    height = top - bottom + (len(rows) + GAP if rows else 0)
    boxes: dict[str, list[str]] = {"given": [], "new": []}
    for number, part in enumerate(score.parts):
        for onset, duration, pitch, _ in part.notes.tolist():
            y = top - bottom + rows[pitch] + 1 if part.is_drum else top - pitch
            is_new = seam is not None and seam <= onset < (until or score.length + 1)
            is_new = is_new and not any(start <= onset < end for start, end in again)
            boxes["new" if is_new or number in new_parts else "given"].append(f"M{onset} {y}h{duration}")
    length = max(score.length, 1)
    lines = "".join(f"M{tick} 0v{height}" for tick in score.bars.tolist()[1:])
    seams = "".join(f"M{tick} 0v{height}" for tick in (seam, until) if tick is not None and 0 < tick < length)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {length} {height}" preserveAspectRatio="none">'
        f'<path class="line" d="{lines}"/><path class="seam" d="{seams}"/>'
        + "".join(f'<path class="{kind}" d="{"".join(found)}"/>' for kind, found in boxes.items())
        + "</svg>"
    )
