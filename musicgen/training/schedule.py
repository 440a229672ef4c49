"""How fast a run learns and when it is over: by steps, or by the clock under a budget.

Under a budget the same schedule is walked by the share of the time that is gone. The last look at the validation
pieces is planned for, so that the run ends within its time; how long it takes is known from the looks before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from musicgen.training.config import TrainingConfig

LOOKING = 0.1
"""Most of a budget that looks before the last may take."""


def learning_rate(step: float, config: TrainingConfig) -> float:
    """Linear warm-up, then a cosine down to `final_share`. step: counted from 0; a fraction under a budget."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = min((step - config.warmup) / max(config.steps - config.warmup, 1), 1.0)
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * (config.final_share + (1 - config.final_share) * cosine)


@dataclass
class Pace:
    """Where a run is: steps and seconds since its beginning, over all its resumes."""

    config: TrainingConfig
    step: int = 0
    seconds: float = 0.0
    """Spent in updates and looks."""
    look: float = 0.0
    """Seconds the longest look so far took."""
    guess: float = 0.0
    """What a look is taken to need before there was one."""
    looked: float = 0.0
    saved: float = 0.0
    """When, in `seconds`, the last look ended and the run was last saved."""

    @property
    def time(self) -> float | None:
        """Seconds there are for updates and all looks but the last; None without a budget."""
        budget = self.config.budget
        return None if budget is None else budget - min(self.look or self.guess, budget / 2)

    @property
    def over(self) -> bool:
        return self.step >= self.config.steps if self.time is None else self.seconds >= self.time

    @property
    def learning_rate(self) -> float:
        position = self.step if self.time is None else self.config.steps * self.seconds / self.time
        return learning_rate(position, self.config)

    @property
    def left(self) -> float:
        """Seconds that are left, if all goes on as it went."""
        if self.config.budget is not None:
            return max(self.config.budget - self.seconds, 0.0)
        return self.seconds / max(self.step, 1) * max(self.config.steps - self.step, 0)

    @property
    def look_is_due(self) -> bool:
        if self.over:
            return True
        affordable = self.time is None or (self.seconds - self.looked) * LOOKING >= (self.look or self.guess)
        return self.step % self.config.evaluate_every == 0 and affordable

    @property
    def save_is_due(self) -> bool:
        return self.seconds - self.saved >= self.config.save_every

    def updated(self, seconds: float) -> None:
        """An update took so long."""
        self.step += 1
        self.seconds += seconds

    def has_looked(self, seconds: float) -> None:
        """A look took so long."""
        self.seconds += seconds
        self.looked, self.look = self.seconds, max(self.look, seconds)

    def facts(self) -> dict:
        """Plain values, from which Pace(config, **facts) goes on."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "config"}
