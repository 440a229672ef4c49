"""ABC as it occurs in the wild: grace notes, parts, jumps, odd fields, old habits, letters, and the bounds of all."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from musicgen.errors import FormatError
from musicgen.formats.abc import decode_text, read, read_text, read_tunes, to_text
from musicgen.score import (
    Key,
    Part,
    Score,
    Sign,
    graces_array,
    notes_array,
    unfold,
)

EIGHTH = 240


def tune(body: str, header: str = "M:4/4\nL:1/8\n", key: str = "C") -> Score:
    return read_text(f"X:1\nT:Test\n{header}K:{key}\n{body}\n")[0]


def pitches(score: Score, part: int = 0) -> list[int]:
    return score.parts[part].notes["pitch"].tolist()


def onsets(score: Score, part: int = 0) -> list[float]:
    """In eighths."""
    return (score.parts[part].notes["onset"] / EIGHTH).tolist()


def graces(score: Score, part: int = 0) -> list[tuple[float, int, int, bool]]:
    """(onset in eighths, place, pitch, slashed)"""
    return [(onset / EIGHTH, *rest) for onset, *rest in score.parts[part].graces.tolist()]


def signs(score: Score) -> list[tuple[float, str, str]]:
    """(onset in eighths, kind, label)"""
    return [(sign.onset / EIGHTH, sign.kind, sign.label) for sign in score.signs]


def reads_back(score: Score) -> bool:
    return read_text(to_text(score))[0] == score


# --- grace notes ------------------------------------------------------------------------------------------------------


def test_grace_notes_lead_to_the_next_note_and_take_no_time():
    score = tune("A2{ga}B2 c4|")
    assert graces(score) == [(2, 0, 79, False), (2, 1, 81, False)]
    assert onsets(score) == [0, 2, 4]


def test_a_slash_makes_an_acciaccatura():
    assert graces(tune("{/g}A8|")) == [(0, 0, 79, True)]


def test_graces_may_be_chords():
    assert graces(tune("{[ce]g}A8|")) == [(0, 0, 72, False), (0, 0, 76, False), (0, 1, 79, False)]


def test_lengths_in_graces_say_nothing():
    assert graces(tune("{g3/2a/}A8|")) == graces(tune("{ga}A8|"))


def test_graces_follow_key_and_bar_and_set_the_accidentals_of_both():
    score = tune("^F4 {f}c4|{fg^g}A4 G4|{g}A8|", key="G")
    assert [pitch for _, _, pitch, _ in graces(score)] == [78, 78, 79, 80, 79]
    assert pitches(score) == [66, 72, 69, 68, 69]


def test_a_grace_before_a_barline_leads_to_the_note_behind_it():
    assert graces(tune("A8{g}|B8|")) == [(8, 0, 79, False)]


def test_a_grace_before_a_rest_stands_where_the_rest_begins():
    assert graces(tune("A4{g}z4|B8|")) == [(4, 0, 79, False)]


def test_a_grace_that_leads_to_nothing_is_left_out():
    assert graces(tune("A8{g}|]")) == []


def test_graces_belong_to_their_voice():
    score = tune("V:1\n{g}C8|\nV:2\n{e}E8|\n")
    assert [graces(score, part) for part in (0, 1)] == [[(0, 0, 79, False)], [(0, 0, 76, False)]]


def test_graces_of_two_overlays_at_one_onset_are_played_one_after_the_other():
    assert graces(tune("{g}C8 & {e}E8|")) == [(0, 0, 79, False), (0, 1, 76, False)]


@pytest.mark.parametrize(
    "body",
    [
        "A2{ga}B2 {/g}c4|{[ce]g}d8|",
        "{^g}a4 G4|{=f^f}f8|{_e}E4 e4|",
        "A4{g}z4|(3{g}ABc {a}d2 e4-|{f}e8|",
        "{g}C8 & {/e}E4 {d}F4|",
    ],
)
def test_graces_read_back(body: str):
    score = tune(body, key="D")
    assert len(score.parts[0].graces)
    assert reads_back(score)


def test_a_grace_over_the_middle_of_a_note_reads_back():
    part = Part(notes=notes_array([(0, 1920, 60, 80)]), graces=graces_array([(960, 0, 62, True), (960, 1, 64, False)]))
    assert reads_back(Score((part,)))


# --- parts and jumps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "order"),
    [("AABB", "AABB"), ("A2.B(AB)3", "AABABABAB"), ("(A2B)2", "AABAAB"), ("A B A", "ABA"), ("((AB)2A)2", "ABABAABABA")],
)
def test_the_header_orders_the_parts(written: str, order: str):
    score = tune("P:A\nC8|\nP:B\nD8|", header=f"P:{written}\nM:4/4\nL:1/8\n")
    assert score.order == tuple(order)
    assert signs(score) == [(0, "section", "A"), (8, "section", "B")]
    assert pitches(unfold(score)) == [{"A": 60, "B": 62}[label] for label in order]


@pytest.mark.parametrize("header", ["P:AB", "P:Pipe march (in two parts)", "P:(A", "P:A)B", "P:"])
def test_an_order_of_parts_that_are_not_there_counts_for_nothing(header: str):
    assert tune("C8|D8|", header=f"{header}\nM:4/4\nL:1/8\n").order == ()


def test_parts_may_begin_inline_and_have_names():
    assert signs(tune("[P:Verse]C8|[P:Chorus 1]D4[P:B]E4|")) == [
        (0, "section", "Verse"),
        (8, "section", "Chorus 1"),
        (12, "section", "B"),
    ]


def test_a_part_that_every_voice_marks_begins_once():
    score = tune("P:A\nV:1\nC8|\nP:B\nD8|\nV:2\nP:A\nE,8|\nP:B\nF,8|\n")
    assert signs(score) == [(0, "section", "A"), (8, "section", "B")]


@pytest.mark.parametrize(
    ("decoration", "kind", "label"),
    [
        ("!D.C.!", "da_capo", ""),
        ("!dacapo!", "da_capo", ""),
        ("!D.C.alfine!", "da_capo", "al fine"),
        ("!D.C.alcoda!", "da_capo", "al coda"),
        ("!D.S.!", "dal_segno", ""),
        ("!D.S.alfine!", "dal_segno", "al fine"),
        ("!D.S.alcoda!", "dal_segno", "al coda"),
        ("!fine!", "fine", ""),
        ("!Fine!", "fine", ""),
        ("+fine+", "fine", ""),
        ("!dacoda!", "to_coda", ""),
    ],
)
def test_a_jump_is_made_at_the_end_of_its_bar(decoration: str, kind: str, label: str):
    for body in (f"C8|D4 {decoration}E4|F8|", f"C8|D4 E4{decoration}|F8|"):
        assert signs(tune(body)) == [(16, kind, label)]


def test_segno_and_coda_stand_where_they_are_written():
    assert signs(tune("C8|!segno!D8|!coda!E8|")) == [(8, "segno", ""), (16, "coda", "")]
    assert signs(tune("C8|SD8|OE8|")) == [(8, "segno", ""), (16, "coda", "")]


def test_of_two_coda_signs_the_first_says_where_to_leave():
    score = tune("C8|D8!coda!|E8!D.C.!|!coda!F8|]")
    assert signs(score)[:2] == [(16, "to_coda", ""), (24, "da_capo", "")]
    assert pitches(unfold(score)) == [60, 62, 64, 60, 62, 65]


def test_words_over_the_staff_are_no_jumps():
    assert signs(tune('C8"D.C."|"^Fine"D8"_D.S. al Coda"|')) == []


def test_a_letter_may_be_defined_to_mean_a_jump():
    assert signs(tune("C4 nD4|TE8|", header="U:n=!D.C.!\nM:4/4\nL:1/8\nU: T = !trill!\n")) == [(8, "da_capo", "")]
    assert signs(tune("SC8|", header="U:S=!slide!\nM:4/4\nL:1/8\n")) == []


@pytest.mark.parametrize(
    "text",
    [
        "P:A2B\nM:4/4\nL:1/8\nK:C\nP:A\n|:C8:|\nP:B\nD4[P:C]E4|]",
        "M:4/4\nL:1/8\nK:C\nC8|!segno!D8!fine!|E8!dacoda!|F8!D.S.alcoda!|!coda!G8|]",
        "M:4/4\nL:1/8\nK:C\nC8|1 D8!D.C.!:|2 E8!D.S.alfine!||",
        "M:4/4\nL:1/8\nK:C\nV:1\n[P:A]C8|[P:B]D8!D.C.!|\nV:2\nE8|F8|",
    ],
)
def test_parts_and_jumps_read_back(text: str):
    score = read_text(f"X:1\n{text}\n")[0]
    assert reads_back(score)


def test_long_names_of_ordered_sections_become_letters():
    score = Score(
        (Part(notes=notes_array([(0, 1920, 60, 80), (1920, 1920, 62, 80)])),),
        signs=(Sign(0, "section", label="verse"), Sign(1920, "section", label="chorus")),
        order=("verse", "chorus", "verse"),
    )
    again = read_text(to_text(score))[0]
    assert again.order == ("A", "B", "A")
    assert unfold(again) == unfold(score)


# --- fields -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "fifths", "mode"),
    [
        ("H", 5, "major"),
        ("Es", -3, "major"),
        ("As", -4, "major"),
        ("Hm", 2, "minor"),
        ("B", 5, "major"),
        ("Bn", 2, "minor"),
        ("EM", 1, "minor"),
        ("EMAJ", 4, "major"),
    ],
)
def test_odd_names_of_keys_are_read(key: str, fifths: int, mode: str):
    assert tune("C", key=key).keys == (Key(0, fifths, mode),)


def test_a_field_may_go_on_in_the_next_line():
    score = read_text("X:1\nT:A very\n+:long title\nM:4/4\nL:1/8\nK:C\nC4\nw: la\n+: la la\nD4|\n")[0]
    assert (score.title, pitches(score)) == ("A very long title", [60, 62])


def test_fields_and_lines_without_notes_are_passed_over():
    plain = tune("CDEF GABc|cBAG FEDC|")
    score = tune(
        "m:~n3 = n{o}n{m}n\nCD[r:a remark]EF GABc|\ns: ^ * !f!\nw: la_ la-la * |\n[I:linebreak $]cBAG[N:note] FEDC|\n"
        "%%MIDI drum dzdz 35 38 100 50\n%%MIDI drumon\n%%begintext\nABc are letters|\n%%endtext\nW: words\nr:remark",
        header="I:abc-charset utf-8\nM:4/4\nL:1/8\nm:~G2={A}G{F}G\nR:reel\nZ:someone\n%%score (1 2)\n",
    )
    assert score.parts == plain.parts


@pytest.mark.parametrize("body", ["C8|[1D8:|[2E8||", "C8|1D8:|2E8||", "C8|\\\n1 D8:|\n2E8||"])
def test_endings_are_found_however_they_are_written(body: str):
    assert [sign.passes for sign in tune(body).signs if sign.kind == "ending"] == [(1,), (2,)]


def test_a_number_that_begins_a_line_inside_a_bar_is_no_ending():
    assert signs(tune("C4\n2 D4|")) == []


def test_what_a_forgotten_bracket_left_open_is_closed_by_a_tuplet():
    assert (onsets(score := tune("[e2c2(3ABc|")), pitches(score)) == (
        [0, 0, 2, pytest.approx(8 / 3, 0.01), pytest.approx(10 / 3, 0.01)],
        [72, 76, 69, 71, 72],
    )


def test_a_line_break_of_old_may_stand_anywhere_in_a_line():
    assert pitches(tune("C8|!D8|E8!|F8|")) == [60, 62, 64, 65]


def test_spacers_and_invisible_rests_are_read_as_what_they_last():
    assert onsets(tune("C2 y x2 D2 y4 E2|X|F8|")) == [0, 4, 6, 16]


@pytest.mark.parametrize(("written", "pitch"), [("^/F", 66), ("^1/2F", 66), ("^3/2F", 67), ("_1/4F", 65), ("_/F", 64)])
def test_microtones_are_rounded(written: str, pitch: int):
    assert pitches(tune(written)) == [pitch]


def test_accidentals_reach_as_far_as_the_file_says():
    body = "^F2 f2 F4|"
    assert pitches(tune(body)) == [66, 78, 66]
    assert pitches(tune(body, header="I:propagate-accidentals octave\nM:4/4\nL:1/8\n")) == [66, 77, 66]
    assert pitches(tune(body, header="%%propagate-accidentals not\nM:4/4\nL:1/8\n")) == [66, 77, 65]
    assert pitches(tune(body, header="%%MIDI nobarlines\nM:4/4\nL:1/8\n")) == [66, 77, 65]


def test_an_overlay_may_go_back_several_bars():
    score = tune("g4 f4 | e6 e2 && (d8 | c6) c2 | C8|")
    assert score.bars.tolist() == [0, 1920, 3840]
    assert list(zip(onsets(score), pitches(score), strict=True)) == [
        *[(0, 74), (0, 79), (4, 77), (8, 72), (8, 76), (14, 72), (14, 76), (16, 60)]
    ]


def test_overlays_need_not_share_accidentals():
    score = tune("_B8 & B4 c4|")
    assert pitches(score) == [70, 71, 72]
    assert to_text(score).endswith("_B8 & =B4 c4 |\n")  # for readers who share them
    assert reads_back(score)


# --- letters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("Caf\\'e", "Café"),
        ("Caf&eacute;", "Café"),
        ("Caf\\u00e9", "Café"),
        ('\\`a \\^o \\"u \\~n \\cc \\vs \\AA \\/o \\ae \\ss', "à ô ü ñ ç š Å ø æ ß"),
        ("100\\% \\& more", "100% & more"),
        ("Rock & Roll; R&B", "Rock & Roll; R&B"),
        ("&#233;&nosuch;", "é&nosuch;"),
        ("a\\\\'e", "a\\'e"),
    ],
)
def test_titles_may_spell_their_accents(written: str, title: str):
    score = read_text(f"X:1\nT:{written}\nK:C\nC8|\n")[0]
    assert score.title == title
    assert read_text(to_text(score))[0].title == title


@pytest.mark.parametrize(
    "data",
    [
        "X:1\r\nT:Seán\r\nK:C\r\nC|\r\n".encode("latin-1"),
        "\ufeffX:1\nT:Seán\nK:C\nC|\n".encode(),
        "%abc-2.1\rX:1\rT:Seán\rK:C\rC|\r".encode(),
        "X:1\nT:Seán\nK:C\nC|\n".encode("utf-16"),
    ],
)
def test_files_are_read_in_their_letters_and_line_ends(data: bytes, tmp_path: Path):
    (tmp_path / "a.abc").write_bytes(data)
    assert [score.title for score in read(tmp_path / "a.abc")] == ["Seán"]


def test_a_charset_that_the_file_names_is_used_where_it_is_not_utf_8():
    assert decode_text("I:abc-charset iso-8859-2\nT:Dvořák\n".encode("iso-8859-2")).endswith("Dvořák\n")


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("X:1\nP:" + "(" * 9 + "A9" + ")9" * 9 + "\nK:C\nC\n", r":2: P:.* more than 1,000 sections"),
        ("X:1\nP:A999999\nK:C\nP:A\nC\n", r":2: P:A999999 plays more than 1,000 sections"),
        ("X:1\nP:" + "A" * 1001 + "\nK:C\nC\n", r":2: P:A* plays more than 1,000 sections"),
        ("X:1\nK:C\nC\nZ1001\n", r":4: Z1001: a rest of more than 1,000 bars"),
        ("X:1\nM:128/1\nK:C\nC\n" + "Z1000\n" * 5, r":\d+: the tune is too long"),
        ("X:1\nK:C\n" + "C99999" * 2000 + "\n", r":3: the tune is too long"),
        ("X:1\nK:C\n{C,,,,,,}C\n", r":3: a pitch of -\d+ is out of the MIDI range"),
        ("X:1\nK:C\n" + "".join(f"V:{i}\nC\n" for i in range(65)), r":\d+: more than 64 voices"),
        ("X:1\nK:C\nC|17 D\n", r":3: an ending for pass 17"),
        ("X:1\nK:C\n{g/0}C/0\n", r":3: a note length with denominator 0"),
        ("X:1\nK:C\n" + "C" * 200_001 + "\n", r":3: a line of 200,001 characters"),
    ],
)
def test_what_is_too_much_is_refused_in_one_line_that_says_where(text: str, what: str):
    start = time.process_time()
    with pytest.raises(FormatError, match="^some.abc" + what) as caught:
        read_text(text, "some.abc")
    assert "\n" not in str(caught.value)
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "body",
    [
        "(99:99:999C D E|",
        "C" + ">" * 1000 + "D|",
        "C" + "/" * 1000 + "|",
        "C&&&&&&&&D|",
        "U:n=" + "n" * 1000 + "\nnC|",
        "(0ABC|",
    ],
)
def test_what_is_odd_does_no_harm(body: str):
    assert tune(body).note_count >= 1


def test_macros_can_not_explode():
    bomb = "".join(f"m:{a}={b * 50}\n" for a, b in ("ab", "bc", "cd", "de"))
    assert tune("abc|", header=bomb + "M:4/4\nL:1/8\n").note_count == 3


def test_a_refusal_names_the_line_in_the_file():
    found = read_tunes("X:1\nK:C\nC|\n\nX:2\nK:C\nC|\n[CE|\n", "file.abc")
    assert isinstance(found[0], Score)
    assert re.match(r"file\.abc:8: a barline inside a chord; close", str(found[1]))


@pytest.mark.parametrize(
    "line",
    [
        '[""' * 30_000,
        "[K:" * 30_000,
        "!a" * 30_000,
        "{a" * 30_000,
        '"C' + "mM" * 30_000 + '!"C',
        "SC" * 30_000,
        "[P:A]C" * 20_000,
        "P:" + "(" * 30_000 + "!",
        "\n" * 100_000 + "C|",
        ":" * 30_000,
        "T:" + "&a" * 30_000,
    ],
)
def test_no_line_takes_long(line: str):
    start = time.process_time()
    read_tunes(f"X:1\nP:{'(' * 200}!\nK:C\n{line}C\n")
    assert time.process_time() - start < 3


# --- collections ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tunes", "refused", "step"),
    [
        ("ryansMammoth", 1059, 0, 1),
        ("oneills1850", 2009, 0, 1),
        ("airdsAirs", 1180, 0, 1),
        ("essenFolksong", 8514, 0, 8),
        ("josquin", 29, 0, 1),
        ("miscFolk", 185, 3, 1),  # lines of a broken mail, cut within chords
    ],
)
def test_every_tune_of_a_collection_reads_and_reads_back(name: str, tunes: int, refused: int, step: int):
    music21 = pytest.importorskip("music21")
    found: list[Score | FormatError] = []
    for path in sorted((Path(music21.__file__).parent / "corpus" / name).glob("*.abc")):
        found += read_tunes(decode_text(path.read_bytes()), path.name)
    scores = [score for score in found if isinstance(score, Score)]
    assert (len(found), len(found) - len(scores)) == (tunes, refused)
    for score in scores[::step]:
        assert reads_back(score), score.title


@pytest.mark.parametrize(("end", "times"), [(":|", 2), ("::|", 3), (":::|", 4)])
def test_as_many_colons_as_stand_at_a_repeat_so_often_it_goes_back(end: str, times: int):
    score = read_text(f"X:1\nL:1/4\nM:4/4\nK:C\n|:CDEF{end}GABc|]\n")[0]
    assert len(unfold(score).bars) == times + 1
    assert read_text(to_text(score))[0].signs == score.signs


@pytest.mark.parametrize(
    ("music", "why"),
    [
        ("C" * 100_001, "characters"),
        ("\n".join(["CDEF GABc " * 5000] * 6), "notes"),
        ("M:1/64\n" + "Z1000|" * 30, "bars"),
        ("\n".join(["C|" * 20_001]), "bars"),
        ("{" + "c" * 90_000 + "}C\n{" + "c" * 90_000 + "}C\n{" + "c" * 90_000 + "}C", "notes"),
    ],
)
def test_what_would_take_all_memory_is_refused(music: str, why: str):
    with pytest.raises(FormatError, match=rf"^wild.abc:\d+: .*{why}"):
        read_text(f"X:1\nM:4/4\nL:1/8\nK:C\n{music}\n", "wild.abc")


@pytest.mark.parametrize("tempo", ["1/4=12000", "99999999999999", "1/4=0"])
def test_a_tempo_out_of_range_is_refused_and_not_cut(tempo: str):
    with pytest.raises(FormatError, match="no tempo"):
        read_text(f"X:1\nQ:{tempo}\nK:C\nCDEF|\n")
