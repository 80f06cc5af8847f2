"""What goes wrong, as a caller of the API sees it: a status, a code, a sentence and a next step, in one JSON shape."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from convert.errors import ConvertError
from toolkit.apps.api.bodies import MOST_TEXTS, TOO_LONG, AskMany, AskOne
from toolkit.apps.escape import json_line
from toolkit.errors import EmotionLRMError, UsageError
from toolkit.inference.protocol import QueueFullError, RequestTimeoutError, WorkerDiedError

RETRY_AFTER = {"Retry-After": "2"}  # seconds
CLOSE = {"Connection": "close"}  # part of the body may still be under way


class Told(BaseModel):
    """Why a request was refused."""

    code: str = Field(description="For programs: stays the same from version to version.")
    message: str = Field(description="The cause in one sentence.")
    hint: str = Field(description="The next step in one sentence.")


class ErrorBody(BaseModel):
    """The body of every answer whose status is not 200."""

    error: Told


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer other than the one that was asked for."""

    status: int
    code: str
    message: str
    hint: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        """The refusal as it travels."""
        told = {"error": {"code": self.code, "message": self.message, "hint": self.hint}}
        return Response(json_line(told), self.status, dict(self.headers), "application/json")


NO_KEY = Refusal(
    401, "no_key", "The API key is missing or wrong.", "Send the header Authorization: Bearer KEY.",
    {"WWW-Authenticate": "Bearer", **CLOSE},
)  # fmt: skip
SLOW = Refusal(408, "slow_body", "The body did not arrive in time.", "Send it again, or in smaller parts.", CLOSE)
TOO_LARGE = Refusal(413, "body_too_large", "The body is too large.", "Send the texts in several requests.", CLOSE)
NOT_JSON_TYPE = Refusal(
    415, "wrong_content_type", "The body must be JSON.", "Send the header Content-Type: application/json.", CLOSE
)
BUSY = Refusal(503, "busy", "Too many requests are open already.", "Try again in a moment.", {**RETRY_AFTER, **CLOSE})
NOT_READY = Refusal(503, "not_ready", "No worker has the model loaded.", "Try again in a moment.", RETRY_AFTER)
INTERNAL = Refusal(
    500, "internal", "The server failed unexpectedly.", "Try again; if it happens again, look at what the server says."
)
_NOT_JSON = Refusal(400, "not_json", "The body is no JSON that can be read.", 'For example: {"text": "What a day!"}')

# What pydantic or a check in `bodies` calls a fault, and what we say.
_FAULTS = {
    "text_empty": (422, "empty_text", "The text is empty.", "Pass at least one word."),
    "text_long": (
        413, "text_too_long", TOO_LONG, "Send its parts as several texts, or read it with emotion-lrm analyze.",
    ),
    "too_long": (413, "too_many_texts", f"There are more than {MOST_TEXTS:,} texts.", "Send several requests."),
    "too_short": (422, "no_texts", "The list of texts is empty.", "Pass at least one text."),
}  # fmt: skip
_STATUS_CODES = {
    404: ("not_found", "There is nothing at this address.", "See /docs for what there is."),
    405: ("wrong_method", "This address does not take this method.", "See /docs for what it takes."),
}


def explain(error: Exception) -> Refusal:
    """The refusal that tells of a failure."""
    match error:
        case RequestValidationError():
            return _of_fault(error.errors()[0])
        case HTTPException(status_code=400):  # what FastAPI raises for bytes that are no text, or nested too deeply
            return _NOT_JSON
        case HTTPException():
            code, message, hint = _STATUS_CODES.get(error.status_code, ("refused", str(error.detail), "See /docs."))
            return Refusal(error.status_code, code, message, hint, dict(error.headers or {}))
        case QueueFullError():
            return Refusal(503, "queue_full", str(error), "Try again in a moment.", RETRY_AFTER)
        case RequestTimeoutError():
            return Refusal(504, "timeout", str(error), "Send a shorter text, or try again when there is less to do.")
        case WorkerDiedError():
            return Refusal(500, "worker_died", str(error), error.hint)
        case UsageError():
            return Refusal(422, "not_possible", str(error), error.hint)
        case EmotionLRMError() | ConvertError():
            return Refusal(500, "model_failed", str(error), error.hint)
    return INTERNAL


def _of_fault(fault: Mapping[str, Any]) -> Refusal:
    """The refusal for the first fault that was found in a body; never holds what the caller sent but a short name."""
    kind, place = fault["type"], fault["loc"][1:]
    name = ".".join(str(part) for part in place)[:60]
    if kind == "json_invalid":
        return _NOT_JSON
    if kind in _FAULTS:
        return Refusal(*_FAULTS[kind])
    if kind == "extra_forbidden":
        return Refusal(422, "unknown_field", f"There is no field {name!r}.", _nearest(name, _fields(place)))
    if kind == "missing":
        what = f"The field {name} is missing." if name else "There is no body."
        return Refusal(422, "missing_field", what, 'For example: {"text": "What a day!"}')
    if kind == "literal_error":
        return Refusal(422, "unknown_value", f"The value of {name} is not known.", f"Use {fault['ctx']['expected']}.")
    return Refusal(422, "wrong_type", f"{name or 'The body'}: {fault['msg']}.", "See /docs for what it must be.")


def _fields(place: Sequence[object]) -> list[str]:
    return ["text", "id"] if len(place) > 1 else list(dict.fromkeys((*AskOne.model_fields, *AskMany.model_fields)))


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {near[0]!r}?" if near else f"Known fields: {', '.join(known)}."
