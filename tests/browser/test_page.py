"""The page in a real browser, opened from disk: it plays, follows, compares, downloads, and asks nothing of a network.

Two takes: the nine bars of Schubert's scherzo, of which the last four count as new; in the second those are a tone
higher.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from musicgen.formats import read_score, write_score
from musicgen.render.audio import play_score
from musicgen.render.engraving import SCREEN, engrave
from musicgen.render.page import Shown, page_html, sound_of
from musicgen.score import (
    TICKS_PER_QUARTER,
    Part,
    Score,
    Sign,
    bars_between,
    notes_array,
    transpose,
    unfold,
    written_of_played,
)
from musicgen.score.edit import paste

pytestmark = pytest.mark.slow

SEAM_BAR = 5
PHONE = {"width": 360, "height": 740}
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
WIDE_REPORT = "# Report\n\n| " + " | ".join(["a column"] * 30) + " |\n" + "|---" * 30 + "|\n"


@pytest.fixture(scope="module")
def takes(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Shown]:
    score = read_score(data / "schubert-d759" / "scherzo.mid")
    seam = int(score.bars[SEAM_BAR])
    higher = paste([(score, 0, seam), (transpose(score, 2), seam, score.length)])
    shown = []
    for number, whole in enumerate((score, higher), 1):
        files = [tmp_path_factory.mktemp("takes") / f"take{number}{suffix}" for suffix in (".mid", ".musicxml")]
        for file in files:
            write_score(whole, file)
        shown.append(
            Shown(
                f"Take {number}",
                whole,
                seam,
                engrave(whole, seam, SCREEN),
                None,
                sound_of(play_score(whole)),
                tuple((file.name, file.read_bytes()) for file in files),
                (("notes", str(whole.note_count)), ("likeness", "0.5")),
            )
        )
    return shown


@pytest.fixture(scope="module")
def page_file(takes: list[Shown], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "finished.html"
    file.write_text(page_html("A scherzo, continued", takes, WIDE_REPORT), encoding="utf-8")
    return file


@pytest.fixture
def page(page_file, open_page):
    """The page, its first score drawn; when the test ends nothing has gone wrong in it (see `open_page`)."""
    page = open_page(page_file, viewport={"width": 1280, "height": 800}).page
    page.wait_for_selector("#score .bar")
    return page


def second(page) -> float:
    return page.evaluate("document.querySelector('audio').currentTime")


def sounding(page) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('#score .sounding')].map((e) => e.id)")


def wait_until_after(page, moment: float) -> None:
    """Until that second sounds. (Playwright's wait_for_function needs eval, which the page's policy forbids.)"""
    for _ in range(200):
        if second(page) > moment:
            return
        page.wait_for_timeout(50)
    pytest.fail(f"second {moment} never came; it is {second(page)}")


def marked_bar(page) -> int:
    """Of the engraved score, counted from 0."""
    return page.evaluate("[...document.querySelectorAll('#score .bar')].findIndex((e) => e.querySelector('.bar-now'))")


def click_bar(page, number: int) -> None:
    """In the middle of it, wherever that is between the lines."""
    bar = page.locator("#score .bar").nth(number)
    bar.evaluate("(e) => e.scrollIntoView({ block: 'end' })")
    place = bar.bounding_box()
    page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] - 12)


# opening


def test_the_page_shows_score_and_rolls_of_its_takes_without_any_request_or_complaint(page, takes):
    page.wait_for_selector("figure:last-of-type .strip svg")
    assert page.locator("#score .bar").count() == len(takes[0].score.bars)
    assert page.locator(".strip svg").count() == 2
    assert page.locator("#score .join-name").text_content() == "new from here"
    assert page.locator(".tag.new").all_text_contents() == ["new", "new"]


def test_landmarks_headings_and_controls_have_names(page):
    assert page.get_by_role("heading", level=1).all_text_contents() == ["A scherzo, continued"]
    assert [page.get_by_role(role).count() for role in ("banner", "main", "contentinfo")] == [1, 1, 1]
    for name in ("Play", "From the start", "From the join", "Play Take 2", "Download take2.mid", "Larger"):
        assert page.get_by_role("button", name=name, exact=True).count() == 1, name
    assert (
        page.get_by_role("slider", name="Place in the music").get_attribute("aria-valuetext").startswith("bar 1 of 9")
    )


# playing


def head(page) -> float:
    """Where the playhead of the chosen take stands, in per cent."""
    return page.evaluate("parseFloat(document.querySelector('figure[aria-current] .head').style.left)")


def test_playing_moves_the_clock_the_playhead_and_the_highlight(page):
    page.set_viewport_size({"width": 1280, "height": 500})
    page.get_by_role("button", name="Play", exact=True).click()
    wait_until_after(page, 0.1)
    first = second(page), head(page), sounding(page)
    assert first[2] != []
    wait_until_after(page, first[0] + 1.0)  # a bar lasts 0.94 seconds
    later = second(page), head(page), sounding(page)
    assert first[1] < later[1]
    assert first[2] != later[2] != []
    assert not page.locator("#clock").text_content().startswith("0:00")
    assert page.evaluate("scrollY") == 0, "only the score's own box scrolls"
    page.get_by_role("button", name="Pause", exact=True).click()
    assert page.evaluate("document.querySelector('audio').paused")


def gone_to(page, button: str) -> float:
    """The second at which it begins to play after a click on that button; then it is paused."""
    page.evaluate(
        """() => {
            const told = (tell) => audio.addEventListener("seeking", () => tell(audio.currentTime), { once: true });
            window.came = new Promise(told);
        }"""
    )
    page.get_by_role("button", name=button, exact=True).click()
    came, paused = page.evaluate("window.came.then((second) => [second, audio.paused])")
    assert not paused
    page.evaluate("audio.pause()")
    return came


def test_from_the_join_plays_from_the_second_where_the_new_music_begins(page, takes):
    score = takes[0].score
    page.evaluate("seek(1)")
    assert gone_to(page, "From the join") == pytest.approx(score.seconds_at(takes[0].seam), abs=0.002)
    assert page.locator("#bar").text_content() == f"bar {SEAM_BAR + 1} of 9"
    assert marked_bar(page) == SEAM_BAR
    before = score.seconds_at(int(score.bars[SEAM_BAR - 2]))
    assert gone_to(page, "2 bars before the join") == pytest.approx(before, abs=0.002)
    assert gone_to(page, "From the start") == 0


def test_a_jump_while_it_plays_goes_on_playing(page):
    page.get_by_role("button", name="Play", exact=True).click()
    wait_until_after(page, 0.1)
    page.get_by_role("button", name="From the join", exact=True).click()
    assert not page.evaluate("audio.paused")


def test_a_join_within_a_bar_is_gone_to_itself(takes, tmp_path, open_page):
    seam = takes[0].seam + TICKS_PER_QUARTER
    file = tmp_path / "within.html"
    file.write_text(page_html("Within a bar", [replace(takes[0], seam=seam)]), encoding="utf-8")
    page = open_page(file).page
    page.wait_for_selector("#score .bar")
    assert gone_to(page, "From the join") == pytest.approx(takes[0].score.seconds_at(seam), abs=0.002)


def test_numbers_of_bars_below_a_roll_stand_where_the_bars_begin_and_never_touch(data, tmp_path, open_page):
    long = bars_between(read_score(data / "orchestra" / "beethoven-op67-1.mid"), 0, 150)
    file = tmp_path / "long.html"
    file.write_text(page_html("Long", [Shown("Piece", long)], noun="Piece"), encoding="utf-8")
    for width in (1280, 360):
        page = open_page(file, viewport={"width": width, "height": 740}).page
        page.wait_for_selector(".strip .number")
        numbers = page.locator(".strip .number")
        assert numbers.first.text_content() == "bar 8"
        boxes = numbers.evaluate_all("(all) => all.map((e) => [e.offsetLeft, e.offsetLeft + e.offsetWidth])")
        assert len(boxes) > 10
        assert all(one[1] < other[0] for one, other in pairwise(boxes))
        eighth = page.locator(".strip").evaluate("(e) => e.clientWidth") * int(long.bars[7]) / long.length
        assert boxes[0][0] == pytest.approx(eighth, abs=1)


def test_what_is_lit_are_the_notes_that_sound_held_ones_too(page, takes):
    held: set[str] = set()
    for moment in takes[0].engraving.moments:
        held = (held - set(moment.stopped)) | set(moment.ids)
        at = takes[0].score.seconds_at(round(moment.quarters * TICKS_PER_QUARTER))
        page.evaluate(f"seek({at + 0.02})")
        assert set(sounding(page)) == held, f"at {at} s"


def test_a_click_on_a_bar_plays_from_there(page, takes):
    click_bar(page, 3)
    assert second(page) == pytest.approx(takes[0].score.seconds_at(int(takes[0].score.bars[3])), abs=0.002)


def test_a_click_in_the_roll_plays_from_there(page, takes):
    page.wait_for_selector("figure:first-of-type .head", state="attached")
    strip = page.locator("figure:first-of-type .strip")
    strip.click(position={"x": strip.bounding_box()["width"] / 2, "y": 20})
    assert second(page) == pytest.approx(takes[0].score.seconds_at(takes[0].score.length // 2), abs=0.05)


def test_another_take_swaps_score_and_audio_and_stays_where_it_was(page):
    page.evaluate("seek(4)")
    first = page.evaluate("document.querySelector('audio').src")
    notes = page.evaluate("document.querySelector('#score').innerHTML")
    at = second(page)
    page.get_by_role("button", name="Play Take 2").click()
    page.wait_for_selector("#score[data-take='1'] .bar")
    wait_until_after(page, at + 0.2)
    assert page.evaluate("document.querySelector('audio').src") != first
    assert page.evaluate("document.querySelector('#score').innerHTML") != notes
    assert second(page) < at + 3
    assert page.locator("tr[aria-current] .name").text_content() == "Take 2"
    assert page.get_by_role("status").text_content() == "Take 2 chosen"
    page.get_by_role("button", name="Pause Take 2").click()
    assert page.evaluate("document.querySelector('audio').paused")


# taking away


def test_downloads_are_the_very_bytes_under_their_names(page, takes):
    for name, content in takes[1].downloads:
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Download {name}").click()
        assert waiting.value.suggested_filename == name
        assert Path(waiting.value.path()).read_bytes() == content
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download take2.mp3").click()
    assert Path(waiting.value.path()).read_bytes()[0] == 0xFF


# everybody


def test_from_the_keyboard_alone_one_plays_seeks_and_compares(page, takes):
    bars = takes[0].score.seconds_at(takes[0].score.bars.astype(int)).tolist()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "play"
    page.keyboard.press("Enter")
    wait_until_after(page, 0.1)
    page.keyboard.press("Space")
    assert page.evaluate("document.querySelector('audio').paused")
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "time":
            break
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert second(page) == pytest.approx(bars[2], abs=0.002)
    page.keyboard.press("ArrowLeft")
    assert second(page) == pytest.approx(bars[1], abs=0.002)
    page.keyboard.press("Space")
    assert not page.evaluate("document.querySelector('audio').paused")
    page.keyboard.press("Space")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == "Play Take 2":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_selector("#score[data-take='1'] .bar")


def test_a_phone_has_nothing_to_scroll_sideways_but_the_boxes_of_score_roll_and_tables(page_file, open_page):
    page = open_page(page_file, viewport=PHONE, has_touch=True).page
    page.wait_for_selector("#score .bar")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    download = page.get_by_role("button", name="Download take1.mp3").bounding_box()
    assert download["x"] + download["width"] <= PHONE["width"]
    box = page.locator("#score")
    assert box.evaluate("(e) => e.scrollWidth > e.clientWidth")
    page.get_by_role("button", name="Larger").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


CONTRASTS = """() => {
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!colour.endsWith(", 0)")) return colour;
    }
  };
  const text = ["h1", "header p", "#play", "#start", "#clock", "thead th", "td", ".hint", "figcaption", "footer p",
    ".tag.new", ".tag.given", "tr[aria-current] .name", ".report th"];
  const pairs = text.map((s) => {
    const e = document.querySelector(s);
    return [s, getComputedStyle(e).color, behind(e)];
  });
  const drawn = { ".definition-scale": "color", ".sounding": "color", ".join-name": "fill" };
  const bar = getComputedStyle(document.querySelector(".bar-now")).fill;
  for (const [s, kind] of Object.entries(drawn)) {
    const e = document.querySelector(`#score ${s}`);
    for (const back of [behind(e.closest("#score")), bar]) pairs.push([s, getComputedStyle(e)[kind], back]);
  }
  for (const kind of ["given", "new"]) {
    const e = document.querySelector(`path.${kind}`);
    pairs.push([`roll ${kind}`, getComputedStyle(e).stroke, behind(e.parentElement)]);
  }
  return pairs;
}"""


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" (WCAG 2.2)."""
    shares = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_and_notes_stand_out_from_what_is_behind_them(scheme, page_file, open_page):
    page = open_page(page_file, color_scheme=scheme).page
    page.wait_for_selector("#score .sounding", state="attached")
    page.wait_for_selector(".tag.given", state="attached")
    weak = {}
    for name, front, behind in page.evaluate(CONTRASTS):
        high, low = sorted((luminance(front), luminance(behind)), reverse=True)
        if (high + 0.05) / (low + 0.05) < 4.5:
            weak[name] = (front, behind)
    assert weak == {}
    assert (luminance(page.evaluate("getComputedStyle(document.documentElement).backgroundColor")) < 0.5) == (
        scheme == "dark"
    )


# other pages


def test_markup_in_a_title_a_part_and_a_file_name_does_nothing(takes, tmp_path, open_page):
    parts = (replace(takes[0].score.parts[0], name=HOSTILE), *takes[0].score.parts[1:])
    score = replace(takes[0].score, title=HOSTILE, parts=parts)
    file = tmp_path / "hostile.html"
    shown = replace(
        takes[0], name=HOSTILE, score=score, engraving=engrave(score, None, SCREEN), downloads=((HOSTILE, b""),)
    )
    file.write_text(page_html(HOSTILE, [shown, shown], f"# {HOSTILE}"), encoding="utf-8")
    page = open_page(file).page
    page.wait_for_selector("#score .bar")
    assert page.evaluate("window.hacked") is None
    assert page.get_by_role("heading", level=1).text_content() == HOSTILE
    assert page.locator("img").count() == 0


def test_a_tune_with_a_repeat_is_marked_where_it_is_written_and_has_no_join(tmp_path, open_page):
    notes = notes_array((480 * i, 480, 60 + i, 80) for i in range(12))
    written = Score(parts=(Part(name="Tune", notes=notes),), signs=(Sign(1920, "repeat_end"),))
    score = unfold(written)
    file = tmp_path / "tune.html"
    shown = Shown(
        "Tune", score, None, engrave(written, None, SCREEN), written_of_played(written), sound_of(play_score(score))
    )
    file.write_text(page_html("A tune", [shown], noun="Piece"), encoding="utf-8")
    page = open_page(file).page
    page.wait_for_selector("#score .bar")
    assert not page.get_by_role("button", name="From the join").is_visible()
    bars = []
    for tick in score.bars.tolist():
        page.evaluate(f"seek({score.seconds_at(tick) + 0.02})")
        bars.append(marked_bar(page))
    assert bars == [0, 0, 1, 2]
    page.evaluate(f"seek({score.seconds_at(1920) + 0.5})")  # in the second pass of the first bar
    click_bar(page, 0)
    assert second(page) == pytest.approx(score.seconds_at(1920), abs=0.002)
