"""ABC: what is read is what the standard says, what is written reads back as the same score."""

from __future__ import annotations

import random
import re
import tarfile
from fractions import Fraction
from pathlib import Path

import pytest

from musicgen.errors import FormatError
from musicgen.formats.abc import decode_text, read, read_text, read_tunes, to_text, write
from musicgen.score import ChordSymbol, Key, Metre, Part, Score, Sign, Tempo, notes_array, unfold

EIGHTH = 240


def tune(body: str, header: str = "M:4/4\nL:1/8\n", key: str = "C") -> Score:
    return read_text(f"X:1\nT:Test\n{header}K:{key}\n{body}\n")[0]


def pitches(score: Score, part: int = 0) -> list[int]:
    return score.parts[part].notes["pitch"].tolist()


def eighths(score: Score, part: int = 0) -> list[Fraction]:
    """Durations in eighth notes."""
    return [Fraction(int(d), EIGHTH) for d in score.parts[part].notes["duration"]]


def signs(score: Score) -> list[tuple[float, str, tuple[int, ...]]]:
    """Signs with their onsets in eighths."""
    return [(sign.onset / EIGHTH, sign.kind, sign.passes) for sign in score.signs]


# --- pitch ------------------------------------------------------------------------------------------------------------


def test_octaves_count_from_middle_c():
    assert pitches(tune("C,, C, C c c' c''")) == [36, 48, 60, 72, 84, 96]


@pytest.mark.parametrize(
    ("key", "fifths", "mode"),
    [
        ("C", 0, "major"),
        ("G", 1, "major"),
        ("Bb", -2, "major"),
        ("F#m", 3, "minor"),
        ("Am", 0, "minor"),
        ("A Minor", 0, "minor"),
        ("D Mixolydian", 1, "mixolydian"),
        ("Ador", 1, "dorian"),
        ("EDorian", 2, "dorian"),
        ("Ephr", 0, "phrygian"),
        ("F Lyd", 0, "lydian"),
        ("Bloc", 0, "locrian"),
        ("CIon", 0, "major"),
        ("Gaeolian", -2, "minor"),
        ("HP", 0, "major"),
        ("Hp", 2, "major"),
        ("none", 0, "major"),
        ("", 0, "major"),
        ("G clef=bass", 1, "major"),
        ("D =c", 2, "major"),
        ("D exp _b", 0, "major"),
    ],
)
def test_a_key_is_read_with_its_mode(key, fifths, mode):
    assert tune("C", key=key).keys == (Key(0, fifths, mode),)


def test_explicit_accidentals_in_the_key_change_its_pitches():
    assert pitches(tune("cfBg", key="D =c ^g")) == [72, 78, 71, 80]
    assert pitches(tune("fB", key="D exp _b")) == [77, 70]


def test_an_accidental_holds_in_every_octave_to_the_end_of_the_bar():
    assert pitches(tune("^C c C, =C c | C")) == [61, 73, 49, 60, 72, 60]


def test_double_accidentals_are_read():
    assert pitches(tune("^^C __B")) == [62, 69]


def test_an_octave_or_transpose_setting_moves_the_voice():
    assert pitches(tune("C", key="C octave=-1")) == [48]
    assert pitches(tune("C", key="C transpose=3")) == [63]
    assert pitches(tune("C", key="C treble-8")) == [48]


# --- time -------------------------------------------------------------------------------------------------------------


def test_lengths_multiply_and_divide_the_unit():
    expected = [1, 2, Fraction(1, 2), Fraction(1, 4), Fraction(3, 2), Fraction(1, 4), Fraction(3, 2)]
    assert eighths(tune("C D2 E/ F// G3/2 A/4 B3/")) == expected


@pytest.mark.parametrize(("metre", "unit"), [("2/4", 120), ("3/4", 240), ("6/8", 240), ("5/8", 120), ("none", 240)])
def test_without_a_unit_length_the_metre_gives_it(metre, unit):
    assert tune("C", header=f"M:{metre}\n").parts[0].notes["duration"].tolist() == [unit]


@pytest.mark.parametrize(
    ("written", "numerator", "denominator"),
    [("C", 4, 4), ("C|", 2, 2), ("6/8", 6, 8), ("2+3/8", 5, 8), ("(2+3+2)/8", 7, 8), ("none", 4, 4), ("", 4, 4)],
)
def test_metres_are_read(written, numerator, denominator):
    assert tune("C", header=f"M:{written}\n").metres == (Metre(0, numerator, denominator),)


def test_broken_rhythm_dots_one_note_and_shortens_the_other():
    assert eighths(tune("A>B")) == [Fraction(3, 2), Fraction(1, 2)]
    assert eighths(tune("A<B")) == [Fraction(1, 2), Fraction(3, 2)]
    assert eighths(tune("A>>B")) == [Fraction(7, 4), Fraction(1, 4)]
    assert eighths(tune("A2>B2 c<<d")) == [3, 1, Fraction(1, 4), Fraction(7, 4)]


def test_broken_rhythm_works_on_chords_and_past_grace_notes():
    assert eighths(tune("[CE]>{g}D")) == [Fraction(3, 2), Fraction(3, 2), Fraction(1, 2)]


def test_tuplets_take_their_time_from_their_number():
    assert eighths(tune("(3ABc")) == [Fraction(2, 3)] * 3
    assert eighths(tune("(2AB")) == [Fraction(3, 2)] * 2
    assert eighths(tune("(4ABcd")) == [Fraction(3, 4)] * 4
    assert eighths(tune("(5ABcde")) == [Fraction(2, 5)] * 5


def test_five_in_a_compound_metre_take_the_time_of_three():
    assert eighths(tune("(5ABcde", header="M:6/8\nL:1/8\n")) == [Fraction(3, 5)] * 5


def test_a_tuplet_may_state_its_time_and_its_count():
    assert eighths(tune("(3:2:2 A2 B c")) == [Fraction(4, 3), Fraction(2, 3), 1]
    assert eighths(tune("(3::2 A2 B c")) == [Fraction(4, 3), Fraction(2, 3), 1]


def test_a_tie_across_the_barline_survives():
    score = tune("C4 D4-|D2 E2")
    assert eighths(score) == [4, 6, 2]
    assert score.bars.tolist() == [0, 1920]


def test_a_tied_note_keeps_its_accidental_over_the_barline_and_the_next_does_not():
    assert pitches(tune("D6 ^C2-|C2 C2")) == [62, 61, 60]


def test_a_chord_is_tied_note_by_note():
    assert sorted(zip(pitches(s := tune("[CE-G]2 [CE]2")), eighths(s), strict=True)) == [
        (60, 2),
        (60, 2),
        (64, 4),
        (67, 2),
    ]


def test_a_tie_between_different_pitches_is_a_slur():
    assert eighths(tune("A2-B2")) == [2, 2]


def test_a_chord_shares_its_length():
    score = tune("[CEG]2 [C2E2]/ z")
    assert score.parts[0].notes["onset"].tolist() == [0, 0, 0, 480, 480]
    assert eighths(score) == [2, 2, 2, 1, 1]
    assert score.length == 4 * EIGHTH


def test_rests_take_time_and_y_takes_none():
    score = tune("z2 C y x D y3 E")
    assert score.parts[0].notes["onset"].tolist() == [480, 960, 1200]


def test_a_multi_measure_rest_lasts_whole_bars():
    score = tune("Z3|C8|", header="M:3/4\nL:1/8\n")
    assert score.bars.tolist() == [0, 1440, 2880, 4320]
    assert score.parts[0].notes["onset"].tolist() == [4320]


@pytest.mark.parametrize(
    ("written", "bpm"),
    [("1/4=90", 90), ("3/8=60", 90), ("120", 60), ('"Allegro" 1/2=80', 160), ("1/4 1/8 = 40", 60), ('"Slow"', 120)],
)
def test_a_tempo_counts_quarter_notes(written, bpm):
    assert tune("C", header=f"M:4/4\nL:1/8\nQ:{written}\n").tempos == (Tempo(0, bpm),)


# --- what is left out -------------------------------------------------------------------------------------------------


def test_ornaments_slurs_words_and_comments_are_passed_over():
    plain = tune("CDEF GABc|")
    score = tune('!trill!C +fermata+D E ~F "^text"(G .A) "1"uB Tc|!% a comment\nw: la la la\nW: more\n%%scale 0.7')
    assert score.parts == plain.parts
    assert score.chord_symbols == ()


def test_old_line_ends_with_an_exclamation_mark_are_line_ends():
    assert tune("CDEF GABc|!\ncBAG FEDC|!").parts == tune("CDEF GABc|cBAG FEDC|").parts


def test_a_line_may_go_on_after_a_backslash():
    assert tune("CDEF\\\nGABc|").bars.tolist() == [0]


# --- bars and signs ---------------------------------------------------------------------------------------------------


def test_each_barline_begins_a_bar_whatever_its_length():
    assert (tune("G2|C8|D6:|E2|F8|").bars / EIGHTH).tolist() == [0, 2, 10, 16, 18]


@pytest.mark.parametrize(
    ("bar", "kinds"),
    [
        (":|", ["repeat_end"]),
        ("|:", ["repeat_start"]),
        ("::", ["repeat_end", "repeat_start"]),
        (":|:", ["repeat_end", "repeat_start"]),
        (":||:", ["repeat_end", "repeat_start"]),
        (":| |:", ["repeat_end", "repeat_start"]),
        ("||", ["double"]),
        ("|]", ["final"]),
        ("[|", ["double"]),
        (":|]", ["repeat_end", "final"]),
        ("|||:", ["repeat_start"]),
        ("[|]", []),
        (".|", []),
        ("|", []),
    ],
)
def test_barlines_are_signs(bar, kinds):
    assert [sign.kind for sign in tune(f"C8{bar}D8").signs] == kinds


@pytest.mark.parametrize("text", ["C8|1D8:|2E8||", "C8|[1D8:|[2E8||", "C8|[1 D8:| [2 E8||"])
def test_endings_are_signs_with_their_passes(text):
    assert signs(tune(text)) == [
        (8, "ending", (1,)),
        (16, "ending_stop", ()),
        (16, "repeat_end", ()),
        (16, "ending", (2,)),
        (24, "ending_stop", ()),
        (24, "double", ()),
    ]


def test_an_ending_may_serve_several_passes():
    assert [s.passes for s in tune("C8|1,3 D8:|2 E8||").signs if s.kind == "ending"] == [(1, 3), (2,)]
    assert [s.passes for s in tune("C8|1-3 D8:|4 E8||").signs if s.kind == "ending"] == [(1, 2, 3), (4,)]


def test_repeats_are_played_out_by_unfold():
    assert pitches(unfold(tune("C8|1D8:|2E8||F8|"))) == [60, 62, 60, 64, 65]


def test_a_repeat_without_a_start_goes_back_to_the_double_bar():
    assert pitches(unfold(tune("C8|]D8:|"))) == [60, 62, 62]


def test_fields_inside_the_tune_take_effect_where_they_stand():
    score = tune("C4 D4|[M:3/4]E6|[K:G]F6|\nM:2/4\nL:1/4\nQ:1/4=60\nF2|")
    assert score.metres == (Metre(0, 4, 4), Metre(1920, 3, 4), Metre(4800, 2, 4))
    assert score.keys == (Key(0, 0), Key(3360, 1))
    assert score.tempos == (Tempo(0, 120.0), Tempo(4800, 60.0))
    assert pitches(score) == [60, 62, 64, 66, 66]
    assert eighths(score)[-1] == 4


def test_music_on_the_line_of_a_metre_is_read():
    assert pitches(tune("C8|\nM:3/4 EDC DA,B,|\nM:4/4 C8|")) == [60, 64, 62, 60, 62, 57, 59, 60]


def test_chord_symbols_are_kept_and_annotations_are_not():
    score = tune('"Am"A4 "D7/F#"d4|"^slow"e4 "Fine"f4 "Bb(maj7)"g')
    assert [(c.onset // EIGHTH, c.text) for c in score.chord_symbols] == [(0, "Am"), (4, "D7/F#"), (16, "Bb(maj7)")]


def test_an_overlay_sounds_together_with_its_bar():
    score = tune("C8 & E4 G4|D8|")
    assert list(zip(score.parts[0].notes["onset"].tolist(), pitches(score), strict=True)) == [
        (0, 60),
        (0, 64),
        (960, 67),
        (1920, 62),
    ]


# --- voices -----------------------------------------------------------------------------------------------------------


def test_voices_become_parts_with_their_names():
    score = tune("V:1\nC8|\nV:2\nE,8|\nV:1\nD8|\nV:2\nF,8|", header='M:4/4\nL:1/8\nV:1 name="Flute"\nV:2 nm="Viola"\n')
    assert [part.name for part in score.parts] == ["Flute", "Viola"]
    assert [pitches(score, i) for i in (0, 1)] == [[60, 62], [52, 53]]
    assert score.bars.tolist() == [0, 1920]


def test_voices_may_be_switched_inline():
    score = tune("[V:1]C8|[V:2]E,8|\n[V:1]D8|[V:2]F,8|")
    assert [pitches(score, i) for i in (0, 1)] == [[60, 62], [52, 53]]


def test_midi_directives_set_program_and_drums():
    score = tune("V:1\n%%MIDI program 40\nC8|\nV:2\n%%MIDI channel 10\nC,8|")
    assert [(p.program, p.is_drum) for p in score.parts] == [(40, False), (0, True)]


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_may_hold_many_tunes_and_free_text():
    text = "%abc-2.1\nL:1/4\n\nX:1\nT:One\nM:4/4\nK:C\nC\n\nfree text about X\n\nX:2\nT:Two\nM:4/4\nK:C\nD\n"
    scores = read_text(text)
    assert [s.title for s in scores] == ["One", "Two"]
    assert eighths(scores[0]) == [2]


def test_a_bad_tune_leaves_the_others_and_is_told_of():
    found = read_tunes("X:1\nK:C\nC|\n\nX:2\nM:4/4\nK:Q#\nD|\n\nX:3\nK:G\nE|\n", "file.abc")
    assert [isinstance(tune, Score) for tune in found] == [True, False, True]
    assert str(found[1]).startswith("file.abc:7: K:Q# is no key")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("hello", "no tune found"),
        ("X:1\nT:x\nM:4/4\n", "no K: line"),
        ("X:1\nT:x\nK:C\n", "no notes"),
        ("X:1\nK:C\n[CEG|\n", "barline inside a chord"),
        ("X:1\nK:C\n[CEG\n", "not closed"),
        ("X:1\nM:4/3\nK:C\nC\n", "no metre"),
        ("X:1\nL:0\nK:C\nC\n", "no note length"),
        ("X:1\nK:C\nC/0\n", "denominator 0"),
        ("X:1\nK:C\n" + "C99999" * 2000 + "\n", "too long"),
        ("X:1\nK:C\nZ99999|C\n", "rest of more than"),
        ("X:1\nK:C\nC''''''\n", "out of the MIDI range"),
        ("X:1\nK:G#\nC\n", "more than seven"),
        ("X:1\nK:C\n" + "C" * 200_001 + "\n", "200,001 characters"),
    ],
)
def test_what_can_not_be_read_is_said_with_its_line(text, what):
    with pytest.raises(FormatError, match=what) as caught:
        read_text(text, "some.abc")
    assert re.match(r"some\.abc:\d+: ", str(caught.value))


def test_latin_1_is_read_where_utf_8_is_not(tmp_path: Path):
    path = tmp_path / "a.abc"
    path.write_bytes("X:1\r\nT:Seán\r\nK:C\r\nC|\r\n".encode("latin-1"))
    assert read(path)[0].title == "Seán"


def test_no_text_at_all_makes_the_reader_raise_anything_but_a_format_error():
    random.seed(1)
    alphabet = "ABCDEFGabcdefg|:[]()<>{}-/234567,'^_=z&\"!+.~ \nKMVLQX%\\ZTw1"
    for _ in range(300):
        body = "".join(random.choices(alphabet, k=80))
        assert len(read_tunes(f"X:1\nM:4/4\nL:1/8\nK:C\n{body}\n")) >= 1


# --- writing ----------------------------------------------------------------------------------------------------------


def round_trip(score: Score) -> Score:
    return read_text(to_text(score))[0]


def test_a_score_of_everything_reads_back_the_same():
    text = (
        'X:1\nT:All\nM:6/8\nL:1/8\nQ:1/4=96\nK:Ador\nE|:"Am"A2B [ce]2d|(3cBA ^G>A- A/B/|1 e3-e2 z:|2 [K:D][M:9/8]'
        "f9||\n[Q:1/4=66]F,5 & A3 z2|Z2|(5:4:5abcde f2 (7gfedcBA|]\n"
    )
    score = read_text(text)[0]
    assert round_trip(score) == score


def test_several_parts_read_back_with_names_programs_and_drums():
    parts = (
        Part("Violin", 40, False, notes_array([(0, 1000, 76, 80), (500, 1420, 60, 80), (1920, 7, 61, 80)])),
        Part("Drums", 0, True, notes_array([(0, 240, 36, 80), (240, 240, 42, 80)])),
        Part("Empty", 3),
    )
    score = Score(parts, "Three", metres=(Metre(0, 3, 4),), keys=(Key(0, -3, "minor"),), length=4320)
    again = round_trip(score)
    assert again == score


def test_every_duration_and_onset_in_ticks_can_be_written():
    notes = notes_array((100 * i + i % 7, 1 + 13 * i % 97, 60 + i % 12, 80) for i in range(60))
    score = Score((Part(notes=notes),))
    assert round_trip(score) == score


@pytest.mark.parametrize("fifths", range(-7, 8))
def test_every_pitch_in_every_key_reads_back(fifths):
    notes = notes_array((60 * i, 60, (i * 37) % 128, 80) for i in range(256))
    score = Score((Part(notes=notes),), keys=(Key(0, fifths),))
    assert round_trip(score) == score


def test_accidentals_are_written_once_a_bar():
    assert to_text(tune("^F2 F2 F2 =F2|^F8|")).splitlines()[-1] == "^F2F2 F2=F2 | ^F8 |"


def test_lengths_without_a_sign_are_tied():
    assert to_text(tune("C5 D3|")).splitlines()[-1] == "C4-CD3 |"


def test_signs_are_written_as_barlines():
    text = "|: C8 | [1 D8 :| [2 E8 || F8 :: G8 :|"
    assert to_text(tune(text)).splitlines()[-1] == text


def test_chord_symbols_are_written_over_the_middle_of_a_note():
    score = Score((Part(notes=notes_array([(0, 1920, 60, 80)])),), chord_symbols=(ChordSymbol(960, "G7"),))
    assert '"G7"C4' in to_text(score)
    assert round_trip(score) == score


def test_a_sign_out_of_place_does_not_add_a_bar():
    score = Score((Part(notes=notes_array([(0, 3840, 60, 80)])),), signs=(Sign(100, "double"),))
    assert round_trip(score).bars.tolist() == [0, 1920]


def test_write_makes_a_file_that_read_reads(tmp_path: Path):
    score = tune("CDEF|")
    write(score, tmp_path / "a.abc")
    assert read(tmp_path / "a.abc") == [score]


# --- the music of the world -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def irish(shared_data: Path) -> str:
    return decode_text((shared_data / "irish" / "irish.abc").read_bytes())


def test_every_irish_tune_reads_and_reads_back_the_same(irish: str):
    tunes = read_tunes(irish)
    assert len(tunes) == 804
    for score in tunes:
        assert isinstance(score, Score), score
        assert round_trip(score) == score, score.title


def test_every_nottingham_tune_reads_back_the_same(shared_data: Path):
    archive = shared_data / "nottingham.tar.gz"
    if not archive.is_file():
        pytest.skip("nottingham.tar.gz is not there")
    found = []
    with tarfile.open(archive) as files:
        for member in files.getmembers():
            if member.isfile() and member.name.endswith(".abc") and "/._" not in member.name:
                stream = files.extractfile(member)
                assert stream is not None
                found += read_tunes(decode_text(stream.read()))
    scores = [score for score in found if isinstance(score, Score)]
    assert (len(found), len(scores)) == (1034, 1034)
    for score in scores:
        assert round_trip(score) == score, score.title


def test_notes_are_beamed_by_the_beat():
    text = "X:1\nM:6/8\nL:1/8\nK:D\nA|dAFDFA|ded cBA|"
    assert to_text(read_text(text)[0]).splitlines()[-1] == "A | dAF DFA | ded cBA |"
    assert to_text(tune("ABcd efga|")).splitlines()[-1] == "ABcd efga |"
