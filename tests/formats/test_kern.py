"""Humdrum kern: sections and their order, grace notes, and what music21 drops."""

from __future__ import annotations

import tarfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from musicgen.errors import FormatError
from musicgen.formats.musicxml import read, write
from musicgen.score import Part, Score, unfold


def kern(tmp_path: Path, *lines: str, columns: int = 1) -> Score:
    path = tmp_path / "piece.krn"
    wide = ["\t".join([line] * columns) if line[:1] in "*=" else line for line in ("**kern", *lines, "*-")]
    path.write_text("\n".join(wide) + "\n", encoding="utf-8")
    return read(path)[0]


def pitches(score: Score) -> list[int]:
    return pitches_of(score.parts[0])


def pitches_of(part: Part) -> list[int]:
    return part.notes["pitch"].tolist()


def test_sections_and_their_order_are_read_and_played(tmp_path):
    score = kern(tmp_path, "*>[A,A,B]", "*>norep[A,B]", "*>A", "*M4/4", "=1", "1c", "=2", "*>B", "1d", "==")
    assert score.order == ("A", "A", "B")
    assert [(s.onset, s.label) for s in score.signs if s.kind == "section"] == [(0, "A"), (1920, "B")]
    assert pitches(unfold(score)) == [60, 60, 62]


def test_first_and_second_endings_in_the_order_play_out(tmp_path):
    body = ("*>A", "=1", "1c", "*>A1", "=2", "1d", "*>A2", "=:|!", "1e", "==")
    score = kern(tmp_path, "*>[A,A1,A,A2]", "*M4/4", *body)
    assert pitches(unfold(score)) == [60, 62, 60, 64]


def test_repeat_signs_are_dropped_where_there_is_an_order(tmp_path):
    score = kern(tmp_path, "*>[A,A]", "*>A", "*M4/4", "=1", "1c", "=:|!")
    assert pitches(unfold(score)) == [60, 60]
    assert not [s for s in score.signs if s.kind.startswith("repeat")]


def test_repeat_signs_hold_where_there_is_no_order(tmp_path):
    score = kern(tmp_path, "*M4/4", "=1", "1c", "=:|!", "1d", "==")
    assert pitches(unfold(score)) == [60, 60, 62]


def test_an_order_of_sections_that_are_not_there_is_passed_over(tmp_path):
    score = kern(tmp_path, "*>[A,Z]", "*>A", "*M4/4", "=1", "1c", "=:|!", "1d", "==")
    assert score.order == ()
    assert pitches(unfold(score)) == [60, 60, 62]


def test_a_section_that_begins_inside_a_bar_keeps_its_place(tmp_path):
    score = kern(tmp_path, "*>[A,A,B]", "*>A", "*M4/4", "=1", "2c", "=:|!", "*>B", "2d", "=2", "1e", "==")
    assert [(s.onset, s.label) for s in score.signs if s.kind == "section"] == [(0, "A"), (960, "B")]


def test_sections_are_written_and_read_back(tmp_path):
    score = kern(tmp_path, "*Ipiano", "*>[A,A,B]", "*>A", "*M4/4", "=1", "1c", "=2", "*>B", "1d", "==")
    write(score, tmp_path / "written.musicxml")
    assert read(tmp_path / "written.musicxml")[0] == score


def test_an_order_that_signs_can_say_is_drawn_on_the_page_and_read_back_as_the_order(tmp_path):
    score = kern(
        tmp_path,
        *("*Ipiano", "*>[A,A,B,B1,B,B2,C]", "*M4/4", "*>A", "=1", "1c", "=2", "*>B", "1d", "=3", "*>B1", "1e", "=4"),
        *("*>B2", "1f", "=5", "*>C", "1g", "=="),
    )
    write(score, tmp_path / "drawn.musicxml")
    root = ElementTree.parse(tmp_path / "drawn.musicxml").getroot()
    assert [r.get("direction") for r in root.iter("repeat")] == ["backward", "forward", "backward"]
    assert [e.get("number") for e in root.iter("ending") if e.get("type") == "start"] == ["1", "2"]
    assert read(tmp_path / "drawn.musicxml")[0] == score
    plain = (tmp_path / "drawn.musicxml").read_text().replace("<software>musicgen", "<software>another")
    (tmp_path / "drawn.musicxml").write_text(plain)
    assert pitches(unfold(read(tmp_path / "drawn.musicxml")[0])) == pitches(unfold(score))


def test_an_order_that_no_signs_can_say_is_not_drawn(tmp_path):
    score = kern(tmp_path, "*Ipiano", "*>[A,B,A]", "*M4/4", "*>A", "=1", "1c", "=2", "*>B", "1d", "==")
    write(score, tmp_path / "plain.musicxml")
    assert "<repeat" not in (tmp_path / "plain.musicxml").read_text()
    assert read(tmp_path / "plain.musicxml")[0] == score


def test_one_q_is_slashed_and_two_are_not(tmp_path):
    score = kern(tmp_path, "*M4/4", "=1", "8dq", "2c", "8eqq", "8fqq", "2c", "==")
    assert score.parts[0].graces.tolist() == [(0, 0, 62, True), (960, 0, 64, False), (960, 1, 65, False)]


def test_grace_notes_in_a_pickup_are_kept(tmp_path):
    score = kern(tmp_path, "*M4/4", "8c", "8dq", "8c", "=1", "1c", "==")
    assert score.parts[0].graces.tolist() == [(240, 0, 62, True)]
    assert score.pickup == 480


def test_what_takes_no_time_after_a_bar_without_a_number_is_kept(tmp_path):
    score = kern(tmp_path, "*M4/4", "*k[]", "=1", "1c", "=:|!", "*k[f#]", "*M3/4", "8dq", "2.c", "==")
    assert [(k.onset, k.fifths) for k in score.keys] == [(0, 0), (1920, 1)]
    assert [(m.onset, m.numerator) for m in score.metres] == [(0, 4), (1920, 3)]
    assert len(score.parts[0].graces) == 1


def test_an_appoggiatura_with_a_length_keeps_it(tmp_path):
    score = kern(tmp_path, "*M2/4", "=1", "4ddP", "4cc", "==")
    assert [n[:3] for n in score.parts[0].notes.tolist()] == [(0, 480, 74), (480, 480, 72)]


def test_an_empty_bar_after_the_last_barline_is_none(tmp_path):
    score = kern(tmp_path, "*M4/4", "=1", "1c", "=2", "1d", "==:|!", "*>Z")
    assert score.bars.tolist() == [0, 1920]
    assert score.length == 3840


def test_pitches_are_sounding_pitches_whatever_the_instrument(tmp_path):
    score = kern(tmp_path, "*Iclars", "*ITrd-1c-2", "*M4/4", "=1", "1c", "==")
    assert pitches(score) == [60]
    assert score.parts[0].program == 71


def test_a_part_has_its_printed_name_or_its_instruments(tmp_path):
    path = tmp_path / "names.krn"
    rows = (
        "**kern\t**kern\t**kern",
        "*Ivioln\t*Icello\t*Iclars",
        '*I"\t*I"Violoncello solo\t*',
        "4c\t4c\t4c",
        "*-\t*-\t*-",
    )
    path.write_text("\n".join(rows))
    score = read(path)[0]
    assert [(p.name, p.program) for p in score.parts] == [("Clarinet", 71), ("Violoncello solo", 42), ("Violin", 40)]


def test_names_of_the_older_kind_are_read_and_sing_together(tmp_path):
    path = tmp_path / "choir.krn"
    rows = ("**kern\t**kern", "*I:[BASSO]\t*I:[TENORE]", "4c\t4c", "*-\t*-")
    path.write_text("\n".join(rows))
    assert [(p.name, p.program) for p in read(path)[0].parts] == [("TENORE", 52), ("BASSO", 52)]


def test_two_staves_of_one_keyboard_part_share_a_name_and_are_one_part(tmp_path):
    path = tmp_path / "keys.krn"
    rows = ("**kern\t**kern", "*part1\t*part1", '*I"Klavier\t*', "4C\t4c", "*-\t*-")
    path.write_text("\n".join(rows))
    score = read(path)[0]
    assert [(p.name, pitches_of(p)) for p in score.parts] == [("Klavier", [48, 60])]


def test_voices_that_split_from_a_column_sound_together(tmp_path):
    path = tmp_path / "split.krn"
    path.write_text("**kern\n*M4/4\n=1\n*^\n1c\t2e\n.\t2f\n*v\t*v\n=2\n1c\n==\n*-\n")
    assert [n[:3] for n in read(path)[0].parts[0].notes.tolist()] == [
        (0, 1920, 60), (0, 960, 64), (960, 960, 65), (1920, 1920, 60),
    ]  # fmt: skip


def test_a_file_without_kern_is_refused(tmp_path):
    path = tmp_path / "words.krn"
    path.write_text("**text\nla\n*-\n")
    with pytest.raises(FormatError, match=r"words\.krn: no \*\*kern"):
        read(path)


def test_a_cell_that_is_no_note_is_refused_with_its_line(tmp_path):
    with pytest.raises(FormatError, match=r"piece\.krn:4: 'zz' is no note"):
        kern(tmp_path, "*M4/4", "4c", "zz", "4d")


def test_a_metre_of_too_many_beats_is_refused(tmp_path):
    with pytest.raises(FormatError, match="99999 beats"):
        kern(tmp_path, "*M99999/4", "4c")


def test_too_many_columns_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("musicgen.formats.kern_read.MAX_SPINES", 2)
    with pytest.raises(FormatError, match="3 columns"):
        kern(tmp_path, "*M4/4", "4c\t4c\t4c", columns=3)


def test_too_many_notes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("musicgen.formats.kern_read.MAX_NOTES", 1)
    with pytest.raises(FormatError, match="5 cells"):
        kern(tmp_path, *["4c"] * 5)


def test_the_rondo_alla_turca_changes_key_and_plays_out(shared_data, tmp_path):
    archive = shared_data / "mozart-sonatas-kern.tar.gz"
    if not archive.is_file():
        pytest.skip("the shared sonatas are not here")
    with tarfile.open(archive) as members:
        name = next(m for m in members.getnames() if m.endswith("sonata11-3.krn"))
        (tmp_path / "turca.krn").write_bytes(members.extractfile(name).read())
    score = read(tmp_path / "turca.krn")[0]
    assert [k.fifths for k in score.keys] == [0, 3, 0, 3]
    assert " ".join(score.order) == "A A B B C C D D E E F F G G H H I I1 I I2 J"
    assert len(score.parts[0].graces) > 50
    write(score, tmp_path / "turca.mxl")
    assert read(tmp_path / "turca.mxl")[0] == score
