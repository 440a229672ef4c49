"""Running it: on loopback alone, and nothing is left when it has stopped."""

from __future__ import annotations

import inspect
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from musicgen.checkpoint import BEST
from musicgen.errors import ConfigError
from musicgen.web import shelf
from musicgen.web.server import listen, serve

RUN = "from musicgen.web.server import serve\nserve(port=0, keep={keep!r}, on_ready=lambda at: print(at, flush=True))\n"


@pytest.mark.slow
def test_it_starts_on_loopback_alone_and_takes_all_with_it_when_it_is_stopped(tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    program = [sys.executable, "-W", "error", "-c", RUN.format(keep=None)]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(temporary)}
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            port = int(address.rpartition(":")[2])
            assert address == f"http://127.0.0.1:{port}"
            with urllib.request.urlopen(address, timeout=10) as page:
                assert b"musicgen" in page.read()
            score = urllib.request.Request(f"{address}/api/scores", b"X:1\nK:C\nCDEF|\n", {"X-File-Name": "a.abc"})
            with urllib.request.urlopen(score, timeout=60) as answer:
                assert answer.status == 200
            assert list(temporary.glob("musicgen-*/scores/*/a.abc"))
            if sys.platform == "linux":  # where all of 127.0.0.0/8 is this machine
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.2", port), timeout=5)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()  # where all went well it has ended already
    assert process.returncode == 0
    assert said == ""
    assert not list(temporary.iterdir())


def test_no_other_address_can_be_asked_for():
    assert set(inspect.signature(serve).parameters) == {"port", "keep", "checkpoints", "on_ready"}


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r"pip install 'musicgen\[serve\]'"):
        serve()


def test_a_port_that_is_taken_is_a_sentence():
    with listen(0) as taken, pytest.raises(ConfigError, match="another program listens there"):
        serve(port=taken.getsockname()[1])


def test_a_folder_without_checkpoints_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        serve(checkpoints=tmp_path)


def test_a_folder_to_keep_results_in_that_is_a_file_is_a_sentence(tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(ConfigError, match="--keep"):
        serve(keep=tmp_path / "kept")


def test_the_page_does_not_wait_for_pytorch_or_music21():
    program = (
        "import sys, musicgen.web.app, musicgen.web.server, musicgen.web.shelf\n"
        "musicgen.web.shelf.find_models()\n"
        "heavy = {'torch', 'music21', 'verovio', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_own_checkpoints_stand_beside_those_that_ship(tmp_path):
    assert shelf.WEIGHTS == BEST
    for name in ("mine", "folk"):
        (tmp_path / name).mkdir()
        (tmp_path / name / BEST).touch()
    found = shelf.find_models(tmp_path)
    assert list(found) == ["folk", "mine", "orchestra"]
    assert found["folk"].folder == (tmp_path / "folk").resolve()
    assert found["mine"].about == "damaged"
    assert found["orchestra"].about == "any band; lstm"
    assert "mine" in shelf.find_models(tmp_path / "mine")


def test_pieces_are_found_beside_the_package_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = shelf.find_pieces()
    assert list(there) == [piece.key for piece in shelf.PIECES]
    monkeypatch.setattr(shelf, "BESIDE", Path("nowhere"))
    assert shelf.find_pieces() == {}
