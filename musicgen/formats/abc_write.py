"""Scores to normalised ABC text, which `abc_read` reads back as the same score.

In comes a score as written or unfolded; out goes one tune: unit length 1/8, six bars a line, pitches spelled by the
key, accidentals written where the bar needs them, long or odd durations tied, tuplets counted exactly. A part is a
voice; notes of a part that overlap stand in overlays (&) of the bar. Grace notes stand before what begins with them,
sections as [P:A], jumps as decorations before their barline, in the first voice.

Knowingly lost: velocities, the spelling of pitches, tempo beyond six digits, barlines and jumps that stand inside a bar
(they move to its end), an ending's stop that no barline shows, what stands at the very end and leads on (a segno, a
grace note), and how the graces of one onset are numbered beyond their order. ABC's order of sections knows letters
alone: where sections have an order and longer names, they are renamed A, B, C ... Every onset and duration in ticks is
kept: what is no binary part of the unit is written in tuplets of 3, 5, 7 and so on, and at worst alone in one of 15.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import groupby, pairwise
from math import gcd
from pathlib import Path

from musicgen.errors import FormatError
from musicgen.formats.abc_fields import JUMPS, LETTER_FIFTHS, LETTER_SEMITONES, MODE_OFFSETS, signature_of
from musicgen.formats.abc_text import escaped
from musicgen.formats.notation import tempo_beat
from musicgen.score import TICKS_PER_QUARTER, Key, Metre, Part, Score, Sign, Tempo

UNIT = TICKS_PER_QUARTER // 2
"""Ticks of L:1/8."""

BARS_A_LINE = 6

BINARY = 15
"""Ticks of the shortest length (1/128) that needs no tuplet: 480 is 32 times 15."""

TUPLETS = ((3, 2), (5, 4), (15, 8), (15, 4), (15, 2), (15, 1))
"""(p, q): p notes in the time of q. With these every number of ticks can be written, if not beautifully."""

ROUNDED_TUPLETS = ((7, 4), (9, 8), (11, 8), (13, 8))
"""(p, q) of tuplets that the tick can't hold exactly: a run of notes is written so if reading rounds it to the same."""

MODE_SHORT = {
    "major": "",
    "minor": "m",
    "dorian": "dor",
    "phrygian": "phr",
    "lydian": "lyd",
    "mixolydian": "mix",
    "locrian": "loc",
}
ACCIDENTAL_SIGNS = {-2: "__", -1: "_", 0: "=", 1: "^", 2: "^^"}

JUMP_NAMES = {
    ("segno", ""): "segno",
    ("coda", ""): "coda",
    ("to_coda", ""): "dacoda",
    ("fine", ""): "fine",
    **{(kind, label): name.upper()[:4] + name[4:] for name, (kind, label) in JUMPS.items() if name.startswith("d.")},
}
"""(kind, label) of a Sign -> the decoration that says it."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""What an order of sections can name."""

Event = tuple[int, int, tuple[int, ...], str]
"""(onset, duration, pitches, tie): pitches empty for a rest; tie is "-" where the notes go on in the next event."""


def write(score: Score, path: str | Path) -> None:
    """The score as an ABC file. Raises FormatError where it can't be held."""
    try:
        Path(path).write_text(to_text(score), encoding="utf-8")
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from error


def tempo_text(score: Score, tempo: Tempo) -> str:
    """What a Q: field says of a tempo: "1/4=120", or "3/8=100" in a compound metre."""
    dotted, beats = tempo_beat(score, tempo)
    return f"{'3/8' if dotted else '1/4'}={beats:.6g}"


def to_text(score: Score, reference: int = 1) -> str:
    """The score as one ABC tune with the number `reference`, newline at the end."""
    metre, tempo, key = score.metres[0], score.tempos[0], score.keys[0]
    lines = [f"X:{reference}", f"T:{escaped(score.title)}", f"M:{metre.numerator}/{metre.denominator}", "L:1/8"]
    names = section_names(score)
    if score.order and all(label in names for label in score.order):
        lines.append("P:" + "".join(names[label] for label in score.order))
    if tempo.bpm != 120:
        lines.append(f"Q:{tempo_text(score, tempo)}")
    plain = len(score.parts) == 1 and not score.parts[0].name
    if not plain:
        for number, part in enumerate(score.parts, 1):
            name = escaped(part.name.replace('"', "'"))
            lines.append(f"V:{number}" + (f' name="{name}"' if name else ""))
    lines.append(f"K:{key_text(key)}")
    for number, part in enumerate(score.parts, 1):
        if not plain:
            lines.append(f"V:{number}")
        if part.is_drum:
            lines.append("%%MIDI channel 10")
        if part.program:
            lines.append(f"%%MIDI program {part.program}")
        lines += body_lines(score, part, names if number == 1 else None)
    return "\n".join(lines) + "\n"


def section_names(score: Score) -> dict[str, str]:
    """Section label -> what the text calls it: itself, unless there is an order and one of them is no single letter."""
    labels = list(dict.fromkeys(sign.label for sign in score.signs if sign.kind == "section"))
    if score.order and any(len(label) != 1 or label not in LETTERS for label in labels) and len(labels) <= len(LETTERS):
        return dict(zip(labels, LETTERS, strict=False))
    return {label: escaped(label).replace("]", ")") for label in labels}


def key_text(key: Key) -> str:
    """The key as ABC names it: G, F#m, Bbmix."""
    fifths = key.fifths - MODE_OFFSETS[key.mode]
    letter = next(n for n, f in LETTER_FIFTHS.items() if (fifths - f) % 7 == 0)
    sharps = (fifths - LETTER_FIFTHS[letter]) // 7
    if abs(sharps) > 1:  # a key like B sharp locrian: the signature alone is kept
        return key_text(Key(key.onset, key.fifths))
    return letter + {0: "", 1: "#", -1: "b"}[sharps] + MODE_SHORT[key.mode]


# --- pitch ------------------------------------------------------------------------------------------------------------


def spell(pitch: int, fifths: int) -> tuple[str, int, int]:
    """(letter, alteration -1..1, octave; 4 holds middle C) of a MIDI pitch in a signature of `fifths` sharps.

    Of the twelve names next to the key on the circle of fifths: two flatwards of its scale, three sharpwards. A double
    accidental is spelled plainly instead.
    """
    low = fifths - 3
    place = low + (pitch * 7 - low) % 12  # a semitone is seven fifths
    if not -9 < place < 13:
        place -= 12 if place > 0 else -12
    natural = (place + 1) % 7
    letter = "FCGDAEB"[natural]
    alteration = (place + 1 - natural) // 7
    return letter, alteration, (pitch - alteration - LETTER_SEMITONES[letter]) // 12 - 1


def note_text(letter: str, octave: int) -> str:
    """Letter and octave as ABC writes them: C, is below middle C, c above."""
    if octave <= 4:
        return letter + "," * (4 - octave)
    return letter.lower() + "'" * (octave - 5)


class Speller:
    """Which accidentals a pitch needs where it stands, for readers by octave and for readers by letter alike."""

    def __init__(self, fifths: int) -> None:
        self.set_key(fifths)

    def set_key(self, fifths: int) -> None:
        self.fifths = fifths
        self.signature = signature_of(fifths)
        self.new_bar()

    def new_bar(self) -> None:
        self.elsewhere: set[str] = set()  # letters that have an accidental in another layer of the bar
        self.by_letter: dict[str, int] = {}
        self.by_octave: dict[tuple[str, int], int] = {}

    def new_layer(self) -> None:
        """An overlay of the bar begins: readers differ on whether it shares the accidentals written so far."""
        self.elsewhere |= set(self.by_letter)
        self.by_letter, self.by_octave = {}, {}

    def note(self, pitch: int) -> str:
        letter, alteration, octave = spell(pitch, self.fifths)
        natural = self.signature.get(letter, 0)
        holds = {self.by_letter.get(letter, natural), self.by_octave.get((letter, octave), natural)}
        text = note_text(letter, octave)
        if holds == {alteration} and not (letter in self.elsewhere and letter not in self.by_letter):
            return text
        self.by_letter[letter] = self.by_octave[letter, octave] = alteration
        return ACCIDENTAL_SIGNS[alteration] + text


# --- time -------------------------------------------------------------------------------------------------------------


def length_text(duration: int) -> str:
    """A duration in ticks, a multiple of BINARY, as a multiple of the unit: "", "2", "3/2", "/2"."""
    divisor = gcd(duration, UNIT)
    numerator, denominator = duration // divisor, UNIT // divisor
    return (str(numerator) if numerator > 1 else "") + (f"/{denominator}" if denominator > 1 else "")


def single_lengths(duration: int) -> list[int]:
    """A duration as the fewest lengths of one sign each: plain, dotted or double dotted; longest first.

    A duration that is no multiple of BINARY is left whole: it is a tuplet's.
    """
    if duration % BINARY:
        return [duration]
    found = []
    count = duration // BINARY
    while count:
        top = 1 << (count.bit_length() - 1)
        dotted = [top * 7 // 4] * (top >= 4) + [top * 3 // 2] * (top >= 2)
        best = next((n for n in dotted if n <= count), top)
        found.append(best * BINARY)
        count -= best
    return found


def tuplet_of(duration: int) -> tuple[int, int]:
    """The (p, q) that a duration in ticks needs to be written in binary lengths; (1, 1) if none."""
    if duration % BINARY == 0:
        return 1, 1
    return next((p, q) for p, q in TUPLETS if duration * p % (q * BINARY) == 0)


def layers(part: Part) -> list[list[Event]]:
    """The part's notes as layers in which nothing overlaps: notes of one onset and duration are a chord."""
    chords: list[Event] = []
    for onset, duration, pitch, _ in part.notes.tolist():
        for i in range(len(chords) - 1, max(len(chords) - 17, -1), -1):
            if chords[i][0] != onset:
                continue
            if chords[i][1] == duration and pitch not in chords[i][2]:
                chords[i] = (onset, duration, (*chords[i][2], pitch), "")
                break
        else:
            chords.append((onset, duration, (pitch,), ""))
    found: list[list[Event]] = []
    for event in chords:
        for layer in found:
            if layer[-1][0] + layer[-1][1] <= event[0]:
                layer.append(event)
                break
        else:
            found.append([event])
    return found or [[]]


def cut(layer: list[Event], edges: list[int]) -> list[list[Event]]:
    """The layer by bars: events cut at the edges (n + 1 of them, in ticks), rests put in where nothing sounds."""
    bars: list[list[Event]] = []
    i = 0
    for start, end in pairwise(edges):
        events: list[Event] = []
        at = start
        while i < len(layer) and layer[i][0] < end:
            onset, duration, pitches, _ = layer[i]
            onset, stop = max(onset, start), onset + duration
            if onset > at:
                events.append((at, onset - at, (), ""))
            at = min(stop, end)
            events.append((onset, at - onset, pitches, "-" if stop > end else ""))
            if stop > end:
                break
            i += 1
        if at < end:
            events.append((at, end - at, (), ""))
        bars.append(events)
    return bars


# --- the body ---------------------------------------------------------------------------------------------------------


def body_lines(score: Score, part: Part, names: dict[str, str] | None) -> list[str]:
    """The part's bars, BARS_A_LINE a line. The leading part, for which sections have `names`, carries tempo changes,
    chord symbols, sections and jumps."""
    edges = [*score.bars.tolist(), max(score.length, int(score.bars[-1]))]
    if edges[-1] == edges[-2]:
        edges.pop()
    signs: dict[int, list[Sign]] = {edge: [] for edge in edges}
    fields: list[tuple[int, str, int | None]] = []
    for sign in score.signs:
        if sign.kind in ("section", "segno", "coda"):
            if names is not None:
                text = f"[P:{names[sign.label]}]" if sign.kind == "section" else f"!{sign.kind}!"
                fields.append((sign.onset, text, None))
        elif names is not None or (sign.kind, sign.label) not in JUMP_NAMES:
            signs[edges[min(bisect_left(edges, sign.onset), len(edges) - 1)]].append(sign)
    parts_by_bar = [cut(layer, edges) for layer in layers(part)]
    speller = Speller(score.keys[0].fifths)
    fields += [(m.onset, f"[M:{m.numerator}/{m.denominator}]", None) for m in score.metres[1:]]
    fields += [(k.onset, f"[K:{key_text(k)}]", k.fifths) for k in score.keys[1:]]
    chords: list[tuple[int, str]] = []
    if names is not None:
        fields += [(t.onset, f"[Q:{tempo_text(score, t)}]", None) for t in score.tempos[1:]]
        chords = [(c.onset, '"' + c.text.replace('"', "'") + '"') for c in score.chord_symbols]
    fields.sort(key=lambda f: f[0])
    graces = grace_chords(part)
    text = bar_text(signs[edges[0]], first=True)
    lines = []
    for number, (start, end) in enumerate(pairwise(edges)):
        here = [f for f in fields if start <= f[0] < end]
        symbols = [c for c in chords if start <= c[0] < end]
        ornaments = [(at, graces[at]) for at in sorted(graces) if start <= at < end] if graces else []
        busy = [bars[number] for bars in parts_by_bar]
        while len(busy) > 1 and not any(event[2] for event in busy[-1]):
            busy.pop()
        # the first layer carries what stands between notes
        carried: list = [(here, symbols, dict(ornaments)), *[([], [], {})] * (len(busy) - 1)]
        speller.new_bar()
        beam = beam_ticks(score.metre_at(start))
        # beams are counted from the barline; in a pickup, from the one that ends it
        beams = set(range(end, start, -beam) if number == 0 else range(start, end, beam))
        text += " & ".join(
            layer_text(split_at(events, here, symbols, ornaments if i == 0 else []), speller, beams, *written)
            for i, (events, written) in enumerate(zip(busy, carried, strict=True))
        )
        text += " " + bar_text(signs[end], first=False, last=end == edges[-1])
        if (number + 1) % BARS_A_LINE == 0 and end != edges[-1]:
            lines.append(text.strip())
            text = ""
    if text.strip():
        lines.append(text.strip())
    return lines


def bar_text(signs: Sequence[Sign], first: bool, last: bool = False) -> str:
    """The barline that shows the signs, with the ending that begins there; a space after it."""
    kinds = {sign.kind for sign in signs}
    found = [f"!{JUMP_NAMES[s.kind, s.label]}!" for s in signs if (s.kind, s.label) in JUMP_NAMES]
    jumping = len(found)
    times = max([len(sign.passes) for sign in signs if sign.kind == "repeat_end"], default=0)
    if "repeat_end" in kinds and "repeat_start" in kinds and times < 2 and not kinds & {"double", "final"}:
        found.append("::")
    else:
        found += [
            text
            for kind, text in (
                ("repeat_end", ":" * max(times, 1) + "|"),
                ("double", "||"),
                ("final", "|]"),
                ("repeat_start", "|:"),
            )
            if kind in kinds
        ]
    if len(found) == jumping and "ending_stop" in kinds and "ending" not in kinds and not last:
        found.append("||")
    if len(found) == jumping and not first:
        found.append("|")
    for sign in signs:
        if sign.kind == "ending":
            found.append("[" + ",".join(str(n) for n in sign.passes or (1,)))
    return " ".join(found) + " " if found else ""


def grace_chords(part: Part) -> dict[int, list[tuple[bool, list[int]]]]:
    """Onset -> its graces as played, (slashed, pitches) each."""
    found: dict[int, list[tuple[bool, list[int]]]] = {}
    last = None
    for onset, place, pitch, slashed in part.graces.tolist():
        here = found.setdefault(onset, [])
        if (onset, place) == last:
            here[-1] = (here[-1][0] or slashed, [*here[-1][1], pitch])
        else:
            here.append((slashed, [pitch]))
        last = onset, place
    return found


def split_at(events: list[Event], fields: list, symbols: list, graces: list) -> list[Event]:
    """The bar's events, cut where a field, a chord symbol or a grace note stands over the middle of one."""
    stops = sorted({entry[0] for entry in (*fields, *symbols, *graces)})
    found: list[Event] = []
    for onset, duration, pitches, tie in events:
        for stop in stops:
            if onset < stop < onset + duration:
                found.append((onset, stop - onset, pitches, "-" if pitches else ""))
                onset, duration = stop, onset + duration - stop
        found.append((onset, duration, pitches, tie))
    return found


def beam_ticks(metre: Metre) -> int:
    """How long notes stand under one beam: three eighths in compound time, half a bar of 4/4, else a quarter."""
    if metre.denominator == 8 and metre.numerator % 3 == 0:
        return 3 * UNIT
    return 4 * UNIT if metre.ticks % (4 * UNIT) == 0 else 2 * UNIT


def layer_text(
    events: list[Event],
    speller: Speller,
    beams: set[int],
    fields: list[tuple[int, str, int | None]],
    symbols: list[tuple[int, str]],
    graces: dict[int, list[tuple[bool, list[int]]]],
) -> str:
    """One layer of one bar: its events in order, tuplets opened where they begin, a space where a beam ends."""
    words: list[str] = []
    speller.new_layer()
    i = 0
    while i < len(events):
        p, q, written = next_tuplet(events[i:])
        count = len(written)
        if words and events[i][0] in beams:
            words.append(" ")
        if p > 1:
            words.append(f"({p}" if (p, count) == (3, 3) else f"({p}:{q}:{count}")
        for n, ((onset, _, pitches, tie), length) in enumerate(zip(events[i : i + count], written, strict=True)):
            if n and onset in beams:
                words.append(" ")
            for at, text, fifths in fields:
                if at == onset:
                    words.append(text)
                    if fifths is not None:
                        speller.set_key(fifths)
            ornament = grace_text(graces[onset], speller) if onset in graces else ""
            symbol = ornament + "".join(text for at, text in symbols if at == onset)
            names = [speller.note(pitch) for pitch in pitches]
            sound = "z" if not names else names[0] if len(names) == 1 else "[" + "".join(names) + "]"
            pieces = [sound + length_text(piece) for piece in (single_lengths(length) if p == 1 else [length])]
            words.append(symbol + ("-" if names else "").join(pieces) + (tie if names else ""))
        i += count
    return "".join(words)


def grace_text(graces: list[tuple[bool, list[int]]], speller: Speller) -> str:
    """{gf}, {/g} or {[ce]d}: the graces before one note, a pair of braces for each run of slashed or plain ones."""
    found = ""
    for slashed, run in groupby(graces, key=lambda grace: grace[0]):
        names = [[speller.note(pitch) for pitch in pitches] for _, pitches in run]
        chords = [n[0] if len(n) == 1 else "[" + "".join(n) + "]" for n in names]
        found += "{" + "/" * slashed + "".join(chords) + "}"
    return found


def next_tuplet(events: list[Event]) -> tuple[int, int, list[int]]:
    """(p, q, written lengths in ticks) of the tuplet that begins with the first event; (1, 1, one length) if none does.

    A tuplet ends where the time since its start is binary again; a note that finds no such company stands alone in one.
    """
    p, q = tuplet_of(events[0][1])
    if p == 1:
        return 1, 1, [events[0][1]]
    total = 0
    for count, event in enumerate(events, 1):
        total += event[1]
        if total % BINARY == 0:
            durations = [duration for _, duration, _, _ in events[:count]]
            for p_all, q_all in (TUPLETS[0], TUPLETS[1], *ROUNDED_TUPLETS, TUPLETS[2]):
                written = [round(d * p_all / q_all / (2 * BINARY)) * 2 * BINARY for d in durations]
                if all(
                    (2 * sum(written[:n]) * q_all + p_all) // (2 * p_all) == sum(durations[:n])
                    for n in range(1, count + 1)
                ):
                    return p_all, q_all, written
            break
    return p, q, [events[0][1] * p // q]
