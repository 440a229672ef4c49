"""Adding voices to an ABC tune without touching its text: they stand behind it, under V: fields of their own.

In come the original file, the score that was read of it as written and the same with parts behind its own; out goes the
original's text with a few lines for each new voice, in the tune's own key and unit length. Music that stands in no
voice gets a V: line before it, for it would else be in none once there are others. What can't be written so is found by
reading what was made.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from musicgen.formats.abc_continue import ANNOTATION, adapt_body
from musicgen.formats.abc_fields import WHOLE, signature_of
from musicgen.formats.abc_fill import check_read, lines_of, next_bar, stretches_of
from musicgen.formats.abc_text import decode_text, escaped, split_tunes
from musicgen.formats.abc_write import body_lines, key_text
from musicgen.score import Key, Part, Score, notes_array


def check_adding(original: Path, score: Score) -> None:
    """Raises FormatError unless a voice can be put behind the tune: one of rests is tried."""
    with_voices(original.read_bytes(), str(original), score, replace(score, parts=(*score.parts, _humming(score))))


def _humming(score: Score) -> Part:
    """A part that plays a note in the first bar."""
    return Part(name="Trial", program=1, notes=notes_array([(0, next_bar(score, 0), 60, 80)]))


def write_with_parts(original: Path, score: Score, whole: Score, path: Path) -> None:
    """Write `original` with a voice more for each part that `whole` has beyond those of `score`. Raises FormatError."""
    path.write_bytes(with_voices(original.read_bytes(), str(original), score, whole))


def with_voices(data: bytes, source: str, score: Score, whole: Score) -> bytes:
    lines, encoding = lines_of(data)
    tune, _ = stretches_of(data, source)
    first_line, tune_lines = split_tunes(decode_text(data))[1][0]
    newline = "\r\n" if any(line.endswith("\r\n") for line in lines) else "\n"
    fifths = tune.key[0]
    new = ["% musicgen: added"]
    named = [name for name in tune.voices if name]
    number = len(score.parts)
    for part in whole.parts[len(score.parts) :]:
        number = next(n for n in range(number + 1, number + 100) if str(n) not in named)
        name = escaped(part.name.replace('"', "'"))
        new.append(f"V:{number}" + (f' name="{name}"' if name else ""))
        new += ["%%MIDI channel 10"] if part.is_drum else [f"%%MIDI program {part.program}"]
        if tune.template.signature != signature_of(fifths):
            new.append(f"K:{key_text(Key(0, fifths, tune.key[1]))}")
        notes, graces = part.notes.copy(), part.graces.copy()
        notes["pitch"] -= tune.template.shift
        graces["pitch"] -= tune.template.shift
        moved = replace(part, notes=notes, graces=graces)
        body = "\n".join(body_lines(replace(whole, chord_symbols=()), moved, None))
        body = adapt_body(body, Fraction(WHOLE // 8, tune.template.unit), set(), fifths)
        new += body.replace(ANNOTATION, "", 1).split("\n")
    behind = first_line - 1 + len(tune_lines)
    added = newline.join(new) + newline
    if behind and not lines[behind - 1].endswith(("\r", "\n")):
        added = newline + added
    put: list[tuple[int, str]] = [(behind, added)]
    if not tune.voices or "" in tune.voices:
        music = next((i for i in range(first_line - 1, behind) if lines[i].startswith("K:")), behind - 1) + 1
        put.append((music, f"V:1{newline}"))
    for at, more in sorted(put, reverse=True):
        lines.insert(at, more)
    made = "".join(lines).encode(encoding, errors="replace")
    check_read(made, source, whole, "the added voices")
    return made
