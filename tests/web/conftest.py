"""A running server with a queue that tests can look into, and one who asks it over a real socket."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn

from musicgen.web.app import create_app
from musicgen.web.bench import SCRATCH, Bench
from musicgen.web.jobs import Jobs, Limits
from musicgen.web.server import listen
from musicgen.web.shelf import find_models

MOST_BYTES = 200_000
"""Of an upload, here."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.body)


class Server:
    """The application on a free port of 127.0.0.1, in a thread of its own."""

    def __init__(self, home: Path, limits: Limits, keep: Path | None = None) -> None:
        self.jobs, self.bench = Jobs(home, limits, keep), Bench(home / SCRATCH)
        self.socket = listen(0)
        self.port = self.socket.getsockname()[1]
        app = create_app(self.jobs, self.bench, find_models(), self.port, most_bytes=MOST_BYTES)
        config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})

    def __enter__(self) -> Server:
        self.bench.start()
        self.jobs.start()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bench.closed = True
        self.jobs.close()
        self.bench.close()
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request; a dict is sent as JSON. The headers `host` and so on stand in place of the usual ones."""
        headers = dict(headers or {})
        if isinstance(body, dict):
            body, headers["content-type"] = json.dumps(body), "application/json"
        connection = self.connect()
        try:
            connection.request(method, path, body, headers, encode_chunked="transfer-encoding" in headers)
            answer = connection.getresponse()
            return Answer(answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def give(self, name: str, data: bytes) -> Answer:
        return self.ask("POST", "/api/scores", data, {"x-file-name": name})

    def events(self, job: str) -> Iterator[dict]:
        """All that is said of a job, until it is over or the caller stops listening."""
        connection = self.connect()
        try:
            connection.request("GET", f"/api/jobs/{job}/events")
            for line in connection.getresponse():
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        finally:
            connection.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("served"), Limits(unwatched=0.5)) as running:
        yield running
