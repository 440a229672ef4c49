"""Hearing: intervals and histograms of what sounded, the same in every key, whatever the tokenizer and the decoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musicgen.corpus import find_source
from musicgen.decoders import DECODERS
from musicgen.decoders.hearing import FADES, OLDEST, REACH, Ear, interval, seen_from
from musicgen.decoders.model import Model, ModelConfig
from musicgen.formats import read_score
from musicgen.formats.files import read_tunes
from musicgen.score import Score
from musicgen.tokens import TOKENIZERS, Tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::Warning:music21")

KINDS = {
    "abc": TOKENIZERS["abc"](),
    "bars": TOKENIZERS["bars"](),
    "performance": TOKENIZERS["performance"](),
    "grid": TOKENIZERS["grid"](),
    "grid without holds": TOKENIZERS["grid"](holds=False),
}


@pytest.fixture(scope="module")
def pieces(data) -> dict[str, np.ndarray]:
    """The steps of a real piece for each tokenizer."""
    chorale = read_score(next(p for p in find_source("music21:bach").scores if p.stem == "bwv66.6"))
    beethoven = read_score(data / "orchestra" / "beethoven-op21-3.mid")
    tune = next(t for t in read_tunes(data / "irish" / "tunes.abc") if isinstance(t, Score))
    scores = {"abc": tune, "bars": beethoven, "performance": beethoven}
    return {name: kind.encode(scores.get(name, chorale))[:700].astype(np.int64) for name, kind in KINDS.items()}


def tensor_of(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).to(torch.get_default_device())


def sizes(tokenizer: Tokenizer) -> list[int]:
    return [field.size for field in tokenizer.fields]


def told_apart(ages: np.ndarray) -> np.ndarray:
    """Silence counted on from OLDEST."""
    return np.where(ages < 0, OLDEST + np.minimum(-ages, OLDEST), np.minimum(ages, OLDEST))


def listen(tokenizer: Tokenizer, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lasts, ages, histograms) after each step, by the plain definition, one step after the other."""
    hearing = tokenizer.hearing
    fields = sorted(hearing.places)
    lines = len(fields) if hearing.lane_field is None else int(hearing.lanes.max()) + 2
    lasts, ages = np.zeros(lines, dtype=int), np.zeros(lines, dtype=int)
    fades = np.array(FADES)[:, None]
    histogram = np.zeros((len(FADES), hearing.octave))
    found: tuple[list, list, list] = ([], [], [])
    for step in steps.tolist():
        ages = ages + np.sign(ages)
        sounds = np.zeros(hearing.octave)
        for i, field in enumerate(fields):
            place = int(hearing.places[field][step[field]])
            if step[field] in hearing.rests and ages[i] >= 0:
                ages[i] = -1
            if place < 0 or (field in hearing.kinds and hearing.kinds[field][step[field]] >= hearing.struck):
                continue
            sounds[place % hearing.octave] += 1
            own = [i] if hearing.lane_field is None else [int(hearing.lanes[step[hearing.lane_field]]), lines - 1]
            for line in own:
                if not (hearing.sustained and lasts[line] == place + 1 and ages[line] > 0):
                    ages[line] = 1
                lasts[line] = place + 1
        histogram = fades * histogram + (1 - fades) * sounds
        for values, value in zip(found, (lasts.copy(), told_apart(ages), histogram), strict=True):
            values.append(value)
    return tuple(np.array(values) for values in found)  # type: ignore[return-value]


@pytest.mark.parametrize("name", KINDS)
def test_the_ear_hears_what_its_plain_definition_says(name, pieces):
    tokenizer, steps = KINDS[name], pieces[name]
    ear = Ear(tokenizer.hearing, sizes(tokenizer)).double()
    heard = ear(tensor_of(steps)[None], torch.zeros(1, ear.width, dtype=torch.float64))[0]
    for found, expected in zip(ear.split(heard), listen(tokenizer, steps), strict=True):
        np.testing.assert_allclose(found.cpu().numpy(), expected, rtol=0, atol=2e-6)
    assert (ear.split(heard)[0] > 0).any()


@pytest.mark.parametrize("name", KINDS)
def test_however_a_piece_is_cut_the_ear_hears_the_same(name, pieces):
    tokenizer, steps = KINDS[name], tensor_of(pieces[name])[None, :150]
    ear = Ear(tokenizer.hearing, sizes(tokenizer)).double()
    nothing = torch.zeros(1, ear.width, dtype=torch.float64)
    whole = ear(steps, nothing)
    state, found = nothing, []
    for length in (1, 7, 30, 1, 111):
        found.append(ear(steps[:, :length], state))
        state, steps = found[-1][:, -1], steps[:, length:]
    torch.testing.assert_close(torch.cat(found, 1), whole)


@pytest.mark.parametrize("name", KINDS)
def test_a_piece_that_begins_in_mid_row_is_heard_as_from_its_own_start(name, pieces):
    tokenizer, steps = KINDS[name], tensor_of(pieces[name])[None, :90]
    ear = Ear(tokenizer.hearing, sizes(tokenizer)).double()
    nothing = torch.zeros(1, ear.width, dtype=torch.float64)
    fresh = torch.zeros(1, 180, dtype=torch.bool)
    fresh[0, 90] = True
    twice = ear(torch.cat([steps, steps], 1), nothing, fresh)
    torch.testing.assert_close(twice[:, 90:], ear(steps, nothing))


def test_a_note_released_is_not_heard_again(pieces):
    """In clock time a note-off names a pitch too; only the onset counts as its sounding."""
    tokenizer = KINDS["performance"]
    ear = Ear(tokenizer.hearing, sizes(tokenizer))
    events = {label: i for i, label in enumerate(tokenizer.fields[0].labels)}
    steps = torch.tensor([[[events["on C4"]], [events["on E4"]], [events["off C4"]]]])
    lasts, ages, histograms = ear.split(ear(steps, torch.zeros(1, ear.width)))
    assert lasts[0, :, 0].tolist() == [61, 65, 65]
    assert ages[0, :, 0].tolist() == [1, 1, 2]
    assert histograms[0, 2, 0].sum() == 0


def test_a_rest_is_heard_as_silence_and_the_pitch_before_it_is_not_forgotten():
    tokenizer = TOKENIZERS["grid"](voices=1, holds=False)
    ear = Ear(tokenizer.hearing, sizes(tokenizer))
    values = {label: i for i, label in enumerate(tokenizer.fields[0].labels[:131])}
    steps = torch.tensor([[[values[name]] for name in ("C4", "C4", "rest", "rest", "C4", "C4")]])
    lasts, ages, _ = ear.split(ear(steps, torch.zeros(1, ear.width)))
    assert lasts[0, :, 0].tolist() == [61] * 6
    assert ages[0, :, 0].tolist() == [1, 2, OLDEST + 1, OLDEST + 2, 1, 2]


def test_an_interval_is_counted_from_below_and_nothing_is_no_interval():
    here, there = torch.tensor([61, 61, 61, 0, 127]), torch.tensor([61, 60, 63, 60, 1])
    assert interval(here, there).tolist() == [REACH + 1, REACH + 2, REACH - 1, 0, 2 * REACH + 1]


def test_a_histogram_is_seen_from_a_pitch():
    c_major = torch.zeros(1, 12)
    c_major[0, [0, 4, 7]] = 1.0
    assert seen_from(c_major, torch.tensor(1 + 64)).nonzero()[:, 0].tolist() == [0, 3, 8]  # from E: E, G, C
    assert not seen_from(c_major, torch.tensor(0)).any()


def hearing_model(decoder: str, tokenizer: Tokenizer) -> Model:
    torch.manual_seed(0)
    config = ModelConfig(decoder=decoder, dim=16, layers=2, heads=2, memory=32, dropout=0.0, hearing=True)
    return Model(config, sizes(tokenizer), [c.size for c in tokenizer.coordinates], tokenizer.hearing).eval()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_any_decoder_hears_any_tokenizer_and_chunks_make_no_difference(decoder, name, pieces):
    tokenizer = KINDS[name]
    model = hearing_model(decoder, tokenizer)
    steps = tensor_of(pieces[name])[None, :101]
    where = tensor_of(tokenizer.locate(pieces[name]).astype(np.int64))[None, :101]
    whole, _ = model(steps[:, :100], where[:, :100], model.initial_state(1))
    state, found = model.initial_state(1), []
    for at in range(0, 100, 23):
        outputs, state = model(steps[:, at : min(at + 23, 100)], where[:, at : min(at + 23, 100)], state)
        found.append(outputs)
    torch.testing.assert_close(torch.cat(found, 1), whole, rtol=1e-4, atol=1e-5)
    nll = model.head.nll(whole, steps[:, 1:], torch.ones(1, 100, dtype=torch.bool))
    assert nll.shape == (100, len(tokenizer.fields))
    assert torch.isfinite(nll).all()


@pytest.mark.parametrize("name", KINDS)
def test_a_piece_packed_behind_another_is_read_as_from_its_own_start(name, pieces):
    """Neither the decoder nor the ear, nor the interval to the note before, knows the piece that the row had before."""
    tokenizer = KINDS[name]
    model = hearing_model("lstm", tokenizer).double()
    steps = tensor_of(pieces[name])[None, :60]
    where = tensor_of(tokenizer.locate(pieces[name]).astype(np.int64))[None, :60]
    alone, state = model(steps, where, model.initial_state(1))
    fresh = torch.zeros(1, 107, dtype=torch.bool)
    fresh[0, 47] = True  # the piece breaks off after 47 steps, and begins again
    packed = torch.cat([steps[:, :47], steps], 1), torch.cat([where[:, :47], where], 1)
    outputs, end = model(*packed, model.initial_state(1), fresh)
    torch.testing.assert_close(outputs[:, 47:], alone)
    torch.testing.assert_close(end, state)


@pytest.mark.parametrize("name", ["grid", "grid without holds", "bars", "performance"])
def test_intervals_are_the_same_in_every_key(name, pieces):
    """What hearing adds to a step, and the scores it gives to intervals, do not change when the music is transposed."""
    tokenizer = KINDS[name]
    model = hearing_model("lstm", tokenizer)
    both = [pieces[name][:120], tokenizer.transpose(pieces[name][:120], 3)]
    added, scores = [], []
    for steps in map(tensor_of, both):
        heard = model.ear(steps[None], torch.zeros(1, model.ear.width))
        before = torch.cat([torch.zeros_like(heard[:, :1]), heard[:, :-1]], 1)
        added.append(model.embedding.intervals(steps[None], heard, before))
        field = model.ear.pitched[-1]
        known = [steps[None, 1:, i] for i in range(field)]
        relative = model.head.relative[str(field)]
        mixed, last = relative(heard[:, :-1], known)
        logits = relative.scores(mixed, last, torch.zeros(1, len(steps) - 1, model.head.sizes[field]))
        values = relative.values  # kinds follow each other: compare pitches that exist three semitones higher
        pitches = values[model.ear.table("kind", field)[values] == 0]
        scores.append((mixed, logits[..., pitches]))
    torch.testing.assert_close(added[0], added[1])
    torch.testing.assert_close(scores[0][0], scores[1][0])
    torch.testing.assert_close(scores[0][1][..., :-3], scores[1][1][..., 3:])


def test_a_model_that_is_to_hear_needs_to_know_what_a_pitch_is():
    with pytest.raises(ValueError, match="hearing"):
        Model(ModelConfig(hearing=True), [5, 5], [3])
