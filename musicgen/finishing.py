"""Finish the symphony, as a job: a score's file is read, continued, and written with the figures of every take.

Typed in, typed out, like the rest of `workflows`; nothing is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from musicgen.checkpoint import load_checkpoint
from musicgen.corpus.units import PLAYABLE
from musicgen.formats import WRITERS, no_writer, write_score
from musicgen.formats.continuation import check_continuation, goes_on_in_place, write_continuation
from musicgen.given import checkpoint_for, never_over, one_tune
from musicgen.runs import choose_device
from musicgen.sampling import SamplingConfig, Take, Understanding, finish, understand
from musicgen.sampling.band import parts_to_add
from musicgen.sampling.finish import MOST_BARS, last_bars, make_prompt, parts_named
from musicgen.sampling.recalled import check_recall, parse_recall
from musicgen.sampling.takes import Figures, measure_own
from musicgen.sampling.takes_files import left_over, page_path, take_paths, write_set
from musicgen.sampling.takes_report import report_page
from musicgen.score import Score, bars_between, unfold
from musicgen.score.themes import Theme, find_themes
from musicgen.training.adapt import Adaptation, adapt, held_out_loss


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
    first = take.new.bar_at(take.seam)
    return bars_between(take.new, min(first, len(take.new.bars) - 1), len(take.new.bars))
