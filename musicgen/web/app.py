"""The application behind the local page: uploads and choices in, events and results out. Nobody else may ask it.

    GET  /, /app.css, /app.js             the page itself
    GET  /api/start                       what there is to choose from, and the limits
    POST /api/scores                      a score as the raw body, its name in X-File-Name; what was understood of it
    POST /api/pieces/KEY                  the same of a bundled piece
    POST /api/finish, /api/sample         a job, by JSON; its id
    GET  /api/jobs/ID/events              how far it is, as server-sent events; when all who listen go, it is cancelled
    POST /api/jobs/ID/cancel
    GET  /api/jobs/ID/page                the result in one page
    GET  /api/jobs/ID/files/NAME          one of its files, to download

Whatever goes wrong is answered by {"sentence": ...}, with the field of the form it belongs to where there is one.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import anyio
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from musicgen.formats.files import READERS
from musicgen.web import tasks
from musicgen.web.bench import Bench
from musicgen.web.guard import RESULT_POLICY, Guard
from musicgen.web.jobs import CANCELLED, FAILED, Busy, Job, Jobs, fault_in_words
from musicgen.web.shelf import Model, find_pieces
from musicgen.web.tasks import Asked, FinishAsked

STATIC = Path(__file__).parent / "static"
FILES = {"/": "index.html", "/app.css": "app.css", "/app.js": "app.js"}

MOST_BYTES = 20 * 2**20
"""Of a score that is uploaded."""
MOST_SCORES = 16
"""Uploaded ones that are remembered; the oldest goes."""
MOST_TOGETHER = 1024
"""Bars to write, of all takes of a job: the page of its result stays one that a browser can open."""
LOOK, BEAT = 0.1, 2.0
"""Seconds between looks at a job, and between signs of life to who watches it."""
BUSY = "the queue is full; wait for one of the jobs in it, or cancel it"


class Refusal(Exception):
    """A sentence for the page, with the status it comes under."""

    def __init__(self, status: int, sentence: str, field: str | None = None) -> None:
        self.status, self.sentence, self.field = status, sentence, field


@dataclass(frozen=True)
class Given:
    """A score that was uploaded or chosen, on disk, and the name that it has for whoever gave it."""

    path: Path
    name: str


def create_app(jobs: Jobs, bench: Bench, models: dict[str, Model], port: int, most_bytes: int = MOST_BYTES) -> Guard:
    """The application for a server on 127.0.0.1:port. jobs, bench: started and closed by whoever calls this."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    pieces = find_pieces()
    scores: OrderedDict[str, Given] = OrderedDict()
    shelf = jobs.home / "scores"
    names = {model.folder: model.name for model in models.values()}

    # --------------------------------------------------------------------------------------------------------- mistakes

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return JSONResponse({"sentence": error.sentence, "field": error.field}, error.status)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = str(first["loc"][-1])
        return JSONResponse({"sentence": f"{field}: {first['msg'].removeprefix('Input ')}", "field": field}, 422)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"sentence": f"{request.url.path}: {error.detail.lower()}"}, error.status_code)

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        return JSONResponse({"sentence": fault_in_words(error)}, 500)

    # --------------------------------------------------------------------------------------------------------- the page

    for path, name in FILES.items():
        app.get(path)(_file(name))

    @app.get("/api/start")
    async def start() -> dict:
        return {
            "checkpoints": [{"name": model.name, "about": model.about} for model in models.values()],
            "pieces": [{"key": piece.key, "title": piece.title, "about": piece.about} for piece, _ in pieces.values()],
            "suffixes": list(READERS),
            "most_bytes": most_bytes,
            "kept": str(jobs.keep) if jobs.keep else None,
        }

    # ----------------------------------------------------------------------------------------------------------- scores

    @app.post("/api/scores")
    async def upload(request: Request) -> dict:
        name = unquote(request.headers.get("x-file-name", "")).replace("\\", "/").rpartition("/")[2]
        suffix = Path(name).suffix.lower()
        if suffix not in READERS:
            what = f"{suffix} files" if suffix else "a file without a suffix"
            raise Refusal(415, f"{name or 'a score'}: {what} can’t be read; {', '.join(READERS)} can", "file")
        too_large = Refusal(413, f"{name}: larger than {most_bytes / 2**20:g} MB, which is the most", "file")
        if int(request.headers.get("content-length") or 0) > most_bytes:
            raise too_large
        with place_on(shelf) as folder:
            path = folder / f"{plain_name(Path(name).stem)}{suffix}"
            size = 0
            try:
                with path.open("wb") as file:
                    async for chunk in request.stream():
                        size += len(chunk)
                        if size > most_bytes:
                            raise too_large
                        file.write(chunk)
            except ClientDisconnect:
                raise Refusal(400, "the rest of it never came") from None
            return await understood(request, Given(path, name))

    @app.post("/api/pieces/{key}")
    async def choose(key: str, request: Request) -> dict:
        if key not in pieces:
            raise Refusal(404, f"{key}: no such piece")
        piece, source = pieces[key]
        with place_on(shelf) as folder:
            laid = await done(request, jobs, lambda job: bench.run(job, tasks.lay_out, piece, source, folder), names)
            return await understood(request, Given(laid, piece.title))

    async def understood(request: Request, given: Given) -> dict:
        found = await done(request, jobs, lambda job: bench.run(job, tasks.read, given.path), {given.path: given.name})
        identity = given.path.parent.name
        scores[identity] = given
        while len(scores) > MOST_SCORES:
            shutil.rmtree(scores.popitem(last=False)[1].path.parent, ignore_errors=True)
        return {**found, "score": identity, "name": given.name}

    # ------------------------------------------------------------------------------------------------------------- jobs

    def checkpoint_of(asked: Asked) -> Path | None:
        if (asked.bars or 1) * asked.takes > MOST_TOGETHER:
            sentence = f"bars: {asked.bars} in each of {asked.takes} are more than {MOST_TOGETHER:,}; ask for fewer"
            raise Refusal(422, sentence, "bars")
        if asked.checkpoint is None:
            return None
        if asked.checkpoint not in models:
            raise Refusal(422, f"{asked.checkpoint}: no such checkpoint", "checkpoint")
        return models[asked.checkpoint].folder

    @app.post("/api/finish", status_code=202)
    async def finish(asked: FinishAsked) -> dict:
        checkpoint = checkpoint_of(asked)
        if asked.score not in scores:
            raise Refusal(404, "that score is no longer here; give it again", "file")
        given = scores[asked.score]
        data = given.path.read_bytes()  # the job's own: newer scores may push it off the shelf before its turn

        def work(job: Job) -> dict:
            source = job.folder / given.path.name
            source.write_bytes(data)
            return bench.run(job, tasks.finish, asked, source, checkpoint)

        return submit(f"{given.path.stem}-finished", work)

    @app.post("/api/sample", status_code=202)
    async def sample(asked: Asked) -> dict:
        checkpoint = checkpoint_of(asked)
        return submit("new-pieces", lambda job: bench.run(job, tasks.sample, asked, job.folder, checkpoint))

    def submit(name: str, work: Callable[[Job], Any]) -> dict:
        try:
            return {"job": jobs.submit(name, work).id}
        except Busy:
            raise Refusal(503, BUSY) from None

    def job_of(identity: str) -> Job:
        if (job := jobs.find(identity)) is None:
            raise Refusal(404, "that job is no longer here; the oldest results make room for new ones")
        return job

    @app.get("/api/jobs/{identity}/events")
    async def events(identity: str) -> Response:
        return StreamingResponse(watch(job_of(identity), jobs, names), media_type="text/event-stream")

    @app.post("/api/jobs/{identity}/cancel", status_code=204)
    async def cancel(identity: str) -> Response:
        jobs.cancel(job_of(identity))
        return Response(status_code=204)

    @app.get("/api/jobs/{identity}/page")
    async def page(identity: str) -> Response:
        job = job_of(identity)
        if not (job.result or {}).get("page"):
            raise Refusal(404, "that job has no page")
        headers = {"content-security-policy": RESULT_POLICY}
        return FileResponse(job.folder / job.result["page"], media_type="text/html; charset=utf-8", headers=headers)

    @app.get("/api/jobs/{identity}/files/{name}")
    async def download(identity: str, name: str) -> Response:
        job = job_of(identity)
        if name not in names_of(job):
            raise Refusal(404, f"that job has no file {name}")
        headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(name)}"}
        return FileResponse(job.folder / name, media_type="application/octet-stream", headers=headers)

    return Guard(app, port, FILES, large=["/api/scores"])


def _file(name: str) -> Callable[[], Awaitable[Response]]:
    """A handler that answers with one of the page's own files."""

    async def answer() -> Response:
        return FileResponse(STATIC / name, headers={"cache-control": "no-cache"})

    return answer


@contextmanager
def place_on(shelf: Path) -> Iterator[Path]:
    """A new folder there, of a name that nobody guesses; it goes again if what is done with it fails."""
    folder = shelf / secrets.token_urlsafe(16)
    folder.mkdir(parents=True)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def plain_name(stem: str) -> str:
    """A stem that every file system takes: letters, digits, spaces, and - _ and . within."""
    return re.sub(r"[^\w .-]", "_", stem)[:40].strip(" .") or "score"


def names_of(job: Job) -> set[str]:
    """The files that a job has to give away."""
    result = job.result or {}
    named = {name for take in result.get("takes", ()) for name in take["files"]}
    return named | {result[one] for one in ("report", "page") if result.get(one)}


def said(job: Job, names: Mapping[Path, str]) -> str:
    """Why a job failed, or has no page, with names in place of the server's paths, and a tab in place of a command."""
    sentence = job.sentence or (job.result or {}).get("no_page") or ""
    for path, name in {**names, job.folder: "", job.folder.parent: ""}.items():
        sentence = sentence.replace(f"{path}{os.sep}" if not name else str(path), name)
    return sentence.replace("use `sample`", "use the tab “Write new pieces”")


async def done(request: Request, jobs: Jobs, work: Callable[[Job], Any], names: Mapping[Path, str]) -> Any:
    """Do a short piece of work before all that waits, and give its result. Raises Refusal with the job's sentence."""
    try:
        job = jobs.submit("", work, first=True)
    except Busy:
        raise Refusal(503, BUSY) from None
    job.watch(1)
    try:
        while not job.over:
            await anyio.sleep(LOOK / 2)
            if await request.is_disconnected():
                jobs.cancel(job)
        if job.state == FAILED:
            raise Refusal(422, said(job, names), "file")
        if job.state == CANCELLED:
            raise Refusal(503, "cancelled")
        return job.result
    finally:
        job.watch(-1)
        jobs.forget(job)


async def watch(job: Job, jobs: Jobs, names: Mapping[Path, str]) -> AsyncIterator[str]:
    """A job's progress as server-sent events, until it is over; for so long it has somebody who watches."""
    job.watch(1)
    try:
        last, sent = "", 0.0
        while True:
            over = job.over  # before it is told: what is told last is how it ended
            facts = {
                "state": job.state,
                "stage": job.stage,
                "count": job.count,
                "total": job.total,
                "before": jobs.before(job),
            }
            if over:
                result = {name: what for name, what in (job.result or {}).items() if name != "no_page"}
                facts |= {"sentence": said(job, names), "result": result}
            now = json.dumps(facts)
            if now != last:
                yield f"data: {now}\n\n"
                last, sent = now, time.monotonic()
            elif time.monotonic() - sent > BEAT:
                yield ":\n\n"
                sent = time.monotonic()
            if over or jobs.closing:
                return
            await anyio.sleep(LOOK)
    finally:
        job.watch(-1)
