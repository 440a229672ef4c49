"""The bridge to notebooks: a Score as a `pretty_midi.PrettyMIDI` object, and back.

For people who plot, filter or listen with pretty_midi. Both ways go over exact ticks wherever the object has them: one
that was loaded from a file, or came from here, keeps its tempo map; one built by hand has pretty_midi's single tempo.

Knowingly lost: what the MIDI writer loses (repeats are played out, chord symbols go, an irregular bar is a metre of its
own), the title, modes other than major and minor, and from pretty_midi pedals, bends and other controllers. Bars
are laid out from the metres. Other resolutions than ours are scaled and rounded; a note lasts at least one tick.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from musicgen.errors import FormatError
from musicgen.score import DENOMINATORS, DRUM_PROGRAM, TICKS_PER_QUARTER, Key, Metre, Part, Score, Tempo, notes_array

if TYPE_CHECKING:
    import pretty_midi


def to_pretty_midi(score: Score) -> pretty_midi.PrettyMIDI:
    """The score as a PrettyMIDI object with its tempo map, metres, keys and one instrument a part."""
    from musicgen.formats import midi

    loaded = _import()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "score.mid"
        midi.write(score, path)
        data = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return loaded.PrettyMIDI(io.BytesIO(data))


def from_pretty_midi(pm: pretty_midi.PrettyMIDI) -> Score:
    """A PrettyMIDI object as a Score; repeats are as played.

    Raises FormatError where a note lies outside MIDI's bounds.
    """
    scale = TICKS_PER_QUARTER / pm.resolution

    def ticks(seconds: float) -> int:
        return max(round(pm.time_to_tick(seconds) * scale), 0)

    parts = []
    for instrument in pm.instruments:
        notes = []
        for note in instrument.notes:
            onset = ticks(note.start)
            if not 0 <= note.pitch <= 127:
                raise FormatError(f"PrettyMIDI: a note of pitch {note.pitch} in {instrument.name!r}; 0..127 are known")
            velocity = min(max(int(note.velocity), 1), 127)
            notes.append((onset, max(ticks(note.end) - onset, 1), int(note.pitch), velocity))
        program = DRUM_PROGRAM if instrument.is_drum else int(instrument.program)
        parts.append(Part(instrument.name or "", program, bool(instrument.is_drum), notes_array(notes)))

    times, bpms = pm.get_tempo_changes()
    tempos = [Tempo(ticks(t), round(float(bpm), 6)) for t, bpm in zip(times, bpms, strict=True)]
    metres = [
        Metre(ticks(m.time), m.numerator, m.denominator)
        for m in pm.time_signature_changes
        if m.denominator in DENOMINATORS
    ]
    keys = [_key(ticks(k.time), int(k.key_number)) for k in pm.key_signature_changes]
    return Score(
        parts=tuple(parts),
        tempos=_from_zero(tempos, Tempo(0, 120.0)),
        metres=_from_zero(metres, Metre(0, 4, 4)),
        keys=_from_zero(keys, Key(0, 0)),
    )


def _import():
    """pretty_midi, without the warnings that its imports raise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pretty_midi
    return pretty_midi


def _key(onset: int, number: int) -> Key:
    """pretty_midi numbers keys 0..11 for C to B major and 12..23 for the minor ones."""
    minor = number >= 12
    tonic = number % 12
    fifths = (tonic + 3 * minor) % 12 * 7 % 12  # of the major key with the same signature
    return Key(onset, fifths if fifths <= 6 else fifths - 12, "minor" if minor else "major")


def _from_zero(events: list, default) -> tuple:
    """Events by onset, the last of several at one tick, with the default before a first that is late."""
    latest = {event.onset: event for event in sorted(events, key=lambda e: e.onset)}
    if 0 not in latest:
        latest = {0: default, **latest}
    return tuple(latest.values())
