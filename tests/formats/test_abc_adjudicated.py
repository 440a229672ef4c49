"""ABC against two independent readers, abc2midi and music21: where they differ from ours, the standard (2.1) decides.

The table states, for one short tune each, what the standard makes of it and what the other two hear; where neither
differs, it holds all three to it. Below it, whole collections go through abc2midi, and every difference is put down to
a cause by taking that cause away and comparing again.
"""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import subprocess
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from musicgen.formats.abc import decode_text, read_text, read_tunes, to_text
from musicgen.formats.abc_text import split_tunes
from musicgen.score import Score, unfold
from musicgen.score.edit import with_repeat_starts

EIGHTH = 240

needs_abc2midi = pytest.mark.skipif(shutil.which("abc2midi") is None, reason="abc2midi is not installed")


# --- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A tune, its notes as "onset:pitch" in eighths by the standard, and what a reader hears that hears otherwise."""

    name: str
    body: str
    expected: str
    header: str = "M:4/4\nL:1/8\nK:C"
    abc2midi: str = ""
    music21: str = ""
    why: str = ""


FREE = "M:4/4\nL:1/8\n"
CASES = [
    # --- pitch
    Case(
        "an accidental holds in every octave to the end of the bar",
        "^F2 f2 F,2 f2|f8|",
        "0:66 2:78 4:54 6:78 8:77",
    ),
    Case(
        "unless the file asks for octaves",
        "^F2 f2 F,2 F2|F8|",
        "0:66 2:77 4:53 6:66 8:65",
        FREE + "%%propagate-accidentals octave\nK:C",
    ),
    Case(
        "or for none",
        "^F2 F2 F2 F2|F8|",
        "0:66 2:65 4:65 6:65 8:65",
        FREE + "%%propagate-accidentals not\nK:C",
    ),
    Case(
        "a tied note keeps its accidental over the barline, the next does not",
        "C6 ^C2-|C2 C2 C4|",
        "0:60 6:61 10:60 12:60",
    ),
    Case(
        "a key change inside a bar holds at once and ends its accidentals",
        "^F4 [K:F]F4|F8|",
        "0:66 4:65 8:65",
        music21="0:66 4:66 8:65",
    ),
    Case(
        "an inline key",
        "F4 [K:D]F4|F8|",
        "0:65 4:66 8:66",
        music21="0:65 4:65 8:65",
        why="3.1.14, 3.2: inline fields count",
    ),
    Case(
        "explicit key accidentals stand alone after exp",
        "c2 f2 b2 B2|",
        "0:72 2:78 4:82 6:70",
        FREE + "K:D exp _b ^f",
        music21="0:73 2:78 4:83 6:71",
        why="3.1.14",
    ),
    Case(
        "accidentals added to a key change its signature",
        "c2 f2 C2 B2|",
        "0:72 2:78 4:60 6:71",
        FREE + "K:D =c",
        music21="0:73 2:78 4:61 6:71",
        why="3.1.14",
    ),
    Case(
        "accidentals added to a mode",
        "f2 e2 b2 B2|",
        "0:78 2:75 4:82 6:70",
        FREE + "K:D Phr ^f",
        music21="0:77 2:75 4:82 6:70",
        why="3.1.14, whose example this is",
    ),
    Case("capitals say nothing in a mode: EM is E minor", "G2 F2 c2 d2|", "0:67 2:66 4:72 6:74", FREE + "K:EM"),
    Case("the pipes' key Hp", "F2 c2 g2 d2|", "0:66 2:73 4:79 6:74", FREE + "K:Hp"),
    Case("a clef an octave down", "C8|", "0:48", FREE + "K:C treble-8", music21="0:60", why="4.6"),
    Case("a transposition", "C8|", "0:62", FREE + "K:C transpose=2", music21="0:60", why="4.6"),
    Case("double accidentals", "^^F4 __B4|F4 B4|", "0:67 4:69 8:65 12:71"),
    Case("a comma and an apostrophe cancel", "C'4 c,4|", "0:72 4:60"),
    # --- time
    Case("broken rhythm inside a triplet", "(3A>Bc d2 e4|", "0:69 1:71 1.33:72 2:74 4:76"),
    Case(
        "broken rhythm before a decorated note",
        "A>.B c2 d4|",
        "0:69 1.5:71 2:72 4:74",
        abc2midi="0:69 1:71 2:72 4:74",
        music21="0:69 1:71 2:72 4:74",
        why="4.4, 4.20: a decoration belongs to its note, > stands between the two",
    ),
    Case(
        "broken rhythm over a grace note",
        "A>{g}B c2 d4|",
        "0:69 1.5:71 2:72 4:74",
        music21="0:69 1:71 2:72 4:74",
        why="4.4 allows grace notes between",
    ),
    Case(
        "broken rhythm between unequal notes",
        "A>B/c d2 e4|",
        "0:69 1.5:71 1.75:72 2.75:74 4.75:76",
        abc2midi="0:69 1:71 1.5:72 2.5:74 4.5:76",
        why="4.4 leaves it undefined; each note has its own length changed here and in music21, abc2midi gives up",
    ),
    Case("double dots", "A>>B c<<d e4|", "0:69 1.75:71 2:72 2.25:74 4:76"),
    Case("a tuplet p::r", "(3::2A2B c2 d4|", "0:69 1.33:71 2:72 4:74"),
    Case("a tuplet p:q:r", "(5:4:5ABcde d4|", "0:69 0.8:71 1.6:72 2.4:74 3.2:76 4:74"),
    Case("a tuplet of chords", "(3[CE]D[EG] d2 e4|", "0:60 0:64 0.67:62 1.33:64 1.33:67 2:74 4:76"),
    Case("a tuplet with a rest", "(3AzB d2 e4|", "0:69 1.33:71 2:74 4:76"),
    Case("a quintuplet in compound time", "(5ABcde d3|", "0:69 0.6:71 1.2:72 1.8:74 2.4:76 3:74", "M:6/8\nL:1/8\nK:C"),
    Case(
        "a quintuplet in 3/4",
        "(5ABcde d4|",
        "0:69 0.4:71 0.8:72 1.2:74 1.6:76 2:74",
        "M:3/4\nL:1/8\nK:C",
        abc2midi="0:69 0.6:71 1.2:72 1.8:74 2.4:76 3:74",
        why="4.13: 3/4 is not compound, so it takes the time of two",
    ),
    Case(
        "without L: short metres count sixteenths",
        "CDEFGABc|",
        "0:60 0.5:62 1:64 1.5:65 2:67 2.5:69 3:71 3.5:72",
        "M:2/4\nK:C",
    ),
    Case("and metres from 0.75 eighths", "CDEFGA|", "0:60 1:62 2:64 3:65 4:67 5:69", "M:6/8\nK:C"),
    Case(
        "without M: too",
        "CDEF|",
        "0:60 1:62 2:64 3:65",
        "K:C",
        music21="error",
        why="3.1.7: with no M: the unit is 1/8",
    ),
    Case(
        "a change of metre leaves the unit",
        "CDEFGABc|[M:2/4]CD|",
        "0:60 1:62 2:64 3:65 4:67 5:69 6:71 7:72 8:60 9:62",
        "M:4/4\nK:C",
    ),
    Case("a chord lasts as long as its first note", "[C2E4]G2A4|", "0:60 0:64 2:67 4:69"),
    Case(
        "lengths inside and outside a chord multiply",
        "[C2E2]3G2|",
        "0:60 0:64 6:67",
        abc2midi="0:60 0:64 3:67",
        why="4.17: [C2E2]3 is [CE]6",
    ),
    Case(
        "bars of rest follow the metre",
        "C8|Z2|[M:3/4]Z|D6|",
        "0:60 30:62",
        music21="0:60 8:62",
        why="4.5; music21 leaves Z out",
    ),
    Case("staccato moves no onset", ".C4 .D4|", "0:60 4:62"),
    Case(
        "a chord tied to a chord", "[CE]4-[CE]2 [CE]2|", "0:60 0:64 6:60 6:64", music21="0:60 0:64 4:60 4:64 6:60 6:64"
    ),
    Case("a tie between different pitches is a slur", "A2-B2 c4|", "0:69 2:71 4:72", music21="0:69 4:72"),
    # --- graces
    Case("grace notes take no time", "{g}A4 {ab}c4|", "0:69 4:72"),
    Case(
        "an accidental of a grace note holds for its bar",
        "{^g}a4 G4|",
        "0:81 4:68",
        abc2midi="0:81 4:67",
        why="4.2; abc2midi says so too when it plays graces: -NGRA drops their accidentals with them",
    ),
    # --- voices
    Case(
        "an overlay goes back to the barline",
        "C8 & E4 G4|D8|",
        "0:60 0:64 4:67 8:62",
        music21="0:60 8:64 12:67 16:62",
        why="7.4",
    ),
    Case(
        "an overlay is a voice of its own, accidentals too",
        "^F8 & F4 G4|D8|",
        "0:65 0:66 4:67 8:62",
        music21="0:66 8:66 12:67 16:62",
        why="7.4",
    ),
    Case(
        "&& goes back two bars",
        "C8|D8 && E8|G8|F8|",
        "0:60 0:64 8:62 8:67 16:65",
        abc2midi="0:60 8:62 8:64 16:67 24:65",
        music21="0:60 8:62 16:64 24:67 32:65",
        why="7.4: each & sets the time back by one barline",
    ),
    Case(
        "voices inline",
        "[V:1]C8|[V:2]E,8|\n[V:1]D8|[V:2]F,8|",
        "0:52 0:60 8:53 8:62",
        music21="0:60 8:52 16:62 24:53",
        why="7.3",
    ),
    Case(
        "repeat signs of the first voice hold for all",
        "V:1\n|:C8:|D8|\nV:2\nE,8|F,8|",
        "0:52 0:60 8:52 8:60 16:53 16:62",
        FREE + "V:1\nV:2\nK:C",
        abc2midi="0:52 0:60 8:53 8:60 16:62",
        music21="0:52 0:60 8:53 8:62",
        why="the standard says nothing; in a score barlines go through all staves",
    ),
    # --- repeats, parts, jumps
    Case("first and second endings", "|:C8|1D8:|2E8|]", "0:60 8:62 16:60 24:64"),
    Case(
        "endings for several passes",
        "|:C8|1,3 D8:|2,4 E8:|F8|",
        "0:60 8:62 16:60 24:64 32:60 40:62 48:60 56:64 64:65",
        music21="0:60 8:62 16:60 24:64 32:65",
        why="4.9",
    ),
    Case(
        "an ending for a range of passes",
        "|:C8|1-3 D8:|4 E8||F8|",
        "0:60 8:62 16:60 24:62 32:60 40:62 48:60 56:64 64:65",
        music21="0:60 16:64 24:65",
        why="4.9",
    ),
    Case(
        "a repeat without a start goes back to the double bar",
        "C8||D8:|E8|",
        "0:60 8:62 16:62 24:64",
        abc2midi="0:60 8:62 16:60 24:62 32:64",
        music21="0:60 8:62 16:64",
        why="4.8: from the last double bar, end of a repeat, or the beginning",
    ),
    Case("or to the last repeat", "C8:|D8:|E8|", "0:60 8:60 16:62 24:62 32:64", music21="0:60 8:62 16:64", why="4.8"),
    Case("or to the beginning", "C8|D8:|E8|", "0:60 8:62 16:60 24:62 32:64"),
    Case(
        "endings of a second strain without a start",
        "C8|1D8:|2E8||F8|1G8:|2A8|]",
        "0:60 8:62 16:60 24:64 32:65 40:67 48:65 56:69",
        abc2midi="0:60 8:62 16:60 24:64 32:65 40:69",
        music21="0:60 8:62 16:60 24:64 32:65 40:67 48:60 56:62 64:60 72:64 80:65 88:69",
        why="4.8, 4.9",
    ),
    Case(
        "a barline not drawn before a repeat sign",
        "C8|D8[|]:|E8|]",
        "0:60 8:62 16:60 24:62 32:64",
        music21="0:60 8:62 16:64",
    ),
    Case(
        "notes after a pickup",
        "G2|C8|D6:|E2|F8|G6:|",
        "0:67 2:60 10:62 16:67 18:60 26:62 32:64 34:65 42:67 48:64 50:65 58:67",
        music21="0:67 2:60 10:62 16:67 18:60 26:62 32:64 34:65 42:67 "
        "48:67 50:60 58:62 64:67 66:60 74:62 80:64 82:65 90:67",
        why="4.8",
    ),
    Case(
        "parts in the order of the header",
        "P:A\nC8|\nP:B\nD8|",
        "0:60 8:62 16:60",
        "P:ABA\n" + FREE + "K:C",
        music21="0:60 8:62",
        why="3.1.9",
    ),
    Case(
        "parts with numbers",
        "P:A\nC8|\nP:B\nD8|",
        "0:60 8:62 16:60 24:62 32:60",
        "P:(AB)2A\n" + FREE + "K:C",
        music21="0:60 8:62",
        why="3.1.9",
    ),
    Case(
        "da capo al fine",
        "C8!fine!|D8!D.C.!|]",
        "0:60 8:62 16:60",
        abc2midi="0:60 8:62",
        music21="0:60 8:62",
        why="4.14",
    ),
    Case("but not if it is text", 'C8"Fine"|D8"D.C."|]', "0:60 8:62"),
    # --- old habits
    Case(
        "an old line break",
        "C8|!D8|!\nE8|",
        "0:60 8:62 16:64",
        abc2midi="0:60 8:64",
        music21="0:60 8:64",
        why="a lone ! was a line break (10.2); what follows it is music",
    ),
    Case(
        "a microtone is rounded, halves outwards",
        "^/F4 ^3/2G4|",
        "0:66 4:69",
        abc2midi="0:65 4:67",
        music21="0:66 0.25:68",
        why="a pitch has whole semitones here; abc2midi bends the note instead",
    ),
]


def text_of(case: Case) -> str:
    return f"X:1\n{case.header}\n%%MIDI chordattack 0\n{case.body}\n"


def listed(notes: list[tuple[float, int]]) -> str:
    """(onset in eighths, pitch) as the table writes it."""
    return " ".join(f"{round(onset, 2):g}:{pitch}" for onset, pitch in sorted((round(o, 2), p) for o, p in notes))


def heard(score: Score) -> np.ndarray:
    """(n, 2) pitch and onset in ticks of a score, sorted."""
    notes = np.concatenate([part.notes for part in score.parts])
    pairs = np.stack([notes["pitch"], notes["onset"]], axis=1).astype(np.int64)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_we_read_what_the_standard_says(case: Case):
    assert listed([(t / EIGHTH, p) for p, t in heard(unfold(read_text(text_of(case))[0])).tolist()]) == case.expected


@needs_abc2midi
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_abc2midi_agrees_or_differs_as_stated(case: Case, tmp_path: Path):
    notes, _ = abc2midi(text_of(case), tmp_path)
    entries = [entry.split(":") for entry in (case.abc2midi or case.expected).split()]
    expected = sorted((int(pitch), float(onset)) for onset, pitch in entries)
    assert notes[:, 0].tolist() == [pitch for pitch, _ in expected]
    # it strikes each note a tick late, and counts whole ticks
    assert np.abs((notes[:, 1] - 1) / EIGHTH - [onset for _, onset in expected]).max() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_music21_agrees_or_differs_as_stated(case: Case):
    stream = pytest.importorskip("music21.stream")
    handler = pytest.importorskip("music21.abcFormat")
    from music21 import converter

    try:
        score = converter.parseData("%abc-2.1\n" + text_of(case), format="abc")
    except handler.ABCHandlerException:
        assert case.music21 == "error"
        return
    with contextlib.suppress(stream.StreamException):  # it says so where there are none
        score = score.expandRepeats()
    score = score.stripTies()
    notes = [
        (float(n.getOffsetInHierarchy(score)) * 2, p.midi)
        for n in score.recurse().notes
        if not n.duration.isGrace and "ChordSymbol" not in n.classes
        for p in n.pitches
    ]
    assert listed(notes) == (case.music21 or case.expected)


# --- the collections --------------------------------------------------------------------------------------------------


def abc2midi(text: str, folder: Path) -> tuple[np.ndarray, str]:
    """((n, 2) pitch and onset in ticks, sorted; what it printed) of ABC text, without accompaniment, graces, fermatas.

    The array is empty where it writes no file.
    """
    import mido

    (folder / "a.mid").unlink(missing_ok=True)
    (folder / "a.abc").write_text(text, encoding="utf-8")
    command = ["abc2midi", "a.abc", "-o", "a.mid", "-quiet", "-NGUI", "-NGRA", "-NFER", "-NFNP"]
    result = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    if not (folder / "a.mid").exists():
        return np.zeros((0, 2), dtype=np.int64), result.stdout.decode("latin-1")
    found = []
    midi = mido.MidiFile(folder / "a.mid")
    for track in midi.tracks:
        at = 0
        for event in track:
            at += event.time
            if event.type == "note_on" and event.velocity:
                found.append((event.note, round(at * 480 / midi.ticks_per_beat)))
    return np.array(sorted(found), dtype=np.int64).reshape(-1, 2), result.stdout.decode("latin-1")


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal pitches at equal onsets, but for a few ticks of rounding."""
    if ours.shape != theirs.shape:
        return False
    return bool((ours[:, 0] == theirs[:, 0]).all() and np.abs(ours[:, 1] - theirs[:, 1]).max(initial=0) <= 6)


Lines = list[str]
MARKS = re.compile(r"!(?!fine|D\.|d\.|da|segno|coda)\w[^!\s|]*!")
LETTERS = re.compile(r"[.~H-Wh-w](?=[.~H-Wh-w]*[\^_=]?[A-Ga-g\[({zx])")


def of_music(change: Callable[[str], str]) -> Callable[[Lines], Lines]:
    """The change made in the lines of music alone."""
    return lambda lines: [line if re.match("[A-Za-z+]:|%", line) else change(line) for line in lines]


def outside(pattern: str, change: Callable[[str], str]) -> Callable[[str], str]:
    """The change made in what of a line does not match the pattern."""
    return lambda line: "".join(
        piece if i % 2 else change(piece) for i, piece in enumerate(re.split(f"({pattern})", line))
    )


def for_abc2midi(lines: Lines) -> Lines:
    """The tune without what makes abc2midi play other notes on purpose, or stop: swing by R:, rolls and trills, chords
    struck one note after the other, blank lines."""
    lines = [line for line in lines if line.strip() and not line.startswith("R:")]
    lines = of_music(lambda line: MARKS.sub("", line))(lines)
    lines = of_music(outside(r'"[^"]*"?|![^!\s|]*!|\[[A-Za-z]:[^\]]*\]', lambda text: LETTERS.sub("", text)))(lines)
    at = next(i for i, line in enumerate(lines) if line.startswith("K:"))
    return [*lines[: at + 1], "%%MIDI chordattack 0", *lines[at + 1 :]]


def without_repeats(line: str) -> str:
    line = re.sub(r"\[\s?\d[\d,\-]*|^\s*[1-9](?=[\s(A-Ga-g])", "", line.replace("[|]", "|"))
    return re.sub(r"(?:::|:\||\|:|\|\||\|\]|\[\|)+(?:\d[\d,\-]*)?|\|\s?\d[\d,\-]*", "|", line)


CAUSES: dict[str, Callable[[Lines], Lines]] = {
    "jumps: abc2midi does not make them": of_music(lambda line: re.sub(r"!(?:D\.|d\.|da|fine)[^!]*!", "", line)),
    "a lone ! ends a line; abc2midi drops what follows it": lambda lines: [
        piece for line in lines for piece in (re.split(r"!(?!\w[^!\s|]*!)", line) if "|" in line else [line])
    ],
    "accidentals of graces: -NGRA drops them": of_music(lambda line: re.sub(r"\{[^}]*\}", "", line)),
    "tuplets in 3/4": of_music(lambda line: re.sub(r"\(([579])(?![:\d])", r"(\1:2", line)),
    "broken rhythm between unequal notes": of_music(outside(r'"[^"]*"', lambda text: re.sub("[<>]", "", text))),
}
"""Cause of a difference -> the tune without it. They are taken away one after the other."""


def agree(lines: Lines, folder: Path) -> bool:
    score = read_tunes("\n".join(lines))[0]
    return isinstance(score, Score) and same(heard(unfold(score)), abc2midi("\n".join(lines) + "\n", folder)[0])


def as_written(lines: Lines) -> Lines:
    """The tune without repeats, endings and parts."""
    return of_music(without_repeats)([line for line in lines if not line.startswith("P:")])


def cause_of(lines: Lines, folder: Path) -> str:
    """Why abc2midi hears other notes in a tune than we do: "" if it does not, "?" if no cause is known."""
    lines = for_abc2midi(lines)
    if agree(lines, folder):
        return ""
    for cause, take_away in {"": list, **CAUSES}.items():
        lines = take_away(lines)
        if cause and agree(lines, folder):
            return cause
        if agree(as_written(lines), folder):  # the notes are the same, how often they are played is not
            score = read_text("\n".join(lines))[0]
            text = re.sub(r"(?m)^(K:.*)$", r"\1\n%%MIDI chordattack 0", to_text(with_repeat_starts(score)), count=1)
            clear = same(heard(unfold(score)), abc2midi(text, folder)[0])
            return "repeats without a start sign" if clear else "repeats otherwise"
    return "?"


KNOWN = {
    ("ryansMammoth", "Army and Navy -- Reel"): "a second ending that closes with :|; played once, as the first was",
    ("ryansMammoth", "MOLLY BAWN'S -- REEL"): "|: without :| is played once; abc2midi repeats at |]|:",
    ("ryansMammoth", "MY LADY'S GOON HAS GAIRS ON'T -- STRATHSPEY"): '["Coda" is words after a barline, not a chord',
    ("oneills1850", "Galway Tom"): "K:Bn is a slip for Bm; abc2midi takes it for B major",
    ("oneills1850", "The Market Town"): "a second ending that closes with :|",
    ("oneills1850", "The Scholar"): "a second ending that closes with :|",
    ("oneills1850", "The Belfast Hornpipe"): "a second ending that closes with :|",
    ("oneills1850", "THE DUBLIN HORNPIPE"): "a second ending that closes with :|",
    ("airdsAirs", "Etrick Banks."): "a second ending that closes with :|",
    ("airdsAirs", "Prince of Saxe Cobourg's Favourite March."): "P:ABA of parts that hold several repeats",
    ("nottingham", "Joy of the Dance"): "a ] is missing; abc2midi reads chords until the next",
    ("nottingham", "Dance All Night"): "[+GB] holds a stray +; abc2midi drops the chord",
    ("essenFolksong", "Will Ye Go To Flanders"): "K:Es is E flat in German; abc2midi reads E major",
    ("essenFolksong", "Taiyang zhaozai chaqishan"): "K:H is B in German; abc2midi refuses it",
    ("essenFolksong", "Hongtaiyang Haishangzhao"): "K:H is B in German; abc2midi refuses it",
}
"""(collection, title) -> a difference that taking one thing away does not show, and why ours is right (or as good)."""


def collection(name: str, request: pytest.FixtureRequest) -> list[Lines]:
    """The lines of every tune of a collection, the file's header before them."""
    if name in ("irish", "nottingham"):
        shared = request.getfixturevalue("shared_data")
        if name == "irish":
            texts = [decode_text((shared / "irish" / "irish.abc").read_bytes())]
        else:
            with tarfile.open(shared / "nottingham.tar.gz") as files:
                members = [m for m in files.getmembers() if m.name.endswith(".abc") and "/._" not in m.name]
                texts = [decode_text(stream.read()) for m in members if (stream := files.extractfile(m))]
    else:
        music21 = pytest.importorskip("music21")
        folder = Path(music21.__file__).parent / "corpus" / name
        texts = [decode_text(path.read_bytes()) for path in sorted(folder.glob("*.abc"))]
    found = []
    for text in texts:
        header, tunes = split_tunes(text)
        found += [header + lines for _, lines in tunes]
    return found


@needs_abc2midi
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sample"),
    [
        ("irish", 250),
        ("nottingham", 250),
        ("ryansMammoth", 1059),
        ("oneills1850", 250),
        ("airdsAirs", 250),
        ("essenFolksong", 250),
    ],
)
def test_every_difference_from_abc2midi_has_a_cause(name: str, sample: int, request, tmp_path: Path):
    tunes = collection(name, request)
    if len(tunes) > sample:
        tunes = random.Random(0).sample(tunes, sample)
    causes: Counter[str] = Counter()
    for lines in tunes:
        score = read_tunes("\n".join(lines))[0]
        assert isinstance(score, Score), score
        cause = cause_of(lines, tmp_path)
        if cause in ("?", "repeats otherwise"):
            assert (name, score.title) in KNOWN, (cause, score.title)
        causes[cause] += 1
    assert causes[""] > 0.9 * len(tunes), causes
