"""The body of an ABC tune: lines of notes, barlines and what is written among them, cut by one compiled regex.

In comes a line and the tune it stands in; what it says is put where the tune's voice is: notes and barlines at the
`Voice`, fields and decorations at the `Tune`. The regex knows every token that tunes in the wild hold, so that what is
no music is found, and said to be none.
"""

from __future__ import annotations

import re

from musicgen.formats.abc_fields import FINE
from musicgen.formats.abc_text import BODY_FIELD, COMMENT
from musicgen.formats.abc_tune import Tune
from musicgen.formats.abc_voice import Voice, length_of

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


def read_body_line(tune: Tune, line: str) -> None:
    """A line of the tune's body: a field, a directive, or music."""
    if line.startswith("%"):
        if line.startswith("%%"):
            tune.read_directive(line[2:])
        return
    if tune.in_text:
        return
    if "%" in line:
        line = COMMENT.sub("", line)
    match = BODY_FIELD.match(line)
    if match:
        name, value = match[1], match[2].strip()
        tune.read_field(name, value)
        # tunes are found whose metre and music share a line, against the standard: what follows is music
        rest = re.match(r"\s*(?:C\|?|[\d+/]+)\s+(.*\|.*)", match[2]) if name == "M" else None
        if rest:
            read_music(tune, rest[1])
        return
    read_music(tune, line)


def read_music(tune: Tune, line: str) -> None:
    """One line of notes, bars and what is written among them."""
    chord: list[list[int]] | None = None  # the notes between [ and ]: step, pitch, length, accidental written
    chord_ties: list[int] = []
    strange = 0
    voice = tune.voice
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
                raise tune.error("a barline inside a chord; close the chord with ]")
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
            tune.read_field(m["name"], COMMENT.sub("", m["value"]).strip())
            voice = tune.voice
        elif kind == "grace":
            read_graces(voice, m["graces"])
        elif kind == "mark":
            tune.decorate(m["mark"][1:-1].lower())
        elif kind == "decoration":
            if m["decoration"] in tune.symbols:
                tune.decorate(tune.symbols[m["decoration"]])
        elif kind == "stray_metre":
            tune.read_field("M", m["metre"])
        elif kind == "bars_rest":
            voice.rest_bars(int(m["count"] or 1))
        elif kind == "overlay":
            voice.open_overlay(len(m["overlay"]))
        elif kind == "other":
            strange += 1
    if chord:
        raise tune.error("a chord that is not closed; close it with ]")
    if strange > 8 and strange > len(line) // 10:
        raise tune.error(f"no music: {line.strip()[:40]!r}; a blank line must stand before free text")


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
