"""The piano roll: a score as a picture, what was given and what was added in two colours."""

from __future__ import annotations

from pathlib import Path

from musicgen.errors import FormatError
from musicgen.score import Score

GIVEN, ADDED = "#3b4252", "#1f6fd6"
WIDEST_INCHES = 24.0


def check_picture(path: str | Path) -> Path:
    """The path, if a picture can be written there. Raises FormatError."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise FormatError(f"{path}: a piano roll is written as .png, .svg or .pdf")
    return path


def draw_roll(score: Score, path: str | Path, seam: int | None = None) -> None:
    """Draw `score` as PNG, SVG or PDF, by suffix: bars across, pitch upwards, drums below; repeats as written.

    seam: the tick from which notes are new; they are drawn in blue, with a line where they begin.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    path = check_picture(path)
    pitched = [part for part in score.parts if not part.is_drum and len(part.notes)]
    drums = [part for part in score.parts if part.is_drum and len(part.notes)]
    figure = Figure(figsize=(min(3 + 0.32 * len(score.bars), WIDEST_INCHES), 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    ratios = [5, 1] if drums and pitched else [1]
    axes = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    for axis, parts in zip(axes, [p for p in (pitched, drums) if p], strict=False):
        boxes: dict[str, list] = {GIVEN: [], ADDED: []}
        for part in parts:
            for onset, duration, pitch, _ in part.notes.tolist():
                stop = onset + max(duration - 20, 20)
                corners = [(onset, pitch - 0.42), (stop, pitch - 0.42), (stop, pitch + 0.42), (onset, pitch + 0.42)]
                boxes[ADDED if seam is not None and onset >= seam else GIVEN].append(corners)
        for colour, corners in boxes.items():
            axis.add_collection(PolyCollection(corners, facecolor=colour, edgecolor="white", linewidth=0.3))
        pitches = [p for part in parts for p in part.notes["pitch"].tolist()]
        axis.set_ylim(min(pitches) - 2, max(pitches) + 2)
        for bar in score.bars.tolist():
            axis.axvline(bar, color="#c8ccd4", linewidth=0.6, zorder=0)
        if seam is not None:
            axis.axvline(seam, color="#d1495b", linewidth=1.4, zorder=3)
        axis.spines[["top", "right"]].set_visible(False)
    top = axes[0]
    if pitched:
        low, high = top.get_ylim()
        octaves = [p for p in range(0, 128, 12) if low <= p <= high]
        top.set_yticks(octaves, [f"C{p // 12 - 1}" for p in octaves])
    if drums:
        axes[-1].set_yticks([])
        axes[-1].set_ylabel("drums")
    every = max(1, len(score.bars) // 24 // 4 * 4 or 1)
    axes[-1].set_xticks(score.bars[::every].tolist(), [str(i + 1) for i in range(0, len(score.bars), every)])
    axes[-1].set_xlim(0, max(score.length, 1))
    axes[-1].set_xlabel("bar")
    title = score.title or "score"
    if seam is not None:
        bar = score.bar_at(seam) + 1
        title += f": given to bar {bar - 1 if seam in score.bars.tolist() else bar}, continued in blue"
    top.set_title(title, loc="left", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        figure.savefig(temporary, dpi=110)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
