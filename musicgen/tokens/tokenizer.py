"""The tokenizer protocol: a score becomes steps, steps become a score, and a cursor knows what may come next.

A piece is an integer array of steps (T, F): T steps of F fields. Step 0 is the START step, the last is the END step.
A field's value 0 is NONE wherever F > 1: "this step does not use the field"; it carries no loss and is never sampled
in place of a real value.

Coordinates say where in the music a step leaves us (beat in the bar, bars left, ...). They are embedded beside the
step. `Tokenizer.locate` computes them for a whole piece in one vectorised pass, `Cursor.coordinates` step by step;
a property test holds the two equal. A coordinate's value 0 is HIDDEN: "not told".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import ClassVar, Protocol

import numpy as np

from musicgen.score import Score
from musicgen.tokens.ending import Ending
from musicgen.tokens.recall import Recall

NONE = 0
HIDDEN = 0


@dataclass(frozen=True)
class Field:
    """One field of a step: its name and what each of its values stands for."""

    name: str
    labels: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Coordinate:
    """One musical coordinate: values 0..size-1, where 0 is HIDDEN."""

    name: str
    size: int
    ahead: bool = False
    """It tells of what is still to come (bars left): hidden at random in training, always in evaluation."""


@dataclass(frozen=True)
class Hearing:
    """How pitch is heard in a tokenizer's steps: which values are pitches, where on the scale, and in whose line.

    A model that hears scores pitches by their distance from the last one of the same line, and remembers which
    classes of pitch sounded lately; both are the same in every key. See decoders.hearing.
    """

    octave: int
    """Places to the octave: 12 semitones, or 7 steps of the staff."""

    places: dict[int, np.ndarray]
    """field -> (size,) int: where on the scale each of its values stands, -1 for what is not a pitch."""

    kinds: dict[int, np.ndarray] = dataclass_field(default_factory=dict)
    """field -> (size,) int: what else tells two values of one place apart (an accidental; note-on and note-off).

    Only kind 0 .. `struck` - 1 are heard, others are scored alone. A field that is left out has kind 0 throughout.
    """

    struck: int = 1

    lane_field: int | None = None
    """The field that says which line a pitch belongs to (the part); None: each field of pitches is a line."""

    lanes: np.ndarray | None = None
    """(size of lane_field,) int: the line of each of its values."""

    rests: tuple[int, ...] = ()
    """Values of every field of pitches that silence its line."""

    sustained: bool = False
    """The same pitch again is the same note going on, and no new onset."""


class Cursor(Protocol):
    """A walk over the steps of one piece; it starts after the START step."""

    done: bool
    """True once the END step has been taken."""

    bar: int
    """Bars begun so far."""

    bars: int | None
    """How many the piece is to have, if that is settled."""

    ending: Ending | None
    """The chord that its last bar is to be; None: it ends as it likes."""

    def allowed(self, chosen: Sequence[int]) -> np.ndarray:
        """(size,) bool: the values that field number len(chosen) of the next step may take, given the fields before it.

        At least one value is always allowed, whatever allowed values were chosen before: no walk gets stuck.
        """
        ...

    def advance(self, step: Sequence[int]) -> None:
        """Take a step. Raises TokenError, naming the bar, if the grammar does not allow it."""
        ...

    def keep_course(self) -> None:
        """From here on hold metre, key, tempo and roster: a prompt has been walked, and its continuation is wanted."""
        ...

    def coordinates(self) -> tuple[int, ...]:
        """Where the last step left us, one value a coordinate."""
        ...


class Tokenizer(Protocol):
    """What training, sampling and finishing need of a tokenizer."""

    name: ClassVar[str]
    as_written: ClassVar[bool]
    """True if it encodes scores with their repeat signs, False if it wants them unfolded."""

    clock: ClassVar[bool]
    """True if its time is seconds, so that it takes music without usable bar lines (played, not typed)."""

    options: dict
    """Plain values from which TOKENIZERS[name](**options) builds this tokenizer again."""

    fields: tuple[Field, ...]
    coordinates: tuple[Coordinate, ...]
    start: tuple[int, ...]
    """The START step."""

    hearing: Hearing
    """Which values are pitches, for models that score them relative to what was heard."""

    recall: Recall
    """Which fields of a step make a passage the same, and which are recalled. See tokens.recall."""

    def quantise(self, score: Score) -> Score:
        """The score as the steps hold it: what decode(encode(score)) equals. Raises TokenError as `encode` does."""
        ...

    def encode(self, score: Score, unfinished: bool = False) -> np.ndarray:
        """(T, F) int16 steps, START to END. Raises TokenError where the score can't be held.

        unfinished: the score breaks off where it stops; END is left out, and a cursor that has walked the steps goes on
        from there.
        """
        ...

    def decode(self, steps: np.ndarray) -> Score:
        """The score that steps stand for; a missing END is forgiven (an unfinished piece)."""
        ...

    def locate(self, steps: np.ndarray) -> np.ndarray:
        """(T, C) int16: the coordinates after each step of a whole piece."""
        ...

    def masks(self, steps: np.ndarray, coordinates: np.ndarray, start: int, stop: int) -> dict[int, np.ndarray]:
        """{field: (stop - start, size) bool}: values that steps start..stop-1 of a whole piece could have had.

        What the grammar knows of any real score, in one vectorised pass: no model need spend probability on the rest.
        Each mask may use the steps before it and the fields before its own. steps: (T, F); coordinates: (T, C), as
        `locate` gives them; 1 <= start. Fields that are left out are not bounded.
        """
        ...

    def is_note(self, steps: np.ndarray) -> np.ndarray:
        """(T,) how many notes each step of a whole piece begins: 0 or 1 (bool), more where a step is a column."""
        ...

    def bars_begun(self, steps: np.ndarray) -> np.ndarray:
        """(T,) int64: how many bars have begun after each step; 0 before the first."""
        ...

    def describe(self, step: Sequence[int]) -> str:
        """One step in words, as `musicgen tokens` prints it: "36 violin 2 D5 12 mf"."""
        ...

    def transpose(self, steps: np.ndarray, semitones: int) -> np.ndarray | None:
        """The same piece `semitones` higher, or None where that is not possible."""
        ...

    def cursor(self, bars: int | None = None) -> Cursor:
        """A cursor just after START. `bars`: the piece has exactly that many bars; None: it ends when it likes."""
        ...

    def characters(self, steps: np.ndarray) -> int | None:
        """Length of the piece as text, where the steps are text; else None."""
        ...
