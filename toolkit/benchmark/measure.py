"""The whole measurement of one model: many texts, the roof, one text, starting up, memory."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from convert.gguf_file import PREFIX
from convert.header import Header
from convert.server import find_server
from toolkit.assets import asset
from toolkit.benchmark.machine import cache_bytes
from toolkit.benchmark.rivals import ORDINARY, SERVER, ordinary, served
from toolkit.benchmark.rounds import Contender, Report, Row, rows_of, spread, take_turns
from toolkit.contract.lens import Lens
from toolkit.errors import EmotionLRMError
from toolkit.inference import prompts, writing
from toolkit.inference.engine import LONGEST, Engine

Work = Callable[[Sequence[str], str], int]  # texts and a mode to how many were read

OURS = "emotion-lrm"
MODES = ("fast", "explain")
_ROOF, _READ = "one full batch", "emotion-lrm, tokens"
_SERVED, _SINGLE_TURNS, _STARTS = 48, 15, 3
_PLAIN = ("--lens", "author", "--mode", "explain")  # whatever environment and configuration file say
_ALLOWANCE = 250_000_000  # bytes that a run may take besides weights and KV cache


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: ``texts`` of ours a turn; the ordinary way gets an eighth of them, at least four."""

    rounds: int = 3
    texts: int = 300
    threads: int | None = None
    server: bool = True

    @property
    def ordinary_texts(self) -> int:
        """Texts that the ordinary way reads a turn."""
        return min(self.texts, max(4, self.texts // 8))


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one model file; times in seconds, memory in bytes, None where the system does not tell."""

    model: str
    file_type: str
    threads: int
    rows: list[Row]
    roof: dict[str, float]
    single: dict[str, float]
    memory: dict[str, int | None]

    def to_dict(self) -> dict[str, Any]:
        """As ``bench --json`` prints it."""
        return asdict(self)


def bench_texts() -> list[str]:
    """The 300 texts that ship for this."""
    lines = asset("data", "samples", "bench_300.jsonl").read_text(encoding="utf-8").splitlines()
    return [str(json.loads(line)["text"]) for line in lines]


def measure(path: Path, texts: Sequence[str], plan: Plan, progress: Report | None = None) -> Measured:
    """Measure one GGUF against the ordinary way on the same file, all in turns.

    Raises:
        ModelError, ConvertError: for a file that does not load, or a server that does not start.
    """
    sample = spread(texts, plan.texts)
    engine = Engine(path, threads=plan.threads)
    try:
        with _contenders(engine, sample, plan) as contenders:
            rates = take_turns(contenders, plan.rounds, progress)
        single = measure_single(engine, spread(texts, 1)[0])
    finally:
        engine.close()
    roof, read = rates[-2:]
    return Measured(
        path.stem,
        file_type_of(engine.model.header),
        engine.threads,
        rows_of(contenders[:-2], rates[:-2], ORDINARY, SERVER),
        {"tokens_per_second": roof, "fast_tokens_per_second": read, "share": read / roof},
        single,
        measure_memory(engine, path),
    )


def file_type_of(header: Header) -> str:
    """What a file says of itself, else the type of most of its weights."""
    weights: Counter[str] = Counter()
    for tensor in header.tensors:
        weights[tensor.type] += tensor.n_elements
    return str(header.metadata.get(f"{PREFIX}file_type") or weights.most_common(1)[0][0])


@contextlib.contextmanager
def _contenders(engine: Engine, sample: Sequence[str], plan: Plan) -> Iterator[list[Contender]]:
    """What takes turns; the last two count tokens and give the roof and what ``fast`` reaches of it."""
    few, frame = spread(sample, plan.ordinary_texts), engine.frames[Lens.AUTHOR]
    with contextlib.ExitStack() as stack:
        answer = stack.enter_context(ordinary(engine.model.path, frame, engine.threads))
        sides: list[tuple[str, Sequence[str], Work]] = [(ORDINARY, few, _counted(answer))]
        if plan.server and find_server():
            answer = stack.enter_context(served(engine.model.path, frame, engine.threads))
            sides.append((SERVER, spread(sample, _SERVED), _counted(answer)))
        sides.append((OURS, sample, partial(read_all, engine)))
        found = [
            Contender(name, mode, len(some), partial(work, some, mode)) for mode in MODES for name, some, work in sides
        ]
        found.append(Contender(_ROOF, "roof", 0, lambda: _full_batch(engine)))
        found.append(Contender(_READ, "roof", len(sample), lambda: _tokens_read(engine, sample)))
        yield found


def _counted(answer: Callable[[Sequence[str], str], list[Any]]) -> Work:
    return lambda texts, mode: len(answer(texts, mode))


def read_all(engine: Engine, texts: Iterable[str], mode: str) -> int:
    """Read texts through the author's lens and keep nothing; returns how many there were."""
    readings: Iterator[Any] = (
        engine.read(texts, Lens.AUTHOR)
        if mode == "fast"
        else engine.explain(texts, Lens.AUTHOR, lambda posterior: int(posterior.argmax()))
    )
    return sum(1 for _ in readings)


def _full_batch(engine: Engine) -> int:
    """One prompt of ``LONGEST`` tokens in one forward pass: what this build can do."""
    context, sequence = engine.context, engine.context.n_sequences - 1
    tokens = (engine.model.encode("The quick brown fox jumps over the lazy dog. ") * LONGEST)[:LONGEST]
    row = context.add(tokens, 0, [sequence], want_logits=True)
    context.decode()
    context.logits(row)
    context.drop(sequence)
    return LONGEST


def _tokens_read(engine: Engine, texts: Sequence[str]) -> int:
    before = engine.context.evaluated
    read_all(engine, texts, "fast")
    return engine.context.evaluated - before


def measure_single(engine: Engine, text: str) -> dict[str, float]:
    """One text in fast mode against a bare forward pass over as many tokens behind the same cached head, in turns."""
    context, frame = engine.context, engine.frames[Lens.AUTHOR]
    before = context.evaluated
    read_all(engine, [text], "fast")
    tokens = (engine.model.encode(text) + [*frame.tail, *frame.prefill] * 4)[: context.evaluated - before]
    times: dict[str, list[float]] = {"fast": [], "bare_decode": []}
    for _ in range(_SINGLE_TURNS):
        began = time.perf_counter()
        read_all(engine, [text], "fast")
        times["fast"].append(time.perf_counter() - began)
        times["bare_decode"].append(_bare(engine, tokens, len(frame.head)))
    found = {name: statistics.median(seconds) for name, seconds in times.items()}
    return {**found, "ratio": found["fast"] / found["bare_decode"]}


def _bare(engine: Engine, tokens: Sequence[int], start: int) -> float:
    """Seconds of the forward pass alone."""
    context, sequence = engine.context, engine.context.n_sequences - 1
    context.fork(0, sequence)
    row = context.add(tokens, start, [sequence], want_logits=True)
    began = time.perf_counter()
    context.decode()
    context.logits(row)
    taken = time.perf_counter() - began
    context.drop(sequence)
    return taken


# The peak is asked of the kernel by name: what getrusage tells still holds the peak of the process that forked.
_PEAK = """
import sys
from pathlib import Path
from toolkit.benchmark.measure import bench_texts, read_all
from toolkit.inference.engine import Engine
read_all(Engine(Path(sys.argv[1]), threads=int(sys.argv[2])), bench_texts()[:40], "explain")
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


def measure_memory(engine: Engine, path: Path) -> dict[str, int | None]:
    """The peak of a process of its own that writes with all sequences, and what it may be."""
    cells = prompts.CELLS + engine.tuning.active * writing.CELLS
    file, cache = path.stat().st_size, cache_bytes(engine.model.header, cells)
    found = {"file": file, "kv_cache": cache, "allowed": file + cache + _ALLOWANCE}
    if sys.platform != "linux":
        return {**found, "peak": None}
    command = [sys.executable, "-c", _PEAK, str(path), str(engine.threads)]
    told = _said(subprocess.run(command, capture_output=True, text=True, errors="replace", check=False))
    return {**found, "peak": 1024 * int(told.split()[-1])}


def measure_startup(path: Path) -> dict[str, float]:
    """Seconds from the command to its end: its help, and one text explained; the medians of three starts."""
    one = ["analyze", "--model", str(path), *_PLAIN, "I feel disappointed and ignored..."]
    commands = {"help": ["--help"], "one_text": one}
    return {name: statistics.median(_run(arguments) for _ in range(_STARTS)) for name, arguments in commands.items()}


def _run(arguments: list[str]) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "toolkit.cli", *arguments]
    _said(subprocess.run(command, capture_output=True, text=True, errors="replace", check=False))
    return time.perf_counter() - began


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """What a process wrote to standard output.

    Raises:
        EmotionLRMError: with the end of its standard error, where it failed.
    """
    if done.returncode:
        last = " ".join(done.stderr.split())[-300:] or "it said nothing"
        told = f"What is measured from outside ended with exit code {done.returncode}: {last}"
        raise EmotionLRMError(told, "Look for the cause with: emotion-lrm doctor")
    return done.stdout
