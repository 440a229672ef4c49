"""One HTML page for what was written: hear it, see it, compare the takes, take the files away. It needs no network.

In come the pieces or takes as they are played (`Shown`) and the report as Markdown; out comes the text of one file. All
that it needs lies in it: the script and the style (page.js, page.css) with their hashes in a content-security policy
that allows nothing else, audio as MP3 in base64, engraved pages, rolls and files as gzip in base64, which the browser
unpacks when they are wanted. What comes from a score (titles, names) is only ever text.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import PurePath
from string import Template

import numpy as np

from musicgen.render.audio import Audio, mp3_bytes
from musicgen.render.engraving import Engraving, Moment
from musicgen.render.page_follow import Stretch, bars_of, clock_of, cues_of
from musicgen.render.page_report import report_html
from musicgen.render.page_roll import page_roll
from musicgen.score import Part, Score
from musicgen.score.general_midi import PROGRAM_NAMES

KBPS = 112
"""Of the audio in the page: 0.84 MB a minute, 1.12 in base64."""

KINDS = {
    ".mid": ("MIDI", "audio/midi"),
    ".midi": ("MIDI", "audio/midi"),
    ".musicxml": ("MusicXML", "application/vnd.recordare.musicxml+xml"),
    ".xml": ("MusicXML", "application/vnd.recordare.musicxml+xml"),
    ".mxl": ("MusicXML (compressed)", "application/vnd.recordare.musicxml"),
    ".abc": ("ABC", "text/vnd.abc"),
}
"""Suffix -> what a download is called, and its media type."""


@dataclass(frozen=True)
class Sound:
    """What is heard of a piece, small enough to hold many: an MP3 file's bytes, and who played it."""

    mp3: bytes
    seconds: float
    player: str


def sound_of(audio: Audio) -> Sound:
    """Audio as a page holds it."""
    return Sound(mp3_bytes(audio, kbps=KBPS), audio.seconds, audio.player)


@dataclass(frozen=True)
class Shown:
    """One piece or take, as the page shows it.

    name: "Take 1". score: as it is played, repeats unfolded. seam: the tick of it from which it is new, None where
    nothing was given. until: the tick where what is new ends, None for the end. new_parts: those that are new
    altogether, counted from 0. again: stretches (from, to) in ticks after the seam where repeats bring back what was
    given. written_of: where `score` is written in what is engraved (`score.written_of_played`),
    None where it is engraved as it is played. downloads: (file name, bytes). facts: (label, value), columns of a table.
    """

    name: str
    score: Score
    seam: int | None = None
    engraving: Engraving | None = None
    written_of: tuple[Stretch, ...] | None = None
    sound: Sound | None = None
    downloads: tuple[tuple[str, bytes], ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    until: int | None = None
    new_parts: tuple[int, ...] = ()
    again: tuple[tuple[int, int], ...] = ()


def page_html(title: str, shown: Sequence[Shown], report: str = "", noun: str = "Take") -> str:
    """The page's HTML. shown: one or more, the first is chosen when the page opens. report: Markdown.

    noun: what one of them is called in headings ("Take", "Piece"). A page plays only if all of them have audio.
    """
    style, script = _asset("page.css"), _asset("page.js")
    packs: dict[str, str] = {}
    plays = all(one.sound is not None for one in shown)
    takes = [_take(number, one, plays, packs) for number, one in enumerate(shown)]
    longest = max(one.score.length for one in shown)
    for take, one in zip(takes, shown, strict=True):
        take["width"] = round(one.score.length / max(longest, 1), 5)
    marked = any(one.seam is not None or one.new_parts for one in shown)
    told = {"plays": plays, "marked": marked, "takes": takes}
    blocks = [f'<script type="application/json" id="data">{_json(told)}</script>']
    blocks += [f'<script type="text/plain" data-pack="{name}">{text}</script>' for name, text in packs.items()]
    heading = f"{noun}s" if len(shown) > 1 else noun if shown[0].facts else "Downloads"
    return Template(_asset("page.html")).substitute(
        policy=_policy(style, script),
        title=_text(title),
        summary=_summary(shown[0]) if len(shown) == 1 else _text(f"{len(shown)} {heading.lower()} to compare."),
        style=style,
        script=script,
        unheard="" if plays else " hidden",
        unseamed="" if any(one.seam is not None for one in shown) else " hidden",
        unmarked="" if marked else " hidden",
        unengraved="" if any(one.engraving for one in shown) else " hidden",
        heading=_text(heading),
        table=_table(shown, noun, plays),
        rolls="".join(_figure(number, one) for number, one in enumerate(shown)),
        report=f'<section aria-label="Report" class="report">{report_html(report)}</section>' if report else "",
        player=_text(f"Played by {shown[0].sound.player}. " if plays and shown[0].sound else ""),
        blocks="\n".join(blocks),
    )


def _take(number: int, one: Shown, plays: bool, packs: dict[str, str]) -> dict:
    """What the script knows of one take; its audio, pages, roll and files go into `packs`."""
    score = one.score
    moments = _moments(one)
    if plays and one.sound:
        packs[f"audio-{number}"] = b64encode(one.sound.mp3).decode("ascii")
    packs[f"roll-{number}"] = _packed(page_roll(score, one.seam, one.until, one.new_parts, one.again).encode("utf-8"))
    if one.engraving:
        sheet = {"pages": one.engraving.pages, "cues": cues_of(score, moments, one.written_of)}
        packs[f"sheet-{number}"] = _packed(json.dumps(sheet, separators=(",", ":")).encode("utf-8"))
    for place, (_, content) in enumerate(one.downloads):
        packs[f"file-{number}-{place}"] = _packed(content)
    bars = bars_of(score, one.written_of, moments)
    return {
        "name": one.name,
        "seconds": round(one.sound.seconds, 3) if one.sound else round(score.seconds_at(score.length), 3),
        "seam": None if one.seam is None else round(score.seconds_at(one.seam), 3),
        "seamAt": None if one.seam is None else round(one.seam / max(score.length, 1), 6),
        "clock": clock_of(score),
        "bars": bars,
        "barCount": max(number for _, number in bars),
        "engraved": one.engraving is not None,
        "files": [{"name": PurePath(name).name, "type": _kind(name)[1]} for name, _ in one.downloads],
        "mp3": _mp3_name(one) if plays else "",
    }


def _mp3_name(one: Shown) -> str:
    return f"{PurePath(one.downloads[0][0]).stem if one.downloads else one.name}.mp3"


def _kind(name: str) -> tuple[str, str]:
    suffix = PurePath(name).suffix.lower()
    return KINDS.get(suffix, (suffix[1:].upper() or "file", "application/octet-stream"))


def _table(shown: Sequence[Shown], noun: str, plays: bool) -> str:
    """The takes with their figures, a button to play each and its files."""
    labels = list(dict.fromkeys(label for one in shown for label, _ in one.facts))
    head = "".join(f'<th scope="col">{_text(label)}</th>' for label in (noun, "Download"))
    head += "".join(f'<th scope="col" class="number">{_text(label)}</th>' for label in labels)
    several = plays and len(shown) > 1
    rows = []
    for number, one in enumerate(shown):
        facts = dict(one.facts)
        play = '<button type="button" class="play-take">Play</button> ' if several else ""
        links = [(f"file-{number}-{place}", name, _kind(name)[0]) for place, (name, _) in enumerate(one.downloads)]
        links += [(f"audio-{number}", _mp3_name(one), "MP3")] if plays else []
        buttons = " ".join(
            f'<button type="button" class="download" data-file="{key}" aria-label="Download {_text(name)}">'
            f"{_text(label)}</button>"
            for key, name, label in links
        )
        cells = "".join(f'<td class="number">{_text(facts.get(label, "-"))}</td>' for label in labels)
        rows.append(
            f'<tr data-take="{number}"><th scope="row">{play}<span class="name">{_text(one.name)}</span></th>'
            f'<td class="files">{buttons}</td>{cells}</tr>'
        )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _figure(number: int, one: Shown) -> str:
    """The place of a take's roll; the script puts the drawing there."""
    said = _summary(one)
    return (
        f'<figure data-take="{number}"><figcaption><strong class="name">{_text(one.name)}</strong> {said}</figcaption>'
        f'<div class="strip" role="img" aria-label="Piano roll of {_text(one.name)}. {said}"></div></figure>'
    )


def _summary(one: Shown) -> str:
    """Parts, bars, minutes, and what of it is new."""
    score = one.score
    seconds = int(one.sound.seconds if one.sound else score.seconds_at(score.length))
    parts = f"{len(score.parts)} parts" if len(score.parts) != 1 else _text(name_alone(score.parts[0]))
    written = max(number for _, number in bars_of(score, one.written_of, _moments(one)))
    bars = f"{written} bar{'s' * (written != 1)}"
    said = [f"{parts}, {bars}, {seconds // 60}:{seconds % 60:02}.", _text(_given_and_new(one))]
    if one.written_of and written != len(score.bars):
        said.append(f"Bars are counted as written; with its repeats it plays {len(score.bars)}.")
    return " ".join(filter(None, said))


def name_alone(part: Part) -> str:
    """What the only part of a score is called.

    A tune in ABC names neither voice nor instrument, and is no piece for the piano that General MIDI begins with.
    """
    if part.program or part.is_drum or part.name not in ("", PROGRAM_NAMES[0]):
        return part.name or "1 part"
    notes = np.sort(part.notes, order="onset")
    overlaps = notes["onset"][1:] < (notes["onset"] + notes["duration"])[:-1]
    return part.name or "1 part" if bool(overlaps.any()) else "One melody"


def _moments(one: Shown) -> tuple[Moment, ...]:
    return one.engraving.moments if one.engraving else ()


def _given_and_new(one: Shown) -> str:
    """In words, for whoever does not see colours: which bars are given, and which are new."""
    if one.seam is None:
        names = [one.score.parts[number].name or f"part {number + 1}" for number in one.new_parts]
        return f"New: {', '.join(names)}." if names else ""
    score = one.score
    numbers = [number for _, number in bars_of(score, one.written_of, _moments(one))]
    first = score.bar_at(one.seam)
    inside = one.seam != int(score.bars[first])
    if one.until is not None:  # a hole that was filled
        last = numbers[score.bar_at(max(one.until - 1, 0))]
        bars = f"bar {last}" if last == numbers[first] else f"bars {numbers[first]} to {last}"
        around = [side for side, there in (("before", one.seam > 0), ("after", one.until < score.length)) if there]
        return f"New: {bars}; given: all {' and '.join(around)}." if around else f"New: {bars}."
    new = f"New from {'within ' if inside else ''}bar {numbers[first]} on."
    given = numbers[first] - 1 + inside
    return f"Given: {'bar 1' if given == 1 else f'bars 1 to {given}'}. {new}" if given else new


def _policy(style: str, script: str) -> str:
    """Only this script and this style; audio that the page itself holds; nothing from anywhere."""

    def quoted(text: str) -> str:
        return f"'sha256-{b64encode(sha256(text.encode('utf-8')).digest()).decode('ascii')}'"

    return (
        f"default-src 'none'; script-src {quoted(script)}; style-src {quoted(style)}; media-src blob:; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _packed(content: bytes) -> str:
    """gzip in base64, the same for the same content."""
    return b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii")


def _json(value: object) -> str:
    """JSON that can stand in a <script>: "<" would let a name end it."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _text(value: str) -> str:
    return escape(value, quote=True)


def _asset(name: str) -> str:
    return (files("musicgen.render") / "page" / name).read_text(encoding="utf-8")
