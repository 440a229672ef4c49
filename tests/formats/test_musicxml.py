"""MusicXML and kern: what comes through reading, what writing gives back, what is refused."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from musicgen.errors import FormatError
from musicgen.formats import musicxml, write_score
from musicgen.formats.instruments import choose_program, clef_for, program_by_name
from musicgen.formats.musicxml import from_music21, read, write
from musicgen.score import (
    ChordSymbol,
    Key,
    Metre,
    Part,
    Score,
    Sign,
    Tempo,
    bars_between,
    notes_array,
    unfold,
)

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def document(measures: str, part_list: str = "<part-name>Violin</part-name>", attributes: str = "") -> str:
    """A one-part file: 4/4, four divisions a quarter; `measures` are its <measure> elements."""
    return (
        f'<score-partwise version="4.0"><part-list><score-part id="P1">{part_list}</score-part></part-list>'
        f'<part id="P1">{measures}</part></score-partwise>'.replace(
            "<first/>",
            "<attributes><divisions>12</divisions><key><fifths>0</fifths></key><time><beats>4</beats>"
            f"<beat-type>4</beat-type></time>{attributes}</attributes>",
        )
    )


def note(step: str, octave: int, duration: int, extra: str = "", inside: str = "") -> str:
    return (
        f"<note>{inside}<pitch><step>{step}</step><octave>{octave}</octave></pitch>"
        f"<duration>{duration}</duration>{extra}</note>"
    )


def read_text(tmp_path: Path, text: str) -> Score:
    path = tmp_path / "piece.musicxml"
    path.write_text(text, encoding="utf-8")
    return read(path)[0]


def there_and_back(score: Score, tmp_path: Path) -> Score:
    path = tmp_path / "written.musicxml"
    write(score, path)
    return read(path)[0]


def melody(*notes: tuple[int, int, int, int], name: str = "Violin", program: int = 40, **maps) -> Score:
    return Score(parts=(Part(name, program, False, notes_array(notes)),), **maps)


def sounds(score: Score, part: int = 0) -> list[tuple[int, int, int]]:
    return [(o, d, p) for o, d, p, _ in score.parts[part].notes.tolist()]


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_pickup_bar_stays_short(tmp_path):
    score = read_text(
        tmp_path,
        document(
            f'<measure number="0" implicit="yes"><first/>{note("G", 4, 12)}</measure>'
            f'<measure number="1">{note("C", 5, 48)}</measure>'
        ),
    )
    assert score.bars.tolist() == [0, 480]
    assert score.pickup == 480
    assert sounds(score) == [(0, 480, 67), (480, 1920, 72)]


def test_a_tie_across_the_barline_is_one_note(tmp_path):
    start, stop = '<tie type="start"/>', '<tie type="stop"/>'
    score = read_text(
        tmp_path,
        document(
            f'<measure number="1"><first/>{note("C", 5, 48, start)}</measure>'
            f'<measure number="2">{note("C", 5, 24, stop)}{note("D", 5, 24)}</measure>'
        ),
    )
    assert sounds(score) == [(0, 2880, 72), (2880, 960, 74)]


def test_triplets_are_exact(tmp_path):
    triplet = "<time-modification><actual-notes>3</actual-notes><normal-notes>2</normal-notes></time-modification>"
    notes = "".join(note("C", 5, 4, f"<type>eighth</type>{triplet}") for _ in range(12))
    score = read_text(tmp_path, document(f'<measure number="1"><first/>{notes}</measure>'))
    assert [n[:2] for n in sounds(score)] == [(160 * i, 160) for i in range(12)]


def test_a_transposing_part_is_read_at_sounding_pitch(tmp_path):
    horn = "<transpose><diatonic>-4</diatonic><chromatic>-7</chromatic></transpose>"
    text = document(
        f'<measure number="1"><first/>{note("C", 5, 48)}</measure>', "<part-name>Horn in F</part-name>", horn
    )
    score = read_text(tmp_path, text)
    assert sounds(score) == [(0, 1920, 65)]
    assert score.parts[0].program == 60


def test_an_octave_change_alone_transposes(tmp_path):
    down = "<transpose><chromatic>0</chromatic><octave-change>-1</octave-change></transpose>"
    text = document(f'<measure number="1"><first/>{note("C", 3, 48)}</measure>', "<part-name>Bassi</part-name>", down)
    score = read_text(tmp_path, text)
    assert sounds(score) == [(0, 1920, 36)]


def test_a_clarinet_without_transposition_is_left_alone(tmp_path):
    text = document(f'<measure number="1"><first/>{note("C", 5, 48)}</measure>', "<part-name>Clarinet</part-name>")
    assert sounds(read_text(tmp_path, text)) == [(0, 1920, 72)]


def test_grace_notes_and_cues_do_not_sound(tmp_path):
    grace = "<note><grace/><pitch><step>D</step><octave>5</octave></pitch></note>"
    cue = note("A", 5, 24, inside="<cue/>")
    score = read_text(tmp_path, document(f'<measure number="1"><first/>{grace}{note("C", 5, 24)}{cue}</measure>'))
    assert sounds(score) == [(0, 960, 72)]
    assert score.length == 1920


def test_two_staves_of_one_part_are_one_instrument(tmp_path):
    upper, lower = "<voice>1</voice><staff>1</staff>", "<voice>5</voice><staff>2</staff>"
    score = read_text(
        tmp_path,
        document(
            f'<measure number="1"><first/>{note("C", 5, 48, upper)}<backup><duration>48</duration></backup>'
            f"{note('C', 3, 48, lower)}</measure>",
            "<part-name>Piano</part-name>",
            "<staves>2</staves>",
        ),
    )
    assert len(score.parts) == 1
    assert sounds(score) == [(0, 1920, 48), (0, 1920, 72)]


def test_dynamics_hold_until_the_next(tmp_path):
    def mark(name):
        return f"<direction><direction-type><dynamics><{name}/></dynamics></direction-type></direction>"

    notes = f"{note('C', 5, 12)}{mark('p')}{note('C', 5, 12)}{note('C', 5, 12)}{mark('ff')}{note('C', 5, 12)}"
    score = read_text(tmp_path, document(f'<measure number="1"><first/>{notes}</measure>'))
    assert score.parts[0].notes["velocity"].tolist() == [80, 49, 49, 112]


def test_a_dotted_metronome_mark_counts_quarters(tmp_path):
    mark = (
        "<direction><direction-type><metronome><beat-unit>quarter</beat-unit><beat-unit-dot/><per-minute>60"
        "</per-minute></metronome></direction-type></direction>"
    )
    score = read_text(tmp_path, document(f'<measure number="1"><first/>{mark}{note("C", 5, 48)}</measure>'))
    assert score.tempos == (Tempo(0, 90.0),)


def test_without_a_tempo_it_is_120(tmp_path):
    score = read_text(tmp_path, document(f'<measure number="1"><first/>{note("C", 5, 48)}</measure>'))
    assert score.tempos == (Tempo(0, 120.0),)


def test_a_program_of_another_family_loses_against_the_name(tmp_path):
    wrong = (
        '<part-name>Corno I</part-name><score-instrument id="I1"><instrument-name>x</instrument-name>'
        '</score-instrument><midi-instrument id="I1"><midi-program>70</midi-program></midi-instrument>'
    )
    score = read_text(tmp_path, document(f'<measure number="1"><first/>{note("C", 5, 48)}</measure>', wrong))
    assert score.parts[0].program == 60


def test_repeats_and_endings_come_through_as_signs_and_play_out(tmp_path):
    def ending(number, kind, place, repeat=""):
        return f'<barline location="{place}"><ending number="{number}" type="{kind}"/>{repeat}</barline>'

    back = '<repeat direction="backward"/>'
    score = read_text(
        tmp_path,
        document(
            f'<measure number="1"><first/>{note("C", 5, 48)}</measure>'
            f'<measure number="2">{ending(1, "start", "left")}{note("D", 5, 48)}'
            f"{ending(1, 'stop', 'right', back)}</measure>"
            f'<measure number="3">{ending(2, "start", "left")}{note("E", 5, 48)}{ending(2, "stop", "right")}</measure>'
        ),
    )
    assert [(s.onset, s.kind, s.passes) for s in score.signs] == [
        (1920, "ending", (1,)),
        (3840, "ending_stop", ()),
        (3840, "repeat_end", ()),
        (3840, "ending", (2,)),
        (5760, "ending_stop", ()),
    ]
    assert [p for _, _, p in sounds(unfold(score))] == [72, 74, 72, 76]


def test_in_a_chord_only_the_tied_note_is_held(tmp_path):
    start, stop = '<tie type="start"/>', '<tie type="stop"/>'
    score = read_text(
        tmp_path,
        document(
            f'<measure number="1"><first/>{note("C", 5, 24, start)}{note("E", 5, 24, inside="<chord/>")}'
            f"{note('C', 5, 24, stop)}{note('E', 5, 24, inside='<chord/>')}</measure>"
        ),
    )
    assert sounds(score) == [(0, 1920, 72), (0, 960, 76), (960, 960, 76)]


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<score-partwise>", "not well-formed"),
        ("<html/>", "is it MusicXML"),
        ("<score-partwise/>", "no parts"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><score-partwise/>', "entities"),
    ],
)
def test_what_is_no_score_is_refused_in_one_line(tmp_path, text, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        read_text(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_zip_that_unpacks_too_large_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.mxl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("score.xml", " " * 10_000)
    monkeypatch.setattr("musicgen.formats.musicxml_read.MAX_UNZIPPED", 1_000)
    with pytest.raises(FormatError, match="unpacks to"):
        read(path)


def test_a_damaged_zip_is_refused(tmp_path):
    path = tmp_path / "broken.mxl"
    path.write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(FormatError, match="zip"):
        read(path)


def test_too_many_notes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("musicgen.formats.musicxml_read.MAX_NOTES", 3)
    with pytest.raises(FormatError, match="4 notes"):
        read_text(tmp_path, document(f'<measure number="1"><first/>{note("C", 5, 12) * 4}</measure>'))


def test_kern_that_is_none_is_refused(tmp_path):
    path = tmp_path / "nothing.krn"
    path.write_text("not kern at all\n")
    with pytest.raises(FormatError, match=r"nothing\.krn"):
        read(path)


def test_a_score_without_parts_is_not_written(tmp_path):
    with pytest.raises(FormatError, match="without parts"):
        write(Score(), tmp_path / "empty.musicxml")


# --- there and back ---------------------------------------------------------------------------------------------------

ROUND_TRIPS = {
    "a pickup": melody((0, 480, 67, 80), (480, 1920, 72, 80), bars=[0, 480]),
    "a pickup that begins with a rest": melody((240, 240, 67, 80), (480, 1920, 72, 80), bars=[0, 480]),
    "a tie over two barlines": melody((960, 3840, 67, 80), (4800, 960, 69, 80)),
    "triplets": melody(*((160 * i, 160, 60 + i, 80) for i in range(12))),
    "triplets of quarters": melody((0, 320, 60, 80), (320, 320, 62, 80), (640, 320, 64, 80), (960, 960, 65, 80)),
    "quintuplets": melody(*((96 * i, 96, 60 + i, 80) for i in range(20))),
    "a 24th of a quarter": melody((0, 20, 60, 80), (20, 460, 62, 80), (480, 500, 64, 80), (980, 940, 65, 80)),
    "lengths off every grid": melody((0, 137, 60, 80), (137, 1001, 62, 80), (1201, 719, 64, 80)),
    "a metre change": melody((0, 1920, 60, 80), (1920, 1440, 62, 80), metres=(Metre(0, 4, 4), Metre(1920, 3, 4))),
    "compound metre": melody(*((240 * i, 240, 60 + i, 80) for i in range(12)), metres=(Metre(0, 6, 8),)),
    "a key change": melody((0, 3840, 61, 80), keys=(Key(0, -3, "minor"), Key(1920, 4, "major"))),
    "a modal key": melody((0, 1920, 62, 80), keys=(Key(0, 0, "dorian"),)),
    "tempi inside a bar": melody((0, 1920, 62, 80), tempos=(Tempo(0, 92.5), Tempo(480, 60.0), Tempo(1200, 133.0))),
    "two voices": melody((0, 1920, 60, 80), (0, 480, 72, 80), (480, 960, 74, 90), (1440, 480, 60, 80)),
    "six overlapping notes": melody(*((240 * i, 1920, 60 + i, 80) for i in range(6))),
    "one pitch twice at once": melody((0, 1920, 60, 80), (480, 480, 60, 70)),
    "a short last bar": melody((0, 1920, 60, 80), (1920, 480, 62, 80)),
    "a rest at the end": melody((0, 480, 60, 80), length=3840),
    "an irregular bar": melody((0, 1920, 60, 80), (2880, 1920, 62, 80), bars=[0, 1920, 2880]),
    "every velocity": melody(*((480 * i, 480, 60, v) for i, v in enumerate((1, 17, 64, 89, 100, 127)))),
    "an unusual program": melody((0, 1920, 60, 80), name="Violin", program=12),
    "a title": melody((0, 1920, 60, 80), title="Études & <Fragments>, № 3"),
    "chord symbols": melody(
        (0, 3840, 60, 80), chord_symbols=(ChordSymbol(0, "Am7"), ChordSymbol(960, "Bb"), ChordSymbol(1920, "D7/F#"))
    ),
    "piano on two staves": melody(
        *((480 * i, 480, p, 80) for i in range(8) for p in (36 + i, 55, 64, 76)), name="Piano", program=0
    ),
    "repeats with endings": melody(
        *((1920 * i, 1920, 60 + i, 80) for i in range(5)),
        signs=(
            Sign(1920, "repeat_start"),
            Sign(3840, "ending", (1,)),
            Sign(5760, "ending_stop"),
            Sign(5760, "repeat_end"),
            Sign(5760, "ending", (2,)),
            Sign(7680, "ending_stop"),
            Sign(7680, "double"),
        ),
    ),
}


@pytest.mark.parametrize("what", ROUND_TRIPS)
def test_what_is_written_reads_back_the_same(what, tmp_path):
    score = ROUND_TRIPS[what]
    again = there_and_back(score, tmp_path)
    assert again.parts[0].notes.tolist() == score.parts[0].notes.tolist()
    assert again.bars.tolist() == score.bars.tolist()
    assert again == score


def test_drums_keep_their_keys(tmp_path):
    hits = [(240 * i, 120, 42, 70) for i in range(8)] + [(0, 240, 36, 110), (960, 240, 38, 100), (0, 480, 87, 60)]
    score = Score(parts=(Part("Drums", 0, True, notes_array(hits)),))
    assert there_and_back(score, tmp_path) == score


def test_a_nameless_part_takes_its_instruments_name(tmp_path):
    again = there_and_back(melody((0, 1920, 60, 80), name="", program=71), tmp_path)
    assert again.parts[0].name == "Clarinet"


def test_a_concert_score_of_many_instruments_comes_back(tmp_path):
    parts = [("Flauto", 73), ("Clarinetti", 71), ("Corni", 60), ("Timpani", 47), ("Viole", 41), ("Basso", 43)]
    score = Score(
        parts=tuple(Part(n, p, False, notes_array([(0, 1920, 50 + i, 80)])) for i, (n, p) in enumerate(parts))
    )
    assert there_and_back(score, tmp_path) == score


# --- what is on the page ----------------------------------------------------------------------------------------------


def written(score: Score, tmp_path: Path, **options) -> ElementTree.Element:
    path = tmp_path / "page.musicxml"
    write(score, path, **options)
    return ElementTree.parse(path).getroot()


def test_notes_of_the_key_carry_no_accidental(tmp_path):
    scale = melody(*((240 * i, 240, p, 80) for i, p in enumerate((62, 64, 66, 67, 69, 71, 73, 74))), keys=(Key(0, 2),))
    assert written(scale, tmp_path).find(".//accidental") is None


def test_an_accidental_is_printed_once_a_bar_and_taken_back(tmp_path):
    score = melody(*((480 * i, 480, p, 80) for i, p in enumerate((66, 66, 65, 66, 66))))
    assert [a.text for a in written(score, tmp_path).iter("accidental")] == ["sharp", "natural", "sharp", "sharp"]


def test_the_leading_note_of_a_flat_key_is_spelled_in_the_key(tmp_path):
    pitches = written(melody((0, 1920, 59, 80), keys=(Key(0, -3, "minor"),)), tmp_path)
    assert (pitches.findtext(".//step"), pitches.findtext(".//alter")) == ("B", None)
    pitches = written(melody((0, 1920, 61, 80), keys=(Key(0, -3, "minor"),)), tmp_path)
    assert (pitches.findtext(".//step"), pitches.findtext(".//alter")) == ("D", "-1")


def test_a_pickup_bar_has_number_0_and_is_implicit(tmp_path):
    bars = list(written(ROUND_TRIPS["a pickup"], tmp_path).iter("measure"))
    assert [(b.get("number"), b.get("implicit")) for b in bars] == [("0", "yes"), ("1", None)]


def test_a_syncopation_is_split_at_the_middle_of_the_bar(tmp_path):
    score = melody((0, 720, 60, 80), (720, 480, 62, 80), (1200, 720, 64, 80))
    durations = [int(d.text or 0) for d in written(score, tmp_path).iter("duration")]
    assert durations == [720, 240, 240, 720]


def test_a_viola_has_the_alto_clef_and_drums_the_percussion_clef(tmp_path):
    viola = written(melody((0, 1920, 60, 80), name="Viola", program=41), tmp_path)
    assert (viola.findtext(".//clef/sign"), viola.findtext(".//clef/line")) == ("C", "3")
    drums = Score(parts=(Part("Drums", 0, True, notes_array([(0, 480, 38, 80)])),))
    assert written(drums, tmp_path).findtext(".//clef/sign") == "percussion"


def test_new_notes_are_blue_from_the_mark_on(tmp_path):
    root = written(melody((0, 480, 60, 80), (480, 480, 62, 80)), tmp_path, mark_from=480)
    heads = [n.find("notehead") for n in root.iter("note") if n.find("pitch") is not None]
    assert [h.get("color") if h is not None else None for h in heads] == [None, "#1f5fbf"]


def test_new_notes_are_blue_up_to_a_tick_and_through_whole_parts(tmp_path):
    notes = notes_array([(480 * i, 480, 60, 80) for i in range(4)])
    score = Score((Part("A", notes=notes), Part("B", notes=notes)))
    write_score(score, tmp_path / "t.musicxml", mark_from=480, mark_until=1440, mark_parts=(1,))
    parts = ElementTree.parse(tmp_path / "t.musicxml").getroot().findall("part")
    blue = [[n.find("notehead") is not None for n in part.iter("note")] for part in parts]
    assert blue == [[False, True, True, False], [True] * 4]


def test_a_triplet_has_one_bracket(tmp_path):
    root = written(melody((0, 160, 60, 80), (160, 160, 62, 80), (320, 160, 64, 80)), tmp_path)
    assert [t.get("type") for t in root.iter("tuplet")] == ["start", "stop"]
    assert {t.text for t in root.iter("normal-type")} == {"eighth"}


def test_eighths_are_beamed_by_the_beat(tmp_path):
    root = written(melody(*((240 * i, 240, 60, 80) for i in range(4))), tmp_path)
    assert [b.text for b in root.iter("beam")] == ["begin", "end", "begin", "end"]


# --- instruments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("Violino I", 40), ("Flauti", 73), ("Corni in F", 60), ("Timpani", 47), ("Viole", 41), ("Contrabassi", 43),
        ("Oboi", 68), ("A Clarinet 1", 71), ("Fagotti", 70), ("Trombe", 56), ("Tromboni", 57), ("Bass Trombone", 57),
        ("Hörner", 60), ("Große Flöte", 73), ("Violoncelles", 42), ("Corno inglese", 69), ("Contrabassoon", 70),
        ("Bass Clarinet", 71), ("Alto Sax", 65), ("Singstimme", 52), ("Klavier", 0), ("Part 1", None),
    ],
)  # fmt: skip
def test_names_in_four_languages_find_their_program(name, program):
    assert program_by_name(name) == program


def test_a_bass_beside_a_soprano_sings():
    assert choose_program("Bass", [], beside_singers=True) == 52
    assert choose_program("Basso", [53, 43]) == 43


def test_a_section_of_strings_is_named_by_its_part():
    assert choose_program("Violin 1", [48]) == 40


def test_a_cello_reads_the_bass_clef():
    assert clef_for(42, [50]) == ("F", 4, 0)


def test_a_staff_has_the_clef_that_needs_few_ledger_lines():
    assert clef_for(0, [60, 64, 67, 72]) == ("G", 2, 0)
    assert clef_for(0, [36, 48, 52, 67]) == ("F", 4, 0)
    assert clef_for(57, [65, 69, 74]) == ("C", 3, 0)  # an alto trombone


def test_a_left_hand_reads_the_bass_clef_unless_it_lies_high():
    assert clef_for(0, [48, 60, 62, 64], lower_hand=True) == ("F", 4, 0)
    assert clef_for(0, [72, 76, 79], lower_hand=True) == ("G", 2, 0)


def test_low_voices_read_the_bass_clef_and_a_tenor_the_treble_an_octave_up():
    assert clef_for(52, [43, 50, 53, 55], "Bass") == ("F", 4, 0)
    assert clef_for(52, [52, 55, 59, 64], "Voice") == ("F", 4, 0)
    assert clef_for(52, [53, 57, 62, 64], "Tenor") == ("G", 2, -1)
    assert clef_for(52, [57, 62, 65, 69], "Alto") == ("G", 2, 0)


def test_only_the_lower_staff_of_a_pianist_is_a_left_hand(tmp_path):
    hands = [Part(name, notes=notes_array([(0, 480, 60, 80), (480, 480, 65, 80)])) for name in ("right", "left")]
    root = written(Score((*hands, *hands)), tmp_path)
    assert [e.text for e in root.iter("sign")] == ["G", "F", "G", "F"]


# --- real music -------------------------------------------------------------------------------------------------------


def reference(stream) -> Counter:
    """(onset, duration, pitch) by music21's own road: sounding pitch, ties stripped, flattened."""
    from music21 import chord

    found: Counter = Counter()
    for part in stream.toSoundingPitch().parts:
        flat = part.stripTies().flatten()
        for event in flat.notes:
            if event.duration.isGrace:
                continue
            onset, end = flat.elementOffset(event), flat.elementOffset(event) + event.quarterLength
            for single in event.notes if isinstance(event, chord.Chord) else (event,):
                start = round(onset * 480)
                found[(start, round(end * 480) - start, round(single.pitch.ps))] += 1
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["bach/bwv66.6", "palestrina/Agnus_0", "mozart/k458/movement3"])
def test_corpus_pieces_agree_with_music21s_own_note_list(name):
    from music21 import corpus

    stream = corpus.parse(name)
    score = from_music21(stream)
    ours = Counter(n[:3] for part in score.parts for n in part.notes.tolist())
    assert ours == reference(stream)


@pytest.mark.filterwarnings("ignore")
def test_a_chorale_has_its_pickup_key_and_voices():
    from music21 import corpus

    score = from_music21(corpus.parse("bach/bwv66.6"))
    assert score.pickup == 480
    assert score.keys[0].fifths == 3
    assert [(p.name, p.program) for p in score.parts] == [(n, 52) for n in ("Soprano", "Alto", "Tenor", "Bass")]


@pytest.mark.filterwarnings("ignore")
def test_kern_from_the_corpus_reads_from_its_file(tmp_path):
    from music21 import corpus

    score = read(Path(str(corpus.getWork("palestrina/Agnus_00"))))[0]
    assert len(score.parts) == 5
    assert score.note_count > 400


def test_the_unfinished_symphony_comes_through(tmp_path):
    path = SHARED / "schubert-d759-unfinished" / "D759_mvt2_from-midi.mxl"
    if not path.exists():
        pytest.skip("the shared scores are not here")
    score = read(path)[0]
    assert len(score.parts) == 22
    assert score.metres == (Metre(0, 3, 8),)
    assert score.keys == (Key(0, 4, "major"),)
    assert [p.program for p in score.parts] == [
        73, 73, 68, 68, 71, 71, 70, 70, 60, 60, 56, 56, 57, 57, 57, 47, 40, 40, 41, 42, 43, 41,
    ]  # fmt: skip
    excerpt = bars_between(score, 100, 140)
    assert there_and_back(excerpt, tmp_path) == excerpt


def test_the_module_offers_reading_and_writing():
    assert set(musicxml.__all__) == {"from_music21", "read", "write"}
