"""What an ABC tune says beside its notes, put into the MusicXML that is engraved: words, slurs, ornaments, dynamics.

Our reader makes a score of a tune and passes the rest over, for it is no music to a model. Here the first tune of a
file is read once more, note by note, to see where each of them stands; the score's own MusicXML gets them at the same
onsets. So the page has the notes that were read, whatever the file says (verovio's own reader of ABC knows one voice,
and line ends with ! end its process). Left out: hairpins, the beams as written, words below the tune (W:).

A words line (w:) belongs to the line of notes before it, syllable by syllable, notes that are tied counted (ABC 2.1,
5). The signs are those of 4.14; ~, whose meaning is left to the player there, is drawn as a turn.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

from musicgen.errors import FormatError, ScoreError
from musicgen.formats.abc_fields import FieldError
from musicgen.formats.abc_music import TOKEN, read_body_line, read_music
from musicgen.formats.abc_read import joined, read_tune, ticks
from musicgen.formats.abc_text import BODY_FIELD, COMMENT, HEADER_FIELD, decode_text, plain_text, split_tunes
from musicgen.formats.abc_tune import Tune
from musicgen.formats.abc_voice import Voice
from musicgen.formats.files import read_score
from musicgen.formats.musicxml_elements import add, clean
from musicgen.score import Score

LETTERS = {
    ".": "staccato", "~": "turn", "H": "fermata", "L": "accent", "M": "mordent", "P": "uppermordent", "T": "trill",
    "u": "upbow", "v": "downbow",
}  # fmt: skip
_SIGNS = {
    "staccato": ("articulations", "staccato"), ".": ("articulations", "staccato"),
    "tenuto": ("articulations", "tenuto"), "accent": ("articulations", "accent"), ">": ("articulations", "accent"),
    "emphasis": ("articulations", "accent"), "marcato": ("articulations", "strong-accent"),
    "wedge": ("articulations", "staccatissimo"), "breath": ("articulations", "breath-mark"),
    "trill": ("ornaments", "trill-mark"), "turn": ("ornaments", "turn"), "roll": ("ornaments", "turn"),
    "invertedturn": ("ornaments", "inverted-turn"), "mordent": ("ornaments", "mordent"),
    "lowermordent": ("ornaments", "mordent"), "uppermordent": ("ornaments", "inverted-mordent"),
    "pralltriller": ("ornaments", "inverted-mordent"), "fermata": ("", "fermata"), "arpeggio": ("", "arpeggiate"),
    "upbow": ("technical", "up-bow"), "downbow": ("technical", "down-bow"), "open": ("technical", "open-string"),
    "thumb": ("technical", "thumb-position"), "snap": ("technical", "snap-pizzicato"), "plus": ("technical", "stopped"),
}  # fmt: skip
"""A sign of ABC -> the element of MusicXML, inside which group of <notations>; "" for none."""
_LETTER_METRE = re.compile(r"(?:^|\[)M:\s*(C\|?)\s*(?:[\]%]|$)")
_DYNAMICS = re.compile(r"p{1,4}|f{1,4}|mp|mf|sfz")
_FINGER = re.compile(r"[1-5]")
_SYLLABLE = re.compile(r"(?:\\-|[^\s\-_*|])+|[-_*|]|\s+")


@dataclass
class Marks:
    """What one voice says beside its notes; onsets in ticks.

    words: (onset, verse from 1, syllabic of MusicXML, syllable, whether its line goes on). slurs: (first, last onset).
    signs: (onset, name). texts: (onset, text, whether above).
    """

    words: list[tuple[int, int, str, str, bool]] = field(default_factory=list)
    slurs: list[tuple[int, int]] = field(default_factory=list)
    signs: list[tuple[int, str]] = field(default_factory=list)
    texts: list[tuple[int, str, bool]] = field(default_factory=list)


@dataclass(frozen=True)
class MarkedTune:
    """A tune's score as written, the marks of each part, who wrote it, whether it states a tempo, and which metres it
    says by a letter, "C" or "C|"."""

    score: Score
    marks: Sequence[Marks]
    composer: str
    has_tempo: bool
    letters: frozenset[str] = frozenset()


def read_marked(path: Path) -> MarkedTune:
    """The first tune of an ABC file that can be read. Raises FormatError where none can."""
    header, tunes = split_tunes(decode_text(path.read_bytes()) if path.is_file() else "")
    for first_line, lines in tunes:
        try:
            score = read_tune(Tune(str(path), first_line), header, lines)
        except (FormatError, FieldError, ScoreError):
            continue
        reader = _Reader(Tune(str(path), first_line))
        reader.read(header, lines)
        voices = [v for v in reader.tune.voices.values() if v.at] or [reader.tune.template]
        marks = [reader.finished(voice) for voice in voices]
        letters = frozenset(found[1] for line in (*header, *lines) for found in _LETTER_METRE.finditer(line))
        return MarkedTune(score, marks, reader.composer, bool(reader.tune.tempos), letters)
    return MarkedTune(read_score(path, as_written=True), (), "", True)  # or the error that says what is wrong


@dataclass
class _Line:
    """The notes of one voice in one line of music: (onset in FINE parts, number of the bar)."""

    notes: list[tuple[int, int]] = field(default_factory=list)
    verses: int = 0


class _Reader:
    """Reads a tune as `abc_read` does, but in pieces that end after each note, to see where the marks stand."""

    def __init__(self, tune: Tune) -> None:
        self.tune = tune
        self.composer = ""
        self.marks: dict[int, Marks] = defaultdict(Marks)  # by the id of the voice; onsets in FINE parts so far
        self.lines: dict[int, _Line] = defaultdict(_Line)
        self.open_slurs: dict[int, list[int | None]] = defaultdict(list)
        self.waiting: list[str] = []

    def read(self, header: Sequence[str], lines: list[str]) -> None:
        tune = self.tune
        for line in header:
            tune.read_header_line(line)
        in_header = True
        if any(line.startswith("+:") for line in lines):
            lines = joined(lines)
        for number, line in enumerate(lines, tune.line):
            tune.line = number
            if in_header:
                found = HEADER_FIELD.match(line)
                if found and found[1] == "C":
                    self.composer = self.composer or plain_text(COMMENT.sub("", found[2]))
                in_header = not tune.read_header_line(line)
                if not in_header:
                    tune.open_body()
            else:
                self.read_line(line)

    def read_line(self, line: str) -> None:
        words = re.match(r"w:(.*)", line)
        if words and not self.tune.in_text:
            self.read_words(COMMENT.sub("", words[1]))
        elif line.startswith("%") or self.tune.in_text or BODY_FIELD.match(line):
            read_body_line(self.tune, line)
        else:
            self.read_notes(COMMENT.sub("", line))

    def read_notes(self, line: str) -> None:
        here = self.lines[id(self.tune.voice)]
        if not (here.notes and here.verses == 0 and self.goes_on):
            self.lines.clear()
        self.goes_on = line.rstrip().endswith("\\")
        at, in_chord = 0, False
        for m in TOKEN.finditer(line):
            kind = m.lastgroup
            if kind == "open":
                in_chord = True
            elif kind == "close":
                in_chord = False
            if in_chord:
                continue
            if kind == "skip" and m[0] in "()":
                self.take(line[at : m.start()])
                at = m.end()
                self.slur(m[0])
            elif kind in ("note", "close"):
                self.take(line[at : m.end()])
                at = m.end()
                self.note(self.tune.voice)
            elif kind == "mark":
                self.waiting.append(m[0][1:-1].lower())
            elif kind == "decoration" and m[0] in LETTERS:
                self.waiting.append(LETTERS[m[0]])
            elif kind == "text":
                self.text(m[0].strip('"').strip())
        self.take(line[at:])

    goes_on = False
    """Whether the last line of music ended with a backslash, and the next is part of it."""

    def take(self, piece: str) -> None:
        if piece:
            read_music(self.tune, piece)

    def text(self, text: str) -> None:
        """An annotation: "^above", "_below" and the like."""
        shown = re.sub(r"^[\^_<>@][-\d.,]*", "", text)
        if shown and shown != text:
            self.waiting.append(("_" if text[0] == "_" else "^") + shown)

    def note(self, voice: Voice) -> None:
        """A note or a chord has been placed."""
        if voice.last is None or not voice.last[2]:
            return
        onset, marks = voice.last[0], self.marks[id(voice)]
        self.lines[id(voice)].notes.append((onset, len(voice.bars)))
        open_slurs = self.open_slurs[id(voice)]
        open_slurs[:] = [onset if start is None else start for start in open_slurs]
        for name in self.waiting:
            if name[0] in "^_" and len(name) > 1:
                marks.texts.append((onset, plain_text(name[1:]), name[0] == "^"))
            else:
                marks.signs.append((onset, name))
        self.waiting.clear()

    def slur(self, sign: str) -> None:
        voice = self.tune.voice
        open_slurs = self.open_slurs[id(voice)]
        if sign == "(":
            open_slurs.append(None)  # until its first note comes
        elif open_slurs:
            start = open_slurs.pop()
            if start is not None and voice.last and start < voice.last[0]:
                self.marks[id(voice)].slurs.append((start, voice.last[0]))

    def read_words(self, text: str) -> None:
        voice = self.tune.voice
        line = self.lines[id(voice)]
        line.verses += 1
        words = self.marks[id(voice)].words
        at = 0
        begun = False  # whether a hyphen leads to the next syllable
        last: int | None = None  # the syllable to which a line may be drawn
        for kind, value in _syllables(plain_text(text)):
            if kind == "bar":
                bar = line.notes[at - 1][1] if 0 < at <= len(line.notes) else 0
                while at < len(line.notes) and line.notes[at][1] <= bar:
                    at += 1
                continue
            if at >= len(line.notes):
                break
            if kind == "hold" and last is not None:
                words[last] = (*words[last][:4], True)
            elif kind in ("single", "hyphen"):
                syllabic = ("middle" if begun else "begin") if kind == "hyphen" else "end" if begun else "single"
                last = len(words)
                words.append((line.notes[at][0], line.verses, syllabic, value, False))
                begun = kind == "hyphen"
            at += 1

    def finished(self, voice: Voice) -> Marks:
        """A voice's marks, in ticks."""
        found = self.marks[id(voice)]
        return Marks(
            [(ticks(at), *rest) for at, *rest in found.words],
            [(ticks(start), ticks(stop)) for start, stop in found.slurs],
            [(ticks(at), name) for at, name in found.signs],
            [(ticks(at), *rest) for at, *rest in found.texts],
        )


def _syllables(text: str) -> Iterator[tuple[str, str]]:
    """(kind, syllable): "single", "hyphen" where one follows it, "hold", "skip", "bar"."""
    pending = ""
    before = " "
    for piece in _SYLLABLE.findall(text):
        if piece == "-" and pending:
            yield "hyphen", pending
            pending = ""
        else:
            if pending and not (piece[0] not in "-_*|" and not piece.isspace()):
                yield "single", pending
                pending = ""
            if piece == "-" and before != " ":
                yield "skip", ""
            elif piece == "_":
                yield "hold", ""
            elif piece == "*":
                yield "skip", ""
            elif piece == "|":
                yield "bar", ""
            elif piece != "-" and not piece.isspace():
                pending += piece.replace("\\-", "-").replace("~", " ")
        before = " " if piece.isspace() else piece
    if pending:
        yield "single", pending


# --- into MusicXML ----------------------------------------------------------------------------------------------------


def put_in_marks(root: Element, tune: MarkedTune, notes: Sequence[Mapping[int, Element]]) -> None:
    """Put a tune's marks into the MusicXML of its score. notes: for each part, onset in ticks -> its first <note>."""
    if not tune.has_tempo:
        measure = root.find("part/measure")
        assert measure is not None
        for direction in measure.findall("direction"):
            if direction.find("direction-type/metronome") is not None:
                measure.remove(direction)
    for time in root.iter("time"):
        for letter, beats, symbol in (("C", "4", "common"), ("C|", "2", "cut")):
            if letter in tune.letters and {element.text for element in time} == {beats}:
                time.set("symbol", symbol)
    identification = root.find("identification")
    if tune.composer and identification is not None:
        creator = Element("creator", type="composer")
        creator.text = clean(tune.composer)
        identification.insert(0, creator)
    measures = {note: measure for measure in root.iter("measure") for note in measure.iterfind("note")}
    for marks, there in zip(tune.marks, notes, strict=False):
        for onset, name in marks.signs:
            if onset in there:
                _put_sign(measures[there[onset]], there[onset], name)
        for onset, text, above in marks.texts:
            if onset in there:
                kind = _direction(measures[there[onset]], there[onset], above)
                add(kind, "words", clean(text))
        for number, (start, stop) in enumerate(marks.slurs):
            if start in there and stop in there:
                for onset, side in ((start, "start"), (stop, "stop")):
                    add(_notations(there[onset]), "slur", type=side, number=str(number % 6 + 1))
        for onset, verse, syllabic, text, goes_on in marks.words:
            if onset in there:
                lyric = add(there[onset], "lyric", number=str(verse))
                add(lyric, "syllabic", syllabic)
                add(lyric, "text", clean(text))
                if goes_on:
                    add(lyric, "extend")


def _put_sign(measure: Element, note: Element, name: str) -> None:
    if _DYNAMICS.fullmatch(name):
        add(add(_direction(measure, note, above=False), "dynamics"), name)
        return
    group, sign = ("technical", "fingering") if _FINGER.fullmatch(name) else _SIGNS.get(name, ("", ""))
    if not sign:
        return
    notations = _notations(note)
    inside = notations.find(group) if group else notations
    made = add(add(notations, group) if inside is None else inside, sign)
    if sign == "fingering":
        made.text = name


def _notations(note: Element) -> Element:
    """The note's <notations>, which stand before its words."""
    found = note.find("notations")
    if found is None:
        found = Element("notations")
        lyric = note.find("lyric")
        note.insert(len(note) if lyric is None else list(note).index(lyric), found)
    return found


def _direction(measure: Element, note: Element, above: bool) -> Element:
    """The <direction-type> of a new direction at a note."""
    direction = Element("direction", placement="above" if above else "below")
    measure.insert(list(measure).index(note), direction)
    return SubElement(direction, "direction-type")
