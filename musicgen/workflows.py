"""What musicgen does, one function a job: check, prepare, train, sample, finish, convert, tokens, evaluate.

Typed in, typed out; they print nothing. Progress goes to callbacks, faults are raised as MusicgenError. The command
line parses, calls one of these and prints; a notebook or a web page can do the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from musicgen.checkpoint import Checkpoint, build_model, load_checkpoint
from musicgen.config import RunConfig
from musicgen.corpus import FileReport, Piece, compile_corpus, find_source, load_corpus
from musicgen.corpus.units import PLAYABLE, Progress, as_wanted, no_progress
from musicgen.dry_run import dry_run as dry_run
from musicgen.errors import CheckpointError, ConfigError, FormatError, MusicgenError, ScoreError
from musicgen.finishing import FinishReport as FinishReport
from musicgen.finishing import finish_score as finish_score
from musicgen.formats import WRITERS, no_writer, read_tunes, write_score
from musicgen.given import checkpoint_for, never_over, one_score, one_tune, shipped
from musicgen.runs import Places, choose_device
from musicgen.runs import TrainReport as TrainReport
from musicgen.runs import resume_config as resume_config
from musicgen.runs import train as train
from musicgen.sampling import SamplingConfig, finish
from musicgen.sampling.pieces import sample_scores
from musicgen.score import Score, unfold
from musicgen.score.timing import for_notation
from musicgen.tokens import Tokenizer
from musicgen.training.evaluate import Evaluation, evaluate

# ---------------------------------------------------------------------------------------------------------------- check


@dataclass(frozen=True)
class CheckReport:
    """What is in a folder, and what training on it would cost."""

    source: str
    files: tuple[FileReport, ...]
    ignored: tuple[str, ...]
    pieces: tuple[Piece, ...]
    notes: int
    left_out: int
    """Notes of the pieces kept that the tokenizer does not hold."""
    bars: int
    steps: int
    metres: dict[str, int]
    tempi: dict[str, int]
    instruments: dict[str, int]
    duplicates: int
    near_duplicates: int
    """Pieces that are nearly the same music as another: they are kept, on one side of the split."""
    near_groups: int
    parameters: int
    epoch_updates: int
    training_mib: float


def commonest(found: Counter[str]) -> dict[str, int]:
    """What was counted, the most frequent first; by name where counts are equal."""
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def check(where: Places, config: RunConfig, progress: Progress = no_progress) -> CheckReport:
    """Read music as training would, and report. What was skipped, and why, is in each file's report."""
    corpus = load_corpus(where, config.tokenizer.build(), progress=progress)
    metres, tempi, instruments = Counter[str](), Counter[str](), Counter[str]()
    for piece in corpus.pieces:
        metres.update(piece.metres)
        tempi.update(f"{bpm:g}" for bpm in piece.tempi_bpm)
        instruments.update(set(piece.instruments))
    model = build_model(config, corpus.tokenizer)
    train = config.training
    steps = int(sum(p.length for p in corpus.pieces))
    near = corpus.near_duplicates
    # weights, gradients and two moments; what the forward pass keeps: roughly a dozen vectors a step and layer
    weights = 4 * 4 * model.parameter_count
    kept = (
        4
        * train.streams
        * train.chunk
        * config.model.dim
        * (12 * config.model.layers + 8 * len(corpus.tokenizer.fields))
    )
    return CheckReport(
        source=corpus.source,
        files=corpus.files,
        ignored=corpus.ignored,
        pieces=corpus.pieces,
        notes=sum(p.notes for p in corpus.pieces),
        left_out=sum(p.left_out for p in corpus.pieces),
        bars=sum(p.bars for p in corpus.pieces),
        steps=steps,
        metres=commonest(metres),
        tempi=commonest(tempi),
        instruments=commonest(instruments),
        duplicates=sum(f.duplicates for f in corpus.files),
        near_duplicates=near[0],
        near_groups=near[1],
        parameters=model.parameter_count,
        epoch_updates=math.ceil(steps / (train.streams * train.chunk)),
        training_mib=(weights + kept) / 2**20,
    )


# -------------------------------------------------------------------------------------------------------------- prepare


@dataclass(frozen=True)
class PrepareReport:
    """A compiled corpus and where it lies."""

    folder: Path
    files: tuple[FileReport, ...]
    pieces: int
    notes: int
    steps: int
    megabytes: float
    was_there: bool


def prepare(
    where: str | Path,
    config: RunConfig,
    *,
    out: str | Path | None = None,
    shard: tuple[int, int] = (1, 1),
    workers: int | None = None,
    progress: Progress = no_progress,
) -> PrepareReport:
    """Compile a folder of scores on all cores, into `out` or the cache; a run that was stopped is gone on with.

    shard: (k, n) takes every n-th score from the k-th on, so that n machines can share a huge folder; training reads
    the shards by listing their folders.
    """
    source = find_source(where, shard)
    corpus = compile_corpus(
        source, config.tokenizer.build(), out=Path(out) if out else None, workers=workers, progress=progress
    )
    return PrepareReport(
        folder=corpus.folders[0],
        files=corpus.files,
        pieces=len(corpus.pieces),
        notes=sum(p.notes for p in corpus.pieces),
        steps=sum(p.length for p in corpus.pieces),
        megabytes=sum(store.nbytes for store in corpus.stores) / 1e6,
        was_there=corpus.cached,
    )


# --------------------------------------------------------------------------------------------------------------- sample


@dataclass(frozen=True)
class Written:
    """One piece that was written: its files, and what is in it."""

    files: tuple[Path, ...]
    bars: int
    notes: int
    parts: int
    seconds: float
    nats_per_note: float


def sample_pieces(
    checkpoint: str | Path | None,
    out: str | Path,
    *,
    count: int = 4,
    bars: int | None = None,
    most_bars: int = 64,
    seed: int = 0,
    config: SamplingConfig | None = None,
    prime: str | Path | None = None,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda bars: None,
) -> list[Written]:
    """Write `count` new pieces as MIDI (and ABC where the tokenizer is ABC) into the folder `out`.

    bars: exactly so many; None: the model ends when it likes, within `most_bars`. prime: a score whose music the pieces
    begin with (its bars count in `bars`).
    """
    if checkpoint is None:
        checkpoint = shipped("orchestra") if prime is None else checkpoint_for(one_tune(Path(prime)))
    loaded = load_checkpoint(checkpoint, choose_device(device))
    config = config or SamplingConfig()
    out = Path(out)
    if prime is not None:
        begun = one_score(Path(prime), loaded)
        never_over(prime, [path for i in range(count) for path in _sample_paths(out, i, loaded)])
        if bars is not None and bars <= len(begun.bars):
            raise ConfigError(f"--bars {bars}: {prime} alone has {len(begun.bars)}; ask for more")
        more = (bars or min(most_bars, 2 * len(begun.bars))) - len(begun.bars)
        takes = finish(
            begun,
            loaded.model,
            loaded.tokenizer,
            bars=max(more, 1),
            takes=count,
            seed=seed,
            config=config,
            seen_parts=loaded.corpus["seen"].get("part"),
            progress=progress,
        )
        return [_write_piece(take.whole, out, i, loaded, take.nats_per_note) for i, take in enumerate(takes)]
    sampled = sample_scores(
        loaded.model,
        loaded.tokenizer,
        count=count,
        bars=bars,
        most_bars=most_bars,
        seed=seed,
        config=config,
        progress=progress,
    )
    written = []
    for i, (score, nats) in enumerate(sampled):
        score = replace(score, title=f"{loaded.folder.name} {seed}-{i + 1}")
        written.append(_write_piece(score, out, i, loaded, nats / max(score.note_count, 1)))
    return written


def _sample_paths(out: Path, index: int, loaded: Checkpoint) -> list[Path]:
    suffixes = (".mid", ".abc") if loaded.tokenizer.name == "abc" else (".mid",)
    return [out / f"{index + 1:02d}{suffix}" for suffix in suffixes]


def _write_piece(score: Score, out: Path, index: int, loaded: Checkpoint, nats: float) -> Written:
    files = _sample_paths(out, index, loaded)
    for path in files:
        write_score(score, path)
    played = unfold(score) if score.signs else score
    return Written(
        tuple(files), len(score.bars), score.note_count, len(score.parts), played.seconds_at(played.length), nats
    )


# ------------------------------------------------------------------------------------------------- convert and evaluate


@dataclass(frozen=True)
class ConvertReport:
    """The files written, and a line for each tune that could not be read."""

    files: tuple[Path, ...]
    skipped: tuple[str, ...]


def convert(source: str | Path, target: str | Path, as_written: bool = False) -> ConvertReport:
    """One format to another, by suffix. A file of several tunes becomes several files, NAME-1 and so on by their place.

    Repeats are played out, unless `as_written` keeps their signs (MIDI has none).
    """
    source, target = Path(source), Path(target)
    if target.suffix.lower() not in WRITERS:
        raise no_writer(target)
    tunes = read_tunes(source)
    targets = [target.with_name(f"{target.stem}-{i + 1}{target.suffix}") for i in range(len(tunes))]
    targets = [target] if len(tunes) == 1 else targets
    never_over(source, targets)
    if not any(isinstance(tune, Score) for tune in tunes):
        raise next(tune for tune in tunes if isinstance(tune, FormatError))
    files = []
    for tune, path in zip(tunes, targets, strict=True):
        if isinstance(tune, Score):
            score = tune if as_written else unfold(tune)
            if source.suffix.lower() in PLAYABLE and target.suffix.lower() not in PLAYABLE:
                score = _for_notation(score, source)
            write_score(score, path)
            files.append(path)
    return ConvertReport(tuple(files), tuple(str(tune) for tune in tunes if isinstance(tune, FormatError)))


def _for_notation(score: Score, source: Path) -> Score:
    try:
        return for_notation(score)
    except ScoreError as error:
        raise FormatError(f"{source}: can't be written as notes on a page: {error}") from error


@dataclass(frozen=True)
class TokensReport:
    """A piece as its tokenizer has it: the steps, each in words, and the bar each stands in (from 1; 0: before)."""

    title: str
    fields: tuple[str, ...]
    steps: np.ndarray
    words: tuple[str, ...]
    bars: np.ndarray
    notes: int


def tokens(source: str | Path, config: RunConfig) -> tuple[list[TokensReport], list[str]]:
    """(every piece of a file as steps, a line for each that can't be read or held). Raises FormatError."""
    tokenizer = config.tokenizer.build()
    found, skipped = [], []
    for tune in read_tunes(source):
        if isinstance(tune, FormatError):
            skipped.append(str(tune))
            continue
        try:
            found.append(_as_tokens(tune, source, tokenizer))
        except MusicgenError as error:
            skipped.append(f"{source}: {tune.title or Path(source).stem}: {error}")
    return found, skipped


def _as_tokens(tune: Score, source: str | Path, tokenizer: Tokenizer) -> TokensReport:
    score = as_wanted(tune, tokenizer, source)
    steps = tokenizer.encode(score)
    return TokensReport(
        title=score.title or Path(source).stem,
        fields=tuple(field.name for field in tokenizer.fields),
        steps=steps,
        words=tuple(tokenizer.describe(step) for step in steps),
        bars=tokenizer.bars_begun(steps),
        notes=int(tokenizer.is_note(steps).sum()),
    )


@dataclass(frozen=True)
class EvaluateReport:
    """Held-out loss of a checkpoint on a folder. Pieces it was trained on are left out and counted."""

    evaluation: Evaluation
    trained_on: int
    skipped: tuple[FileReport, ...]


def evaluate_checkpoint(
    checkpoint: str | Path, where: Places, *, device: str = "cpu", progress: Progress = no_progress
) -> EvaluateReport:
    """Nats a step, a note and a character on whole unseen pieces, each from its own start, not told their length."""
    loaded = load_checkpoint(checkpoint, choose_device(device))
    corpus = load_corpus(where, loaded.tokenizer, progress=progress)
    trained = {p["fingerprint"] for p in loaded.corpus["train"]}
    unseen = [p for p in corpus.pieces if p.fingerprint not in trained]
    if not unseen:
        raise CheckpointError(f"{corpus.source}: {loaded.folder} was trained on all {len(corpus.pieces)} of its pieces")
    return EvaluateReport(
        evaluate(loaded.model, corpus, unseen),
        len(corpus.pieces) - len(unseen),
        tuple(f for f in corpus.files if f.skipped),
    )
