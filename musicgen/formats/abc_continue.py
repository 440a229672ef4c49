"""Continuing an ABC file without touching it: every byte stays, and lines of new music are put in behind the tune.

In come the original file, the fragment that was read of it and the whole that it became; out goes the original's text,
and after the tune's last line a comment, and a few lines for each voice, under its own V: where there are several. They
are written in the unit length, key and accidentals that hold at the end of the original; the first new note is marked
"^continued". A last bar that no barline closes is gone on with; after a barline what is left of it is a short bar.

A note that the original ties on into nothing (A2- at its end) is held by a new one of its pitch at the seam, as ABC
has it. What can't be gone on with (an open tuplet, a jump that leads elsewhere) is found by trying it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from musicgen.errors import FormatError
from musicgen.formats.abc_fields import WHOLE, signature_of
from musicgen.formats.abc_read import read_text, read_tune, ticks
from musicgen.formats.abc_text import CHARSET, decode_text, split_tunes
from musicgen.formats.abc_tune import Tune
from musicgen.formats.abc_voice import Voice
from musicgen.formats.abc_write import ACCIDENTAL_SIGNS, body_lines, key_text, section_names
from musicgen.formats.tail import ELSEWHERE, tail_of
from musicgen.score import Key, Part, Score, notes_array, unfold

COMMENT = "% continued from here"
ANNOTATION = '"^continued"'

TOKEN = re.compile(
    r"""
    (?P<sound>(?P<chord>\[(?:[_^=]*[A-Ga-g][,']*)+\])|(?P<note>[_^=]*[A-Ga-gz][,']*))(?P<n>\d*)(?P<slash>/?)(?P<d>\d*)
  | (?P<other>"[^"]*" | ![^!]*! | \[[A-Za-z]:[^\]]*\] | \{[^}]*\} | \(\d+(?::\d+:\d+)? | \[\d[\d,]* | .)
    """,
    re.VERBOSE | re.DOTALL,
)
"""What our writer writes: notes, chords and rests with their lengths, and what stands between them."""


def check_continuation(original: Path, fragment: Score) -> None:
    """Raises FormatError unless music written after the tune is read, and played, as what follows `fragment`.

    fragment: what is continued, as written or with its repeats played out. A bar is added by way of trial.
    """
    data = original.read_bytes()
    trial = _with_a_bar(fragment)
    found = read_text(decode_text(continued(data, str(original), fragment, trial)), str(original))[0]
    played = found if fragment.signs else unfold(found)
    expected, got = (
        [np.sort(part.notes[["onset", "duration", "pitch"]]).tolist() for part in score.parts]
        for score in (trial, played)
    )
    if expected != got:
        raise FormatError(
            f"{original}: what is written after its end would not be played next (it breaks off in a tuplet, an ending "
            f"or an overlay, or its repeats and jumps lead elsewhere); {ELSEWHERE}"
        )


def write_continuation(original: Path, fragment: Score, whole: Score, path: Path) -> None:
    """Write `original` with what `whole` has from `fragment.length` on. Raises FormatError."""
    path.write_bytes(continued(original.read_bytes(), str(original), fragment, whole))


def continued(data: bytes, source: str, fragment: Score, whole: Score) -> bytes:
    """The bytes of a file of one tune with the lines put in that continue it. Raises FormatError."""
    text = decode_text(data)
    header, tunes = split_tunes(text)
    first_line, lines = tunes[0]
    tune = Tune(source, first_line)
    read_tune(tune, header, lines)
    voices = {name: voice for name, voice in tune.voices.items() if voice.at} or {"": tune.template}
    if len(voices) != len(whole.parts):
        raise FormatError(f"{source}: has {len(voices)} voices, and {len(whole.parts)} parts go on; {ELSEWHERE}")
    end = max(voice.at for voice in voices.values())
    new = [COMMENT]
    for number, (name, voice) in enumerate(voices.items()):
        if len(voices) > 1 or voice is not tune.voice:
            if not name:
                raise FormatError(f"{source}: music before its first V: field is in a voice without a name; name it")
            new.append(f'V:"{name}"' if " " in name else f"V:{name}")
        if voice.tuplet[2] or voice.broken != (1, 1):
            raise FormatError(
                f"{source}: breaks off inside a tuplet or a broken rhythm, so that nobody can tell where the next note "
                "begins; complete it"
            )
        start = fragment.length - (ticks(end) - ticks(voice.at))
        new += _voice_lines(voice, fragment, whole, number, start)
    return _put_in(data, first_line - 1 + len(lines), new)


def _voice_lines(voice: Voice, fragment: Score, whole: Score, number: int, start: int) -> list[str]:
    """The lines that continue one voice from tick `start`, where its text stops."""
    _, fifths, mode = voice.keys[-1] if voice.keys else (0, 0, "major")
    tail = tail_of(fragment, whole, number, start, fifths=fifths, semitones=voice.shift)
    body = "\n".join(body_lines(tail, tail.parts[0], section_names(tail) if number == 0 else None))
    heard = {name[0] for name in voice.accidentals}
    if start in whole.bars:
        heard = set()
        if voice.bars[-1] != voice.at and body[:1] not in "|:":
            body = "| " + body
    body = adapt_body(body, Fraction(WHOLE // 8, voice.unit), heard, fifths)
    if voice.signature != signature_of(fifths):  # a key with accidentals of its own: new music is in the plain one
        body = f"[K:{key_text(Key(0, fifths, mode))}]" + body
    said = ["%%propagate-accidentals octave"] if voice.scope == "not" else []
    return [*said, *body.split("\n")]


def adapt_body(body: str, factor: Fraction, heard: set[str], fifths: int) -> str:
    """Our writer's text with its lengths times `factor`, and its first note marked.

    heard: letters that had an accidental in the bar so far; up to the barline their notes say what they are.
    """
    said = dict(signature_of(fifths))
    open_bar, marked = bool(heard), False

    def spelled(note: re.Match[str]) -> str:
        sign, letter = note[1], note[2].upper()
        if sign:
            said[letter] = next(n for n, text in ACCIDENTAL_SIGNS.items() if text == sign)
        elif letter in heard:
            sign = ACCIDENTAL_SIGNS[said.get(letter, 0)]
        return sign + note[2]

    found = []
    for token in TOKEN.finditer(body):
        other = token["other"]
        if other is not None:
            open_bar = open_bar and other != "|"
            if other.startswith("{") and open_bar:
                other = re.sub(r"([_^=]*)([A-Ga-g])", spelled, other)
            found.append(other)
            continue
        sound = token["sound"]
        if open_bar:
            sound = re.sub(r"([_^=]*)([A-Ga-g])", spelled, sound)
        length = Fraction(int(token["n"] or 1), int(token["d"] or 2) if token["slash"] else 1) * factor
        over, under = length.numerator, length.denominator
        mark = "" if marked or sound == "z" else ANNOTATION
        marked = marked or bool(mark)
        found.append(mark + sound + (str(over) if over > 1 else "") + (f"/{under}" if under > 1 else ""))
    return "".join(found)


def _put_in(data: bytes, line: int, new: list[str]) -> bytes:
    """The file with lines put in before line number `line` (from 0), in its own encoding and with its own line ends."""
    wide = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}.get(data[:2])
    text = data.decode(wide or "latin-1")  # latin-1: a letter a byte, whatever they stand for
    ends = [end.end() for end in re.finditer(r"\r\n|\r|\n", text)]
    at = ends[line - 1] if line <= len(ends) else len(text)
    newline = "\r\n" if "\r\n" in text else "\n"
    more = newline.join(new) + newline
    if at and text[at - 1] not in "\r\n":
        more = newline + more
    if wide:
        return (text[:at] + more + text[at:]).encode(wide)
    try:
        data.decode("utf-8")
        added = more.encode("utf-8")
    except UnicodeDecodeError:
        named = CHARSET.search(data[:4096])
        added = more.encode(named[1].decode("ascii") if named else "latin-1", errors="replace")
    return data[:at] + added + data[at:]


def _with_a_bar(fragment: Score) -> Score:
    """The fragment, its last bar filled with rest but for a note at the seam in each part, and a bar of rest more."""
    last = int(fragment.bars[-1])
    full = fragment.metre_at(last).ticks
    filled = max(last + full, fragment.length)
    parts = []
    for part in fragment.parts:
        tied = set(part.notes["pitch"][-16:].tolist())
        pitch = next(p for p in range(60, 128) if p not in tied)
        note = notes_array([(fragment.length, max(filled - fragment.length, 0) or full, pitch, 80)])
        parts.append(_with(part, note))
    starts = [filled] if filled < filled + full else []
    return replace(
        fragment,
        parts=tuple(parts),
        bars=np.append(fragment.bars, starts).astype(np.int32),
        length=filled + full,
    )


def _with(part: Part, notes: np.ndarray) -> Part:
    return part.with_notes(np.concatenate([part.notes, notes]))
