"""That texts are read and written together, counted in passes and rows; on a model too narrow to take any time."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from convert.gguf_file import TensorPlan, as_field, copied_fields, write_gguf
from convert.header import check_header
from toolkit.base import find_base_gguf, load_base
from toolkit.benchmark.growth import long_text
from toolkit.benchmark.machine import resident_bytes
from toolkit.contract.lens import Lens
from toolkit.errors import ModelError
from toolkit.inference import engine as engine_module
from toolkit.inference import writing
from toolkit.inference.engine import Engine
from toolkit.inference.native import NativeContext
from toolkit.inference.prompts import PASSES_AHEAD
from toolkit.inference.tuning import Tuning

WIDTH = 64  # one head, one layer
FEW_MEGABYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Pass:
    """A forward pass: where, over how many tokens, and behind how many of them logits were asked for."""

    context: NativeContext
    rows: int
    logits: int


def top(posterior: np.ndarray) -> int:
    return int(posterior.argmax())


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights under the vocabulary of the default base."""
    path = tmp_path_factory.mktemp("narrow") / "narrow.gguf"
    base, random = check_header(find_base_gguf(load_base("smollm2-135m"))), np.random.default_rng(0)
    sizes = {"embedding_length": WIDTH, "feed_forward_length": WIDTH, "rope.dimension_count": WIDTH}
    sizes |= {"block_count": 1, "attention.head_count": 1, "attention.head_count_kv": 1}
    kept = [t for t in base.tensors if t.name.startswith(("blk.0.", "token_embd", "output_norm"))]
    vocabulary = kept[0].shape[0]
    plans = [TensorPlan(t.name, "F32", tuple(n if n == vocabulary else WIDTH for n in t.shape)) for t in kept]
    fields = copied_fields(base) | {f"llama.{name}": as_field(size) for name, size in sizes.items()}
    write_gguf(path, "llama", fields, plans, lambda plan: [random.normal(0, 0.3, plan.shape).astype(np.float32)])
    return path


@pytest.fixture
def load(narrow: Path) -> Iterator[Callable[..., Engine]]:
    """A function (active) -> an engine that writes so many texts together."""
    engines: list[Engine] = []

    def make(active: int = 32) -> Engine:
        engines.append(Engine(narrow, threads=1, tuning=Tuning(active=active)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Pass]:
    """Every forward pass from here on."""
    found: list[Pass] = []
    decode = NativeContext.decode

    def noted(self: NativeContext) -> None:
        found.append(Pass(self, self._fill, int(self._wanted[: self._fill].sum())))
        decode(self)

    monkeypatch.setattr(NativeContext, "decode", noted)
    return found


def own_rows(engine: Engine, text: str, lens: Lens) -> int:
    """The tokens of a prompt behind its head, and of the paths to the branches of the labels."""
    frame = engine.frames[lens]
    paths = sum(len(branch.path) for branch in engine.tries[lens].branches)
    return len(engine.model.encode(text)) + len(frame.tail) + len(frame.prefill) + paths


def test_a_head_is_evaluated_once_and_every_prompt_once(
    load: Callable[..., Engine], passes: list[Pass], texts: list[str]
) -> None:
    engine, some = load(), texts[:100]
    for lens in (*Lens, *Lens):
        list(engine.read(some, lens))
    heads = [len(engine.frames[lens].head) for lens in Lens]
    prompts = sum(own_rows(engine, text, lens) for text in some for lens in Lens)
    assert sum(done.rows for done in passes) == sum(heads) + 2 * prompts
    assert sum(done.logits for done in passes) == 2 * len(some) * sum(len(engine.tries[lens].branches) for lens in Lens)
    assert [done.rows for done in passes if not done.logits] == heads
    full = [done.rows for done in passes if done.logits]
    assert np.mean(full) > 0.85 * engine.tuning.rows


def test_a_sequence_that_ends_makes_room_in_the_very_next_pass(
    load: Callable[..., Engine], passes: list[Pass], texts: list[str]
) -> None:
    engine, some = load(active=2), texts[:6]
    found = list(engine.explain(some, Lens.AUTHOR, top))
    written = [done for done in passes if done.context is engine.pen and done.logits]
    answers = [len(engine._writer._known_answer(each.label, Lens.AUTHOR)) for each in found]
    joined = [done.rows - done.logits for done in written if done.rows > done.logits]  # all but the last token of each
    assert written[0].rows == answers[0] + answers[1]
    assert joined[1:] == [answer - 1 for answer in answers[2:]]  # one by one, as they end at different times
    alone = [done.logits for done in written].index(1)
    last = max(number for number, done in enumerate(written) if done.rows > done.logits)
    assert last < alone  # two are at work until none is left that could join


def test_a_head_is_evaluated_once_for_all_that_is_written(
    load: Callable[..., Engine], passes: list[Pass], texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "next_token", lambda *_: -1)
    engine = load()
    for _ in range(2):
        list(engine.explain(texts[:40], Lens.AUTHOR, top))
    written = [done for done in passes if done.context is engine.pen]
    assert [done.rows for done in written if not done.logits] == [len(engine.frames[Lens.AUTHOR].head)]


def test_four_times_the_words_are_four_times_the_rows(
    load: Callable[..., Engine], passes: list[Pass], texts: list[str]
) -> None:
    engine = load()

    def rows(words: int) -> int:
        passes.clear()
        list(engine.read([long_text(texts, words)], Lens.AUTHOR))
        return sum(done.rows for done in passes if done.logits)

    assert rows(20_000) <= 4.2 * rows(5_000)


@pytest.mark.parametrize("mode", ["fast", "explain"])
def test_memory_does_not_grow_with_the_number_of_texts(
    load: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(writing, "next_token", lambda *_: -1)  # every answer ends at once
    engine, source = load(), itertools.cycle(["so sad", "what a day"])

    def memory_after(count: int) -> int:
        some = itertools.islice(source, count)
        for _ in engine.read(some, Lens.AUTHOR) if mode == "fast" else engine.explain(some, Lens.AUTHOR, top):
            pass
        return resident_bytes() or 0

    assert memory_after(150) + FEW_MEGABYTES > memory_after(1_350)


def test_an_endless_source_is_read_a_bounded_number_of_texts_ahead(load: Callable[..., Engine]) -> None:
    engine, taken = load(active=4), 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield f"text {taken % 10}"

    fewest = own_rows(engine, "text 1", Lens.AUTHOR)
    for done, _ in enumerate(itertools.islice(engine.explain(endless(), Lens.AUTHOR, top), 50)):
        assert taken - done <= (PASSES_AHEAD + 1) * engine.tuning.rows / fewest + 4 + 1


# Several readings at a time, and readings that fail


def test_readings_that_go_on_by_turns_keep_their_own_answers(load: Callable[..., Engine], texts: list[str]) -> None:
    engine = load(active=3)
    sides = ((texts[:9], Lens.AUTHOR), (texts[20:29], Lens.READER))
    alone = [[done.reading.posterior for done in engine.explain(some, lens, top)] for some, lens in sides]
    together = zip(*(engine.explain(some, lens, top) for some, lens in sides), strict=True)
    for number, pair in enumerate(together):
        for found, expected in zip(pair, alone, strict=True):
            assert np.array_equal(found.reading.posterior, expected[number])
            assert found.label == top(expected[number])
    assert engine._writer.places == 3


def test_a_reading_within_another_leaves_that_one_at_work(load: Callable[..., Engine], texts: list[str]) -> None:
    engine, found = load(active=2), list[int]()
    expected = [done.label for done in engine.explain(texts[:6], Lens.AUTHOR, top)]
    for done in engine.explain(texts[:6], Lens.AUTHOR, top):
        assert len(list(engine.explain(texts[6:9], Lens.AUTHOR, top))) == 3
        next(engine.explain(texts[9:15], Lens.AUTHOR, top))  # and is given up
        found.append(done.label)
    assert found == expected


def test_a_sequence_that_cannot_join_gives_its_place_back(
    load: Callable[..., Engine], texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(active=2)
    with monkeypatch.context() as broken:
        broken.setattr(NativeContext, "load", Mock(side_effect=ModelError("no room", "")))
        for _ in range(3):
            with pytest.raises(ModelError, match="no room"):
                list(engine.explain(texts[:4], Lens.AUTHOR, top))
    assert engine._writer.places == 2
    assert len(list(engine.explain(texts[:4], Lens.AUTHOR, top))) == 4


def test_windows_offer_whole_words_to_quote(load: Callable[..., Engine]) -> None:
    reader, size = load()._reader, 64
    reader.window_tokens = size
    text = "disappointedness unbelievably counterrevolutionary, " * 60
    windows = reader.split(text)
    whole = set(text.replace(",", " ").split())
    assert len(windows) > 5
    assert all(set(window.text.replace(",", " ").split()) <= whole for window in windows)
    assert sum(map(len, (window.text for window in windows))) > len(text)  # overlaps, less some words
    (one,) = {window.text for window in reader.split("x" * 2000)[1:-1]}
    assert one == ""  # a piece of a single word


def test_what_is_closed_or_forgotten_is_freed_once_and_says_so(narrow: Path, texts: list[str]) -> None:
    engine = Engine(narrow, threads=1)
    half_done = engine.explain(texts[:4], Lens.AUTHOR, top)
    next(half_done)
    engine.close()
    engine.close()
    half_done.close()
    with pytest.raises(ModelError, match="The model is closed"):
        next(engine.read(texts, Lens.AUTHOR))
    before = resident_bytes() or 0
    for _ in range(12):
        engine = Engine(narrow, threads=1)
        next(engine.read(texts, Lens.AUTHOR))  # and is left open
    del engine
    gc.collect()
    assert (resident_bytes() or 0) - before < 60_000_000


def test_an_engine_that_cannot_be_built_leaves_no_weights(narrow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[weakref.ref[Any]] = []

    def fail(model: Any, *_: object) -> None:
        loaded.append(weakref.ref(model))
        raise ModelError("no frame", "")

    monkeypatch.setattr(engine_module, "check_boundaries", fail)
    with pytest.raises(ModelError, match="no frame"):
        Engine(narrow, threads=1)
    gc.collect()
    assert loaded[0]() is None
