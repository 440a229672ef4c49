"""What a command that writes music makes besides: audio, engraved pages, the page of HTML; made and named here once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from musicgen.terminal import kinds_bar, printable

if TYPE_CHECKING:
    from musicgen.render.beside import Piece


@dataclass(frozen=True)
class Beside:
    """What was asked for besides the music itself: kinds of rendition, the page and its opening, and who plays."""

    kinds: Sequence[str]
    html: bool
    open_page: bool
    soundfont: Path | None

    def check(self, out: Path) -> None:
        """Raises RenderError for what can't be made, before the music is. out: what is written, whatever its suffix."""
        if not (self.kinds or self.html or self.open_page):
            return
        from musicgen.errors import RenderError
        from musicgen.render.beside import KINDS, check_kinds

        kinds = [*self.kinds, *(["html"] if self.html or self.open_page else [])]
        check_kinds(kinds, self.soundfont, (*KINDS, "html"))
        for target in [out.with_suffix(f".{kind}") for kind in kinds]:
            if target.is_dir():
                raise RenderError(f"{target}: is a folder; choose another --out")

    def make(self, pieces: Callable[[], Sequence[Piece]], page_html: Callable[..., str], page: Path) -> list[str]:
        """Make it, open the page, and name the files, all but what plays them.

        pieces() and page_html(soundfont=, progress=) are of `renditions`; page: the file.
        """
        from musicgen.renditions import render_pieces, write_page

        files: list[Path] = []
        with kinds_bar() as bar:
            if self.kinds:
                made = render_pieces(pieces(), self.kinds, soundfont=self.soundfont, on_kind=bar)
                files += made.files
                if made.player:
                    print(printable(f"played by {made.player}"), file=sys.stderr)
            if self.html or self.open_page:
                write_page(page_html(soundfont=self.soundfont, progress=bar), page)
                files.append(page)
        if self.open_page:
            import webbrowser

            if not webbrowser.open(page.resolve().as_uri()):
                print(f"no browser was found here; open {page} in one", file=sys.stderr)
        return [str(path) for path in files]
