"""B parallel streams of steps, cut into chunks: what truncated BPTT reads.

Each row of a batch plays one piece after the other. A chunk never spans two pieces: where a row's piece ends, the rest
of the chunk is padding, and the row's next chunk begins the next piece and is marked fresh, so that the decoder forgets
its past. How long a chunk is is chosen each time, between half the asked length and the whole, so that little is padded
(see `chunk_length`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from musicgen.corpus.corpus import Corpus, Piece
from musicgen.tokens import HIDDEN, Tokenizer


@dataclass(frozen=True)
class Batch:
    """One chunk of every stream. `targets` are the steps that follow `steps`; `coordinates` belong to `steps`."""

    steps: np.ndarray  # (B, T, F) int64
    coordinates: np.ndarray  # (B, T, C) int64
    targets: np.ndarray  # (B, T, F) int64
    valid: np.ndarray  # (B, T) bool: False where a piece has ended
    notes: int  # how many of the valid targets are notes
    fresh: np.ndarray  # (B,) bool: rows that begin a piece here
    masks: dict[
        int, np.ndarray
    ]  # field -> (B, T, size) bool: values that `targets` could have had (see tokens.tokenizer)


@dataclass(frozen=True)
class Reading:
    """A whole piece as it is read."""

    steps: np.ndarray  # (N, F)
    coordinates: np.ndarray  # (N, C)
    notes: np.ndarray  # (N,) how many notes each step begins


@dataclass
class _Row:
    """What one stream is playing."""

    piece: int
    semitones: int
    hides: bool
    at: int
    reading: Reading

    @property
    def left(self) -> int:
        """Steps that are still to be predicted."""
        return len(self.reading.steps) - 1 - self.at


class Streams:
    """Endless batches over shuffled pieces, each piece once an epoch. Deterministic in `generator`, and resumable.

    transpose: (lowest, highest) semitones by which a piece may be moved, drawn anew each time it is played.
    hide: share of the plays in which coordinates that look ahead (bars left) are hidden, so that a model learns to end
    by itself too.
    """

    def __init__(
        self,
        corpus: Corpus,
        pieces: Sequence[Piece],
        *,
        streams: int,
        chunk: int,
        generator: np.random.Generator,
        transpose: tuple[int, int] = (0, 0),
        hide: float = 0.0,
    ) -> None:
        self.corpus, self.pieces = corpus, list(pieces)
        self.streams, self.chunk = streams, chunk
        self.generator = generator
        self.transpose, self.hide = transpose, hide
        self.queue: list[int] = []
        self.epoch = 0
        self.hidden = coordinates_ahead(corpus.tokenizer)
        self.rows: list[_Row] = []

    def __iter__(self) -> Streams:
        return self

    def __next__(self) -> Batch:
        if not self.rows:
            self.rows = [self._draw() for _ in range(self.streams)]
        self.rows = [row if row.left > 0 else self._draw() for row in self.rows]
        length = chunk_length([row.left for row in self.rows], self.chunk)
        batch = gather([(row.reading, row.at) for row in self.rows], length, self.corpus.tokenizer)
        for row in self.rows:
            row.at += length
        return batch

    def _draw(self) -> _Row:
        if not self.queue:
            self.queue = self.generator.permutation(len(self.pieces)).tolist()
            self.epoch += 1
        index = self.queue.pop()
        low, high = self.transpose
        semitones = int(self.generator.integers(low, high + 1))
        hides = bool(self.generator.random() < self.hide)
        return self._row(index, semitones, hides, 0)

    def _row(self, piece: int, semitones: int, hides: bool, at: int) -> _Row:
        tokenizer = self.corpus.tokenizer
        original = np.asarray(self.corpus.steps_of(self.pieces[piece]))
        steps = tokenizer.transpose(original, semitones) if semitones else original
        steps = original if steps is None else steps
        return _Row(piece, semitones, hides, at, read(steps, tokenizer, self.hidden if hides else ()))

    def state(self) -> dict:
        """Plain values from which `restore` goes on exactly here."""
        return {
            "queue": list(self.queue),
            "epoch": self.epoch,
            "rows": [[r.piece, r.semitones, r.hides, r.at] for r in self.rows],
            "generator": self.generator.bit_generator.state,
        }

    def restore(self, state: dict) -> None:
        self.queue, self.epoch = list(state["queue"]), state["epoch"]
        self.rows = [self._row(*row) for row in state["rows"]]
        self.generator.bit_generator.state = state["generator"]


def read(steps: np.ndarray, tokenizer: Tokenizer, hidden: Sequence[int] = ()) -> Reading:
    """A piece (N, F) with its coordinates, those in `hidden` withheld."""
    coordinates = tokenizer.locate(steps)
    if hidden:
        coordinates = coordinates.copy()
        coordinates[:, list(hidden)] = HIDDEN
    return Reading(steps, coordinates, tokenizer.is_note(steps))


def coordinates_ahead(tokenizer: Tokenizer) -> list[int]:
    """Indices of the coordinates that tell of what is still to come."""
    return [i for i, coordinate in enumerate(tokenizer.coordinates) if coordinate.ahead]


def chunk_length(remaining: Sequence[int], asked: int) -> int:
    """The chunk length, of those at which a row's piece ends or `asked` is reached, that pads least.

    remaining: steps left in each row, each at least 1. Nothing under half of `asked` is chosen, unless no row has more.
    The share of a batch that is used falls as a chunk grows past a row's end, so it is the shortest row that counts.
    """
    left = np.minimum(np.array(remaining), asked)
    enough = left[left * 2 >= asked]
    return int(enough.min() if len(enough) else left.max())


def gather(rows: Sequence[tuple[Reading, int]], length: int, tokenizer: Tokenizer) -> Batch:
    """A Batch of `length` steps from (piece, where in it) a row; rows that end early are padded."""
    shape = (len(rows), length)
    steps = np.zeros((*shape, rows[0][0].steps.shape[1]), dtype=np.int64)
    targets = np.zeros_like(steps)
    coordinates = np.zeros((*shape, rows[0][0].coordinates.shape[1]), dtype=np.int64)
    valid = np.zeros(shape, dtype=bool)
    notes = 0
    masks: dict[int, np.ndarray] = {}
    for b, (reading, at) in enumerate(rows):
        piece, located = reading.steps, reading.coordinates
        n = max(min(length, len(piece) - 1 - at), 0)
        steps[b, :n], targets[b, :n] = piece[at : at + n], piece[at + 1 : at + 1 + n]
        coordinates[b, :n] = located[at : at + n]
        valid[b, :n] = True
        notes += int(reading.notes[at + 1 : at + 1 + n].sum())
        for field, mask in tokenizer.masks(piece, located, at + 1, at + 1 + n).items() if n else ():
            masks.setdefault(field, np.ones((*shape, mask.shape[1]), dtype=bool))[b, :n] = mask
    return Batch(steps, coordinates, targets, valid, notes, np.array([at == 0 for _, at in rows]), masks)


def whole_pieces(
    corpus: Corpus, pieces: Sequence[Piece], *, streams: int, chunk: int, hide: bool = True
) -> Iterator[Iterator[Batch]]:
    """For evaluation: every piece once, whole, from its start, similar lengths side by side; the chunks of each group.

    `hide` withholds the coordinates that look ahead, which tell how long the piece will be. Each batch is made when it
    is asked for, so that what is held out may be large.
    """
    ordered = sorted(pieces, key=lambda p: (p.length, p.offset))
    hidden = coordinates_ahead(corpus.tokenizer) if hide else []
    for first in range(0, len(ordered), streams):
        chosen = [np.asarray(corpus.steps_of(piece)) for piece in ordered[first : first + streams]]
        rows = [read(steps, corpus.tokenizer, hidden) for steps in chosen]
        longest = max(len(steps) for steps in chosen) - 1
        yield _chunks(rows, longest, chunk, corpus.tokenizer)


def _chunks(rows: Sequence[Reading], longest: int, chunk: int, tokenizer: Tokenizer) -> Iterator[Batch]:
    for at in range(0, longest, chunk):
        yield gather([(row, at) for row in rows], min(chunk, longest - at), tokenizer)
