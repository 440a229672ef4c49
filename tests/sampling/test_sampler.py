"""What the sampler guarantees for any model: valid music, as many bars as asked, the same seed the same piece."""

from __future__ import annotations

import mido
import music21
import numpy as np
import pretty_midi
import pytest
import torch

from musicgen import workflows
from musicgen.checkpoint import build_model
from musicgen.config import check_config
from musicgen.errors import ConfigError
from musicgen.formats import read_score
from musicgen.sampling import SamplingConfig, sample
from musicgen.tokens.recall import recall

SMALL = {"decoder": "lstm", "dim": 16, "layers": 1, "dropout": 0.0}


def draw(loaded, count=2, bars=3, seed=0, **config):
    return sample(
        loaded.model,
        loaded.tokenizer,
        [loaded.tokenizer.cursor(bars) for _ in range(count)],
        np.array([loaded.tokenizer.start], dtype=np.int16),
        config=SamplingConfig(**config),
        seed=seed,
        most_bars=bars or 6,
    )


def test_pieces_have_exactly_the_bars_asked_for(orchestra):
    for drawn in draw(orchestra, count=4, bars=5):
        score = orchestra.tokenizer.decode(drawn.steps)
        assert len(score.bars) == 5
        assert score.note_count > 0 or drawn.steps[-1, 0] == 2


def test_pieces_end_by_themselves_within_the_most_bars(orchestra):
    for drawn in draw(orchestra, count=4, bars=None):
        assert len(orchestra.tokenizer.decode(drawn.steps).bars) <= 6


def test_streams_that_end_early_leave_the_others_unchanged(orchestra):
    """One of two streams is asked for one bar only; the other goes on and is valid to its end."""
    tokenizer = orchestra.tokenizer
    drawn = sample(
        orchestra.model,
        tokenizer,
        [tokenizer.cursor(1), tokenizer.cursor(6)],
        np.array([tokenizer.start], dtype=np.int16),
        config=SamplingConfig(),
        seed=3,
        most_bars=6,
    )
    assert [len(tokenizer.decode(d.steps).bars) for d in drawn] == [1, 6]


def test_the_same_seed_gives_the_same_files(orchestra, tmp_path):
    for name in ("a", "b"):
        workflows.sample_pieces(orchestra.folder, tmp_path / name, count=2, bars=3, seed=5)
    for one in sorted((tmp_path / "a").iterdir()):
        assert one.read_bytes() == (tmp_path / "b" / one.name).read_bytes()


@pytest.mark.parametrize("kind", ["rock", "tunes"])
def test_samples_are_read_by_mido_pretty_midi_and_music21(kind, request, tmp_path):
    loaded = request.getfixturevalue(kind)
    for piece in workflows.sample_pieces(loaded.folder, tmp_path, count=3, bars=4, seed=1):
        path = str(piece.files[0])
        if piece.notes:
            assert sum(len(i.notes) for i in pretty_midi.PrettyMIDI(path).instruments) > 0
            assert len(music21.converter.parse(path).flatten().notes) > 0
            assert read_score(path).note_count > 0
        assert any(m.type == "set_tempo" for m in mido.MidiFile(path).tracks[0])


def test_an_abc_model_writes_abc_beside_midi(tunes, tmp_path):
    (piece,) = workflows.sample_pieces(tunes.folder, tmp_path, count=1, bars=8)
    assert [path.suffix for path in piece.files] == [".mid", ".abc"]
    assert len(read_score(piece.files[1], as_written=True).bars) == 8


def test_a_prime_is_what_the_pieces_begin_with(orchestra, data, tmp_path):
    prime = data / "schubert-d759" / "scherzo.mid"
    pieces = workflows.sample_pieces(orchestra.folder, tmp_path, count=2, bars=11, prime=prime)
    begun = read_score(prime)
    for piece in pieces:
        score = read_score(piece.files[0])
        assert len(score.bars) == piece.bars == 11
        old = score.parts[0].notes[score.parts[0].notes["onset"] < begun.length]
        assert np.array_equal(old, begun.parts[0].notes)


def test_a_prime_longer_than_the_piece_is_refused(orchestra, data, tmp_path):
    with pytest.raises(ConfigError, match="alone has 9"):
        workflows.sample_pieces(orchestra.folder, tmp_path, bars=4, prime=data / "schubert-d759" / "scherzo.mid")


@pytest.mark.parametrize("name", ["abc", "bars", "grid", "performance"])
@pytest.mark.parametrize("options", [{}, {"hearing": True}, {"recall": True}, {"hearing": True, "recall": True}])
def test_a_piece_costs_in_one_call_what_it_cost_when_it_was_drawn(name, options):
    """Drawing step by step and reading the whole at once are the same model: its state, its ear, what it recalls and
    its coordinates.

    Where the grammar leaves a cursor one value the draw is free, so the call is told what the cursor allowed.
    """
    config = check_config({"tokenizer": {"name": name}, "model": {**SMALL, **options}}, "test")
    tokenizer = config.tokenizer.build()
    torch.manual_seed(0)
    model = build_model(config, tokenizer).eval()
    for name, weight in model.named_parameters():
        if "pointing" in name:  # zeros at first
            torch.nn.init.normal_(weight)
    start = np.array([tokenizer.start], dtype=np.int16)
    cursors = [tokenizer.cursor(2)]
    config = SamplingConfig(most_recalled=0, exact=True)
    drawn = sample(model, tokenizer, cursors, start, config=config, seed=4, most_bars=2)[0]
    steps = np.concatenate([start, drawn.steps]).astype(np.int64)
    cursor = tokenizer.cursor(2)
    allowed: list[list[np.ndarray]] = []
    coordinates = [cursor.coordinates()]
    for step in drawn.steps.tolist():
        allowed.append([cursor.allowed(step[:field]) for field in range(len(step))])
        cursor.advance(step)
        coordinates.append(cursor.coordinates())
    with torch.no_grad():
        told = np.array(coordinates[:-1])
        if model.recall is not None:
            told = np.concatenate([told, recall(steps[:-1], model.recall)], axis=1)
        places = torch.tensor(told, dtype=torch.long)[None]
        outputs, _ = model(torch.from_numpy(steps[None, :-1]), places, model.initial_state(1))
        context = model.head.context(outputs[0])
        goal = torch.from_numpy(steps[1:])
        nats = 0.0
        for field in range(goal.shape[1]):
            possible = torch.from_numpy(np.stack([masks[field] for masks in allowed]))
            logits = model.head.field(field, context, goal.unbind(-1)[:field])
            logits = logits.masked_fill(~possible, -torch.inf)
            nats += float(torch.nn.functional.cross_entropy(logits, goal[:, field], reduction="sum"))
    assert nats == pytest.approx(drawn.nats, rel=1e-4)
