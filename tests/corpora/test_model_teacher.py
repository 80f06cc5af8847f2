"""A model as teacher: asked once for each chain, within its budget, resumed when interrupted, judged by the gate."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.corpora.misbehaving import Reply, Script, chat, failure, narrow, serving
from toolkit.base import find_base_gguf, load_base
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.corpora.answers import Answer, AnswerStore
from toolkit.corpora.ask_config import AskConfig
from toolkit.corpora.commands import data
from toolkit.corpora.cot import CotConfig, enrich, judge
from toolkit.corpora.endpoint import KEY
from toolkit.corpora.jsonl import read_examples
from toolkit.corpora.knowledge import load_appraisals
from toolkit.corpora.lexicon import Lexicon
from toolkit.corpora.local_teacher import LocalModel
from toolkit.corpora.open_teacher import open_teacher
from toolkit.corpora.pace import Budget
from toolkit.corpora.request import most_tokens, read_answer, request_for
from toolkit.corpora.teachers import Ask, BudgetSpentError, NoAnswer, TeacherError
from toolkit.errors import UsageError

QUICK = AskConfig(backoff=0.01, retries=2, timeout=60, max_tokens=100)
EXAMPLES = [Example(f"Thank you so much for the {thing} today.", ("gratitude",), id=thing) for thing in ("song", "sea")]
CHAIN = "The words “Thank you” acknowledge a good turn that somebody has done for the author, which is gratitude."


def answer(body: dict[str, Any]) -> Reply:
    """What a good teacher writes, whoever is thanked or hated; a sixth of it is not in the form."""
    text = body["messages"][1]["content"].split("\n")[0].removeprefix("Text: ")
    label = body["messages"][1]["content"].split("Emotion: ")[1].split("\n")[0]
    quote = " ".join(text.split()[:2]).rstrip(".,")
    if len(text) % 6 == 0 and body["seed"] == 0:
        return chat("I think so.")
    known = load_appraisals(Lens.AUTHOR)[label]
    stance = known.stances[len(text) % len(known.stances)]
    reasoning = f"By saying “{quote}” of {text[-6:-1]}, the author {stance}, a sign of {label}."
    return chat(json.dumps({"reasoning": reasoning}))


@pytest.fixture
def endpoint() -> Iterator[Script]:
    with serving(Script(answer=answer)) as script:
        yield script


def write(script: Script, folder: Path, config: AskConfig = QUICK, count: int = 2) -> list[str | NoAnswer]:
    with open_teacher(script.url, config, folder / "answers.jsonl") as teacher_for:
        return list(teacher_for(None).write_all([Ask(e) for e in EXAMPLES[:count]]))  # type: ignore[arg-type]


def test_nothing_is_asked_twice(endpoint: Script, tmp_path: Path) -> None:
    first = write(endpoint, tmp_path)
    assert len(endpoint.bodies) == 2
    assert write(endpoint, tmp_path) == first
    assert len(endpoint.bodies) == 2
    write(endpoint, tmp_path, QUICK.model_copy(update={"temperature": 0.9}))
    assert len(endpoint.bodies) == 4  # another temperature is another request


def test_servers_that_name_their_models_alike_share_no_answers(endpoint: Script, tmp_path: Path) -> None:
    first = write(endpoint, tmp_path)
    with serving(Script(answer=lambda _: chat(json.dumps({"reasoning": "Another model wrote this."})))) as other:
        assert write(other, tmp_path) == ["Another model wrote this."] * 2
        assert len(other.bodies) == 2
    assert write(endpoint, tmp_path) == first
    endpoint.url += "/"
    assert write(endpoint, tmp_path) == first
    assert len(endpoint.bodies) == 2


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_text_that_is_refused_goes_without_and_is_asked_again_another_time(status: int, tmp_path: Path) -> None:
    def picky(body: dict[str, Any]) -> Reply:
        return failure(status) if "the sea" in body["messages"][1]["content"] else answer(body)

    alone = QUICK.model_copy(update={"concurrency": 1})
    with serving(Script(answer=picky)) as script:
        for asked in (2, 3):  # the second time the first answer is known, which says that not everything is refused
            first, second = write(script, tmp_path, alone)
            assert isinstance(first, str)
            assert second == NoAnswer("request refused")
            assert len(script.bodies) == asked
        script.answer = answer
        assert NoAnswer("request refused") not in write(script, tmp_path, alone)
    with AnswerStore(tmp_path / "answers.jsonl") as store:
        assert len(store) == 2


def test_a_run_ends_where_the_first_request_is_refused(tmp_path: Path) -> None:
    with serving(Script(replies=[failure(400, "no such model")], answer=answer)) as script:
        with pytest.raises(TeacherError, match="no such model"):
            write(script, tmp_path, QUICK.model_copy(update={"concurrency": 1}))
        assert len(script.bodies) <= 2


def test_a_first_request_that_is_refused_waits_for_those_begun_beside_it(tmp_path: Path) -> None:
    def late(body: dict[str, Any]) -> Reply:
        if "the song" in body["messages"][1]["content"]:
            return failure(400)
        time.sleep(0.3)
        return answer(body)

    both = QUICK.model_copy(update={"concurrency": 2})
    with serving(Script(answer=late)) as script:
        first, second = write(script, tmp_path, both)
        assert first == NoAnswer("request refused")
        assert second != NoAnswer("request refused")
    refusing = Script(answer=lambda _: failure(400))
    with serving(refusing), pytest.raises(TeacherError, match="refuses the request"):
        write(refusing, tmp_path, both)


def test_texts_too_long_for_a_server_are_given_up_and_counted(
    corpus: list[Example], lexicon: Lexicon, tmp_path: Path
) -> None:
    config = CotConfig(per_label=4, caps={}, opening_share=1.0, attempts=2)
    with (
        serving(Script(answer=narrow(36, answer))) as script,
        open_teacher(script.url, QUICK, tmp_path / "a.jsonl") as teacher_for,
    ):
        chains, report = enrich(corpus, judge(corpus, lexicon, corpus), lexicon, config, teacher_for(lexicon))
    assert len(chains) > 8
    assert max(len(chain.text) for chain in chains) <= 36
    assert report.given_up["request refused"] > 0
    assert report.refused["request refused"] == 2 * report.given_up["request refused"]
    assert report.usage["asked"] == len(script.bodies) - report.refused["request refused"]


def test_a_damaged_last_line_costs_that_answer_only(endpoint: Script, tmp_path: Path) -> None:
    write(endpoint, tmp_path)
    file = tmp_path / "answers.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    write(endpoint, tmp_path)
    assert len(endpoint.bodies) == 3
    write(endpoint, tmp_path)
    assert len(endpoint.bodies) == 3


def test_lines_of_any_kind_are_survived(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_bytes(b'\n[]\n{"key": 1}\n\xff\xfe\n{"key": "k", "content": "c", "tokens": 3}\n{"key": "l"')
    with AnswerStore(file) as store:
        assert store.get("k") == Answer("c", 3)
        assert len(store) == 1
        store.add("m", Answer("d", 4))
    with AnswerStore(file) as store:
        assert store.get("m") == Answer("d", 4)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"reasoning": "So  it\\nis."}', "So it is."),
        ('Sure! ```json\n{"reasoning": "So it is."}\n```', "So it is."),
        ('{"reasoning": "The \\"bad\\" one."}', "The “bad” one."),
        ("", NoAnswer("empty answer")),
        (" \n", NoAnswer("empty answer")),
        ("So it is.", NoAnswer("answer is not JSON")),
        ('{"reasoning": "cut', NoAnswer("answer is not JSON")),
        ("[" * 100_000, NoAnswer("answer is not JSON")),
        ('{"reason": "x"}', NoAnswer("answer has no reasoning")),
        ('{"reasoning": 3}', NoAnswer("answer has no reasoning")),
        ("[1]", NoAnswer("answer has no reasoning")),
    ],
)
def test_answers_are_read_or_refused_with_a_reason(content: str, expected: str | NoAnswer) -> None:
    assert read_answer(content) == expected


def test_an_empty_content_is_an_empty_answer(tmp_path: Path) -> None:
    with serving(Script(answer=lambda _: chat(None))) as script:
        assert write(script, tmp_path) == [NoAnswer("empty answer")] * 2


def test_a_later_attempt_is_warmer_and_another_request() -> None:
    requests = [request_for(Ask(EXAMPLES[0], attempt), "m", QUICK) for attempt in range(9)]
    assert [r.temperature for r in requests] == [0.4, 0.6, 0.8, 1.0, 1.2, 1.2, 1.2, 1.2, 1.2]
    assert len({r.key for r in requests}) == 9
    assert "anger" in request_for(Ask(EXAMPLES[0], 0, "anger"), "m", QUICK).user


def test_the_budget_is_never_passed(endpoint: Script, tmp_path: Path) -> None:
    most = most_tokens(request_for(Ask(EXAMPLES[0]), "first", QUICK))
    tight = QUICK.model_copy(update={"max_tokens_total": most + 50, "concurrency": 1})
    with pytest.raises(BudgetSpentError, match="tokens is spent"):
        write(endpoint, tmp_path, tight)
    assert len(endpoint.bodies) == 1
    write(endpoint, tmp_path, tight)  # what is known costs nothing
    assert len(endpoint.bodies) == 2


def test_what_is_under_way_counts_against_the_budget() -> None:
    budget = Budget(100)
    budget.reserve(60)
    with pytest.raises(BudgetSpentError):
        budget.reserve(60)
    budget.settle(60, 20)
    budget.reserve(60)
    assert budget.spent == 20


def test_chains_of_a_model_pass_the_same_gate(
    endpoint: Script, corpus: list[Example], lexicon: Lexicon, tmp_path: Path
) -> None:
    config = CotConfig(per_label=4, caps={}, opening_share=1.0, attempts=2)
    with open_teacher(endpoint.url, QUICK, tmp_path / "a.jsonl") as teacher_for:
        judged = judge(corpus, lexicon, corpus)
        chains, report = enrich(corpus, judged, lexicon, config, teacher_for(lexicon))
    assert report.written == len(chains) > 8
    assert report.refused["answer is not JSON"] > 0
    assert report.usage["asked"] == len(endpoint.bodies) == report.written + sum(report.refused.values())
    assert report.usage["tokens"] == 100 * len(endpoint.bodies)
    assert all(len(r.reasoning) > 0 for r in report.refusals)


def test_a_model_that_argues_for_another_label_is_refused(
    corpus: list[Example], lexicon: Lexicon, tmp_path: Path
) -> None:
    """Whatever it is asked for and names, it describes anger."""

    def angry(body: dict[str, Any]) -> Reply:
        label = body["messages"][1]["content"].split("Emotion: ")[1].split("\n")[0]
        quote = " ".join(body["messages"][1]["content"].removeprefix("Text: ").split()[:2]).rstrip(".,")
        chain = f"With “{quote}” the author lashes out at somebody to blame and wants them punished, which is {label}."
        return chat(json.dumps({"reasoning": chain}))

    config = CotConfig(per_label=4, caps={}, opening_share=1.0, attempts=1)
    with (
        serving(Script(answer=angry)) as script,
        open_teacher(script.url, QUICK, tmp_path / "a.jsonl") as teacher_for,
    ):
        judged = judge(corpus, lexicon, corpus)
        chains, report = enrich(corpus, judged, lexicon, config, teacher_for(lexicon))
    assert {chain.labels[0] for chain in chains} == {"anger"}
    assert report.refused["argues for another label"] > 8


def test_a_spent_budget_leaves_what_was_written(
    endpoint: Script, corpus: list[Example], lexicon: Lexicon, tmp_path: Path
) -> None:
    config = CotConfig(per_label=9, caps={}, opening_share=1.0)
    small = QUICK.model_copy(update={"max_tokens_total": 1500, "concurrency": 1})
    with open_teacher(endpoint.url, small, tmp_path / "a.jsonl") as teacher_for:
        chains, report = enrich(corpus, judge(corpus, lexicon, corpus), lexicon, config, teacher_for(lexicon))
    assert 0 < len(chains) < 15
    assert "1,500 tokens is spent" in str(report.stopped)


def test_a_failing_endpoint_ends_the_run_and_keeps_the_answers(tmp_path: Path) -> None:
    replies = [chat(json.dumps({"reasoning": CHAIN}))]
    broken = Script(replies=replies, answer=lambda _: failure(500))
    with serving(broken), pytest.raises(TeacherError, match="keeps failing"):
        write(broken, tmp_path, QUICK.model_copy(update={"concurrency": 1}))
    with AnswerStore(tmp_path / "answers.jsonl") as store:
        assert len(store) == 1


def test_an_unknown_teacher_a_missing_file_and_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(10))
    for name, kind, message in (
        ("oracle", UsageError, "no teacher 'oracle'"),
        (str(tmp_path / "no.gguf"), TeacherError, "no.gguf"),
        (str(tmp_path / "bad.gguf"), TeacherError, "bad.gguf"),
    ):
        with pytest.raises(kind, match=message), open_teacher(name, QUICK, tmp_path / "answers.jsonl"):
            pass


def test_the_command_asks_an_endpoint_and_goes_on_where_it_stopped(
    endpoint: Script, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "sk-secret")
    out, config = tmp_path / "out", tmp_path / "cot.yaml"
    config.write_text("cot: {per_label: 3, caps: {}, val_per_label: 0, opening_share: 1.0}", encoding="utf-8")
    args = ["cot", "--source", str(source), "--out", str(out), "--config", str(config), "--teacher", endpoint.url]
    result = CliRunner().invoke(data, [*args, "--max-tokens-total", "1200"])
    assert result.exit_code == 0, result.output
    assert "The budget of 1,200 tokens is spent" in result.stderr
    asked = len(endpoint.bodies)
    result = CliRunner().invoke(data, args)
    assert result.exit_code == 0, result.output
    report = json.loads((out / "goemotions_cot_report.json").read_text(encoding="utf-8"))["train"]
    assert report["usage"]["known"] == asked
    chains = list(read_examples(out / "goemotions_cot_train.jsonl"))
    assert len(chains) == report["written"] > 8
    assert (out / "goemotions_cot_refused.jsonl").is_file()
    assert all(b"sk-secret" not in file.read_bytes() for file in out.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
def test_an_interruption_keeps_what_was_paid_for(source: Path, tmp_path: Path) -> None:
    started: list[int] = []
    once = threading.Lock()

    def interrupting(body: dict[str, Any]) -> Reply:
        if len(script.bodies) == 3 and once.acquire(blocking=False):  # a second Ctrl-C would end the wait
            os.kill(started[0], signal.SIGINT)
        return answer(body)

    with serving(Script(answer=interrupting)) as script:
        command = [sys.executable, "-m", "toolkit.cli", "data", "cot", "--source", str(source)]
        command += ["--out", str(tmp_path / "out"), "--teacher", script.url]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process.pid)
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    with AnswerStore(tmp_path / "out" / "goemotions_cot_answers.jsonl") as store:
        assert 3 <= len(store) == len(script.bodies)


def test_an_answer_under_way_is_kept_even_where_the_pool_lost_its_thread(tmp_path: Path) -> None:
    def late(body: dict[str, Any]) -> Reply:
        time.sleep(0.5)
        return answer(body)

    with serving(Script(answer=late)) as script:
        with open_teacher(script.url, QUICK, tmp_path / "answers.jsonl") as teacher_for:
            teacher: Any = teacher_for(None)  # type: ignore[arg-type]
            teacher._pool.submit(teacher._answer, request_for(Ask(EXAMPLES[0]), "first", QUICK))
            while not script.bodies:
                time.sleep(0.01)
            teacher._pool._threads.clear()  # as Ctrl-C between the start of a thread and its entry there does
        with AnswerStore(tmp_path / "answers.jsonl") as store:
            assert len(store) == len(script.bodies) == 1


@pytest.fixture(scope="module")
def base_gguf() -> Path:
    return find_base_gguf(load_base("smollm2-135m"))


def test_a_model_in_this_process_answers(base_gguf: Path) -> None:
    config = AskConfig(max_tokens=40, context=1024)
    with LocalModel(base_gguf, config) as local:
        request = request_for(Ask(EXAMPLES[0]), local.identity, config)
        first = local.ask(request)
        assert first == local.ask(request)
        assert isinstance(first, Answer)
        assert isinstance(read_answer(first.content), str)
        assert 100 < first.tokens < 500


def ask_local(
    model: Path, context: int, example: Example, answers: Path
) -> tuple[list[str | NoAnswer], dict[str, int]]:
    config = AskConfig(max_tokens=16, context=context)
    with open_teacher(str(model), config, answers) as teacher_for:
        teacher = teacher_for(None)  # type: ignore[arg-type]
        return list(teacher.write_all([Ask(example)])), teacher.usage()


def test_a_prompt_that_does_not_fit_is_not_kept_and_is_asked_where_it_fits(base_gguf: Path, tmp_path: Path) -> None:
    long, answers = Example("so " * 400, ("gratitude",)), tmp_path / "answers.jsonl"
    told, usage = ask_local(base_gguf, 512, long, answers)
    assert told == [NoAnswer("prompt exceeds the context")]
    assert (usage["asked"], usage["tokens"], answers.read_bytes()) == (0, 0, b"")
    told, usage = ask_local(base_gguf, 1024, long, answers)
    assert told != [NoAnswer("prompt exceeds the context")]
    assert (usage["asked"], usage["known"]) == (1, 0)


def test_a_model_in_a_file_is_known_by_what_it_holds(base_gguf: Path, tmp_path: Path) -> None:
    answers, copy = tmp_path / "answers.jsonl", tmp_path / "another-name.gguf"
    shutil.copy(base_gguf, copy)
    first, _ = ask_local(base_gguf, 1024, EXAMPLES[0], answers)
    again, usage = ask_local(copy, 1024, EXAMPLES[0], answers)
    assert again == first
    assert (usage["asked"], usage["known"]) == (0, 1)
    other = tmp_path / "other" / base_gguf.name  # the same name, the same size, and one bit of a weight
    other.parent.mkdir()
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    _, usage = ask_local(other, 1024, EXAMPLES[0], answers)
    assert (usage["asked"], usage["known"]) == (1, 0)
