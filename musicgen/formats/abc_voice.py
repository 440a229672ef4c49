"""One voice of an ABC tune while it is read: where it stands in time, and what a note, a tie or a barline does to it.

In come lengths, pitches and signs as `abc_music` cuts them from the text; out go the lists of notes, graces, bars and
signs of one voice, in FINE parts of a tick. What can't be raises FieldError, to which the reader adds the line.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from musicgen.formats.abc_fields import ACCIDENTALS, FINE, LETTER_SEMITONES, WHOLE, FieldError
from musicgen.score import bar_ticks

MAX_TICKS = 2**30
"""Length of one tune beyond which it is refused."""

MAX_BARS = 20_000
MAX_REST_BARS = 1000
"""Bars of one multi-measure rest beyond which the tune is refused."""

STEPS = {letter: number for number, letter in enumerate("CDEFGAB")}

Mark = tuple[int, str, tuple[int, ...], str]
"""(onset, kind, passes, label) of a Sign to be."""


def length_of(unit: int, numerator: str, slashes: str, denominator: str) -> int:
    """The duration that a length like 3/2, 2, / or // stands for, in FINE parts."""
    length = unit * int(numerator or 1)
    if slashes:
        divisor = int(denominator) if denominator else 2 ** min(len(slashes), 12)
        if divisor == 0:
            raise FieldError("a note length with denominator 0; write it as 3/2")
        length //= divisor
    return length


def microtone(accidental: str, amount: str) -> int:
    """Semitones of ^3/2 or _/: an accidental with a fraction of a semitone, rounded to the nearest, halves outwards."""
    numerator, slash, denominator = amount.partition("/")
    n, d = min(int(numerator or 1), 24), int(denominator or 2) if slash else 1
    return ACCIDENTALS[accidental] * ((2 * n + max(d, 1)) // (2 * max(d, 1)))


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
    scope: str = "pitch"  # how far an accidental reaches in its bar: pitch (every octave), octave, not
    at: int = 0
    notes: list[list[int]] = field(default_factory=list)  # [onset, end, pitch, staff step]
    graces: list[tuple[int, list[int], bool]] = field(default_factory=list)  # (onset, pitches, slashed), as played
    bars: list[int] = field(default_factory=lambda: [0])
    signs: list[Mark] = field(default_factory=list)
    metres: list[tuple[int, tuple[int, int]]] = field(default_factory=list)
    keys: list[tuple[int, int, str]] = field(default_factory=list)
    chords: list[tuple[int, str]] = field(default_factory=list)
    accidentals: dict[str, int] = field(default_factory=dict)  # by letter (and octave), to the end of the bar
    ties: list[tuple[int, int]] = field(default_factory=list)  # (index of a note that goes on, its overlay)
    last: tuple[int, int, list[int]] | None = None  # (start, duration, note indices): what a > or < changes
    broken: tuple[int, int] = (1, 1)
    tuplet: tuple[int, int, int] = (1, 1, 0)  # notes last q/p, for r notes more
    waiting: list[tuple[list[int], bool]] = field(default_factory=list)  # graces before their note: pitches, slashed
    leaving: list[tuple[str, str]] = field(default_factory=list)  # jumps that are made at the next barline
    overlay: int = 0
    back: int = 0  # barlines that an overlay has yet to pass before it is in the bar where it was opened
    reach: int = 0  # where the longest overlay of this bar stops
    in_ending: bool = False

    # --- notes --------------------------------------------------------------------------------------------------------

    def pitch(self, accidental: str | None, amount: str | None, letter: str, octave: str) -> tuple[int, int]:
        """(staff step, MIDI pitch) of a note as written, by the key and the accidentals of the bar; it may set one."""
        upper = letter.upper()
        height = (5 if letter == upper else 6) + octave.count("'") - octave.count(",")
        name = upper if self.scope == "pitch" else f"{upper}{height}"
        if accidental:
            alter = microtone(accidental, amount) if amount else ACCIDENTALS[accidental]
            if self.scope != "not":
                self.accidentals[name] = alter
        elif name in self.accidentals:
            alter = self.accidentals[name]
        else:
            alter = self.signature.get(upper, 0)
        pitch = 12 * height + LETTER_SEMITONES[upper] + alter + self.shift
        return 7 * height + STEPS[upper], pitch

    def place(self, chord: list[list[int]], length: int) -> None:
        """Put a note, a chord or a rest where the voice is: chord of [step, pitch, duration, accidental written]."""
        p, q, left = self.tuplet
        numerator, denominator = self.broken
        if left:
            numerator, denominator = numerator * q, denominator * p
            self.tuplet = (p, q, left - 1) if left > 1 else (1, 1, 0)
        self.broken = (1, 1)
        start = self.at
        if self.waiting:
            self.attach_graces()
        scaled = (numerator, denominator) != (1, 1)
        indices = []
        ties, self.ties = self.ties, []
        for step, pitch, duration, written in chord:
            if scaled:
                duration = duration * numerator // denominator
            index = self.tied(ties, step, pitch, bool(written)) if ties else None
            if index is None:
                if not 0 <= pitch <= 127:
                    raise FieldError(f"a pitch of {pitch} is out of the MIDI range 0..127; correct its octave")
                index = len(self.notes)
                self.notes.append([start, start + duration, pitch, step])
            else:
                self.notes[index][1] = start + duration
            indices.append(index)
        if ties:
            self.ties += [t for t in ties if t[1] != self.overlay]
        if scaled:
            length = length * numerator // denominator
        self.at = start + length
        self.last = (start, length, indices)
        if self.at > MAX_TICKS * FINE:
            raise FieldError("the tune is too long; a note length must be wrong")

    def attach_graces(self) -> None:
        """The graces that wait lead to what is placed here: a note, or a rest, before which they end the last note."""
        self.graces += [(self.at, pitches, slashed) for pitches, slashed in self.waiting]
        self.waiting.clear()

    def grace(self, pitches: list[int], slashed: bool) -> None:
        """A grace note or grace chord, to be played before what comes next."""
        for pitch in pitches:
            if not 0 <= pitch <= 127:
                raise FieldError(f"a pitch of {pitch} is out of the MIDI range 0..127; correct its octave")
        if pitches:
            self.waiting.append((pitches, slashed))

    def tied(self, ties: list[tuple[int, int]], step: int, pitch: int, written: bool) -> int | None:
        """The index of the note that this one continues, taken out of `ties`; None if it is a note of its own."""
        for entry in ties:
            index, overlay = entry
            _, end, sounding, tied_step = self.notes[index]
            # over a barline the accidental holds for the tied note, though it is not written again
            same = pitch == sounding or (step == tied_step and not written)
            if same and end == self.at and overlay == self.overlay:
                ties.remove(entry)
                return index
        return None

    def tie(self, index: int) -> None:
        """The note goes on in the next of its pitch, if that follows at once; otherwise the sign is a slur."""
        self.ties.append((index, self.overlay))

    def open_tuplet(self, p: int, q: str | None, r: str | None) -> None:
        """(p:q:r puts p notes into the time of q for the next r notes; what is left out follows from p and metre."""
        numerator, _ = self.metre
        compound = 3 if numerator % 3 == 0 and numerator > 3 else 2
        time = int(q or 0) or {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}.get(p, compound)
        if p > 0:
            self.tuplet = (p, time, int(r or 0) or p)

    def break_rhythm(self, run: str) -> None:
        """a>b dots the first and halves the second; >> and >>> double and triple dot; < the other way round."""
        if self.last is None or self.at != self.last[0] + self.last[1]:
            return
        start, length, indices = self.last
        parts = 2 ** min(len(run), 4)
        long, short = (2 * parts - 1, parts), (1, parts)
        here, self.broken = (long, short) if run[0] == ">" else (short, long)
        changed = length * here[0] // here[1]
        for index in indices:
            self.notes[index][1] += changed - length
        self.at = start + changed
        self.last = (start, changed, indices)

    def rest_bars(self, count: int) -> None:
        """Whole bars of rest."""
        if count > MAX_REST_BARS:
            raise FieldError(f"Z{count}: a rest of more than {MAX_REST_BARS:,} bars; write several")
        self.ties.clear()
        if self.waiting:
            self.attach_graces()
        for number in range(count):
            if number and self.at > self.bars[-1]:
                self.bars.append(self.at)
            self.at += bar_ticks(*self.metre) * FINE
        self.last = None
        if self.at > MAX_TICKS * FINE:
            raise FieldError("the tune is too long; a rest must be wrong")
        if len(self.bars) > MAX_BARS:
            raise FieldError(f"more than {MAX_BARS:,} bars in one tune; a rest must be wrong")

    def open_overlay(self, bars: int) -> None:
        """& goes back to the last barline, && to the one before it, and so on (ABC 2.1, 7.4): a voice of its own, which
        the accidentals written before it do not touch."""
        self.reach = max(self.reach, self.at)
        bars = min(bars, len(self.bars))
        self.back = bars - 1
        self.at, self.last = self.bars[-bars], None
        self.overlay += 1
        self.accidentals.clear()
        self.waiting.clear()

    # --- bars ---------------------------------------------------------------------------------------------------------

    def barline(self, run: str, passes: str | None) -> None:
        """A barline of any kind, with the passes of the ending that begins there."""
        if self.back:  # of an overlay over several bars: the bar is there already
            self.back -= 1
            self.accidentals.clear()
            return
        self.begin_bar()
        if self.leaving:
            self.leave()
        line = run.strip(".0123456789,-").replace("[|]", "")  # [|] is a barline that is not drawn
        ends, starts = line.startswith(":"), line.endswith(":")
        final = "|]" in line
        double = not (ends or starts or final) and ("||" in line or "[|" in line)
        if self.in_ending and (ends or starts or final or double):
            self.sign("ending_stop")
            self.in_ending = False
        for kind, there in (("repeat_end", ends), ("double", double), ("final", final), ("repeat_start", starts)):
            if there:
                again = len(line) - len(line.lstrip(":")) if kind == "repeat_end" and line.strip(":") else 1
                self.sign(kind, tuple(range(1, again + 1)) if again > 1 else ())
        if passes:
            self.open_ending(passes)

    def begin_bar(self) -> None:
        if self.overlay:
            self.at, self.overlay, self.reach, self.back = max(self.at, self.reach), 0, 0, 0
        self.accidentals.clear()
        if self.at > self.bars[-1]:
            self.bars.append(self.at)
            if len(self.bars) > MAX_BARS:
                raise FieldError(f"more than {MAX_BARS:,} bars in one tune; split it")

    def leave(self) -> None:
        """The jumps written over this bar are made at its end."""
        for kind, label in self.leaving:
            self.sign(kind, label=label)
        self.leaving.clear()

    def open_ending(self, passes: str) -> None:
        """An ending for passes like "1", "1,3" or "1-3" begins here."""
        self.begin_bar()
        numbers: list[int] = []
        for piece in passes.split(","):
            first, _, last = piece.partition("-")
            numbers += range(int(first), int(last or first) + 1) if int(last or first) <= 16 else []
        if not numbers:
            raise FieldError(f"an ending for pass {passes}; passes 1 to 16 are read")
        if self.in_ending:
            self.sign("ending_stop")
        self.sign("ending", tuple(numbers))
        self.in_ending = True

    def sign(self, kind: str, passes: tuple[int, ...] = (), label: str = "") -> None:
        entry = (self.at, kind, passes, label)
        if entry not in self.signs[-6:]:
            self.signs.append(entry)

    def finish(self) -> None:
        """The tune is over: close what is open. Graces with no note to lead to are left out."""
        self.at = max(self.at, self.reach)
        self.leave()
        if self.in_ending:
            self.sign("ending_stop")
