"""The local page in a real browser: give a score, watch it being finished, listen, take it away; and all mistakes.

The server is the real one, in a process of its own, with the checkpoints that ship.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from musicgen.formats import read_score

pytestmark = pytest.mark.slow

RUN = """
from musicgen.web.server import serve
if __name__ == "__main__":
    serve(port=0, on_ready=lambda address: print(address, flush=True))
"""
DESK, PHONE = {"width": 1200, "height": 900}, {"width": 360, "height": 740}


class Served(NamedTuple):
    address: str
    folder: Path

    def jobs(self) -> set[str]:
        """The folders of jobs that run or are done."""
        return {path.name for path in self.folder.glob("musicgen-*/*")} - {"scores", "scratch"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    environment = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        yield Served(process.stdout.readline().strip(), folder)
        process.terminate()
    assert process.returncode == 0
    assert not list(folder.iterdir()), "nothing is left"


@pytest.fixture
def open_served(served, open_page):
    """open_served(**context options): the page, which may ask its own server alone."""

    def opening(**options):
        allowed = (f"{served.address}/", f"blob:{served.address}/", "blob:null/", "data:")
        page = open_page(served.address, allowed, **{"viewport": DESK, **options}).page
        page.get_by_role("button", name="Boys of Bluehill").wait_for()
        return page

    return opening


def until(happened: Callable[[], object], page=None, seconds: float = 20.0) -> None:
    stop = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < stop, "it did not happen"
        page.wait_for_timeout(30) if page else time.sleep(0.03)


def drop(page, name: str, data: bytes) -> None:
    """A file let go over the page, as the browser tells of it."""
    transfer = page.evaluate_handle(
        """([name, data]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name));
            return transfer;
        }""",
        [name, b64encode(data).decode()],
    )
    page.dispatch_event("#drop", "dragenter", {"dataTransfer": transfer})
    assert "over" in page.get_attribute("#drop", "class")
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    assert "over" not in page.get_attribute("#drop", "class")


def finish_tune(page, **fields: int) -> None:
    """Ask for the rest of the bundled tune."""
    page.get_by_role("button", name="Boys of Bluehill").click()
    page.get_by_role("button", name="Finish it").wait_for()
    for name, value in fields.items():
        page.get_by_label(name.capitalize()).first.fill(str(value))
    page.get_by_role("button", name="Finish it").click()


def test_a_score_is_dropped_finished_heard_looked_at_and_taken_away(open_served, data, tmp_path):
    page = open_served(accept_downloads=True)
    drop(page, "scherzo.musicxml", (data / "schubert-d759" / "scherzo.musicxml").read_bytes())
    page.get_by_role("heading", name="Symphony in B minor").wait_for(timeout=20_000)
    facts = page.locator("#facts").inner_text()
    assert "9 bars of 3/4" in facts
    assert "B minor" in facts
    assert page.locator("#parts tbody tr").count() == 13
    assert page.get_by_role("row", name="Violino I Violin").inner_text().split("\t")[2:] == ["Eb4 to B5", "sounds B4"]
    assert "the one that suits: orchestra" in page.get_by_label("Model").inner_text()

    page.get_by_label("Bars to add").fill("4")
    page.get_by_role("button", name="Finish it").click()
    page.get_by_role("heading", name="Finishing Symphony in B minor").wait_for()
    seen = set()
    while page.locator("#result").is_hidden():
        seen.add(page.locator("#stages [aria-current]").or_(page.locator("#cancel")).first.inner_text())
        assert len(seen) < 9
    assert {"Composing", "Playing and engraving"} & seen

    assert page.get_by_role("heading", name="2 takes, ready to hear").is_visible()
    with page.expect_download() as waiting:
        page.get_by_role("link", name="MIDI").first.click()
    taken = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(taken)
    assert taken.name == "scherzo-finished.mid"
    assert len(read_score(taken).bars) == 13

    frame = page.frame_locator("#frame")
    frame.locator("#score .bar-now").wait_for(state="attached")
    audio = frame.locator("#audio")
    frame.get_by_role("button", name="Play", exact=True).click()
    until(lambda: audio.evaluate("(e) => e.currentTime") > 0.3, page)
    marked = frame.locator("#score :has(> .bar-now)")
    first = marked.get_attribute("id")
    assert frame.locator("#score .sounding").count() > 0
    frame.get_by_role("button", name="From the join", exact=True).click()
    until(lambda: audio.evaluate("(e) => e.currentTime") > 8.4, page)  # nine bars of 3 quarters, 192 a minute
    assert marked.get_attribute("id") != first
    assert frame.locator("#bar").inner_text().startswith("bar 10")
    with page.expect_download() as waiting:
        frame.get_by_role("button", name="Download scherzo-finished-take2.mid").click()
    assert Path(waiting.value.path()).read_bytes()[:4] == b"MThd"


def test_the_result_can_t_reach_the_page_or_the_server(open_served):
    page = open_served()
    finish_tune(page, bars=2, takes=1)
    page.get_by_role("heading", name="1 take, ready to hear").wait_for(timeout=20_000)
    page.frame_locator("#frame").locator("#play").wait_for()
    inside = page.frames[1]
    assert inside.evaluate("self.origin") == "null"
    assert inside.evaluate("() => { try { return parent.document.title } catch { return 'refused' } }") == "refused"


def test_from_the_keyboard_alone_one_chooses_finishes_and_plays(open_served):
    page = open_served()

    def tab_to(wanted: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("(wanted) => document.activeElement.matches(wanted)", wanted):
                return
        pytest.fail(f"Tab never comes to {wanted}")

    tab_to("[name=kind]")
    page.keyboard.press("ArrowRight")
    assert page.locator("#give").is_hidden()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#give").is_visible()
    tab_to("#file")
    assert page.locator("label[for=file]").evaluate("(e) => getComputedStyle(e).outlineStyle") == "solid"
    tab_to("#pieces li:nth-child(3) button")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Boys of Bluehill").wait_for(timeout=20_000)
    until(lambda: page.evaluate("document.activeElement.id") == "read", page)
    tab_to("#bars")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    until(lambda: page.evaluate("document.activeElement.id") == "result-title", page)
    assert page.get_by_role("status").inner_text() == "2 takes, ready to hear"
    frame = page.frame_locator("#frame")
    frame.locator("#play").wait_for()
    tab_to("#frame")
    page.keyboard.press("Enter")
    until(lambda: frame.locator("#audio").evaluate("(e) => e.currentTime") > 0.1, page)


def test_each_mistake_gets_a_sentence_where_it_was_made(served, browser, tmp_path):
    page = browser.new_page(viewport=DESK)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(served.address)
    page.get_by_role("button", name="Boys of Bluehill").wait_for()
    said = page.locator("#file-mistake")
    give = page.locator("#file").set_input_files
    for name, data, words in (
        ("cat.png", b"x", "cat.png is not a score that can be read here. These are: .mid"),
        ("long.mid", bytes(20 * 2**20 + 1), "long.mid is larger than 20 MB, which is the most."),
        ("empty.abc", b"", "empty.abc is empty."),
        ("bad.mid", b"MThd nonsense", "bad.mid: "),
        ("tunes.abc", b"X:1\nK:C\nCDEF|\n\nX:2\nK:C\nCDEF|\n", "tunes.abc: holds 2 tunes"),
    ):
        (tmp_path / name).write_bytes(data)
        give(tmp_path / name)
        until(lambda words=words: words in said.inner_text(), page)
        assert page.get_by_role("alert").filter(has_text=words).is_visible()
        assert page.locator("#file").get_attribute("aria-invalid") == "true"
        assert page.locator("#settings").is_hidden()
    finish_tune(page, bars=900, takes=0)
    assert said.inner_text() == ""
    assert page.locator("#bars-mistake").inner_text() == "Between 1 and 512, please."
    assert page.locator("#takes-mistake").inner_text() == "Between 1 and 8, please."
    assert page.evaluate("document.activeElement.id") == "bars"
    page.get_by_role("radio", name="Write new pieces").check(force=True)
    page.get_by_role("radio", name="Finish a score").check(force=True)
    page.get_by_role("button", name="On the Next Day").click()
    until(lambda: page.locator("#parts").is_visible(), page)
    page.get_by_label("Model").select_option("folk")
    page.get_by_label("Bars to add").fill("4")
    page.get_by_label("Takes").fill("1")
    page.get_by_role("button", name="Finish it").click()
    until(lambda: "single melody" in page.locator("#ask-mistake").inner_text(), page)
    page.get_by_label("Bars to add").fill("500")
    page.get_by_label("Takes").fill("8")
    page.get_by_role("button", name="Finish it").click()
    until(lambda: "more than 1,024" in page.locator("#bars-mistake").inner_text(), page)
    assert faults == []
    page.close()


def test_a_job_can_be_cancelled_and_goes_when_its_page_goes(served, open_served):
    page = open_served()
    before = served.jobs()
    finish_tune(page, bars=512, takes=2)
    until(lambda: served.jobs() - before, page)
    page.get_by_role("button", name="Cancel").click()
    page.locator("#work").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.id") == "go"
    assert page.get_by_role("status").inner_text() == "Cancelled."
    assert "unseen" not in page.get_attribute("#status", "class")
    until(lambda: served.jobs() == before)
    page.get_by_role("button", name="Finish it").click()
    until(lambda: served.jobs() - before, page)
    page.close(run_before_unload=True)
    until(lambda: served.jobs() == before)


WEAK = """() => {
  const shares = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255)
    .map((share) => share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4);
  const luminance = (colour) => shares(colour).reduce((sum, share, i) => sum + share * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!colour.endsWith(", 0)")) return colour;
    }
  };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest(".unseen, option, noscript")) continue;
    const pair = [luminance(getComputedStyle(e).color), luminance(behind(e))].sort((a, b) => b - a);
    if ((pair[0] + 0.05) / (pair[1] + 0.05) < 4.5) found.push(`${e.tagName}#${e.id}: ${e.textContent.trim()}`);
  }
  return found;
}"""


@pytest.mark.parametrize(("scheme", "size"), [("light", DESK), ("dark", PHONE)])
def test_it_fits_a_phone_and_stands_out_by_day_and_by_night(scheme, size, open_served):
    page = open_served(color_scheme=scheme, viewport=size)

    def look() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert page.evaluate(WEAK) == []

    look()
    page.get_by_role("button", name="scherzo").click()
    page.get_by_role("button", name="Finish it").wait_for(timeout=20_000)
    page.get_by_label("Bars to add").fill("0")
    page.get_by_role("button", name="Finish it").click()
    look()  # all of the form, with a mistake in it
    paper = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (int(re.findall(r"\d+", paper)[0]) < 128) == (scheme == "dark")
    page.get_by_text("Write new pieces").click()
    page.get_by_label("Bars of each").fill("2")
    page.get_by_role("spinbutton", name="Pieces").fill("1")
    assert "suits" not in page.get_by_label("Model").inner_text()
    page.get_by_label("Model").select_option("folk")
    page.get_by_role("button", name="Write").click()
    page.get_by_role("heading", name="1 piece, ready to hear").wait_for(timeout=20_000)
    until(lambda: 0 <= page.locator("#result-title").bounding_box()["y"] < size["height"] / 4, page)
    look()
    page.frame_locator("#frame").locator("#play").wait_for()
