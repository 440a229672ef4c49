"""A training run: music is compiled, a model trained, and a checkpoint left that can be gone on with at any time.

Typed in, typed out; nothing is printed. The loop itself is in `training`; here is what surrounds it: files, Ctrl-C,
resuming, and several processes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from musicgen import checkpoint as checkpoints
from musicgen.checkpoint import build_model, load_checkpoint
from musicgen.config import RunConfig, load_config
from musicgen.corpus import Corpus, Piece, load_corpus, split_pieces
from musicgen.corpus.units import Progress, no_progress
from musicgen.errors import CheckpointError, ConfigError
from musicgen.render.beside import check_kinds
from musicgen.run_log import Samples, board_of, keep_metrics, log_metrics, what_is_left
from musicgen.score.lines import Melodies, as_known, find_lines
from musicgen.training.evaluate import Evaluation, unigram
from musicgen.training.loop import StepReport, Trainer
from musicgen.training.processes import Processes, started

Places = str | Path | Sequence[str | Path]
"""Where music is: a folder of scores, a file, a collection of music21's, a prepared corpus; or several of them."""

RESUMABLE = ("training.steps", "training.budget", "training.patience", "training.save_every")


@dataclass(frozen=True)
class TrainReport:
    """How a run went. `interrupted` if it was stopped before its end and can be resumed.

    Losses are of the best weights; under a budget they come after it, on a few of the pieces learnt from. Of several
    processes only the first (`process` 0) knows them.
    """

    folder: Path
    parameters: int
    device: str
    precision: str
    pieces: int
    valid_pieces: int
    step: int
    best_step: int
    seconds: float
    interrupted: bool
    stopped_early: bool
    clipped_share: float
    valid: Evaluation | None
    train: Evaluation | None
    unigram: Evaluation | None
    process: int = 0
    left: tuple[Path, ...] = ()
    """The curves and the folder of samples, where there are any."""


def choose_device(name: str) -> torch.device:
    """auto, cpu, cuda or mps to a device that is there. Raises ConfigError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name not in there:
        raise ConfigError(f"--device {name}: expected auto, cpu, cuda or mps")
    if not there[name]:
        raise ConfigError(f"--device {name}: this machine has none that PyTorch can use; leave it out, or use cpu")
    return torch.device(name)


def train(
    where: Places,
    config: RunConfig,
    out: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    tensorboard: bool = False,
    samples: Sequence[str] = (),
    on_files: Progress = no_progress,
    on_start: Callable[[Corpus, Trainer], None] = lambda corpus, trainer: None,
    on_step: Callable[[StepReport], None] = lambda report: None,
) -> TrainReport:
    """Compile `where`, train, and leave a checkpoint in `out`. Ctrl-C ends after the current step and saves.

    With `resume`, a run in `out` is taken up where its last save left it; `config` is then what `resume_config` gave.
    Started by torchrun, it is one run in several processes; the first alone calls back and writes, and all see the same
    files. samples: what is made of each evaluation's sample besides MIDI, kinds as in `render.beside.KINDS`. Raises
    CheckpointError if `out` holds a run and `resume` is not given, RenderError for a kind that is none.
    """
    out = Path(out)
    check_kinds(samples)
    there = (out / checkpoints.LAST).exists()
    if there and not resume:
        raise CheckpointError(f"{out}: already holds a run; go on with it by --resume, or choose another --out")
    if not there and (out / checkpoints.BEST).exists():
        raise CheckpointError(f"{out}: holds a checkpoint and no run that could go on; choose another --out")
    if resume and not there:
        raise CheckpointError(f"{out}: nothing to resume; leave --resume out to begin")
    if resume:
        saved = resume_config(out)
        if (saved.tokenizer, saved.model) != (config.tokenizer, config.model):
            raise CheckpointError(f"{out}: holds another model than the configuration says; resume with its own")
    with started(choose_device(device)) as processes, board_of(out, tensorboard and processes.first) as board:
        corpus = open_corpus(where, config, processes, on_files)
        trainer, pieces = make_trainer(corpus, config, processes)
        trainer.on_look = Samples(out, config, corpus.tokenizer, samples)
        if resume:
            _restore(trainer, corpus, out)
        processes.wait()  # all have looked at what was there
        if processes.first:
            checkpoints.begin(out, config, corpus.tokenizer, _corpus_facts(corpus, pieces, trainer.valid))
            if not (resume and (out / checkpoints.MELODIES).exists()):
                _keep_melodies(out, corpus, pieces)
            on_start(corpus, trainer)
        with _interruptible() as interrupted:
            for report in trainer.run(interrupted):
                if report.save:
                    _save(out, corpus, trainer, report)
                if processes.first:
                    board(report)
                    on_step(report)
        return _report(out, corpus, trainer, pieces, processes)


def resume_config(out: str | Path, changes: Sequence[str] = ()) -> RunConfig:
    """The configuration of the run in `out`, with changes to how long it goes on. Raises MusicgenError."""
    path = Path(out) / "config.yaml"
    if not path.exists():
        raise CheckpointError(f"{out}: nothing to resume; leave --resume out to begin")
    saved = load_config(path)
    for change in changes:
        if change.partition("=")[0].strip() not in RESUMABLE and load_config(path, [change]) != saved:
            raise ConfigError(f"--set {change}: a run that is resumed can change {', '.join(RESUMABLE)} only")
    return load_config(path, changes)


def open_corpus(where: Places, config: RunConfig, processes: Processes, on_files: Progress) -> Corpus:
    """The first process compiles, if need be; the others wait and open what it made."""
    tokenizer = config.tokenizer.build()
    corpus = load_corpus(where, tokenizer, progress=on_files) if processes.first else None
    processes.wait()
    return corpus or load_corpus(where, tokenizer)


def make_trainer(corpus: Corpus, config: RunConfig, processes: Processes) -> tuple[Trainer, list[Piece]]:
    """(trainer, the pieces that it learns from) with fresh weights."""
    pieces, valid = split_pieces(corpus.pieces, config.training.valid_share)
    torch.manual_seed(config.training.seed)
    model = build_model(config, corpus.tokenizer)
    device = processes.device or torch.device("cpu")
    return Trainer(model, corpus, pieces, valid, config.training, device, processes=processes), pieces


def _restore(trainer: Trainer, corpus: Corpus, out: Path) -> None:
    tensors, facts = checkpoints.read_tensors(out / checkpoints.LAST)
    if trainer.facts().keys() - facts.keys():
        raise CheckpointError(f"{out}: was saved by an earlier version, which can't be resumed; train again")
    if facts["corpus"] != corpus.key:
        raise CheckpointError(
            f"{out}: was trained on other music than {corpus.source} holds now; resume needs the same"
        )
    trainer.restore(tensors, facts)
    before, now = load_config(out / "config.yaml").training, trainer.config
    if now.steps > before.steps or (now.budget or 0) > (before.budget or 0):
        trainer.since_best = 0  # more was asked for: an early stop no longer holds
    if trainer.processes.first:
        keep_metrics(out, trainer.step)


def _save(out: Path, corpus: Corpus, trainer: Trainer, report: StepReport) -> None:
    """What a look found, and the state of the run: in this order, so that a run killed in between only repeats it."""
    tensors, facts = trainer.tensors(), {**trainer.facts(), "corpus": corpus.key}
    if not trainer.processes.first:
        return
    if report.looked:
        log_metrics(out, report, trainer)
    if report.is_best or not (out / checkpoints.BEST).exists():
        loss = trainer.best if report.is_best else None
        checkpoints.write_tensors(out / checkpoints.BEST, trainer.weights(), {"step": report.step, "loss": loss})
    checkpoints.write_tensors(out / checkpoints.LAST, tensors, facts)


def _report(out: Path, corpus: Corpus, trainer: Trainer, pieces: Sequence[Piece], processes: Processes) -> TrainReport:
    """The best look stands for the validation pieces. Pieces learnt from are evaluated now, after a budget has ended:
    as many as were held out, and under a budget no more than take about as long as a look."""
    stop, valid = trainer.stopped, trainer.valid
    left: tuple[Path, ...] = ()
    best_step, losses = trainer.step, dict[str, Evaluation | None](valid=None, train=None, unigram=None)
    if processes.first:
        best = load_checkpoint(out, trainer.device)
        best_step = best.facts.get("step", trainer.step)
        some = _spread(pieces, len(valid))
        if trainer.config.budget is not None:
            some = _within(some, trainer.held_out // processes.count)  # a look is shared out, and this is not
            some = some or [min(pieces, key=lambda piece: piece.length)]
        if not stop:
            losses["train"] = trainer.evaluated(best.model, some)
        left = what_is_left(out)
        if not stop and valid:
            losses["valid"] = trainer.best_look
            losses["unigram"] = unigram(corpus, pieces, valid)
    return TrainReport(
        folder=out,
        parameters=trainer.model.parameter_count,
        device=str(trainer.device),
        precision=trainer.chunk_loss.precision,
        pieces=len(pieces),
        valid_pieces=len(valid),
        step=trainer.step,
        best_step=best_step,
        seconds=trainer.seconds,
        interrupted=stop and not trainer.finished,
        stopped_early=trainer.finished and not trainer.pace.over,
        clipped_share=trainer.clipped / max(trainer.step, 1),
        **losses,
        process=processes.rank,
        left=left,
    )


def _spread(pieces: Sequence[Piece], count: int) -> Sequence[Piece]:
    """So many of them, but one at least, evenly over their order."""
    count = max(count, 1)
    return pieces[:: max(1, len(pieces) // count)][:count]


def _within(pieces: Sequence[Piece], steps: int) -> list[Piece]:
    """Some of them, evenly over their order, that have no more steps than that together; perhaps none."""
    found = []
    for piece in _spread(pieces, int(len(pieces) * min(1.0, steps / sum(piece.length for piece in pieces)))):
        if piece.length <= steps:
            found.append(piece)
            steps -= piece.length
    return found


def _corpus_facts(corpus: Corpus, pieces: Sequence[Piece], valid: Sequence[Piece]) -> dict:
    """For corpus.json: where the music came from, and which values of each field were met in training."""
    seen: list[set[int]] = [set() for _ in corpus.tokenizer.fields]
    for piece in pieces:
        steps = np.asarray(corpus.steps_of(piece))
        for values, column in zip(seen, steps.T, strict=True):
            values.update(np.unique(column).tolist())
    return {
        "source": corpus.source,
        "notes": sum(p.notes for p in pieces),
        "train": [{"title": p.title, "file": p.file, "fingerprint": p.fingerprint} for p in pieces],
        "valid": [{"title": p.title, "file": p.file, "fingerprint": p.fingerprint} for p in valid],
        "seen": {f.name: sorted(values) for f, values in zip(corpus.tokenizer.fields, seen, strict=True)},
    }


def _keep_melodies(out: Path, corpus: Corpus, pieces: Sequence[Piece]) -> None:
    """Leave the lines of the training pieces in the checkpoint: as many as there is room for, in the split's order.

    That order is one by hashes of the music, so that what is kept of a huge corpus is a fair sample of it.
    """
    rhythm = not corpus.tokenizer.clock  # of clock time, other tempi are other rhythms: intervals alone are compared
    blocks: list[np.ndarray] = []
    kept: list[int] = []
    room = checkpoints.MOST_TURNS
    for number in sorted(range(len(pieces)), key=lambda i: pieces[i].split):
        score = corpus.tokenizer.decode(np.asarray(corpus.steps_of(pieces[number])))
        block = as_known(find_lines(score), rhythm)
        if len(block) > room:
            break
        room -= len(block)
        blocks.append(block)
        kept.append(number)
    known = np.concatenate([*blocks, np.zeros(0, dtype=np.uint16)])
    ends = np.cumsum([len(block) for block in blocks], dtype=np.int64)
    titles = tuple(pieces[number].title for number in kept)
    checkpoints.write_melodies(out, Melodies(known, ends, titles, len(pieces), rhythm), kept)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Within it, a first Ctrl-C (or SIGTERM) only raises a flag; a second one ends it. Off the main thread: nothing."""
    flag = False
    kinds = (signal.SIGINT, signal.SIGTERM)

    def note(number, frame) -> None:
        nonlocal flag
        flag = True
        for kind, handler in before.items():
            signal.signal(kind, handler)

    before: dict[signal.Signals, Any] = {}
    try:
        for kind in kinds:
            before[kind] = signal.signal(kind, note)
    except ValueError:
        yield lambda: False
        return
    try:
        yield lambda: flag
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def as_plain(report: TrainReport) -> dict:
    """For JSON."""
    return {**asdict(report), "folder": str(report.folder), "left": [str(path) for path in report.left]}
