"""Many requests from many threads while the worker is killed again and again: nothing lost, doubled or mixed up.

``SOAK_SCALE`` makes the long run shorter: 0.1 is a tenth.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import threading
from collections import Counter
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest

from tests.inference.processes import HERE, eventually
from toolkit import Analysis, EmotionModel
from toolkit.assets import asset
from toolkit.inference import supervisor
from toolkit.inference.turns import LONG
from toolkit.inference.worker import WorkerModel

CALLERS, DISTINCT, BURST = 16, 100, 24
EXPLAIN_EVERY = 50  # reasoning takes a hundred times as long as a label
CANCEL_EVERY = 37
LONG_EVERY = 500  # requests for one with a text that is read in slices
NOISE = 0.001  # between the same text in two batches


class Load:
    """``total`` requests by number, from ``CALLERS`` threads, with a kill after every ``kill_every`` readings.

    Each thread hands over a burst of one to ``BURST`` requests, cancels some of them at once and waits for the rest.
    """

    def __init__(self, worker: WorkerModel, texts: list[str], total: int, kill_every: int) -> None:
        self.worker, self.texts = worker, texts
        self.numbers, self.total, self.kill_every = itertools.count(), total, kill_every
        self.answers: Counter[int] = Counter()
        self.readings: dict[int, Analysis] = {}
        self.failures: list[BaseException] = []
        self.cancelled: set[int] = set()
        self.pids: set[int] = set()
        self.killed: list[int] = []
        self._lock = threading.Lock()

    def run(self) -> None:
        """Send everything and wait until all is answered or cancelled, and told so."""
        callers = [threading.Thread(target=self._call, args=(seed,)) for seed in range(CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        eventually(lambda: self.answers.total() >= self.total)  # a caller hears of an answer before we do

    def _call(self, seed: int) -> None:
        sizes = random.Random(seed)
        while burst := self._burst(sizes.randint(1, BURST)):
            for number in burst:
                if number % CANCEL_EVERY == CANCEL_EVERY - 1 and burst[number].cancel():
                    self.cancelled.add(number)
            wait(burst.values())

    def _burst(self, size: int) -> dict[int, Future[Analysis]]:
        asked: dict[int, Future[Analysis]] = {}
        for number in itertools.islice(self.numbers, size):
            if number >= self.total:
                break
            asked[number] = self.worker.submit(self.texts[number % len(self.texts)], **wish(number))
            asked[number].add_done_callback(lambda done, n=number: self._answered(n, done))  # type: ignore[misc]
        return asked

    def _answered(self, number: int, future: Future[Analysis]) -> None:
        with self._lock:
            self.answers[number] += 1
            if future.cancelled():
                return
            self.pids.update(self.worker.pids)
            if error := future.exception():
                self.failures.append(error)
                return
            self.readings[number] = future.result()
            if len(self.readings) % self.kill_every == 0:
                self._kill()

    def _kill(self) -> None:
        """Kill one worker after the other."""
        pids = self.worker.pids
        self.killed.append(pids[len(self.killed) % len(pids)])
        os.kill(self.killed[-1], signal.SIGKILL)


def wish(number: int) -> dict[str, Any]:
    """How a request is to be read: most by label only, in two taxonomies."""
    if number % EXPLAIN_EVERY == 0:
        return {"mode": "explain"}
    return {"mode": "fast", "taxonomy": ("goemotions", "ekman")[number % 2]}


def check_lives(load: Load, log: pytest.LogCaptureFixture) -> None:
    """Every end of a worker was a kill of ours: one that answers twice is replaced, and every text still answered."""
    assert "spoke nonsense" not in log.text
    lives = len(load.killed) + len(load.worker.pids)
    eventually(lambda: len(load.pids | set(load.worker.pids)) >= lives)
    assert len(load.pids | set(load.worker.pids)) == lives


def short_texts() -> list[str]:
    lines = asset("data", "samples", "bench_300.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines[:DISTINCT]]


def mixed_texts() -> list[str]:
    """The short texts again and again, with a long one of four in every ``LONG_EVERY``."""
    short = short_texts()
    mixed = short * (4 * LONG_EVERY // DISTINCT)
    for number in range(4):
        long = " ".join(short[number:] + short[:number])
        assert len(long) > LONG
        mixed[number * LONG_EVERY + LONG_EVERY // 3] = long
    return mixed


def expected_scores(model: Path, texts: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    """By taxonomy and text."""
    with EmotionModel.load(model, threads=1) as plain:
        return {
            taxonomy: {r.text: r.scores for r in plain.analyze_many(set(texts), mode="fast", taxonomy=taxonomy)}
            for taxonomy in ("goemotions", "ekman")
        }


def soak(worker: WorkerModel, model: Path, log: pytest.LogCaptureFixture, total: int, kill_every: int) -> None:
    texts = mixed_texts()
    expected = expected_scores(model, texts)
    load = Load(worker, texts, total, kill_every)
    load.run()
    assert load.failures == []
    assert load.answers == Counter(range(total))
    assert set(range(total)) - set(load.readings) == load.cancelled
    assert load.cancelled
    assert len(load.killed) == len(load.readings) // kill_every > 0
    check_lives(load, log)
    for number, reading in load.readings.items():
        text = texts[number % len(texts)]
        assert reading.text == text
        assert reading.mode == wish(number)["mode"]
        assert reading.scores == pytest.approx(expected[reading.taxonomy][text], abs=NOISE)


def test_hundreds_of_requests_and_a_few_kills(
    worker: WorkerModel, shallow_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soak(worker, shallow_model, caplog, total=600, kill_every=150)


@pytest.mark.soak
def test_twenty_thousand_requests_with_a_kill_every_two_thousand(
    worker: WorkerModel, shallow_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scale = float(os.environ.get("SOAK_SCALE", "1"))
    soak(worker, shallow_model, caplog, total=int(20_000 * scale), kill_every=int(2_000 * scale))


@pytest.mark.soak
def test_two_workers_that_are_killed_one_after_the_other(shallow_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    scale = float(os.environ.get("SOAK_SCALE", "1"))
    with WorkerModel.load(shallow_model, threads=1, workers=2) as worker:
        soak(worker, shallow_model, caplog, total=int(4_000 * scale), kill_every=int(1_500 * scale))


def test_a_doubled_answer_is_seen(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Every caller gets one answer all the same, from workers that are replaced one after the other."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setattr(supervisor, "ENTRY", "stand_in:answering_twice")
    with WorkerModel.load() as worker:
        load = Load(worker, ["text"], total=2, kill_every=100)
        load.run()
    assert (load.failures, load.answers) == ([], Counter(range(2)))
    assert len(load.pids) == 2
    with pytest.raises(AssertionError, match="spoke nonsense"):
        check_lives(load, caplog)


def test_expected_scores_tell_the_texts_apart(shallow_model: Path) -> None:
    """Otherwise an answer that went to the wrong caller could not be seen above."""
    texts = short_texts()
    with EmotionModel.load(shallow_model, threads=1) as plain:
        readings = [list(reading.scores.values()) for reading in plain.analyze_many(texts, mode="fast")]
    close = sum(max(map(abs, map(float.__sub__, a, b))) < NOISE for a, b in itertools.pairwise(readings))
    assert close < DISTINCT // 20
