"""The hidden ending: the last quarter of unseen pieces is taken away, every model writes its own, and all are measured.

    python benchmarks/hidden_ending.py --tunes irish.abc --orchestra data/orchestra --out out/endings
    python benchmarks/hidden_ending.py --tunes irish.abc --out out/endings --minutes 5 --adapt --json endings.json

Of each music some pieces are held out, by work: nearly the same music is on one side. rnn, lstm and transformer learn
from the rest, from one configuration, each for the same time (a checkpoint that is there already is used as it is), and
an n-gram over the same steps beside them. Pieces are cut at the barline after three quarters of their bars.

*Nats a note* are of the true ending, given the beginning; the model is not told how long it will be. Then each writes
as many bars as the true ending has, and what it wrote is measured like the true ending itself, like the ending of
another piece of the same music, and like the last bars before the cut played once more:
- *likeness*: the mean overlap of pitch classes, note lengths, melodic intervals and density with the beginning (0..1);
- *leap*: semitones from each part's last note before the seam to its first after it, the mean of all parts;
- *repeats*: share of its bars that repeat one of its own; *copied*: the longest run of notes, in any key, that stands
  in a piece trained on; *quoted*: the same from the beginning; both as the median over the pieces;
- *valid*: what was written is read back with the same notes; *bars*: exactly as many as asked; *cadence*: it closes on
  the tonic chord, root lowest. Shares of the pieces.
With --adapt, nats a note once more for copies of the models that were tuned to each beginning.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as musicgen.cli does: waiting threads do not spin for long

import numpy as np
import torch
from step_ngram import StepNgram
from tqdm import tqdm

from musicgen import workflows
from musicgen.checkpoint import Checkpoint, load_checkpoint
from musicgen.config import load_config
from musicgen.corpus import Corpus, Piece, load_corpus
from musicgen.errors import FinishError, MusicgenError
from musicgen.formats import read_score, write_score
from musicgen.sampling import SamplingConfig, finish
from musicgen.sampling.prompts import PROMPTS, heard_as
from musicgen.sampling.takes import from_seam, measure
from musicgen.score import Score, bars_between, clip, unfold
from musicgen.score.lines import Melodies
from musicgen.score.tonality import find_tonality
from musicgen.training.adapt import adapt, held_out_loss

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RECIPES = {"tunes": "irish", "chorales": "chorales-grid", "piano": "orchestra", "orchestra": "orchestra"}
"""Music -> the configuration NAME-lstm.yaml, of which only the decoder is changed."""
DECODERS = ("rnn", "lstm", "transformer")
NGRAM_STEPS = 40_000
"""So many steps of training pieces the n-gram counts: its tables are large."""
FIGURES = ("likeness", "leap", "repeats", "copied", "quoted", "valid", "bars", "cadence")


@dataclass(frozen=True)
class Hidden:
    """One unseen piece, cut: what is shown, what is hidden."""

    title: str
    steps: np.ndarray  # (T, F) of the whole
    first: int  # number of the first hidden step
    fragment: Score
    ending: Score
    """The hidden bars as a score of their own."""
    notes: int
    """That are hidden."""

    @property
    def bars(self) -> int:
        return len(self.ending.bars)


def hide(corpus: Corpus, piece: Piece) -> Hidden | None:
    """A piece cut after three quarters of its bars; None where that leaves no notes on one side."""
    tokenizer = corpus.tokenizer
    steps = np.asarray(corpus.steps_of(piece))
    score = replace(tokenizer.decode(steps), title=piece.title)
    cut = 3 * len(score.bars) // 4
    if cut < 4:
        return None
    seam = int(score.bars[cut])
    fragment, ending = clip(score, seam), bars_between(score, cut, len(score.bars))
    first = int(np.searchsorted(tokenizer.bars_begun(steps), cut + 1))
    notes = int(tokenizer.is_note(steps)[first:].sum())
    return Hidden(piece.title, steps, first, fragment, ending, notes) if fragment.note_count and notes else None


def seam_leap(fragment: Score, ending: Score) -> float | None:
    """Semitones from the last note of each part to its next, the highest where several start; drums left out."""
    leaps = []
    for old, new in zip(fragment.parts, ending.parts, strict=False):
        if not old.is_drum and len(old.notes) and len(new.notes):
            last = old.notes["pitch"][old.notes["onset"] == old.notes["onset"].max()].max()
            next_one = new.notes["pitch"][new.notes["onset"] == new.notes["onset"].min()].max()
            leaps.append(abs(int(next_one) - int(last)))
    return float(np.mean(leaps)) if leaps else None


def closes(fragment: Score, ending: Score) -> bool:
    """Whether what sounds at the end is of the tonic chord of the piece, its root lowest."""
    tonality = find_tonality(fragment)
    notes = np.concatenate([part.notes for part in ending.parts if not part.is_drum] or [ending.parts[0].notes[:0]])
    if tonality is None or not len(notes):
        return False
    stops = notes["onset"] + notes["duration"]
    last = notes[stops >= stops.max() - 60]
    return int(last["pitch"].min()) % 12 == tonality.tonic and set((last["pitch"] % 12).tolist()) <= set(tonality.triad)


def figures_of(hidden: Hidden, ending: Score, melodies: Melodies | None, whole: Score | None = None) -> dict:
    """The figures of one ending, named as in FIGURES. whole: what was written, with its beginning."""
    found = measure(hidden.fragment, ending, melodies=melodies)
    bars = len(ending.bars) if whole is None else len(whole.bars) - len(hidden.fragment.bars)  # a begun bar is filled
    return {
        "likeness": found.likeness,
        "leap": seam_leap(hidden.fragment, ending),
        "repeats": found.repetition,
        "copied": found.copied.notes if found.copied else None,
        "quoted": found.quoted.notes,
        "valid": None if whole is None else reads_back(whole),
        "bars": bars == hidden.bars,
        "cadence": closes(hidden.fragment, ending),
    }


def reads_back(score: Score) -> bool:
    """Whether a written score has the same onsets and pitches when it is read."""

    def sounding(of: Score) -> list[tuple[int, int]]:
        return sorted({(int(n["onset"]), int(n["pitch"])) for part in of.parts for n in part.notes})

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "written.mid"
        write_score(score, path)
        return sounding(read_score(path)) == sounding(unfold(score) if score.signs else score)


def repeated_bars(hidden: Hidden) -> Score:
    """The last bars before the seam once more, as many as are hidden."""
    count = len(hidden.fragment.bars)
    return bars_between(hidden.fragment, max(count - hidden.bars, 0), count)


def write_by_ngram(ngram: StepNgram, hidden: Hidden, loaded: Checkpoint, seed: int) -> tuple[Score, Score]:
    """(with its beginning, alone) of a continuation that the n-gram drew under the same grammar."""
    tokenizer = loaded.tokenizer
    seen = loaded.corpus["seen"].get("part")
    prompt = PROMPTS[tokenizer.name](hidden.fragment, heard_as(hidden.fragment, tokenizer), tokenizer, seen)
    cursor = prompt.cursor(prompt.bars + hidden.bars)
    for step in prompt.steps[1:].tolist():
        cursor.advance(step)
    prompt.hold(cursor)
    drawn = ngram.write(prompt.steps, copy.deepcopy(cursor), np.random.default_rng(seed))
    return prompt.join(drawn, hidden.bars)


def mean(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return float(np.mean(known)) if known else None


def summary(rows: Sequence[dict]) -> dict:
    """Means over the pieces; medians of what is copied and quoted."""
    found = {name: mean([row[name] for row in rows]) for name in FIGURES}
    for name in ("copied", "quoted"):
        known = [row[name] for row in rows if row[name] is not None]
        found[name] = float(np.median(known)) if known else None
    return found


def one_music(music: str, where: str, options: argparse.Namespace) -> list[dict]:
    """The rows of one music's table, printed as they are found."""
    trained: dict[str, Checkpoint] = {}
    for decoder in options.decoders:
        folder = options.out / f"{music}-{decoder}"
        if not (folder / "best.safetensors").exists():
            changes = [f"model.decoder={decoder}", f"training.budget={options.minutes * 60:.0f}s", *options.changes]
            workflows.train(where, load_config(CONFIGS / f"{RECIPES[music]}-lstm.yaml", changes), folder)
        trained[decoder] = load_checkpoint(folder)
    some = next(iter(trained.values()))
    corpus = load_corpus(where, some.tokenizer)
    learnt = {piece["fingerprint"] for piece in some.corpus["train"]}
    unseen = sorted((p for p in corpus.pieces if p.fingerprint not in learnt), key=lambda p: p.split)
    pieces = [h for p in unseen if p.length <= options.longest and (h := hide(corpus, p))][: options.pieces]
    if len(pieces) < 2:
        raise SystemExit(f"{where}: {len(pieces)} pieces were held out that can be cut; two are needed")
    notes = sum(hidden.notes for hidden in pieces)
    print(f"\n### {music}: {len(learnt)} pieces to learn from, {len(pieces)} endings of {notes:,} notes\n")
    print("| ending | nats a note | adapted | " + " | ".join(FIGURES) + " |")
    print("|---|" + "---:|" * (len(FIGURES) + 2), flush=True)
    rows: list[dict] = []

    def tell(name: str, found: Sequence[dict], nats: float | None = None, adapted: float | None = None) -> None:
        rows.append({"music": music, "ending": name, "nats": nats, "adapted": adapted, **summary(found)})
        values = [rows[-1][key] for key in ("nats", "adapted", *FIGURES)]
        print(f"| {name} | " + " | ".join("" if v is None else f"{v:.3g}" for v in values) + " |", flush=True)

    melodies = some.melodies()
    tell("the composer's own", [figures_of(h, h.ending, melodies) for h in pieces])
    others = [*pieces[1:], pieces[0]]
    tell("another piece's", [figures_of(h, o.ending, melodies) for h, o in zip(pieces, others, strict=True)])
    tell("the last bars again", [figures_of(h, repeated_bars(h), melodies) for h in pieces])

    ngram = StepNgram([field.size for field in corpus.tokenizer.fields])
    room = NGRAM_STEPS
    for piece in (p for p in corpus.pieces if p.fingerprint in learnt):
        if (room := room - piece.length) > 0:
            ngram.learn(np.asarray(corpus.steps_of(piece)))
    nats = sum(ngram.cost(h.steps, h.first) for h in pieces) / notes

    def by_ngram(hidden: Hidden) -> dict:
        whole, new = write_by_ngram(ngram, hidden, some, options.seed)
        return figures_of(hidden, from_seam(new, hidden.fragment.length), melodies, whole)

    tell("n-gram", each(pieces, by_ngram, "n-gram"), nats)
    for decoder, loaded in trained.items():
        model, tokenizer = loaded.model, loaded.tokenizer
        nats = sum(held_out_loss(model, tokenizer, h.steps, h.first) * h.notes for h in pieces) / notes
        adapted = None
        if options.adapt:
            costs = []
            for h in tqdm(pieces, desc=f"{decoder} adapts", file=sys.stderr):
                tuned, _ = adapt(model, tokenizer, h.steps[: h.first], seed=options.seed)
                costs.append(held_out_loss(tuned, tokenizer, h.steps, h.first) * h.notes)
            adapted = sum(costs) / notes

        def by_network(hidden: Hidden, loaded: Checkpoint = loaded) -> dict:
            take = finish(
                hidden.fragment,
                loaded.model,
                loaded.tokenizer,
                bars=hidden.bars,
                seed=options.seed,
                config=SamplingConfig(top_p=0.95),
                seen_parts=loaded.corpus["seen"].get("part"),
            )[0]
            return figures_of(hidden, from_seam(take.new, hidden.fragment.length), melodies, take.whole)

        tell(decoder, each(pieces, by_network, decoder), nats, adapted)
    return rows


def each(pieces: Sequence[Hidden], finish_one: Callable[[Hidden], dict], name: str) -> list[dict]:
    """The figures of every piece's ending; where none can be written, that is said, and it counts as not valid."""
    found = []
    for hidden in tqdm(pieces, desc=f"{name} writes", file=sys.stderr):
        try:
            found.append(finish_one(hidden))
        except (FinishError, MusicgenError) as error:
            print(f"{hidden.title}: {error}", file=sys.stderr)
            found.append({**dict.fromkeys(FIGURES), "valid": False, "bars": False, "cadence": False})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for music in RECIPES:
        parser.add_argument(f"--{music}", metavar="WHERE", help="a folder, a file, or music21:NAME")
    parser.add_argument("--out", type=Path, required=True, help="checkpoints go to OUT/MUSIC-DECODER")
    parser.add_argument("--decoders", nargs="+", choices=DECODERS, default=list(DECODERS))
    parser.add_argument("--minutes", type=float, default=3.0, help="of wall-clock to train each")
    parser.add_argument("--pieces", type=int, default=20, help="endings of each music, at most")
    parser.add_argument("--longest", type=int, default=6000, help="steps of a piece, at most")
    parser.add_argument("--adapt", action="store_true", help="nats a note of copies tuned to each beginning, too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="NAME=VALUE", help="of every model"
    )
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    chosen = {music: getattr(options, music) for music in RECIPES if getattr(options, music)}
    if not chosen:
        parser.error("name some music with " + ", ".join(f"--{music}" for music in RECIPES))
    torch.set_num_threads(1)
    rows: list[dict] = []
    for music, where in chosen.items():
        rows += one_music(music, where, options)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
