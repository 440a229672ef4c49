"""An engraved sheet: in comes a score or a file, out come pages of SVG and the moments at which notes begin and stop.

Verovio engraves MusicXML, in a process of its own (`engraving_process`). A file of MusicXML or ABC is engraved as it is
written, with its slurs and words; anything else goes through a Score and our own MusicXML (`engraving_source`). What
is new is blue. The pages are made smaller and independent of fonts (`engraving_svg`); `sheet` writes them to files.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicgen.render.engraving_process import run_verovio
from musicgen.render.engraving_source import read_source
from musicgen.render.engraving_svg import tidy_page
from musicgen.score import Score

STAFF_AT_FULL_SCALE = 7.2
"""Height in mm of a staff that verovio draws at a scale of 100; lengths are then tenths of a millimetre."""
LONGEST_PAGE = 60_000
"""Height of a page beyond which verovio begins another, in its units."""


@dataclass(frozen=True)
class Layout:
    """A page in millimetres. height None: as long as the music is. staff: the height of a staff of a part or two, on
    pages that hold one system of many parts it is less. margin: on all sides. title: whether it stands on the first.
    """

    width: float
    height: float | None
    staff: float
    margin: float
    title: bool = True


A4 = Layout(210, 297, staff=6.4, margin=12)
SCREEN = Layout(250, None, staff=6.0, margin=4, title=False)
"""One long page for a window: 250 mm are about 950 pixels; its viewBox lets it take any width."""

SMALLER_STAFF, SMALLEST_STAFF = 4.2, 1.6
"""In mm: as small as a conductor likes them, and as small as they are made for any number of staves."""


@dataclass(frozen=True)
class Moment:
    """Where notes begin or stop, or a bar begins.

    quarters: written time from the start of the engraved score. ids, stopped: of the elements of the notes that begin
    and of those that stop. bar: counted from 0; bar_id: of its element.
    """

    quarters: float
    ids: tuple[str, ...]
    bar: int
    bar_id: str
    stopped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Engraving:
    """Pages, each an SVG document, and the moments of the whole in order of time. layout: what they were made for."""

    pages: tuple[str, ...]
    moments: tuple[Moment, ...]
    layout: Layout = A4


def engrave(
    source: Score | Path,
    seam: int | None = None,
    layout: Layout = A4,
    until: int | None = None,
    new_parts: Collection[int] = (),
) -> Engraving:
    """Engrave a score or a file. Blue is what begins in [seam, until), in ticks of the engraved score as it is written,
    until None: to the end; and all of the parts new_parts, counted from 0. A file of MusicXML whose noteheads are blue
    already keeps them, and needs none of these.

    The same source gives the same pages. Raises RenderError where it can't be engraved, FormatError where the file
    can't be read.
    """
    found = read_source(source, seam, until, new_parts)
    pages, timemap = run_verovio(found.text, _options(layout, found.staves), found.name)
    moments = _moments(timemap)
    keep = {name for moment in moments for name in (*moment.ids, moment.bar_id)}
    new_bars = {m.bar_id for m in moments} - {m.bar_id for m in moments if not found.new.reaches(m.quarters)}
    size = "" if layout.height is None else f' width="{layout.width:g}mm" height="{layout.height:g}mm"'
    return Engraving(tuple(tidy_page(page, keep, new_bars, size) for page in pages), moments, layout)


def _options(layout: Layout, staves: int) -> dict[str, Any]:
    """What verovio is told, for a score of so many staves."""
    staff = staff_height(layout, staves)
    scale = staff / STAFF_AT_FULL_SCALE  # what verovio calls scale is applied after the page is laid out
    return {
        "inputFrom": "xml",
        "xmlIdChecksum": True,  # the same score has the same ids, and two scores on one page have different ones
        "expandNever": True,
        "breaks": "auto",
        "pageWidth": round(layout.width * 10 / scale),
        "pageHeight": LONGEST_PAGE if layout.height is None else round(layout.height * 10 / scale),
        **dict.fromkeys(
            ("pageMarginTop", "pageMarginBottom", "pageMarginLeft", "pageMarginRight"),
            round(layout.margin * 10 / scale),
        ),
        "adjustPageHeight": layout.height is None,
        "shrinkToFit": layout.height is not None,
        "justifyVertically": layout.height is not None,
        "minLastJustification": 0.5,
        "header": "auto" if layout.title else "none",
        "footer": "none",
        "svgViewBox": True,
        "svgFormatRaw": True,
        "svgRemoveXlink": True,
        "smuflTextFont": "none",
    }


def staff_height(layout: Layout, staves: int) -> float:
    """Height of a staff in mm where a system has so many: of few as the layout says, of more a little less; as much as
    lets two systems fit on a page if that is readable, or else one.

    A staff and the room to the next take about 2.7 times its height.
    """
    if layout.height is None:
        return max(2.6, min(layout.staff, 58 / staves))  # a whole system in a window
    room = (layout.height - 2 * layout.margin - 20) / (2.7 * staves)
    readable = layout.staff - min(0.1 * staves, 1.5)
    return max(SMALLEST_STAFF, min(readable, room / 2 if room / 2 >= SMALLER_STAFF else room))


def _moments(timemap: Sequence[dict]) -> tuple[Moment, ...]:
    found = []
    bar, bar_id = -1, ""
    for event in timemap:
        if "measureOn" in event:
            bar, bar_id = bar + 1, event["measureOn"]
        ids, stopped = tuple(event.get("on", ())), tuple(event.get("off", ()))
        if "measureOn" in event or ids or stopped:
            found.append(Moment(float(event["qstamp"]), ids, max(bar, 0), bar_id, stopped))
    return tuple(found)
