"""The nine bars at which the scherzo of Schubert's Unfinished Symphony breaks off, as our own encoding.

`python encode.py` writes scherzo.musicxml and scherzo.mid beside this file. Below, a part is nine bars between bar
lines, at sounding pitch. In a bar stand notes (`B4:h.` is a dotted half note B over middle C; `B4+B5:h.` a chord or
octave; `e` eighth, `q` quarter, `h` half), rests (`r:q`) and, where it changes, a dynamic. What was read how, and what
in our source we took for a slip, is told in data/README.md.
"""

from __future__ import annotations

from pathlib import Path

from musicgen.formats import write_score
from musicgen.score import TICKS_PER_QUARTER, Key, Metre, Part, Score, Tempo, bar_ticks, notes_array

TITLE = "Symphony in B minor, D.759: iii. Allegro (fragment)"
TEMPO_BPM = 192.0  # quarter notes; the score says Allegro, and a dotted half at 64 is our reading of it
BAR = bar_ticks(3, 4)

LENGTHS = {"e": TICKS_PER_QUARTER // 2, "q": TICKS_PER_QUARTER, "h": 2 * TICKS_PER_QUARTER}
DYNAMICS = {"pp": 36, "mf": 76, "f": 96, "ff": 112}  # as MIDI velocities
STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}

PARTS = [  # name, General MIDI program (from 0), bars 1..9
    (
        "Flauti",
        73,
        """ff B5:h. | G5:h. | E5:q G5:q F#5:q | F#5:q. D5:e E5:e F#5:e
        | G5:h. | E5:h. | C#5:q D5:q B4:q | B4:h r:q | r:h.""",
    ),
    (
        "Oboi",
        68,
        """ff B4+B5:h. | G5:h. | E5:q G5:q F#5:q | F#5:q. D5:e E5:e F#5:e
        | G5:h. | E5:h. | C#5:q D5:q B4:q | B4:q. f F#4:e G#4:e A#4:e | mf B4:h.""",
    ),
    (
        "Clarinetti in A",
        71,
        """ff B4:h. | G4:h. | E4:q G4:q F#4:q | F#4:q. D4:e E4:e F#4:e
        | G4:h. | E4:h. | C#4:q D4:q B3:q | B3:h r:q | r:h.""",
    ),
    (
        "Fagotti",
        70,
        """ff B3:h. | G3:h. | E3:q G3:q F#3:q | F#3:q. D3:e E3:e F#3:e
        | G3:h. | E3:h. | C#3:q D3:q B2:q | B2:h r:q | r:h.""",
    ),
    (
        "Corni in D",
        60,
        """ff B3:h. | G4:h. | E4:q G4:q F#4:q | F#4:h r:q
        | G4:h. | E4:h. | r:q D4:q B3:q | B3:h r:q | r:h.""",
    ),
    (
        "Trombe in E",
        56,
        """ff B3+B4:h. | r:h. | r:h F#5:q | F#5:h r:q
        | r:h. | E4+E5:h. | r:h B3+B4:q | B3+B4:h r:q | r:h.""",
    ),
    (
        "Tromboni",
        57,
        """ff B3:h. | G3+G4:h. | E3:q G3+G4:q F#3+F#4:q | F#3+F#4:h r:q
        | G3+G4:h. | E3+E4:h. | C#3+C#4:q D3+D4:q B2+B3:q | B2+B3:h r:q | r:h.""",
    ),
    (
        "Timpani",
        47,
        """ff B2:h r:q | r:h. | r:h F#3:q | F#3:h r:q
        | r:h. | r:h. | r:h B2:q | B2:h r:q | r:h.""",
    ),
    (
        "Violino I",
        40,
        """ff B4+B5:h. | G5:h. | E5:q G5:q F#5:q | F#5:q. D5:e E5:e F#5:e
        | G5:h. | E5:h. | C#5:q D5:q B4:q | B4:h r:q | pp D#4:q F#4:q B4:q""",
    ),
    (
        "Violino II",
        40,
        """ff B4:h. | G4:h. | E4:q G4:q F#4:q | F#4:q. D4:e E4:e F#4:e
        | G4:h. | E4:h. | C#4:q D4:q B3:q | B3:h r:q | pp B3:q D#4:q F#4:q""",
    ),
    (
        "Viola",
        41,
        """ff B4:h. | G4:h. | E4:q G4:q F#4:q | F#4:q. D4:e E4:e F#4:e
        | G4:h. | E4:h. | C#4:q D4:q B3:q | B3:h r:q | pp B3:h.""",
    ),
    (
        "Violoncello",
        42,
        """ff B3:h. | G3:h. | E3:q G3:q F#3:q | F#3:q. D3:e E3:e F#3:e
        | G3:h. | E3:h. | C#3:q D3:q B2:q | B2:h. | pp r:q B3:q r:q""",
    ),
    (
        "Contrabbasso",
        43,
        """ff B2:h. | G2:h. | E2:q G2:q F#2:q | F#2:q. D2:e E2:e F#2:e
        | G2:h. | E2:h. | C#2:q D2:q B1:q | B1:h. | pp r:q B2:q r:q""",
    ),
]


def midi_pitch(name: str) -> int:
    """F#4 -> 66; middle C is C4."""
    return STEPS[name[0]] + name.count("#") + 12 * (int(name[-1]) + 1)


def read_part(text: str) -> list[tuple[int, int, int, int]]:
    """(onset, duration, pitch, velocity) of each note of a part; every bar must add up."""
    notes = []
    velocity = DYNAMICS["ff"]
    for bar, words in enumerate(text.split("|")):
        onset = bar * BAR
        for word in words.split():
            if word in DYNAMICS:
                velocity = DYNAMICS[word]
                continue
            pitches, length = word.split(":")
            duration = LENGTHS[length[0]] * (3 if length.endswith(".") else 2) // 2
            if pitches != "r":
                notes += [(onset, duration, midi_pitch(name), velocity) for name in pitches.split("+")]
            onset += duration
        assert onset == (bar + 1) * BAR, f"bar {bar + 1} does not add up: {words}"
    return notes


def scherzo() -> Score:
    return Score(
        parts=tuple(Part(name, program, notes=notes_array(read_part(text))) for name, program, text in PARTS),
        title=TITLE,
        tempos=(Tempo(0, TEMPO_BPM),),
        metres=(Metre(0, 3, 4),),
        keys=(Key(0, 2, "minor"),),
        length=9 * BAR,
    )


def main(folder: Path = Path(__file__).parent) -> None:
    for suffix in (".musicxml", ".mid"):
        write_score(scherzo(), folder / f"scherzo{suffix}")


if __name__ == "__main__":
    main()
