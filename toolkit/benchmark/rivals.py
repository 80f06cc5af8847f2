"""The other ways to the same answer: llama-cpp-python's completion with a schema, and llama.cpp's own server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from convert.server import post, serving
from toolkit.contract.answer import json_schema
from toolkit.contract.lens import Lens
from toolkit.contract.prompt import Frame
from toolkit.inference.kernel import llama_cpp_alone

ORDINARY, SERVER = "llama-cpp-python, one by one", "llama-server, 8 slots"
SLOTS, _ROOM, _MOST = 8, 512, 200  # slots of the server, tokens each may take, tokens of an answer


@contextlib.contextmanager
def ordinary(path: Path, frame: Frame, threads: int) -> Iterator[Any]:
    """A function (texts, mode) -> answers through the high-level class, greedily, one text after the other."""
    from llama_cpp import Llama, LlamaGrammar

    model = Llama(str(path), n_ctx=_ROOM, n_threads=threads, n_threads_batch=threads, verbose=False)
    grammars = {
        mode: LlamaGrammar.from_json_schema(json.dumps(json_schema(Lens.AUTHOR, mode == "explain")), verbose=False)
        for mode in ("fast", "explain")
    }

    def answer(texts: Sequence[str], mode: str) -> list[str]:
        with llama_cpp_alone():
            return [
                model.create_completion(
                    frame.render(text), grammar=grammars[mode], temperature=0.0, max_tokens=_MOST
                )["choices"][0]["text"]
                for text in texts
            ]  # fmt: skip

    try:
        yield answer
    finally:
        model.close()


@contextlib.contextmanager
def served(path: Path, frame: Frame, threads: int) -> Iterator[Any]:
    """A function (texts, mode) -> answers of llama.cpp's server with eight slots, asked by eight clients over HTTP.

    Raises:
        ServerError: where the server does not start.
    """
    with serving(path, threads, SLOTS, SLOTS * _ROOM) as (_, url), ThreadPoolExecutor(SLOTS) as clients:

        def ask(text: str, mode: str) -> str:
            schema = json_schema(Lens.AUTHOR, mode == "explain")
            asked = {"prompt": frame.render(text), "json_schema": schema, "temperature": 0.0, "n_predict": _MOST}
            return str(post(f"{url}/completion", asked)["content"])

        yield lambda texts, mode: list(clients.map(ask, texts, [mode] * len(texts)))
