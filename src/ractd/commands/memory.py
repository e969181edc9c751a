"""What becomes of the memory of tensors that are no longer needed."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
LARGE, KEPT = 32 * 2**20, 512 * 2**20
"""Bytes: what is mapped for one tensor alone (glibc takes no more), and how much the end of the heap may hold unused."""


def keep_freed_memory() -> None:
    """Let this process keep what it frees for its next tensors, where the C library is glibc; else do nothing.

    By default the heap shrinks as soon as some megabytes at its end are free, and the system clears every page of the next
    intermediate results again: nearly half of the time in which a planner's student is trained. What a process does with its
    memory is its own to decide, so the command line calls this and no function of the library does.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, LARGE)
            mallopt(M_TRIM_THRESHOLD, KEPT)
