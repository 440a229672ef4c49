"""ABC text to scores, by the ABC 2.1 standard as tunes in the wild use it.

In comes the text of a file of one or many tunes; out comes one Score a tune, as written: a repeat sign is a Sign, not
music played twice (`musicgen.score.unfold` does that), and so are the parts of a tune (P:) and its jumps (!D.C.!,
!fine!, ...). A voice is a part; the first voice with notes states the bars, metres and keys. One compiled regex cuts
the lines, so that a thousand tunes take half a second.

Left out, knowingly: slurs, the lengths of grace notes and those that lead to nothing, decorations other than jumps,
annotations, lyrics, beaming, lines of typeset text. Macros (m:) are not expanded: their notes are read as they stand.
Microtones are rounded to semitones. Where P: in the header names parts that the tune has not, it counts for nothing.

The standard decides where programs differ: an accidental holds to the end of the bar in every octave (11.3, unless
%%propagate-accidentals says otherwise); a tied note keeps its accidental over the barline, the notes after it do not;
`Q:120` counts unit lengths a minute (10.1); a chord lasts as long as its first note (4.17). What is between unequal
notes a broken rhythm leaves undefined (4.4); here each has its own length changed.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from musicgen.errors import FormatError, ScoreError
from musicgen.formats.abc_fields import (
    FINE,
    JUMPS,
    LETTER_DECORATIONS,
    WHOLE,
    FieldError,
    parse_key,
    parse_metre,
    parse_order,
    parse_symbol,
    parse_tempo,
    parse_unit,
)
from musicgen.formats.abc_text import BODY_FIELD, COMMENT, HEADER_FIELD, decode_text, plain_text, split_tunes
from musicgen.formats.abc_voice import Mark, Voice, length_of
from musicgen.score import (
    NOTE,
    ChordSymbol,
    Key,
    Metre,
    Part,
    Score,
    Sign,
    Tempo,
    graces_array,
)
from musicgen.score.edit import changes

MAX_LINE = 100_000
MAX_NOTES = 200_000
"""Notes of one tune beyond which it is refused."""

MAX_VOICES = 64
"""Voices of one tune beyond which it is refused."""

VELOCITY = 80

TOKEN = re.compile(
    r"""
    (?P<note>(?:(?P<accidental>\^\^?|__?|=)(?P<amount>\d{0,3}/\d{0,3}(?=[A-Ga-g]))?)?
             (?P<letter>[A-Ga-g])(?P<octave>[,']*)(?P<n>\d{0,5})(?P<slash>/*)(?P<d>\d{0,5}))
  | (?P<volta>\[\s?(?P<passes>\d+(?:[,\-]\d+)*)|^\s*(?P<line_passes>[12])(?=[\s"'(\[A-Ga-gz]))
  | (?P<space>[\s`$*;]+ | \\$ | y\d*)
  | (?P<words>\["[^"]{0,200}"(?=[^\]|]{0,300}(?:\||$)))
  | (?P<bar>(?:\.?\||\[\||:+(?:\||\[(?=\|))|::+)(?:[|:\]]|\[(?=[|\]]))*(?P<passes2>\d+(?:[,\-]\d+)*)?)
  | (?P<text>"[^"]*"?)
  | (?P<field>\[(?P<name>[A-Za-z]):(?P<value>[^\]]{0,1000})\])
  | (?P<tuplet>\((?P<p>\d{1,2})(?::(?P<q>\d{0,2}))?(?::(?P<r>\d{0,3}))?)
  | (?P<broken>>+|<+)
  | (?P<tie>-)
  | (?P<open>\[)
  | (?P<close>\](?P<cn>\d{0,5})(?P<cslash>/*)(?P<cd>\d{0,5}))
  | (?P<rest>[zx](?P<rn>\d{0,5})(?P<rslash>/*)(?P<rd>\d{0,5}))
  | (?P<bars_rest>[ZX](?P<count>\d{0,5}))
  | (?P<grace>\{(?P<graces>[^}]*)\}?)
  | (?P<mark>!(?:[fp]{1,4}|(?![\^_=]?[A-Ga-gz][\dA-Ga-gz/,'^_=<>]*!)[^!\s|]+)!|\+[A-Za-z.()<>\d]+\+)
  | (?P<skip>[()!])
  | (?P<stray_metre>M:\s*(?P<metre>\d+/\d+|C\|?))
  | (?P<decoration>[.~H-Wh-w])
  | (?P<overlay>&+)
  | (?P<other>.)
    """,
    re.VERBOSE,
)
NOTE_GROUPS = ("accidental", "amount", "letter", "octave", "n", "slash", "d")
CHORD_SYMBOL = re.compile(
    r"\(?[A-G][#b♯♭]?(?:maj|min|dim|aug|sus|add|alt|no|[mM°oø+\-\d#b♯♭,()])*(?:/[A-Ga-g][#b♯♭]?)?\)?"
)


def read(path: str | Path) -> list[Score]:
    """Every tune of a file that can be read, as written. Raises FormatError where none can.

    `read_tunes` tells of the tunes left out too.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from error
    return read_text(decode_text(data), str(path))


def read_text(text: str, source: str = "abc") -> list[Score]:
    """Every tune of ABC text that can be read, as written. Raises FormatError naming source and line where none can."""
    tunes = read_tunes(text, source)
    scores = [tune for tune in tunes if isinstance(tune, Score)]
    if not scores:
        raise next((t for t in tunes if isinstance(t, FormatError)), FormatError(f"{source}: empty"))
    return scores


def read_tunes(text: str, source: str = "abc") -> list[Score | FormatError]:
    """One entry a tune, in file order: its score as written, or the error that kept it from being read."""
    found: list[Score | FormatError] = []
    file_header, tunes = split_tunes(text)
    for first_line, lines in tunes:
        reader = TuneReader(source, first_line)
        try:
            found.append(reader.read(file_header, lines))
        except FieldError as error:
            found.append(reader.error(str(error)))
        except FormatError as error:
            found.append(error)
        except ScoreError as error:
            found.append(FormatError(f"{source}:{first_line}: tune {reader.title!r}: {error}; correct it"))
    if not found:
        found.append(FormatError(f"{source}:1: no tune found; an ABC tune begins with X:1 and has a K: line"))
    return found


class TuneReader:
    """Reads one tune: header, then line by line."""

    def __init__(self, source: str, first_line: int) -> None:
        self.source = source
        self.line = first_line
        self.title = ""
        self.voices: dict[str, Voice] = {}
        self.template = Voice()  # what the header says holds for every voice
        self.voice = self.template
        self.tempos: list[tuple[int, float]] = []
        self.key: tuple[int, str] = (0, "major")
        self.unit_given = False
        self.header_metre: tuple[int, int] | None = (4, 4)
        self.header_tempos: list[str] = []
        self.order: tuple[str, ...] = ()
        self.marks: dict[Mark, None] = {}  # sections and jumps: one voice's hold for all
        self.symbols = dict(LETTER_DECORATIONS)
        self.in_text = False  # between %%begintext and %%endtext

    def error(self, text: str) -> FormatError:
        return FormatError(f"{self.source}:{self.line}: {text}")

    def read(self, file_header: list[str], lines: list[str]) -> Score:
        """The tune's score. Raises FormatError, FieldError (without the line) or ScoreError."""
        first_line = self.line
        in_header = True
        for line in file_header:
            self.read_header_line(line)
        if any(line.startswith("+:") for line in lines):
            lines = joined(lines)
        for number, line in enumerate(lines, first_line):
            self.line = number
            if in_header:
                in_header = not self.read_header_line(line)
                if not in_header:
                    self.open_body()
            else:
                if len(line) > MAX_LINE:
                    raise self.error(f"a line of {len(line):,} characters, more than the {MAX_LINE:,} that are read")
                self.read_body_line(line)
                voices = (*self.voices.values(), self.template)
                if sum([len(voice.notes) + len(voice.graces) for voice in voices]) > MAX_NOTES:
                    raise self.error(f"more than {MAX_NOTES:,} notes in one tune; split it")
        if in_header:
            self.line = first_line
            raise self.error("the tune has no K: line; add one, as in K:C, before the music")
        return self.to_score(first_line)

    # --- header -------------------------------------------------------------------------------------------------------

    def read_header_line(self, line: str) -> bool:
        """Take a line of the header; True once it was the K: line."""
        if line.startswith("%%"):
            self.read_directive(line[2:])
            return False
        match = HEADER_FIELD.match(line)
        if not match or self.in_text:
            return False
        name, value = match[1], COMMENT.sub("", match[2]).strip()
        if name == "T":
            self.title = self.title or plain_text(value)
        elif name == "M":
            self.header_metre = parse_metre(value)
            self.template.metre = self.header_metre or (4, 4)
        elif name == "L":
            self.template.unit = parse_unit(value)
            self.unit_given = True
        elif name == "Q":
            self.header_tempos.append(value)
        elif name == "V":
            self.define_voice(value)
        elif name == "I":
            self.read_directive(value)
        elif name == "P":
            self.order = parse_order(value)
        elif name == "U":
            self.define_symbol(value)
        elif name == "K":
            self.set_key(self.template, value)
            return True
        return False

    def open_body(self) -> None:
        """The header is over: give every voice what it said."""
        if not self.unit_given:
            numerator, denominator = self.header_metre or (4, 4)
            self.template.unit = WHOLE // 16 if numerator / denominator < 0.75 else WHOLE // 8
        for value in self.header_tempos:
            self.set_tempo(value)
        for voice in self.voices.values():
            self.inherit(voice)
        self.voice = next(iter(self.voices.values()), self.template)

    def inherit(self, voice: Voice) -> None:
        voice.unit, voice.metre = self.template.unit, self.template.metre
        voice.signature, voice.scope = dict(self.template.signature), self.template.scope
        voice.metres, voice.keys = [(0, voice.metre)], [(0, *self.key)]
        voice.shift = voice.shift or self.template.shift
        voice.program = voice.program or self.template.program
        voice.is_drum = voice.is_drum or self.template.is_drum

    def define_voice(self, value: str) -> Voice:
        """The voice that a V: field names, made if it is new, with what the field says of it."""
        words = re.findall(r"""(?:[^\s"=]+\s*=\s*)?(?:"[^"]*"|[^\s"]+)""", value)
        if not words:
            raise self.error("V: names no voice; write V:1 or V:Flute")
        name = words[0].strip('"')
        voice = self.voices.get(name)
        if voice is None:
            if len(self.voices) >= MAX_VOICES:
                raise self.error(f"more than {MAX_VOICES} voices; split the tune")
            voice = self.voices[name] = Voice()
            if self.voice is not self.template or self.template.keys:
                self.inherit(voice)
        self.read_properties(voice, words[1:])
        return voice

    def read_properties(self, voice: Voice, words: list[str]) -> None:
        """What the words after a K: or V: say of how the voice sounds."""
        shift = 0
        found = False
        for word in words:
            name, _, value = word.partition("=")
            name, value = name.strip().lower(), value.strip().strip('"')
            if name in ("name", "nm"):
                voice.name = plain_text(value.replace("\\n", " "))
            elif name in ("octave", "transpose") and re.fullmatch(r"[+-]?\d{1,2}", value):
                shift += int(value) * (12 if name == "octave" else 1)
                found = True
            else:
                clef = re.search(r"([+-])8$", value or name)
                if clef and not name.startswith("sta"):
                    shift += 12 if clef[1] == "+" else -12
                    found = True
        if found:
            voice.shift = shift

    def define_symbol(self, value: str) -> None:
        """U:T=!segno! lets a letter stand for a decoration: one of those that are read, or it is passed over."""
        symbol = parse_symbol(value)
        if symbol:
            self.symbols[symbol[0]] = symbol[1]

    def read_directive(self, text: str) -> None:
        """%%MIDI program, channel and transpose, how far accidentals reach, typeset text to pass over; every other
        directive is about the page."""
        words = text.replace("=", " ").split()
        if not words:
            return
        if words[0] in ("begintext", "endtext", "beginps", "endps", "beginsvg", "endsvg"):
            self.in_text = words[0].startswith("begin")
        elif words[0] == "propagate-accidentals" and words[1:2] in (["not"], ["octave"], ["pitch"]):
            for voice in (self.template, *self.voices.values()):
                voice.scope = words[1]
        if words[:2] == ["MIDI", "nobarlines"]:  # old music without bars: an accidental is its note's alone
            self.voice.scope = "not"
        if words[0] != "MIDI" or len(words) < 3:
            return
        numbers = [int(w) for w in words[2:] if re.fullmatch(r"-?\d{1,3}", w)]
        if not numbers:
            return
        if words[1] == "program":
            if not 0 <= numbers[-1] <= 127:
                raise self.error(f"%%MIDI program {numbers[-1]}; programs are 0..127")
            if len(numbers) == 1 or numbers[0] != 10:
                self.voice.program = numbers[-1]
        elif words[1] == "channel":
            self.voice.is_drum = numbers[0] == 10
        elif words[1] == "transpose":
            self.voice.shift = numbers[0]

    # --- fields -------------------------------------------------------------------------------------------------------

    def set_tempo(self, value: str) -> None:
        bpm = parse_tempo(value, self.voice.unit)
        if bpm is not None:
            self.tempos.append((self.voice.at, bpm))

    def set_key(self, voice: Voice, value: str) -> None:
        key, words = parse_key(value)
        self.read_properties(voice, words)
        if key is None:  # K:bass changes the clef alone
            if voice is not self.template or voice.keys:
                return
            key = (0, "major", {})
        fifths, mode, voice.signature = key
        if voice is self.template and not voice.at:
            self.key = (fifths, mode)
            voice.keys, voice.metres = [(0, fifths, mode)], [(0, voice.metre)]
        else:
            voice.keys.append((voice.at, fifths, mode))

    def read_field(self, name: str, value: str) -> None:
        """A field of the tune's body, inline or on its own line."""
        voice = self.voice
        if name == "K":
            self.set_key(voice, value)
            voice.accidentals.clear()
        elif name == "M":
            metre = parse_metre(value) or voice.metre
            if metre != voice.metre:
                voice.metre = metre
                voice.metres.append((voice.at, metre))
        elif name == "L":
            voice.unit = parse_unit(value)
        elif name == "Q":
            self.set_tempo(value)
        elif name == "I":
            self.read_directive(value)
        elif name == "P":
            self.mark("section", plain_text(value))
        elif name == "U":
            self.define_symbol(value)
        elif name == "V":
            if value.startswith("*"):
                return
            if voice is self.template and not self.voices and (voice.notes or voice.at):
                self.voices[""] = voice  # music before the first V: is a voice of its own
            self.voice = self.define_voice(value)

    def mark(self, kind: str, label: str) -> None:
        self.marks[self.voice.at, kind, (), label] = None

    def decorate(self, name: str) -> None:
        """A decoration: the signs of jumps stand where they are, a jump is made at the end of its bar."""
        kind, label = JUMPS.get(name, ("", ""))
        if kind in ("segno", "coda"):
            self.mark(kind, label)
        elif kind:
            self.voice.leaving.append((kind, label))

    # --- body ---------------------------------------------------------------------------------------------------------

    def read_body_line(self, line: str) -> None:
        if line.startswith("%"):
            if line.startswith("%%"):
                self.read_directive(line[2:])
            return
        if self.in_text:
            return
        if "%" in line:
            line = COMMENT.sub("", line)
        match = BODY_FIELD.match(line)
        if match:
            name, value = match[1], match[2].strip()
            self.read_field(name, value)
            # tunes are found whose metre and music share a line, against the standard: what follows is music
            rest = re.match(r"\s*(?:C\|?|[\d+/]+)\s+(.*\|.*)", match[2]) if name == "M" else None
            if rest:
                self.read_music(rest[1])
            return
        self.read_music(line)

    def read_music(self, line: str) -> None:
        """One line of notes, bars and what is written among them."""
        chord: list[list[int]] | None = None  # the notes between [ and ]: step, pitch, length, accidental written
        chord_ties: list[int] = []
        strange = 0
        voice = self.voice
        for m in TOKEN.finditer(line):
            kind = m.lastgroup
            if kind == "note":
                accidental, amount, letter, octave, n, slash, d = m.group(*NOTE_GROUPS)
                step, pitch = voice.pitch(accidental, amount, letter, octave)
                length = length_of(voice.unit, n, slash, d)
                if chord is None:
                    voice.place([[step, pitch, length, accidental is not None]], length)
                else:
                    chord.append([step, pitch, length, accidental is not None])
            elif kind == "space":
                continue
            elif kind == "bar":
                if chord:
                    raise self.error("a barline inside a chord; close the chord with ]")
                voice.barline(m["bar"], m["passes2"])
            elif kind == "rest":
                if chord is None:
                    voice.place([], length_of(voice.unit, m["rn"], m["rslash"], m["rd"]))
            elif kind == "tie":
                if chord is None:
                    if voice.last:
                        for index in voice.last[2]:
                            voice.tie(index)
                elif chord:
                    chord_ties.append(len(chord) - 1)
            elif kind == "text":
                text = m["text"].strip('"').strip()
                if CHORD_SYMBOL.fullmatch(text):
                    voice.chords.append((voice.at, text))
            elif kind == "tuplet":
                if chord:  # no tuplet begins inside a chord: the ] before it was forgotten (Nottingham, jigs.abc)
                    close_chord(voice, chord, chord_ties, FINE)
                    chord = None
                voice.open_tuplet(int(m["p"]), m["q"], m["r"])
            elif kind == "broken":
                voice.break_rhythm(m["broken"])
            elif kind == "open":
                chord, chord_ties = [], []
            elif kind == "close":
                if chord:
                    close_chord(voice, chord, chord_ties, length_of(FINE, m["cn"], m["cslash"], m["cd"]))
                chord = None
            elif kind == "volta":
                if m["passes"]:
                    voice.open_ending(m["passes"])
                elif voice.at == voice.bars[-1]:  # after a barline at the end of the line before
                    voice.open_ending(m["line_passes"])
            elif kind == "field":
                self.read_field(m["name"], COMMENT.sub("", m["value"]).strip())
                voice = self.voice
            elif kind == "grace":
                read_graces(voice, m["graces"])
            elif kind == "mark":
                self.decorate(m["mark"][1:-1].lower())
            elif kind == "decoration":
                if m["decoration"] in self.symbols:
                    self.decorate(self.symbols[m["decoration"]])
            elif kind == "stray_metre":
                self.read_field("M", m["metre"])
            elif kind == "bars_rest":
                voice.rest_bars(int(m["count"] or 1))
            elif kind == "overlay":
                voice.open_overlay(len(m["overlay"]))
            elif kind == "other":
                strange += 1
        if chord:
            raise self.error("a chord that is not closed; close it with ]")
        if strange > 8 and strange > len(line) // 10:
            raise self.error(f"no music: {line.strip()[:40]!r}; a blank line must stand before free text")

    # --- the whole ----------------------------------------------------------------------------------------------------

    def to_score(self, first_line: int) -> Score:
        voices = [v for v in self.voices.values() if v.at] or ([self.template] if self.template.at else [])
        for voice in voices:
            voice.finish()
        lead = next((v for v in voices if v.notes), None)
        if lead is None:
            self.line = first_line
            raise self.error(f"tune {self.title!r} has no notes; write some after its K: line")
        longest = max(voices, key=lambda v: v.at)
        bars = [ticks(b) for b in lead.bars]
        if longest.at > lead.at:
            bars += [ticks(b) for b in longest.bars if b >= lead.at]
        parts = tuple(part_of(voice) for voice in voices)
        length = max(ticks(longest.at), *(part.end for part in parts))
        tempos: dict[int, Tempo] = {0: Tempo(0, 120.0)}
        for at, bpm in sorted(self.tempos, key=lambda tempo: tempo[0]):
            tempos[ticks(at)] = Tempo(ticks(at), bpm)
        chords = sorted({(ticks(at), text) for v in voices for at, text in v.chords})
        others = [sign for voice in voices if voice is not lead for sign in voice.signs if sign[1] in LEAVING]
        marks = jumps(list(dict.fromkeys([*self.marks, *others])), lead.signs)
        signs = lead.signs + [mark for mark in marks if mark[1] in LEAVING or ticks(mark[0]) < length]
        labels = {label for _, kind, _, label in signs if kind == "section"}
        return Score(
            parts=parts,
            title=self.title,
            tempos=changes(list(tempos.values()), length),
            metres=changes([Metre(ticks(at), *metre) for at, metre in lead.metres], length),
            keys=changes([Key(ticks(at), fifths, mode) for at, fifths, mode in lead.keys], length),
            bars=sorted({b for b in bars if b < length or b == 0}),  # type: ignore[arg-type]
            length=length,
            signs=tuple(Sign(ticks(at), kind, passes, label) for at, kind, passes, label in signs),
            chord_symbols=tuple(ChordSymbol(at, text) for at, text in chords if at < length),
            order=self.order if labels.issuperset(self.order) else (),
        )


LEAVING = ("to_coda", "fine", "da_capo", "dal_segno")


def joined(lines: list[str]) -> list[str]:
    """The lines with what a +: line says put behind the field it continues; an empty comment stays in its place."""
    found: list[str] = []
    field = 0
    for line in lines:
        if line.startswith("+:") and found:
            found[field] += " " + COMMENT.sub("", line[2:]).strip()
            line = "%"
        elif not line.startswith("%"):
            field = len(found)
        found.append(line)
    return found


def close_chord(voice: Voice, chord: list[list[int]], ties: list[int], factor: int) -> None:
    """Put the chord where the voice is, its notes times `factor` (FINE parts); it lasts as long as its first note."""
    voice.place([[s, p, n * factor // FINE, w] for s, p, n, w in chord], chord[0][2] * factor // FINE)
    assert voice.last
    for i in ties:
        voice.tie(voice.last[2][i])


def read_graces(voice: Voice, text: str) -> None:
    """The grace notes of {gf}, {/g} or {[ce]d}: they heed and set the bar's accidentals; their lengths say nothing."""
    slashed = text.startswith("/")
    chord: list[int] | None = None
    for m in TOKEN.finditer(text):
        if m.lastgroup == "note":
            _, pitch = voice.pitch(*m.group("accidental", "amount", "letter", "octave"))
            if chord is None:
                voice.grace([pitch], slashed)
            else:
                chord.append(pitch)
        elif m.lastgroup == "open":
            chord = []
        elif m.lastgroup == "close" and chord is not None:
            voice.grace(chord, slashed)
            chord = None


def part_of(voice: Voice) -> Part:
    """The voice as a part, its times rounded to ticks."""
    onset, end, pitch, _ = np.array(voice.notes, dtype=np.int64).reshape(-1, 4).T  # FINE parts of a tick: under 2**50
    notes = np.empty(len(onset), dtype=NOTE)
    notes["onset"], notes["pitch"], notes["velocity"] = ticks(onset), pitch, VELOCITY
    notes["duration"] = np.maximum(ticks(end) - notes["onset"], 1)
    graces = placed_graces(voice) if voice.graces else graces_array()
    return Part(voice.name, voice.program, voice.is_drum, notes, graces)


def placed_graces(voice: Voice) -> np.ndarray:
    """(n,) GRACE array: the voice's graces, numbered from 0 at each tick in the order they are written."""
    places: dict[int, int] = {}
    found = []
    for at, pitches, slashed in voice.graces:
        onset = ticks(at)
        place = places[onset] = places.get(onset, -1) + 1
        found += [(onset, place, pitch, slashed) for pitch in pitches]
    return graces_array(found)


def jumps(marks: list[Mark], signs: list[Mark]) -> list[Mark]:
    """The marks, in which all coda signs but the last say where to leave for it, unless !dacoda! says so."""
    codas = [mark for mark in marks if mark[1] == "coda"]
    if len(codas) < 2 or any(kind == "to_coda" for _, kind, _, _ in (*marks, *signs)):
        found = marks
    else:
        last = max(codas)
        found = [(m[0], "to_coda", (), "") if m[1] == "coda" and m is not last else m for m in marks]
    there = set(signs)
    return [mark for mark in found if mark not in there]


def ticks(fine):
    """FINE parts, one number or an array, rounded to ticks."""
    return (fine + FINE // 2) // FINE
