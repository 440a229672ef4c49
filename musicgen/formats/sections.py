"""An order of sections drawn as repeat signs and endings, for a page that only knows those.

In comes a score with an order ("A A B B1 B B2"), out come the signs that say the same, where signs can: sections in the
order in which they stand, each once, twice, or with a first and a second ending. Knows no file format.
"""

from __future__ import annotations

from dataclasses import replace

from musicgen.score import Score, Sign

REPEATS = ("repeat_start", "repeat_end", "ending", "ending_stop")
"""Kinds of sign that say what is played again."""


def draw_order(score: Score) -> tuple[Sign, ...]:
    """Repeat signs for the score's order; none where it has repeat signs of its own, or no signs can say it."""
    sections = [s for s in score.signs if s.kind == "section"]
    if not score.order or not sections or sections[0].onset or any(s.kind in REPEATS for s in score.signs):
        return ()
    labels = [s.label for s in sections]
    bounds = [*(s.onset for s in sections), score.length]
    drawn: list[Sign] = []
    at = place = 0  # in the order, among the sections
    while place < len(labels):
        body, start, stop = labels[place], bounds[place], bounds[place + 1]
        ahead = score.order[at : at + 4]
        if len(ahead) == 4 and place + 2 < len(labels) and ahead == (body, labels[place + 1], body, labels[place + 2]):
            last = bounds[place + 3]
            drawn += [Sign(start, "repeat_start"), Sign(stop, "ending", (1,)), Sign(bounds[place + 2], "ending_stop")]
            drawn += [Sign(bounds[place + 2], "repeat_end"), Sign(bounds[place + 2], "ending", (2,))]
            drawn.append(Sign(last, "ending_stop"))
            at, place = at + 4, place + 3
        elif ahead[:2] == (body, body):
            drawn += [Sign(start, "repeat_start"), Sign(stop, "repeat_end")]
            at, place = at + 2, place + 1
        elif ahead[:1] == (body,):
            at, place = at + 1, place + 1
        else:
            return ()
    if at < len(score.order) or len(set(labels)) < len(labels):
        return ()
    return tuple(s for s in drawn if s.onset or s.kind != "repeat_start")


def without_repeats(score: Score) -> Score:
    """The score without repeat signs and endings: an order of its sections says all of it."""
    return replace(score, signs=tuple(s for s in score.signs if s.kind not in REPEATS))
