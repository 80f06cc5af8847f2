"""The API itself: a few addresses over one model in worker processes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.types import ASGIApp

from convert.errors import ConvertError
from toolkit import __version__
from toolkit.apps.api.bodies import (
    LONGEST_TEXT,
    TOO_LONG,
    AskMany,
    AskOne,
    HealthBody,
    Item,
    LabelsBody,
    ReadyBody,
    possible_pairs,
    taxonomies,
)
from toolkit.apps.api.docs_page import HEADERS, docs_page
from toolkit.apps.api.gate import Gate, Limits
from toolkit.apps.api.refusals import NOT_READY, ErrorBody, explain
from toolkit.apps.escape import json_line
from toolkit.apps.results import record_of
from toolkit.apps.tables import Row
from toolkit.contract.analysis import Analysis, Comparison
from toolkit.errors import EmotionLRMError
from toolkit.inference.async_model import AsyncEmotionModel
from toolkit.inference.request import MODES, Options
from toolkit.inference.worker import WorkerModel
from toolkit.settings import Settings

Answers = dict[int | str, dict[str, Any]]

_REASONS = {
    400: "The body is no JSON.",
    401: "The API key is missing or wrong.",
    408: "The body came too slowly.",
    413: "The body or a text is too large.",
    415: "The body is not sent as JSON.",
    422: "The text is empty, or a field is missing, unknown or has an unknown value.",
    500: "The model failed.",
    503: "Too much to do; the header Retry-After says when to come again.",
    504: "The text was not read in time.",
}
_REFUSED: Answers = {status: {"model": ErrorBody, "description": reason} for status, reason in _REASONS.items()}
_KEYED: Answers = {401: _REFUSED[401]}
# FastAPI would hand what it sees to whatever collects such data in this process; texts are nobody else's business.
_UNWATCHED: Any = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False)


def make_application(
    worker: WorkerModel, default: Settings, limits: Limits, key: str | None = None, origins: Sequence[str] = ()
) -> ASGIApp:
    """The application that a server runs.

    Args:
        default: how texts are read where a request does not say.
        key: what callers must send as a bearer token, or None.
        origins: whose web pages may call, such as ``https://example.org``.
    """
    app = FastAPI(
        title="Emotion-LRM", version=__version__, docs_url=None, redoc_url=None, telemetry=_UNWATCHED,
        description="Reads the emotion in a text and says what it rests on.",
        openapi_tags=[{"name": "Reading"}, {"name": "About the server"}],
    )  # fmt: skip
    _add_readings(app, AsyncEmotionModel(worker), default, limits)
    _add_answers_about_itself(app, worker)
    _describe(app, worker, default, key is not None)
    for kind in (RequestValidationError, HTTPException, EmotionLRMError, ConvertError, Exception):
        app.add_exception_handler(kind, _refuse)
    gate: ASGIApp = Gate(app, key.encode() if key is not None else None, limits)
    if origins:
        return CORSMiddleware(gate, origins, allow_methods=["GET", "POST"], allow_headers=["*"])
    return gate


def _add_readings(app: FastAPI, model: AsyncEmotionModel, default: Settings, limits: Limits) -> None:
    one_lens = default.model_copy(update={"lens": "author", "taxonomy": None}) if default.lens == "both" else default
    reading: Answers = {
        200: {"model": Analysis | Comparison, "description": "What `emotion-lrm analyze --json` prints."}
    }
    rows: Answers = {
        200: {
            "description": "One JSON object a line and text, in order: `id`, `row`, `status` (`ok`, `empty` or "
            "`error`) and `error`, then what `/analyze_text` answers.",
            "content": {"application/x-ndjson": {}},
        }
    }

    @app.post("/analyze_text", tags=["Reading"], responses={**_REFUSED, **reading}, response_class=Response)
    async def analyze_text(asked: AskOne) -> Response:
        """Read one text through one lens, or through both and compared."""
        options = asked.options(asked.lens, default)
        found: Analysis | Comparison
        if options["lens"] == "both":
            found = await model.compare(
                asked.text, taxonomy=options["taxonomy"], mode=options["mode"], timeout=limits.seconds
            )
        else:
            found = await model.analyze(asked.text, timeout=limits.seconds, **options)
        return Response(json_line(found.to_dict()), media_type="application/json")

    @app.post("/analyze_batch", tags=["Reading"], responses={**_REFUSED, **rows}, response_class=Response)
    async def analyze_batch(asked: AskMany) -> Response:
        """Read many texts; answers come as they are found, a line each. A text that fails costs its own line only."""
        options = asked.options(asked.lens, one_lens)
        model.worker.wish(**options)  # refused before the answer begins
        return StreamingResponse(_rows(model, asked.texts, options, limits.seconds), media_type="application/x-ndjson")


async def _rows(model: AsyncEmotionModel, items: list[Item], options: Options, patience: float) -> AsyncIterator[bytes]:
    wish = model.worker.wish(**options)
    readable = (item.text for item in items if item.text.strip() and len(item.text) <= LONGEST_TEXT)
    async with contextlib.aclosing(model.outcomes(readable, patience=patience, **options)) as outcomes:
        for number, item in enumerate(items):
            row = Row(number, number if item.id is None else item.id, item.text)
            found: Analysis | str | None
            if not item.text.strip():
                found = None
            elif len(item.text) > LONGEST_TEXT:
                found = TOO_LONG
            else:
                outcome = await anext(outcomes)
                found = outcome if isinstance(outcome, Analysis) else str(outcome)
            yield json_line(record_of(row, found, wish, model.worker.name))


def _add_answers_about_itself(app: FastAPI, worker: WorkerModel) -> None:
    told = LabelsBody(
        model=worker.name, lenses=list(worker.lenses), modes=list(MODES), taxonomies=taxonomies(worker.lenses)
    )

    @app.get("/labels", tags=["About the server"], responses=_KEYED)
    async def labels() -> LabelsBody:
        """The lenses, modes and taxonomies that can be asked for, and what each label means."""
        return told

    @app.get("/health", tags=["About the server"])
    async def health() -> HealthBody:
        """Whether the server answers; needs no key."""
        return HealthBody()

    @app.get("/ready", tags=["About the server"], response_model=ReadyBody, responses={503: _REFUSED[503]})
    async def ready() -> ReadyBody | Response:
        """Whether a worker has the model loaded; needs no key."""
        return ReadyBody(model=worker.name) if worker.ready else NOT_READY.response()

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()), headers=HEADERS)


def _describe(app: FastAPI, worker: WorkerModel, default: Settings, keyed: bool) -> None:
    """Put into the OpenAPI document what types cannot say: the lenses of this model, and whether a key is needed."""
    schema = app.openapi()
    for body in (AskOne, AskMany):
        schema["components"]["schemas"][body.__name__]["anyOf"] = possible_pairs(body, worker.lenses, default.lens)
    if keyed:
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path in ("/analyze_text", "/analyze_batch", "/labels"):
            for operation in schema["paths"][path].values():
                operation["security"] = [{"key": []}]


async def _refuse(_: Request, error: Exception) -> Response:
    return explain(error).response()
