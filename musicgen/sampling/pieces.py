"""New pieces from nothing: a model, a tokenizer and a seed in, scores out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from musicgen.decoders.model import Model
from musicgen.formats.instruments import section_of
from musicgen.sampling.filters import SamplingConfig
from musicgen.sampling.sampler import sample
from musicgen.score import Part, Score
from musicgen.tokens import Tokenizer


def sample_scores(
    model: Model,
    tokenizer: Tokenizer,
    *,
    count: int,
    bars: int | None,
    most_bars: int = 64,
    seed: int,
    config: SamplingConfig,
    progress: Callable[[int], None] = lambda bars: None,
) -> list[tuple[Score, float]]:
    """(piece, nats of all of it) `count` times: `bars` bars each, or ending when it likes within `most_bars`.

    Its parts stand in the order of a score, whichever came first.
    """
    start = np.array([tokenizer.start], dtype=np.int16)
    sampled = sample(
        model,
        tokenizer,
        [tokenizer.cursor(bars) for _ in range(count)],
        start,
        config=config,
        seed=seed,
        most_bars=bars or most_bars,
        progress=progress,
    )
    return [(in_score_order(tokenizer.decode(np.concatenate([start, drawn.steps]))), drawn.nats) for drawn in sampled]


def in_score_order(score: Score) -> Score:
    """Woodwind on top, then brass, percussion, keyboards and plucked strings, voices, strings; else as they are."""
    return replace(score, parts=tuple(sorted(score.parts, key=_place)))


def _place(part: Part) -> tuple[int, int]:
    section = section_of("", part.program, part.is_drum)
    within = _WITHIN.index(part.program) if part.program in _WITHIN else len(_WITHIN)
    return _SECTIONS.index(section), within


_SECTIONS = ("woodwind", "brass", "percussion", "", "voices", "strings")
_WITHIN = (72, 73, 68, 69, 71, 70, 60, 56, 57, 58, 40, 41, 42, 43)
"""Piccolo to bassoon, horn to tuba, violin to double bass, as General MIDI programs; others behind them."""
