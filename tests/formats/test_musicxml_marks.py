"""MusicXML beyond plain notes: graces, tremolos, jumps, sections, transpositions, ties, bars, what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from musicgen.errors import FormatError
from musicgen.formats.musicxml import read, write
from musicgen.score import Part, Score, Sign, graces_array, notes_array, unfold


def document(*measures: str, attributes: str = "", name: str = "Violin", software: str = "") -> str:
    """A one-part file: 4/4, twelve divisions a quarter; the first measure's attributes are put before it."""
    signature = (
        "<attributes><divisions>12</divisions><key><fifths>0</fifths></key><time><beats>4</beats>"
        f"<beat-type>4</beat-type></time>{attributes}</attributes>"
    )
    bars = "".join(
        f'<measure number="{i}">{"" if i > 1 else signature}{music}</measure>' for i, music in enumerate(measures, 1)
    )
    signed = f"<identification><encoding><software>{software}</software></encoding></identification>"
    return (
        f'<score-partwise version="4.0">{signed if software else ""}<part-list><score-part id="P1">'
        f'<part-name>{name}</part-name></score-part></part-list><part id="P1">{bars}</part></score-partwise>'
    )


def note(step: str, octave: int, duration: int, extra: str = "", inside: str = "") -> str:
    return (
        f"<note>{inside}<pitch><step>{step}</step><octave>{octave}</octave></pitch>"
        f"<duration>{duration}</duration>{extra}</note>"
    )


def grace(step: str, octave: int, slash: str = "", inside: str = "") -> str:
    return f"<note><grace{slash}/>{inside}<pitch><step>{step}</step><octave>{octave}</octave></pitch></note>"


def direction(words: str = "", sound: str = "", sign: str = "") -> str:
    shown = f"<words>{words}</words>" if words else sign
    return f"<direction><direction-type>{shown}</direction-type>{f'<sound {sound}/>' if sound else ''}</direction>"


def read_text(tmp_path: Path, text: str) -> Score:
    path = tmp_path / "piece.musicxml"
    path.write_text(text, encoding="utf-8")
    return read(path)[0]


def there_and_back(score: Score, tmp_path: Path, name: str = "written.musicxml") -> Score:
    write(score, tmp_path / name)
    return read(tmp_path / name)[0]


def page(score: Score, tmp_path: Path) -> ElementTree.Element:
    write(score, tmp_path / "page.musicxml")
    return ElementTree.parse(tmp_path / "page.musicxml").getroot()


def sounds(score: Score) -> list[tuple[int, int, int]]:
    return [(o, d, p) for o, d, p, _ in score.parts[0].notes.tolist()]


def graced(notes: list, graces: list, program: int = 40, is_drum: bool = False, **maps) -> Score:
    part = Part("Part", program, is_drum, notes_array(notes), graces_array(graces))
    return Score(parts=(part,), **maps)


WHOLE = note("C", 5, 48)


# --- grace notes ------------------------------------------------------------------------------------------------------


def test_grace_notes_lead_to_the_next_note_in_their_order(tmp_path):
    first = note("C", 5, 24)
    music = first + grace("D", 5) + grace("E", 5, ' slash="yes"') + note("F", 5, 24)
    score = read_text(tmp_path, document(music))
    assert score.parts[0].graces.tolist() == [(960, 0, 74, False), (960, 1, 76, True)]
    assert sounds(score) == [(0, 960, 72), (960, 960, 77)]


def test_the_notes_of_a_grace_chord_have_one_place(tmp_path):
    score = read_text(tmp_path, document(grace("D", 5) + grace("F", 5, inside="<chord/>") + WHOLE))
    assert score.parts[0].graces.tolist() == [(0, 0, 74, False), (0, 0, 77, False)]


def test_a_grace_note_after_the_last_beat_leads_over_the_barline(tmp_path):
    score = read_text(tmp_path, document(WHOLE + grace("D", 5), WHOLE))
    assert score.parts[0].graces.tolist() == [(1920, 0, 74, False)]


def test_a_grace_note_of_a_transposing_part_sounds(tmp_path):
    horn = "<transpose><chromatic>-7</chromatic></transpose>"
    score = read_text(tmp_path, document(grace("D", 5) + WHOLE, attributes=horn))
    assert score.parts[0].graces["pitch"].tolist() == [67]


def test_a_cue_grace_note_is_left_out(tmp_path):
    score = read_text(tmp_path, document(grace("D", 5).replace("<grace/>", "<grace/><cue/>") + WHOLE))
    assert len(score.parts[0].graces) == 0


GRACED = {
    "before a note": graced([(0, 1920, 60, 80)], [(0, 0, 62, True)]),
    "three before one note": graced([(960, 960, 60, 80)], [(960, i, 62 + i, False) for i in range(3)]),
    "a chord": graced([(0, 1920, 60, 80)], [(0, 0, 62, True), (0, 0, 65, True), (0, 1, 64, False)]),
    "before a rest": graced([(0, 480, 60, 80)], [(960, 0, 62, False)], length=1920),
    "in an empty bar": graced([(0, 1920, 60, 80)], [(1920, 0, 62, False), (2640, 0, 62, False)], length=3840),
    "while a note is held": graced([(0, 1920, 60, 80)], [(720, 0, 62, True)]),
    "while two voices are held": graced([(0, 1920, 60, 80), (480, 1440, 67, 80)], [(1200, 0, 62, True)]),
    "after the last note": graced([(0, 1920, 60, 80)], [(1920, 0, 62, False), (1920, 1, 64, False)]),
    "over a tied note": graced([(960, 1920, 60, 80)], [(1920, 0, 62, False)], length=3840),
    "in a pickup": graced([(0, 480, 60, 80), (480, 1920, 64, 80)], [(240, 0, 62, False)], bars=[0, 480]),
    "in a triplet": graced([(160 * i, 160, 60 + i, 80) for i in range(12)], [(320, 0, 70, True)]),
    "on both staves of a piano": graced(
        [(480 * i, 480, p, 80) for i in range(4) for p in (40, 80)], [(480, 0, 42, True), (960, 0, 82, False)], 0
    ),
    "before a drum": graced([(0, 480, 38, 80)], [(0, 0, 40, True)], 0, True),
}


@pytest.mark.parametrize("where", GRACED)
def test_grace_notes_are_written_and_read_back(where, tmp_path):
    assert there_and_back(GRACED[where], tmp_path) == GRACED[where]


def test_one_grace_note_is_an_eighth_and_more_are_beamed_sixteenths(tmp_path):
    root = page(
        graced([(0, 480, 60, 80), (480, 480, 60, 80)], [(0, 0, 62, True), (480, 0, 64, 0), (480, 1, 62, 0)]), tmp_path
    )
    heads = [n for n in root.iter("note") if n.find("grace") is not None]
    assert [n.findtext("type") for n in heads] == ["eighth", "16th", "16th"]
    assert [n.find("grace").get("slash") for n in heads] == ["yes", None, None]
    assert [[b.text for b in n.iter("beam")] for n in heads] == [[], ["begin"] * 2, ["end"] * 2]


def test_an_accidental_on_a_grace_note_serves_the_note_after_it(tmp_path):
    root = page(graced([(0, 960, 66, 80), (960, 960, 65, 80)], [(0, 0, 66, False)]), tmp_path)
    assert [n.findtext("accidental") for n in root.iter("note")][:3] == ["sharp", None, "natural"]


# --- tremolos ---------------------------------------------------------------------------------------------------------


def tremolo(kind: str) -> str:
    return f'<notations><ornaments><tremolo type="{kind}">3</tremolo></ornaments></notations>'


def test_a_tremolo_on_one_note_is_one_note(tmp_path):
    score = read_text(tmp_path, document(note("C", 5, 48, tremolo("single"))))
    assert sounds(score) == [(0, 1920, 72)]


def test_a_tremolo_between_two_notes_is_both_of_them_for_the_whole_span(tmp_path):
    music = note("C", 5, 12, tremolo("start")) + note("E", 5, 12, tremolo("stop")) + note("D", 5, 24)
    score = read_text(tmp_path, document(music))
    assert sounds(score) == [(0, 960, 72), (0, 960, 76), (960, 960, 74)]
    assert score.length == 1920


def test_a_tremolo_between_chords_on_the_lower_staff_is_both_chords(tmp_path):
    low = "<voice>5</voice>{}<staff>2</staff>"
    upper = note("C", 5, 48, "<voice>1</voice><staff>1</staff>")
    first = note("C", 3, 24, low.format("") + tremolo("start")) + note("G", 3, 24, low.format(""), "<chord/>")
    score = read_text(
        tmp_path,
        document(
            upper
            + "<backup><duration>48</duration></backup>"
            + first
            + note("E", 3, 24, low.format("") + tremolo("stop")),
            attributes="<staves>2</staves>",
            name="Piano",
        ),
    )
    assert sounds(score) == [(0, 1920, 48), (0, 1920, 52), (0, 1920, 55), (0, 1920, 72)]


# --- jumps and sections -----------------------------------------------------------------------------------------------


def test_a_da_capo_al_fine_is_read_from_what_sounds_and_played(tmp_path):
    score = read_text(
        tmp_path,
        document(
            WHOLE + direction("Fine", 'fine="yes"'),
            note("D", 5, 48) + direction("D.C. al Fine", 'dacapo="yes"'),
        ),
    )
    assert [(s.onset, s.kind, s.label) for s in score.signs] == [(1920, "fine", ""), (3840, "da_capo", "al fine")]
    assert [p for _, _, p in sounds(unfold(score))] == [72, 74, 72]


def test_jumps_are_read_from_their_words_alone(tmp_path):
    words = ("D.C. al Fine", "Da Capo", "D. S. al Coda", "Dal Segno", "To Coda", "Fine")
    score = read_text(tmp_path, document(*(WHOLE + direction(text) for text in words)))
    assert [(s.kind, s.label) for s in score.signs] == [
        ("da_capo", "al fine"), ("da_capo", ""), ("dal_segno", "al coda"), ("dal_segno", ""), ("to_coda", ""),
        ("fine", ""),
    ]  # fmt: skip


def test_words_that_only_mention_an_end_are_no_jump(tmp_path):
    score = read_text(tmp_path, document(WHOLE + direction("fine espressione"), WHOLE + direction("con sordino")))
    assert score.signs == ()


def test_a_word_over_the_bars_first_note_still_jumps_at_its_end(tmp_path):
    score = read_text(tmp_path, document(direction("Fine", 'fine="yes"') + WHOLE, WHOLE))
    assert [(s.onset, s.kind) for s in score.signs] == [(1920, "fine")]


def test_segno_and_coda_stand_where_their_bar_begins(tmp_path):
    marked = direction(sign="<segno/>"), direction(sign="<coda/>", sound='coda="coda"')
    score = read_text(tmp_path, document(WHOLE, marked[0] + WHOLE, marked[1] + WHOLE))
    assert [(s.onset, s.kind) for s in score.signs] == [(1920, "segno"), (3840, "coda")]


def test_a_coda_sign_that_sends_there_is_no_coda(tmp_path):
    score = read_text(tmp_path, document(WHOLE + direction(sign="<coda/>", sound='tocoda="coda"'), WHOLE))
    assert [(s.onset, s.kind) for s in score.signs] == [(1920, "to_coda")]


def test_jumps_and_sections_are_written_and_read_back(tmp_path):
    signs = (
        Sign(0, "section", label="A"), Sign(1920, "segno"), Sign(3840, "to_coda"), Sign(3840, "section", label="B 2"),
        Sign(5760, "dal_segno", label="al coda"), Sign(5760, "coda"), Sign(7680, "fine"), Sign(9600, "da_capo"),
    )  # fmt: skip
    notes = notes_array((1920 * i, 1920, 60 + i, 80) for i in range(5))
    score = Score(parts=(Part("Violin", 40, False, notes),), signs=signs, order=("A", "B 2", "A"))
    assert there_and_back(score, tmp_path) == score


def test_rehearsal_marks_of_other_programs_are_no_sections(tmp_path):
    mark = direction(sign="<rehearsal>A</rehearsal>")
    assert read_text(tmp_path, document(mark + WHOLE, software="MuseScore 4")).signs == ()
    assert read_text(tmp_path, document(mark + WHOLE, software="musicgen")).signs == (Sign(0, "section", label="A"),)


# --- sounding pitch ---------------------------------------------------------------------------------------------------


def transposed(semitones: int) -> str:
    return f"<attributes><transpose><chromatic>{semitones}</chromatic></transpose></attributes>"


def test_a_change_of_instrument_at_a_barline_changes_the_transposition(tmp_path):
    b_flat = "<transpose><chromatic>-2</chromatic></transpose>"
    score = read_text(tmp_path, document(WHOLE, transposed(-3) + WHOLE, WHOLE, attributes=b_flat, name="Clarinet"))
    assert [p for _, _, p in sounds(score)] == [70, 69, 69]


def test_a_change_of_instrument_inside_a_bar_leaves_the_notes_before_it(tmp_path):
    score = read_text(tmp_path, document(note("C", 5, 24) + transposed(-3) + note("C", 5, 24), WHOLE))
    assert [p for _, _, p in sounds(score)] == [72, 69, 69]


def test_notes_under_an_octave_line_stand_at_sounding_pitch(tmp_path):
    def line(kind):
        shift = f'<octave-shift type="{kind}" size="8" number="1"/>'
        return f"<direction><direction-type>{shift}</direction-type></direction>"

    score = read_text(tmp_path, document(line("down") + note("C", 7, 24) + line("stop") + note("C", 5, 24)))
    assert [p for _, _, p in sounds(score)] == [96, 72]


@pytest.mark.parametrize(("name", "octave", "pitch"), [("Contrabass", -1, 60), ("Piccolo", 1, 84)])
def test_instruments_that_sound_an_octave_off(tmp_path, name, octave, pitch):
    change = f"<transpose><chromatic>0</chromatic><octave-change>{octave}</octave-change></transpose>"
    assert sounds(read_text(tmp_path, document(WHOLE, attributes=change, name=name)))[0][2] == pitch


# --- ties -------------------------------------------------------------------------------------------------------------

START, STOP = '<tie type="start"/>', '<tie type="stop"/>'


def test_a_tie_goes_over_from_one_voice_to_another(tmp_path):
    one, two = "<voice>1</voice>", "<voice>2</voice>"
    back = "<backup><duration>48</duration></backup>"
    held = note("C", 5, 24, START + one) + note("E", 5, 24, one)
    rest = "<note><rest/><duration>24</duration><voice>2</voice></note>"
    score = read_text(tmp_path, document(held + back + rest + note("C", 5, 24, STOP + two)))
    assert sounds(score) == [(0, 1920, 72), (960, 960, 76)]


def test_a_tie_to_another_pitch_ties_nothing(tmp_path):
    # Haydn op. 74 no. 1/i, viola, bars 117-118, in music21's corpus: music21's stripTies makes one note of these
    score = read_text(tmp_path, document(note("E", 4, 48, START), note("D", 4, 24, START) + note("D", 4, 24, STOP)))
    assert sounds(score) == [(0, 1920, 64), (1920, 1920, 62)]


def test_of_a_chord_that_is_partly_tied_the_tied_notes_are_one(tmp_path):
    # Beethoven op. 59 no. 1/i, viola, bars 30-32: music21's stripTies leaves every bar's chord struck again
    both = START + STOP
    score = read_text(
        tmp_path,
        document(
            note("C", 3, 48, START) + note("A", 3, 48, START, "<chord/>"),
            note("C", 3, 48, both) + note("A", 3, 48, STOP, "<chord/>"),
            note("C", 3, 48, STOP) + note("B", 3, 48, "", "<chord/>"),
        ),
    )
    assert sounds(score) == [(0, 5760, 48), (0, 3840, 57), (3840, 1920, 59)]


def test_a_tie_that_is_left_to_ring_holds_nothing(tmp_path):
    score = read_text(tmp_path, document(note("C", 5, 48, '<tie type="let-ring"/>'), WHOLE))
    assert sounds(score) == [(0, 1920, 72), (1920, 1920, 72)]


def test_a_tie_into_the_second_ending_is_struck_again(tmp_path):
    def ending(number, place, kind, repeat=""):
        return f'<barline location="{place}"><ending number="{number}" type="{kind}"/>{repeat}</barline>'

    first = ending(1, "left", "start") + note("C", 5, 48, STOP)
    first += ending(1, "right", "stop", '<repeat direction="backward"/>')
    second = ending(2, "left", "start") + note("C", 5, 48, STOP) + ending(2, "right", "stop")
    score = read_text(tmp_path, document(note("C", 5, 48, START), first, second))
    assert sounds(score) == [(0, 3840, 72), (3840, 1920, 72)]


# --- bars -------------------------------------------------------------------------------------------------------------


def test_a_mark_that_stands_past_the_barline_does_not_stretch_its_bar(tmp_path):
    late = "<direction><direction-type><dynamics><p/></dynamics></direction-type><offset>6</offset></direction>"
    assert read_text(tmp_path, document(WHOLE + late, WHOLE)).bars.tolist() == [0, 1920]


def test_a_whole_rest_in_a_short_bar_lasts_as_long_as_it_says(tmp_path):
    rest = '<note><rest measure="yes"/><duration>33</duration></note>'
    assert read_text(tmp_path, document(rest, WHOLE)).bars.tolist() == [0, 1320]


def two_parts(first: str, second: str) -> str:
    text = document(first, WHOLE)
    upper = text[text.index('<part id="P1">') : text.index("</score-partwise>")]
    lower = upper.replace('"P1"', '"P2"').replace(first, second, 1)
    listed = '<score-part id="P2"><part-name>Viola</part-name></score-part></part-list>'
    return text.replace("</part-list>", listed).replace("</score-partwise>", lower + "</score-partwise>")


def test_a_bar_that_one_part_overfills_by_a_slip_is_as_long_as_its_metre_says(tmp_path):
    assert read_text(tmp_path, two_parts(note("D", 5, 50), note("D", 5, 48))).bars.tolist() == [0, 1920]


def test_a_cadenza_of_one_part_makes_its_bar_long(tmp_path):
    assert read_text(tmp_path, two_parts(note("D", 5, 120), note("D", 5, 48))).bars.tolist() == [0, 4800]


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_timewise_score_is_the_same_as_the_partwise_one(tmp_path):
    def part(identity, music):
        return f'<part id="{identity}">{music}</part>'

    listed = "".join(f'<score-part id="{i}"><part-name>Flute</part-name></score-part>' for i in ("P1", "P2"))
    first = "<attributes><divisions>12</divisions></attributes>" + WHOLE
    text = (
        f'<score-timewise version="4.0"><part-list>{listed}</part-list>'
        f'<measure number="1">{part("P1", first)}{part("P2", first)}</measure>'
        f'<measure number="2">{part("P1", note("D", 5, 48))}{part("P2", note("E", 5, 48))}</measure></score-timewise>'
    )
    score = read_text(tmp_path, text)
    assert [p.notes["pitch"].tolist() for p in score.parts] == [[72, 74], [72, 76]]
    assert score.bars.tolist() == [0, 1920]


def test_a_zipped_score_names_its_root_and_reads_back(tmp_path):
    score = GRACED["a chord"]
    assert there_and_back(score, tmp_path, "written.mxl") == score
    with zipfile.ZipFile(tmp_path / "written.mxl") as archive:
        assert archive.namelist() == ["META-INF/container.xml", "score.musicxml"]
        assert b'full-path="score.musicxml"' in archive.read("META-INF/container.xml")


def test_the_same_score_gives_the_same_zip(tmp_path):
    for name in ("a.mxl", "b.mxl"):
        write(GRACED["a chord"], tmp_path / name)
    assert (tmp_path / "a.mxl").read_bytes() == (tmp_path / "b.mxl").read_bytes()


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [("MAX_ELEMENTS", 5, "XML tags"), ("MAX_BARS", 2, "3 bars"), ("MAX_TICKS", 1000, "quarter notes")],
)
def test_a_score_over_a_bound_is_refused(tmp_path, monkeypatch, limit, value, reason):
    monkeypatch.setattr(f"musicgen.formats.musicxml_read.{limit}", value)
    with pytest.raises(FormatError, match=reason):
        read_text(tmp_path, document(WHOLE, WHOLE, WHOLE))


def test_a_metre_of_too_many_beats_is_refused(tmp_path):
    with pytest.raises(FormatError, match="99999 beats"):
        read_text(tmp_path, document(WHOLE).replace("<beats>4<", "<beats>99999<"))


def test_a_duration_beyond_all_clocks_is_refused(tmp_path):
    with pytest.raises(FormatError, match="quarter notes"):
        read_text(tmp_path, document(note("C", 5, 10**30)))


def test_a_repeat_that_is_played_three_times_says_so(tmp_path: Path):
    notes = notes_array((i * 480, 480, 60 + i, 80) for i in range(8))
    signs = (Sign(0, "repeat_start"), Sign(1920, "repeat_end", (1, 2)))
    score = Score(parts=(Part("Flute", 73, notes=notes),), signs=signs)
    write(score, tmp_path / "three.musicxml")
    assert 'times="3"' in (tmp_path / "three.musicxml").read_text()
    (again,) = read(tmp_path / "three.musicxml")
    assert again.signs == signs
    assert len(unfold(again).bars) == 4
