"""Memory that is not given back between two steps of training.

A step on a processor takes some hundred megabytes for what the way back will need, and lets them go. The C library of
Linux then returns them to the system, which hands them out again at the next step page by page, each wiped before: a
tenth of a step's time goes there. `held` tells it to keep them; what a run needs at most it needs either way.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRIM, MAP = -1, -3
"""Of mallopt(3): how much free memory the heap may have at its end; from which size on memory is not of the heap."""

EVERYTHING = 2**31 - 1
LARGEST = 2**25
"""What glibc itself comes to in a process that asks for much; it then lets twice that lie free."""


@contextmanager
def held() -> Iterator[None]:
    """Within, the process keeps what memory it frees; afterwards it gives it back. Without glibc nothing happens."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):
        yield
        return
    library.mallopt(MAP, LARGEST)
    library.mallopt(TRIM, EVERYTHING)
    try:
        yield
    finally:
        library.mallopt(TRIM, 2 * LARGEST)
        library.malloc_trim(0)
