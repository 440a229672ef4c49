"""General MIDI: what its programs and drum keys are called, and the names of pitches."""

from __future__ import annotations

_NAMES = """
    Acoustic Grand Piano, Bright Piano, Electric Grand Piano, Honky-tonk Piano, Electric Piano 1, Electric Piano 2,
    Harpsichord, Clavinet, Celesta, Glockenspiel, Music Box, Vibraphone, Marimba, Xylophone, Tubular Bells, Dulcimer,
    Drawbar Organ, Percussive Organ, Rock Organ, Church Organ, Reed Organ, Accordion, Harmonica, Bandoneon,
    Nylon Guitar, Steel Guitar, Jazz Guitar, Clean Guitar, Muted Guitar, Overdriven Guitar, Distortion Guitar,
    Guitar Harmonics, Acoustic Bass, Fingered Bass, Picked Bass, Fretless Bass, Slap Bass 1, Slap Bass 2, Synth Bass 1,
    Synth Bass 2, Violin, Viola, Violoncello, Contrabass, Tremolo Strings, Pizzicato Strings, Harp, Timpani,
    String Ensemble 1, String Ensemble 2, Synth Strings 1, Synth Strings 2, Choir Aahs, Voice Oohs, Synth Voice,
    Orchestra Hit, Trumpet, Trombone, Tuba, Muted Trumpet, Horn, Brass Section, Synth Brass 1, Synth Brass 2,
    Soprano Saxophone, Alto Saxophone, Tenor Saxophone, Baritone Saxophone, Oboe, English Horn, Bassoon, Clarinet,
    Piccolo, Flute, Recorder, Pan Flute, Blown Bottle, Shakuhachi, Whistle, Ocarina, Square Lead, Saw Lead,
    Calliope Lead, Chiff Lead, Charang Lead, Voice Lead, Fifths Lead, Bass Lead, New Age Pad, Warm Pad, Polysynth Pad,
    Choir Pad, Bowed Pad, Metallic Pad, Halo Pad, Sweep Pad, Rain, Soundtrack, Crystal, Atmosphere, Brightness, Goblins,
    Echoes, Sci-fi, Sitar, Banjo, Shamisen, Koto, Kalimba, Bagpipe, Fiddle, Shanai, Tinkle Bell, Agogo, Steel Drums,
    Woodblock, Taiko Drum, Melodic Tom, Synth Drum, Reverse Cymbal, Guitar Fret Noise, Breath Noise, Seashore,
    Bird Tweet, Telephone Ring, Helicopter, Applause, Gunshot
"""
PROGRAM_NAMES = tuple(name.strip() for name in _NAMES.split(","))
"""(128,) the General MIDI instruments by program, named as a score would name them."""

DRUM_KIT = {
    35: "Acoustic Bass Drum", 36: "Bass Drum", 37: "Side Stick", 38: "Snare Drum", 39: "Hand Clap",
    40: "Electric Snare", 41: "Low Floor Tom", 42: "Closed Hi-hat", 43: "High Floor Tom", 44: "Pedal Hi-hat",
    45: "Low Tom", 46: "Open Hi-hat", 47: "Low-mid Tom", 48: "High-mid Tom", 49: "Crash Cymbal", 50: "High Tom",
    51: "Ride Cymbal", 52: "Chinese Cymbal", 53: "Ride Bell", 54: "Tambourine", 55: "Splash Cymbal", 56: "Cowbell",
    57: "Crash Cymbal 2", 58: "Vibraslap", 59: "Ride Cymbal 2", 60: "High Bongo", 61: "Low Bongo",
    62: "Mute High Conga", 63: "Open High Conga", 64: "Low Conga", 65: "High Timbale", 66: "Low Timbale",
    67: "High Agogo", 68: "Low Agogo", 69: "Cabasa", 70: "Maracas", 71: "Short Whistle", 72: "Long Whistle",
    73: "Short Guiro", 74: "Long Guiro", 75: "Claves", 76: "High Woodblock", 77: "Low Woodblock", 78: "Mute Cuica",
    79: "Open Cuica", 80: "Mute Triangle", 81: "Open Triangle",
}  # fmt: skip
"""Key -> General MIDI percussion sound."""

PITCH_NAMES = tuple(
    f"{name}{octave}"
    for octave in range(-1, 10)
    for name in ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
)[:128]
"""Pitch 0..127 -> its name, C4 = 60."""

DRUM_NAMES = tuple(DRUM_KIT.get(key, f"drum {key}") for key in range(128))
