"""Instruments: General MIDI names, and what a name or a program says of range, clef and family.

Scores name their instruments in English, Italian, German or French, in the singular or plural, with numbers and keys
("Corni in F", "Violino I"); this module finds the General MIDI program. It reads and writes no file.
Programs are 0..127 everywhere, pitches are MIDI numbers.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

FAMILIES = (
    "piano",
    "chromatic percussion",
    "organ",
    "guitar",
    "bass",
    "strings",
    "ensemble",
    "brass",
    "reed",
    "pipe",
    "synth lead",
    "synth pad",
    "synth effects",
    "ethnic",
    "percussive",
    "sound effects",
)
"""(16,) General MIDI's families, eight programs each."""

VOICE = 52
STRING_SECTIONS = (44, 45, 48, 49, 50, 51)
"""Programs that say only "strings" or how they are played: a name that says which strings knows better."""

# Longest pattern first: "corno inglese" before "corno", "bass clarinet" before "clarinet" before "bass".
_NAMES: tuple[tuple[str, int], ...] = (
    (r"corn[oi] ingles[ei]|english horns?|cors? anglais|englisch(es)? ?horn|eng hn", 69),
    (r"contrafagott[oi]|contrabassoons?|kontrafagotte?|contrebassons?|double bassoons?", 70),
    (r"clarin(et|ett[oi]|etten?|ette)s?|klarinetten?|clar?|bass? ?klarinetten?|kl", 71),
    (r"sopran(o)? ?sax(ophone?s?)?", 64),
    (r"alt(o)? ?sax(ophone?s?)?", 65),
    (r"tenor(e)? ?sax(ophone?s?)?", 66),
    (r"bari(ton|tone|tono)? ?sax(ophone?s?)?", 67),
    (r"sax(ophone?s?|ofon[oi])?", 65),
    (r"(flauto |petite )?(piccol[oi]s?|ottavin[oi]|petite flute|pikkolo(floten?)?)", 72),
    (r"recorders?|blockfloten?|flaut[oi] dolc[ei]|flutes? a bec", 74),
    (r"flutes?|flaut[oi]|(quer)?floten?|traverso|traversiere|fl", 73),
    (r"oboe[ns]?|oboi|hautbois|hoboen?|ob", 68),
    (r"bassoons?|fagott[oie]?|bassons?|dulcian|bsn|fg|fag", 70),
    (r"(french )?horns?|corn[oi]|horn(er)?|wald(horn|horner)|cors?|hn|cor", 60),
    (r"trumpets?|tromb[ae]|trompeten?|trompettes?|clarin[oi]|cornets?|flugelhorns?|tpts?|tr", 56),
    (r"trombones?|trombon[ei]|posaunen?|tbn", 57),
    (r"tubas?|tub[ae]|ophicleides?|euphoniums?|bombardon", 58),
    (r"timpan[ioy]|timp|pauken?|timbales|kettle ?drums?", 47),
    (r"glockenspiel|campanelli|carillon", 9),
    (r"xylophones?|xilofon[oi]|xylophon", 13),
    (r"marimba", 12),
    (r"vibraphones?|vibraphon", 11),
    (r"tubular bells|campane|rohrenglocken|chimes", 14),
    (r"celest[ae]|celesta", 8),
    (r"contra ?bb?ass[oie]?|contrabasses|kontrabass[e]?|kontrabasse|contrebasses?|double ?bass(es)?|violone|cb|kb", 43),
    (r"violon ?cell[oi]s?|violoncelles?|cell[oi]s?|celli|vcl?|vlc", 42),
    (r"viole|violas?|bratschen?|vla|va", 41),
    (r"violins?|violin[oie]|violinen|violons?|geigen?|fiddles?|vln?s?|vn", 40),
    (r"viol[as]? da gamba|gamben?", 42),
    (r"strings?|archi|streicher|cordes", 48),
    (r"harps?|arp[ae]|harfen?|harpes?", 46),
    (r"harpsichords?|cembal[oi]|clavecins?|clavicembal[oi]", 6),
    (r"organs?|organ[oi]|orgel|orgue", 19),
    (r"accordions?|akkordeon|fisarmonica", 21),
    (r"(grand |forte ?|hammer ?)?pianos?|piano ?fort[ei]|klavier|clavier|keyboards?|hammerklavier|fortepiano|pf", 0),
    (r"electric bass|bass guitars?|e bass", 33),
    (r"(electric|e) guitars?", 27),
    (r"guitars?|chitarr[ae]|gitarren?|guitares?|lutes?|lauten?|liuto", 24),
    (r"sopran[oie]?s?|mezzo ?soprano|cantus|superius|discantus|descant|treble|canto", VOICE),
    (r"contralt[oi]|altus|contratenor|countertenor", VOICE),
    (r"tenor[ei]?s?|quintus|sextus|bassus|bariton[oie]?s?|baritone?|vagans", VOICE),
    (r"voices?|vox|voce|voci|singstimme|gesang|chant|choir|chorus|coro|chor|choeur|solo voice", VOICE),
)
_PATTERNS = tuple((re.compile(rf"\b(?:{pattern})\b"), program) for pattern, program in _NAMES)
_SINGERS = re.compile(r"\b(sopran\w*|tenor\w*|cantus|superius|altus|bassus|contralt\w*|discantus|treble)\b")
# bass is a singer beside a soprano and a double bass beside a cello; French and English share "alto"
_EITHER = ((re.compile(r"\b(bass[oieu]?|basses|bassus|bas)\b"), 43), (re.compile(r"\baltos?|alti|alt\b"), 41))
_DRUMS = re.compile(
    r"\b(drums?( ?(set|kit))?|drumset|percussions?|perc|schlagzeug|batteri[ae]|batterie|cymbals?|piatti|becken|snare|"
    r"gran cassa|grosse trommel|bass drum|side drum|tambur[oi]|triangles?|triangolo|triangel|tambourine|tam ?tam)\b"
)


def plain_name(name: str) -> str:
    """Lower case, no accents, no punctuation: what the tables are written in."""
    letters = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode().lower()
    return " ".join(re.sub(r"[^a-z0-9]+", " ", letters).split())


def program_by_name(name: str, beside_singers: bool = False) -> int | None:
    """The General MIDI program of an instrument's name; None where the name says nothing.

    beside_singers: "Bass" and "Alto" are voices in such a score, strings in any other.
    """
    plain = plain_name(name)
    # the instrument that is named first is the one meant: "Violoncello e Basso"
    found = [(m.start(), -m.end(), program) for pattern, program in _PATTERNS if (m := pattern.search(plain))]
    found += [
        (m.start(), -m.end(), VOICE if beside_singers else program)
        for pattern, program in _EITHER
        if (m := pattern.search(plain))
    ]
    if not found:
        return None
    head = min(found)
    # but an adjective before its noun is not the instrument: "bass clarinet", "alto sax", "tenor trombone"
    if head[2] in (VOICE, 41, 43):
        nouns = [f for f in found if f[2] not in (VOICE, 41, 43) and f[0] - -head[1] <= 1]
        head = min(nouns, default=head)
    return head[2]


def is_drum_name(name: str) -> bool:
    """Whether a name means unpitched percussion."""
    return bool(_DRUMS.search(plain_name(name)))


def has_singers(names: Sequence[str]) -> bool:
    """Whether a list of part names has a soprano, a tenor and the like in it."""
    return any(_SINGERS.search(plain_name(name)) and "sax" not in name.lower() for name in names)


def choose_program(name: str, declared: Sequence[int] = (), beside_singers: bool = False) -> int:
    """The program for a part from its name and the programs (0..127) that its file declares, in order of trust.

    Files often declare a wrong one ("Corno" as English horn, every string desk as "strings"), so a declared program
    holds where it is of the family that the name says. A name that says nothing leaves the first declared, or piano.
    """
    named = program_by_name(name, beside_singers)
    if named is None:
        return declared[0] if declared else 0
    for program in declared:
        if program == named:
            return program
    for program in declared:
        specific = program not in STRING_SECTIONS or named in STRING_SECTIONS
        if family(program) == family(named) and specific and not 40 <= named <= 47:
            return program
    return named


def family(program: int) -> str:
    """General MIDI's family of a program, from FAMILIES."""
    return FAMILIES[program // 8]


def section_of(name: str, program: int, is_drum: bool = False, beside_singers: bool = False) -> str:
    """The section of an orchestra or choir that a part sits in, "" for none: what a bracket at the left holds together.

    The name says it, and where that says nothing the program.
    """
    if is_drum:
        return "percussion"
    named = program_by_name(name, beside_singers)
    program = program if named is None else named
    return next((section for section, programs in _SECTIONS.items() if program in programs), "")


_SECTIONS = {
    "voices": (52, 53, 54),
    "woodwind": range(64, 80),
    "brass": range(56, 64),
    "percussion": (*range(8, 16), 47, *range(112, 120)),
    "strings": (*range(40, 46), *range(48, 52)),
}

# Lowest and highest sounding pitch an orchestra's player is asked for; by program.
_RANGES = {
    0: (21, 108), 6: (29, 89), 8: (60, 108), 9: (79, 108), 11: (53, 89), 12: (45, 96), 13: (65, 108), 14: (60, 77),
    19: (24, 108), 21: (41, 93), 24: (40, 83), 32: (28, 67), 40: (55, 103), 41: (48, 91), 42: (36, 84), 43: (28, 67),
    46: (23, 104), 47: (36, 57), 52: (40, 84), 56: (52, 84), 57: (34, 77), 58: (26, 65), 60: (34, 77), 64: (56, 88),
    65: (49, 81), 66: (44, 76), 67: (36, 69), 68: (58, 93), 69: (52, 84), 70: (34, 77), 71: (50, 94), 72: (74, 108),
    73: (59, 98), 74: (60, 98),
}  # fmt: skip
_FAMILY_RANGES = {"piano": (21, 108), "bass": (28, 67), "guitar": (40, 88), "organ": (24, 108), "ensemble": (28, 103)}


def playing_range(program: int) -> tuple[int, int]:
    """(lowest, highest) sounding MIDI pitch of an instrument; 0..127 where it has no natural bounds."""
    return _RANGES.get(program) or _FAMILY_RANGES.get(family(program), (0, 127))


Clef = tuple[str, int, int]
"""A clef: sign, the line it sits on, counted from below, and its octave change."""

TREBLE, BASS, ALTO, TENOR = ("G", 2, 0), ("F", 4, 0), ("C", 3, 0), ("C", 4, 0)
TREBLE_BELOW = ("G", 2, -1)
"""Sounds an octave lower: guitars, and tenors who sing."""

_CLEFS: dict[int, tuple[Clef, ...]] = {
    **dict.fromkeys((*range(32, 40), 43), (("F", 4, -1), TREBLE)),
    **dict.fromkeys(range(24, 32), (TREBLE_BELOW, TREBLE, BASS)),
    **dict.fromkeys((42, 70), (BASS, TENOR, TREBLE)),
    **dict.fromkeys((47, 58, 67), (BASS, TREBLE)),
    **dict.fromkeys((40, 56, 60, 64, 65, 68, 69, 71, 73, 74), (TREBLE, BASS)),
    41: (ALTO, TREBLE, BASS),
    57: (BASS, TENOR, ALTO),
    72: (("G", 2, 1), TREBLE),
    8: (("G", 2, 1), TREBLE),
    9: (("G", 2, 2), ("G", 2, 1), TREBLE),
}
"""The clefs that an instrument's player reads, the usual one first; others read treble and bass."""
_LEDGERS_SAVED = 2.5
"""Ledger lines a note that another clef than the usual one must save."""


def clef_for(program: int, pitches: Iterable[int], name: str = "", lower_hand: bool = False) -> Clef:
    """The clef of a concert score for a staff with these MIDI pitches: of those its player reads the one that needs the
    fewest ledger lines, but the usual one unless another is clearly better.

    name: of the part, for singers. lower_hand: the lower of a keyboard player's staves, whose usual clef is the bass.
    """
    counts = Counter(int(pitch) for pitch in pitches)
    allowed, margin = _CLEFS.get(program, ()), _LEDGERS_SAVED * counts.total()
    if program in _VOICES:
        low = 2 * sum(count for pitch, count in counts.items() if pitch < 60) > counts.total()
        plain = plain_name(name)
        if _TENOR_VOICE.search(plain):
            allowed = (TREBLE_BELOW, BASS, TREBLE)
        else:
            allowed = (BASS, TREBLE) if low or _BASS_VOICE.search(plain) else (TREBLE, BASS)
    elif lower_hand:
        allowed = (BASS, TREBLE)
    elif not allowed:
        allowed, margin = (TREBLE, BASS), 0.0
    return min(allowed, key=lambda clef: _ledger_lines(counts, clef) + margin * (clef != allowed[0]))


_VOICES = (52, 53, 54)
_TENOR_VOICE = re.compile(r"\btenor")
_BASS_VOICE = re.compile(r"\b(bass|bariton)")


def _ledger_lines(counts: Counter[int], clef: Clef) -> int:
    """How many all notes need together; pitches between two letters count as the lower one."""
    sign, line, octave = clef
    lowest = {"G": 39, "C": 35, "F": 31}[sign] - 2 * (line - 1) + 7 * octave  # the lowest line, in letters from C of 0
    lines = 0
    for pitch, count in counts.items():
        letter = pitch // 12 * 7 + (0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 5, 6)[pitch % 12]
        lines += count * (max(lowest - letter, letter - lowest - 8, 0) // 2)
    return lines


GRAND_STAFF = frozenset((*range(0, 9), 10, *range(16, 22), 46))
"""Programs written on two staves: keyboards, organs, harp."""


_SHORT = {
    0: "Pno.", 19: "Org.", 40: "Vln.", 41: "Vla.", 42: "Vc.", 43: "Cb.", 46: "Hp.", 47: "Timp.", 56: "Tpt.", 57: "Tbn.",
    58: "Tba.", 60: "Hn.", 68: "Ob.", 69: "E.H.", 70: "Bsn.", 71: "Cl.", 72: "Picc.", 73: "Fl.",
}  # fmt: skip


def abbreviate(name: str, program: int | None = None) -> str:
    """A part's name for the systems after the first: "Violino I" -> "Vln. I", others by their first letters.

    program: the part's own; a name that would say another ("Alto", sung) keeps its letters.
    """
    words = name.split()
    if not words:
        return ""
    tail = [w for w in words[1:] if re.fullmatch(r"[IVX]+|\d+\.?|\([^)]*\)", w)]
    named = program_by_name(name)
    first = _SHORT.get(named) if named is not None and program in (None, named) else None
    if first is None:
        first = words[0] if len(words[0]) <= 4 else words[0][:3] + "."
    return " ".join([first, *tail])


# Where each key of the General MIDI drum set is drawn on a five-line staff (as if in treble clef), and its notehead.
DRUM_STAFF: dict[int, tuple[str, int, str]] = {
    35: ("E", 4, "normal"), 36: ("F", 4, "normal"), 37: ("C", 5, "x"), 38: ("C", 5, "normal"), 39: ("C", 5, "x"),
    40: ("C", 5, "normal"), 41: ("G", 4, "normal"), 42: ("G", 5, "x"), 43: ("A", 4, "normal"), 44: ("D", 4, "x"),
    45: ("B", 4, "normal"), 46: ("G", 5, "circle-x"), 47: ("B", 4, "normal"), 48: ("D", 5, "normal"),
    49: ("A", 5, "x"), 50: ("E", 5, "normal"), 51: ("F", 5, "x"), 52: ("B", 5, "x"), 53: ("F", 5, "diamond"),
    54: ("E", 5, "x"), 55: ("B", 5, "x"), 56: ("E", 5, "triangle"), 57: ("A", 5, "x"), 59: ("F", 5, "x"),
    80: ("A", 5, "triangle"), 81: ("A", 5, "triangle"),
}  # fmt: skip
