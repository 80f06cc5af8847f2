"""How windows are packed into passes, with the forward pass left out: order, room, flushes and a bounded look-ahead."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.contract.lens import Lens
from toolkit.inference.prompts import AHEAD, Prompt, PromptReader, Reading, Window

ROWS = 63
READING = Reading(np.zeros(0), 1.0)


class Packer(PromptReader):
    """A reader that notes what it is asked to evaluate; a window takes as many rows as it has tokens."""

    def __init__(self) -> None:
        branches: Any = {Lens.AUTHOR: SimpleNamespace(branches=range(3))}
        self._tries, self._rows, self._free = branches, ROWS, deque(range(62))
        self._exact, self.context, self.heads = True, Mock(row_by_row=False), Mock()
        self.packs: list[list[int]] = []

    def _rows_of(self, window: Window, lens: Lens) -> int:  # noqa: ARG002
        return len(window.tokens)

    def _evaluate(self, pack: list[Window], lens: Lens, keep: bool) -> list[Prompt]:  # noqa: ARG002
        self.packs.append([len(window.tokens) for window in pack])
        return [Prompt(window, READING, [], 0) for window in pack]


@given(st.lists(st.one_of(st.none(), st.integers(1, 90)), max_size=60))
def test_windows_come_back_in_order_each_once(sizes: list[int | None]) -> None:
    windows = [size and Window([0] * size, str(number)) for number, size in enumerate(sizes)]
    packer, found, taken = Packer(), list[Window](), list[Window | None]()
    for ready in packer.passes((taken.append(w) or w for w in windows), Lens.AUTHOR):
        found += [prompt.window for prompt in ready]
        waiting = [w for w in taken if w and not any(w is f for f in found)]
        assert sum(len(w.tokens) for w in waiting) < ROWS + AHEAD + 90
    assert [w.text for w in found] == [w.text for w in windows if w]
    assert all(sum(pack) <= ROWS or len(pack) == 1 for pack in packer.packs)
    assert all(packer.packs)


def test_a_none_lets_everything_go_that_waits() -> None:
    windows = [Window([0] * 20, "a"), Window([0] * 20, "b"), None, None, Window([0] * 20, "c")]
    passes = Packer().passes(iter(windows), Lens.AUTHOR)
    assert [[prompt.window.text for prompt in ready] for ready in passes] == [["a", "b"], [], ["c"]]


def test_a_short_window_overtakes_one_that_does_not_fit() -> None:
    packer = Packer()
    windows = [Window([0] * size, str(number)) for number, size in enumerate((40, 30, 20, 33))]
    texts = [[prompt.window.text for prompt in ready] for ready in packer.passes(iter(windows), Lens.AUTHOR)]
    assert packer.packs == [[40, 20], [30, 33]]
    assert texts == [["0"], ["1", "2", "3"]]


@pytest.mark.parametrize(
    ("ours", "exact", "rows"), [(True, True, 256), (False, True, 63), (False, False, 256), (True, False, 256)]
)
def test_passes_are_wide_only_where_nothing_depends_on_neighbours_then(ours: bool, exact: bool, rows: int) -> None:
    """On a GPU nobody asks for that."""
    packer = Packer()
    packer._rows, packer._exact, packer.context = 256, exact, Mock(row_by_row=ours)
    windows = (Window([0] * 9, str(number)) for number in range(100))
    assert sum(len(ready) for ready in packer.passes(windows, Lens.AUTHOR)) == 100
    most = rows // 9 if rows < 256 else 62 // 3  # sequences
    assert len(packer.packs[0]) == most


def test_of_a_wide_pass_the_oldest_windows_come_first() -> None:
    """Else answers would wait for one that was passed over, and their callers with them."""
    packer = Packer()
    packer._rows, packer._exact = 256, False
    packer.packs.clear()
    sizes = [20, 60, 21, 70, 22, 23, 80, 24, 90, 25]
    passes = packer.passes((Window([0] * size, str(n)) for n, size in enumerate([*sizes, *sizes])), Lens.AUTHOR)
    assert [prompt.window.text for prompt in next(passes)] == ["0", "1", "2", "3", "4"]
    assert packer.packs[0] == [20, 60, 21, 70, 22, 25, 24]
