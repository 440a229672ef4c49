"""MusicXML, plain and zipped, and Humdrum kern: `read` comes through music21, `write` is our own.

The two sides stand in `musicxml_read` (with `music21_score`) and `musicxml_write`; each says what it knowingly loses.
"""

from musicgen.formats.music21_score import from_music21
from musicgen.formats.musicxml_read import read
from musicgen.formats.musicxml_write import write

__all__ = ["from_music21", "read", "write"]
