"""The figures of all takes on one page, beside the fragment's own: for a terminal, as Markdown, and as plain values.

In come what was understood, the fragment's themes, the takes and their files' names; out comes text that is the same
whenever and wherever the same takes were made: no date, no minutes, no path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from musicgen.sampling.finish import TYPICAL_BARS, Take
from musicgen.sampling.takes import FEATURES, LATE_BARS, Figures, from_seam
from musicgen.sampling.understanding import Understanding, in_lines
from musicgen.score import Part
from musicgen.score.lines import OPENING, PLAIN
from musicgen.score.themes import FEWEST_NOTES, MOST_NOTES, Quotation, Theme, quotations

COLUMNS = ("nats a note", "likeness", *FEATURES, "late likeness", "repeated bars", "copied notes", "quoted notes")
TAKES_COLUMNS = ("take", "file", "new bars", "notes", *COLUMNS)
NO_MELODIES = (
    "originality unknown: this checkpoint keeps no melodies of its training pieces; train it again to have them"
)

MOST_NAMES, MOST_QUOTED = 16, 6
"""Notes of a theme that are named, and places of a take that are listed."""

HOW_TO_READ = f"""\
- **nats a note**: how much the model was surprised by what it wrote; less is likelier. Recalled bars are left out. Of
  the fragment itself: by its last bars, {TYPICAL_BARS} at most.
- **likeness**: the mean of the four columns after it. Each is the area that two distributions have in common, 0 to 1,
  the take's and the fragment's: of pitch classes, note lengths, melodic intervals, and notes a bar.
- **late likeness**: the same beside the fragment's last bars, as many as the take has, {LATE_BARS} at least.
- **repeated bars**: the share of its bars that hold exactly what an earlier bar of its own holds.
- **copied notes**: the longest run of notes in one part whose intervals and rhythm stand just so in a training piece,
  in any key; **quoted notes**: in the fragment. A run of more than {OPENING} notes counts from where {PLAIN} of its
  first {OPENING} intervals differ: trills and repeated notes are taken from nobody.
- **theme**: {FEWEST_NOTES} to {MOST_NOTES} notes of one part whose intervals and rhythm come back in the fragment, in
  any part and key, note for note. A take quotes one where it has the whole of it, or its first {FEWEST_NOTES} notes or
  more, so far that {PLAIN} intervals differ; "(+12)" is moved by so many semitones.
- **the fragment itself**: its second half beside its first; its repeated bars and copied notes are of the whole.
- **the order**: a take's place in each of five rows is the number of takes that are better: much likeness; much late
  likeness (these two count twice); nats near those of the fragment's own last bars, for the likeliest music is dull; a
  share of repeated bars near the fragment's; few copied notes. The smallest sum of places comes first."""


def figures_in_words(figures: Figures) -> tuple[str, ...]:
    """One value for each of COLUMNS; "-" for what is not known."""
    return (
        _number(figures.nats_per_note),
        _number(figures.likeness),
        *(_number(figures.overlaps[name]) for name in FEATURES),
        _number(figures.late_likeness),
        f"{figures.repetition:.0%}",
        str(figures.copied.notes) if figures.copied is not None else "-",
        str(figures.quoted.notes),
    )


def takes_rows(
    takes: Sequence[Take], names: Sequence[str], begun: int, own: Figures | None = None
) -> list[tuple[str, ...]]:
    """A row of TAKES_COLUMNS for each take, and before them one for the fragment of `begun` bars itself, if `own`."""
    rows = [("-", "the fragment itself", "-", f"{own.notes}", *figures_in_words(own))] if own is not None else []
    for number, (take, name) in enumerate(zip(takes, names, strict=True), 1):
        new_bars = len(take.whole.bars) - begun
        rows.append((f"{number}", name, f"{new_bars}", f"{take.notes}", *figures_in_words(take.figures)))
    return rows


def report_page(
    understanding: Understanding,
    own: Figures,
    takes: Sequence[Take],
    names: Sequence[str],
    asked: Sequence[str],
    themes: Sequence[Theme] = (),
) -> str:
    """Markdown. names: of the takes' files; asked: what was asked for, a line each; own: `takes.measure_own`.

    themes: the fragment's, from `score.themes.find_themes`.
    """
    rows = [TAKES_COLUMNS, *takes_rows(takes, [_cell(name) for name in names], understanding.bars, own)]
    table = ["| " + " | ".join(row) + " |" for row in rows]
    table.insert(1, "|" + "|".join("---" if i < 2 else "---:" for i in range(len(rows[0]))) + "|")
    lines = [
        f"# {_cell(understanding.title or 'The fragment')}, continued",
        "",
        *(f"- {line}" for line in asked),
        "",
        "## What was read",
        "",
        *("    " + line for line in in_lines(understanding)),
        "",
        f"## {'The take' if len(takes) == 1 else f'The {len(takes)} takes, best first'}",
        "",
        *table,
        "",
        *(f"- {line}" for line in copies_in_words(takes, [_cell(name) for name in names])),
        "",
        "## Themes of the fragment",
        "",
        *themes_in_words(themes, [part.name for part in understanding.parts]),
        "",
        *(quoted_in_words(take, _cell(name), themes) for take, name in zip(takes, names, strict=True) if themes),
        "",
        "## How to read it",
        "",
        HOW_TO_READ,
        "",
    ]
    return "\n".join(lines)


def copies_in_words(takes: Sequence[Take], names: Sequence[str]) -> list[str]:
    """A line for each run worth the name that a take has in common with a training piece, or with the fragment."""
    said = []
    for take, name in zip(takes, names, strict=True):
        copied, quoted = take.figures.copied, take.figures.quoted
        for run, of in (
            (copied, f"the training piece {_cell(copied.source)!r}" if copied else ""),
            (quoted, "the fragment"),
        ):
            if run is not None and run.notes > OPENING:
                said.append(f"{name}: {run.notes} notes of {_cell(run.part)} from bar {run.bar} on are as in {of}")
    if any(take.figures.copied is None for take in takes):
        said.append(NO_MELODIES)
    elif not said:
        said.append(f"no run of more than {OPENING} notes is a training piece's, or the fragment's")
    return said


def take_quotations(take: Take, themes: Sequence[Theme]) -> list[Quotation]:
    """Where a take quotes themes of its fragment; bars are those of the whole, onsets count from the seam."""
    return quotations(themes, from_seam(take.new, take.seam), take.new.bar_at(take.seam) + 1)


def themes_in_words(themes: Sequence[Theme], parts: Sequence[str]) -> list[str]:
    """A numbered line for each theme: its notes, how many, how often it is stated, and where first."""
    if not themes:
        return [f"No figure of {FEWEST_NOTES} notes or more comes back in it note for note."]
    return [
        f"{number}. {' '.join(theme.notes[:MOST_NAMES])}{' ...' * (len(theme.notes) > MOST_NAMES)}: {len(theme.notes)} "
        f"notes, {theme.times} times, first in bar {theme.first.bar}, {_cell(parts[theme.first.part])}"
        for number, theme in enumerate(themes, 1)
    ]


def quoted_in_words(take: Take, name: str, themes: Sequence[Theme]) -> str:
    """One line: the first places where a take quotes themes, and how many more there are."""
    places: dict[tuple[int, int, int, int], list[str]] = {}  # parts that quote the same together are one place
    for found in take_quotations(take, themes):
        part = _part_name(take.new.parts[found.part], found.part)
        moved = f" ({found.semitones:+d})" if found.semitones else ""
        places.setdefault((found.onset, found.theme, found.bar, found.notes), []).append(f"{part}{moved}")
    said = [
        f"bar {bar} theme {theme + 1}, {'all' if notes == len(themes[theme].pitches) else 'the first'} {notes} notes, "
        f"{' and '.join(who)}"
        for (_, theme, bar, notes), who in places.items()
    ]
    if not said:
        return f"- {name}: quotes none of them"
    more = len(said) - MOST_QUOTED
    return f"- {name}: " + "; ".join(said[:MOST_QUOTED]) + (f"; and {more} more" if more > 0 else "")


def as_plain(
    takes: Sequence[Take],
    files: Sequence[str],
    begun: int,
    own: Figures | None = None,
    themes: Sequence[Theme] = (),
) -> dict:
    """For JSON. begun: bars of the fragment; own: its figures; themes: its themes."""
    return {
        **({"fragment": asdict(own)} if own is not None else {}),
        "themes": [{"notes": theme.notes, "times": theme.times, **asdict(theme)} for theme in themes],
        "takes": [
            {
                "file": file,
                "bars": len(take.whole.bars),
                "new_bars": len(take.whole.bars) - begun,
                "notes": take.notes,
                "nats_per_note": take.nats_per_note,
                "figures": asdict(take.figures),
                "quotations": [asdict(found) for found in take_quotations(take, themes)],
            }
            for take, file in zip(takes, files, strict=True)
        ],
    }


def _part_name(part: Part, number: int) -> str:
    return _cell(part.name or f"part {number + 1}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _cell(text: str) -> str:
    """A name as one cell of a table: what a file says may hold anything."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).replace("|", "/").split())
