"""Music that is heard: the right pitches and instruments, as FluidSynth plays them, neither clipped nor cut."""

from __future__ import annotations

import itertools
import shutil
import struct
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from musicgen.errors import RenderError
from musicgen.formats import read_score
from musicgen.formats.midi_events import Event, encode_track
from musicgen.render import soundfonts
from musicgen.render.audio import (
    LOUDEST,
    RATE,
    TAIL_SECONDS,
    Audio,
    mp3_bytes,
    play,
    play_score,
    wav_bytes,
    write_audio,
)
from musicgen.render.audio_players import Heard, resample
from musicgen.render.soundfonts import bundled_soundfont, find_soundfont, is_general_midi
from musicgen.score import Part, Score, Sign, notes_array

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from audio import likeness, mel_magnitudes  # noqa: E402

PROGRAMS = {"piano": 0, "guitar": 24, "bass": 32, "violin": 40, "strings": 48, "choir": 52, "trumpet": 56, "flute": 73}
needs_fluidsynth = pytest.mark.skipif(not shutil.which("fluidsynth"), reason="the program fluidsynth is not there")
BOTH = [pytest.param("fluidsynth", marks=needs_fluidsynth), "midirenderer"]
SECOND = 960
"""In ticks, at the tempo that a MIDI file has before it is told."""


@pytest.fixture(scope="module")
def font() -> Path:
    """pretty_midi's SoundFont, so that every computer hears the same here."""
    found = bundled_soundfont()
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(soundfonts.VARIABLE, raising=False)


def midi_of(*tracks: list[tuple[float, bytes]], kind: int | None = None) -> bytes:
    """A MIDI file of (seconds, bytes of the event) in time, a track each."""
    kind = (len(tracks) > 1) if kind is None else kind
    header = b"MThd" + struct.pack(">IHHH", 6, kind, len(tracks), SECOND // 2)
    return header + b"".join(encode_track([Event(round(s * SECOND), data) for s, data in track], 0) for track in tracks)


def note(key: int, start: float, stop: float, channel: int = 0, velocity: int = 90) -> list[tuple[float, bytes]]:
    return [(start, bytes([0x90 | channel, key, velocity])), (stop, bytes([0x80 | channel, key, 0]))]


def one_after_another(key: int = 69) -> bytes:
    """The note on each of PROGRAMS, two seconds after the last, for one second and a half."""
    told: list[tuple[float, bytes]] = []
    for i, program in enumerate(PROGRAMS.values()):
        told += [(2 * i, bytes([0xC0, program])), *note(key, 2 * i, 2 * i + 1.5)]
    return midi_of(told)


def beats(*keys: int) -> bytes:
    """Four of the drum channel a second."""
    return midi_of([event for i, key in enumerate(keys) for event in note(key, i / 4, i / 4 + 0.2, channel=9)])


def between(audio: Audio, start: float, stop: float) -> np.ndarray:
    return audio.samples[round(start * RATE) : round(stop * RATE)]


def strength(samples: np.ndarray, low: float, high: float) -> float:
    """The share of the sound's energy that lies between two frequencies."""
    power = np.abs(np.fft.rfft(samples.mean(axis=1) * np.hanning(len(samples)))) ** 2
    bins = np.fft.rfftfreq(len(samples), 1 / RATE)
    return float(power[(bins > low) & (bins < high)].sum() / power.sum())


def loudness(samples: np.ndarray) -> float:
    return float(np.sqrt((samples.astype(np.float64) ** 2).mean()))


def timbre(samples: np.ndarray) -> np.ndarray:
    """How strong each mel band is on the whole, in dB beside the strongest."""
    bands = mel_magnitudes(samples).mean(axis=0)
    return 20 * np.log10(bands / bands.max() + 1e-3)


@pytest.fixture(scope="module")
def programs(font) -> tuple[Audio, Audio]:
    """A4 on one program after another, by FluidSynth and by midirenderer."""
    return play(one_after_another(), font, "fluidsynth"), play(one_after_another(), font, "midirenderer")


# --- what sounds


@pytest.mark.parametrize("player", BOTH)
def test_a4_sounds_at_440_hz_or_its_overtones_on_every_program(font, player):
    audio = play(one_after_another(), font, player)
    for i in range(len(PROGRAMS)):
        sound = between(audio, 2 * i + 0.3, 2 * i + 1.4)
        tuned = sum(strength(sound, 440 * k * 2 ** (-0.5 / 12), 440 * k * 2 ** (0.5 / 12)) for k in range(1, 8))
        assert tuned > 0.9
        assert strength(sound, 0, 400) < 0.05


@needs_fluidsynth
def test_every_program_sounds_as_fluidsynth_plays_it(programs):
    theirs, ours = programs
    places = range(0, 2 * len(PROGRAMS), 2)
    for i in places:
        colour = timbre(between(ours, i, i + 2))
        alike = {j: np.corrcoef(colour, timbre(between(theirs, j, j + 2)))[0, 1] for j in places}
        assert max(alike, key=alike.__getitem__) == i
        assert alike[i] > 0.95


@needs_fluidsynth
def test_every_program_is_as_loud_beside_the_others_as_fluidsynth_has_it(programs):
    theirs, ours = programs
    places = range(0, 2 * len(PROGRAMS), 2)
    ratios = [loudness(between(theirs, i, i + 2)) / loudness(between(ours, i, i + 2)) for i in places]
    assert max(ratios) / min(ratios) < 1.5


@needs_fluidsynth
def test_likeness_tells_a_semitone_from_the_same_note(programs, font):
    higher = play(one_after_another(70), font, "midirenderer")
    assert likeness(programs[0].samples, higher.samples) < 0.75


@needs_fluidsynth
def test_the_drum_kit_sounds_as_fluidsynth_plays_it(font):
    midi = beats(36, 42, 38, 42, 36, 46, 49, 45)
    assert likeness(play(midi, font, "fluidsynth").samples, play(midi, font, "midirenderer").samples) > 0.9


@pytest.mark.slow
@needs_fluidsynth
@pytest.mark.parametrize("name", ["freedoom/d_dm14.mid", "orchestra/beethoven-op21-3.mid"])
def test_real_music_sounds_as_fluidsynth_plays_it(font, data, name):
    midi = (data / name).read_bytes()
    theirs, ours = play(midi, font, "fluidsynth"), play(midi, font, "midirenderer")
    assert likeness(theirs.samples, ours.samples) > 0.9
    assert abs(theirs.seconds - ours.seconds) < 1


def test_a_hi_hat_is_no_pitched_note(font):
    audio = play(beats(42, 42, 42, 42), font, "midirenderer")
    assert strength(audio.samples, 3000, RATE / 2) > 0.5


@pytest.mark.parametrize("player", BOTH)
def test_a_bend_of_the_pitch_is_heard(font, player):
    bent = [(0.0, b"\xc0\x49"), (0.0, b"\xe0\x7f\x7f"), *note(69, 0, 1.5)]  # up by two semitones, as far as it goes
    sound = between(play(midi_of(bent), font, player), 0.3, 1.4)
    assert strength(sound, 480, 508) > 0.5


def test_a_change_of_tempo_moves_what_follows(font):
    slow = (0.5, b"\xff\x51\x03" + (2_000_000).to_bytes(3, "big"))  # from there on four times as long
    audio = play(midi_of([slow, *note(69, 1, 1.25)]), font, "midirenderer")
    heard = np.flatnonzero(np.abs(audio.samples).max(axis=1) > 0.01)[0] / RATE
    assert heard == pytest.approx(0.5 + 4 * 0.5, abs=0.02)


def test_formats_0_and_1_sound_the_same(font):
    high, low = note(72, 0, 1), note(48, 0.5, 1.5, channel=1)
    one = midi_of(sorted(high + low, key=lambda event: event[0]))
    two = midi_of([], high, low, [])
    assert np.array_equal(play(one, font, "midirenderer").samples, play(two, font, "midirenderer").samples)


# --- many parts


def test_each_of_22_parts_sounds_with_its_own_instrument(font):
    programs = [0, 6, 11, 13, 19, 21, 24, 32, 40, 42, 46, 47, 52, 56, 57, 58, 60, 68, 70, 71, 73, 75]
    parts = tuple(
        Part(str(i), program, notes=notes_array([(SECOND // 2 * i, SECOND // 2 - 60, 67, 80)]))
        for i, program in enumerate(programs)
    )
    whole = play_score(Score(length=SECOND // 2 * len(parts), parts=parts), font, "midirenderer")
    for i in (0, 15, 21):
        alone = play_score(Score(length=SECOND // 2 * len(parts), parts=parts[i : i + 1]), font, "midirenderer")
        start = i / 2 + 0.1
        assert likeness(between(whole, start, start + 0.35), between(alone, start, start + 0.35)) > 0.97


def test_a_note_that_ends_in_one_track_does_not_end_it_in_another_on_the_same_channel(font):
    long, short = note(69, 0, 2), note(69, 0, 0.5)
    organ = (0.0, b"\xc0\x13")
    audio = play(midi_of([organ, *long], [organ, *short]), font, "midirenderer")
    assert loudness(between(audio, 1.2, 1.9)) > 0.2 * loudness(between(audio, 0.1, 0.4))


def test_a_channel_of_another_port_is_another_channel(font):
    port = (0.0, b"\xff\x21\x01\x01")
    piano, trumpet = [(0.0, b"\xc0\x00"), *note(69, 1, 1.5)], [port, (0.0, b"\xc0\x38"), *note(69, 2, 2.5)]
    both = play(midi_of(piano, trumpet), font, "midirenderer")
    for start, track in ((1, piano), (2, trumpet)):
        alone = play(midi_of(track), font, "midirenderer")
        assert likeness(between(both, start + 0.1, start + 0.5), between(alone, start + 0.1, start + 0.5)) > 0.97


# --- how long, how loud


@pytest.mark.parametrize("player", BOTH)
def test_the_last_note_rings_out_and_then_there_is_silence(font, player):
    audio = play(midi_of([(0.0, b"\xc0\x30"), *note(60, 0, 1)]), font, player)
    assert 1.05 < audio.seconds < 1 + TAIL_SECONDS
    assert loudness(between(audio, 1, 1.1)) > 0.05 * loudness(audio.samples)
    assert np.abs(audio.samples[-100:]).max() < 0.001


def test_a_note_that_never_ends_is_let_go_with_the_last_that_does(font):
    organ = [(0.0, b"\xc0\x13"), (0.0, b"\x90\x3c\x50"), *note(64, 0, 1)]
    assert play(midi_of(organ), font, "midirenderer").seconds < 4


def test_what_comes_long_after_the_last_note_is_not_waited_for(font):
    audio = play(midi_of([*note(60, 0, 1), (5000, b"\xb0\x07\x64"), (5000, b"\xc0\x01")]), font, "midirenderer")
    assert audio.seconds < 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["schubert-d759/scherzo.mid", "freedoom/d_intro.mid"])
def test_music_is_as_long_as_its_score_says(font, data, name):
    score = read_score(data / name)
    stop = max(
        float(score.seconds_at((p.notes["onset"] + p.notes["duration"]).max())) for p in score.parts if len(p.notes)
    )
    audio = play_score(score, font, "midirenderer")
    assert stop <= audio.seconds < stop + TAIL_SECONDS
    assert loudness(between(audio, stop - 2, stop)) > 0.001


def test_repeats_are_played(font):
    part = Part("Flute", 73, notes=notes_array([(0, 480, 69, 80), (960, 480, 71, 80)]))
    score = Score(length=1920, parts=(part,), signs=(Sign(0, "repeat_start"), Sign(1920, "repeat_end")))
    once = play_score(Score(length=1920, parts=(part,)), font, "midirenderer")
    assert play_score(score, font, "midirenderer").seconds - once.seconds == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("player", BOTH)
def test_a_loud_orchestra_is_not_clipped(font, player):
    def brass(volume: int) -> Audio:
        channels = [c for c in range(16) if c != 9]
        told = [(0.0, bytes([kind | c, *data])) for c in channels for kind, *data in ((0xC0, 61), (0xB0, 7, volume))]
        ends = [(t, kind | c) for t, kind in ((0.0, 0x90), (1.0, 0x80)) for c in channels]
        return play(
            midi_of(told + [(t, bytes([status, key, 127])) for t, status in ends for key in (48, 60)]), font, player
        )

    loud, soft = brass(127), brass(40)
    for audio in (loud, soft):
        assert np.abs(audio.samples).max() == pytest.approx(LOUDEST, abs=1e-4)
    # a clipped chord has tones that it should not
    assert likeness(between(loud, 0, 1), between(soft, 0, 1)) > 0.995


@pytest.mark.parametrize("player", BOTH)
def test_the_same_midi_gives_the_same_bytes(font, player):
    first, second = (play(beats(36, 42, 38, 42), font, player) for _ in range(2))
    assert wav_bytes(first) == wav_bytes(second)
    assert mp3_bytes(first) == mp3_bytes(second)


def test_a_tone_is_the_same_after_resampling():
    tone = np.sin(2 * np.pi * 1000 * np.arange(5 * 48_000) / 48_000)
    same = np.sin(2 * np.pi * 1000 * np.arange(5 * RATE) / RATE)
    found = np.concatenate(list(resample(Heard(np.stack([tone, -tone], axis=1) * 8, rate=48_000, scale=1 / 8))))
    assert found.shape == (5 * RATE, 2)
    assert np.abs(found[200:-200] - np.stack([same, -same], axis=1)[200:-200]).max() < 1e-4


# --- files


@pytest.fixture(scope="module")
def short(font) -> Audio:
    return play(midi_of(note(69, 0, 1)), font, "midirenderer")


def test_a_wav_is_stereo_of_16_bits_and_44_100_samples_a_second(short, tmp_path):
    write_audio(short, tmp_path / "new" / "a.WAV")
    with wave.open(str(tmp_path / "new" / "a.WAV")) as file:
        assert file.getparams()[:4] == (2, 2, RATE, len(short.samples))
        found = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    assert found.max() / 32767 == pytest.approx(short.samples.max(), abs=1e-4)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.WAV"]


def test_an_mp3_is_stereo_as_long_as_the_audio_and_112_kbps(short, tmp_path):
    write_audio(short, tmp_path / "a.mp3")
    data, at, frames = (tmp_path / "a.mp3").read_bytes(), 0, 0
    while at + 4 <= len(data):
        head = int.from_bytes(data[at : at + 4], "big")
        assert head >> 17 == 0x7FFD  # MPEG 1, layer III
        assert (head >> 12 & 15, head >> 10 & 3) == (8, 0)  # 112 kbps, 44,100 Hz
        assert head >> 6 & 3 != 3  # not mono
        at, frames = at + 144 * 112_000 // RATE + (head >> 9 & 1), frames + 1
    assert frames * 1152 / RATE == pytest.approx(short.seconds, abs=0.1)


def test_other_suffixes_are_refused_and_nothing_is_written(short, tmp_path):
    with pytest.raises(RenderError, match=r"\.wav or \.mp3"):
        write_audio(short, tmp_path / "a.ogg")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_can_not_be_made_is_one_line(short, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RenderError, match=r"a\.wav"):
        write_audio(short, tmp_path / "file" / "a.wav")


# --- what can't be played


@pytest.mark.parametrize(
    ("midi", "said"),
    [
        (b"RIFF....", "not a MIDI file"),
        (midi_of([(0.0, b"\xc0\x00")]), "nothing to hear"),
        (midi_of([(0.0, b"\x90\x3c\x00")]), "nothing to hear"),
        (midi_of(note(60, 0, 4000)), "67 minutes"),
        (midi_of([], [], kind=2), "format 2"),
        (midi_of(note(60, 0, 1))[:12] + b"\xe7\x28" + midi_of(note(60, 0, 1))[14:], "ticks a quarter"),
        (midi_of(note(60, 0, 1))[:30], "breaks off"),
        (midi_of(*([note(60, 0, 1)] * 300)), "300 voices"),
    ],
)
def test_what_can_not_be_played_is_said_in_one_line(font, midi, said):
    with pytest.raises(RenderError, match=said) as caught:
        play(midi, font)
    assert "\n" not in str(caught.value)


def test_an_unknown_player_is_refused(font):
    with pytest.raises(RenderError, match="fluidsynth, midirenderer, sines"):
        play(midi_of(note(60, 0, 1)), font, "timidity")


def riff(*presets: tuple[int, int]) -> bytes:
    """The bytes of a SoundFont with those (bank, program) and not a sound."""
    table = b"".join(struct.pack("<20sHH14x", b"", program, bank) for bank, program in (*presets, (0, 0)))
    parts = b"pdta" + b"phdr" + struct.pack("<I", len(table)) + table
    body = b"sfbk" + b"LIST" + struct.pack("<I", len(parts)) + parts
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("data", [b"", b"RIFF\4\0\0\0WAVE", riff((0, 0))[:-30], riff()])
def test_a_file_that_is_no_soundfont_is_refused_by_name(data, tmp_path, monkeypatch):
    (tmp_path / "font.sf2").write_bytes(data)
    with pytest.raises(RenderError, match=r"font\.sf2: not a whole SoundFont"):
        play(midi_of(note(60, 0, 1)), tmp_path / "font.sf2")
    monkeypatch.setenv(soundfonts.VARIABLE, str(tmp_path / "font.sf2"))
    with pytest.raises(RenderError, match=r"MUSICGEN_SOUNDFONT=.*font\.sf2"):
        find_soundfont()


def test_a_soundfont_that_is_missing_is_refused_by_name(tmp_path):
    with pytest.raises(RenderError, match=r"font\.sf2: no such SoundFont"):
        play(midi_of(note(60, 0, 1)), tmp_path / "font.sf2")


def test_a_soundfont_without_sounds_is_one_line(tmp_path):
    (tmp_path / "empty.sf2").write_bytes(riff((0, 0)))
    with pytest.raises(RenderError, match=r"empty\.sf2") as caught:
        play(midi_of(note(60, 0, 1)), tmp_path / "empty.sf2", "midirenderer")
    assert "\n" not in str(caught.value)


# --- which player, which SoundFont


def test_the_option_comes_before_the_variable_and_the_variable_before_the_rest(tmp_path, font, monkeypatch):
    for name in ("one.sf2", "two.sf2"):
        (tmp_path / name).write_bytes(riff((0, 0)))
    monkeypatch.setenv(soundfonts.VARIABLE, str(tmp_path / "two.sf2"))
    assert find_soundfont(tmp_path / "one.sf2") == tmp_path / "one.sf2"
    assert find_soundfont() == tmp_path / "two.sf2"


def test_a_systems_soundfont_is_taken_if_it_is_general_midi(tmp_path, font, monkeypatch):
    monkeypatch.setattr(soundfonts, "system_folders", lambda: [tmp_path, tmp_path / "none"])
    assert find_soundfont() == font
    (tmp_path / "a-piano.sf2").write_bytes(riff((0, 0)))
    assert find_soundfont() == font
    whole = riff(*itertools.product([0], range(128)), (128, 0))
    for name in ("b-orchestra.sf2", "c-default.sf2"):
        (tmp_path / name).write_bytes(whole)
    assert is_general_midi(tmp_path / "b-orchestra.sf2")
    assert find_soundfont() == tmp_path / "c-default.sf2"


def test_with_no_set_up_the_wheels_play(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(soundfonts, "system_folders", lambda: [])
    assert play(midi_of(note(60, 0, 0.2))).player == "midirenderer with TimGM6mb.sf2"


@needs_fluidsynth
def test_fluidsynth_plays_where_it_is_on_the_path(font):
    assert play(midi_of(note(60, 0, 0.2)), font).player == "fluidsynth with TimGM6mb.sf2"


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a script")
def test_where_fluidsynth_fails_midirenderer_plays(font, tmp_path, monkeypatch):
    program = tmp_path / "fluidsynth"
    program.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert play(midi_of(note(60, 0, 0.2)), font).player == "midirenderer with TimGM6mb.sf2"
    with pytest.raises(RenderError, match="broken"):
        play(midi_of(note(60, 0, 0.2)), font, "fluidsynth")


def test_without_any_soundfont_there_are_sine_waves_that_say_so(monkeypatch):
    monkeypatch.setattr("musicgen.render.audio.find_soundfont", lambda chosen: None)
    audio = play(midi_of(note(69, 0, 1)))
    assert audio.player == "sine waves, without drums (no SoundFont was found)"
    assert strength(audio.samples, 430, 450) > 0.9
