"""The piano roll: a score as a picture, what was given and what was added in two colours.

In comes a score, out goes a file: bars across, pitch upwards, drums in a strip of their own below. A long score is
drawn twice, as a whole and as a close-up of the join, or of the beginning where nothing joins.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musicgen.errors import FormatError
from musicgen.formats.instruments import DRUM_STAFF
from musicgen.score import Part, Score
from musicgen.score.general_midi import DRUM_KIT

GIVEN, ADDED, SEAM = "#3b4252", "#1f6fd6", "#d1495b"
BAR_LINE, CLOSE_UP = "#c8ccd4", "#eef1f6"
LONG_BARS = 40
"""Bars from which on a score is drawn twice."""
NEAR_BARS = 8
"""Bars on each side of the join that the close-up shows."""
WIDEST_INCHES = 16.0
MOST_NUMBERS = 24
"""Bar numbers under a panel."""


@dataclass(frozen=True)
class _Panel:
    """A stretch of the score, in ticks, and what it is called."""

    start: int
    stop: int
    title: str


def check_picture(path: str | Path) -> Path:
    """The path, if a picture can be written there. Raises FormatError."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise FormatError(f"{path}: a piano roll is written as .png, .svg or .pdf")
    return path


@dataclass(frozen=True)
class _New:
    """What is new: see draw_roll."""

    seam: int | None
    until: int | None
    parts: Collection[int]

    @property
    def lines(self) -> list[int]:
        """Where new meets old, in ticks."""
        return [tick for tick in (self.seam, self.until if self.seam is not None else None) if tick is not None]


def draw_roll(
    score: Score,
    path: str | Path,
    seam: int | None = None,
    until: int | None = None,
    new_parts: Collection[int] = (),
) -> None:
    """Draw `score` as PNG, SVG or PDF, by suffix; repeats as written.

    New notes are drawn in blue: those that begin in [seam, until), in ticks, until None: to the end, with a line at
    either end; and all of the parts new_parts, counted from 0. The same score gives the same picture. Raises
    FormatError for another suffix.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = check_picture(path)
    new = _New(seam, until, new_parts)
    panels = _panels(score, new)
    drums = sum(part.is_drum and len(part.notes) > 0 for part in score.parts)
    pitched = sum(not part.is_drum and len(part.notes) > 0 for part in score.parts)
    kinds = [False] * bool(pitched or not drums) + [True] * bool(drums)  # is_drum of each strip of a panel
    shown = max(len(_bars_of(score, panel)) for panel in panels)
    width = WIDEST_INCHES if len(panels) > 1 else float(np.clip(3 + 0.32 * shown, 5, WIDEST_INCHES))
    height = len(panels) * (4.4 * (False in kinds) + 1.5 * (True in kinds)) + 0.7
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(_title(score, new, width)), x=0.01, ha="left", fontsize=12)
    rows = figure.subfigures(len(panels), 1, squeeze=False)[:, 0] if len(panels) > 1 else [figure]
    ratios = [5.0 if not is_drum else 1.6 for is_drum in kinds]
    for row, panel in zip(rows, panels, strict=True):
        axes = row.subplots(len(kinds), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        for axis, is_drum in zip(axes, kinds, strict=True):
            _draw_strip(axis, score, is_drum, panel, new)
            if panel is panels[0] and len(panels) > 1:
                axis.axvspan(panels[1].start, panels[1].stop, color=CLOSE_UP, zorder=-1)
        axes[0].set_title(panel.title, loc="left", fontsize=10)
        _number_bars(axes[-1], score, panel, width)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
    try:
        with mpl.rc_context({"svg.hashsalt": "musicgen"}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # of a title in a script the font has not
            figure.savefig(temporary, dpi=110, metadata=undated)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _panels(score: Score, new: _New) -> list[_Panel]:
    whole = _Panel(0, max(score.length, 1), "")
    if len(score.bars) <= LONG_BARS:
        return [whole]
    bar = NEAR_BARS if new.seam is None else score.bar_at(new.seam)
    after = bar if new.seam is None or new.until is None else score.bar_at(max(new.until - 1, new.seam)) + 1
    first, last = max(bar - NEAR_BARS, 0), min(after + NEAR_BARS, len(score.bars)) - 1
    stop = int(score.bars[last]) + int(score.bar_lengths[last])
    near = "the beginning" if new.seam is None else "the join" if new.until is None else "around what is new"
    title = f"{near}, bars {first + 1} to {last + 1}"
    return [_Panel(0, whole.stop, f"the whole, {len(score.bars)} bars"), _Panel(int(score.bars[first]), stop, title)]


def _title(score: Score, new: _New, width: float) -> list[str]:
    """Lines that fit a figure so many inches wide: the score's title, and what the colours mean."""
    letters = int(width * 10)
    lines = textwrap.wrap(score.title.replace("$", r"\$"), letters, max_lines=2) or ["a score"]
    if new.seam is not None:
        bar = score.bar_at(new.seam) + 1
        if new.until is None:
            given = bar - 1 if new.seam in score.bars.tolist() else bar
            said = f"given to bar {given}, new from there on, in blue"
        else:
            last = score.bar_at(max(new.until - 1, new.seam)) + 1
            said = f"bar {bar} new, in blue" if last == bar else f"bars {bar} to {last} new, in blue"
        lines += textwrap.wrap(said, letters)
    if new.parts:
        names = [part.name or f"part {i + 1}" for i, part in enumerate(score.parts) if i in new.parts]
        lines += textwrap.wrap(f"new in blue: {', '.join(names)}".replace("$", r"\$"), letters, max_lines=2)
    return lines


def _bars_of(score: Score, panel: _Panel) -> np.ndarray:
    """Indices of the bars that a panel shows."""
    return np.flatnonzero((score.bars >= panel.start) & (score.bars < panel.stop))


def _draw_strip(axis: Any, score: Score, is_drum: bool, panel: _Panel, new: _New) -> None:
    """The parts of one kind, pitched or drums, in one panel."""
    from matplotlib.collections import PolyCollection

    chosen = [i for i, part in enumerate(score.parts) if part.is_drum == is_drum]
    notes = np.concatenate([Part().notes, *(score.parts[i].notes for i in chosen)])
    fresh = np.repeat([i in new.parts for i in chosen], [len(score.parts[i].notes) for i in chosen]).astype(bool)
    if new.seam is not None:
        fresh |= (notes["onset"] >= new.seam) & (notes["onset"] < (score.length if new.until is None else new.until))
    seen = (notes["onset"] < panel.stop) & (notes["onset"] + notes["duration"] > panel.start)
    notes, fresh = notes[seen], fresh[seen]
    keys = np.unique(notes["pitch"]).tolist()
    if is_drum and keys:  # a row for each drum that is struck, as high as on its staff
        keys.sort(key=_drum_height)
        heights = np.array([keys.index(key) for key in notes["pitch"].tolist()], dtype=float)
        low, high = -0.7, len(keys) - 0.3
        axis.set_yticks(range(len(keys)), [_drum_name(key) for key in keys] if len(keys) <= 7 else [""] * len(keys))
        axis.tick_params(axis="y", labelsize=7, length=0)
        axis.set_ylabel("drums")
    else:
        heights = notes["pitch"].astype(float)
        low, high = (min(keys) - 2, max(keys) + 2) if keys else (58, 74)
        low, high = min(low, (low + high) / 2 - 8), max(high, (low + high) / 2 + 8)
        octaves = [pitch for pitch in range(0, 128, 12) if low <= pitch <= high]
        axis.set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves])
    shortest = (panel.stop - panel.start) / 800  # still seen where thousands of bars are drawn
    starts, stops = notes["onset"].astype(float), notes["onset"] + np.maximum(notes["duration"] - 20.0, shortest)
    across = np.stack([starts, stops, stops, starts], axis=1)
    upwards = heights[:, None] + np.array([-0.42, -0.42, 0.42, 0.42])
    corners = np.stack([across, upwards], axis=2)  # (n, 4, 2)
    edge = 0.3 if len(_bars_of(score, panel)) <= LONG_BARS else 0.0
    for colour, chosen in ((GIVEN, ~fresh), (ADDED, fresh)):
        if chosen.any():
            axis.add_collection(PolyCollection(corners[chosen], facecolor=colour, edgecolor="white", linewidth=edge))
    axis.set_ylim(low, high)
    axis.set_xlim(panel.start, panel.stop)
    bars = score.bars[_bars_of(score, panel)]
    axis.vlines(bars[:: _step(len(bars))], low, high, color=BAR_LINE, linewidth=0.6, zorder=0)
    for tick in new.lines:
        if panel.start <= tick <= panel.stop:
            axis.axvline(tick, color=SEAM, linewidth=1.4, zorder=3)
    axis.spines[["top", "right"]].set_visible(False)


def _number_bars(axis: Any, score: Score, panel: _Panel, width: float) -> None:
    """Bar numbers under a panel, as many as can be read."""
    bars = _bars_of(score, panel)
    shown = bars[:: _step(len(bars), int(min(MOST_NUMBERS, 2 * width)))]
    axis.set_xticks(score.bars[shown].tolist(), [str(bar + 1) for bar in shown.tolist()])
    axis.set_xlabel("bar")


def _step(count: int, most: int = 160) -> int:
    """Every how many bars something is drawn, so that it is no more than `most` times."""
    return next(step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 2**20) if count <= most * step)


def _drum_height(key: int) -> tuple[int, int]:
    step, octave, _ = DRUM_STAFF.get(key, ("C", 5, "normal"))
    return 7 * octave + "CDEFGAB".index(step), key


def _drum_name(key: int) -> str:
    return DRUM_KIT.get(key, f"key {key}").lower()
