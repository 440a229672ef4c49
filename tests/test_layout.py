"""The ladder of DESIGN: a module imports only from rungs below its own, and the command line imports nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "musicgen"

RUNGS = (
    ("errors",),
    ("score",),
    ("formats",),
    ("render",),
    ("tokens",),
    ("corpus", "decoders"),
    ("training", "sampling"),
    ("config",),
    ("checkpoint",),
    ("run_log",),
    ("runs",),
    ("dry_run",),
    ("given",),
    ("finishing",),
    ("workflows",),
    ("fill_and_harmonise",),
    ("renditions",),
    ("web",),
    ("terminal",),
    ("cli",),
    ("__main__",),
)
HEIGHT = {name: height for height, names in enumerate(RUNGS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))


def rung(module: str) -> str:
    """'musicgen.tokens.bars' -> 'tokens'"""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "musicgen"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_from_rungs_below_its_own(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if own == "__init__":
        return
    for name in imports(path):
        other = rung(name)
        if other in ("", own, "__version__"):
            continue
        assert HEIGHT[other] < HEIGHT[own], f"{own} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_a_module_imports_no_private_name_of_another(path):
    names = {name.rpartition(".")[2] for name in imports(path)}
    assert not {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_the_ladder_names_every_part_of_the_package():
    there = {p.stem if p.is_file() else p.name for p in PACKAGE.iterdir() if p.suffix in ("", ".py")}
    assert there - {"__init__", "__pycache__"} == set(HEIGHT)


def test_help_imports_neither_torch_nor_music21():
    program = (
        "import sys; sys.argv = ['musicgen', '--help']\n"
        "from musicgen.cli import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'music21', 'numpy', 'pydantic', 'matplotlib', 'pretty_midi', 'symusic', 'verovio',\n"
        "    'typst', 'fastapi', 'uvicorn', 'midirenderer', 'lameenc', 'markdown_it'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "finish" in done.stdout
