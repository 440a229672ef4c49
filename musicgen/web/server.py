"""Running the local page: a socket on 127.0.0.1, a folder that is gone when the server stops, and uvicorn."""

from __future__ import annotations

import errno
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from musicgen.errors import ConfigError

HOST = "127.0.0.1"
"""And no other: whoever can reach this server may use it."""
PORT = 8000


def serve(
    *,
    port: int = PORT,
    keep: str | Path | None = None,
    checkpoints: str | Path | None = None,
    on_ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve the page until Ctrl-C (or SIGTERM) comes. on_ready: called with its address as soon as it answers.

    port: 0 takes any free one. keep: a folder that results are copied to; None: nothing is left when the server has
    stopped. checkpoints: a folder of checkpoints to choose from, besides those that ship; None: ./checkpoints. Raises
    ConfigError: the extra is not installed, the port is taken, a folder is none.
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as error:
        raise ConfigError(f"serve: {error.name} is not installed; pip install 'musicgen[serve]'") from None
    from musicgen.web.app import create_app
    from musicgen.web.bench import SCRATCH, Bench
    from musicgen.web.jobs import Jobs
    from musicgen.web.shelf import find_models

    models = find_models(Path(checkpoints) if checkpoints is not None else None)
    kept = _folder(Path(keep)) if keep is not None else None
    with (
        listen(port) as listening,
        tempfile.TemporaryDirectory(prefix="musicgen-", ignore_cleanup_errors=True) as home,
    ):
        jobs, bench = Jobs(Path(home), keep=kept), Bench(Path(home) / SCRATCH)
        bound = listening.getsockname()[1]
        app = create_app(jobs, bench, models, bound)

        class Server(uvicorn.Server):
            def handle_exit(self, sig, frame) -> None:
                bench.closed = True
                jobs.stop()  # lets those who watch go, for whom the server would wait
                super().handle_exit(sig, frame)

        server = Server(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                ws="none",
                lifespan="off",
                proxy_headers=False,
                limit_concurrency=64,
                timeout_graceful_shutdown=3,
            )
        )
        before = _end_by_ctrl_c()
        try:
            bench.start()
            jobs.start()
            on_ready(f"http://{HOST}:{bound}")
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            pass  # the ordinary end
        finally:
            bench.closed = True
            jobs.close()
            bench.close()
            for number, handler in before.items():
                signal.signal(number, handler)


def _end_by_ctrl_c() -> dict:
    """Let SIGTERM, and a terminal that is closed, end the server as Ctrl-C does; returns what they did before."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    try:
        before = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            end_by = signal.default_int_handler if number == signal.SIGTERM else _as_sigterm
            signal.signal(number, end_by)
    except ValueError:  # not the main thread: whoever runs it there ends it
        return {}
    return before


def _as_sigterm(number: int, frame: object) -> None:
    signal.raise_signal(signal.SIGTERM)


def _folder(keep: Path) -> Path:
    try:
        keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--keep {keep}: {error.strerror or error}") from error
    return keep.resolve()


def listen(port: int) -> socket.socket:
    """A socket that is listened to, on loopback. Raises ConfigError."""
    try:
        return socket.create_server((HOST, port), reuse_port=False)
    except OverflowError:
        raise ConfigError(f"--port {port}: must be 0 to 65535") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"--port {port}: another program listens there; choose another port") from None
        raise ConfigError(f"--port {port}: {error.strerror or error}") from error
