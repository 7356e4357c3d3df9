"""Whether the C library gives large blocks back to the system when they are freed.

By default glibc does: a large result is fresh memory at every call, which the kernel clears page by
page. Who makes more results pays more for it, whatever it computes; with everything kept, kernels
alone are compared.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt
KEPT = "kept"


def keep_freed_memory() -> None:
    """Let this process keep all memory that it frees, until it ends.

    Raises:
        ValueError: the C library is not glibc.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        raise ValueError("memory is kept by glibc's mallopt, which this C library does not have")
    # No block of its own for a large tensor, and nothing handed back from the top of the heap.
    if not (libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, -1)):
        raise ValueError("glibc refused to keep freed memory")
