"""What the OpenAPI document says is what the server does: schemathesis makes good and bad requests of it."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

READINGS, OTHERS = ("/analyze_text", "/analyze_batch"), ("/labels", "/health", "/ready")
EXAMPLES = 25


@pytest.fixture(scope="module")
def described(server: Any) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.parametrize("path", READINGS)
@pytest.mark.parametrize("kind", GenerationMode)
def test_good_requests_are_answered_and_bad_ones_refused_as_documented(
    described: Any, path: str, kind: GenerationMode
) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=HealthCheck)
    @given(described[path]["POST"].as_strategy(generation_mode=kind))
    def check(case: Any) -> None:
        case.call_and_validate(timeout=120)

    check()


@pytest.mark.parametrize("path", OTHERS)
def test_what_the_server_says_of_itself_is_as_documented(described: Any, path: str) -> None:
    described[path]["GET"].Case().call_and_validate()


def test_the_document_names_every_address(described: Any) -> None:
    documented = [one.ok().path for one in described.get_all_operations()]
    assert documented == [*READINGS, *OTHERS]
