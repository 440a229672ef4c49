"""Which SoundFont is played: the one that was named, else one of this computer's, else pretty_midi's.

A SoundFont holds recorded instruments. None is part of this package: pretty_midi's wheel carries TimGM6mb.sf2 (6 MB,
GPL), which is read where pip put it, so that audio works with no set-up. Where somebody has put a larger one into the
system's folder it is preferred, if it is General MIDI: other fonts would play an orchestra on one piano. The same score
so sounds different on two computers; `Audio.player` names the font, and an option or a variable settles it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from musicgen.errors import RenderError

VARIABLE = "MUSICGEN_SOUNDFONT"
DRUM_BANK = 128
PRESET_BYTES = 38
"""Of one entry of a SoundFont's table of presets."""


def find_soundfont(chosen: Path | None = None) -> Path | None:
    """The SoundFont to play: `chosen`, or MUSICGEN_SOUNDFONT's, else a system's, else pretty_midi's; or None.

    Raises RenderError where the chosen one, or the variable's, is missing or no SoundFont.
    """
    if chosen is not None:
        return check_soundfont(Path(chosen))
    if named := os.environ.get(VARIABLE):
        return check_soundfont(Path(named).expanduser(), f"{VARIABLE}=")
    found = (path for path in _system_fonts() if is_general_midi(path))
    return next(found, None) or bundled_soundfont()


def bundled_soundfont() -> Path | None:
    """What pretty_midi's wheel carries, found without importing it; None where it does not."""
    spec = importlib.util.find_spec("pretty_midi")
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = (path for folder in folders for path in sorted(Path(folder).glob("*.sf2")))
    return next((path for path in found if is_general_midi(path)), None)


def check_soundfont(path: Path, said: str = "") -> Path:
    """The path, if a SoundFont is there; said: what stands before it in an error. Raises RenderError."""
    if not path.is_file():
        raise RenderError(f"{said}{path}: no such SoundFont; name a .sf2 file that is there")
    if not read_presets(path):
        raise RenderError(f"{said}{path}: not a whole SoundFont (RIFF of the kind sfbk); name a .sf2 file")
    return path


def is_general_midi(path: Path) -> bool:
    """Whether it is a SoundFont with drums and most of General MIDI's 128 instruments."""
    presets = read_presets(path)
    return len([1 for bank, _ in presets if bank == 0]) > 100 and any(bank == DRUM_BANK for bank, _ in presets)


def read_presets(path: Path) -> set[tuple[int, int]]:
    """(bank, program) of each preset that a SoundFont holds; empty for what is no SoundFont, or breaks off.

    The file is RIFF (SoundFont Technical Specification 2.04, section 4): a list `pdta` holds the table `phdr`, of
    entries of 38 bytes with a name of 20, then program and bank; the last entry only closes the table.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(12)
            if head[:4] != b"RIFF" or head[8:] != b"sfbk" or struct.unpack("<I", head[4:8])[0] + 8 > size:
                return set()
            for kind, start, stop in _chunks(file, 12, size):
                if kind == b"LIST" and file.read(4) == b"pdta":
                    for name, at, end in _chunks(file, start + 4, stop):
                        if name == b"phdr":
                            table = file.read(end - at)
                            entries = struct.iter_unpack(
                                "<20xHH14x", table[: len(table) // PRESET_BYTES * PRESET_BYTES]
                            )
                            return {(bank, program) for program, bank in list(entries)[:-1]}
    except OSError:
        pass
    return set()


def _chunks(file: BinaryIO, at: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, first byte, byte after the last) of each chunk between two places; the file stands at the first byte."""
    while at + 8 <= stop:
        file.seek(at)
        kind, size = struct.unpack("<4sI", file.read(8))
        if at + 8 + size > stop:
            return
        yield kind, at + 8, at + 8 + size
        at += 8 + size + size % 2


def system_folders() -> list[Path]:
    """The places where systems keep SoundFonts."""
    if sys.platform == "darwin":
        banks = "Library/Audio/Sounds/Banks"
        return [Path.home() / banks, Path("/") / banks]
    if sys.platform == "win32":
        return [Path(os.environ.get("PROGRAMDATA", r"C:\ProgramData")) / "soundfonts", Path(r"C:\soundfonts")]
    shares = (Path("/usr/local/share"), Path("/usr/share"))
    return [share / name for share in shares for name in ("sounds/sf2", "sounds/sf3", "soundfonts")]


def _system_fonts() -> list[Path]:
    """What lies in the system's folders: .sf2 before .sf3, those called default first."""
    kinds = (".sf2", ".sf3") if shutil.which("fluidsynth") else (".sf2",)  # midirenderer can't unpack an .sf3
    found = [path for folder in system_folders() if folder.is_dir() for path in sorted(folder.iterdir())]
    found = [path for path in found if path.suffix.lower() in kinds]
    found.sort(key=lambda path: (path.suffix.lower(), "default" not in path.name.lower()))
    return [path.resolve() for path in found]
