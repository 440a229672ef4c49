"""One ABC tune while it is read: what its header and its fields say, and which voice is being written.

In come lines of the header, and fields and decorations as `abc_music` meets them in the body; out go the tune's voices,
each with its metre, key, unit length and instrument, and its title, tempos, sections, jumps and order. Here is what
holds for a tune; what happens to one voice in time stands in `abc_voice`, what the fields say in `abc_fields`.
"""

from __future__ import annotations

import re

from musicgen.errors import FormatError
from musicgen.formats.abc_fields import (
    JUMPS,
    LETTER_DECORATIONS,
    WHOLE,
    parse_key,
    parse_metre,
    parse_order,
    parse_symbol,
    parse_tempo,
    parse_unit,
)
from musicgen.formats.abc_text import COMMENT, HEADER_FIELD, plain_text
from musicgen.formats.abc_voice import Mark, Voice

MAX_VOICES = 64
"""Voices of one tune beyond which it is refused."""


class Tune:
    """One tune while it is read: the line it is at, its voices, and what its fields say."""

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
