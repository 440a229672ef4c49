"""Engraved pages: what is on them is read back out of the SVG; what they look like is for eyes."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from musicgen.errors import FormatError, RenderError
from musicgen.formats import read_score, write_score
from musicgen.formats.musicxml_part import MARK_COLOUR
from musicgen.render import engraving_process
from musicgen.render.engraving import SCREEN, Engraving, engrave, staff_height
from musicgen.render.engraving_source import read_source
from musicgen.score import TICKS_PER_QUARTER, Metre, Part, Score, Tempo, notes_array

SVG = "{http://www.w3.org/2000/svg}"
SEAM_BAR = 5
SEAM = SEAM_BAR * 1440
"""Of the scherzo."""


@pytest.fixture(scope="module")
def scherzo(data) -> Score:
    return read_score(data / "schubert-d759" / "scherzo.mid", as_written=True)


@pytest.fixture(scope="module")
def engraved(scherzo) -> Engraving:
    return engrave(scherzo, seam=SEAM)


def elements(engraving: Engraving) -> dict[str, ElementTree.Element]:
    """What has an id, by its id."""
    roots = [ElementTree.fromstring(page) for page in engraving.pages]
    return {e.get("id", ""): e for root in roots for e in root.iter(f"{SVG}g") if e.get("id")}


def blue_signs(element: ElementTree.Element) -> Counter[str]:
    """How often each sign of the music font is drawn in blue inside an element."""
    coloured = [g for g in element.iter(f"{SVG}g") if g.get("color") == MARK_COLOUR]
    return Counter(use.get("href", "").partition("-")[0] for use in {u for g in coloured for u in g.iter(f"{SVG}use")})


def blue_ids(engraving: Engraving) -> set[str]:
    """Ids of what is blue, by itself or within a blue chord or beam."""
    roots = [ElementTree.fromstring(page) for page in engraving.pages]
    blue = [g for root in roots for g in root.iter(f"{SVG}g") if g.get("color") == MARK_COLOUR]
    return {e.get("id", "") for g in blue for e in g.iter(f"{SVG}g") if e.get("id")}


def words(engraving: Engraving) -> list[str]:
    return ["".join(e.itertext()) for page in engraving.pages for e in ElementTree.fromstring(page).iter(f"{SVG}text")]


def tune(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tune.abc"
    path.write_text(text, encoding="utf-8")
    return path


# --- pages and moments ------------------------------------------------------------------------------------------------


def test_the_same_score_gives_the_same_pages(scherzo, engraved):
    assert engrave(scherzo, seam=SEAM) == engraved


def test_a_moment_stands_wherever_a_note_of_the_score_begins(scherzo, engraved):
    begun = {round(m.quarters * TICKS_PER_QUARTER) for m in engraved.moments if m.ids}
    assert begun == {onset for part in scherzo.parts for onset in part.notes["onset"].tolist()}


def test_moments_know_the_bars_of_the_score(scherzo, engraved):
    starts = {m.bar: m.quarters for m in reversed(engraved.moments)}
    assert [round(starts[bar] * TICKS_PER_QUARTER) for bar in sorted(starts)] == scherzo.bars.tolist()


def test_whatever_a_moment_names_is_on_a_page(engraved):
    there = elements(engraved)
    assert all(name in there for m in engraved.moments for name in (*m.ids, *m.stopped, m.bar_id))


def test_a_note_that_begins_stops_later(engraved):
    begun = [name for m in engraved.moments for name in m.ids]
    assert sorted(begun) == sorted(name for m in engraved.moments for name in m.stopped)


def test_a_repeated_tune_has_its_moments_as_it_is_written(tmp_path):
    engraving = engrave(tune(tmp_path, "X:1\nM:2/4\nL:1/4\nK:C\n|:C D|E F:|\n"))
    assert [m.quarters for m in engraving.moments if m.ids] == [0, 1, 2, 3]


def test_two_scores_on_one_page_share_no_id(scherzo, engraved):
    other = engrave(scherzo)
    assert not set(elements(engraved)) & set(elements(other))


# --- what is new ------------------------------------------------------------------------------------------------------


def test_all_that_comes_after_the_seam_is_blue_and_nothing_before_it(engraved):
    there = elements(engraved)
    for bar_id, bar in {m.bar_id: m.bar for m in engraved.moments}.items():
        signs = Counter(use.get("href", "").partition("-")[0] for use in there[bar_id].iter(f"{SVG}use"))
        blue = blue_signs(there[bar_id])
        assert blue if bar >= SEAM_BAR else not blue
        if bar >= SEAM_BAR:  # but for clefs, and the two sharps of B minor
            assert not [sign for sign in (signs - blue) if sign not in ("#E050", "#E052", "#E05C", "#E062", "#E262")]


def test_a_file_whose_heads_are_blue_needs_no_seam(scherzo, engraved, tmp_path):
    write_score(scherzo, tmp_path / "new.musicxml", mark_from=SEAM)
    read = engrave(tmp_path / "new.musicxml")
    assert [blue_signs(ElementTree.fromstring(page)) for page in read.pages] == [
        blue_signs(ElementTree.fromstring(page)) for page in engraved.pages
    ]


def test_a_file_without_blue_heads_is_blue_from_the_seam_given(scherzo, tmp_path):
    write_score(scherzo, tmp_path / "plain.musicxml")
    plain, given = engrave(tmp_path / "plain.musicxml"), engrave(tmp_path / "plain.musicxml", seam=SEAM)
    assert MARK_COLOUR not in plain.pages[0]
    late = [name for m in given.moments for name in m.ids if m.quarters * TICKS_PER_QUARTER >= SEAM]
    assert blue_ids(given) == set(late)


def test_beams_and_chords_of_new_notes_are_blue_too(tmp_path):
    engraving = engrave(tune(tmp_path, "X:1\nM:2/4\nL:1/8\nK:C\nCD[EG]F|[EG]FED|\n"), seam=2 * TICKS_PER_QUARTER)
    old, new = (elements(engraving)[name] for name in dict.fromkeys(m.bar_id for m in engraving.moments))
    assert [g.get("color") for g in new.iter(f"{SVG}g") if list(g.iter(f"{SVG}polygon"))][1] == MARK_COLOUR
    assert not [g for g in old.iter(f"{SVG}g") if g.get("color")]


def test_where_old_and_new_stand_side_by_side_rests_stay_black(tmp_path):
    text = "X:1\nM:2/4\nL:1/4\nK:C\nC z|C z|C z|\n"
    write_score(read_score(tune(tmp_path, text)), tmp_path / "t.musicxml", mark_from=2 * TICKS_PER_QUARTER)
    given = (tmp_path / "t.musicxml").read_text()
    last = given.rindex(f' color="{MARK_COLOUR}"')
    (tmp_path / "filled.musicxml").write_text(given[:last] + given[last:].replace(f' color="{MARK_COLOUR}"', ""))
    page = ElementTree.fromstring(engrave(tmp_path / "filled.musicxml").pages[0])
    assert blue_signs(page) == {"#E0A4": 1}  # a black notehead


def test_filled_bars_of_a_tune_are_blue_with_their_rests_and_nothing_else_is(tmp_path):
    path = tune(tmp_path, "X:1\nM:2/4\nL:1/4\nK:C\nC C|C C-|C z|C C|\n")
    engraving = engrave(path, seam=2 * TICKS_PER_QUARTER, until=6 * TICKS_PER_QUARTER)
    there = elements(engraving)
    blue = [blue_signs(there[name]) for name in dict.fromkeys(m.bar_id for m in engraving.moments)]
    assert blue == [{}, {"#E0A4": 2}, {"#E0A4": 1, "#E4E5": 1}, {}]
    page = ElementTree.fromstring(engrave(read_score(path), seam=960, until=2880).pages[0])
    assert blue_signs(page) == {"#E0A4": 3, "#E4E5": 1}


def test_parts_that_were_added_to_a_tune_are_blue_all_through(tmp_path):
    path = tune(tmp_path, "X:1\nM:2/4\nL:1/4\nK:C\nV:1\nc c|c z|\nV:2\nE z|E E|\n")
    page = ElementTree.fromstring(engrave(path, new_parts=(1,)).pages[0])
    assert blue_signs(page) == {"#E0A4": 3, "#E4E5": 1}
    write_score(read_score(path), tmp_path / "t.musicxml", mark_parts=(1,))
    for new_parts, rests in (((), {}), ((1,), {"#E4E5": 1})):
        page = ElementTree.fromstring(engrave(tmp_path / "t.musicxml", new_parts=new_parts).pages[0])
        assert blue_signs(page) == {"#E0A4": 3, **rests}


# --- the page ---------------------------------------------------------------------------------------------------------


def test_title_names_and_abbreviations_are_printed(engraved):
    assert {"Violino I", "Contrabbasso"} <= set(words(engraved))
    assert any("Symphony" in text for text in words(engraved))


def test_no_text_needs_a_font_of_music(engraved):
    page = engraved.pages[0]
    assert "Leipzig" not in page
    assert not re.search("[\ue000-\uf8ff]", page)
    assert '"#ECA5-72"' in page  # the note of the metronome mark, as an outline


def test_a_long_title_is_made_to_fit(scherzo):
    long = "A title that no page is wide enough for " * 6
    sizes = []
    for title in ("Short", long):
        page = engrave(Score(title=title, parts=scherzo.parts[:1])).pages[0]
        sizes.append(float(re.search(rf'font-size="([\d.]+)"[^>]*>{title[:5]}', page)[1]))  # type: ignore[index]
    assert sizes[1] < sizes[0] / 2


@pytest.mark.parametrize("staves", [1, 4, 13, 23, 40])
def test_a_system_of_any_number_of_staves_fits_on_a_page(staves):
    notes = notes_array([(0, 480, 72, 80), (480, 480, 76, 80)])
    parts = tuple(Part(f"Violin {n}", 40, notes=notes) for n in range(staves))
    page = ElementTree.fromstring(engrave(Score(parts)).pages[0])
    lines = [float(y) for e in page.iter(f"{SVG}path") for y in re.findall(r"M\d+ (\d+)H", e.get("d", ""))]
    assert max(lines) < 0.97 * float(page.get("viewBox", "").split()[3])


def test_staves_grow_smaller_with_their_number_but_stay_readable():
    heights = [staff_height(SCREEN, n) for n in (2, 13, 22)]
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] > 2.5


def test_a_page_for_the_screen_is_one_and_has_neither_title_nor_styles(scherzo):
    engraving = engrave(scherzo, layout=SCREEN)
    assert len(engraving.pages) == 1
    assert not any("Symphony" in text for text in words(engraving))
    assert "style" not in engraving.pages[0]


def test_brackets_hold_sections_together(scherzo):
    root = ElementTree.fromstring(read_source(scherzo).text)
    order = [e.get("type") or e.findtext("part-name") for e in root.find("part-list")]  # type: ignore[union-attr]
    assert order[:6] == ["start", "Flauti", "Oboi", "Clarinetti in A", "Fagotti", "stop"]
    assert order[-7:] == ["start", "Violino I", "Violino II", "Viola", "Violoncello", "Contrabbasso", "stop"]
    assert order[10:13] == ["stop", "Timpani", "start"]


def test_two_tracks_of_a_piano_are_its_two_hands():
    high = notes_array([(0, 960, 60, 80), (960, 960, 84, 80)])
    low = notes_array([(0, 960, 64, 80), (960, 960, 36, 80), (960, 960, 43, 80)])
    root = ElementTree.fromstring(read_source(Score((Part("", 0, notes=high), Part("", 0, notes=low)))).text)
    assert root.findtext("part-list/part-group/group-symbol") == "brace"
    assert root.find(".//staves") is None
    assert [e.text for e in root.iterfind(".//clef/sign")] == ["G", "F"]


def test_a_performance_has_one_tempo_mark(scherzo):
    rubato = [Tempo(tick, 100 + tick % 7) for tick in range(0, scherzo.length, 240)]
    score = Score(scherzo.parts[:1], tempos=rubato)
    assert [e.text for e in ElementTree.fromstring(read_source(score).text).iter("per-minute")] == ["103"]


def test_strokes_of_drums_have_no_rests_between_them():
    strokes = notes_array([(tick, 30, 38, 80) for tick in range(0, 1920, 240)])
    root = ElementTree.fromstring(read_source(Score((Part("Drums", is_drum=True, notes=strokes),), length=1920)).text)
    assert [e.text for e in root.iter("type")] == ["eighth"] * 8
    assert root.find(".//rest") is None


# --- ABC --------------------------------------------------------------------------------------------------------------

SONG = """X:1
T:Song
C:Trad.
M:3/4
L:1/8
K:G
V:1 name="Soprano"
V:2 clef=bass name="Bass"
[V:1] D2|"G"G4 (B A)|"D7"{g}A2 ~F2 !f!.F2|
w: A-|ma-zing_ grace how~sweet the
[V:2] D,2|G,4 G,2|D,4 D,2|
"""


def test_a_tune_keeps_its_words_and_slurs_and_ornaments(tmp_path):
    path = tune(tmp_path, SONG)
    source = read_source(path).text
    root = ElementTree.fromstring(source)
    assert [e.text for e in root.iterfind(".//lyric/text")] == ["A", "ma", "zing", "grace", "how sweet", "the"]
    assert [e.text for e in root.iterfind(".//lyric/syllabic")] == ["begin", "middle", "end", *["single"] * 3]
    assert [e.get("type") for e in root.iter("slur")] == ["start", "stop"]
    assert all(root.find(f".//{sign}") is not None for sign in ("turn", "staccato", "dynamics/f", "grace"))
    assert {"Soprano", "Bass", "Song", "Trad.", "grace", "G", "D7"} <= set(words(engrave(path)))


def test_a_first_tempo_is_printed_however_soon_it_changes(tmp_path):
    text = "X:1\nM:2/4\nL:1/8\nQ:1/4=120\nK:D\nDE|DEFG|[Q:1/4=60]ABcd|ABcd|DEFG|\n"
    root = ElementTree.fromstring(read_source(tune(tmp_path, text)).text)
    assert [e.text for e in root.iter("per-minute")] == ["120", "60"]


def test_a_tune_that_states_no_tempo_has_no_metronome_mark(tmp_path):
    assert "<metronome" not in read_source(tune(tmp_path, SONG)).text
    assert "<metronome" in read_source(tune(tmp_path, SONG.replace("K:G", "Q:1/4=90\nK:G"))).text


def test_a_metre_is_a_letter_where_the_tune_says_it_so(tmp_path):
    symbols = {}
    for metre in ("C|", "2/2", "C", "4/4"):
        root = ElementTree.fromstring(read_source(tune(tmp_path, f"X:1\nM:{metre}\nL:1/4\nK:C\nCCCC|\n")).text)
        symbols[metre] = [time.get("symbol") for time in root.iter("time")]
    assert symbols == {"C|": ["cut"], "2/2": [None], "C": ["common"], "4/4": [None]}


def test_every_second_verse_stands_below_the_first(tmp_path):
    root = ElementTree.fromstring(read_source(tune(tmp_path, "X:1\nL:1/4\nK:C\nC D|\nw: one two\nw: three\n")).text)
    assert [(e.get("number"), e.findtext("text")) for e in root.iter("lyric")] == [
        *(("1", "one"), ("2", "three")),
        ("1", "two"),
    ]


def test_line_ends_that_end_verovio_are_read(data):
    assert "!" in (data / "irish" / "tunes.abc").read_text()
    assert len(engrave(data / "irish" / "tunes.abc").moments) > 100


# --- what can't be engraved -------------------------------------------------------------------------------------------


def test_a_score_without_parts_is_refused():
    with pytest.raises(RenderError, match="no parts"):
        engrave(Score(length=1920))


def test_a_file_that_ends_verovio_becomes_an_error(data, tmp_path):
    text = (data / "schubert-d759" / "scherzo.musicxml").read_text()
    (tmp_path / "bad.musicxml").write_text(text.replace("<beat-type>4<", "<beat-type>0<", 1))
    with pytest.raises(RenderError, match=r"bad\.musicxml: verovio broke down"):
        engrave(tmp_path / "bad.musicxml")


def test_a_score_that_takes_too_long_becomes_an_error(scherzo, monkeypatch):
    monkeypatch.setattr(engraving_process, "SECONDS", 0.001)
    with pytest.raises(RenderError, match="not engraved after"):
        engrave(scherzo)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("no music", FormatError, "not well-formed"),
        ("<score-partwise/>", RenderError, "no parts"),
        ('<!DOCTYPE s [<!ENTITY a "b">]><score-partwise/>', FormatError, "ENTITY"),
    ],
)
def test_a_file_that_is_no_score_is_refused(text, error, said, tmp_path):
    (tmp_path / "no.musicxml").write_text(text)
    with pytest.raises(error, match=said):
        engrave(tmp_path / "no.musicxml")


def test_a_score_for_a_hundred_players_is_refused():
    notes = notes_array([(0, 480, 72, 80)])
    with pytest.raises(RenderError, match="101 staves"):
        engrave(Score(tuple(Part("Violin", 40, notes=notes) for _ in range(101)), metres=(Metre(0, 4, 4),)))


# --- larger -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_symphonic_movement_has_every_note_at_its_moment(data):
    score = read_score(data / "orchestra" / "beethoven-op67-3.mid", as_written=True)
    engraving = engrave(score)
    begun = {round(m.quarters * TICKS_PER_QUARTER) for m in engraving.moments if m.ids}
    assert begun >= {onset for part in score.parts for onset in part.notes["onset"].tolist()}
    assert max(map(len, engraving.pages)) < 400_000
