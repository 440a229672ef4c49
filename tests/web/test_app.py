"""Who is answered, what is taken, and what is said to whoever gives something else."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import pytest

from musicgen.web.guard import PAGE_POLICY
from musicgen.web.jobs import Job

TUNE = b"X:1\nT:The Example\nM:4/4\nL:1/8\nK:G\nGABc d2e2|dcBA G4|\n"
SILENT = bytes.fromhex("4d546864 00000006 0000 0001 01e0  4d54726b 00000004 00 ff2f00")
"""A Standard MIDI File of one track that ends where it begins."""


def hold(job: Job) -> None:
    """Work that has no end."""
    while True:
        job.tell("held")
        time.sleep(0.01)


@pytest.fixture(scope="module")
def tune(server) -> dict:
    """What is understood of a tune that was uploaded."""
    answer = server.give("example.abc", TUNE)
    assert answer.status == 200, answer.body
    return answer.told


# ------------------------------------------------------------------------------------------------------ who is answered


def test_the_page_says_what_it_may_load_and_its_files_are_there(server):
    page = server.ask("GET", "/")
    assert page.headers["content-security-policy"] == PAGE_POLICY
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    for name in re.findall(r'(?:src|href)="(/[^"]*)"', page.body.decode()):
        assert server.ask("GET", name).status == 200


def test_the_page_holds_no_script_or_style_of_its_own_and_names_no_other_server(server):
    page = server.ask("GET", "/").body.decode()
    assert "<style" not in page
    assert "style=" not in page
    assert not re.search(r"<script(?![^>]*src=)", page)
    assert not re.search(r"\son\w+=", page)
    for name in ("/", "/app.js", "/app.css"):
        body = server.ask("GET", name).body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"^\s*//.*|\s// .*", "", body, flags=re.MULTILINE)


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/static/index.html", "/..%2fapp.py"])
def test_nothing_else_is_served(server, path):
    assert server.ask("GET", path).status == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1.evil.example:{port}"])
def test_a_foreign_host_is_refused_everywhere(server, host):
    for path in ("/", "/api/start"):
        answer = server.ask("GET", path, headers={"host": host.format(port=server.port)})
        assert answer.status == 403
        assert "127.0.0.1" in answer.told["sentence"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_each_name_of_this_server_is_answered(server, host):
    assert server.ask("GET", "/api/start", headers={"host": f"{host}:{server.port}"}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_another_site_reads_nothing_and_starts_nothing(server, headers):
    for method, path in (
        ("GET", "/api/start"),
        ("POST", "/api/pieces/tune"),
        ("POST", "/"),
        ("OPTIONS", "/api/finish"),
    ):
        answer = server.ask(method, path, headers=headers)
        assert answer.status == 403
        assert "another web site" in answer.told["sentence"]


def test_another_site_may_link_to_the_page(server):
    assert server.ask("GET", "/", headers={"sec-fetch-site": "cross-site"}).status == 200


def test_the_page_itself_is_answered_and_no_origin_is_ever_allowed(server):
    own = {"origin": f"http://localhost:{server.port}", "sec-fetch-site": "same-origin"}
    answers = [server.ask("GET", "/", headers=own), server.ask("GET", "/api/start", headers=own)]
    assert [answer.status for answer in answers] == [200, 200]
    assert not any(name.startswith("access-control") for answer in answers for name in answer.headers)
    assert answers[1].headers["cache-control"] == "no-store"


# -------------------------------------------------------------------------------------------------------- what is taken


def test_a_score_that_is_given_is_understood(tune):
    assert tune["title"] == "The Example"
    assert tune["key"] == "G major"
    assert ["bars", "2 bars of 4/4; bar 2 is complete"] in tune["words"]
    assert tune["parts"][0]["sounding"] == ["G4"]
    assert (tune["parts"][0]["name"], tune["parts"][0]["instrument"]) == ("One melody", "")
    assert tune["suits"] == "folk"


def test_every_bundled_piece_is_there_and_understood(server):
    keys = [piece["key"] for piece in server.ask("GET", "/api/start").told["pieces"]]
    assert keys == ["scherzo", "hymn", "tune", "song", "game"]
    found = {key: server.ask("POST", f"/api/pieces/{key}").told for key in keys}
    assert {key: told["bars"] for key, told in found.items()} == {
        "scherzo": 9,
        "hymn": 9,
        "tune": 9,
        "song": 14,
        "game": 12,
    }
    assert any(part["is_drum"] for part in found["game"]["parts"])


@pytest.mark.parametrize("name", ["cat.jpeg", "score", "", "score.abc.exe"])
def test_another_kind_of_file_is_refused_with_what_can_be_read(server, name):
    answer = server.give(name, b"x")
    assert answer.status == 415
    assert ".musicxml" in answer.told["sentence"]
    assert answer.told["field"] == "file"


def test_too_large_a_file_is_refused_before_it_is_read(server):
    answer = server.ask("POST", "/api/scores", None, {"x-file-name": "long.abc", "content-length": "200001"})
    assert answer.status == 413
    assert answer.told["sentence"] == "long.abc: larger than 0.190735 MB, which is the most"


def test_too_large_a_file_of_no_told_length_is_refused_while_it_is_read(server):
    chunks = iter([bytes(100_000)] * 3)
    answer = server.ask("POST", "/api/scores", chunks, {"x-file-name": "l.mid", "transfer-encoding": "chunked"})
    assert answer.status == 413
    assert not list(server.jobs.home.glob("scores/*/l.mid"))


@pytest.mark.parametrize("told", [True, False], ids=["of a told length", "in chunks"])
def test_nothing_but_a_score_may_be_large(server, told):
    body, headers = b" " * 70_000, {"content-type": "application/json"}
    if not told:
        body, headers = iter([body[:10]]), {**headers, "transfer-encoding": "chunked"}
    answer = server.ask("POST", "/api/sample", body, headers)
    assert answer.status == 413
    assert answer.told == {"sentence": "more was sent than 65,536 bytes of a told length"}


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("bad.mid", b"MThd nonsense", "bad.mid"),
        ("bad.musicxml", b"<score-partwise><part", "bad.musicxml"),
        ("bad.mxl", b"PK\x03\x04 nonsense", "bad.mxl"),
        ("two.abc", TUNE + b"\n" + TUNE.replace(b"X:1", b"X:2"), "holds 2 tunes"),
        ("silent.abc", b"X:1\nK:C\nz4|\n", "no notes"),
        ("silent.mid", SILENT, "begin it, or use the tab “Write new pieces”"),
        ("empty.abc", b"", "empty"),
    ],
)
def test_a_file_that_can_t_be_read_gets_the_readers_sentence_and_leaves_nothing(server, name, data, words):
    before = set(server.jobs.home.glob("scores/*"))
    answer = server.give(name, data)
    assert answer.status == 422
    assert words in answer.told["sentence"]
    assert str(server.jobs.home) not in answer.told["sentence"]
    assert "Traceback" not in answer.body.decode()
    assert set(server.jobs.home.glob("scores/*")) == before


@pytest.mark.parametrize("name", ["..%2F..%2Fetc%2Fexample.abc", "C%3A%5Cscores%5Cexample.abc"])
def test_a_name_leads_nowhere(server, name):
    told = server.give(name, TUNE).told
    assert told["name"] == "example.abc"
    assert (server.jobs.home / "scores" / told["score"] / "example.abc").read_bytes() == TUNE


def test_only_the_latest_scores_are_remembered(server):
    first = server.give("example.abc", TUNE).told["score"]
    for _ in range(16):
        server.give("example.abc", TUNE)
    assert len(list(server.jobs.home.glob("scores/*"))) == 16
    answer = server.ask("POST", "/api/finish", {"score": first})
    assert answer.status == 404
    assert "give it again" in answer.told["sentence"]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"bars": 513}, "bars"),
        ({"bars": 0}, "bars"),
        ({"bars": "many"}, "bars"),
        ({"bars": 300, "takes": 4}, "bars"),
        ({"takes": 9}, "takes"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 3.1}, "temperature"),
        ({"seed": 2**53}, "seed"),
        ({"checkpoint": "../folk"}, "checkpoint"),
        ({"out": "/etc/passwd"}, "out"),
    ],
)
def test_what_is_asked_for_has_bounds(server, asked, field):
    answer = server.ask("POST", "/api/sample", asked)
    assert answer.status == 422
    assert answer.told["field"] == field
    assert field in answer.told["sentence"] or asked[field] in answer.told["sentence"]


# ------------------------------------------------------------------------------------------------------------- the jobs


@pytest.fixture(scope="module")
def finished(server, tune) -> tuple[str, list[dict]]:
    """A job that finished the tune by four bars, twice, and all that was said of it."""
    score = server.give("example.abc", TUNE).told["score"]
    asked = {"score": score, "checkpoint": "folk", "bars": 4, "takes": 2, "seed": 1}
    job = server.ask("POST", "/api/finish", asked).told["job"]
    return job, list(server.events(job))


def test_a_job_is_told_of_from_its_beginning_to_its_end(finished):
    _, told = finished
    assert told[-1]["state"] == "done"
    stages = list(dict.fromkeys(one["stage"] for one in told if one["stage"]))
    assert stages == [one for one in ("reading", "composing", "playing and engraving") if one in stages]
    assert "playing and engraving" in stages


def test_the_result_is_what_the_command_line_writes(server, finished, tmp_path):
    from musicgen.given import shipped
    from musicgen.sampling import SamplingConfig
    from musicgen.workflows import finish_score

    job, told = finished
    (tmp_path / "example.abc").write_bytes(TUNE)
    config = SamplingConfig(top_p=0.95)
    report = finish_score(
        tmp_path / "example.abc", shipped("folk"), tmp_path / "out.abc", bars=4, takes=2, seed=1, config=config
    )
    for take, path in zip(told[-1]["result"]["takes"], report.files, strict=True):
        answer = server.ask("GET", f"/api/jobs/{job}/files/{take['files'][0]}")
        assert answer.body == path.read_bytes()
        assert answer.headers["content-disposition"].startswith("attachment")


def test_every_file_of_a_result_is_there_and_nothing_else(server, finished):
    job, told = finished
    result = told[-1]["result"]
    names = [name for take in result["takes"] for name in take["files"]] + [result["report"], result["page"]]
    assert [Path(name).suffix for name in result["takes"][0]["files"]] == [".abc", ".mid", ".musicxml"]
    assert all(server.ask("GET", f"/api/jobs/{job}/files/{name}").status == 200 for name in names)
    for name in ("example.abc", "..%2F..%2Fscores", "%2Fetc%2Fpasswd", "."):
        assert server.ask("GET", f"/api/jobs/{job}/files/{name}").status == 404


def test_the_page_of_a_result_may_be_framed_here_alone_and_run_alone(server, finished):
    job, _ = finished
    answer = server.ask("GET", f"/api/jobs/{job}/page")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "frame-ancestors 'self'" in policy
    assert "sandbox allow-scripts allow-downloads" in policy
    assert answer.headers["cache-control"] == "no-store"


def test_what_the_model_can_t_go_on_with_is_a_sentence(server, data):
    score = server.give("game.mid", (data / "freedoom" / "d_e1m8.mid").read_bytes()).told["score"]
    job = server.ask("POST", "/api/finish", {"score": score, "checkpoint": "folk", "bars": 4}).told["job"]
    last = list(server.events(job))[-1]
    assert last["state"] == "failed"
    assert "single melody" in last["sentence"]
    assert str(server.jobs.home) not in last["sentence"]


def test_new_pieces_are_written(server):
    job = server.ask("POST", "/api/sample", {"checkpoint": "folk", "bars": 2}).told["job"]
    last = list(server.events(job))[-1]
    assert [take["files"] for take in last["result"]["takes"]] == [["01.mid", "01.abc"]]
    assert server.ask("GET", f"/api/jobs/{job}/files/01.mid").body[:4] == b"MThd"


def test_a_job_is_cancelled_when_its_page_goes_away(server):
    job = server.jobs.submit("held", hold)
    told = server.events(job.id)
    next(one for one in told if one["stage"] == "held")
    time.sleep(2 * server.jobs.limits.unwatched)
    assert job.state == "running"
    told.close()
    stop = time.monotonic() + 10
    while not job.over and time.monotonic() < stop:
        time.sleep(0.01)
    assert job.state == "cancelled"


def test_a_full_queue_is_a_sentence(server):
    held = server.jobs.submit("held", hold)
    held.watch(1)
    try:
        answers = [server.ask("POST", "/api/sample", {"bars": 1}) for _ in range(6)]
        for answer in answers:
            if answer.status == 202:
                server.ask("POST", f"/api/jobs/{answer.told['job']}/cancel")
    finally:
        server.jobs.cancel(held)
    assert [answer.status for answer in answers].count(503) >= 1
    assert "queue is full" in answers[-1].told["sentence"]


def test_a_job_has_a_name_that_nobody_guesses(server, finished):
    job, _ = finished
    assert len(job) >= 22
    answer = server.ask("GET", "/api/jobs/1/events")
    assert answer.status == 404
    assert "no longer here" in answer.told["sentence"]


def test_the_process_that_works_may_not_take_all_memory():
    (process,) = [child for child in multiprocessing.active_children() if child.name == "musicgen-bench"]
    limits = Path(f"/proc/{process.pid}/limits")
    if not limits.exists():
        pytest.skip("the limits of processes are not told here")
    assert re.search(r"Max data size +\d+ ", limits.read_text())


def test_a_job_is_cancelled_when_its_page_says_so(server):
    job = server.ask("POST", "/api/sample", {"checkpoint": "folk", "bars": 512, "takes": 2}).told["job"]
    told = server.events(job)
    next(one for one in told if one["stage"] == "composing")
    assert server.ask("POST", f"/api/jobs/{job}/cancel").status == 204
    assert list(told)[-1]["state"] == "cancelled"
    assert not (server.jobs.home / job).exists()


def test_a_process_that_died_while_nobody_needed_it_is_not_noticed(server):
    (process,) = [child for child in multiprocessing.active_children() if child.name == "musicgen-bench"]
    left = server.bench.scratch / "left half done"
    server.bench.scratch.mkdir(exist_ok=True)
    left.touch()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert server.give("tune.abc", TUNE).status == 200
    assert not left.exists()


@pytest.mark.slow
def test_a_job_whose_process_dies_is_a_sentence_and_the_next_one_is_done(server):
    job = server.ask("POST", "/api/sample", {"checkpoint": "folk", "bars": 512, "takes": 2}).told["job"]
    told = server.events(job)
    next(one for one in told if one["stage"] == "composing")
    (process,) = [child for child in multiprocessing.active_children() if child.name == "musicgen-bench"]
    os.kill(process.pid, signal.SIGKILL)
    last = list(told)[-1]
    assert last["state"] == "failed"
    assert "broke off" in last["sentence"]
    assert server.give("example.abc", TUNE).told["title"] == "The Example"
