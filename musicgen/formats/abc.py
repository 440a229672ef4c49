"""ABC: reading in `abc_read`, writing in `abc_write`, side by side under one name."""

from musicgen.formats.abc_read import decode_text, read, read_text, read_tunes
from musicgen.formats.abc_write import to_text, write

__all__ = ["decode_text", "read", "read_text", "read_tunes", "to_text", "write"]
