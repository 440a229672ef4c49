"""The text of ABC files: bytes to text, text to tunes, the escapes of titles and names.

`abc_read` takes the tunes apart; here is what has to do with letters and lines alone.
"""

from __future__ import annotations

import html
import re
import unicodedata
from itertools import pairwise

BODY_FIELD = re.compile(r"([IKLMNOPQRSTUVWXYZmrsw+]):(.*)")
"""A field on a line of its own among the music: the letters that can't be the note of a line like A:|."""

HEADER_FIELD = re.compile(r"([A-Za-z+]):(.*)")
COMMENT = re.compile(r"(?<!\\)%.*")

CHARSET = re.compile(rb"(?m)^(?:%%|I:)abc-charset\s+(iso-8859-(?:[1-9]|10|13|14|15|16))\s*$", re.I)

ACCENTS = {
    "`": "\u0300",
    "'": "\u0301",
    "^": "\u0302",
    "~": "\u0303",
    '"': "\u0308",
    "c": "\u0327",
    "v": "\u030c",
    "u": "\u0306",
    "H": "\u030b",
}
"""Mnemonic before the letter -> the combining accent (ABC 2.1, 8.2)."""

LETTERS = {
    **{"AA": "Å", "aa": "å", "/O": "Ø", "/o": "ø", "AE": "Æ", "ae": "æ", "OE": "Œ", "oe": "œ", "ss": "ß"},
    **{"DH": "Ð", "dh": "ð", "TH": "Þ", "th": "þ"},
}
ESCAPE = re.compile(
    r"\\(?:u([0-9A-Fa-f]{4})|([%&\\])|(AA|aa|/O|/o|AE|ae|OE|oe|ss|DH|dh|TH|th)|([`'^~\"cvuH])([A-Za-z]))"
)
ENTITY = re.compile(r"(?<!\\)&(?:[A-Za-z]{2,8}|#\d{1,6}|#x[0-9A-Fa-f]{1,5});")


def decode_text(data: bytes) -> str:
    """Bytes as UTF-8 (or UTF-16, where its mark stands first), or else in the charset the file names, or as Latin-1;
    line ends as newlines."""
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        named = CHARSET.search(data[:4096])
        text = data.decode(named[1].decode("ascii") if named else "latin-1", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def plain_text(text: str) -> str:
    r"""A title or name with its mnemonics and entities read, as \'e and &eacute;; white space made single."""
    if "&" in text:
        text = ENTITY.sub(lambda m: html.unescape(m[0]), text)
    if "\\" in text:
        text = ESCAPE.sub(_unescape, text)
    return " ".join(text.split())


def _unescape(match: re.Match[str]) -> str:
    code, plain, letters, accent, letter = match.groups()
    if code:
        # half of a surrogate pair is no character
        return "\ufffd" if 0xD800 <= int(code, 16) <= 0xDFFF else chr(int(code, 16))
    if plain or letters:
        return plain or LETTERS[letters]
    joined = unicodedata.normalize("NFC", letter + ACCENTS[accent])
    return joined if len(joined) == 1 else match[0]


def escaped(text: str) -> str:
    """The text so that `plain_text` reads it back."""
    text = " ".join(text.split()).replace("\\", "\\\\").replace("%", "\\%")
    return ENTITY.sub(lambda m: "\\" + m[0], text)


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
                following = next((i for i in range(end, stop) if lines[i].strip()), stop)
                if has_music or following == stop or "|" not in lines[following]:
                    break
                end = following
                continue
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
