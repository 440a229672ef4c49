"""The queue: one job at a time, so many waiting, so many kept, and none that nobody wants."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from musicgen.errors import FinishError
from musicgen.web.jobs import CANCELLED, DONE, FAILED, WAITING, Busy, Job, Jobs, Limits


def until(happened: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait for what another thread does. Fails where it does not happen."""
    stop = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < stop, "it did not happen"
        time.sleep(0.005)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    running = Jobs(tmp_path, Limits(waiting=2, kept=3, kept_bytes=1000, unwatched=30))
    running.start()
    yield running
    running.close()


def never_ends(job: Job) -> None:
    while True:
        job.tell("composing")
        time.sleep(0.005)


def fails(job: Job) -> None:
    raise FinishError("there is nothing to go on with")


def writes(size: int) -> Callable[[Job], str]:
    def work(job: Job) -> str:
        (job.folder / "made").write_bytes(bytes(size))
        return "made"

    return work


def test_a_job_is_done_by_the_worker_and_its_result_is_there(jobs):
    job = jobs.submit("tune", lambda job: threading.current_thread().name)
    until(lambda: job.over)
    assert (job.state, job.result) == (DONE, "musicgen-worker")


def test_jobs_wait_for_one_another_in_their_order(jobs):
    first = jobs.submit("first", never_ends)
    until(lambda: first.stage)
    waiting = [jobs.submit("second", writes(1)), jobs.submit("third", writes(1))]
    assert [job.state for job in waiting] == [WAITING, WAITING]
    assert [jobs.before(job) for job in (first, *waiting)] == [0, 1, 2]


def test_a_short_job_goes_before_those_that_wait(jobs):
    first = jobs.submit("first", never_ends)
    until(lambda: first.stage)
    long, short = jobs.submit("long", writes(1)), jobs.submit("", writes(1), first=True)
    assert jobs.before(short) < jobs.before(long)


def test_a_full_queue_takes_no_more(jobs):
    first = jobs.submit("first", never_ends)
    until(lambda: first.stage)
    jobs.submit("second", never_ends)
    jobs.submit("third", never_ends)
    with pytest.raises(Busy):
        jobs.submit("fourth", never_ends)


def test_a_cancelled_job_stops_where_it_next_tells_and_leaves_nothing(jobs):
    job = jobs.submit("tune", never_ends)
    until(lambda: job.stage)
    jobs.cancel(job)
    until(lambda: job.over)
    assert job.state == CANCELLED
    assert not job.folder.exists()


def test_a_cancelled_job_that_waits_is_over_at_once(jobs):
    first = jobs.submit("first", never_ends)
    until(lambda: first.stage)
    second = jobs.submit("second", never_ends)
    jobs.cancel(second)
    assert second.state == CANCELLED


def test_no_handler_of_faults_takes_being_cancelled_for_one(jobs):
    def stubborn(job: Job) -> None:
        while True:
            with suppress(Exception):
                job.tell("composing")

    job = jobs.submit("tune", stubborn)
    until(lambda: job.stage)
    jobs.cancel(job)
    until(lambda: job.over)
    assert job.state == CANCELLED


def test_a_job_that_nobody_watches_is_cancelled(tmp_path):
    jobs = Jobs(tmp_path, Limits(unwatched=0.05))
    jobs.start()
    watched, left = jobs.submit("watched", never_ends), jobs.submit("left", writes(1))
    watched.watch(1)
    until(lambda: watched.stage)
    left.watch(1)
    left.watch(-1)
    time.sleep(0.1)
    assert not watched.over
    watched.watch(-1)
    until(lambda: watched.over and left.over)
    jobs.close()
    assert (watched.state, left.state) == (CANCELLED, CANCELLED)


def test_what_a_user_did_wrong_is_a_sentence(jobs):
    def fails(job: Job) -> None:
        raise FinishError("no notes")

    job = jobs.submit("tune", fails)
    until(lambda: job.over)
    assert (job.state, job.sentence) == (FAILED, "no notes")


def test_a_fault_of_the_program_is_a_sentence_and_the_next_job_is_done(jobs, caplog):
    def fails(job: Job) -> None:
        raise KeyError("/home/somebody/secret")

    job, after = jobs.submit("tune", fails), jobs.submit("next", writes(1))
    until(lambda: after.over)
    assert job.sentence == "musicgen itself is at fault (KeyError); the terminal says more"
    assert "secret" in caplog.text
    assert after.state == DONE


def test_the_oldest_results_make_room_for_new_ones(jobs):
    done = []
    for _ in range(4):
        done.append(jobs.submit("tune", writes(10)))
        until(lambda: done[-1].over)
    assert [jobs.find(job.id) is not None for job in done] == [False, True, True, True]
    assert [job.folder.exists() for job in done] == [False, True, True, True]


def test_results_outlive_jobs_that_have_none(jobs):
    done = jobs.submit("tune", writes(10))
    until(lambda: done.over)
    failed = [jobs.submit("tune", fails) for _ in range(2)]
    until(lambda: failed[-1].over)
    failed.append(jobs.submit("tune", fails))
    until(lambda: failed[-1].over)
    assert [jobs.find(job.id) is not None for job in (done, *failed)] == [True, False, True, True]


def test_a_job_that_is_over_holds_nothing_of_what_it_was_given(jobs):
    given = np.zeros(3)
    there = weakref.ref(given)
    job = jobs.submit("tune", lambda job, given=given: len(given))
    del given
    until(lambda: job.over)
    assert there() is None


def test_large_results_make_room_for_new_ones(jobs):
    done = []
    for _ in range(3):
        done.append(jobs.submit("tune", writes(450)))
        until(lambda: done[-1].over)
    assert [job.folder.exists() for job in done] == [False, True, True]


def test_only_what_is_done_is_kept_where_it_was_told_and_each_under_its_own_name(tmp_path):
    home, keep = tmp_path / "home", tmp_path / "keep"
    home.mkdir()
    keep.mkdir()
    jobs = Jobs(home, keep=keep)
    jobs.start()
    for work in (writes(5), writes(6), never_ends):
        job = jobs.submit("tune-finished", work)
        until(lambda job=job: job.over or job.stage)
    jobs.close()
    assert sorted((p.parent.name, p.stat().st_size) for p in keep.rglob("*/made")) == [
        ("tune-finished", 5),
        ("tune-finished-2", 6),
    ]
    assert len(list(keep.iterdir())) == 2


def test_a_result_that_can_not_be_kept_is_there_to_be_downloaded(tmp_path):
    keep = tmp_path / "keep"
    keep.write_text("a file, where a folder was when the server began")
    jobs = Jobs(tmp_path, keep=keep)
    jobs.start()
    job = jobs.submit("tune-finished", writes(5))
    until(lambda: job.over)
    jobs.close()
    assert job.state == DONE
    assert job.sentence == f"not kept in {keep}: Not a directory"
    assert (job.folder / "made").exists()


def test_when_the_server_stops_the_job_ends_and_no_other_begins(jobs):
    job, waiting = jobs.submit("tune", never_ends), jobs.submit("next", writes(1))
    until(lambda: job.stage)
    jobs.close()
    assert job.state == CANCELLED
    assert waiting.state == WAITING
    with pytest.raises(Busy):
        jobs.submit("another", never_ends)
