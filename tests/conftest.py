"""What many tests need: where the music is, a cache of their own, and small models that train in seconds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models here are too small to share out; set before torch loads

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data() -> Path:
    """The music that the project bundles."""
    return ROOT / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Larger sets that lie beside a checkout of the project; tests that want them are skipped, visibly, without."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not there")
    return folder


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Compiled corpora of tests do not mix with the user's."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MUSICGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()
