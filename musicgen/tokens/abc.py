"""The ABC tokenizer: a single melody as text, one musical symbol a step or one character a step.

A score becomes normalised ABC (unit length 1/8) cut into symbols: a metre, a key, barlines, pitches as they are
written, lengths, ties, chord brackets, tuplets. Joined, the symbols are ABC again, and `formats.abc_read` makes the
score of them. `abc_symbols` lists them, `abc_grammar` says which may follow which.

Knowingly lost, and nowhere else anything: title, tempo, the instrument and its name, parts without notes, velocities,
grace notes, chord symbols, names of sections with their order, jumps (D.C. and the like), how often a repeat is played
where that is more than twice, a double or final bar beside the end of a repeat, a last barline other than |] or :|, and
that an ending stops at a plain barline. Where a repeat begins is always written (|:), though tunes often leave it to be
understood. Where a length has no symbol, as in most MIDI files: all timing finer than a grid of 24 to the quarter note,
and the gap or the overlap of up to a 32nd between a note and the next. A tune that the symbols can't hold (several
parts, notes that overlap, third endings) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from musicgen.errors import FormatError, ScoreError, TokenError
from musicgen.formats.abc_read import VELOCITY, read_text
from musicgen.formats.abc_write import Speller, cut, key_text, layers, next_tuplet
from musicgen.score import Part, Score, Sign, transpose
from musicgen.score.edit import with_repeat_starts
from musicgen.score.timing import in_even_lengths
from musicgen.tokens.abc_characters import (
    BODY_TEXT,
    CHARACTER_ID,
    CHARACTERS,
    HEADER_TEXT,
    SYMBOL,
    TEXT_ID,
    CharacterCursor,
)
from musicgen.tokens.abc_grammar import SymbolCursor
from musicgen.tokens.abc_symbols import (
    BARS_LEFT,
    BEATS,
    CLOSE,
    END,
    GRID,
    GRID_OF,
    ID,
    IS_BAR,
    IS_CONTENT,
    IS_KEY,
    IS_LENGTH,
    IS_METRE,
    IS_PITCH,
    IS_TUPLET,
    LENGTH_OF,
    OPEN,
    POSITION_TICKS,
    REST,
    SIZE,
    START,
    TUPLETS,
    UNIT,
    VOCABULARY,
)
from musicgen.tokens.recall import Recall
from musicgen.tokens.tokenizer import Coordinate, Field, Hearing


def positions(symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T,) ticks since the barline and (T,) bars begun, after each of the symbols (T,); vectorised over the piece."""
    total = len(symbols)
    is_bar, is_content = IS_BAR[symbols], IS_CONTENT[symbols]
    depth = np.cumsum(symbols == OPEN) - np.cumsum(symbols == CLOSE)
    sounds = ((IS_PITCH[symbols] & (depth == 0)) | (symbols == REST) | (symbols == CLOSE)).nonzero()[0]
    numerator, denominator = np.ones(total, dtype=np.int64), np.ones(total, dtype=np.int64)
    bars = is_bar.nonzero()[0]
    for at in IS_TUPLET[symbols].nonzero()[0]:
        p, q, count = TUPLETS[VOCABULARY[symbols[at]]]
        first = np.searchsorted(sounds, at)
        stop = bars[np.searchsorted(bars, at)] if np.searchsorted(bars, at) < len(bars) else total
        found = sounds[first : first + count]
        numerator[found[found < stop]], denominator[found[found < stop]] = q, p
    length_value = np.zeros(SIZE, dtype=np.int64)
    for symbol, grid in GRID_OF.items():
        length_value[symbol] = grid
    moved = np.zeros(total, dtype=np.int64)
    moved[sounds] = UNIT * GRID * numerator[sounds] // denominator[sounds]
    lengths = IS_LENGTH[symbols].nonzero()[0]
    owners = sounds[np.maximum(np.searchsorted(sounds, lengths) - 1, 0)] if len(sounds) else lengths
    moved[lengths] = length_value[symbols[lengths]] * GRID * numerator[owners] // denominator[owners] - moved[owners]
    clock = np.cumsum(moved)
    at_bar = np.maximum.accumulate(np.where(is_bar, np.arange(total), -1))
    ticks = clock - np.where(at_bar >= 0, clock[np.maximum(at_bar, 0)], 0)
    # a bar begins with its first content after a barline or, for the first, after the header
    marks = (is_bar | is_content).nonzero()[0]
    previous = np.concatenate(([True], is_bar[marks][:-1]))
    begins = np.zeros(total, dtype=np.int64)
    begins[marks[is_content[marks] & previous]] = 1
    return ticks, np.cumsum(begins)


def _hearing(labels: Sequence[str]) -> Hearing:
    """Pitches by their places on the staff, told apart by their accidentals; a character by its letter alone."""
    place, accidental = np.full(len(labels), -1), np.zeros(len(labels), dtype=np.int64)
    for i, label in enumerate(labels):
        match = re.fullmatch(r"([\^_=]?)([A-Ga-g])([,']*)", label)
        if match:
            octave = (2 if match[2].isupper() else 3) + match[3].count("'") - match[3].count(",")
            place[i], accidental[i] = 7 * octave + "CDEFGAB".index(match[2].upper()), " ^=_".index(match[1] or " ")
    return Hearing(octave=7, places={0: place}, kinds={0: accidental}, struck=4)


class AbcTokenizer:
    """ABC as steps of one field. See the module's docstring for what is kept and what is lost.

    characters: True spells the same text letter by letter, for a language model of characters.
    """

    name: ClassVar[str] = "abc"
    as_written: ClassVar[bool] = True
    clock: ClassVar[bool] = False

    def __init__(self, characters: bool = False) -> None:
        self.options = {"characters": characters}
        self.spelled = characters
        labels = VOCABULARY if not characters else ("START", "END", *CHARACTERS)
        self.fields = (Field("symbol", labels),)
        self.coordinates = (Coordinate("beat", BEATS + 1), Coordinate("bars_left", BARS_LEFT + 2, ahead=True))
        self.start: tuple[int, ...] = (START,)
        self.hearing = _hearing(labels)
        self.recall = Recall(views=((0,),), fields=(0,))

    # --- scores -------------------------------------------------------------------------------------------------------

    def quantise(self, score: Score) -> Score:
        """The tune as the symbols hold it: decode(encode(score)) equals this. The docstring above says what is lost."""
        score, _ = held_as(score)
        notes = next(part.notes for part in score.parts if len(part.notes)).copy()
        notes["velocity"] = VELOCITY
        return Score(
            parts=(Part(notes=notes),),
            metres=score.metres,
            keys=score.keys,
            bars=score.bars,
            length=score.length,
            signs=held_signs(with_repeat_starts(score)),
        )

    def encode(self, score: Score, unfinished: bool = False) -> np.ndarray:
        """(T, 1) int16 steps of a score of one melody. Raises TokenError where it can't be held.

        unfinished: the score breaks off; a last bar that is not full stays open, and END is left out.
        """
        end = [] if unfinished else [END]
        symbols = np.array([START, *held_as(score, unfinished)[1], *end], dtype=np.int16)
        if not self.spelled:
            return symbols[:, None]
        text = spell_out(symbols)
        return np.array([START, *(CHARACTER_ID[c] for c in text), *end], dtype=np.int16)[:, None]

    def decode(self, steps: np.ndarray) -> Score:
        """The score of the steps; a missing END and a last chord left open are forgiven. TokenError without notes."""
        symbols = self.symbols(steps)
        opened = np.flatnonzero(symbols == OPEN)
        if len(opened) and not np.any(symbols[opened[-1] :] == CLOSE):
            symbols = symbols[: opened[-1]]
        try:
            return read_text(self.lay_out(symbols))[0]
        except FormatError as error:
            raise TokenError(f"these steps are no tune: {error}") from error

    def symbols(self, steps: np.ndarray) -> np.ndarray:
        """(S,) ids of the symbols in the steps, in characters too; a last symbol left unfinished is dropped."""
        flat = np.asarray(steps).reshape(-1).astype(np.int64)
        if not self.spelled:
            return flat
        return np.array([symbol for symbol, _ in self.cut_characters(flat)], dtype=np.int64)

    def cut_characters(self, flat: np.ndarray) -> list[tuple[int, int]]:
        """(symbol id, index of its first step) for the characters in `flat`, by maximal munch."""
        found: list[tuple[int, int]] = []
        has_start = len(flat) > 0 and flat[0] == START
        if has_start:
            found.append((START, 0))
        stop = int(np.argmax(flat == END)) if np.any(flat == END) else len(flat)
        text = "".join(CHARACTERS[c - 2] for c in flat[int(has_start) : stop])
        at = 0
        while at < len(text):
            match = SYMBOL.match(text, at)
            if not match:
                break
            found.append((TEXT_ID[match[0]], at + has_start))
            at = match.end()
        if stop < len(flat):
            found.append((END, stop))
        return found

    def text(self, steps: np.ndarray) -> str:
        """The steps as an ABC tune with its header, in lines of a few bars."""
        return self.lay_out(self.symbols(steps))

    def lay_out(self, symbols: np.ndarray) -> str:
        lines, line, bars = ["X:1", "L:1/8"], "", 0
        for symbol, text in zip(symbols, spellings(symbols), strict=True):
            if text.endswith("\n"):
                lines.append(text[:-1])
                continue
            if bars >= 4 and not IS_BAR[symbol]:
                lines.append(line.strip())
                line, bars = "", 0
            line += text
            bars += bool(IS_BAR[symbol])
        if line.strip():
            lines.append(line.strip())
        if not any(text.startswith("K:") for text in lines):
            lines.append("K:C")
        lines[2:] = [" " + text if re.match("[A-G]:", text) else text for text in lines[2:]]  # A:| is no field
        return "\n".join(lines) + "\n"

    # --- where and what -----------------------------------------------------------------------------------------------

    def locate(self, steps: np.ndarray) -> np.ndarray:
        """(T, 2) int16: beat and bars left after each step of a whole piece.

        In characters, after each character, what the symbols before its own have come to.
        """
        flat = np.asarray(steps).reshape(-1).astype(np.int64)
        if not self.spelled:
            return locate_symbols(flat)
        cut_up = self.cut_characters(flat)
        symbols = np.array([symbol for symbol, _ in cut_up], dtype=np.int64)
        firsts = np.array([first for _, first in cut_up])
        owner = np.searchsorted(firsts, np.arange(len(flat)), side="right") - 1
        ended = np.isin(symbols[owner], (START, END))
        return locate_symbols(symbols)[np.where(ended, owner, np.maximum(owner - 1, 0))]

    def masks(self, steps: np.ndarray, coordinates: np.ndarray, start: int, stop: int) -> dict[int, np.ndarray]:
        """None: the bars of real tunes do as they like."""
        return {}

    def is_note(self, steps: np.ndarray) -> np.ndarray:
        """(T,) bool: pitches (in characters: the first of each); a tied continuation counts again."""
        flat = np.asarray(steps).reshape(-1).astype(np.int64)
        if not self.spelled:
            return IS_PITCH[flat]
        found = np.zeros(len(flat), dtype=bool)
        found[[first for symbol, first in self.cut_characters(flat) if IS_PITCH[symbol]]] = True
        return found

    def bars_begun(self, steps: np.ndarray) -> np.ndarray:
        """(T,) int64."""
        flat = np.asarray(steps).reshape(-1).astype(np.int64)
        if not self.spelled:
            return positions(flat)[1]
        cut_up = self.cut_characters(flat)
        begun = positions(np.array([symbol for symbol, _ in cut_up], dtype=np.int64))[1]
        owner = np.searchsorted([first for _, first in cut_up], np.arange(len(flat)), side="right") - 1
        return begun[owner]

    def describe(self, step: Sequence[int]) -> str:
        """The symbol, or the character."""
        return self.fields[0].labels[int(step[0])]

    def transpose(self, steps: np.ndarray, semitones: int) -> np.ndarray | None:
        """The same piece `semitones` higher, spelled for its new key; None where it leaves the range of symbols."""
        if semitones == 0:
            return np.asarray(steps)
        try:
            return self.encode(transpose(self.decode(steps), semitones))
        except (TokenError, ScoreError):
            return None

    def cursor(self, bars: int | None = None, strict: bool = True) -> SymbolCursor | CharacterCursor:
        """A cursor just after START; strict for sampling, lenient for walking over real tunes."""
        cursor = SymbolCursor(bars, strict)
        return CharacterCursor(cursor) if self.spelled else cursor

    def characters(self, steps: np.ndarray) -> int | None:
        """Length of the tune as text, header fields included: the same for symbols and characters."""
        return sum(len(text) for text in spellings(self.symbols(steps)))


def locate_symbols(symbols: np.ndarray) -> np.ndarray:
    ticks, begun = positions(symbols)
    total = begun[-1] if len(begun) else 0
    beat = 1 + np.minimum(ticks // POSITION_TICKS, BEATS - 1)
    return np.stack([beat, 1 + np.minimum(total - begun, BARS_LEFT)], axis=1).astype(np.int16)


# --- scores to symbols ------------------------------------------------------------------------------------------------


def symbol_id(symbol: str) -> int:
    found = ID.get(symbol)
    if found is None:
        raise TokenError(f"the ABC vocabulary has no {symbol!r}; leave the tune out or use another tokenizer")
    return found


def held_as(score: Score, unfinished: bool = False) -> tuple[Score, list[int]]:
    """(the score as the symbols hold it, but for what the module's opening says is lost; the ids of its symbols).

    A score whose lengths all have symbols is held as it is; another one in even lengths.
    Raises TokenError.
    """
    try:
        return score, [symbol_id(symbol) for symbol in symbols_of(score, unfinished)]
    except TokenError:
        if unfinished:
            raise
        even = in_even_lengths(score)
        return even, [symbol_id(symbol) for symbol in symbols_of(even)]


def symbols_of(score: Score, unfinished: bool = False) -> list[str]:
    """The tune as symbols, without START and END. Raises TokenError where it is no single melody of known symbols.

    unfinished: no final barline; a plain one stands at the end if the last bar is full.
    """
    parts = [part for part in score.parts if len(part.notes)]
    if not parts:
        raise TokenError("no notes to encode")
    if len(parts) > 1 or parts[0].is_drum:
        found = "drums" if len(parts) == 1 else f"{len(parts)} parts that play"
        raise TokenError(f"{found}; an abc model holds a single melody: use a bars model (configs/orchestra-lstm.yaml)")
    voices = layers(parts[0])
    if len(voices) > 1:
        raise TokenError("notes overlap; an abc model holds a single voice, with chords: use a bars model")
    edges = score.bars.tolist()
    if score.length > edges[-1]:
        edges.append(score.length)
    metre, key = score.metres[0], score.keys[0]
    symbols = [f"M:{metre.numerator}/{metre.denominator}", f"K:{key_text(key)}"]
    fields: dict[int, list[tuple[str, int | None]]] = {}
    for m in score.metres[1:]:
        fields.setdefault(m.onset, []).append((f"M:{m.numerator}/{m.denominator}", None))
    for k in score.keys[1:]:
        fields.setdefault(k.onset, []).append((f"K:{key_text(k)}", k.fifths))
    signs: dict[int, list] = {edge: [] for edge in edges}
    for sign in with_repeat_starts(score).signs:
        signs[next((edge for edge in edges if edge >= sign.onset), edges[-1])].append(sign)
    speller = Speller(key.fifths)
    symbols += barline(signs[0], first=True)
    for events, end in zip(cut(voices[0], edges), edges[1:], strict=True):
        speller.new_bar()
        at = 0
        while at < len(events):
            p, q, written = next_tuplet(events[at:])
            opened = p == 1
            for (onset, _, pitches, tie), length in zip(events[at : at + len(written)], written, strict=True):
                for symbol, fifths in fields.pop(onset, []):
                    symbols.append(symbol)
                    if fifths is not None:
                        speller.set_key(fifths)
                if not opened:
                    same = len(written) == p
                    symbols.append(f"({p}" if p == 3 and same else f"({p}:{q}:{len(written)}")
                    opened = True
                pieces = split_length(length) if p == 1 else [length_symbol(length)]
                for number, piece in enumerate(pieces):
                    names = [speller.note(pitch) for pitch in pitches] or ["z"]
                    symbols += names if len(names) == 1 else ["[", *names, "]"]
                    symbols += [piece] if piece else []
                    if pitches and (tie or number + 1 < len(pieces)):
                        symbols.append("-")
            at += len(written)
        if not unfinished or end != edges[-1]:
            symbols += barline(signs[end], last=end == edges[-1])
        elif signs[end] or end - edges[-2] >= score.metre_at(edges[-2]).ticks:
            symbols += barline(signs[end])
    if fields:
        raise TokenError("metre or key changes inside a note; the ABC tokenizer can't hold that")
    return symbols


def barline(signs: list, first: bool = False, last: bool = False) -> list[str]:
    """The barline symbols for the signs at one place."""
    kinds = {sign.kind for sign in signs}
    if last:
        return [":|" if "repeat_end" in kinds else "|]"]
    found = []
    if "repeat_end" in kinds:
        found.append("::" if "repeat_start" in kinds else ":|")
    elif kinds & {"final", "double"}:
        found.append("|]" if "final" in kinds else "||")
    if "repeat_start" in kinds and "repeat_end" not in kinds:
        found.append("|:")
    if not found and not first:
        found.append("|")
    for sign in signs:
        if sign.kind == "ending":
            if sign.passes not in ((1,), (2,)):
                raise TokenError(
                    f"an ending for passes {sign.passes}; the ABC tokenizer holds first and second endings"
                )
            found.append(f"[{sign.passes[0]}")
    return found


def held_signs(score: Score) -> tuple[Sign, ...]:
    """The signs that the barline symbols hold: an ending stops at the next barline that is not a plain one."""
    edges = [*score.bars.tolist(), score.length]
    there: dict[int, list[Sign]] = {edge: [] for edge in edges}
    for sign in score.signs:
        there[next(edge for edge in edges if edge >= sign.onset)].append(sign)
    held: list[Sign] = []
    in_ending = False
    for at, signs in there.items():
        kinds = {sign.kind for sign in signs}
        if at == score.length:
            line = {"repeat_end"} if "repeat_end" in kinds else {"final"}
        else:
            line = kinds & {"repeat_start", "repeat_end"}
            if "repeat_end" not in kinds:
                line |= kinds & {"final"} or kinds & {"double"}
        endings = [sign.passes for sign in signs if sign.kind == "ending" and at < score.length]
        if in_ending and (line or endings):
            held.append(Sign(at, "ending_stop"))
            in_ending = False
        held += [Sign(at, kind) for kind in line]
        for passes in endings:
            held.append(Sign(at, "ending", passes))
            in_ending = True
    return tuple(held)


def length_symbol(duration: int) -> str:
    """The symbol for a written length in ticks, "" for the unit. Raises TokenError where there is none."""
    if duration == UNIT * GRID:
        return ""
    if duration % GRID or duration // GRID not in LENGTH_OF:
        raise TokenError(f"a length of {duration} ticks has no symbol; leave the tune out or quantise it")
    return LENGTH_OF[duration // GRID]


def split_length(duration: int) -> list[str]:
    """A length in ticks as length symbols, longest first, for notes to be tied."""
    found = []
    choices = sorted((*LENGTH_OF, UNIT), reverse=True)
    while duration >= GRID:
        grid = next(g for g in choices if g * GRID <= duration)
        found.append(length_symbol(grid * GRID))
        duration -= grid * GRID
    if duration:
        raise TokenError(f"{duration} ticks left over, finer than a 64th note; quantise the tune")
    return found


# --- spelling ---------------------------------------------------------------------------------------------------------


def spellings(symbols: np.ndarray) -> list[str]:
    """The text of each symbol where it stands: the first metre and key are header lines, later ones inline fields."""
    found = []
    in_header = True
    for symbol in symbols.tolist():
        if symbol in (START, END):
            found.append("")
        elif IS_METRE[symbol] or IS_KEY[symbol]:
            found.append(HEADER_TEXT[symbol] if in_header else BODY_TEXT[symbol])
            in_header = in_header and not IS_KEY[symbol]
        else:
            found.append(BODY_TEXT[symbol])
    return found


def spell_out(symbols: np.ndarray) -> str:
    return "".join(spellings(symbols))
