"""Every nasty text through every door: it is read and comes back as it was, or is refused in a sentence."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from toolkit import EmotionModel
from toolkit.apps.chat import CHOICES, Talk
from toolkit.apps.chat_prompt import messages
from toolkit.apps.escape import visible
from toolkit.errors import UsageError
from toolkit.inference.async_model import AsyncEmotionModel
from toolkit.inference.worker import WorkerModel
from toolkit.settings import Settings

from .conftest import Run, as_typed, check_reading, check_sentence, has_nothing_hidden, records
from .nasty import BLANK, LARGE, NAMES, NASTY, RAW, is_one_line

MODES = ("fast", "explain")
Texts = dict[str, str]


# One text on the command line


@pytest.mark.parametrize("name", [name for name in NAMES if "\x00" not in NASTY.get(name, "") and name not in LARGE])
def test_an_argument(run: Run, texts: Texts, name: str) -> None:
    code, out, err = run("--json", *(["--"] if texts[name].startswith("-") else []), texts[name])
    assert (code, err) == (0, "")
    (found,) = records(out)
    check_reading(found, texts[name], "explain")


def test_arguments_as_the_system_passes_them(tiny: Path, texts: Texts) -> None:
    given = [text.encode("utf-8", "surrogatepass") for name, text in texts.items() if name not in LARGE]
    given = [raw for raw in [*given, *(raw for raw, _ in RAW.values()), b"x" * 100_000] if b"\x00" not in raw]
    options = ["analyze", "--json", "--mode", "fast", "--model", str(tiny), "--threads", "1", "--"]
    command: list[str | bytes] = [sys.executable, "-m", "toolkit.cli", *options, *given]
    done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONUTF8": "1"})
    found = records(done.stdout)
    assert [one["text"].encode("utf-8", "surrogateescape") for one in found] == given
    for one in found:
        check_reading(one, one["text"], "fast")


@pytest.mark.parametrize("text", BLANK.values(), ids=BLANK)
def test_an_argument_without_words_is_wrong_usage(run: Run, text: str) -> None:
    for arguments, stdin in ((["analyze", text], b""), (["-"], text.encode())):
        code, out, err = run(*arguments, stdin=stdin)
        assert "The text is empty." in check_sentence(code, err, 2)
        assert not out


# Standard input


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES)
def test_standard_input(run: Run, texts: Texts, name: str, mode: str) -> None:
    code, out, err = run("--json", "--mode", mode, "-", stdin=texts[name].encode("utf-8", "surrogatepass"))
    assert (code, err) == (0, "")
    (found,) = records(out)
    check_reading(found, as_typed(texts[name]).removeprefix("\ufeff"), mode)


@pytest.mark.parametrize("name", RAW)
def test_standard_input_that_is_no_utf_8(run: Run, name: str) -> None:
    raw, text = RAW[name]
    code, out, _ = run("--json", "--mode", "fast", "-", stdin=raw)
    assert code == 0
    check_reading(records(out)[0], text, "fast")


def test_lines_of_standard_input(run: Run, texts: Texts) -> None:
    wanted = [text for text in texts.values() if is_one_line(text)]
    raw = b"\n".join([*(text.encode("utf-8", "surrogatepass") for text in wanted), *(raw for raw, _ in RAW.values())])
    code, out, err = run("analyze", "--lines", "--json", "--mode", "fast", "-", stdin=raw + b"\n\n \n")
    assert code == 3
    assert err.count("is empty and was not read") == 2
    expected = [*(as_typed(text).removeprefix("\ufeff") for text in wanted), *(text for _, text in RAW.values())]
    found = records(out)
    assert [one["text"] for one in found] == expected
    for one, text in zip(found, expected, strict=True):
        check_reading(one, text, "fast")


# Panels


@pytest.mark.parametrize("name", NAMES)
def test_a_panel_shows_and_does_nothing_else(run: Run, texts: Texts, name: str) -> None:
    code, out, _ = run("-", stdin=texts[name].encode("utf-8", "surrogatepass"))
    shown = out.decode()
    assert code == 0
    assert has_nothing_hidden(shown)
    assert len(shown) < 3_000
    beginning = visible(as_typed(texts[name]).removeprefix("\ufeff")).split()[:1]
    assert all(word[:20] in shown.replace("»", "").replace("«", "") for word in beginning)


def test_the_chat_in_a_pipe(run: Run, texts: Texts) -> None:
    said = [text for text in texts.values() if is_one_line(text)]
    stdin = b"\n".join(text.encode("utf-8", "surrogatepass") for text in [*said, *BLANK.values()])
    code, out, err = run("chat", stdin=stdin + b"\n" + b"\n".join(raw for raw, _ in RAW.values()))
    shown = out.decode()
    assert (code, err) == (0, "")
    assert shown.count("tiny · author lens · goemotions") == len(said) + len(RAW)
    assert has_nothing_hidden(shown)


def talked(worker: WorkerModel, said: Iterator[str]) -> tuple[Talk, str]:
    """A chat with somebody at a terminal of sixty columns, and what it shows less what moves the cursor."""
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=True, color_system=None, width=60, highlight=False, markup=False, emoji=False
    )
    talk = Talk(lambda _: worker, Settings(), console, interactive=True)
    talk.run(said)
    return talk, re.sub(r"\x1b\[(\?25[lh]|[12][AK])|\r", "", file.getvalue())


def test_the_chat_with_somebody_at_a_terminal(worker: WorkerModel, texts: Texts) -> None:
    talk, shown = talked(worker, iter([*texts.values(), *BLANK.values()]))
    assert talk.failed == 0
    for turn, text in zip(talk.conversation.turns, texts.values(), strict=True):
        check_reading(turn.to_dict(), text, "explain")
    assert has_nothing_hidden(shown)


def test_what_is_pasted_into_the_editor_is_read_as_one_message(worker: WorkerModel, texts: Texts) -> None:
    pasted = {name: text for name, text in (texts | BLANK).items() if name not in LARGE}
    with create_pipe_input() as source:
        for text in pasted.values():
            source.send_bytes(b"\x1b[200~" + text.encode("utf-8", "surrogatepass") + b"\x1b[201~\r")
        source.send_bytes(b"\x04")
        talk, shown = talked(worker, messages(CHOICES, source, DummyOutput()))
    assert talk.failed == 0
    expected = [text.replace("\r\n", "\n") for name, text in pasted.items() if name not in BLANK]
    heard = [turn.text.encode("utf-8", "surrogateescape") for turn in talk.conversation.turns]
    assert heard == [text.encode("utf-8", "surrogatepass") for text in expected]
    assert has_nothing_hidden(shown)


# Files


def as_csv(path: Path, texts: Texts, delimiter: str = ",") -> None:
    with open(path, "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([("id", "text"), *texts.items()])


def as_lines(path: Path, texts: Texts) -> None:
    path.write_bytes(b"".join(text.encode("utf-8", "surrogatepass") + b"\n" for text in texts.values()))


def as_jsonl(path: Path, texts: Texts) -> None:
    path.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()))


def as_parquet(path: Path, texts: Texts) -> None:
    parquet.write_table(arrow.table({"id": list(texts), "text": list(texts.values())}), path)


FORMS = {
    "csv": as_csv,
    "tsv": lambda path, texts: as_csv(path, texts, "\t"),
    "jsonl": as_jsonl,
    "txt": as_lines,
    "parquet": as_parquet,
}


def carried(form: str, texts: Texts) -> Texts:
    """The texts that can stand in a file of that form, and blank ones."""
    given = texts | BLANK
    if form == "txt":
        return {name: text for name, text in given.items() if is_one_line(text)}
    return {name: text for name, text in given.items() if form != "parquet" or not name.startswith("lone")}


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_texts(run: Run, texts: Texts, tmp_path: Path, form: str, packed: str) -> None:
    given = carried(form, texts)
    if packed:
        given = {name: text for name, text in given.items() if name not in LARGE}
    source, out = tmp_path / f"in.{form}", tmp_path / "out.jsonl"
    FORMS[form](source, given)
    if packed:
        source = tmp_path / f"in.{form}.gz"
        source.write_bytes(gzip.compress((tmp_path / f"in.{form}").read_bytes(), 1))
    code, _, err = run("batch", str(source), "-o", str(out), "--mode", "fast")
    assert code == 0, err
    found = records(out.read_bytes())
    assert [row["status"] for row in found] == ["empty" if name in BLANK else "ok" for name in given]
    for row, (name, text) in zip(found, given.items(), strict=True):
        if form != "txt":
            assert row["id"] == name
        if row["status"] == "ok" and name != "lone surrogate":
            check_reading(row, text, "fast")
    assert (form != "jsonl") or found[2]["text"] == texts["lone surrogate"]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_every_text_with_reasoning_in_every_output(run: Run, texts: Texts, tmp_path: Path, form: str) -> None:
    given = {name: text for name, text in texts.items() if name not in LARGE} | BLANK
    as_jsonl(tmp_path / "in.jsonl", given)
    out = tmp_path / f"out.{form}"
    code, _, err = run("batch", str(tmp_path / "in.jsonl"), "-o", str(out))
    assert code == 0, err
    rows: list[dict[str, Any]]
    if form == "jsonl":
        rows = records(out.read_bytes())
        for row in rows[: -len(BLANK)]:
            check_reading(row, given[row["id"]], "explain")
    elif form == "csv":
        with open(out, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert not any(row["text"].startswith(("=", "+", "-", "@")) for row in rows)
        assert all(row["reasoning"] for row in rows[: -len(BLANK)])
    else:
        rows = parquet.read_table(out).to_pylist()
    assert [row["id"] for row in rows] == list(given)


def test_both_lenses_read_every_text(run: Run, texts: Texts, tmp_path: Path) -> None:
    given = {name: text for name, text in texts.items() if name not in LARGE}
    as_jsonl(tmp_path / "in.jsonl", given)
    out = tmp_path / "out.jsonl"
    assert run("batch", str(tmp_path / "in.jsonl"), "-o", str(out), "--lens", "both", "--mode", "fast")[0] == 0
    for row in records(out.read_bytes()):
        for lens in ("author", "reader"):
            check_reading(row[lens], given[row["id"]], "fast")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_file_to_judge(run: Run, texts: Texts, tmp_path: Path, form: str, mode: str) -> None:
    large = LARGE if mode == "fast" and form == "jsonl" else {}
    given = {name: text for name, text in texts.items() if name not in LARGE or name in large} | BLANK
    path = tmp_path / f"labels.{form}"
    if form == "jsonl":
        lines = [json.dumps({"text": text, "emotion": "joy"}) + "\n" for text in given.values()]
        path.write_text("".join(lines))
    else:
        given.pop("lone surrogate")  # no UTF-8
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "emotion"), *((text, "joy") for text in given.values())])
    code, out, err = run("evaluate", str(path), "--json", "--mode", mode)
    assert code == 0, err
    told = json.loads(out)
    assert told["n"] == len(given)
    assert told["valid_rate"] == (1.0 if mode == "explain" else None)


# Python


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_the_python_api(model: EmotionModel, worker: WorkerModel, texts: Texts, name: str, mode: str) -> None:
    for reader in (model, worker):
        check_reading(reader.analyze(texts[name], mode=mode).to_dict(), texts[name], mode)


def test_all_texts_together(model: EmotionModel, worker: WorkerModel, texts: Texts) -> None:
    wanted = [text for name, text in texts.items() if name not in LARGE]

    async def asked() -> list[Any]:
        return [found async for found in AsyncEmotionModel(worker).analyze_many(wanted)]

    for found in (model.analyze_many(wanted), worker.outcomes(wanted), asyncio.run(asked())):
        for reading, text in zip(found, wanted, strict=True):
            check_reading(reading.to_dict(), text, "explain")


@pytest.mark.parametrize("text", [*BLANK.values(), None, 7, b"bytes", ["a"]], ids=ascii)
def test_what_is_no_text_is_wrong_usage_in_python(model: EmotionModel, worker: WorkerModel, text: Any) -> None:
    for ask in (model.analyze, worker.analyze, worker.submit, worker.stream, model.compare, worker.compare):
        with pytest.raises(UsageError, match=r"empty|no string"):
            ask(text)


def test_what_is_no_text_fails_alone(worker: WorkerModel) -> None:
    given: list[Any] = ["good", "", None, b"bytes", "good too"]
    found = list(worker.outcomes(given, mode="fast"))
    assert [isinstance(one, UsageError) for one in found] == [False, True, True, True, False]


def test_standard_input_can_be_a_file_of_any_form(run: Run, texts: Texts, tmp_path: Path) -> None:
    for form in FORMS:
        given = {name: text for name, text in carried(form, texts).items() if name not in LARGE}
        buffer = tmp_path / f"in.{form}"
        FORMS[form](buffer, given)
        for packed in (False, True):
            raw = gzip.compress(buffer.read_bytes(), 1) if packed else buffer.read_bytes()
            out = tmp_path / f"{form}{packed}.jsonl"
            code, _, err = run("batch", "-", "-o", str(out), "--mode", "fast", stdin=raw)
            assert code == 0, err
            assert len(records(out.read_bytes())) == len(given), (form, packed)


def test_the_table_is_what_it_says() -> None:
    assert len(set(NASTY.values())) == len(NASTY)
    assert io.StringIO(NASTY["windows line ends"], newline="").read() == "one\r\ntwo"
    assert not any(text.strip() for text in BLANK.values())
