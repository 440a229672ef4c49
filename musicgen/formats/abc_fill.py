"""Filling bars of an ABC tune without touching the rest of its text.

In come the original file, the score that was read of it as written and the whole that it became; out goes the
original's text, in which the notes and rests of the hole's bars are new. Barlines, endings, fields, jumps and line
breaks stay where they are, and so does every byte outside of these bars; before the line in which they begin stands a
comment. The new bars are written in the unit length, key and accidentals that hold there. A slur that crosses a seam
ends on the hole's first note, or begins on its last. Words under the notes (w:) stay as they are.

What can't be written so (a field between the notes of a filled bar, a note tied out of it whose accidental would
be missing) is refused; the most of it is found by reading what was made.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from musicgen.errors import FormatError
from musicgen.formats.abc_continue import ANNOTATION, adapt_body
from musicgen.formats.abc_continue import TOKEN as WRITTEN
from musicgen.formats.abc_fields import JUMPS, LETTER_SEMITONES, WHOLE, signature_of
from musicgen.formats.abc_music import CHORD_SYMBOL, TOKEN, read_body_line, read_music
from musicgen.formats.abc_read import joined, read_text, ticks
from musicgen.formats.abc_text import BODY_FIELD, COMMENT, decode_text, split_tunes
from musicgen.formats.abc_tune import Tune
from musicgen.formats.abc_voice import Voice
from musicgen.formats.abc_write import body_lines, layers
from musicgen.score import ChordSymbol, Key, Part, Score, TempoMap, notes_array

ELSEWHERE = "write to .mid or .musicxml"
"""What to do where bars of a tune can't be written in its own file."""
_BEHIND_NOTES = ("space", "text", "volta", "field", "mark", "decoration", "skip", "grace", "words")
"""Tokens that may follow a bar's last note and stay there."""


@dataclass
class Stretch:
    """Text without a barline: its line and columns, the bars that it holds (first, last) of its voice, and what holds
    in it."""

    line: int
    begin: int
    end: int
    voice: str
    bars: tuple[int, int]
    unit: int
    odd: bool
    """Whether the key has accidentals of its own."""
    scope: str
    fifths: int
    signature: dict[str, int]


def check_filling(original: Path, score: Score, first: int, until: int) -> None:
    """Raises FormatError unless bars first..until-1 (from 0) can be filled in the file itself: it is tried."""
    start, stop = _bounds(score, first, until)
    parts = []
    for part in score.parts:
        held = (part.notes["onset"] < start) | (part.notes["onset"] >= stop)
        free = max(start, part.with_notes(part.notes[part.notes["onset"] < start]).end)  # a note may be held over
        bar = next_bar(score, start)
        note = notes_array([(free, bar - free, 60, 80)] if free < bar else [])
        graces = part.graces[(part.graces["onset"] < start) | (part.graces["onset"] >= stop)]
        parts.append(replace(part, notes=np.concatenate([part.notes[held], note]), graces=graces))
    filled(original.read_bytes(), str(original), score, replace(score, parts=tuple(parts)), first, until)


def _bounds(score: Score, first: int, until: int) -> tuple[int, int]:
    return int(score.bars[first]), int(score.bars[until]) if until < len(score.bars) else score.length


def next_bar(score: Score, start: int) -> int:
    """The next barline, or the end."""
    return next((int(bar) for bar in score.bars if bar > start), score.length)


def write_filled(original: Path, score: Score, whole: Score, first: int, until: int, path: Path) -> None:
    """Write `original` with the notes that begin in bars first..until-1 (from 0) as `whole` has them.

    Raises FormatError.
    """
    path.write_bytes(filled(original.read_bytes(), str(original), score, whole, first, until))


def filled(data: bytes, source: str, score: Score, whole: Score, first: int, until: int) -> bytes:
    """The bytes of a file of one tune, or the first of several, with bars first..until-1 written anew."""
    lines, encoding = lines_of(data)
    tune, stretches = stretches_of(data, source)
    voices = [(name, voice) for name, voice in tune.voices.items() if voice.at] or [("", tune.template)]
    if len(voices) != len(score.parts):
        raise FormatError(f"{source}: has {len(voices)} voices, and {len(score.parts)} parts are read; {ELSEWHERE}")
    start, stop = _bounds(score, first, until)
    edits: list[tuple[int, int, int, str]] = []  # line, columns, text
    for (name, voice), before, now in zip(voices, score.parts, whole.parts, strict=True):
        if _inside(before, start, stop) == _inside(now, start, stop):
            continue
        bars = [ticks(bar) for bar in voice.bars]
        if start not in bars or (stop not in bars and stop < ticks(voice.at)):
            raise FormatError(
                f"{source}: voice {name or 1} has no barline where bar {first + 1} begins or {until} ends; {ELSEWHERE}"
            )
        begin, end = bars.index(start), bars.index(stop) if stop in bars[1:] else len(bars)
        own = [stretch for stretch in stretches if stretch.voice == name]
        earlier = now.notes[(now.notes["onset"] < start) & (now.notes["onset"] + now.notes["duration"] > start)]
        held = {int(pitch) - voice.shift for pitch in earlier["pitch"]}
        filling = _Filling(source, lines, own, begin, end)
        edits += filling.edits(_bar_texts(_local(whole, now, voice, start, stop), held))
    if not edits:
        return data
    said = f"bars {first + 1} to {until} were" if until > first + 1 else f"bar {until} was"
    comment = f"% musicgen: {said} written anew"
    newline = "\r\n" if any(line.endswith("\r\n") for line in lines) else "\n"
    at = min(edit[0] for edit in edits)
    for line, begin, end, text in sorted(edits, reverse=True):
        lines[line] = lines[line][:begin] + text + lines[line][end:]
    lines[at] = comment + newline + lines[at]
    made = "".join(lines).encode(encoding)
    check_read(made, source, _as_read(score, whole, start, stop), f"bars {first + 1} to {until}")
    return made


def _inside(part: Part, start: int, stop: int) -> list[list]:
    found = []
    for events in (part.notes[["onset", "duration", "pitch"]], part.graces):
        found.append(events[(events["onset"] >= start) & (events["onset"] < stop)].tolist())
    return found


def _local(whole: Score, part: Part, voice: Voice, start: int, stop: int) -> Score:
    """What a part plays in the hole, as a score of its own from 0, at the voice's own pitch and in its own keys."""
    notes = part.notes[(part.notes["onset"] < stop) & (part.notes["onset"] + part.notes["duration"] > start)].copy()
    ends = np.minimum(notes["onset"] + notes["duration"], stop) - start
    notes["onset"] = np.maximum(notes["onset"], start) - start
    notes["duration"] = ends - notes["onset"]
    graces = part.graces[(part.graces["onset"] >= start) & (part.graces["onset"] < stop)].copy()
    graces["onset"] -= start
    notes["pitch"] -= voice.shift
    graces["pitch"] -= voice.shift
    keys = [Key(max(ticks(at) - start, 0), fifths, mode) for at, fifths, mode in voice.keys if ticks(at) < stop]
    keys = [key for i, key in enumerate(keys) if i + 1 == len(keys) or keys[i + 1].onset > key.onset]
    bars = [ticks(bar) - start for bar in voice.bars if start <= ticks(bar) < stop]
    symbols = [(ticks(at) - start, text) for at, text in voice.chords if start <= ticks(at) < stop]
    return Score(
        parts=(replace(part, notes=notes, graces=graces),),
        tempos=TempoMap.of([replace(whole.tempo_at(start), onset=0)]),
        metres=(
            replace(whole.metre_at(start), onset=0),
            *(replace(m, onset=m.onset - start) for m in whole.metres if start < m.onset < stop),
        ),
        keys=tuple(keys) or (Key(0, 0),),
        bars=np.array(bars, dtype=np.int32),
        length=stop - start,
        chord_symbols=tuple(ChordSymbol(at, text) for at, text in symbols),
    )


# --- where bars stand in the text -------------------------------------------------------------------------------------


def lines_of(data: bytes) -> tuple[list[str], str]:
    """(the file's lines with their ends, the encoding to bring them back into; a letter a byte where none is known)."""
    wide = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}.get(data[:2])
    encoding = wide or "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        encoding = "latin-1"
        text = data.decode(encoding)
    return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text), encoding


def stretches_of(data: bytes, source: str) -> tuple[Tune, list[Stretch]]:
    """The file's first tune, read to its end, and the stretches of music between its barlines. Raises FormatError."""
    header, tunes = split_tunes(decode_text(data))
    first_line, lines = tunes[0]
    tune = Tune(source, first_line)
    for line in header:
        tune.read_header_line(line)
    if any(line.startswith("+:") for line in lines):
        lines = joined(lines)
    found: list[Stretch] = []
    in_header = True
    for number, line in enumerate(lines, first_line):
        tune.line = number
        if in_header:
            in_header = not tune.read_header_line(line)
            if not in_header:
                tune.open_body()
        elif line.startswith("%") or tune.in_text or BODY_FIELD.match(line):
            read_body_line(tune, line)
        else:
            found += _in_line(tune, COMMENT.sub("", line), number - 1)
    for voice in (*tune.voices.values(), tune.template):
        voice.at = max(voice.at, voice.reach)
    return tune, found


def _in_line(tune: Tune, line: str, number: int) -> list[Stretch]:
    """The stretches of one line of music, which is read."""
    cuts = [0]
    for m in TOKEN.finditer(line):
        if m.lastgroup == "bar" or (m.lastgroup == "field" and m["name"] == "V"):
            cuts += [m.start(), m.end()]
    cuts.append(len(line))
    found = []
    for begin, end in pairwise(cuts):
        voice = tune.voice
        name = next((name for name, v in tune.voices.items() if v is voice), "")
        first = len(voice.bars) - 1
        at = voice.at
        read_music(tune, line[begin:end])
        plain = voice.keys[-1][1] if voice.keys else 0
        if tune.voice is voice and (voice.at != at or voice.overlay):
            found.append(
                Stretch(
                    number, begin, end, name, (first, max(len(voice.bars) - 1 - (voice.at == voice.bars[-1]), first)),
                    voice.unit, voice.signature != signature_of(plain), voice.scope, plain, dict(voice.signature),
                )
            )  # fmt: skip
    return found


class _Filling:
    """Bars begin..end-1 of one voice, and what is written in their place."""

    def __init__(
        self,
        source: str,
        lines: Sequence[str],
        stretches: Sequence[Stretch],
        begin: int,
        end: int,
    ) -> None:
        self.source, self.lines, self.begin, self.end = source, lines, begin, end
        self.there = [s for s in stretches if s.bars[0] < end and s.bars[1] >= begin]

    def edits(self, new: Sequence[str]) -> list[tuple[int, int, int, str]]:
        """(line, from column, to column, text) for each stretch of the hole; new: the bars as `_bar_texts` has them."""
        written: set[int] = set()
        texts = []
        opened = closed = 0
        for stretch in self.there:
            lead, jumps, trail, deeper, higher = self._kept(stretch)
            closed += max(higher - opened, 0)
            opened = max(opened - higher, 0) + deeper
            first, last = stretch.bars
            here = [b for b in range(first, last + 1) if b not in written]
            bars = []
            for bar in here:
                written.add(bar)
                inside = self.begin <= bar < self.end
                bars.append(_spelled(new[bar - self.begin], stretch) if inside else "Z")
            texts.append([lead + jumps, "|".join(bars), trail])
        if len(written & set(range(self.begin, self.end))) < self.end - self.begin:
            raise FormatError(f"{self.source}: some of its bars can't be found in its text; {ELSEWHERE}")
        _slur([text for text in texts if text[1]], closed, opened)
        return [(s.line, s.begin, s.end, "".join(text)) for s, text in zip(self.there, texts, strict=True)]

    def _kept(self, stretch: Stretch) -> tuple[str, str, str, int, int]:
        """(what stays before the notes, jumps among them, what stays behind them, slurs that open and are not closed,
        slurs that close and were not opened).

        Raises FormatError for a field between the notes.
        """
        text = self.lines[stretch.line][stretch.begin : stretch.end]
        tokens = list(TOKEN.finditer(text))
        music = [i for i, m in enumerate(tokens) if m.lastgroup not in _BEHIND_NOTES]
        first, last = (music[0], music[-1]) if music else (len(tokens), len(tokens))
        lead = jumps = trail = ""
        deep = high = 0
        for i, m in enumerate(tokens):
            token, kind = m[0], m.lastgroup
            if kind == "skip" and token in "()":
                deep += token == "("
                if token == ")":
                    deep, high = (deep - 1, high) if deep else (deep, high + 1)
                continue
            jump = kind in ("mark", "decoration") and token.strip("!+").lower() in JUMPS
            if first < i < last:
                if kind == "field" and m["name"] not in "rN":
                    raise FormatError(
                        f"{self.source}:{stretch.line + 1}: {token} stands between the notes of a bar that is to be "
                        f"filled; {ELSEWHERE}"
                    )
                jumps += token if jump else ""
            elif i < first:
                symbol = kind == "text" and CHORD_SYMBOL.fullmatch(token.strip('"').strip())
                keeps = kind in ("space", "volta", "field") or jump or (kind in ("text", "words") and not symbol)
                lead += token if keeps else ""
            elif i > last:
                trail += token
        return lead, jumps, trail, deep, high


def _bar_texts(local: Score, held: set[int]) -> list[str]:
    """The bars as our writer has them, in unit length 1/8, without barlines and without fields that are there already.

    held: pitches held over from before; they are tied to the first layer, so that theirs comes first.
    """
    body = " ".join(body_lines(local, local.parts[0], {}))
    bars = [""]
    for token in WRITTEN.finditer(body):
        if token["other"] == "|":
            bars.append("")
        elif not re.match(r"\[[KM]:", token[0]):
            bars[-1] += token[0]
    bars = [bar.strip() for bar in bars[: len(local.bars)]]
    overlays, parted = bars[0].split(" & "), layers(local.parts[0])
    own = next((i for i, layer in enumerate(parted) if layer and not layer[0][0] and held & set(layer[0][2])), 0)
    if own < len(overlays):
        bars[0] = " & ".join([overlays.pop(own), *overlays])
    return bars


def _spelled(bar: str, stretch: Stretch) -> str:
    """A bar in the unit length and with the accidentals that hold where it stands."""
    plain = signature_of(stretch.fifths)
    letters = set(LETTER_SEMITONES)
    heard = {letter for letter in letters if stretch.signature.get(letter, 0) != plain.get(letter, 0)}
    text = adapt_body(
        bar, Fraction(WHOLE // 8, stretch.unit), letters if stretch.scope == "not" else heard, stretch.fifths
    )
    return text.replace(ANNOTATION, "", 1)


def _slur(texts: Sequence[list[str]], closed: int, opened: int) -> None:
    """Ends of slurs that stood in the hole: those that close, behind its first note; that open, before its last."""
    for count, sign in ((closed, ")"), (opened, "(")):
        sounds = [
            (text, m) for text in texts for m in WRITTEN.finditer(text[1]) if m["sound"] and not m[0].startswith("z")
        ]
        if not count or not sounds:
            continue
        text, m = sounds[0] if sign == ")" else sounds[-1]
        at = m.end() if sign == ")" else m.start()
        text[1] = text[1][:at] + sign * count + text[1][at:]


# --- whether it is read as it was meant -------------------------------------------------------------------------------


def _as_read(score: Score, whole: Score, start: int, stop: int) -> Score:
    """The whole with what is left of notes that were tied out of the hole: they are struck behind it."""
    parts = []
    for before, now in zip(score.parts, whole.parts, strict=True):
        new = _inside(before, start, stop) != _inside(now, start, stop)
        notes = before.notes
        ends = notes["onset"] + notes["duration"]
        cut = notes[(notes["onset"] >= start) & (notes["onset"] < stop) & (ends > stop)].copy()
        cut["duration"] = cut["onset"] + cut["duration"] - stop
        cut["onset"] = stop
        parts.append(now.with_notes(np.concatenate([now.notes, cut])) if new else now)
    return replace(whole, parts=tuple(parts))


def check_read(made: bytes, source: str, expected: Score, what: str) -> None:
    """Raises FormatError unless the text is read as the score, in notes, graces, bars, signs and maps."""
    reason = f"{what} can't be written in its own text, where fields, ties or overlays stand in the way; {ELSEWHERE}"
    try:
        found = read_text(decode_text(made), source)[0]
    except FormatError as error:
        raise FormatError(f"{source}: {reason}") from error
    facts: Sequence[Callable[[Score], object]] = (
        lambda s: [Counter(part.notes[["onset", "duration", "pitch"]].tolist()) for part in s.parts],
        lambda s: [part.graces[["onset", "pitch"]].tolist() for part in s.parts],
        lambda s: (s.bars.tolist(), s.length, s.metres, s.keys, s.tempos, set(s.signs), s.chord_symbols),
    )
    for fact in facts:
        if fact(found) != fact(expected):
            raise FormatError(f"{source}: {reason}")
