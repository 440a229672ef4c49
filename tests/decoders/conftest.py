"""Decoders are tested on the processor, or where MUSICGEN_TEST_DEVICE says: `MUSICGEN_TEST_DEVICE=cuda pytest ...`."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(autouse=True)
def device():
    """Where tensors lie that are not told otherwise."""
    name = os.environ.get("MUSICGEN_TEST_DEVICE", "cpu")
    with torch.device(name):
        yield torch.device(name)
