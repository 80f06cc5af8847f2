"""One tiny model behind every door: in this process, in a worker, and behind a server."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from toolkit import EmotionModel
from toolkit.apps.escape import is_hidden
from toolkit.cli import main
from toolkit.inference.worker import WorkerModel

from .nasty import EDGES, LARGE, NASTY
from .tiny import write_tiny

Run = Callable[..., tuple[int, bytes, str]]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the model."""
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def model(tiny: Path) -> Iterator[EmotionModel]:
    """The model in this process."""
    with EmotionModel.load(tiny, threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def worker(tiny: Path) -> Iterator[WorkerModel]:
    """The model in a worker process."""
    with WorkerModel.load(tiny, threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def texts(model: EmotionModel) -> dict[str, str]:
    """All nasty texts that hold something, with those at the edge of what the model reads at once."""
    window = model.engine._reader.window_tokens  # type: ignore[attr-defined]
    edges = {name: "1" * (window + more) for name, more in EDGES.items()}  # every digit is a token
    assert [len(model.engine.model.encode(text)) - window for text in edges.values()] == list(EDGES.values())  # type: ignore[attr-defined]
    return NASTY | LARGE | edges


@pytest.fixture(scope="session")
def run(tiny: Path, worker: WorkerModel) -> Run:
    """Runs a command on the tiny model in this process: its exit code, standard output and standard error."""

    @contextmanager
    def opened(*_: Any) -> Iterator[WorkerModel]:
        yield worker

    def call(*arguments: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setenv("EMOTION_LRM_MODEL", str(tiny))
            patch.setenv("EMOTION_LRM_THREADS", "1")
            for command in ("batch", "chat"):
                patch.setattr(f"toolkit.apps.{command}.open_workers", opened)
            code = main(arguments)
            out.flush()
            err.flush()
        return code, out.buffer.getvalue(), err.buffer.getvalue().decode()  # type: ignore[attr-defined]

    return call


def as_typed(text: str) -> str:
    """What a text becomes where it travels as UTF-8 that nobody may break: a lone surrogate is three bad bytes."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def has_nothing_hidden(shown: str) -> bool:
    """Whether nothing in what is shown acts, hides or breaks the line."""
    return not any(is_hidden(character) for character in shown)


def check_reading(found: dict[str, Any], text: str, mode: str) -> None:
    """An analysis is whole, belongs to its text, and rests on nothing but its words."""
    assert found["text"] == text
    assert found["mode"] == mode
    assert found["emotion"] in found["scores"]
    assert sum(found["scores"].values()) == pytest.approx(1, abs=1e-4)
    assert 0 <= found["confidence"] <= 1
    assert all(span in text for span in found["evidence"])
    if mode == "fast":
        assert (found["reasoning"], found["evidence"]) == (None, [])
    else:
        assert found["reasoning"]
        assert not set('"\\\n\x00\x1b') & set(found["reasoning"])


def records(out: bytes) -> list[dict[str, Any]]:
    """The objects of JSON lines, of which each is one line for every reader."""
    lines = out.decode().splitlines()
    assert all(not set(line) & set("\x00\x1b\x85\u2028\u202e") for line in lines)
    return [json.loads(line) for line in lines]


def check_sentence(code: int, err: str, expected: int = 1) -> str:
    """A failure in one sentence and a next step; returns the sentence."""
    lines = [line for line in err.splitlines() if line]
    assert code == expected, err
    assert "Traceback" not in err
    assert any(line.startswith("Error: ") for line in lines), err
    return next(line for line in lines if line.startswith("Error: "))
