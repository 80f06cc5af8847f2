"""Many requests from many threads while the worker is killed again and again: nothing lost, doubled or mixed up.

``SOAK_SCALE`` makes the long run shorter: 0.1 is a tenth.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.inference.processes import HERE
from toolkit import Analysis, EmotionModel
from toolkit.assets import asset
from toolkit.inference import supervisor
from toolkit.inference.worker import WorkerModel

CALLERS, DISTINCT = 16, 100
EXPLAIN_EVERY = 50  # reasoning takes a hundred times as long as a label
NOISE = 0.001  # between the same text in two batches


class Load:
    """``total`` requests by number, from ``CALLERS`` threads, with a kill after every ``kill_every`` answers."""

    def __init__(self, worker: WorkerModel, texts: list[str], total: int, kill_every: int) -> None:
        self.worker, self.texts = worker, texts
        self.numbers, self.total, self.kill_every = itertools.count(), total, kill_every
        self.answers: Counter[int] = Counter()
        self.readings: dict[int, Analysis] = {}
        self.failures: list[BaseException] = []
        self.pids: set[int] = set()
        self.kills = 0
        self._lock = threading.Lock()

    def run(self) -> None:
        """Send everything and wait for all answers."""
        callers = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()

    def _call(self) -> None:
        while (number := next(self.numbers)) < self.total:
            future = self.worker.submit(self.texts[number % len(self.texts)], **wish(number))
            future.add_done_callback(lambda done, n=number: self._answered(n, done))
            future.exception()

    def _answered(self, number: int, future: Future[Analysis]) -> None:
        with self._lock:
            self.answers[number] += 1
            self.pids.update(self.worker.pids)
            error = future.exception()
            if error is None:
                self.readings[number] = future.result()
            else:
                self.failures.append(error)
            due = self.answers.total() % self.kill_every == 0 and self.answers.total() < self.total
            self.kills += due
        if due:
            os.kill(self.worker.pids[0], signal.SIGKILL)


def wish(number: int) -> dict[str, Any]:
    """How a request is to be read: most by label only, in two taxonomies."""
    if number % EXPLAIN_EVERY == 0:
        return {"mode": "explain"}
    return {"mode": "fast", "taxonomy": ("goemotions", "ekman")[number % 2]}


def check_lives(load: Load, log: pytest.LogCaptureFixture) -> None:
    """Every end of a worker was a kill of ours: one that answers twice is replaced, and every text still answered."""
    assert "spoke nonsense" not in log.text
    assert len(load.pids) == load.kills + 1


def soak(worker: WorkerModel, model: Path, log: pytest.LogCaptureFixture, total: int, kill_every: int) -> None:
    lines = asset("data", "samples", "bench_300.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines[:DISTINCT]]
    with EmotionModel.load(model, threads=1) as plain:
        expected = {
            taxonomy: [reading.scores for reading in plain.analyze_many(texts, mode="fast", taxonomy=taxonomy)]
            for taxonomy in ("goemotions", "ekman")
        }
    load = Load(worker, texts, total, kill_every)
    load.run()
    assert load.failures == []
    assert load.answers == Counter(range(total))
    assert load.kills == (total - 1) // kill_every
    check_lives(load, log)
    for number, reading in load.readings.items():
        index = number % len(texts)
        assert reading.text == texts[index]
        assert reading.mode == wish(number)["mode"]
        assert reading.scores == pytest.approx(expected[reading.taxonomy][index], abs=NOISE)


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
    lines = asset("data", "samples", "bench_300.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines[:DISTINCT]]
    with EmotionModel.load(shallow_model, threads=1) as plain:
        readings = [list(reading.scores.values()) for reading in plain.analyze_many(texts, mode="fast")]
    close = sum(max(map(abs, map(float.__sub__, a, b))) < NOISE for a, b in itertools.pairwise(readings))
    assert close < DISTINCT // 20
