"""The quick way from a score to `bars` steps gives what the plain one gives: encode_held(quantise(score))."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

from musicgen.corpus import find_source
from musicgen.errors import MusicgenError, TokenError
from musicgen.formats import read_scores
from musicgen.score import Key, Metre, Part, Score, Tempo, notes_array, unfold
from musicgen.tokens import BarsTokenizer
from musicgen.tokens.bars_rows import LATEST, encode_rows
from musicgen.tokens.bars_vocabulary import UNIT

DATA = Path(__file__).resolve().parents[2] / "data"
TOKENIZER = BarsTokenizer()


def plainly(score: Score) -> np.ndarray:
    return TOKENIZER.encode_held(TOKENIZER.quantise(score))


def random_score(generator: np.random.Generator) -> Score:
    """Nothing a musician would write: any number of parts, odd metres, long bars, unisons, events past the end."""
    parts = []
    one_program = generator.random() < 0.3
    for _ in range(generator.integers(0, 12)):
        longest = int(generator.choice([500, 5000, 40_000]))
        notes = notes_array(
            (
                int(generator.integers(0, longest)),
                int(generator.integers(1, int(generator.choice([30, 600, 60_000])))),
                int(generator.integers(0, 128)) if generator.random() < 0.5 else 60,
                int(generator.integers(1, 128)),
            )
            for _ in range(generator.integers(0, 40))
        )
        drum = bool(generator.random() < 0.2)
        parts.append(Part("", 0 if drum else 40 if one_program else int(generator.integers(0, 128)), drum, notes))
    last = max([part.end for part in parts], default=0)

    def onsets(count: int) -> list[int]:
        return sorted({0, *generator.integers(0, max(last, 2), count).tolist()})

    return Score(
        parts=tuple(parts),
        metres=tuple(
            Metre(at, int(generator.integers(1, 40)), int(generator.choice([1, 2, 4, 8, 16, 32, 64])))
            for at in onsets(int(generator.integers(0, 4)))
        ),
        keys=tuple(
            Key(at, int(generator.integers(-7, 8)), str(generator.choice(["major", "dorian"]))) for at in onsets(2)
        ),
        tempos=tuple(Tempo(at, float(generator.uniform(5, 600))) for at in onsets(int(generator.integers(0, 6)))),
        bars=None if generator.random() < 0.6 or not last else np.array([at for at in onsets(20) if at < last]),
        length=None if generator.random() < 0.5 else last + int(generator.integers(1, 3000)),
    )


def test_the_bundled_music_is_encoded_as_if_plainly():
    for path in find_source(DATA).scores:
        if path.suffix in (".mid", ".abc"):
            for score in read_scores(path):
                assert np.array_equal(encode_rows(score), plainly(score)), score.title


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nottingham", "freedoom-midi", "piano-midi-de", "orchestral-midi"])
def test_data_sets_are_encoded_as_if_plainly(shared_data, name, tmp_path):
    with tarfile.open(shared_data / f"{name}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    for path in find_source(tmp_path).scores[::12]:
        for score in read_scores(path):
            assert np.array_equal(encode_rows(score), plainly(score)), path


def test_random_scores_are_encoded_or_refused_as_if_plainly():
    encoded = 0
    for seed in range(400):
        score = random_score(np.random.default_rng(seed))
        refusal: MusicgenError | None = None
        try:
            expected = plainly(score)
        except MusicgenError as error:
            refusal = error
        if refusal is not None:
            with pytest.raises(type(refusal), match=re.escape(str(refusal))):
                encode_rows(score)
            continue
        assert np.array_equal(encode_rows(score), expected), seed
        encoded += 1
    assert encoded > 250


def test_a_score_with_repeats_is_played_out_first():
    score = read_scores(DATA / "irish" / "tunes.abc", as_written=True)[0]
    assert score.signs
    assert np.array_equal(TOKENIZER.encode(score), plainly(unfold(score)))


def test_what_has_no_room_in_a_row_is_refused():
    far = Score(parts=(Part(notes=notes_array([((LATEST + 1) * UNIT, 480, 60, 80)])),), metres=(Metre(0, 8, 4),))
    with pytest.raises(TokenError, match="too far"):
        encode_rows(far)
