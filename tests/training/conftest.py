"""A small corpus, and trainers over it that run in a moment."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch

from musicgen.checkpoint import build_model
from musicgen.config import check_config
from musicgen.corpus import Corpus, compile_corpus, find_source, split_pieces
from musicgen.training.loop import Trainer


@pytest.fixture(scope="session")
def corpus(data) -> Corpus:
    return compile_corpus(find_source(data / "freedoom"), check_config({}, "test").tokenizer.build())


@pytest.fixture(scope="session")
def trainer(corpus) -> Callable[..., Trainer]:
    """trainer("lstm", steps=12): a tiny model, with what training is told; `dropout` and `clock` besides."""

    def make(decoder="lstm", dropout=0.1, clock=None, **training) -> Trainer:
        settings = {"steps": 12, "streams": 3, "chunk": 16, "warmup": 2, "evaluate_every": 6, **training}
        model = {"decoder": decoder, "dim": 16, "layers": 1, "heads": 2, "memory": 16, "dropout": dropout}
        config = check_config({"model": model, "training": settings}, "test")
        torch.manual_seed(0)
        train, valid = split_pieces(corpus.pieces, 0.25)
        options = {} if clock is None else {"clock": clock}
        built = build_model(config, corpus.tokenizer)
        return Trainer(
            built,
            corpus,
            train,
            valid,
            config.training,
            torch.device(os.environ.get("MUSICGEN_TEST_DEVICE", "cpu")),
            **options,
        )

    return make
