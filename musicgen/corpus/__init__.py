"""A folder of scores becomes a compiled corpus: steps on disk, pieces split by their music, streams for training."""

from musicgen.corpus.compile import Corpus, FileReport, Piece, compile_corpus, fingerprint, split_pieces
from musicgen.corpus.sources import Source, find_source
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
    "split_pieces",
    "whole_pieces",
]
