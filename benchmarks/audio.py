"""How a score sounds by each player: how fast, how like FluidSynth, how loud, and whether anything is cut or hangs.

    python benchmarks/audio.py data/orchestra/beethoven-op67-3.mid data/freedoom/d_e1m8.mid chorale.musicxml
    python benchmarks/audio.py score.mid --soundfont FluidR3_GM.sf2 --json out/audio.json

Every player gets the same MIDI and the same SoundFont (pretty_midi's, without the option), and what it gives is what
`musicgen render` writes. *Likeness* is to FluidSynth: the magnitudes of mel bands of each moment that is not silent (93
ms, every 46), and the mean over moments of the correlation of the two. One more row says what the figure means: what
FluidSynth plays a semitone higher. *Peak* and *RMS* are in dB beside full scale. *Ends* is how long the sound goes on
after the last note was let go, *last* how loud its last 50 ms are beside the loudest. *Gap* is the longest silence
(72 dB below the loudest) while some note with a pitch has been held for less than half a second.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from musicgen.errors import MusicgenError
from musicgen.formats import read_score
from musicgen.formats.midi_events import encode_track
from musicgen.render.audio import Audio, play, score_midi
from musicgen.render.audio_events import NOTE_OFF, NOTE_ON, Voice, read_tracks, read_voices
from musicgen.render.audio_players import RATE
from musicgen.render.soundfonts import bundled_soundfont, find_soundfont

FRAME, HOP, BANDS = 4096, 2048, 80
LEVEL = RATE // 20
"""Samples of the 50 ms whose loudness is taken."""
HELD_SECONDS = 0.5
SILENT_DB = -72.0


@dataclass(frozen=True)
class Row:
    """What one player made of one score."""

    score: str
    player: str
    music_seconds: float
    took_seconds: float
    likeness: float | None
    peak_db: float
    rms_db: float
    ends_seconds: float
    last_db: float
    gap_seconds: float


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """The mean over moments of the correlation of two sounds' mel spectra; (N, 2) each, cut to the shorter."""
    length = min(len(a), len(b))
    ours, theirs = mel_magnitudes(a[:length]), mel_magnitudes(b[:length])
    power = (ours**2).sum(axis=1)
    heard = (power > 1e-6 * power.max()) & ((theirs**2).sum(axis=1) > 0)
    ours, theirs = (x[heard] - x[heard].mean(axis=1, keepdims=True) for x in (ours, theirs))
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / np.maximum(norms, 1e-12)).mean())


def mel_magnitudes(samples: np.ndarray) -> np.ndarray:
    """(moments, BANDS): how strong each band of the mel scale, from 30 Hz to 16 kHz, is in (N, 2) samples."""
    bins = np.fft.rfftfreq(FRAME, 1 / RATE)
    mel = 2595 * np.log10(1 + bins / 700)
    low, high = 2595 * np.log10(1 + np.array([30, 16_000]) / 700)
    edges = np.linspace(low, high, BANDS + 2)[:, None]
    rising, falling = (mel - edges[:-2]) / (edges[1] - edges[0]), (edges[2:] - mel) / (edges[1] - edges[0])
    bands = np.maximum(0, np.minimum(rising, falling)).astype(np.float32).T
    window = np.hanning(FRAME).astype(np.float32)
    power = np.zeros((-(-len(samples) // HOP), BANDS), dtype=np.float32)
    for side in samples.T:
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(side, (0, FRAME)), FRAME)[::HOP][: len(power)]
        for at in range(0, len(frames), 512):
            power[at : at + 512] += np.abs(np.fft.rfft(frames[at : at + 512] * window)) ** 2 @ bands
    return np.sqrt(power)


def levels(audio: Audio) -> np.ndarray:
    """The loudness of each 50 ms, in dB beside the loudest."""
    whole = len(audio.samples) // LEVEL * LEVEL
    power = (audio.samples[:whole].astype(np.float64) ** 2).reshape(-1, LEVEL * 2).mean(axis=1)
    return 10 * np.log10(power / power.max() + 1e-20)


def longest_gap(audio: Audio, voices: list[Voice]) -> float:
    """The longest silence, in seconds, where some pitched note has been held for less than HELD_SECONDS."""
    loud = levels(audio)
    due = np.zeros(len(loud), dtype=bool)
    for voice in voices:
        for start, stop in held(voice):
            stop = min(stop, start + HELD_SECONDS)
            due[int(np.ceil(start * RATE / LEVEL)) + 1 : int(stop * RATE / LEVEL)] = True
    longest = run = 0
    for silent in due & (loud < SILENT_DB):
        run = run + 1 if silent else 0
        longest = max(longest, run)
    return longest * LEVEL / RATE


def held(voice: Voice) -> Iterator[tuple[float, float]]:
    """(start, stop) in seconds of the notes of a voice; none of drums."""
    began: dict[int, float] = {}
    for when, data in [] if voice.is_drum else voice.events:
        if data[0] in (NOTE_OFF, NOTE_ON):
            if data[1] in began:
                yield began.pop(data[1]), when
            if data[0] == NOTE_ON and data[2]:
                began[data[1]] = when


def measure(
    name: str, midi: bytes, render: Callable[[], Audio], beside: Audio | None, label: str = ""
) -> tuple[Row, Audio]:
    began = time.perf_counter()
    audio = render()
    took = time.perf_counter() - began
    voices, stop = read_voices(midi)
    loudest, mean = np.abs(audio.samples).max(), np.sqrt((audio.samples.astype(np.float64) ** 2).mean())
    peak, rms = float(20 * np.log10(loudest)), float(20 * np.log10(mean))
    alike = None if beside is None else likeness(beside.samples, audio.samples)
    last, gap = float(levels(audio)[-1]), longest_gap(audio, voices)
    return Row(name, label or audio.player, stop, took, alike, peak, rms, audio.seconds - stop, last, gap), audio


def higher(midi: bytes) -> bytes:
    """The same, with every note of a pitch a semitone higher."""
    division, tracks = read_tracks(midi)
    for events in tracks:
        for event in events:
            if event.status & 0xE0 == 0x80 and event.status & 0x0F != 9:
                event.data = bytes([event.data[0], min(event.data[1] + 1, 127)]) + event.data[2:]
    header = b"MThd" + (6).to_bytes(4, "big") + b"\0\1" + len(tracks).to_bytes(2, "big") + division.to_bytes(2, "big")
    return header + b"".join(encode_track(events, 0) for events in tracks)


def rows_of(path: Path, soundfont: Path | None) -> Iterator[Row]:
    midi = path.read_bytes() if path.suffix.lower() in (".mid", ".midi") else score_midi(read_score(path))
    beside = None
    if shutil.which("fluidsynth"):
        row, beside = measure(path.name, midi, lambda: play(midi, soundfont, "fluidsynth"), None)
        yield row
    yield measure(path.name, midi, lambda: play(midi, soundfont, "midirenderer"), beside)[0]
    yield measure(path.name, midi, lambda: play(midi, soundfont, "sines"), beside, "sine waves")[0]
    if beside:
        yield measure(
            path.name, midi, lambda: play(higher(midi), soundfont, "fluidsynth"), beside, "a semitone higher"
        )[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("scores", nargs="+", type=Path, help="MIDI, MusicXML, ABC or kern files")
    parser.add_argument("--soundfont", type=Path, help="a .sf2; without it pretty_midi's")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    print("| score | player | music s | took s | × real time | likeness | peak | RMS | ends | last | gap |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    try:
        font = find_soundfont(options.soundfont) if options.soundfont else bundled_soundfont()
        for path in options.scores:
            for row in rows_of(path, font):
                rows.append(row)
                alike = "" if row.likeness is None else f"{row.likeness:.3f}"
                speed = row.music_seconds / row.took_seconds
                print(
                    f"| {row.score} | {row.player} | {row.music_seconds:.0f} | {row.took_seconds:.1f} | {speed:.0f} "
                    f"| {alike} | {row.peak_db:.1f} | {row.rms_db:.1f} | {row.ends_seconds:.1f} s "
                    f"| {row.last_db:.0f} | {row.gap_seconds:.2f} s |",
                    flush=True,
                )
    except MusicgenError as error:
        sys.exit(str(error))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
