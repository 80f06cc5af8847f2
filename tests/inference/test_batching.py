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

from toolkit.benchmark.growth import long_text
from toolkit.benchmark.machine import resident_bytes
from toolkit.contract.lens import Lens
from toolkit.errors import ModelError
from toolkit.inference import engine as engine_module
from toolkit.inference import writing
from toolkit.inference.engine import LONG_ANSWERS, Engine
from toolkit.inference.native import NativeContext
from toolkit.inference.prompts import AHEAD
from toolkit.inference.tuning import Tuning
from toolkit.inference.writing import FEW, AnswerWriter

FEW_MEGABYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Pass:
    """A forward pass: where, over how many tokens, and behind how many of them logits were asked for."""

    context: NativeContext
    rows: int
    logits: int


def top(posterior: np.ndarray) -> int:
    return int(posterior.argmax())


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
    assert np.mean(full) > 0.85 * engine._reader.rows


@pytest.mark.parametrize("active", [2, FEW + 4])
def test_a_sequence_that_ends_makes_room_in_the_very_next_pass(
    load: Callable[..., Engine], passes: list[Pass], texts: list[str], monkeypatch: pytest.MonkeyPatch, active: int
) -> None:
    engine, at_work = load(active=active), list[int]()
    step = writing.AnswerWriter.step

    def noted(self: writing.AnswerWriter) -> None:
        at_work.append(len(self._slots))
        step(self)

    monkeypatch.setattr(writing.AnswerWriter, "step", noted)
    found = list(engine.explain(texts[: 3 * active], Lens.AUTHOR, top))
    alone = next(number for number, count in enumerate(at_work) if count < active)
    assert at_work[alone:] == sorted(at_work[alone:], reverse=True)  # nobody joins any more
    written = [done for done in passes if done.context is engine.contexts[1]]
    answers = [len(engine._writer(long=False)._known_answer(each.label, Lens.AUTHOR)) for each in found]
    known, first = sum(answers), len(found)  # the word behind what is known takes no row of its own
    assert sum(done.rows for done in written) == known - first + sum(done.logits for done in written)


@pytest.mark.parametrize("active", [2, FEW + 4])
def test_a_watcher_hears_of_every_token_once(
    load: Callable[..., Engine], passes: list[Pass], texts: list[str], active: int
) -> None:
    engine, heard = load(active=active), list[int]()
    found = list(engine.explain(texts[:30], Lens.AUTHOR, top, watch=lambda number, *_: heard.append(number)))
    written = sum(done.logits for done in passes if done.context is engine.contexts[1])
    assert len(heard) == written - len(found)  # the last token ends the text
    assert set(heard) == set(range(30))


def test_what_was_read_is_not_read_again_to_be_written(
    load: Callable[..., Engine], passes: list[Pass], texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "next_token", lambda *_: -1)
    engine = load()
    found = list(engine.explain(texts[:40], Lens.AUTHOR, top))
    written = sum(done.rows for done in passes if done.context is engine.contexts[1])
    assert written == sum(len(engine._writer(long=False)._known_answer(each.label, Lens.AUTHOR)) for each in found)


def test_the_sequences_of_a_pass_have_no_gaps_by_which_llama_cpp_would_split_it(
    load: Callable[..., Engine], texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, seen = load(active=FEW + 4), list[tuple[int, ...]]()
    add_each = NativeContext.add_each

    def noted(self: NativeContext, tokens: Any, positions: Any, sequences: Any, wanted: Any) -> None:
        seen.append(tuple(sequences))
        add_each(self, tokens, positions, sequences, wanted)

    monkeypatch.setattr(NativeContext, "add_each", noted)
    list(engine.explain(texts[:60], Lens.AUTHOR, top))
    many = [sequences for sequences in seen if len(sequences) > FEW]
    assert any(len(sequences) < FEW + 4 for sequences in many)  # some have left and nobody has come
    assert all(sequences == tuple(range(len(sequences))) for sequences in many)


def test_sequences_that_wait_move_and_keep_step_write_what_they_write_alone(
    load: Callable[..., Engine], texts: list[str]
) -> None:
    some = texts[:40]
    alone = [done.reasoning for done in load(active=1).explain(some, Lens.AUTHOR, top)]
    for active in (3, FEW + 4, 32):
        assert [done.reasoning for done in load(active=active).explain(some, Lens.AUTHOR, top)] == alone
    assert len(set(alone)) > 30


def test_a_long_prompt_is_written_beside_the_short_ones_in_cells_enough(
    load: Callable[..., Engine], texts: list[str]
) -> None:
    long = [long_text(texts, 200)[cut:] for cut in range(0, 300, 25)]  # more than are written together
    some = [*long, *texts[:6]]
    alone = [next(load().explain([text], Lens.AUTHOR, top)).reasoning for text in some]
    engine = load()
    assert [done.reasoning for done in engine.explain(some, Lens.AUTHOR, top)] == alone
    assert [context.n_streams for context in engine.contexts] == [1, 32, LONG_ANSWERS]
    assert [engine._writer(long).places for long in (False, True)] == [32, LONG_ANSWERS]


def test_who_only_reads_pays_for_no_cells_to_write_in(load: Callable[..., Engine], texts: list[str]) -> None:
    engine = load()
    list(engine.read([*texts[:9], long_text(texts, 2_000)], Lens.AUTHOR))
    assert engine.contexts == [engine.context]
    next(engine.explain(texts[:3], Lens.AUTHOR, top))
    assert len(engine.contexts) == 2


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
        assert taken - done <= (2 * engine._reader.rows + AHEAD) / fewest + 4 + 1


# Several readings at a time, and readings that fail


def test_readings_that_go_on_by_turns_keep_their_own_answers(load: Callable[..., Engine], texts: list[str]) -> None:
    engine = load(active=3)
    sides = ((texts[:9], Lens.AUTHOR), (texts[20:29], Lens.READER))
    alone = [list(engine.explain(some, lens, top)) for some, lens in sides]
    together = zip(*(engine.explain(some, lens, top) for some, lens in sides), strict=True)
    for number, pair in enumerate(together):
        for found, expected in zip(pair, alone, strict=True):
            assert np.array_equal(found.reading.posterior, expected[number].reading.posterior)
            assert (found.label, found.reasoning) == (expected[number].label, expected[number].reasoning)
    assert engine._writer(long=False).places == 3


def test_a_reading_within_another_leaves_that_one_at_work(load: Callable[..., Engine], texts: list[str]) -> None:
    engine, found = load(active=2), list[str]()
    expected = [done.reasoning for done in engine.explain(texts[:6], Lens.AUTHOR, top)]
    for done in engine.explain(texts[:6], Lens.AUTHOR, top):
        assert len(list(engine.explain(texts[6:9], Lens.AUTHOR, top))) == 3
        next(engine.explain(texts[9:15], Lens.AUTHOR, top))  # and is given up
        found.append(done.reasoning)
    assert found == expected


def test_a_pass_that_fails_is_told_to_all_who_shared_it(
    load: Callable[..., Engine], texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(active=3)
    expected = [done.reasoning for done in engine.explain(texts[:6], Lens.AUTHOR, top)]

    def interrupt_another(*_: object) -> None:
        with monkeypatch.context() as interrupted:
            interrupted.setattr(AnswerWriter, "_write", Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                list(engine.explain(texts[6:9], Lens.AUTHOR, top))

    with pytest.raises(ModelError, match="Another reading failed in a pass"):
        list(engine.explain(texts[:6], Lens.AUTHOR, top, interrupt_another))
    assert engine._writer(long=False).places == 3
    assert [done.reasoning for done in engine.explain(texts[:6], Lens.AUTHOR, top)] == expected


def test_a_long_text_that_is_lost_is_told_while_short_ones_are_at_work(
    load: Callable[..., Engine], texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, lengthy, taken = load(active=3), long_text(texts, 200), list[str]()

    def source() -> Iterator[str]:
        for text in itertools.chain([lengthy], itertools.islice(itertools.cycle(texts), 300)):
            taken.append(text)
            yield text

    def interrupt_another(*_: object) -> None:
        writer = engine._writers.get(True)
        if writer is not None and writer.places < LONG_ANSWERS:
            with monkeypatch.context() as interrupted:
                interrupted.setattr(writer, "_write", Mock(side_effect=KeyboardInterrupt))
                with pytest.raises(KeyboardInterrupt):
                    list(engine.explain([lengthy], Lens.AUTHOR, top))

    with pytest.raises(ModelError, match="Another reading failed in a pass"):
        list(engine.explain(source(), Lens.AUTHOR, top, interrupt_another))
    assert 1 < len(taken) < 100


def test_a_sequence_that_cannot_join_gives_its_place_back(
    load: Callable[..., Engine], texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(active=2)
    with monkeypatch.context() as broken:
        broken.setattr(NativeContext, "load", Mock(side_effect=ModelError("no room", "")))
        for _ in range(3):
            with pytest.raises(ModelError, match="no room"):
                list(engine.explain(texts[:4], Lens.AUTHOR, top))
    assert engine._writer(long=False).places == 2
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
    engine = Engine(narrow, threads=1)
    engine.close()
    with pytest.raises(ModelError, match="The model is closed"):
        next(engine.explain(texts, Lens.AUTHOR, top))  # which has made no context to write in yet
    for source in (texts[:4], texts):  # one has read all by now, the other has not
        engine = Engine(narrow, threads=1)
        half_done = engine.explain(source, Lens.AUTHOR, top)
        next(half_done)
        engine.close()
        with pytest.raises(ModelError, match="The model is closed"):
            list(half_done)
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
