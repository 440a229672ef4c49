"""Tokenizers: one file each, with its grammar. `TOKENIZERS[name](**options)` builds one."""

from musicgen.tokens.abc import AbcTokenizer
from musicgen.tokens.bars import BarsTokenizer
from musicgen.tokens.grid import GridTokenizer
from musicgen.tokens.performance import PerformanceTokenizer
from musicgen.tokens.tokenizer import HIDDEN, NONE, Coordinate, Cursor, Field, Hearing, Tokenizer

TOKENIZERS: dict[str, type] = {
    "abc": AbcTokenizer,
    "bars": BarsTokenizer,
    "grid": GridTokenizer,
    "performance": PerformanceTokenizer,
}

__all__ = [
    "HIDDEN",
    "NONE",
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
