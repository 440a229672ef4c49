"""What musicgen does, one function a job: check, prepare, train, sample, finish, convert, tokens, evaluate.

Typed in, typed out; they print nothing. Progress goes to callbacks, faults are raised as MusicgenError. The command
line parses, calls one of these and prints; a notebook or a web page can do the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from musicgen import checkpoint as checkpoints
from musicgen.checkpoint import Checkpoint, build_model, load_checkpoint
from musicgen.config import RunConfig
from musicgen.corpus import FileReport, Piece, compile_corpus, find_source, load_corpus
from musicgen.corpus.units import PLAYABLE, Progress, as_wanted, no_progress
from musicgen.dry_run import dry_run as dry_run
from musicgen.errors import CheckpointError, ConfigError, FinishError, FormatError, MusicgenError, ScoreError
from musicgen.formats import WRITERS, no_writer, read_tunes, write_score
from musicgen.formats.continuation import check_continuation, goes_on_in_place, write_continuation
from musicgen.runs import Places, choose_device
from musicgen.runs import TrainReport as TrainReport
from musicgen.runs import resume_config as resume_config
from musicgen.runs import train as train
from musicgen.sampling import SamplingConfig, Take, Understanding, finish, understand
from musicgen.sampling.band import parts_to_add
from musicgen.sampling.finish import MOST_BARS, last_bars, make_prompt, parts_named
from musicgen.sampling.pieces import sample_scores
from musicgen.sampling.recalled import check_recall, parse_recall
from musicgen.sampling.takes import Figures, measure_own
from musicgen.sampling.takes_files import left_over, page_path, take_paths, write_set
from musicgen.sampling.takes_report import report_page
from musicgen.score import Score, unfold
from musicgen.score.themes import Theme, find_themes
from musicgen.score.timing import for_notation
from musicgen.tokens import TOKENIZERS, Tokenizer
from musicgen.training.adapt import Adaptation, adapt, held_out_loss
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
        begun = _one_score(Path(prime), loaded)
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


# --------------------------------------------------------------------------------------------------------------- finish


@dataclass(frozen=True)
class FinishReport:
    """What was read, and each take's file, best first; the fragment's own figures, and the page that holds all."""

    understanding: Understanding
    takes: tuple[Take, ...]
    files: tuple[Path, ...]
    own: Figures
    page: Path
    checkpoint: Path
    adaptation: Adaptation | None = None
    themes: tuple[Theme, ...] = ()
    removed: tuple[Path, ...] = ()
    """Further takes of an earlier run of the same name, which these do not replace."""
    new_only: bool = False
    """The files hold the continuation alone."""
    written: Score | None = None
    """The fragment as it is written, with its repeats, where the files hold it so and what is played is longer."""


def shipped(name: str) -> Path:
    """The folder of a checkpoint that comes with musicgen: in ./checkpoints, or beside the package.

    Raises CheckpointError where it lies in neither.
    """
    for home in (Path("checkpoints"), Path(__file__).resolve().parents[1] / "checkpoints"):
        if (home / name / checkpoints.BEST).exists():
            return home / name
    raise CheckpointError(
        f"no checkpoint was named, and checkpoints/{name} is not there; name one, or `make checkpoints`"
    )


def checkpoint_for(score: Score) -> Path:
    """The checkpoint that ships for such music: `folk` for one melody that ABC can write, else `orchestra`."""
    if sum(len(part.notes) > 0 for part in score.parts) == 1:
        try:
            make_prompt(score, TOKENIZERS["abc"]())
            return shipped("folk")
        except FinishError:
            pass
    return shipped("orchestra")


def finish_score(
    score: str | Path,
    checkpoint: str | Path | None,
    out: str | Path,
    *,
    bars: int | None = None,
    max_bars: int = MOST_BARS,
    takes: int = 1,
    new_only: bool = False,
    parts: Sequence[str] | None = None,
    add: Sequence[str] = (),
    free: bool = False,
    recall: Sequence[str] = (),
    adapting: bool = False,
    seed: int = 0,
    config: SamplingConfig | None = None,
    device: str = "cpu",
    on_understood: Callable[[Understanding], None] = lambda understanding: None,
    on_adapting: Callable[[int, int], None] = lambda done, total: None,
    progress: Callable[[int], None] = lambda bars: None,
) -> FinishReport:
    """Continue `score` by `bars` bars and write it to `out`; further takes beside it as NAME-take2 and so on.

    Without `bars` the model ends by itself, within `max_bars`. The figures of all takes stand in OUT.report.md; all of
    these files are written or none, and further takes of an earlier run of that name go. MIDI continued as MIDI keeps
    every original event, MusicXML as MusicXML and ABC as ABC every byte of the score. `new_only` writes the
    continuation alone, from the seam's bar on. `checkpoint` None takes the one that ships for such music. `parts`:
    names of those that go on, the others being silent from the seam on. `add`: instruments that join in there. `free`:
    metre, tempo and key may change. `recall`: bars of the fragment to bring back, as "1-4@17". `adapting` tunes a copy
    of the model to the fragment first.
    """
    score, out = Path(score), Path(out)
    if out.suffix.lower() not in WRITERS:
        raise no_writer(out)
    targets, page = take_paths(out, takes), page_path(out)
    never_over(score, [*targets, page])
    config = config or SamplingConfig()
    recalled = [parse_recall(words) for words in recall]
    written = one_tune(score)
    loaded = load_checkpoint(checkpoint or checkpoint_for(written), choose_device(device))
    fragment = written if loaded.tokenizer.as_written else unfold(written)
    understanding = understand(fragment)
    added = parts_to_add(add, fragment.parts)
    in_place = not new_only and goes_on_in_place(score, out)
    if in_place:
        check_continuation(score, written, fragment, added)
    on_understood(understanding)
    melodies = loaded.melodies()
    seen = loaded.corpus["seen"].get("part")
    only = None if parts is None else parts_named(fragment, parts)
    check_recall(recalled, fragment, loaded.tokenizer, bars)
    model, adaptation = loaded.model, None
    steps = make_prompt(fragment, loaded.tokenizer, seen, only, added, free).steps
    if added:  # of which the fragment says nothing
        steps = make_prompt(fragment, loaded.tokenizer, seen).steps
    if adapting:
        model, adaptation = adapt(model, loaded.tokenizer, steps, seed=seed, progress=on_adapting)
    if adaptation and adaptation.updates:
        own_nats = adaptation.after  # of bars that the copy had not learnt yet
    else:
        own_nats = held_out_loss(model, loaded.tokenizer, steps, last_bars(steps, loaded.tokenizer))
    made = finish(
        fragment,
        model,
        loaded.tokenizer,
        bars=bars,
        max_bars=max_bars,
        takes=takes,
        seed=seed,
        config=config,
        seen_parts=seen,
        only=only,
        added=added,
        free=free,
        recalled=recalled,
        melodies=melodies,
        own_nats=own_nats,
        progress=progress,
    )

    def write(number: int, path: Path) -> None:
        take = made[number]
        if new_only:
            write_score(from_seam(take), path)
        elif in_place:
            write_continuation(score, fragment, take.whole, path)
        else:
            write_score(take.whole, path, mark_from=take.seam)

    own, themes = measure_own(fragment, melodies, own_nats), find_themes(fragment)
    length = f"{bars} bars" if bars is not None else f"up to {max_bars} bars"
    asked = (
        f"{length} asked for, {takes} take{'s' * (takes > 1)}, seed {seed}",
        f"temperature {config.temperature:g}, top-k {config.top_k}, top-p {config.top_p:g}, min-p {config.min_p:g}, "
        f"{config.most_recalled} reminders",
        f"by the checkpoint {loaded.folder.name}, a {loaded.config.model.decoder}",
        *([f"{', '.join(part.name for part in added)} joined in"] if added else []),
        *(["metre, tempo and key were free to change"] if free else []),
        *(one.in_words for one in recalled),
        *([adaptation.in_words] if adaptation else ["not adapted: the fragment is too short"] if adapting else []),
    )
    text = report_page(understanding, own, made, [path.name for path in targets], asked, themes)
    removed = left_over(out, takes)
    write_set(targets, write, page, text, removed)
    return FinishReport(
        understanding,
        tuple(made),
        tuple(targets),
        own,
        page,
        loaded.folder,
        adaptation,
        tuple(themes),
        tuple(removed),
        new_only,
        written if in_place and out.suffix.lower() not in PLAYABLE and written.length != fragment.length else None,
    )


def from_seam(take: Take) -> Score:
    """The continuation alone, from the beginning of the bar it starts in."""
    from musicgen.score import bars_between

    first = take.new.bar_at(take.seam)
    return bars_between(take.new, min(first, len(take.new.bars) - 1), len(take.new.bars))


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


def never_over(source: str | Path, targets: Sequence[Path]) -> None:
    """Raises FormatError if one of the files to be written is the one that was read."""
    for target in targets:
        if target.resolve() == Path(source).resolve():
            raise FormatError(f"{target}: would be written over, and it is the original; choose another --out")


def _one_score(path: Path, loaded: Checkpoint) -> Score:
    """The one piece in a file, as the checkpoint's tokenizer wants it. Raises FinishError where there are several."""
    tune = one_tune(path)
    return tune if loaded.tokenizer.as_written else unfold(tune)


def one_tune(path: Path) -> Score:
    """The one piece in a file, as written. Raises FinishError where there are several, or no notes."""
    tunes = read_tunes(path)
    if len(tunes) > 1:
        raise FinishError(f"{path}: holds {len(tunes)} tunes; put the one to go on with into a file of its own")
    if isinstance(tunes[0], FormatError):
        raise tunes[0]
    if not tunes[0].note_count:
        raise FinishError(f"{path}: no notes, so there is nothing to continue; begin it, or use `sample`")
    return tunes[0]


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


# ----------------------------------------------------------------------------------------------------------------- demo


def bundled(home: str | Path) -> tuple[Path, Path, Path]:
    """(the scherzo fragment, checkpoints orchestra and folk) below `home`, the project's own folder."""
    home = Path(home)
    fragment = home / "data" / "schubert-d759" / "scherzo.musicxml"
    models = home / "checkpoints" / "orchestra", home / "checkpoints" / "folk"
    for path in (fragment, *(model / checkpoints.BEST for model in models)):
        if not path.exists():
            raise CheckpointError(f"{path}: not there; run the demo in the project's folder, or name it by --home")
    return fragment, *models
