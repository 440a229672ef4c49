"""A folder of scores becomes a compiled corpus: steps on disk, pieces split by their music, streams for training."""

from musicgen.corpus.compile import compile_corpus, load_corpus
from musicgen.corpus.corpus import Corpus, FileReport, Piece, is_compiled, join, open_corpus, split_pieces
from musicgen.corpus.sources import Source, find_source
from musicgen.corpus.split import fingerprint
from musicgen.corpus.streams import Batch, Streams, whole_pieces

__all__ = [
    "Batch",
    "Corpus",
    "FileReport",
    "Piece",
    "Source",
    "Streams",
    "compile_corpus",
    "find_source",
    "fingerprint",
    "is_compiled",
    "join",
    "load_corpus",
    "open_corpus",
    "split_pieces",
    "whole_pieces",
]
