"""Three ways from MIDI to samples: the FluidSynth program, midirenderer (from a wheel), pretty_midi's sines.

Each gives (N, 2) float32 at 44,100 a second, not yet normalised, with nothing clipped and the same for the same file.
The first two run as processes of their own, so that a program that serves meanwhile is not held up (midirenderer keeps
Python's lock), and a font that breaks the synthesiser breaks nothing else.
"""

from __future__ import annotations

import importlib.util
import io
import math
import os
import shutil
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from musicgen.errors import RenderError
from musicgen.render.audio_events import Voice, encode, share_out

Group = Sequence[tuple[int, Voice]]
"""Voices with their channels."""
RATE = 44_100
"""Samples a second."""
SPARE_SECONDS = 60.0
"""What a synthesiser may take, beside the time that the music takes."""
LONG_SECONDS = 1200.0
"""Longer music is rendered one round at a time: a process takes 35 MB a minute."""
CHORUS = 0.3
"""The level of FluidSynth's chorus. Its own, 2.0, makes what a font sends there up to 14 dB louder, so that the strings
of TimGM6mb cover the orchestra. At 0.3 the balance of the 128 instruments is midirenderer's, within 1 dB or so."""
SOFTER = 0.5**0.5
"""Of a channel's volume: 6 dB, since loudness goes with its square."""
SOFTEST = 0.1
LATE_SECONDS = 5.0
"""What a synthesiser may go on for after the end that it is given; FluidSynth takes two."""
REACH, PIECE = 48, 1024
"""Of resampling: samples to either side that a filter weighs, and blocks at a time."""
ROOMY = 4
"""Of so many voices together the sum is likely to stay under the limit; of more the first try is already softer."""
RENDER = """
import sys, midirenderer
soundfont, midi = (open(path, "rb").read() for path in sys.argv[1:3])
open(sys.argv[3], "wb").write(midirenderer.render_wave_from(soundfont, midi))
"""


@dataclass(frozen=True)
class Heard:
    """What a synthesiser wrote: samples (N, 2) of any kind of number, `rate` a second; times `scale` they are right."""

    samples: np.ndarray
    rate: int = RATE
    scale: float = 1.0


def by_fluidsynth(voices: Sequence[Voice], stop: float, end: float, soundfont: Path | None) -> np.ndarray:
    """The `fluidsynth` program: 32-bit floats, so that nothing clips, with its own settings and not the user's."""
    soundfont, program = _needed(soundfont), shutil.which("fluidsynth")
    if program is None:
        raise RenderError("the program fluidsynth is not on the PATH; install it, or leave the choice of player open")

    def render(group: Group, folder: Path) -> Heard:
        settings, midi, raw = folder / "settings", folder / "in.mid", folder / "out.raw"
        settings.write_bytes(b"")
        midi.write_bytes(encode(group, stop, end))
        form = ["-T", "raw", "-O", "float", "-E", "little", "-r", RATE, "-o", f"synth.chorus.level={CHORUS}"]
        _run([program, "-ni", "-q", "-f", settings, "-F", raw, *form, soundfont, midi], end, soundfont)
        if not raw.is_file():
            raise RenderError(f"{soundfont}: fluidsynth wrote no samples; is it an old version?")
        return Heard(np.fromfile(raw, dtype="<f4").reshape(-1, 2))

    return _mix(render, voices, end)


def by_midirenderer(voices: Sequence[Voice], stop: float, end: float, soundfont: Path | None) -> np.ndarray:
    """midirenderer (rustysynth, in Rust). It gives 16 bits, 48,000 a second, and clips: so it is asked again, softer,
    until nothing touches the limit.
    """
    soundfont = _needed(soundfont)
    if soundfont.suffix.lower() == ".sf3":
        raise RenderError(f"{soundfont}: only FluidSynth plays .sf3; install it, or name a .sf2")

    def render(group: Group, folder: Path) -> Heard:
        midi, out = folder / "in.mid", folder / "out.wav"
        volume = SOFTER if len(group) > ROOMY else 1.0
        while True:
            midi.write_bytes(encode(group, stop, end, volume))
            _run([sys.executable, "-P", "-c", RENDER, soundfont, midi, out], end, soundfont)
            with wave.open(str(out)) as file:
                samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").reshape(-1, 2)
                heard = Heard(samples, file.getframerate(), 1 / (32768 * volume**2))
            if volume < SOFTEST or (samples.max(initial=0) < 32767 and samples.min(initial=0) > -32768):
                return heard
            volume *= SOFTER

    return _mix(render, voices, end)


def by_sines(voices: Sequence[Voice], stop: float, end: float, soundfont: Path | None) -> np.ndarray:
    """pretty_midi's sine waves: the pitches and times, and neither instruments nor drums."""
    import pretty_midi

    def render(group: Group, folder: Path) -> Heard:
        mono = pretty_midi.PrettyMIDI(io.BytesIO(encode(group, stop, end))).synthesize(fs=RATE)
        return Heard(np.repeat(mono[:, None], 2, axis=1))

    return _mix(render, voices, end)


PLAYERS = {"fluidsynth": by_fluidsynth, "midirenderer": by_midirenderer, "sines": by_sines}
"""The best first: FluidSynth interpolates more finely, and gives floats where midirenderer gives 16 bits."""


def ready_players(soundfont: Path | None) -> list[str]:
    """Which of PLAYERS can play through that font on this computer, the best first; sines where no other can."""
    if soundfont is None:
        return ["sines"]
    ready = ["fluidsynth"] if shutil.which("fluidsynth") else []
    if importlib.util.find_spec("midirenderer") and soundfont.suffix.lower() != ".sf3":
        ready.append("midirenderer")
    return ready or ["sines"]


def resample(heard: Heard) -> Iterator[np.ndarray]:
    """What was heard at RATE, as (n, 2) float32 pieces of some seconds that follow on each other.

    At 48,000 a second 160 samples in give 147 out; so a block's outputs are one matrix product of its inputs and their
    neighbours, the matrix holding a windowed sinc, cut off below half of the lower rate, for each of the 147 places.
    """
    common = math.gcd(heard.rate, RATE)
    steps, places, reach = heard.rate // common, RATE // common, REACH
    distance = np.arange(steps + 2 * reach)[:, None] - (np.arange(places) * steps / places + reach)
    cutoff = 0.96 * min(1, places / steps)
    window = np.i0(9 * np.sqrt(np.clip(1 - (distance / reach) ** 2, 0, 1))) / np.i0(9)  # Kaiser's
    filters = np.where(np.abs(distance) <= reach, heard.scale * cutoff * np.sinc(cutoff * distance) * window, 0)
    filters = filters.astype(np.float32)  # (steps + 2 * reach, places)
    for at in range(0, len(heard.samples), PIECE * steps):
        inside = heard.samples[max(at - reach, 0) : at + PIECE * steps + reach]
        piece = np.zeros((PIECE * steps + 2 * reach, 2), dtype=np.float32)
        piece[max(reach - at, 0) :][: len(inside)] = inside
        windows = np.lib.stride_tricks.sliding_window_view(piece, len(filters), axis=0)[::steps]  # (PIECE, 2, inputs)
        found = (np.ascontiguousarray(windows).reshape(-1, len(filters)) @ filters).reshape(PIECE, 2, places)
        yield found.transpose(0, 2, 1).reshape(-1, 2)[: (len(heard.samples) - at) * places // steps]


def _needed(soundfont: Path | None) -> Path:
    """The font's whole path, which no program takes for an option. Raises RenderError where there is none."""
    if soundfont is None:
        raise RenderError("no SoundFont found; name one by option, or in the environment variable MUSICGEN_SOUNDFONT")
    return soundfont.absolute()


def _mix(render: Callable[[Group, Path], Heard], voices: Sequence[Voice], end: float) -> np.ndarray:
    """All rounds of the voices sounding together, (N, 2), rendered several at a time and added in their order."""
    rounds = share_out(voices)
    workers = 1 if end > LONG_SECONDS else min(len(rounds), os.cpu_count() or 1, 4)
    mixed = np.zeros((math.ceil((end + LATE_SECONDS) * RATE), 2), dtype=np.float32)

    def in_own_folder(group: Group) -> Heard:
        with tempfile.TemporaryDirectory(prefix="musicgen-") as folder:
            return render(group, Path(folder))

    with ThreadPoolExecutor(workers) as pool:
        for heard in pool.map(in_own_folder, rounds):
            at = 0
            for piece in [heard.samples] if heard.rate == RATE and heard.scale == 1 else resample(heard):
                room = mixed[at : at + len(piece)]
                room += piece[: len(room)]
                at += len(piece)
    return mixed


def _run(command: list, end: float, soundfont: Path) -> None:
    """Run a synthesiser to its end. Raises RenderError with the last line of its complaint."""
    limit = SPARE_SECONDS + end
    try:
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, stdin=subprocess.DEVNULL, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RenderError(f"{soundfont}: the synthesiser took more than {limit:.0f} s, and was stopped") from error
    except OSError as error:
        raise RenderError(f"the synthesiser can't be started ({error.strerror or error})") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise RenderError(f"{soundfont}: the synthesiser can't play through it ({lines[-1][:160]})")
