"""MIDI: reading in `midi_read`, writing in `midi_write`; `midi_events` goes on with a file event by event."""

from musicgen.formats.midi_read import read
from musicgen.formats.midi_write import write

__all__ = ["read", "write"]
