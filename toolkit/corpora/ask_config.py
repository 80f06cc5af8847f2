"""How a model is asked for chains: which one, how fast, how often again, and for how many tokens."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from toolkit.config import Config


class AskConfig(Config):
    """What a teacher that is a model needs to know.

    Attributes:
        model: the name that the endpoint is asked for; null takes the first that it lists.
        temperature: of the first attempt; a later attempt is asked 0.2 warmer each time, up to 1.2.
        max_tokens: the most tokens of one answer.
        answer_form: what holds the model to JSON: ``json_object`` (most endpoints), ``json_schema``, or ``none``.
        concurrency: requests under way at the same time.
        per_minute: the most requests begun in a minute; null sets no limit.
        timeout: seconds that a request may take.
        retries: how often one request is sent anew after 429, 5xx or a dropped connection.
        backoff: seconds before the first of these, doubled each time, up to a minute, and jittered.
        max_tokens_total: stop when so many tokens are spent, prompts and answers together; null sets no limit.
        context: for a local GGUF, the tokens that prompt and answer may take.
    """

    model: str | None = None
    temperature: float = Field(0.4, ge=0, le=2)
    max_tokens: int = Field(200, ge=16)
    answer_form: Literal["json_object", "json_schema", "none"] = "json_object"
    concurrency: int = Field(4, ge=1, le=256)
    per_minute: float | None = Field(None, gt=0)
    timeout: float = Field(120.0, gt=0)
    retries: int = Field(5, ge=0)
    backoff: float = Field(1.0, ge=0)
    max_tokens_total: int | None = Field(None, ge=1)
    context: int = Field(2048, ge=512)
