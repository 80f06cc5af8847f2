"""A shelf whose models are stand-ins in real worker processes, and readings with known numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit.apps.page.shelf import Shelf
from toolkit.inference import supervisor

STAND_IN = str(Path(__file__).parents[2] / "inference")


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.syspath_prepend(STAND_IN)
    monkeypatch.setattr(supervisor, "ENTRY", "stand_in:main")
    made = Shelf()
    yield made
    made.close()
