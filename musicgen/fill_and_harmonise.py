"""Two more jobs for a score that is there: a hole in it filled, and other parts written under it.

Typed in, typed out, like `workflows`; they print nothing. MIDI stays MIDI, MusicXML MusicXML and ABC ABC with all that
was given untouched; any other pair of suffixes is written anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from musicgen.checkpoint import Checkpoint, load_checkpoint
from musicgen.errors import ConfigError
from musicgen.formats import WRITERS, no_writer, write_score
from musicgen.formats.continuation import goes_on_in_place
from musicgen.formats.filling import check_adding, check_filling, write_filled, write_with_parts
from musicgen.given import never_over, one_tune, shipped
from musicgen.runs import choose_device
from musicgen.sampling import SamplingConfig
from musicgen.sampling.band import parts_to_add
from musicgen.sampling.fill import Filling, Hole, around, check_fills, fill, parse_hole
from musicgen.sampling.harmonise import Harmonisation, harmonise, usual_company
from musicgen.sampling.takes import Figures, measure_own
from musicgen.sampling.takes_files import take_paths, write_set
from musicgen.sampling.understanding import name_of


@dataclass(frozen=True)
class FillReport:
    """Each take's file, best first; `own` are the figures of what was given.

    bars: of the score. silent: parts that play in the hole alone, of which there is nothing to go by.
    """

    hole: Hole
    bars: int
    silent: tuple[str, ...]
    takes: tuple[Filling, ...]
    files: tuple[Path, ...]
    own: Figures
    checkpoint: Path


@dataclass(frozen=True)
class HarmoniseReport:
    """Each take's file, likeliest first, and the names of the parts that were added."""

    added: tuple[str, ...]
    takes: tuple[Harmonisation, ...]
    files: tuple[Path, ...]
    checkpoint: Path


def fill_score(
    score: str | Path,
    checkpoint: str | Path | None,
    out: str | Path,
    *,
    bars: str,
    takes: int = 1,
    seed: int = 0,
    config: SamplingConfig | None = None,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda bars: None,
) -> FillReport:
    """Write `bars` ("9-12") of a score anew into `out`; further takes beside it as NAME-take2 and so on.

    Bars are counted from 1, an upbeat too, as they are written. `checkpoint` None takes the one that ships.
    """
    score, out, hole = Path(score), Path(out), parse_hole(bars)
    targets = _targets(score, out, takes)
    written = one_tune(score)
    given = around(written, hole)
    in_place = goes_on_in_place(score, out)
    if in_place:
        check_filling(score, written, hole.first - 1, hole.last)
    loaded = _load(checkpoint, device)
    melodies = loaded.melodies()
    made = fill(
        written,
        loaded.model,
        loaded.tokenizer,
        hole=hole,
        takes=takes,
        seed=seed,
        config=config or SamplingConfig(),
        seen_parts=loaded.corpus["seen"].get("part"),
        melodies=melodies,
        progress=progress,
    )

    def write(number: int, path: Path) -> None:
        if in_place:
            write_filled(score, written, made[number].whole, hole.first - 1, hole.last, path)
        else:
            bars = [*written.bars.tolist(), written.length]
            new = bars[hole.first - 1], bars[hole.last]
            write_score(made[number].whole, path, mark_from=new[0], mark_until=new[1])

    write_set(targets, write)
    both = zip(written.parts, given.parts, strict=True)
    silent = tuple(name_of(before) for before, part in both if len(before.notes) and not len(part.notes))
    own = measure_own(given, melodies)
    return FillReport(hole, len(written.bars), silent, tuple(made), tuple(targets), own, loaded.folder)


def harmonise_score(
    score: str | Path,
    checkpoint: str | Path | None,
    out: str | Path,
    *,
    add: Sequence[str] = (),
    takes: int = 1,
    seed: int = 0,
    config: SamplingConfig | None = None,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda bars: None,
) -> HarmoniseReport:
    """Write further parts under all that a score has, into `out`; further takes beside it as NAME-take2 and so on.

    add: instruments, as `finish --add-part` takes them; none: strings, or what the model knows. `checkpoint` None takes
    the one that ships.
    """
    score, out = Path(score), Path(out)
    targets = _targets(score, out, takes)
    written = one_tune(score)
    in_place = goes_on_in_place(score, out)
    if in_place:
        check_adding(score, written)
    loaded = _load(checkpoint, device)
    seen = loaded.corpus["seen"].get("part")
    added = parts_to_add(tuple(add) or usual_company(written, seen), written.parts)
    made = harmonise(
        written,
        loaded.model,
        loaded.tokenizer,
        added=added,
        takes=takes,
        seed=seed,
        config=config or SamplingConfig(),
        seen_parts=seen,
        progress=progress,
    )

    def write(number: int, path: Path) -> None:
        if in_place:
            write_with_parts(score, written, made[number].whole, path)
        else:
            count = len(made[number].whole.parts)
            write_score(made[number].whole, path, mark_parts=range(count - len(added), count))

    write_set(targets, write)
    return HarmoniseReport(tuple(part.name for part in added), tuple(made), tuple(targets), loaded.folder)


def _load(checkpoint: str | Path | None, device: str) -> Checkpoint:
    """Raises CheckpointError, or FinishError for a model that knows one order alone."""
    loaded = load_checkpoint(checkpoint or shipped("orchestra"), choose_device(device))
    check_fills(loaded.tokenizer, loaded.config.training.preview > 0)
    return loaded


def _targets(score: Path, out: Path, takes: int) -> list[Path]:
    """The file of each take. Raises FormatError where one can't be written, or is the original."""
    if takes < 1:
        raise ConfigError(f"--takes {takes}: one at least")
    if out.suffix.lower() not in WRITERS:
        raise no_writer(out)
    targets = take_paths(out, takes)
    never_over(score, targets)
    return targets
