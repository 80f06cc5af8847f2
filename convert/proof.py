"""Ask a server of llama.cpp's kind for one answer, through whichever endpoint brings one."""

import json
import urllib.request
from dataclasses import dataclass

from convert.server import post, send

_MAX_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Question:
    """One text for a server: as a chat message, and as the prompt that the chat template should make of it."""

    text: str
    prompt: str
    grammar: str
    system: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server wrote, and the endpoint that it wrote it through."""

    content: str
    endpoint: str


def require_server(url: str) -> None:
    """Refuse to begin where nobody answers.

    Raises:
        ServerError: the server cannot be reached or refuses.
    """
    send(urllib.request.Request(f"{url}/v1/models"))


def ask(url: str, question: Question) -> Answer:
    """Ask through ``/v1/chat/completions``, and where that brings nothing through ``/v1/completions``.

    Raises:
        ServerError: the server cannot be reached or refuses.
    """
    system = [{"role": "system", "content": question.system}] if question.system else []
    wish = {"temperature": 0, "max_tokens": _MAX_TOKENS, "grammar": question.grammar}
    messages = [*system, {"role": "user", "content": question.text}]
    choice = post(f"{url}/v1/chat/completions", {"messages": messages, **wish})["choices"][0]
    if content := choice["message"].get("content"):
        return Answer(content, "/v1/chat/completions")
    choice = post(f"{url}/v1/completions", {"prompt": question.prompt, **wish})["choices"][0]
    return Answer(choice["text"], "/v1/completions")


def emotion_of(content: str) -> str | None:
    """Return the emotion that an answer names; None where it is no answer of ours."""
    try:
        answer = json.loads(content)
    except ValueError:
        return None
    return answer.get("emotion") if isinstance(answer, dict) else None
