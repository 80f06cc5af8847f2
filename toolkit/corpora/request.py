"""What a model is asked for one chain, and what is read out of its answer."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from toolkit.contract.prompt import prepare_text
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.ask_config import AskConfig
from toolkit.corpora.teachers import Ask, NoAnswer
from toolkit.corpora.yaml_assets import read_yaml

SCHEMA = {
    "type": "object",
    "properties": {"reasoning": {"type": "string", "minLength": 1, "maxLength": 400}},
    "required": ["reasoning"],
    "additionalProperties": False,
}
_WARMER, _WARMEST = 0.2, 1.2


@dataclass(frozen=True, slots=True)
class Request:
    """Everything on which an answer depends; two equal requests are asked once."""

    model: str
    system: str
    user: str
    temperature: float
    max_tokens: int
    form: str
    seed: int

    @property
    def key(self) -> str:
        """64 digits that stand for the request."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode("utf-8", "replace")).hexdigest()

    def body(self) -> dict[str, Any]:
        """The request as the chat endpoint takes it."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }
        if self.form == "json_object":
            body["response_format"] = {"type": "json_object"}
        elif self.form == "json_schema":
            shape = {"name": "chain", "schema": SCHEMA, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        return body


def request_for(ask: Ask, model: str, config: AskConfig) -> Request:
    """The request for one chain; a later attempt is asked a little warmer and with another seed."""
    texts, example = request_texts(), ask.example
    label = example.labels[0]
    user = texts["user"].format(
        text=prepare_text(example.text), label=label, definition=load_taxonomy(example.lens.native).definition(label)
    )
    if ask.rival:
        user += texts["rival"].format(rival=ask.rival)
    warmth = config.temperature + _WARMER * ask.attempt
    return Request(
        model=model,
        system=texts["system"].format(who=texts["who"][example.lens]),
        user=user,
        temperature=round(max(config.temperature, min(warmth, _WARMEST)), 3),
        max_tokens=config.max_tokens,
        form=config.answer_form,
        seed=ask.attempt,
    )


def read_answer(content: str) -> str | NoAnswer:
    """The reasoning in what a model wrote, on one line, straight quotation marks in pairs made typographic."""
    if not content.strip():
        return NoAnswer("empty answer")
    try:
        answer = json.loads(_object_in(content))
    except (ValueError, RecursionError):
        return NoAnswer("answer is not JSON")
    reasoning = answer.get("reasoning") if isinstance(answer, dict) else None
    if not isinstance(reasoning, str) or not reasoning.strip():
        return NoAnswer("answer has no reasoning")
    return re.sub(r'"([^"]+)"', r"“\1”", " ".join(reasoning.split()))


def most_tokens(request: Request) -> int:
    """What a request may cost at the most, by a cautious guess of three characters a token."""
    return (len(request.system) + len(request.user)) // 3 + request.max_tokens


def _object_in(content: str) -> str:
    """The part from the first brace to the last: models like to fence or introduce what they write."""
    first, last = content.find("{"), content.rfind("}")
    return content[first : last + 1] if 0 <= first < last else content


@cache
def request_texts() -> dict[str, Any]:
    """What ``prompts/teacher/request.yaml`` holds."""
    raw: dict[str, Any] = read_yaml("prompts", "teacher", "request.yaml")
    return raw
