"""Tokenizers: one file each, with its grammar. `TOKENIZERS[name](**options)` builds one."""

from collections.abc import Callable

import numpy as np

from musicgen.tokens.abc import AbcTokenizer
from musicgen.tokens.bars import BarsTokenizer
from musicgen.tokens.bars_preview import preview_at_random
from musicgen.tokens.grid import GridTokenizer
from musicgen.tokens.performance import PerformanceTokenizer
from musicgen.tokens.tokenizer import HIDDEN, NONE, Coordinate, Cursor, Field, Hearing, Tokenizer

TOKENIZERS: dict[str, type] = {
    "abc": AbcTokenizer,
    "bars": BarsTokenizer,
    "grid": GridTokenizer,
    "performance": PerformanceTokenizer,
}

PREVIEWS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {"bars": preview_at_random}
"""Tokenizers whose pieces can be told with previews, so that their models fill holes and harmonise: from a whole piece
and what previews are drawn from, to the same piece with them."""

__all__ = [
    "HIDDEN",
    "NONE",
    "PREVIEWS",
    "TOKENIZERS",
    "AbcTokenizer",
    "BarsTokenizer",
    "Coordinate",
    "Cursor",
    "Field",
    "GridTokenizer",
    "Hearing",
    "PerformanceTokenizer",
    "Tokenizer",
]
