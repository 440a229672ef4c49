"""How likely a model finds some steps of one piece: what is read, whole at once, beside what is drawn step by step."""

from __future__ import annotations

import numpy as np
import torch

from musicgen.decoders.model import Model
from musicgen.tokens import HIDDEN, Tokenizer
from musicgen.tokens.recall import recall

CHUNK = 256
"""Steps that are read in one call."""


@torch.no_grad()
def nats_of(model: Model, tokenizer: Tokenizer, steps: np.ndarray, wanted: np.ndarray, told: bool = False) -> float:
    """Nats of some steps of one piece, each given all that come before it, under the grammar's masks.

    steps: (T, F); wanted: (T,) bool, START not among them. told: the model is told how many bars are left.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    places = tokenizer.locate(steps)
    coordinates = places.astype(np.int64)
    if not told:
        coordinates[:, [i for i, coordinate in enumerate(tokenizer.coordinates) if coordinate.ahead]] = HIDDEN
    if model.recall is not None:
        coordinates = np.concatenate([coordinates, recall(steps, model.recall)], axis=1)
    read, beside = (torch.from_numpy(a.astype(np.int64))[None].to(device) for a in (steps, coordinates))
    counts = torch.from_numpy(wanted)[None].to(device)
    state, nats = model.initial_state(1), 0.0
    last = int(np.flatnonzero(wanted)[-1]) if wanted.any() else 0  # nothing after it need be read
    for at in range(0, last, CHUNK):
        stop = min(at + CHUNK, last)
        outputs, state = model(read[:, at:stop], beside[:, at:stop], state)
        counted = counts[:, at + 1 : stop + 1]
        if counted.any():
            found = tokenizer.masks(steps, places, at + 1, stop + 1)
            masks = {field: torch.from_numpy(mask)[None].to(device) for field, mask in found.items()}
            nats += float(model.head.nll(outputs, read[:, at + 1 : stop + 1], counted, masks).double().sum())
    model.train(was_training)
    return nats
