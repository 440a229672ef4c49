"""The curves of a training run as one picture: losses, the learning rate, and how long the gradients were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any


def draw_curves(looks: Sequence[Mapping[str, Any]], path: str | Path, title: str = "") -> None:
    """Draw the lines of a metrics.jsonl, one a look, as a .png or .svg. Losses are in nats a note."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    figure = Figure(figsize=(8, 7), layout="constrained")
    FigureCanvasAgg(figure)
    losses, rate, norm = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    steps = [look["step"] for look in looks]
    dots = {"marker": "o" if len(looks) < 30 else None, "ms": 3}  # a single look would otherwise leave no trace

    losses.plot(steps, [look["train_nats_per_note"] for look in looks], color="#8a93a3", **dots, label="train")
    held_out = [(look["step"], look["valid_nats_per_note"]) for look in looks if "valid_nats_per_note" in look]
    if held_out:
        losses.plot(*zip(*held_out, strict=True), color="#2364aa", **dots, label="validation")
        step, best = min(held_out, key=lambda look: look[1])
        losses.annotate(
            f"best {best:.3f}", (step, best), xytext=(-6, 10), textcoords="offset points", ha="right", color="#2364aa"
        )
        losses.plot([step], [best], color="#2364aa", marker="o", ms=6)
    losses.set_ylabel("nats a note")
    losses.legend(frameon=False)
    losses.margins(y=0.15)
    losses.set_title(f"{title}: what training did" if title else "what training did", loc="left", fontsize=11)

    rate.plot(steps, [look["learning_rate"] for look in looks], color="#5c9e31", **dots)
    rate.set_ylabel("learning rate")
    rate.set_ylim(bottom=0)
    norm.plot(steps, [look["gradient_norm"] for look in looks], color="#c9722f", **dots)
    norm.set_ylabel("gradient norm")
    norm.set_ylim(bottom=0)
    norm.set_xlabel("step")
    for axis in (losses, rate, norm):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e3e6ec", linewidth=0.6)

    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        figure.savefig(temporary, dpi=110)
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
