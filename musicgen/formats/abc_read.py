"""ABC text to scores, by the ABC 2.1 standard as tunes in the wild use it.

In comes the text of a file of one or many tunes; out comes one Score a tune, as written: a repeat sign is a Sign, not
music played twice (`musicgen.score.unfold` does that). A voice is a part; the first voice with notes states the bars,
metres and keys. Slurs, grace notes, decorations, annotations, lyrics and beaming are left out, knowingly. One compiled
regex cuts the lines, so that a thousand tunes take a second or two.

The standard decides where programs differ: an accidental holds to the end of the bar in every octave (4.2, 11.3); a
tied note keeps its accidental over the barline, the notes after it do not; `Q:120` counts unit lengths a minute (10.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from musicgen.errors import FormatError, ScoreError
from musicgen.formats.abc_fields import (
    ACCIDENTALS,
    FINE,
    LETTER_SEMITONES,
    WHOLE,
    FieldError,
    parse_key,
    parse_metre,
    parse_tempo,
    parse_unit,
)
from musicgen.score import (
    ChordSymbol,
    Key,
    Metre,
    Part,
    Score,
    Sign,
    Tempo,
    bar_ticks,
    notes_array,
)

MAX_NOTES = 200_000
"""Notes of one tune beyond which it is refused."""

MAX_TICKS = 2**30
"""Length of one tune beyond which it is refused."""

MAX_REST_BARS = 1000
"""Bars of one multi-measure rest beyond which the tune is refused."""

VELOCITY = 80


TOKEN = re.compile(
    r"""
    (?P<note>(?P<accidental>\^\^?|__?|=)?(?:[\^_]?\d*/\d*(?=[A-Ga-g]))?
             (?P<letter>[A-Ga-g])(?P<octave>[,']*)(?P<n>\d{0,5})(?P<slash>/*)(?P<d>\d{0,5}))
  | (?P<space>[\s`$*;]+ | \\$ | y\d*)
  | (?P<words>\["[^"]*"(?=[^\]|]*(?:\||$)))
  | (?P<volta>\[\s?(?P<passes>\d+(?:[,\-]\d+)*))
  | (?P<bar>(?:\.?\||\[\||:+(?:\||\[(?=\|))|::+)(?:[|:\]]|\[(?=[|\]]))*(?P<passes2>\d+(?:[,\-]\d+)*)?)
  | (?P<text>"[^"]*"?)
  | (?P<field>\[(?P<name>[A-Za-z]):(?P<value>[^\]]*)\])
  | (?P<tuplet>\((?P<p>\d{1,2})(?::(?P<q>\d{0,2}))?(?::(?P<r>\d{0,3}))?)
  | (?P<broken>>+|<+)
  | (?P<tie>-)
  | (?P<open>\[)
  | (?P<close>\](?P<cn>\d{0,5})(?P<cslash>/*)(?P<cd>\d{0,5}))
  | (?P<rest>[zx](?P<rn>\d{0,5})(?P<rslash>/*)(?P<rd>\d{0,5}))
  | (?P<bars_rest>[ZX](?P<count>\d{0,5}))
  | (?P<skip>[()]|\{[^}]*\}?|!(?:[fp]{1,4}|(?![\^_=]?[A-Ga-gz][\dA-Ga-gz/,'^_=<>]*!)[^!\s|]+)!|!|\+[A-Za-z.()<>\d]+\+)
  | (?P<stray_metre>M:\s*(?P<metre>\d+/\d+|C\|?))
  | (?P<decoration>[.~H-Wh-w])
  | (?P<overlay>&)
  | (?P<other>.)
    """,
    re.VERBOSE,
)
BODY_FIELD = re.compile(r"([IKLMNOPQRSTUVWXYZmrsw+]):(.*)")
HEADER_FIELD = re.compile(r"([A-Za-z+]):(.*)")
COMMENT = re.compile(r"(?<!\\)%.*")
CHORD_SYMBOL = re.compile(
    r"\(?[A-G][#b♯♭]?(?:maj|min|dim|aug|sus|add|alt|no|mM|[mM°oø+\-\d#b♯♭,()])*(?:/[A-Ga-g][#b♯♭]?)?\)?"
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


def decode_text(data: bytes) -> str:
    """Bytes as UTF-8, or as Latin-1 where they are not; line ends as newlines."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


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


def split_tunes(text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The file header's lines, and each tune's (number of its first line, lines).

    A tune runs from its X: to a blank line after its K:, or to the next X:. Text between tunes is free text.
    """
    lines = text.split("\n")
    starts = [i for i, line in enumerate(lines) if line.startswith("X:")]
    if not starts:
        starts = [0] if any(line.startswith("K:") for line in lines) else []
    tunes = []
    for start, stop in pairwise([*starts, len(lines)] if starts else []):
        end, has_key, has_music = start, False, False
        while end < stop:
            line = lines[end]
            if has_key and not line.strip():
                # a blank line between the K: line and the first music is found in the wild: it ends nothing
                following = next((text for text in lines[end:stop] if text.strip()), "")
                if has_music or "|" not in following:
                    break
            has_music = has_music or (has_key and bool(line.strip()) and not BODY_FIELD.match(line) and line[0] != "%")
            has_key = has_key or line.startswith("K:")
            end += 1
        tunes.append((start + 1, lines[start:end]))
    header: list[str] = []
    for line in lines[: starts[0]] if starts else []:
        if not line.strip() and header:
            break
        if HEADER_FIELD.match(line) or line.startswith("%%"):
            header.append(line)
    return header, tunes


@dataclass
class Voice:
    """One voice while it is read. Times in FINE parts of a tick, counted from the start of the tune."""

    name: str = ""
    program: int = 0
    is_drum: bool = False
    shift: int = 0  # semitones: octave=, transpose=, treble-8
    unit: int = WHOLE // 8
    metre: tuple[int, int] = (4, 4)
    signature: dict[str, int] = field(default_factory=dict)
    at: int = 0
    notes: list[list[int]] = field(default_factory=list)  # [onset, end, pitch, staff step]
    bars: list[int] = field(default_factory=lambda: [0])
    signs: list[tuple[int, str, tuple[int, ...]]] = field(default_factory=list)
    metres: list[tuple[int, tuple[int, int]]] = field(default_factory=list)
    keys: list[tuple[int, int, str]] = field(default_factory=list)
    chords: list[tuple[int, str]] = field(default_factory=list)
    accidentals: dict[str, int] = field(default_factory=dict)  # by letter, to the end of the bar
    ties: list[tuple[int, int]] = field(default_factory=list)  # (index of a note that goes on, its overlay)
    last: tuple[int, int, list[int]] | None = None  # (start, duration, note indices): what a > or < changes
    broken: tuple[int, int] = (1, 1)
    tuplet: tuple[int, int, int] = (1, 1, 0)  # notes last q/p, for r notes more
    overlay: int = 0
    reach: int = 0  # where the longest overlay of this bar stops
    in_ending: bool = False


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
        self.note_count = 0

    def error(self, text: str) -> FormatError:
        return FormatError(f"{self.source}:{self.line}: {text}")

    def read(self, file_header: list[str], lines: list[str]) -> Score:
        """The tune's score. Raises FormatError or ScoreError."""
        first_line = self.line
        in_header = True
        for line in file_header:
            self.read_header_line(line)
        for number, line in enumerate(lines, first_line):
            self.line = number
            if in_header:
                in_header = not self.read_header_line(line)
                if not in_header:
                    self.open_body()
            else:
                self.read_body_line(line)
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
        if not match:
            return False
        name, value = match[1], COMMENT.sub("", match[2]).strip()
        if name == "T":
            self.title = self.title or " ".join(value.replace("\\%", "%").split())
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
        voice.signature = dict(self.template.signature)
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
            if len(self.voices) >= 64:
                raise self.error("more than 64 voices; split the tune")
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
                voice.name = value.replace("\\n", " ")
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

    def read_directive(self, text: str) -> None:
        """%%MIDI program, channel and transpose; every other directive is about the page."""
        words = text.replace("=", " ").split()
        if not words or words[0] != "MIDI" or len(words) < 3:
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
        elif name == "V":
            if value.startswith("*"):
                return
            if voice is self.template and not self.voices and (voice.notes or voice.at):
                self.voices[""] = voice  # music before the first V: is a voice of its own
            self.voice = self.define_voice(value)

    # --- body ---------------------------------------------------------------------------------------------------------

    def read_body_line(self, line: str) -> None:
        if line.startswith("%"):
            if line.startswith("%%"):
                self.read_directive(line[2:])
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
        chord: list[list[int]] | None = None  # the notes between [ and ]
        chord_ties: list[int] = []
        strange = 0
        voice = self.voice
        for m in TOKEN.finditer(line):
            kind = m.lastgroup
            if kind == "note":
                accidental, letter, octave = m["accidental"], m["letter"], m["octave"]
                upper = letter.upper()
                height = (5 if letter == upper else 6) + octave.count("'") - octave.count(",")
                if accidental:
                    alter = voice.accidentals[upper] = ACCIDENTALS[accidental]
                else:
                    alter = voice.accidentals.get(upper, voice.signature.get(upper, 0))
                pitch = 12 * height + LETTER_SEMITONES[upper] + alter + voice.shift
                step = 7 * height + "CDEFGAB".index(upper)
                length = self.length(voice.unit, m["n"], m["slash"], m["d"])
                if chord is None:
                    self.place([[step, pitch, length, accidental is not None]], length)
                else:
                    chord.append([step, pitch, length, accidental is not None])
            elif kind == "space":
                continue
            elif kind == "bar":
                if chord:
                    raise self.error("a barline inside a chord; close the chord with ]")
                self.barline(m["bar"], m["passes2"])
            elif kind == "rest":
                if chord is None:
                    self.place([], self.length(voice.unit, m["rn"], m["rslash"], m["rd"]))
            elif kind == "tie":
                if chord is None:
                    if voice.last:
                        for index in voice.last[2]:
                            self.tie(index)
                elif chord:
                    chord_ties.append(len(chord) - 1)
            elif kind == "text":
                text = m["text"].strip('"').strip()
                if CHORD_SYMBOL.fullmatch(text):
                    voice.chords.append((voice.at, text))
            elif kind == "tuplet":
                self.open_tuplet(int(m["p"]), m["q"], m["r"])
            elif kind == "broken":
                self.break_rhythm(m["broken"])
            elif kind == "open":
                chord, chord_ties = [], []
            elif kind == "close":
                if chord:
                    first = chord[0][2]
                    factor = self.length(FINE, m["cn"], m["cslash"], m["cd"])
                    placed = [[s, p, n * factor // FINE, e] for s, p, n, e in chord]
                    self.place(placed, first * factor // FINE)
                    assert voice.last
                    for i in chord_ties:
                        self.tie(voice.last[2][i])
                chord = None
            elif kind == "volta":
                self.open_ending(m["passes"])
            elif kind == "field":
                self.read_field(m["name"], m["value"].strip())
                voice = self.voice
            elif kind == "stray_metre":
                self.read_field("M", m["metre"])
            elif kind == "bars_rest":
                self.rest_bars(int(m["count"] or 1))
            elif kind == "overlay":
                voice.reach = max(voice.reach, voice.at)
                voice.at, voice.last = voice.bars[-1], None
                voice.overlay += 1
            elif kind == "other":
                strange += 1
        if chord:
            raise self.error("a chord that is not closed; close it with ]")
        if strange > 8 and strange > len(line) // 10:
            raise self.error(f"no music: {line.strip()[:40]!r}; a blank line must stand before free text")

    def length(self, unit: int, numerator: str, slashes: str, denominator: str) -> int:
        """The duration that a length like 3/2, 2, / or // stands for, in FINE parts."""
        length = unit * int(numerator or 1)
        if slashes:
            divisor = int(denominator) if denominator else 2 ** min(len(slashes), 12)
            if divisor == 0:
                raise self.error("a note length with denominator 0; write it as 3/2")
            length //= divisor
        return length

    def place(self, chord: list[list[int]], length: int) -> None:
        """Put a note, a chord or a rest where the voice is: chord of (step, pitch, duration, accidental written)."""
        voice = self.voice
        p, q, left = voice.tuplet
        numerator, denominator = voice.broken
        if left:
            numerator, denominator = numerator * q, denominator * p
            voice.tuplet = (p, q, left - 1) if left > 1 else (1, 1, 0)
        voice.broken = (1, 1)
        start = voice.at
        scaled = (numerator, denominator) != (1, 1)
        indices = []
        ties, voice.ties = voice.ties, []
        for step, pitch, duration, written in chord:
            if scaled:
                duration = duration * numerator // denominator
            index = self.tied(ties, step, pitch, bool(written))
            if index is None:
                if not 0 <= pitch <= 127:
                    raise self.error(f"a pitch of {pitch} is out of the MIDI range 0..127; correct its octave")
                index = len(voice.notes)
                voice.notes.append([start, start + duration, pitch, step])
                self.note_count += 1
            else:
                voice.notes[index][1] = start + duration
            indices.append(index)
        voice.ties += [t for t in ties if t[1] != voice.overlay]
        if scaled:
            length = length * numerator // denominator
        voice.at = start + length
        voice.last = (start, length, indices)
        if voice.at > MAX_TICKS * FINE:
            raise self.error("the tune is too long; a note length must be wrong")
        if self.note_count > MAX_NOTES:
            raise self.error(f"more than {MAX_NOTES:,} notes in one tune; split it")

    def tied(self, ties: list[tuple[int, int]], step: int, pitch: int, written: bool) -> int | None:
        """The index of the note that this one continues, taken out of `ties`; None if it is a note of its own."""
        voice = self.voice
        for entry in ties:
            index, overlay = entry
            _, end, sounding, tied_step = voice.notes[index]
            # over a barline the accidental holds for the tied note, though it is not written again
            same = pitch == sounding or (step == tied_step and not written)
            if same and end == voice.at and overlay == voice.overlay:
                ties.remove(entry)
                return index
        return None

    def tie(self, index: int) -> None:
        """The note goes on in the next of its pitch, if that follows at once; otherwise the sign is a slur."""
        self.voice.ties.append((index, self.voice.overlay))

    def open_tuplet(self, p: int, q: str | None, r: str | None) -> None:
        """(p:q:r puts p notes into the time of q for the next r notes; what is left out follows from p and metre."""
        numerator, _ = self.voice.metre
        compound = 3 if numerator % 3 == 0 and numerator > 3 else 2
        time = int(q or 0) or {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}.get(p, compound)
        if p > 0:
            self.voice.tuplet = (p, time, int(r or 0) or p)

    def break_rhythm(self, run: str) -> None:
        """a>b dots the first and halves the second; >> and >>> double and triple dot; < the other way round."""
        voice = self.voice
        if voice.last is None or voice.at != voice.last[0] + voice.last[1]:
            return
        start, length, indices = voice.last
        parts = 2 ** min(len(run), 4)
        long, short = (2 * parts - 1, parts), (1, parts)
        here, voice.broken = (long, short) if run[0] == ">" else (short, long)
        changed = length * here[0] // here[1]
        for index in indices:
            voice.notes[index][1] += changed - length
        voice.at = start + changed
        voice.last = (start, changed, indices)

    def rest_bars(self, count: int) -> None:
        voice = self.voice
        if count > MAX_REST_BARS:
            raise self.error(f"Z{count}: a rest of more than {MAX_REST_BARS:,} bars; write several")
        voice.ties.clear()
        for number in range(count):
            if number and voice.at > voice.bars[-1]:
                voice.bars.append(voice.at)
            voice.at += bar_ticks(*voice.metre) * FINE
        voice.last = None

    # --- bars ---------------------------------------------------------------------------------------------------------

    def barline(self, run: str, passes: str | None) -> None:
        """A barline of any kind, with the passes of the ending that begins there."""
        voice = self.voice
        self.begin_bar()
        line = run.strip(".0123456789,-").replace("[|]", "|")
        ends, starts = line.startswith(":"), line.endswith(":")
        final = "|]" in line
        double = not (ends or starts or final) and ("||" in line or "[|" in line)
        if voice.in_ending and (ends or starts or final or double):
            self.sign("ending_stop")
            voice.in_ending = False
        for kind, there in (("repeat_end", ends), ("double", double), ("final", final), ("repeat_start", starts)):
            if there:
                self.sign(kind)
        if passes:
            self.open_ending(passes)

    def begin_bar(self) -> None:
        voice = self.voice
        if voice.overlay:
            voice.at, voice.overlay, voice.reach = max(voice.at, voice.reach), 0, 0
        voice.accidentals.clear()
        if voice.at > voice.bars[-1]:
            voice.bars.append(voice.at)

    def open_ending(self, passes: str) -> None:
        """An ending for passes like "1", "1,3" or "1-3" begins here."""
        self.begin_bar()
        numbers: list[int] = []
        for piece in passes.split(","):
            first, _, last = piece.partition("-")
            numbers += range(int(first), int(last or first) + 1) if int(last or first) <= 16 else []
        if not numbers:
            raise self.error(f"an ending for pass {passes}; passes 1 to 16 are read")
        if self.voice.in_ending:
            self.sign("ending_stop")
        self.sign("ending", tuple(numbers))
        self.voice.in_ending = True

    def sign(self, kind: str, passes: tuple[int, ...] = ()) -> None:
        entry = (self.voice.at, kind, passes)
        if entry not in self.voice.signs[-6:]:
            self.voice.signs.append(entry)

    # --- the whole ----------------------------------------------------------------------------------------------------

    def to_score(self, first_line: int) -> Score:
        voices = [v for v in self.voices.values() if v.at] or ([self.template] if self.template.at else [])
        for voice in voices:
            self.voice = voice
            voice.at = max(voice.at, voice.reach)
            if voice.in_ending:
                self.sign("ending_stop")
        lead = next((v for v in voices if v.notes), None)
        if lead is None:
            self.line = first_line
            raise self.error(f"tune {self.title!r} has no notes; write some after its K: line")
        longest = max(voices, key=lambda v: v.at)
        bars = [ticks(b) for b in lead.bars]
        if longest.at > lead.at:
            bars += [ticks(b) for b in longest.bars if b >= lead.at]
        length = max(ticks(longest.at), *(ticks(note[1]) for v in voices for note in v.notes))
        tempos: dict[int, Tempo] = {0: Tempo(0, 120.0)}
        for at, bpm in sorted(self.tempos, key=lambda tempo: tempo[0]):
            tempos[ticks(at)] = Tempo(ticks(at), bpm)
        chords = sorted({(ticks(at), text) for v in voices for at, text in v.chords})
        return Score(
            parts=tuple(
                Part(
                    v.name,
                    v.program,
                    v.is_drum,
                    notes_array(
                        (ticks(start), max(ticks(end) - ticks(start), 1), pitch, VELOCITY)
                        for start, end, pitch, _ in v.notes
                    ),
                )
                for v in voices
            ),
            title=self.title,
            tempos=changes(list(tempos.values()), length),
            metres=changes([Metre(ticks(at), *metre) for at, metre in lead.metres], length),
            keys=changes([Key(ticks(at), fifths, mode) for at, fifths, mode in lead.keys], length),
            bars=sorted({b for b in bars if b < length or b == 0}),  # type: ignore[arg-type]
            length=length,
            signs=tuple(Sign(ticks(at), kind, passes) for at, kind, passes in lead.signs),
            chord_symbols=tuple(ChordSymbol(at, text) for at, text in chords if at < length),
        )


def ticks(fine: int) -> int:
    """FINE parts rounded to ticks."""
    return (fine + FINE // 2) // FINE


def changes(events: list, length: int) -> tuple:
    """The events that change something before the piece stops; of several at one tick, the last."""
    kept: list = []
    for event in events:
        if event.onset >= max(length, 1):
            continue
        while kept and kept[-1].onset == event.onset:
            kept.pop()
        if not kept or replace(kept[-1], onset=event.onset) != event:
            kept.append(event)
    return tuple(kept)
