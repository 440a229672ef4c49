"""A score as sound: in goes MIDI, out come samples, and from them WAV or MP3 files.

Played through a SoundFont (see `soundfonts`) by one of the players of `audio_players`; then normalised by one rule (the
highest sample at 1 dB below full), and cut where the last note and its echo have died away.
"""

from __future__ import annotations

import io
import math
import wave
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from musicgen.errors import RenderError
from musicgen.formats.midi_write import midi_file
from musicgen.render.audio_events import Voice, read_voices
from musicgen.render.audio_players import PLAYERS, RATE, ready_players
from musicgen.render.soundfonts import find_soundfont
from musicgen.score import Score

SUFFIXES = (".wav", ".mp3")
MAX_SECONDS = 3600.0
LOUDEST = 10 ** (-1 / 20)
"""The highest sample after normalising: -1 dBFS, so that what an MP3 adds does not clip."""
SILENT = 10 ** (-66 / 20)
"""What is softer than this, beside the loudest, has died away."""
TAIL_SECONDS = 10.0
"""How long a last note and its echo may last at most."""
REST_SECONDS = 0.25
"""Faded out, after the last that can be heard."""


@dataclass(frozen=True)
class Audio:
    """Sound: samples (N, 2) float32 in [-1, 1], left and right, `rate` a second; who played it, through which font."""

    samples: np.ndarray
    rate: int
    player: str

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def play(midi: bytes, soundfont: Path | None = None, player: str | None = None) -> Audio:
    """A Standard MIDI File's bytes as sound; its tick 0 is the first sample.

    player: one of PLAYERS; None takes the first of them that can play, and `Audio.player` says which that was. Raises
    RenderError, in one line: a bad SoundFont, no notes, more than an hour of music, a damaged file.
    """
    font = find_soundfont(soundfont)
    voices, stop = read_voices(midi)
    if not voices:
        raise RenderError("no note is played in it: there is nothing to hear")
    if stop > MAX_SECONDS:
        raise RenderError(
            f"{stop / 60:.0f} minutes of music; up to {MAX_SECONDS / 60:.0f} are played: render a part of it"
        )
    *tried, last = [player] if player else ready_players(font)
    for name in tried:
        with suppress(RenderError):  # an old or broken FluidSynth: the next one plays
            return _played(name, voices, stop, font)
    return _played(last, voices, stop, font)


def play_score(score: Score, soundfont: Path | None = None, player: str | None = None) -> Audio:
    """A score as sound, through the MIDI file that would be written of it, repeats played. Raises RenderError."""
    return play(score_midi(score), soundfont, player)


def score_midi(score: Score) -> bytes:
    """The bytes of the MIDI file that `write_score` makes of a score."""
    buffer = io.BytesIO()
    midi_file(score).save(file=buffer)
    return buffer.getvalue()


def wav_bytes(audio: Audio) -> bytes:
    """A WAV file of it: stereo, 16 bits."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(audio.rate)
        for piece in _pcm(audio):
            file.writeframes(piece)
    return buffer.getvalue()


def mp3_bytes(audio: Audio, kbps: int = 112) -> bytes:
    """An MP3 file of it, at a constant `kbps` thousand bits a second: 112 is 0.84 MB a minute."""
    import lameenc

    encoder = lameenc.Encoder()
    encoder.set_bit_rate(kbps)
    encoder.set_in_sample_rate(audio.rate)
    encoder.set_channels(2)
    encoder.set_quality(5)
    encoder.silence()
    return b"".join([*(bytes(encoder.encode(piece)) for piece in _pcm(audio)), bytes(encoder.flush())])


def check_audio(path: str | Path) -> Path:
    """The path, if audio can be written there. Raises RenderError."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise RenderError(f"{path}: audio is written as .wav or .mp3")
    return path


def write_audio(audio: Audio, path: str | Path) -> None:
    """Write .wav or .mp3, by suffix: to a temporary file first, then renamed. Raises RenderError."""
    path = check_audio(path)
    temporary = path.with_name(f".{path.name}.part")
    data = wav_bytes(audio) if path.suffix.lower() == ".wav" else mp3_bytes(audio)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise RenderError(f"{path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _pcm(audio: Audio) -> Iterator[bytes]:
    """The samples as 16-bit integers, left and right in turn, a minute at a time."""
    for at in range(0, len(audio.samples), 60 * audio.rate):
        piece = audio.samples[at : at + 60 * audio.rate]
        yield np.round(np.clip(piece, -1, 1) * 32767).astype("<i2").tobytes()


def _played(player: str, voices: Sequence[Voice], stop: float, font: Path | None) -> Audio:
    if player not in PLAYERS:
        raise RenderError(f"{player!r} plays nothing; choose among {', '.join(PLAYERS)}")
    samples = PLAYERS[player](voices, stop, stop + TAIL_SECONDS, font)
    return Audio(_finish(samples, stop), RATE, _name(player, font))


def _name(player: str, font: Path | None) -> str:
    """Who played, for people: the program and its SoundFont, or why there are only sine waves."""
    if player != "sines":
        return f"{player} with {font.name if font else 'no SoundFont'}"
    why = "neither FluidSynth nor midirenderer is installed" if font else "no SoundFont was found"
    return f"sine waves, without drums ({why if ready_players(font) == ['sines'] else 'as asked'})"


def _finish(samples: np.ndarray, stop: float) -> np.ndarray:
    """Normalised, and cut a short rest after the last that can be heard, but not before `stop` seconds."""
    loud = np.maximum(samples.max(axis=1, initial=0.0), -samples.min(axis=1, initial=0.0))
    peak = float(loud.max(initial=0.0))
    if peak <= 0:
        raise RenderError("no note of it can be heard: the SoundFont has no sound for them")
    rest = int(REST_SECONDS * RATE)
    last = len(loud) - int(np.argmax((loud > SILENT * peak)[::-1]))
    samples = samples[: max(last + rest, math.ceil(stop * RATE))]
    samples *= np.float32(LOUDEST / peak)
    samples[-rest:] *= np.linspace(1, 0, len(samples[-rest:]), dtype=np.float32)[:, None]
    return samples
