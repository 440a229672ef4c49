"""Files to scores and back: one module a format, reading and writing side by side."""

from musicgen.formats.files import READERS, WRITERS, no_writer, read_score, read_scores, read_tunes, write_score

__all__ = ["READERS", "WRITERS", "no_writer", "read_score", "read_scores", "read_tunes", "write_score"]
