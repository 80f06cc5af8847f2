"""What is read of a text does not depend on what else is in the batch, whatever the file type."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from toolkit.contract.lens import Lens
from toolkit.corpora.goemotions import read_goemotions
from toolkit.inference.engine import Engine, Reading

LONG = "I waited in the rain and nobody came, so I went home and was sad about it for days. " * 6


@pytest.fixture(scope="module")
def engine(default_model_path: Path) -> Iterator[Engine]:  # noqa: ARG001
    """The default model in BF16, also on processors whose default is another file type."""
    from toolkit.inference.store import ensure, load_shipped

    loaded = Engine(ensure(f"{load_shipped().default}-bf16"))
    yield loaded
    loaded.close()


def same(some: Iterable[Reading], others: Iterable[Reading]) -> bool:
    """Whether all readings are the same, bit for bit."""
    return all(np.array_equal(one.posterior, other.posterior) for one, other in zip(some, others, strict=True))


def shuffled(engine: Engine, texts: list[str], lens: Lens = Lens.AUTHOR) -> list[Reading]:
    """The readings in the order of ``texts``, read in another order, so that all have other neighbours."""
    order = list(range(len(texts)))
    random.Random(7).shuffle(order)
    found = dict(zip(order, engine.read([texts[i] for i in order], lens), strict=True))
    return [found[i] for i in range(len(texts))]


def check(engine: Engine, texts: list[str], lens: Lens = Lens.AUTHOR) -> list[Reading]:
    """Together, in another order, and (the first) alone."""
    together = list(engine.read(texts, lens))
    assert same(together, shuffled(engine, texts, lens))
    alone = [next(engine.read([text], lens)) for text in texts[:20]]
    assert same(together[:20], alone)
    assert len({reading.posterior.tobytes() for reading in together}) > len(texts) // 2
    return together


def test_a_reading_does_not_depend_on_its_neighbours(engine: Engine, texts: list[str]) -> None:
    some = [*texts[:30], LONG, *texts[30:60]]
    together = check(engine, some)
    explained = list(engine.explain(some, Lens.AUTHOR, lambda posterior: int(posterior.argmax())))
    assert same(together, (found.reading for found in explained))


@pytest.mark.parametrize("file_type", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("lens", Lens)
def test_whatever_the_file_type(
    shallow_path: Callable[..., Path], texts: list[str], file_type: str, lens: Lens
) -> None:
    engine = Engine(shallow_path(file_type), threads=1)
    try:
        check(engine, [*texts[:40], LONG, *texts[40:60]], lens)
    finally:
        engine.close()


@pytest.mark.scale
@pytest.mark.skipif("EMOTION_LRM_CORPORA" not in os.environ, reason="EMOTION_LRM_CORPORA names no corpora folder")
def test_a_thousand_comments_keep_their_label(engine: Engine) -> None:
    comments = [row.text for row in read_goemotions("dev")][:1000]
    together, again = list(engine.read(comments, Lens.AUTHOR)), shuffled(engine, comments)
    assert same(together, again)
