"""A budget is kept by the clock: one that the tests wind themselves."""

from __future__ import annotations

import pytest

from musicgen.config import check_config
from musicgen.errors import ConfigError
from musicgen.training import loop


class Clock:
    """Each update takes a second, each look as long as it is told, and finds what the first found."""

    def __init__(self, monkeypatch, look: float) -> None:
        self.now, self.seen = 0.0, None
        real_average, real_evaluate = loop.Trainer._average, loop.evaluate

        def average(trainer) -> None:
            self.now += 1
            real_average(trainer)

        def evaluate(*words, **options):
            self.now += look
            self.seen = self.seen or real_evaluate(*words, **options)
            return self.seen

        monkeypatch.setattr(loop.Trainer, "_average", average)
        monkeypatch.setattr(loop, "evaluate", evaluate)

    def __call__(self) -> float:
        return self.now


def budgeted(trainer, clock, **training):
    settings = {"steps": 10, "warmup": 1, "evaluate_every": 2, "learning_rate": 1.0e-3, "patience": 1000, **training}
    return trainer(clock=clock, **settings)


@pytest.mark.parametrize("look", [0.1, 5])
def test_a_run_ends_within_its_budget_and_its_last_look_too(trainer, monkeypatch, look):
    run = budgeted(trainer, Clock(monkeypatch, look), budget=60)
    reports = list(run.run())
    assert reports[-1].looked
    assert 58 <= run.seconds <= 61
    assert len(reports) > run.config.steps


@pytest.mark.parametrize("look", [0.5, 2])
def test_looks_before_the_last_take_at_most_a_tenth_of_a_budget(trainer, monkeypatch, look):
    run = budgeted(trainer, Clock(monkeypatch, look), budget=130)
    looks = [report.step for report in run.run() if report.looked]
    assert len(looks) > 3
    # the first is made on a guess of how long it takes
    assert (len(looks) - 2) * look <= 0.1 * 130
    assert all(step % 2 == 0 for step in looks[:-1])


def test_the_schedule_lands_on_time(trainer, monkeypatch):
    run = budgeted(trainer, Clock(monkeypatch, 2), budget=50, final_share=0.1)
    rates = [report.learning_rate for report in run.run()]
    warm = rates.index(max(rates))
    assert 3 <= warm <= 7  # a tenth, as warmup is of steps
    assert rates[:warm] == sorted(rates[:warm])
    assert 1.0e-4 <= rates[-1] < 1.2e-4


def test_a_resumed_run_goes_on_with_what_is_left_of_its_budget(trainer, monkeypatch):
    clock = Clock(monkeypatch, 1)
    first = budgeted(trainer, clock, budget=40)
    running = first.run()
    for _ in range(20):
        next(running)
    second = budgeted(trainer, clock, budget=40)
    second.restore(first.tensors(), first.facts())
    assert second.seconds == first.seconds
    list(second.run())
    assert 38 <= second.seconds <= 41


def test_without_a_budget_the_clock_decides_nothing(trainer, monkeypatch):
    run = trainer(clock=Clock(monkeypatch, 1000))
    assert [report.step for report in run.run() if report.looked] == [6, 12]


def test_a_run_is_saved_at_looks_and_after_so_many_seconds(trainer, monkeypatch):
    run = trainer(clock=Clock(monkeypatch, 0.0), save_every=4)
    assert [report.step for report in run.run() if report.save] == [4, 6, 10, 12]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2h", 7200), ("1m5s", 65), (30, 30), ("45", 45)]
)
def test_a_budget_is_a_time(text, seconds):
    assert check_config({"training": {"budget": text}}, "test").training.budget == seconds


@pytest.mark.parametrize("text", ["soon", "", "m", "10 minutes", "0", -5, "5m10h"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ConfigError, match=r"training\.budget"):
        check_config({"training": {"budget": text}}, "test")
