"""A GGUF in this process as the source of answers. Its own chat template is never rendered; ours frames the request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from convert.errors import ConvertError
from convert.files import sha256_of
from convert.header import check_header
from toolkit.corpora.answers import Answer
from toolkit.corpora.ask_config import AskConfig
from toolkit.corpora.request import Request, request_texts
from toolkit.corpora.teachers import NoAnswer, TeacherError

TOO_LONG = NoAnswer("prompt exceeds the context")
PREFILL = '{"reasoning": "'


class LocalModel:
    """A chat model in a GGUF file, one request at a time. Used as a context.

    Raises:
        TeacherError: for a file that is missing, no GGUF, or has the control tokens of no known prompt frame.
    """

    retries = 0  # it answers or it does not

    def __init__(self, path: Path, config: AskConfig) -> None:
        import llama_cpp

        try:
            check_header(path, None)
        except ConvertError as error:
            raise TeacherError(str(error), error.hint) from None
        try:
            self._model: Any = llama_cpp.Llama(
                str(path), n_ctx=config.context, n_batch=512, verbose=False, seed=0, logits_all=False
            )
        except (ValueError, RuntimeError):
            raise TeacherError(f"llama.cpp cannot load {path}.", "Check that the file is a whole chat model.") from None
        self._before, self._after = self._frame(path)
        self._context = config.context
        self.identity = sha256_of(path)

    def __enter__(self) -> LocalModel:
        return self

    def __exit__(self, *_: object) -> None:
        self._model.close()

    def stop(self) -> None:
        """Nothing to stop: there is one request at a time."""

    def ask(self, request: Request) -> Answer | NoAnswer:
        """The answer to ``request``, the JSON around the reasoning being given; none where both may not fit."""
        tokens = self._encode(self._before.format(system=request.system), True) + self._encode(request.user, False)
        tokens += self._encode(self._after, True) + self._encode(PREFILL, False)
        if len(tokens) + request.max_tokens > self._context:
            return TOO_LONG
        self._model.reset()
        result = self._model.create_completion(
            tokens, max_tokens=request.max_tokens, temperature=request.temperature, seed=request.seed, stop=['"', "\n"]
        )
        written = result["choices"][0]["text"]
        return Answer(json.dumps({"reasoning": written}, ensure_ascii=False), int(result["usage"]["total_tokens"]))

    def _frame(self, path: Path) -> tuple[str, str]:
        for frame in request_texts()["frames"]:
            if all(len(self._encode(token, True)) == 1 for token in frame["control"]):
                return frame["before"], frame["after"]
        raise TeacherError(
            f"{path} has the control tokens of no known prompt frame.",
            "Serve it by llama.cpp, and give its URL instead.",
        )

    def _encode(self, text: str, control: bool) -> list[int]:
        ids: list[int] = self._model.tokenize(text.encode("utf-8", "replace"), add_bos=False, special=control)
        return ids
