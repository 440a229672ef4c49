"""What a MusicXML bar says beside its notes: barlines, repeats, endings, sections, jumps, tempo marks, chord symbols.

In come a bar's <measure>, the score and where the bar begins or ends, in ticks; the elements are added to the bar.
Barlines stand in every part; directions and chord symbols, which hold for all, over the first alone: the caller sees to
that. Signs that are off the barlines and chord symbols that don't begin with a root are left out.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, SubElement

from musicgen.formats.musicxml_elements import add, clean
from musicgen.formats.notation import tempo_beat
from musicgen.score import Score

_LEAVING = {"to_coda": "To Coda", "fine": "Fine", "da_capo": "D.C.", "dal_segno": "D.S."}
"""Signs at the end of a bar -> the words that are printed."""
_SOUNDS = {
    "to_coda": ("tocoda", "coda"), "fine": ("fine", "yes"), "da_capo": ("dacapo", "yes"),
    "dal_segno": ("dalsegno", "segno"), "segno": ("segno", "segno"), "coda": ("coda", "coda"),
}  # fmt: skip
"""Kind of sign -> the attribute of <sound> that says it, and its value."""


def write_left_barline(measure: Element, score: Score, start: int) -> None:
    """A repeat or an ending that begins with the bar; a plain barline needs no element."""
    here = [s for s in score.signs if s.onset == start]
    repeat = any(s.kind == "repeat_start" for s in here)
    ending = next((s for s in here if s.kind == "ending"), None)
    if not repeat and ending is None:
        return
    barline = add(measure, "barline", location="left")
    if repeat:
        add(barline, "bar-style", "heavy-light")
    if ending is not None:
        add(barline, "ending", number=_passes(ending.passes), type="start")
    if repeat:
        add(barline, "repeat", direction="forward")


def write_right_barline(measure: Element, score: Score, end: int, last: bool) -> None:
    """A repeat, an ending, a double or a final bar that ends with the bar; the last of the piece is final."""
    here = [s for s in score.signs if s.onset == end]
    kinds = {s.kind for s in here}
    if last and "double" not in kinds:
        kinds.add("final")
    if not kinds & {"repeat_end", "ending_stop", "double", "final"}:
        return
    barline = add(measure, "barline", location="right")
    heavy = bool(kinds & {"repeat_end", "final"})
    if heavy or "double" in kinds:
        add(barline, "bar-style", "light-heavy" if heavy else "light-light")
    if "ending_stop" in kinds:
        before = [s for s in score.signs if s.kind == "ending" and s.onset < end]
        passes = before[-1].passes if before else ()
        add(barline, "ending", number=_passes(passes), type="stop" if heavy else "discontinue")
    if "repeat_end" in kinds:
        back = next(s.passes for s in here if s.kind == "repeat_end")
        add(barline, "repeat", direction="backward", **({"times": str(max(back) + 1)} if len(back) > 1 else {}))


def _passes(passes: tuple[int, ...]) -> str:
    return ", ".join(map(str, passes)) or "1"


def write_directions(measure: Element, score: Score, start: int, end: int) -> None:
    """What begins at this bar, and its tempo marks and chord symbols, over the first part."""
    for sign in score.signs:
        if sign.onset == start and sign.kind in ("section", "segno", "coda"):
            direction = add(measure, "direction", placement="above")
            place = add(direction, "direction-type")
            if sign.kind == "section":
                add(place, "rehearsal", clean(sign.label))
            else:
                add(place, sign.kind)
                name, value = _SOUNDS[sign.kind]
                add(direction, "sound", **{name: value})
    for tempo in score.tempos:
        if start <= tempo.onset < end:
            direction = add(measure, "direction", placement="above")
            metronome = add(add(direction, "direction-type"), "metronome")
            dotted, beats = tempo_beat(score, tempo)
            add(metronome, "beat-unit", "quarter")
            if dotted:
                add(metronome, "beat-unit-dot")
            add(metronome, "per-minute", f"{beats:.6g}")
            if tempo.onset > start:
                add(direction, "offset", tempo.onset - start, sound="yes")
            add(direction, "sound", tempo=f"{tempo.bpm:.6g}")
    for chord in score.chord_symbols:
        if start <= chord.onset < end:
            _write_chord_symbol(measure, chord.text, chord.onset - start)


def write_jumps(measure: Element, score: Score, end: int) -> None:
    """Where the music leaves at this bar's end, over the first part."""
    for sign in score.signs:
        if sign.onset == end and sign.kind in _LEAVING:
            direction = add(measure, "direction", placement="above")
            words = " ".join([_LEAVING[sign.kind], *sign.label.replace("coda", "Coda").replace("fine", "Fine").split()])
            add(add(direction, "direction-type"), "words", words)
            name, value = _SOUNDS[sign.kind]
            add(direction, "sound", **{name: value})


_KINDS = {
    "": "major", "m": "minor", "7": "dominant", "m7": "minor-seventh", "maj7": "major-seventh", "dim": "diminished",
    "dim7": "diminished-seventh", "m7b5": "half-diminished", "aug": "augmented", "+": "augmented",
    "sus4": "suspended-fourth", "sus2": "suspended-second", "6": "major-sixth", "m6": "minor-sixth",
    "9": "dominant-ninth", "m9": "minor-ninth", "maj9": "major-ninth",
}  # fmt: skip
_CHORD = re.compile(r"([A-G])(#|b)?([^/]*)(?:/([A-G])(#|b)?)?$")


def _write_chord_symbol(measure: Element, text: str, offset: int) -> None:
    match = _CHORD.match(text)
    if match is None:
        return
    harmony = add(measure, "harmony")
    for tag, step, sign in (("root", match[1], match[2]), ("bass", match[4], match[5])):
        if step:
            if tag == "bass":
                SubElement(harmony, "kind", text=match[3]).text = _KINDS.get(match[3], "other")
            place = add(harmony, tag)
            add(place, f"{tag}-step", step)
            if sign:
                add(place, f"{tag}-alter", 1 if sign == "#" else -1)
    if not match[4]:
        SubElement(harmony, "kind", text=match[3]).text = _KINDS.get(match[3], "other")
    if offset:
        add(harmony, "offset", offset)
