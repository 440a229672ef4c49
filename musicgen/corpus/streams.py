"""B parallel streams of steps, cut into chunks: what truncated BPTT reads.

Pieces are laid end to end in each row, so a chunk may hold the end of one piece and the beginning of the next, every
chunk of training is as long as asked, and nothing is padding whatever the lengths. `fresh` marks the steps that begin
a piece: there a decoder forgets what its row held before.

Which row plays which piece is settled ahead (`Order`), and each play draws from a generator of its own that is named by
its place in that order. So a stream can be taken up anywhere from two numbers a row, and each of several processes can
read its own rows without hearing of the others.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from musicgen.corpus.corpus import Corpus, Piece
from musicgen.errors import ConfigError
from musicgen.tokens import HIDDEN, NONE, PREVIEWS, Tokenizer
from musicgen.tokens.recall import recall as recall_steps

ORDER, PLAY, NOISE = range(3)
"""What a generator is drawn for; part of its name."""


@dataclass(frozen=True)
class Batch:
    """One chunk of every row. `targets` are the steps that follow `steps`; `coordinates` belong to `steps`."""

    steps: np.ndarray  # (B, T, F) int64
    coordinates: np.ndarray  # (B, T, C) int64
    targets: np.ndarray  # (B, T, F) int64
    valid: np.ndarray  # (B, T) bool: which targets count; streams pad nothing, so all
    notes: int  # how many of the targets are notes
    fresh: np.ndarray  # (B, T) bool: steps that begin a piece
    masks: dict[
        int, np.ndarray
    ]  # field -> (B, T, size) bool: values that `targets` could have had (see tokens.tokenizer)


@dataclass(frozen=True)
class Reading:
    """A whole piece as it is read. `hidden`: indices of the coordinates that are withheld from the model."""

    steps: np.ndarray  # (N, F)
    coordinates: np.ndarray  # (N, C), nothing hidden: the grammar's masks are made from them; (N, C + R) with recall
    notes: np.ndarray  # (N,) how many notes each step begins
    hidden: tuple[int, ...] = ()


Cut = tuple[Reading, int, int]
"""(piece, first step, how many of its steps) of what a row reads."""


@dataclass
class _Row:
    """What one stream is playing: which play of the order, and how far it has come."""

    place: int
    at: int
    reading: Reading

    @property
    def left(self) -> int:
        """Steps that are still to be predicted."""
        return len(self.reading.steps) - 1 - self.at


class Order:
    """Which piece each row plays after the last: each piece once an epoch, in an order drawn anew for each epoch.

    The next piece goes to the row that is free first, going by the lengths in the manifest: so rows stay level, and the
    order is a function of lengths, rows and seed alone. lengths: (P,) steps a piece. served: the rows that will ask; a
    play of another row is passed over.
    """

    def __init__(self, lengths: Sequence[int], rows: int, seed: int, served: Iterable[int]) -> None:
        self.lengths, self.seed = lengths, seed
        self.free = [(0, row) for row in range(rows)]
        self.waiting: dict[int, deque[tuple[int, int]]] = {row: deque() for row in served}
        self.given = 0
        self.shuffled: list[int] = []

    def after(self, row: int) -> tuple[int, int]:
        """(place in the order, piece) of the next play of that row."""
        while not self.waiting[row]:
            epoch, place = divmod(self.given, len(self.lengths))
            if place == 0:
                self.shuffled = np.random.default_rng([self.seed, ORDER, epoch]).permutation(len(self.lengths)).tolist()
            piece = self.shuffled[place]
            when, first = heapq.heappop(self.free)
            heapq.heappush(self.free, (when + self.lengths[piece], first))
            if first in self.waiting:
                self.waiting[first].append((self.given, piece))
            self.given += 1
        return self.waiting[row].popleft()


class Streams:
    """Endless batches over shuffled pieces, each piece once an epoch. Deterministic in `generator`, and resumable.

    transpose: (lowest, highest) semitones by which a piece may be moved, drawn anew each time it is played.
    hide: share of the plays in which coordinates that look ahead (bars left) are hidden, so that a model learns to end
    by itself too. hide_each: the same for each other coordinate, drawn for each by itself. without: names of
    coordinates that are always hidden; raises ConfigError where there is none of that name.
    mask: share of the values in `steps` (each field of each step by itself, but for the steps that begin a piece) that
    are put out, to NONE; of one field, to the value of START, which nothing else has in mid-piece. Targets, coordinates
    and the grammar's masks stay.
    preview: share of the plays in which music is told ahead of its turn (see tokens.bars_preview). Raises ConfigError
    where the tokenizer has no previews.
    recall: coordinates have what the piece recalls after each step beside them (see tokens.recall).
    part: (k, n) reads the k-th of n equal shares of the rows, for the k-th of n processes, from 0.
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
        hide_each: float = 0.0,
        without: Iterable[str] = (),
        mask: float = 0.0,
        preview: float = 0.0,
        recall: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.corpus, self.pieces = corpus, list(pieces)
        self.streams, self.chunk = streams, chunk
        self.transpose, self.hide, self.hide_each, self.mask = transpose, hide, hide_each, mask
        self.recall, self.preview = recall, preview
        if preview and corpus.tokenizer.name not in PREVIEWS:
            raise ConfigError(
                f"training.preview: {preview:g}: the `{corpus.tokenizer.name}` tokenizer has no previews; set it to 0, "
                f"or use {', '.join(PREVIEWS)}"
            )
        self.without = coordinates_named(corpus.tokenizer, without)
        k, n = part
        self.numbers = range(streams)[k * streams // n : (k + 1) * streams // n]
        self._begin(int(generator.integers(2**63)))

    def _begin(self, seed: int) -> None:
        self.seed, self.chunks = seed, 0
        self.order = Order([max(piece.length - 1, 1) for piece in self.pieces], self.streams, seed, self.numbers)
        self.rows: list[_Row | None] = [None] * len(self.numbers)

    @property
    def epoch(self) -> int:
        """Of the latest piece begun, from 1; 0 before the first."""
        return max((row.place // len(self.pieces) + 1 for row in self.rows if row is not None), default=0)

    def __iter__(self) -> Streams:
        return self

    def __next__(self) -> Batch:
        cuts = [self._cut(i) for i in range(len(self.rows))]
        batch = gather(cuts, self.chunk, self.corpus.tokenizer)
        if self.mask:
            for steps, fresh, number in zip(batch.steps, batch.fresh, self.numbers, strict=True):
                noise = np.random.default_rng([self.seed, NOISE, self.chunks, number])
                steps[(noise.random(steps.shape) < self.mask) & ~fresh[:, None]] = NONE
        self.chunks += 1
        return batch

    def _cut(self, i: int) -> list[Cut]:
        """The next `chunk` steps of a row: what is left of its piece, and of as many more as that takes."""
        cuts: list[Cut] = []
        wanted = self.chunk
        while wanted:
            row = self.rows[i]
            if row is None or not row.left:
                place, piece = self.order.after(self.numbers[i])
                row = self.rows[i] = _Row(place, 0, self._read(place, piece))
            count = min(row.left, wanted)
            cuts.append((row.reading, row.at, count))
            row.at += count
            wanted -= count
        return cuts

    def _read(self, place: int, piece: int) -> Reading:
        tokenizer = self.corpus.tokenizer
        generator = np.random.default_rng([self.seed, PLAY, place])
        low, high = self.transpose
        semitones = int(generator.integers(low, high + 1))
        ahead, others = generator.random() < self.hide, generator.random(len(tokenizer.coordinates)) < self.hide_each
        told = [ahead if c.ahead else other for c, other in zip(tokenizer.coordinates, others, strict=True)]
        hidden = {i for i, hides in enumerate(told) if hides} | self.without
        original = np.asarray(self.corpus.steps_of(self.pieces[piece]))
        moved = tokenizer.transpose(original, semitones) if semitones else original
        steps = original if moved is None else moved
        if self.preview and generator.random() < self.preview:
            steps = PREVIEWS[tokenizer.name](steps, generator)
        return read(steps, tokenizer, hidden, self.recall)

    def state(self) -> dict:
        """Plain values from which `restore` goes on exactly here."""
        rows = [None if row is None else [row.place, row.at] for row in self.rows]
        return {"seed": self.seed, "chunks": self.chunks, "rows": rows}

    def restore(self, state: dict) -> None:
        """state: of all rows, also where this reads a share of them."""
        self._begin(state["seed"])
        self.chunks = state["chunks"]
        for i, number in enumerate(self.numbers):
            if state["rows"][number] is None:
                continue
            wanted, at = state["rows"][number]
            place, piece = self.order.after(number)
            while place < wanted:
                place, piece = self.order.after(number)
            self.rows[i] = _Row(place, at, self._read(place, piece))


def read(steps: np.ndarray, tokenizer: Tokenizer, hidden: Iterable[int] = (), recall: bool = False) -> Reading:
    """A piece (N, F) with its coordinates, those in `hidden` to be withheld, and with `recall` what it recalls."""
    coordinates = tokenizer.locate(steps)
    if recall:
        coordinates = np.concatenate([coordinates, recall_steps(steps, tokenizer.recall)], axis=1)
    return Reading(steps, coordinates, tokenizer.is_note(steps), tuple(sorted(hidden)))


def coordinates_ahead(tokenizer: Tokenizer) -> set[int]:
    """Indices of the coordinates that tell of what is still to come."""
    return {i for i, coordinate in enumerate(tokenizer.coordinates) if coordinate.ahead}


def coordinates_named(tokenizer: Tokenizer, names: Iterable[str]) -> set[int]:
    """Indices of the coordinates of these names. Raises ConfigError, saying which names there are."""
    known = [coordinate.name for coordinate in tokenizer.coordinates]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"training.without_coordinates: {tokenizer.name} has no coordinate {name!r}; known: {', '.join(known)}"
            )
    return {known.index(name) for name in names}


def gather(rows: Sequence[Sequence[Cut]], length: int, tokenizer: Tokenizer) -> Batch:
    """A Batch of `length` steps, of which each row is laid out of cuts of pieces that add up to as many."""
    shape = (len(rows), length)
    steps = np.zeros((*shape, len(tokenizer.fields)), dtype=np.int64)
    targets = np.zeros_like(steps)
    width = next((cut[0].coordinates.shape[1] for cuts in rows for cut in cuts), len(tokenizer.coordinates))
    coordinates = np.zeros((*shape, width), dtype=np.int64)
    fresh = np.zeros(shape, dtype=bool)
    notes = 0
    masks: dict[int, np.ndarray] = {}
    for b, cuts in enumerate(rows):
        begin = 0
        for reading, at, count in cuts:
            here, end = slice(begin, begin + count), at + count
            steps[b, here], targets[b, here] = reading.steps[at:end], reading.steps[at + 1 : end + 1]
            coordinates[b, here] = reading.coordinates[at:end]
            coordinates[b, here, list(reading.hidden)] = HIDDEN
            fresh[b, begin] = at == 0
            notes += int(reading.notes[at + 1 : end + 1].sum())
            for field, mask in tokenizer.masks(reading.steps, reading.coordinates, at + 1, end + 1).items():
                masks.setdefault(field, np.ones((*shape, mask.shape[1]), dtype=bool))[b, here] = mask
            begin += count
    return Batch(steps, coordinates, targets, np.ones(shape, dtype=bool), notes, fresh, masks)


def whole_pieces(
    corpus: Corpus,
    pieces: Sequence[Piece],
    *,
    streams: int,
    chunk: int,
    hide: bool = True,
    without: Iterable[str] = (),
    recall: bool = False,
) -> Iterator[Batch]:
    """For evaluation: every piece once, whole, laid end to end in up to `streams` rows of nearly one length.

    The longest piece first goes to the row that is shortest (Graham 1969). The last chunks end where a row ends, and a
    row that has ended is left out of the batches that follow: the first rows stay, so `state[: len(batch.steps)]` is
    theirs, and nothing is padding. `hide` withholds the coordinates that look ahead, which tell how long the piece will
    be; `without` others, by name; `recall` adds what a piece recalls. Pieces are read as they are reached, so that what
    is held out may be large.
    """
    hidden = coordinates_named(corpus.tokenizer, without) | (coordinates_ahead(corpus.tokenizer) if hide else set())
    pieces = [piece for piece in pieces if piece.length > 1]
    shortest = [(0, row) for row in range(min(streams, len(pieces)))]
    rows: list[list[Piece]] = [[] for _ in shortest]
    for piece in sorted(pieces, key=lambda p: (-p.length, p.store, p.offset)):
        total, row = heapq.heappop(shortest)
        rows[row].append(piece)
        heapq.heappush(shortest, (total + piece.length - 1, row))
    rows.sort(key=lambda row: -sum(piece.length - 1 for piece in row))
    left = [sum(piece.length - 1 for piece in row) for row in rows]
    waiting = [iter(row) for row in rows]
    playing: list[tuple[Reading, int] | None] = [None] * len(rows)
    while left:
        length = min(chunk, left[-1])
        cuts: list[list[Cut]] = [[] for _ in left]
        for b in range(len(left)):
            wanted = length
            while wanted:
                if (now := playing[b]) is None:
                    steps = np.asarray(corpus.steps_of(next(waiting[b])))
                    now = (read(steps, corpus.tokenizer, hidden, recall), 0)
                reading, at = now
                count = min(len(reading.steps) - 1 - at, wanted)
                cuts[b].append((reading, at, count))
                playing[b] = (reading, at + count) if at + count < len(reading.steps) - 1 else None
                wanted -= count
        yield gather(cuts, length, corpus.tokenizer)
        left = [steps for steps in (total - length for total in left) if steps]
