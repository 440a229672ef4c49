"""How fast is reading? Ratios to MidiTok 3, pretty_midi and music21, and of opening a compiled corpus to compiling it.

    python benchmarks/reading.py --long folder-of-piano-midi --short folder-of-tunes-midi --abc music21:ryansMammoth \\
        --compile music21:bach folder-of-piano-midi --stream folder-of-symphonies --json reading.json

Each option measures one thing on a set, and prints a line for it; what is not asked for is not measured.

    --long, --short  MIDI file to token ids, `bars` against MidiTok's REMI (asked: 50 times on long files, 10 on short
                     ones); reading alone against pretty_midi.PrettyMIDI (asked: 200, 70). Of --long only files of more
                     than 2,000 notes count. REMI is set to hold what `bars` holds, as in economy.py; a second line
                     shows it as it comes, without tempi and programs.
    --abc            ABC file to Score, repeats played out, against music21.converter.parse and expandRepeats, its cache
                     passed over (asked: 60). What music21 can't expand is counted as parsed.
    --compile        opening a corpus again against compiling it with one worker (asked: 500): by its own folder, and by
                     that of the scores, which are then looked at one by one.
    --stream         private memory that a million notes cost in training streams, in a process of its own, over what
                     batches of 16 pieces take anyway (asked: a few MB). It is read from /proc, so on Linux only.
                     Pages of the mapped file are told apart: the system takes them back whenever it needs them.

All in one process, theirs right after ours (five times, being short), file by file, in several rounds; of each file's
times the best counts, and a set's ratio is that of the sums. --files takes that many of each set, evenly spaced.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from economy import miditok_tokenizer  # the benchmark beside this one

from musicgen.corpus import Corpus, Streams, compile_corpus, find_source, load_corpus
from musicgen.errors import MusicgenError
from musicgen.formats import abc, midi
from musicgen.score import unfold
from musicgen.tokens import BarsTokenizer

LONG_NOTES = 2000
OURS_A_ROUND = 5
"""What takes a thousandth of a second is more easily disturbed than what takes a tenth, so it gets more tries."""
MEMORY = Path("/proc/self/smaps_rollup")


@dataclass(frozen=True)
class Claim:
    """One line of the table: how many times faster than `beside`, and how many times were asked."""

    what: str
    music: str
    files: int
    beside: str
    milliseconds: float
    theirs_milliseconds: float
    ratio: float
    lowest: float
    """The lowest ratio of a single file."""
    asked: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", help="a folder of MIDI with files of more than 2,000 notes")
    parser.add_argument("--short", help="a folder of MIDI")
    parser.add_argument("--abc", help="a folder or file of ABC, or music21:NAME")
    parser.add_argument("--compile", nargs="+", default=[], metavar="MUSIC", help="folders, files or music21:NAME")
    parser.add_argument("--stream", help="a folder, a file, or music21:NAME, best of a million notes")
    parser.add_argument("--files", type=int, default=40, help="so many files of each set of MIDI and ABC")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", type=Path, help="where --stream keeps its compiled corpus, for another time")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--in-child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.in_child:
        print(json.dumps(stream_one_epoch(options.in_child, options.cache)))
        return
    claims: list[Claim] = []
    if options.long or options.short or options.abc or options.compile:
        print("| what | music | files | beside | ms | theirs, ms | times faster | slowest file | asked | |")
        print("|---|---|---|---|---|---|---|---|---|---|")
    if options.long:
        files = spaced(long_files(options.long), options.files)
        claims += midi_claims(files, Path(options.long).name, options.rounds, asked=(50, 200))
    if options.short:
        files = spaced(midi_files(options.short), options.files)
        claims += midi_claims(files, Path(options.short).name, options.rounds, asked=(10, 70))
    if options.abc:
        claims.append(abc_claim(options.abc, options.files, options.rounds))
    claims += [claim for where in options.compile for claim in opening_claims(where, options.rounds)]
    memory = stream_memory(options.stream, options.cache) if options.stream else None
    if options.json:
        figures = {"claims": [asdict(claim) for claim in claims], "memory": memory}
        options.json.write_text(json.dumps(figures, indent=1))


def midi_files(where: str) -> list[Path]:
    return [p for p in find_source(where).scores if p.suffix.lower() in (".mid", ".midi")]


def long_files(where: str) -> list[Path]:
    found = []
    for path in midi_files(where):
        try:
            if midi.read(path)[0].note_count > LONG_NOTES:
                found.append(path)
        except MusicgenError as error:
            print(error, file=sys.stderr)
    return found


def spaced(files: Sequence[Path], count: int) -> list[Path]:
    """At most `count` of the files, evenly spaced."""
    return [files[i * len(files) // count] for i in range(count)] if len(files) > count else list(files)


def midi_claims(files: list[Path], music: str, rounds: int, asked: tuple[int, int]) -> list[Claim]:
    """MIDI to token ids against MidiTok, reading against pretty_midi."""
    import pretty_midi

    bars = BarsTokenizer()

    def encode(path: Path) -> np.ndarray:
        return bars.encode(midi.read(path)[0])

    claims = []
    good = [path for path in files if all(works(do, path) for do in (encode, pretty_midi.PrettyMIDI))]
    if importlib.util.find_spec("miditok") is None:
        print("skipped: MidiTok is not installed (pip install 'miditok>=3')", file=sys.stderr)
    else:
        same, plain = miditok_tokenizer("REMI"), miditok_tokenizer("REMI", as_it_comes=True)
        both = [path for path in good if works(same, path) and works(plain, path)]
        for label, remi in (("MidiTok REMI, as `bars`", same), ("MidiTok REMI, as it comes", plain)):
            claims.append(compared("MIDI to ids", music, both, encode, label, remi, rounds, asked[0]))
    label = "pretty_midi"
    claims.append(compared("MIDI to Score", music, good, midi.read, label, pretty_midi.PrettyMIDI, rounds, asked[1]))
    return claims


def abc_claim(where: str, count: int, rounds: int) -> Claim:
    """ABC to Score, repeats played out, against music21."""
    import music21

    def read(path: Path) -> list:
        return [unfold(score) for score in abc.read(path)]

    def parse(path: Path) -> None:
        parsed = music21.converter.parse(path, format="abc", forceSource=True)
        for one in parsed.scores if isinstance(parsed, music21.stream.Opus) else [parsed]:
            try:
                one.expandRepeats()
            except music21.exceptions21.Music21Exception:  # badly formed to its mind: parsed all the same
                logging.debug("%s is not expanded", path)

    files = spaced([p for p in find_source(where).scores if p.suffix.lower() == ".abc"], count)
    good = [path for path in files if works(read, path) and works(parse, path)]
    return compared("ABC to Score", where, good, read, "music21", parse, min(rounds, 3), 60)


def works(do: Callable, path: Path) -> bool:
    """False, and a line on the standard error, where one of the two can't read the file: neither is timed on it."""
    try:
        do(path)
    except Exception as error:  # other people's readers raise what they like
        print(f"{path.name} is left out: {type(error).__name__}: {str(error)[:100]}", file=sys.stderr)
        return False
    return True


def compared(
    what: str, music: str, files: Sequence[Path], ours: Callable, beside: str, theirs: Callable, rounds: int, asked: int
) -> Claim:
    """Both on every file in turn, `rounds` times, ours several times in each; prints the line."""
    if not files:
        raise SystemExit(f"{what}, {music}: no file that both can read")
    best = np.full((2, len(files)), np.inf)
    for _ in range(rounds):
        for i, path in enumerate(files):
            for which, do, times in ((0, ours, OURS_A_ROUND), (1, theirs, 1)):
                for _ in range(times):
                    start = time.perf_counter()
                    do(path)
                    best[which, i] = min(best[which, i], (time.perf_counter() - start) * 1000)
    own, other = best.sum(axis=1)
    claim = Claim(what, music, len(files), beside, own, other, other / own, float((best[1] / best[0]).min()), asked)
    show(claim)
    return claim


def show(claim: Claim) -> None:
    print(
        f"| {claim.what} | {claim.music} | {claim.files} | {claim.beside} | {claim.milliseconds:,.1f} | "
        f"{claim.theirs_milliseconds:,.0f} | {claim.ratio:.1f} | {claim.lowest:.1f} | {claim.asked:g} | "
        f"{'holds' if claim.ratio >= claim.asked else 'falls short'} |",
        flush=True,
    )


def opening_claims(where: str, rounds: int) -> list[Claim]:
    """Opening a compiled corpus against compiling it: by its folder, as after `musicgen prepare`, and by the folder of
    scores, each of which is then looked at, for it may have changed."""
    name = where if where.startswith("music21:") else Path(where).name
    claims = []
    with tempfile.TemporaryDirectory() as cache:

        def by_scores() -> Corpus:
            return compile_corpus(find_source(where), BarsTokenizer(), cache=Path(cache), workers=1)

        start = time.perf_counter()
        compiled = by_scores()
        compiling = (time.perf_counter() - start) * 1000

        def by_folder() -> Corpus:
            return load_corpus(compiled.folders[0], BarsTokenizer())

        for what, again in (("opening again", by_folder), ("the same, scores looked at", by_scores)):
            times = []
            for _ in range(max(rounds, 20)):  # milliseconds: the first few are of cold caches
                start = time.perf_counter()
                opened = again()
                times.append((time.perf_counter() - start) * 1000)
                if not opened.cached or opened.pieces != compiled.pieces:
                    raise SystemExit(f"{where}: the corpus was not opened again, but compiled")
            own = min(times)
            ratio = compiling / own
            claims.append(Claim(what, name, len(compiled.files), "compiling", own, compiling, ratio, ratio, 500))
            show(claims[-1])
    return claims


def stream_memory(where: str, cache: Path | None) -> dict | None:
    """MiB a million notes that an epoch of streams costs a process of its own; None where it can't be measured."""
    if not MEMORY.exists():
        print(f"\nskipped: memory is read from {MEMORY}, which is not there")
        return None
    with tempfile.TemporaryDirectory() as folder:
        cache = cache or Path(folder)
        compile_corpus(find_source(where), BarsTokenizer(), cache=cache, workers=1)
        command = [sys.executable, __file__, "--in-child", where, "--cache", str(cache)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    million = found["notes"] / 1e6
    print(
        f"\nAn epoch of {found['notes']:,} notes, {found['batches']:,} batches of 16 streams and 256 steps; "
        f"steps.bin is {found['file_mib']:.1f} MiB.\n"
        f"Private memory over that before opening: {found['opened']:.1f} MiB once opened, {found['few']:.1f} at most "
        f"while the 16 longest pieces are streamed\n(a batch is {found['batch_mib']:.1f}), {found['all']:.1f} at most "
        f"while all are. So the corpus costs {found['corpus']:.1f} MiB, "
        f"{found['corpus'] / million:.1f} a million notes (asked: a few MB).\n"
        "Pages of the mapped file, which the system takes back when it needs them: "
        f"{found['clean']:.1f} MiB, {found['clean'] / million:.1f} a million notes."
    )
    return found


def stream_one_epoch(where: str, cache: Path) -> dict:
    """What the child does: opens the corpus, reads one epoch of batches, and looks at its own memory as it goes.

    An epoch of the longest pieces alone comes first: what batches take, whatever the corpus, is not the corpus's.
    """
    tokenizer = BarsTokenizer()
    generator = np.random.default_rng(1)
    source = find_source(where)
    before = private_mib()
    corpus = compile_corpus(source, tokenizer, cache=cache)
    if not corpus.cached:
        raise SystemExit(f"{where}: the corpus was compiled in the process that is to be measured")
    opened = private_mib()["dirty"] - before["dirty"]
    most, batches, batch_mib = [0.0, 0.0], 0, 0.0
    longest = sorted(corpus.pieces, key=lambda piece: piece.length)[-16:]
    for i, pieces in enumerate((longest, corpus.pieces)):
        streams = Streams(corpus, pieces, streams=min(16, len(pieces)), chunk=256, generator=generator)
        batches = 0
        for batch in streams:
            batches += 1
            arrays = [batch.steps, batch.coordinates, batch.targets, batch.valid, *batch.masks.values()]
            batch_mib = max(batch_mib, sum(array.nbytes for array in arrays) / 2**20)
            if batches % 10 == 0 or streams.epoch > 1:
                most[i] = max(most[i], private_mib()["dirty"] - before["dirty"])
            del batch, arrays
            if streams.epoch > 1:
                break
    return {
        "notes": sum(piece.notes for piece in corpus.pieces),
        "batches": batches,
        "opened": opened,
        "few": most[0],
        "all": most[1],
        "corpus": opened + max(most[1] - most[0], 0),
        "clean": private_mib()["clean"] - before["clean"],
        "batch_mib": batch_mib,
        "file_mib": sum(piece.length for piece in corpus.pieces) * len(tokenizer.fields) * 2 / 2**20,
    }


def private_mib() -> dict[str, float]:
    """This process's own memory in MiB: `dirty` is written to, `clean` is pages of files that only it has mapped."""
    lines = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines()[1:])
    return {kind: int(lines[f"Private_{kind.title()}"].split()[0]) / 1024 for kind in ("dirty", "clean")}


if __name__ == "__main__":
    main()
