"""The page, as text: what it holds, what it forbids, and where in the score each second is."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64decode, b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser

import numpy as np
import pytest

from musicgen.formats import read_score
from musicgen.render.audio import RATE, Audio
from musicgen.render.engraving import SCREEN, Engraving, Moment, engrave
from musicgen.render.page import Shown, Sound, name_alone, page_html, sound_of
from musicgen.render.page_follow import bars_of, clock_of, cues_of
from musicgen.render.page_report import report_html
from musicgen.render.page_roll import page_roll
from musicgen.score import Part, Score, Sign, Tempo, bars_between, notes_array, unfold, written_of_played

BAR = 1920
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)> & 'quoted' \"twice\""


class Read(HTMLParser):
    """What a browser would see of a page: scripts by type, texts of elements, and all attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.inside: list[str] = []
        self.texts: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.inside.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        while tag in self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        tag = self.inside[-1] if self.inside else ""
        self.texts[tag] = self.texts.get(tag, "") + data
        if tag == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)

    @property
    def data(self) -> dict:
        return json.loads(next(text for attributes, text in self.scripts if attributes.get("id") == "data"))

    def pack(self, name: str) -> bytes:
        return b64decode(next(text for attributes, text in self.scripts if attributes.get("data-pack") == name))


def letters(count: int = 4, **kinds) -> Score:
    """A whole note a bar, each a semitone higher."""
    notes = notes_array((BAR * i, BAR, 60 + i, 80) for i in range(count))
    return Score(parts=(Part(name="Flute", program=73, notes=notes),), **kinds)


def engraved(count: int = 4) -> Engraving:
    """By hand: a note a bar, which stops where the next begins."""
    moments = [Moment(4.0 * i, (f"n{i}",), i, f"b{i}", (f"n{i - 1}",)) for i in range(count)]
    return Engraving(("<svg><g id='n0'/></svg>",), tuple(moments))


def silence(seconds: float) -> Sound:
    return sound_of(Audio(np.zeros((int(seconds * RATE), 2), dtype=np.float32), RATE, "nobody"))


@pytest.fixture(scope="module")
def page() -> Read:
    takes = [
        Shown(
            f"Take {i}",
            letters(),
            2 * BAR,
            engraved(),
            None,
            silence(8),
            ((f"t{i}.mid", b"MThd%d" % i),),
            (("n", "4"),),
        )
        for i in (1, 2)
    ]
    return Read(page_html("A piece", takes, "# Report\n\n| a |\n|---|\n| 1 |\n"))


# what it forbids


def test_the_policy_allows_the_one_script_and_the_one_style_by_their_hashes_and_nothing_else():
    html = page_html("t", [Shown("Take 1", letters())])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    found = {kind: re.findall(rf"<{kind}>(.*?)</{kind}>", html, re.DOTALL) for kind in ("script", "style")}
    for kind, texts in found.items():
        hashed = b64encode(sha256(texts[0].encode()).digest()).decode()
        assert len(texts) == 1
        assert rules.pop(f"{kind}-src") == f"'sha256-{hashed}'"
    rest = {"default-src": "'none'", "media-src": "blob:", "img-src": "data:"}
    assert rules == {**rest, "base-uri": "'none'", "form-action": "'none'"}


def test_nothing_in_the_page_names_a_place_outside_it(page):
    assert [value for name, value in page.attributes if name in ("src", "href", "action", "style")] == ["data:,"]


def test_names_from_a_file_are_text_and_nothing_else():
    score = Score(parts=(Part(name=HOSTILE, notes=notes_array([(0, BAR, 60, 80)])),), title=HOSTILE)
    facts = ((HOSTILE, HOSTILE),)
    shown = Shown(HOSTILE, score, None, None, None, silence(2), ((f"{HOSTILE}.mid", b""),), facts, new_parts=(0,))
    read = Read(page_html(HOSTILE, [shown], f"# {HOSTILE}\n\n| {HOSTILE} |\n|---|\n| {HOSTILE} |\n", noun=HOSTILE))
    assert read.texts["title"] == read.texts["h1"] == HOSTILE
    assert "img" not in read.tags
    assert [attributes for attributes, _ in read.scripts if "type" not in attributes] == [{}]
    assert read.data["takes"][0]["name"] == HOSTILE


def test_a_download_has_a_name_without_folders():
    read = Read(page_html("t", [Shown("Take 1", letters(), downloads=(("/home/me/t.mid", b""),))]))
    assert read.data["takes"][0]["files"] == [{"name": "t.mid", "type": "audio/midi"}]


# what it holds


def test_files_come_out_of_the_page_as_they_went_in(page):
    assert [gzip.decompress(page.pack(f"file-{i}-0")) for i in (0, 1)] == [b"MThd1", b"MThd2"]


def test_the_audio_in_the_page_is_an_mp3(page):
    assert page.pack("audio-0")[0] == 0xFF
    assert page.data["takes"][0]["mp3"] == "t1.mp3"


def test_engraved_pages_and_their_cues_come_out_as_they_went_in(page):
    sheet = json.loads(gzip.decompress(page.pack("sheet-0")))
    assert sheet["pages"] == ["<svg><g id='n0'/></svg>"]
    assert sheet["cues"][:2] == [[0.0, "n0", "", "b0"], [2.0, "n1", "n0", "b1"]]


def test_what_is_new_in_an_engraved_page_has_the_colour_that_the_page_knows(data):
    score = bars_between(read_score(data / "schubert-d759" / "scherzo.mid"), 0, 2)
    shown = Shown("Take 1", score, int(score.bars[1]), engrave(score, int(score.bars[1]), SCREEN))
    html = page_html("t", [shown])
    known = re.search(r'\[color="(#\w+)" i\]', html)[1]
    assert f'color="{known}"' in shown.engraving.pages[0].lower()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script|<a\b", shown.engraving.pages[0])


def test_the_seam_is_said_in_words_too(page):
    assert "Given: bars 1 to 2. New from bar 3 on." in page.texts["figcaption"] + page.texts["p"]


@pytest.mark.parametrize(
    ("seam", "until", "said"),
    [
        (BAR, None, "Given: bar 1. New from bar 2 on."),
        (BAR + 480, None, "Given: bars 1 to 2. New from within bar 2 on."),
        (BAR, 3 * BAR, "New: bars 2 to 3; given: all before and after."),
        (BAR, 2 * BAR, "New: bar 2; given: all before and after."),
        (0, 3 * BAR, "New: bars 1 to 3; given: all after."),
    ],
)
def test_what_is_new_is_said_in_bars(seam, until, said):
    assert said in page_html("t", [Shown("Take 1", letters(), seam, until=until)])


def test_bars_that_are_repeated_are_said_to_be_counted_as_written():
    written = letters(3, signs=(Sign(BAR, "repeat_end"),))
    shown = Shown("Take 1", unfold(written), None, engraved(3), written_of_played(written))
    said = "Bars are counted as written; with its repeats it plays 4."
    assert f"3 bars, 0:08. {said}" in page_html("t", [shown])
    assert said not in page_html("t", [Shown("Take 1", letters(3), None, engraved(3))])


def test_a_melody_of_no_instrument_is_not_called_a_piano():
    melody = Part(notes=letters().parts[0].notes)
    chord = Part(name="Acoustic Grand Piano", notes=notes_array([(0, BAR, 60, 80), (0, BAR, 64, 80)]))
    names = [name_alone(part) for part in (melody, replace(melody, name="Acoustic Grand Piano"), chord)]
    assert names == ["One melody", "One melody", "Acoustic Grand Piano"]
    assert name_alone(letters().parts[0]) == "Flute"


def test_new_parts_are_said_by_name():
    assert "New: Flute." in page_html("t", [Shown("Take 1", letters(), new_parts=(0,))])


def test_without_audio_or_a_seam_there_is_no_player_and_no_join():
    html = page_html("t", [Shown("Piece", letters())], noun="Piece")
    assert '<section class="player" aria-label="Player" hidden>' in html
    assert re.search(r'<button type="button" id="join" hidden>', html)


def test_the_same_takes_give_the_same_page():
    takes = [Shown("Take 1", letters(), BAR, engraved(), None, silence(1))]
    assert page_html("t", takes) == page_html("t", takes)


def test_an_orchestra_takes_less_than_3_MB_a_minute(data):
    score = bars_between(read_score(data / "orchestra" / "beethoven-op67-1.mid"), 0, 60)
    seconds = score.seconds_at(score.length)
    files = (("whole.mid", (data / "orchestra" / "beethoven-op67-1.mid").read_bytes()),)
    shown = Shown("Take 1", score, 20 * 960, engrave(score, 20 * 960, SCREEN), None, silence(seconds), files)
    assert len(page_html("t", [shown]).encode()) < 3e6 * seconds / 60


# where each second is


def test_a_cue_says_what_begins_what_stops_and_in_which_bar():
    moments = [
        Moment(0.0, ("a", "b"), 0, "m1"),
        Moment(2.0, ("c",), 0, "m1", stopped=("b",)),
        Moment(4.0, (), 1, "m2", stopped=("a", "c")),
    ]
    assert cues_of(letters(), moments) == [(0.0, "a b", "", "m1"), (1.0, "c", "b", "m1"), (2.0, "", "a c", "m2")]


def test_a_repeated_bar_is_marked_each_time_it_is_played():
    written = letters(3, signs=(Sign(BAR, "repeat_end"),))
    cues = cues_of(unfold(written), engraved(3).moments, written_of_played(written))
    assert [(second, on, bar) for second, on, _, bar in cues] == [
        (0.0, "n0", "b0"),
        (2.0, "n0", "b0"),
        (4.0, "n1", "b1"),
        (6.0, "n2", "b2"),
        (8.0, "", "b2"),
    ]


def test_what_still_sounds_where_the_music_goes_back_stops_there():
    written = letters(2, signs=(Sign(BAR, "repeat_end"),))
    held = [Moment(0.0, ("a",), 0, "m1"), Moment(4.0, ("b",), 1, "m2", stopped=("a",))]
    cues = cues_of(unfold(written), held, written_of_played(written))
    assert [(on, off) for _, on, off, _ in cues] == [("a", ""), ("a", "a"), ("b", "a"), ("", "b")]


def test_cues_go_by_the_tempo_map():
    cues = cues_of(letters(2, tempos=(Tempo(0, 60), Tempo(BAR, 120))), engraved(2).moments)
    assert [second for second, *_ in cues] == [0.0, 4.0, 6.0]


def test_every_note_of_a_score_is_in_a_cue_at_its_own_second(data):
    score = read_score(data / "schubert-d759" / "scherzo.mid")
    cues = cues_of(score, engrave(score, None, SCREEN).moments)
    onsets = {round(score.seconds_at(onset), 3) for part in score.parts for onset in part.notes["onset"].tolist()}
    assert onsets <= {second for second, on, *_ in cues if on}


def test_bars_that_are_repeated_keep_their_number():
    written = letters(3, signs=(Sign(BAR, "repeat_end"),))
    assert bars_of(unfold(written), written_of_played(written), engraved(3).moments) == [(0, 1), (2, 1), (4, 2), (6, 3)]


def test_the_clock_knows_tempi_inside_a_bar():
    score = letters(2, tempos=(Tempo(0, 120), Tempo(960, 60)))
    assert clock_of(score) == [(0.0, 0.0), (1.0, 0.25), (3.0, 0.5), (7.0, 1.0)]


# roll and report


def test_the_roll_draws_every_note_once_as_given_or_as_new(data):
    score = read_score(data / "freedoom" / "d_e1m8.mid")
    paths = dict(re.findall(r'<path class="(\w+)" d="([^"]*)"', page_roll(score, seam=9600)))
    given = sum(int((part.notes["onset"] < 9600).sum()) for part in score.parts)
    assert (paths["given"].count("M"), paths["new"].count("M")) == (given, score.note_count - given)


def test_the_roll_draws_a_hole_that_was_filled_and_parts_that_were_added_as_new():
    paths = dict(re.findall(r'<path class="(\w+)" d="([^"]*)"', page_roll(letters(4), BAR, 2 * BAR)))
    assert (paths["new"].count("M"), paths["seam"].count("M")) == (1, 2)
    paths = dict(re.findall(r'<path class="(\w+)" d="([^"]*)"', page_roll(letters(4), new_parts=(0,))))
    assert (paths["given"], paths["new"].count("M")) == ("", 4)


def test_what_a_repeat_brings_back_is_no_newer_than_before():
    paths = dict(
        re.findall(r'<path class="(\w+)" d="([^"]*)"', page_roll(letters(4), BAR, again=((2 * BAR, 3 * BAR),)))
    )
    assert [int(onset) // BAR for onset in re.findall(r"M(\d+)", paths["given"])] == [0, 2]


def test_a_report_becomes_headings_lists_tables_and_code():
    html = report_html("# A\n\n- one\n\n## B\n\n    code\n\n\n| x | y |\n|---|---:|\n| 1 | 2 |\n")
    assert html.startswith("<h2>A</h2>\n<ul>\n<li>one</li>\n</ul>\n<h3>B</h3>\n<pre><code>code\n</code></pre>\n")
    assert '<td class="number">2</td>' in html


def test_links_pictures_and_markup_in_a_report_stay_text():
    html = report_html("[a](http://b) ![c](http://d) <b>e</b> <http://f>\n\n[g]: http://h\n\n<script>i</script>")
    assert not re.search(r"<(a|img|b|script)\b", html)
