"""What the fields of an ABC tune say: K: keys and modes, M: metres, L: unit lengths, Q: tempos, P: the order of parts,
U: letters for decorations; and which decorations are jumps.

Text comes in, plain values go out. `abc_tune` asks when it meets a field; one that makes no sense raises FieldError, to
which the reader adds the line.
"""

from __future__ import annotations

import re

from musicgen.score import DENOMINATORS, TICKS_PER_QUARTER


class FieldError(ValueError):
    """A field that can't be read: what it says and how to write it."""


FINE = 2**8 * 3**2 * 5 * 7 * 11
"""Parts of a tick the reader counts in: every tuplet in use is exact, and rounding to ticks comes last."""

WHOLE = 4 * TICKS_PER_QUARTER * FINE

LETTER_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
LETTER_FIFTHS = {"F": -1, "C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5}
SHARP_ORDER = "FCGDAEB"
MODE_OFFSETS = {"major": 0, "mixolydian": -1, "dorian": -2, "minor": -3, "phrygian": -4, "locrian": -5, "lydian": 1}
"""Fifths that a mode's signature lies above the major key of the same tonic."""

MODE_WORDS = {
    "": "major",
    "maj": "major",
    "ion": "major",
    "m": "minor",
    "min": "minor",
    "aeo": "minor",
    "mix": "mixolydian",
    "dor": "dorian",
    "phr": "phrygian",
    "lyd": "lydian",
    "loc": "locrian",
}
ACCIDENTALS = {"^^": 2, "^": 1, "=": 0, "_": -1, "__": -2}

GERMAN_TONICS = {"H": "B", "Es": "Eb", "As": "Ab", "Fis": "F#", "Cis": "C#", "Des": "Db", "Ges": "Gb"}
"""German names found in the Essen collection's keys. B stays the standard's B natural: nothing tells them apart."""

MAX_SECTIONS = 1000
"""Sections of one order of parts beyond which the tune is refused."""

JUMPS = {
    "segno": ("segno", ""),
    "coda": ("coda", ""),
    "dacoda": ("to_coda", ""),
    "fine": ("fine", ""),
    "d.c.": ("da_capo", ""),
    "dacapo": ("da_capo", ""),
    "d.c.alfine": ("da_capo", "al fine"),
    "d.c.alcoda": ("da_capo", "al coda"),
    "d.s.": ("dal_segno", ""),
    "d.s.alfine": ("dal_segno", "al fine"),
    "d.s.alcoda": ("dal_segno", "al coda"),
}
"""Decoration, in small letters -> (kind, label) of its Sign."""

LETTER_DECORATIONS = {"S": "segno", "O": "coda"}
"""Letters that stand for a jump's decoration unless U: says otherwise (ABC 2.1, 4.14)."""

ORDER = re.compile(r"(?:\(|[A-Za-z]\d*|\)\d*|[\s.])*")

CLEF = re.compile(r"(?:treble|bass|alto|tenor|baritone|soprano|mezzo|perc|clef\b|octave\b|transpose\b|staff)", re.I)
METRE = re.compile(r"\(?\s*(\d+(?:\s*\+\s*\d+)*)\s*\)?\s*/\s*(\d+)")


def signature_of(fifths: int) -> dict[str, int]:
    """What a key signature of that many sharps (negative: flats) does to each letter it touches."""
    if fifths >= 0:
        return dict.fromkeys(SHARP_ORDER[:fifths], 1)
    return dict.fromkeys(SHARP_ORDER[fifths:], -1)


def parse_metre(value: str) -> tuple[int, int] | None:
    """(numerator, denominator), or None for a free metre."""
    if value.startswith("C|"):
        return 2, 2
    if value.startswith("C"):
        return 4, 4
    match = METRE.search(value)
    if not match:
        return None
    numerator, denominator = sum(int(n) for n in match[1].split("+")), int(match[2])
    if not 0 < numerator <= 128 or denominator not in DENOMINATORS:
        raise FieldError(f"M:{value} is no metre; write it as M:4/4")
    return numerator, denominator


def parse_unit(value: str) -> int:
    match = re.match(r"(\d+)\s*(?:/\s*(\d+))?", value)
    if not match or not 0 < int(match[1]) <= 64 or not 0 < int(match[2] or 1) <= 512:
        raise FieldError(f"L:{value} is no note length; write it as L:1/8")
    return WHOLE * int(match[1]) // int(match[2] or 1)


def parse_tempo(value: str, unit: int) -> float | None:
    """Quarter notes a minute of Q:1/4=120, Q:1/4 3/8=60, Q:C3=60 or Q:120 (unit lengths of `unit` FINE parts a minute).

    None where words alone say how fast.
    """
    text = re.sub(r'"[^"]*"?', " ", value)
    lengths, equals, number = text.rpartition("=")
    match = re.search(r"\d{1,9}(?:\.\d+)?", number)
    if not match:
        return None
    if equals and "/" in lengths:
        beat = sum(WHOLE * int(n) // int(d) for n, d in re.findall(r"(\d{1,3})\s*/\s*(0*[1-9]\d{0,2})", lengths))
    else:
        beat = unit * int((re.findall(r"\d{1,2}", lengths) or ["1"])[0])
    bpm = float(match[0]) * beat / (WHOLE // 4)
    if not 0 < bpm < 10_000:
        raise FieldError(f"Q:{value} is no tempo; write it as Q:1/4=120")
    return bpm


def parse_key(value: str) -> tuple[tuple[int, str, dict[str, int]] | None, list[str]]:
    """((fifths, mode, signature by letter), the words after it); None for the key where K: changes the clef alone.

    Accidentals written out in the field are in the signature, not in the fifths: a Score's keys know none.
    """
    words = value.split()
    first = words[0] if words else "none"
    if first in ("HP", "Hp"):
        fifths, mode, words = (0 if first == "HP" else 2), "major", words[1:]
    elif first.lower() == "none" or first[0] in "^_=":
        fifths, mode, words = 0, "major", words[first.lower() == "none" :]
    elif CLEF.match(first):
        return None, words
    else:
        fifths, mode, words = parse_tonic(value, words)
    signature = signature_of(fifths)
    if words and words[0] == "exp":
        signature, fifths, mode = {}, 0, "major"
    for accidental, letter in re.findall(r"(?<![\w=^_])(\^\^?|__?|=)([A-Ga-g])(?!\w)", " ".join(words)):
        signature[letter.upper()] = ACCIDENTALS[accidental]
    return (fifths, mode, signature), words


def parse_tonic(value: str, words: list[str]) -> tuple[int, str, list[str]]:
    """(fifths, mode, the words left) of a key like "F# min", "Ador", "Dmix =c", "G"."""
    german = re.fullmatch(r"([FC]is|[ED]es|Ges|[EA]s|H)(m?)", words[0])
    if german and german[1] in GERMAN_TONICS:
        words = [GERMAN_TONICS[german[1]] + german[2], *words[1:]]
    match = re.fullmatch(r"(?:([A-G])([#b]?)([A-Za-z]*)|([a-g])([#b]?)(m?))((?:\W.*)?)", words[0])
    if not match:
        raise FieldError(f"K:{value} is no key; write it as K:G, K:Am or K:Ddor")
    tonic, accidental, word = match.groups()[:3] if match[1] else match.groups()[3:6]
    rest = match[7]
    words = ([rest] if rest else []) + words[1:]
    if not word and words and words[0][:3].lower() in MODE_WORDS and re.fullmatch(r"[A-Za-z]+", words[0]):
        word, words = words[0], words[1:]
    if word == "n":  # K:Bn, twice in O'Neill's, is a tune in B minor: a slip of the finger
        word = "m"
    mode = MODE_WORDS.get(word.lower()[:3])  # capitals say nothing: K:EM is E minor
    if word.lower().startswith("exp"):
        mode, words = "major", ["exp", *words]
    if mode is None:
        raise FieldError(f"K:{value}: no mode {word!r}; write it as K:G, K:Am or K:Ddor")
    fifths = LETTER_FIFTHS[tonic.upper()] + {"": 0, "#": 7, "b": -7}[accidental] + MODE_OFFSETS[mode]
    if not -7 <= fifths <= 7:
        raise FieldError(f"K:{value} has more than seven sharps or flats; write the enharmonic key")
    return fifths, mode, words


def parse_order(value: str) -> tuple[str, ...]:
    """The sections of P:A2.B(AB)3 in the order they are played; none where the field holds words.

    Raises FieldError beyond MAX_SECTIONS, before they are written out.
    """
    if not ORDER.fullmatch(value):
        return ()
    groups: list[list[str]] = [[]]
    for opened, letter, closed, number in re.findall(r"(\()|(?:([A-Za-z])|(\)))(\d*)", value):
        if opened:
            groups.append([])
            continue
        if closed and len(groups) == 1:
            return ()
        found = [letter] if letter else groups.pop()
        times = int(number[:6] or 1)
        if len(found) * times + sum(len(group) for group in groups) > MAX_SECTIONS:
            raise FieldError(f"P:{value[:40]} plays more than {MAX_SECTIONS:,} sections; write a shorter order")
        groups[-1] += found * times
    return tuple(groups[0]) if len(groups) == 1 else ()


def parse_symbol(value: str) -> tuple[str, str] | None:
    """(letter, name of the decoration in small letters) of U:T=!trill!; None where it is no such thing."""
    match = re.match(r"([H-Wh-w~.])\s*=\s*[!+]?\s*([^!+\s]*)", value)
    return (match[1], match[2].lower()) if match else None
