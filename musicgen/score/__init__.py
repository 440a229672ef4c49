"""Score: what music is in this program. Imports nothing above it."""

from musicgen.score.edit import bars_between, clip, quantise, transpose, unfold
from musicgen.score.score import (
    DRUM_PROGRAM,
    NOTE,
    TICKS_PER_QUARTER,
    ChordSymbol,
    Key,
    Metre,
    Part,
    Score,
    Sign,
    Tempo,
    bar_grid,
    bar_ticks,
    notes_array,
)

__all__ = [
    "DRUM_PROGRAM",
    "NOTE",
    "TICKS_PER_QUARTER",
    "ChordSymbol",
    "Key",
    "Metre",
    "Part",
    "Score",
    "Sign",
    "Tempo",
    "bar_grid",
    "bar_ticks",
    "bars_between",
    "clip",
    "notes_array",
    "quantise",
    "transpose",
    "unfold",
]
