"""How long is a piece as tokens? Steps and fields a note of each tokenizer, beside REMI and TSD of MidiTok 3.

    python benchmarks/economy.py music21:bach folder-of-piano-midi folder-of-symphonies
    python benchmarks/economy.py folder --limit 20 --vocabularies 2000 5000 --json economy.json

Every piece of each set is read once and given to each tokenizer of this program, and to MidiTok as the MIDI file that
`write_score` makes of it, repeats played out. A *step* is one position of the sequence a model reads: a row of fields
here, a token with MidiTok. *Fields a note* counts the values that are predicted: those that are not NONE; with one
field a step, the steps. Notes are counted as each tokenizer holds them (a note tied over a barline is one, doubled
notes are one, what is not held is not counted), in the pieces that it does not refuse: `of 100` says how many of the
set's notes those are. `worst` is the single piece with the most steps a note.

MidiTok is set to hold what `bars` holds, as near as it can: use_programs, use_tempos and use_time_signatures, all
instruments in one stream, 24 positions to the quarter for 8 quarters, 8 velocities, 50 tempi, the metres of `bars`,
equal successive tempi, metres and doubled notes removed. (It has no keys, and no end.) Byte-pair encoding is trained on
the same files that are then counted, which flatters it; its rows name the size of the vocabulary.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from musicgen.corpus import find_source
from musicgen.errors import MusicgenError
from musicgen.formats import write_score
from musicgen.formats.files import read_tunes
from musicgen.score import Score, unfold
from musicgen.tokens import NONE, TOKENIZERS, Tokenizer
from musicgen.tokens.bars_vocabulary import METRES, TEMPI

ASKED = 1.3
"""Steps a note that `bars` is to stay under."""
OPTIONS: dict[str, dict] = {"grid": {"voices": 4}}
"""What a tokenizer needs to be told, beside its defaults."""


@dataclass
class Count:
    """What one tokenizer made of one set."""

    music: str
    tokenizer: str
    vocabulary: int
    pieces: int = 0
    refused: int = 0
    notes: int = 0
    steps: int = 0
    fields: int = 0
    worst: float = 0.0
    worst_piece: str = ""

    def add(self, name: str, notes: int, steps: int, fields: int) -> None:
        self.pieces += 1
        self.notes, self.steps, self.fields = self.notes + notes, self.steps + steps, self.fields + fields
        if notes and steps / notes > self.worst:
            self.worst, self.worst_piece = steps / notes, name

    @property
    def steps_a_note(self) -> float:
        return self.steps / max(self.notes, 1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music", nargs="+", help="a folder, a file, or music21:NAME")
    parser.add_argument("--limit", type=int, help="at most so many files of each set, evenly spaced")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these of this program's tokenizers, without MidiTok")
    parser.add_argument(
        "--vocabularies", type=int, nargs="*", default=[2000, 5000], help="sizes for byte-pair encoding"
    )
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args(arguments)
    has_miditok = importlib.util.find_spec("miditok") is not None and not options.only
    if not has_miditok and not options.only:
        print("skipped: MidiTok is not installed (pip install 'miditok>=3'); its rows are left out\n")
    tokenizers = {name: kind(**OPTIONS.get(name, {})) for name, kind in TOKENIZERS.items()}
    tokenizers = {name: tokenizers[name] for name in options.only or tokenizers}
    counts: list[Count] = []
    for where in options.music:
        name = where if where.startswith("music21:") else Path(where).name
        with tempfile.TemporaryDirectory() as folder:
            pieces = list(read_pieces(where, options.limit))
            total = sum(unfold(score).note_count for _, score in pieces)
            print(f"### {name}: {len(pieces)} pieces, {total:,} notes\n")
            rows = [count_ours(name, tokenizer, pieces) for tokenizer in tokenizers.values()]
            if has_miditok:
                rows += count_miditok(name, pieces, Path(folder), options.vocabularies)
        print_table(rows, total)
        counts += rows
    own = [c for c in counts if c.tokenizer == "bars" and c.pieces]
    for c in own:
        verdict = "holds" if c.steps_a_note < ASKED else "DOES NOT HOLD"
        print(f"bars under {ASKED} steps a note on {c.music}: {c.steps_a_note:.3f}, {verdict}")
    if options.json:
        options.json.write_text(json.dumps([{**asdict(c), "steps_a_note": c.steps_a_note} for c in counts], indent=1))


def read_pieces(where: str, limit: int | None) -> Iterator[tuple[str, Score]]:
    """(name, score as written) of everything in a set that can be read and has notes."""
    source = find_source(where)
    files = source.scores
    if limit and len(files) > limit:
        files = tuple(files[i * len(files) // limit] for i in range(limit))
    for path in files:
        try:
            tunes = read_tunes(path)
        except MusicgenError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            continue
        for i, tune in enumerate(tunes):
            if isinstance(tune, Score) and tune.note_count:
                yield f"{path.relative_to(source.root)}" + (f" {i + 1}" if len(tunes) > 1 else ""), tune


def count_ours(music: str, tokenizer: Tokenizer, pieces: Sequence[tuple[str, Score]]) -> Count:
    """Steps and fields of every piece that one of this program's tokenizers holds."""
    count = Count(music, tokenizer.name, sum(field.size for field in tokenizer.fields))
    for name, score in pieces:
        try:
            steps = tokenizer.encode(score if tokenizer.as_written else unfold(score))
        except MusicgenError:
            count.refused += 1
            continue
        fields = int((steps != NONE).sum()) if steps.shape[1] > 1 else len(steps)
        count.add(name, tokenizer.decode(steps).note_count, len(steps), fields)
    return count


def count_miditok(music: str, pieces: Sequence[tuple[str, Score]], folder: Path, sizes: Sequence[int]) -> list[Count]:
    """REMI and TSD over the same pieces: plain, then with byte-pair encoding of each vocabulary size."""
    files = []
    for i, (name, score) in enumerate(pieces):
        try:
            write_score(score, folder / f"{i:05}.mid")
            files.append((name, folder / f"{i:05}.mid"))
        except MusicgenError as error:
            print(f"{name}: {error}", file=sys.stderr)
    counts = []
    for kind in ("REMI", "TSD"):
        tokenizer = miditok_tokenizer(kind)
        plain = Count(music, kind, len(tokenizer.vocab))
        notes = {}
        for name, path in files:
            try:
                tokens = tokenizer(path).tokens
            except Exception as error:  # whatever MidiTok raises for a file is a piece that it refuses
                print(f"{kind}: {name}: {type(error).__name__}: {error}", file=sys.stderr)
                plain.refused += 1
                continue
            notes[name] = sum(token.startswith(("Pitch_", "PitchDrum_")) for token in tokens)
            plain.add(name, notes[name], len(tokens), len(tokens))
        counts.append(plain)
        for size in sizes:
            if size <= len(tokenizer.vocab):
                print(f"skipped: {kind} has {len(tokenizer.vocab):,} tokens before any pair is merged, not {size:,}\n")
                continue
            learnt = miditok_tokenizer(kind)
            held = [path for name, path in files if name in notes]
            learnt.train(vocab_size=size, model="BPE", files_paths=held)
            merged = Count(music, f"{kind} + BPE", learnt.vocab_size, refused=plain.refused)
            for name, path in files:
                if name in notes:
                    ids = learnt(path).ids
                    merged.add(name, notes[name], len(ids), len(ids))
            counts.append(merged)
    return counts


def miditok_tokenizer(kind: str, as_it_comes: bool = False):
    """MidiTok's REMI or TSD, set to hold what `bars` holds (see the module's opening), or not set at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of settings that have no effect
        import miditok

        if as_it_comes:
            return getattr(miditok, kind)()
        metres: dict[int, list[int]] = {}
        for numerator, denominator in METRES:
            metres.setdefault(denominator, []).append(numerator)
        config = miditok.TokenizerConfig(
            pitch_range=(0, 127),
            drums_pitch_range=(0, 127),
            beat_res={(0, 8): 24, (8, 64): 1},
            num_velocities=8,
            use_programs=True,
            one_token_stream_for_programs=True,
            use_tempos=True,
            num_tempos=len(TEMPI),
            tempo_range=(TEMPI[0], TEMPI[-1]),
            log_tempos=True,
            use_time_signatures=True,
            time_signature_range=metres,
            remove_duplicated_notes=True,
            delete_equal_successive_tempo_changes=True,
            delete_equal_successive_time_sig_changes=True,
        )
        return getattr(miditok, kind)(config)


def print_table(rows: Sequence[Count], total: int) -> None:
    print("| tokenizer | values | pieces | refused | notes of 100 | steps a note | fields a note | worst | its piece |")
    print("|---|---|---|---|---|---|---|---|---|")
    for c in rows:
        head = f"| {c.tokenizer} | {c.vocabulary:,} | {c.pieces} | {c.refused} |"
        if not c.pieces:
            print(f"{head} | | | | |")
            continue
        print(
            f"{head} {100 * c.notes / total:.1f} | {c.steps_a_note:.3f} | {c.fields / max(c.notes, 1):.3f} | "
            f"{c.worst:.2f} | {c.worst_piece} |"
        )
    print(flush=True)


if __name__ == "__main__":
    main()
