"""Memory held between the steps of training."""

import ctypes
import mmap
import subprocess
import sys

import pytest

from musicgen.training.memory import held

FAULTS = """
import contextlib, resource, sys
import torch
from musicgen.training.memory import held
with held() if sys.argv[1] == "held" else contextlib.nullcontext():
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        taken = [torch.zeros(2**20) for _ in range(40)]  # 160 MB
        del taken
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""How many pages the system hands out while a process takes and lets go for the second time what it had once."""


GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


@pytest.mark.skipif(not GLIBC or mmap.PAGESIZE != 4096, reason="another C library is asked nothing; pages are counted")
def test_memory_let_go_within_is_there_again_without_the_system():
    """Each in a process of its own, for what the C library does depends on what it was asked before."""
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], check=True, stdout=subprocess.PIPE, timeout=120).stdout)
        for how in ("held", "plain")
    )
    assert given_back > 20000
    assert kept < given_back / 4


def test_an_error_within_gets_out():
    with pytest.raises(ValueError, match="something"), held():
        raise ValueError("something")
