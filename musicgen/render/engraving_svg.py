"""A page as verovio draws it, made fit for a file, a browser and a PDF: half the bytes, and no font of music.

In comes an SVG document of verovio's, out goes another that looks the same. Groups and ids that nobody asks for are
gone, so are style sheets: what they said of colour and of fonts stands in attributes, which any page may overrule. Five
lines of a staff are one path. Signs that verovio sets as text in its own font (the note of a metronome mark) are
drawn as outlines, for neither browsers nor PDF writers have that font. A beam, chord or tuplet whose notes are all
blue is blue itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape, quoteattr

from musicgen.formats.musicxml_part import MARK_COLOUR

MUSIC_FONT = "Leipzig"
TEXT_FONT = "Times, serif"

EVENTS = frozenset(("note", "rest", "mRest"))
CONTAINERS = frozenset(("chord", "beam", "tuplet", "graceGrp", "bTrem", "fTrem"))
STYLES = {
    **{kind: {"font-weight": "bold"} for kind in ("ending", "fing", "reh", "tempo")},
    **{kind: {"font-style": "italic"} for kind in ("dir", "dynam", "mNum")},
}
"""What verovio's style sheet says of the text in groups of a class."""

_LINE = re.compile(r"M(-?\d+) (-?\d+) L(-?\d+) (-?\d+)")
_PLACED = re.compile(r"translate\((-?[\d.]+), (-?[\d.]+)\) scale\((-?[\d.]+), (-?[\d.]+)\)")


def tidy_page(svg: str, keep: Container[str], new_bars: Container[str] = (), size: str = "") -> str:
    """The page, with no ids but those to keep.

    new_bars: ids of bars whose rests are blue, which verovio doesn't see to. size: attributes that say how large the
    page is, as ' width="210mm"'.
    """
    # without a namespace the tags have their plain names
    root = ElementTree.fromstring(re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg, count=2))
    inner = root.find("svg")
    assert inner is not None
    for bar in inner.iterfind(".//g[@class='measure']"):
        if bar.get("id", "") in new_bars:
            for rest in bar.iterfind(".//g[@class='mRest']"):
                rest.set("color", MARK_COLOUR)
    _colour_containers(inner)
    outlines = {e.get("id", ""): e.find("path") for e in root.iterfind("defs/g")}
    page = _Page(keep, outlines, 0.94 * float(inner.get("viewBox", "0 0 1 1").split()[2]))
    page.draw(inner, {}, "")
    page.draw_line()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{inner.get("viewBox")}"{size} font-family="{TEXT_FONT}">'
        f"<defs>{''.join(page.glyphs.values())}</defs>"
        f'<g class="definition-scale" color="black" fill="currentColor" stroke="currentColor">{"".join(page.out)}</g>'
        "</svg>\n"
    )


def _colour_containers(element: Element) -> tuple[int, set[str]]:
    """(how many notes and rests are inside, their colours, "" for none), giving containers their notes' one colour."""
    count = 0
    colours: set[str] = set()
    for child in element:
        if child.tag not in ("g", "svg"):
            continue
        kind = child.get("class", "").partition(" ")[0]
        if kind in EVENTS:
            count, colours = count + 1, colours | {child.get("color", "")}
            continue
        inside, theirs = _colour_containers(child)
        if kind in CONTAINERS and inside and len(theirs) == 1 and "" not in theirs:
            child.set("color", *theirs)
        count, colours = count + inside, colours | theirs
    return count, colours


class _Page:
    """What has been drawn so far: `out`, pieces of SVG; `glyphs`, the definitions they use."""

    def __init__(self, keep: Container[str], outlines: Mapping[str, Element | None], room: float) -> None:
        self.keep, self.outlines, self.room = keep, outlines, room
        self.out: list[str] = []
        self.glyphs: dict[str, str] = {}
        self.line = ("", "")  # attributes, path: straight lines that follow one another are one path

    def draw(self, element: Element, style: dict[str, str], colour: str) -> None:
        """Everything inside an element. style: of text; colour: what is in force, "" for the page's own."""
        for child in element:
            match child.tag:
                case "g" | "svg":
                    self.draw_group(child, style, colour)
                case "use":
                    self.draw_glyph(child)
                case "path":
                    self.draw_path(child)
                case "text":
                    self.draw_line()
                    self.draw_text(child, style)
                case "ellipse" | "rect" | "polygon" | "polyline":
                    self.put(f"<{child.tag}{_attributes(child.attrib)}/>")

    def put(self, piece: str) -> None:
        self.draw_line()
        self.out.append(piece)

    def draw_group(self, group: Element, style: dict[str, str], colour: str) -> None:
        kind = group.get("class", "").partition(" ")[0]
        if "placeholder" in group.get("class", "") or group.get("visibility") == "hidden":
            return
        said = {name: value for name, value in group.attrib.items() if name in ("font-style", "font-weight")}
        style = style | STYLES.get(kind, {}) | said
        own = group.get("color", colour)
        attributes = {"id": group.get("id", "")} if group.get("id") in self.keep else {}
        if own != colour:
            attributes["color"] = own
        if group.get("transform"):
            attributes["transform"] = group.get("transform", "")
        if not attributes:
            self.draw(group, style, colour)
            return
        self.draw_line()
        before = len(self.out)
        self.out.append(f"<g{_attributes(attributes)}>")
        self.draw(group, style, own)
        self.draw_line()
        if len(self.out) == before + 1 and "id" not in attributes:
            self.out.pop()
        else:
            self.out.append("</g>")

    def draw_glyph(self, use: Element) -> None:
        """A sign of the music font, drawn already at the size at which it is used."""
        name = use.get("href", "").lstrip("#")
        placed = _PLACED.fullmatch(use.get("transform", ""))
        outline = self.outlines.get(name)
        assert placed is not None
        assert outline is not None
        x, y, scale, _ = placed.groups()
        self.put_glyph(name.partition("-")[0], outline.get("d", ""), float(scale), x, y)

    def put_glyph(self, code: str, outline: str, scale: float, x: str, y: str) -> None:
        name = f"{code}-{scale * 100:g}"
        self.glyphs[name] = f'<path id="{name}" transform="scale({scale:g},{-scale:g})" d="{outline}"/>'
        self.put(f'<use href="#{name}" x="{x}" y="{y}"/>')

    def draw_path(self, path: Element) -> None:
        straight = _LINE.fullmatch(path.get("d", ""))
        if straight is None:
            self.put(f"<path{_attributes(path.attrib)}/>")
            return
        x, y, to_x, to_y = straight.groups()
        drawn = f"M{x} {y}" + (f"H{to_x}" if y == to_y else f"V{to_y}" if x == to_x else f"L{to_x} {to_y}")
        attributes = _attributes({name: value for name, value in path.attrib.items() if name != "d"})
        if self.line[0] != attributes:
            self.draw_line()
        self.line = (attributes, self.line[1] + drawn)

    def draw_line(self) -> None:
        """Put out the straight lines that have been gathered."""
        if self.line[1]:
            self.out.append(f'<path{self.line[0]} d="{self.line[1]}"/>')
            self.line = ("", "")

    def draw_text(self, text: Element, style: dict[str, str]) -> None:
        place = {"x": text.get("x", "0"), "y": text.get("y", "0"), "text-anchor": text.get("text-anchor", "start")}
        said = {name: value for name, value in text.attrib.items() if name in ("font-style", "font-weight")}
        segment: list[_Run] = []
        for run in _runs(text, style | said, place):
            if segment and run.place != segment[0].place:
                self.draw_segment(segment)
                segment = []
            segment.append(run)
        self.draw_segment(segment)

    def draw_segment(self, runs: list[_Run]) -> None:
        """Runs of text that follow one another from one place on."""
        if not runs:
            return
        place = runs[0].place
        width = sum(run.width for run in runs)
        if width > self.room:  # a long title
            runs = [replace(run, size=math.floor(run.size * self.room / width)) for run in runs]
        if not any(run.is_music for run in runs):
            anchor = "" if place["text-anchor"] == "start" else f' text-anchor="{place["text-anchor"]}"'
            first = runs[0].attributes
            inside = "".join(
                escape(run.text) if run.attributes == first else f"<tspan{run.attributes}>{escape(run.text)}</tspan>"
                for run in runs
            )
            self.put(f'<text x="{place["x"]}" y="{place["y"]}"{anchor}{first} stroke="none">{inside}</text>')
            return
        x = float(place["x"])
        x -= {"start": 0, "middle": 0.5, "end": 1}[place["text-anchor"]] * width
        for run in runs:
            if run.is_music:
                for sign in run.text:
                    code, scale = f"{ord(sign):04X}", run.size / 1000
                    self.put_glyph(code, _outline(code), scale, f"{x:.0f}", place["y"])
                    x += run.width_of(sign)
            else:
                lead = run.width_of(run.text[: len(run.text) - len(run.text.lstrip())])
                shown = escape(run.text.strip())
                self.put(f'<text x="{x + lead:.0f}" y="{place["y"]}"{run.attributes} stroke="none">{shown}</text>')
                x += run.width


@dataclass(frozen=True)
class _Run:
    """Text in one font. place: x, y and text-anchor of where its segment begins."""

    text: str
    size: float
    style: dict[str, str]
    place: dict[str, str]
    is_music: bool

    @property
    def attributes(self) -> str:
        return _attributes({"font-size": f"{self.size:g}", **self.style})

    def width_of(self, text: str) -> float:
        if self.is_music:
            return self.size * sum(_music_widths().get(f"{ord(sign):04X}", 0.5) for sign in text)
        widths = _text_widths(self.style.get("font-weight") == "bold", self.style.get("font-style") == "italic")
        return self.size * sum(widths.get(sign, 0.5) for sign in text)

    @property
    def width(self) -> float:
        return self.width_of(self.text)


def _runs(
    element: Element, style: dict[str, str], place: dict[str, str], size: float = 0.0, music: bool = False
) -> Iterator[_Run]:
    """The runs of a <text> or <tspan>, in order."""
    for name in ("font-style", "font-weight"):
        if element.get(name):
            style = style | {name: element.get(name, "")}
    style = {name: value for name, value in style.items() if value != "normal"}
    if element.tag == "tspan" and (element.get("x") or element.get("y")):
        place = place | {name: value for name, value in element.attrib.items() if name in place}
    size = float(element.get("font-size", f"{size}px").removesuffix("px")) or size
    music = element.get("font-family", MUSIC_FONT if music else "") == MUSIC_FONT
    if element.text:
        yield _Run(element.text, size, style, place, music)
    for child in element:
        if child.tag == "tspan":
            yield from _runs(child, style, place, size, music)


def _attributes(found: Mapping[str, str]) -> str:
    return "".join(f" {name}={quoteattr(value)}" for name, value in found.items())


# --- what verovio's wheel says of its fonts ---------------------------------------------------------------------------


@cache
def _outline(code: str) -> str:
    """The outline of a sign of the music font, empty where it has none."""
    file = files("verovio") / "data" / MUSIC_FONT / f"{code}.xml"
    found = re.search(r' d="([^"]*)"', file.read_text(encoding="utf-8")) if file.is_file() else None
    return found[1] if found else ""


@cache
def _music_widths() -> dict[str, float]:
    """Code of a sign -> how far it reaches, in ems."""
    text = (files("verovio") / "data" / f"{MUSIC_FONT}.xml").read_text(encoding="utf-8")
    return {code: float(width) / 1000 for code, width in re.findall(r'<g c="(\w+)"[^>]* h-a-x="([\d.]+)"', text)}


@cache
def _text_widths(bold: bool, italic: bool) -> dict[str, float]:
    """Character -> how far it reaches, in ems, in the Times that verovio lays text out with."""
    name = "Times" + "-bold" * bold + "-italic" * italic
    text = (files("verovio") / "data" / "text" / f"{name}.xml").read_text(encoding="utf-8")
    found = {
        chr(int(code, 16)): float(width) / 2048
        for code, width in re.findall(r'<g c="(\w+)"[^>]* h-a-x="([\d.]+)"', text)
    }
    return found | {"\N{NO-BREAK SPACE}": found[" "]}
