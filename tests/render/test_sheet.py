"""Engraved pages as files: one a page, or all in one."""

from __future__ import annotations

import re

import pytest

from musicgen.errors import RenderError
from musicgen.formats import read_score
from musicgen.render.engraving import SCREEN, Engraving, engrave
from musicgen.render.sheet import write_sheet

BOX = rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]"
"""Width and height of a page in points."""


@pytest.fixture(scope="module")
def pages(data) -> Engraving:
    """Of more than one page."""
    made = engrave(read_score(data / "orchestra" / "beethoven-op21-3.mid", as_written=True))
    return Engraving(made.pages[:3], (), made.layout)


def test_svg_has_a_file_for_each_page(pages, tmp_path):
    written = write_sheet(pages, tmp_path / "s.svg")
    assert [path.name for path in written] == ["s.svg", "s-2.svg", "s-3.svg"]
    assert sorted(tmp_path.iterdir()) == sorted(written)
    assert [path.read_text() for path in written] == list(pages.pages)


def test_png_has_a_file_for_each_page(pages, tmp_path):
    written = write_sheet(pages, tmp_path / "s.png")
    assert len(written) == 3
    assert all(path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in written)
    assert len({path.read_bytes() for path in written}) == 3


def test_a_pdf_holds_all_pages_of_a4_and_the_fonts_it_needs(pages, tmp_path):
    (written,) = write_sheet(pages, tmp_path / "new" / "s.pdf")
    content = written.read_bytes()
    assert content.startswith(b"%PDF-")
    boxes = [(float(w), float(h)) for w, h in re.findall(BOX, content)]
    assert boxes == [pytest.approx((595.28, 841.89), abs=0.1)] * 3
    assert b"/FontFile" in content


def test_a_long_page_for_the_screen_becomes_a_pdf_of_its_own_height(data, tmp_path):
    made = engrave(data / "irish" / "tunes.abc", layout=SCREEN)
    (written,) = write_sheet(made, tmp_path / "s.pdf")
    ((width, height),) = re.findall(BOX, written.read_bytes())
    assert float(width) == pytest.approx(SCREEN.width / 25.4 * 72, abs=1)
    assert float(height) < float(width)


def test_another_suffix_is_refused(pages, tmp_path):
    with pytest.raises(RenderError, match=r"\.svg, \.pdf, \.png"):
        write_sheet(pages, tmp_path / "s.jpg")


def test_where_one_page_cant_be_written_none_is(pages, tmp_path):
    (tmp_path / "s-2.svg").mkdir()
    with pytest.raises(RenderError, match=r"s-2\.svg: is a folder"):
        write_sheet(pages, tmp_path / "s.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["s-2.svg"]
