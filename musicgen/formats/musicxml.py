"""MusicXML, plain and zipped, and Humdrum kern: `read` comes through music21, `write` (MusicXML only) is our own.

Reading stands in `musicxml_read` and `kern_read`, which mend what music21 drops or guesses before and after
`music21_score` converts what it made; writing in `musicxml_write`. Each says what it knowingly loses.
"""

from musicgen.formats.music21_score import from_music21
from musicgen.formats.musicxml_read import read
from musicgen.formats.musicxml_write import write

__all__ = ["from_music21", "read", "write"]
