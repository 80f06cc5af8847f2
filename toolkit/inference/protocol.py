"""What a model and its worker process say to each other: one JSON object a line, in ASCII.

To the worker::

    {"load": {"model": ..., "threads": ..., "gpu_layers": ..., "parent": ...}}     first and once
    {"id": 7, "text": "...", "lens": "author", "taxonomy": "ekman", "mode": "explain", "stream": false}
    {"drop": 7}                                        nobody waits for it any more

From the worker::

    {"progress": [done, total, step]}                  while a model is built on first use
    {"ready": {"name": ..., "lenses": [...], "noise_line": ...}} or {"failed": error}
    {"alive": 41}                                      every second, whatever it does; the number grows as it gets on
    {"begun": [7, 8]}                                  the engine has them now
    {"id": 7, "partial": {...}}                        the analysis so far, of a request that asked for it with "stream"
    {"id": 7, "analysis": {...}}, {"id": 7, "error": error} or {"id": 7, "dropped": true}

where an error is {"type", "message", "hint", "traceback"}.

The end of its input ends the worker. Nothing is pickled: whoever reads a line gets strings and numbers, no objects.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convert.errors import AdapterError, ConvertError, FileError, GGUFError, ModelFolderError
from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens
from toolkit.errors import ConfigError, DataError, EmotionLRMError, ModelError, UsageError
from toolkit.inference.request import Wish

log = logging.getLogger(__name__)


class QueueFullError(EmotionLRMError):
    """More requests are waiting than the model may hold."""


class RequestTimeoutError(EmotionLRMError):
    """A request was not answered within its time limit."""


class WorkerDiedError(ModelError):
    """The worker process ended and cannot be had again, or one text ended it twice."""


_KINDS: dict[str, type[EmotionLRMError] | type[ConvertError]] = {
    kind.__name__: kind
    for kind in (
        EmotionLRMError, ModelError, UsageError, DataError, ConfigError, ConvertError, GGUFError, AdapterError,
        ModelFolderError, FileError,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """One text to read. ``number`` is unique in the worker's life; ``stream`` asks for what is written so far."""

    number: int
    text: str
    wish: Wish
    stream: bool = False

    def to_message(self) -> dict[str, Any]:
        """The request as it travels."""
        wish = self.wish
        return {
            "id": self.number, "text": self.text, "lens": wish.lens, "taxonomy": wish.taxonomy, "mode": wish.mode,
            "stream": self.stream,
        }  # fmt: skip


def request_from(message: Mapping[str, Any]) -> Request:
    """The request that :meth:`Request.to_message` was made from."""
    wish = Wish(Lens(message["lens"]), message["taxonomy"], message["mode"])
    return Request(message["id"], message["text"], wish, message["stream"])


def encode(message: Mapping[str, Any]) -> bytes:
    """One line; lone surrogates and line ends of a text survive as escapes."""
    return json.dumps(message).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The message of one line.

    Raises:
        ValueError: for a line that is no JSON object.
    """
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("a message is an object")
    return message


def analysis_message(analysis: Analysis) -> dict[str, Any]:
    """An analysis as it travels: without its text, which the other side has."""
    told = analysis.to_dict()
    del told["text"]
    return told


def analysis_from(told: Mapping[str, Any], text: str) -> Analysis:
    """The analysis of ``text`` that :func:`analysis_message` was made from."""
    changed = {"lens": Lens(told["lens"]), "emotions": tuple(told["emotions"]), "evidence": tuple(told["evidence"])}
    return Analysis(text=text, **{**told, **changed})


def error_message(error: BaseException) -> dict[str, str]:
    """A failure as it travels, with its traceback. What nobody expected becomes a ModelError that names its type."""
    return {**_told(error), "traceback": "".join(traceback.format_exception(error))}


def _told(error: BaseException) -> dict[str, str]:
    if isinstance(error, (EmotionLRMError, ConvertError)):
        kind = next(base.__name__ for base in type(error).__mro__ if base.__name__ in _KINDS)
        return {"type": kind, "message": str(error), "hint": error.hint}
    if isinstance(error, MemoryError):
        return {"type": "ModelError", "message": "There is not enough memory.", "hint": "Close other programs."}
    said = f"The worker failed with {type(error).__name__}: {error}"
    return {"type": "ModelError", "message": said, "hint": "Run it again with --debug, and report the traceback."}


def error_from(told: Mapping[str, str]) -> EmotionLRMError | ConvertError:
    """The failure that :func:`error_message` was made from, of the same type; ``--debug`` shows where it happened."""
    error = _KINDS.get(told["type"], EmotionLRMError)(told["message"], told["hint"])
    if where := told.get("traceback"):
        error.add_note(f"In the worker process: {where}")
        log.debug("In the worker process: %s", where)
    return error
