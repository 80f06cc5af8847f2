"""One thread for linear algebra: with several the order of its sums, and so the last digits, hang on the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS and OpenMP to one thread; as ``@one_thread()`` for the length of a function."""
    import scipy.linalg  # noqa: F401 - only a library that is loaded can be held
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Hold torch to one thread; its own copy of BLAS does not listen to anybody else."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
