"""A client for OpenAI-compatible chat endpoints: retries what may pass, gives up at once on what will not."""

from __future__ import annotations

import json
import os
import random
import threading
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from toolkit.corpora.answers import Answer
from toolkit.corpora.ask_config import AskConfig
from toolkit.corpora.pace import Pace
from toolkit.corpora.request import Request, most_tokens
from toolkit.corpora.teachers import REFUSED, NoAnswer, RefusedError, TeacherError
from toolkit.errors import EmotionLRMError

KEY = "EMOTION_LRM_TEACHER_KEY"
LONGEST_WAIT = 600.0  # seconds that a server may ask us to wait; longer than this, a person should know
_LONGEST_BACKOFF = 60.0

try:
    import httpx
except ImportError:  # pragma: no cover - the extra is not installed
    raise EmotionLRMError(
        "Asking an endpoint needs the package httpx.", 'Install it with: pip install ".[data]"'
    ) from None


class Passing(Exception):  # noqa: N818 - no error: it may pass
    """A failure after which the same request may succeed.

    Args:
        wait: seconds that the server asks to wait, or None where it does not say.
    """

    def __init__(self, cause: str, wait: float | None = None) -> None:
        super().__init__(cause)
        self.wait = wait


class Endpoint:
    """One endpoint, asked from many threads. Used as a context.

    Args:
        url: the address up to and with ``/v1``.
        config: how patiently to ask.
    """

    def __init__(self, url: str, config: AskConfig) -> None:
        self.config = config
        self.pace = Pace(config.per_minute)
        self.retries = 0
        self._counting = threading.Lock()
        self._key = os.environ.get(KEY, "").strip()
        self._base = _checked(url)
        self.name = f"{self._base.host}:{self._base.port}" if self._base.port else self._base.host
        self.identity = f"{self._base.scheme}://{self.name}{self._base.path}"
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(max_connections=config.concurrency)
        self._client = httpx.Client(headers=headers, timeout=config.timeout, limits=limits)

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def stop(self) -> None:
        """Begin no further request; whoever waits to try again gives up."""
        self.pace.stop()

    def first_model(self) -> str | None:
        """The first model that the endpoint lists, or None where it lists none; proves that somebody answers.

        Raises:
            TeacherError: where nobody does, or the key is refused.
        """
        try:
            response = self._client.get(f"{self._base}/models")
        except httpx.HTTPError as error:
            raise TeacherError(
                f"The endpoint {self.name} does not answer ({type(error).__name__}).",
                "Start the server, or check the URL of --teacher.",
            ) from None
        self._refuse_key(response.status_code)
        try:
            return str(response.json()["data"][0]["id"])
        except (ValueError, KeyError, IndexError, TypeError):
            return None

    def ask(self, request: Request) -> Answer | NoAnswer:
        """The answer to ``request``, after as many attempts as it takes and the configuration allows.

        There is none where the endpoint says that the request is too large.

        Raises:
            RefusedError: where the endpoint refuses the request, which may be for its text.
            TeacherError: where it refuses the key, keeps failing, or was told to stop.
        """
        for attempt in range(self.config.retries + 1):
            self.pace.wait()
            if self.pace.stopped:
                break
            try:
                return self._send(request)
            except Passing as failure:
                if attempt == self.config.retries:
                    raise TeacherError(
                        f"The endpoint {self.name} keeps failing: {failure}.",
                        "Run the same command again later; answers are kept.",
                    ) from None
                with self._counting:
                    self.retries += 1
                self._back_off(attempt, failure.wait)
        raise TeacherError("Asking was stopped.", "Run the same command again to go on; answers are kept.")

    def _send(self, request: Request) -> Answer | NoAnswer:
        try:
            response = self._client.post(f"{self._base}/chat/completions", json=request.body())
        except httpx.TimeoutException:
            raise Passing(f"no answer within {self.config.timeout:g} s") from None
        except httpx.HTTPError as error:
            raise Passing(f"the connection broke ({type(error).__name__})") from None
        if response.status_code == 413:
            return REFUSED
        self._check(response)
        try:
            return _read(response.json(), request)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise Passing("it answers in another form than an OpenAI-compatible endpoint") from None

    def _check(self, response: httpx.Response) -> None:
        status = response.status_code
        if status == 200:
            return
        self._refuse_key(status)
        if status == 429 or status == 408 or status >= 500:
            raise Passing(f"it answers with status {status}", retry_after(response.headers.get("retry-after")))
        if status == 404:
            raise TeacherError(
                f"The endpoint {self.name} has no {self._base.path}/chat/completions, or not that model.",
                "Check --teacher, which mostly ends in /v1, and --teacher-model.",
            )
        said = _message(response).replace(self._key or "\0", "***")
        kind = RefusedError if status in (400, 422) else TeacherError  # what servers send where a prompt is too long
        raise kind(
            f"The endpoint {self.name} refuses the request (status {status}{said}).",
            "Check the model and the keys under cot.ask in the configuration.",
        )

    def _refuse_key(self, status: int) -> None:
        if status in (401, 403):
            cause = "refuses the key" if self._key else "wants a key"
            raise TeacherError(f"The endpoint {self.name} {cause} (status {status}).", f"Set {KEY} to a valid key.")

    def _back_off(self, attempt: int, asked: float | None) -> None:
        """Wait as long as the server asks, all threads together; else longer each time, and never in step."""
        if asked is None:
            longest = min(self.config.backoff * 2**attempt, _LONGEST_BACKOFF)
            self.pace.sleep(random.uniform(longest / 2, longest))
        elif asked > LONGEST_WAIT:
            raise TeacherError(
                f"The endpoint {self.name} asks to wait {asked:,.0f} s.",
                "Run the same command later; answers are kept.",
            )
        else:
            self.pace.hold(asked)


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """The seconds that a Retry-After header names, as a number or as a date; None where it names none."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def _checked(url: str) -> httpx.URL:
    """The base URL without a slash at its end.

    Raises:
        TeacherError: for what is no http address.
    """
    try:
        parsed = httpx.URL(url.rstrip("/"))
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise TeacherError("The URL of the teacher is not valid.", "Give one such as http://127.0.0.1:8080/v1.")
    if parsed.userinfo:
        raise TeacherError("The URL of the teacher holds a user name or key.", f"Take it out and set {KEY} instead.")
    return parsed


def _read(answer: Any, request: Request) -> Answer:
    content = answer["choices"][0]["message"]["content"]
    if content is None:
        content = ""
    if not isinstance(content, str):
        raise TypeError("the content is no string")
    usage = answer.get("usage") or {}
    tokens = usage.get("total_tokens")
    return Answer(content, tokens if isinstance(tokens, int) and tokens > 0 else most_tokens(request))


def _message(response: httpx.Response) -> str:
    """What the server says about its refusal, shortened, or nothing."""
    try:
        error = response.json()["error"]
        said = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        return ""
    return f": {json.dumps(str(said)[:200], ensure_ascii=False)}"
