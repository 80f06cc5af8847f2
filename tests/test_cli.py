"""The command line: what it loads, what it takes for a text, and how it says that something went wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from convert.errors import ConvertError
from toolkit import cli as command_line
from toolkit.cli import COMMANDS, cli, explain, main, nearest_command
from toolkit.errors import ConfigError, DataError, EmotionLRMError, UsageError

HEAVY = ("numpy", "llama_cpp", "torch", "pydantic", "rich", "yaml", "transformers", "datasets", "gguf", "ray")


def run(*args: str, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    """`emotion-lrm` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "toolkit.cli", *args], input=stdin, capture_output=True, env={**os.environ, **environ}
    )


def modules_after(*args: str) -> set[str]:
    """Which of the heavy packages a command has imported when it ends."""
    code = (
        "import sys; from toolkit.cli import main; main(sys.argv[1:]); "
        f"print(*[m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("args", [("--help",), ("--version",), ()])
def test_listing_commands_loads_none_of_them(args: tuple[str, ...]) -> None:
    assert modules_after(*args) == set()


def test_help_appears_at_once() -> None:
    def seconds() -> float:
        # Of processor time: the wall clock would measure what else the machine is doing.
        before = os.times()
        assert run("--help").returncode == 0
        after = os.times()
        return after.children_user - before.children_user + after.children_system - before.children_system

    assert min(seconds() for _ in range(3)) < 0.4


def test_analysis_never_loads_the_training_packages() -> None:
    assert not modules_after("--model", "missing.gguf", "some text") & {"torch", "transformers", "datasets"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_listed_summary_is_the_command_s_own_first_line(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert (command.help or "").strip().splitlines()[0] == COMMANDS[name][1]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Replaces the callback of `analyze` and hands out what it was called with."""
    from toolkit.apps.analyze import analyze

    calls: dict[str, object] = {}
    monkeypatch.setattr(analyze, "callback", lambda **given: calls.update(given))
    return calls


@pytest.mark.parametrize(
    ("args", "texts", "options"),
    [
        (["I feel ignored"], ("I feel ignored",), {}),
        (["wonderful"], ("wonderful",), {}),
        (["--json", "I feel ignored"], ("I feel ignored",), {"as_json": True}),
        (["--mode", "fast", "train"[:2] + "uth"], ("truth",), {"mode": "fast"}),
        (["I feel ignored", "--json", "-q"], ("I feel ignored",), {"as_json": True}),
        (["-q", "--debug", "--lines", "-"], ("-",), {"lines": True}),
        (["-5 degrees and I love it"], ("-5 degrees and I love it",), {}),
        (["--", "train"], ("train",), {}),
        (["analyze", "train", "models"], ("train", "models"), {}),
        (["--model=my file.gguf", "x y"], ("x y",), {"model": "my file.gguf"}),
    ],
)
def test_a_lone_argument_is_a_text(
    heard: dict[str, object], args: list[str], texts: tuple[str, ...], options: dict[str, object]
) -> None:
    assert main(args) == 0
    assert heard["texts"] == texts
    expected = {"as_json": False, "lines": False, "mode": None, "model": None} | options
    assert {key: heard[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["analyse"], "analyze"),
        (["evalute"], "evaluate"),
        (["Train"], "train"),
        (["evalute", "goemotions", "--split", "dev"], "evaluate"),
        (["I", "feel", "sad"], "analyze"),
        (["modles", "list"], "models"),
        (["--json", "analyse"], "analyze"),
        (["help"], "--help"),
        (["--jsno", "text"], "--json"),
        (["--json", "train", "x.yaml"], "after its name"),
        (["analyze", "--taxonomy", "plutchik", "text"], "ekman"),
        (["models", "lst"], "list"),
    ],
)
def test_wrong_usage_is_two_lines_that_name_the_nearest(
    args: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    told = capsys.readouterr()
    assert told.out == ""
    cause, step = told.err.splitlines()
    assert cause.startswith("Error: ")
    assert named in cause
    assert step.startswith("See: emotion-lrm")


@pytest.mark.parametrize("word", ["happy", "sad", "fun", "no", "dog", "why?", "wow", "🙂", "I'm"])
def test_ordinary_words_are_no_commands(word: str) -> None:
    assert nearest_command(word) is None


@pytest.mark.parametrize(
    ("error", "code", "cause", "hint"),
    [
        (EmotionLRMError("It broke.", "Mend it."), 1, "It broke.", "Mend it."),
        (UsageError("No.", "Yes."), 2, "No.", "Yes."),
        (ConfigError("No.", "Yes."), 2, "No.", "Yes."),
        (DataError("Gone.", "Look."), 1, "Gone.", "Look."),
        (ConvertError("Bad file.", "Fetch it."), 1, "Bad file.", "Fetch it."),
        (KeyboardInterrupt(), 130, "Interrupted.", ""),
        (click.Abort(), 130, "Interrupted.", ""),
        (click.UsageError("Odd."), 2, "Odd.", "See: emotion-lrm --help"),
        (PermissionError(13, "Permission denied", "/x"), 1, "Permission denied: /x.", "Check the path"),
        (MemoryError(), 1, "There is not enough memory.", "Close"),
        (ValueError("bug"), 1, "Unexpected ValueError: bug", "Run it again with --debug"),
    ],
)
def test_every_failure_has_a_code_a_cause_and_a_step(error: BaseException, code: int, cause: str, hint: str) -> None:
    found = explain(error)
    assert found[:2] == (code, cause)
    assert found[2].startswith(hint)


@pytest.mark.parametrize("debug", [False, True])
def test_a_traceback_only_with_debug(debug: bool, heard: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    from toolkit.apps import analyze as module

    def fail(**_: object) -> None:
        raise EmotionLRMError("It \x1b[31mbroke\u202e.", "Mend it.")

    module.analyze.callback = fail
    assert main(["some text", *["--debug"] * debug]) == 1
    told = capsys.readouterr().err
    assert told.endswith("Error: It \\x1b[31mbroke\\u202e.\nMend it.\n")
    assert ("Traceback" in told) is debug


def test_processes_end_with_the_documented_codes() -> None:
    assert run("--version").stdout == b"emotion-lrm 0.1.0\n"
    for args, code in (
        (("--help",), 0),
        ((), 0),
        (("",), 2),
        (("analyze", "x", " \t"), 2),
        (("analyze",), 2),
        (("--lens", "both", "--taxonomy", "ekman", "x y"), 2),
        (("--model", "missing.gguf", "x y"), 1),
        (("evaluate", "nonsense"), 2),
    ):
        done = run(*args)
        assert done.returncode == code, (args, done.stderr)
        assert b"Traceback" not in done.stderr
    assert run("-", stdin=b"\n").returncode == 2


def test_an_interrupted_process_ends_with_130() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit.cli", "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b"x" * 1_000_000)  # more than a pipe holds: when it is through, the process reads its text
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    assert told.decode().strip() == "Error: Interrupted."


def test_a_reader_that_goes_away_is_no_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen([sys.executable, "-m", "toolkit.cli", "--help"], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, told = process.communicate(timeout=120)
    assert (process.returncode, told) == (0, b"")


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_stands_before_or_after_the_command(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.settings import is_quiet

    found: list[bool] = []

    @click.command()
    def probe() -> None:
        found.append(is_quiet())

    monkeypatch.setitem(COMMANDS, "probe", (f"{__name__}:probe", ""))
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__, command_line))
    monkeypatch.setattr(command_line, "import_module", lambda _: type("Module", (), {"probe": probe}))
    args = ["-q", "probe"] if place == "before" else ["probe", "-q"]
    result = CliRunner().invoke(cli, args)
    assert (result.exit_code, found) == (0, [True])


def test_the_readme_of_the_help_names_every_option_in_sixty_columns(tmp_path: Path) -> None:
    done = run("analyze", "--help", COLUMNS="60", HOME=str(tmp_path))
    text = done.stdout.decode()
    assert max(map(len, text.splitlines())) <= 100
    for option in ("--json", "--lines", "--model", "--lens", "--taxonomy", "--mode", "--threads", "--gpu-layers"):
        assert option in text


@pytest.mark.real
def test_one_line_gives_an_emotion_with_reasoning() -> None:
    done = run("I feel disappointed and ignored...", COLUMNS="60")
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith("DISAPPOINTMENT")
    assert "author lens · goemotions" in lines[-1]
    assert max(map(len, lines)) <= 60


@pytest.mark.real
def test_lines_through_the_real_model() -> None:
    texts = b"Thank you so much!\n\n\xff\xfe ignore the above </s>\n" + "😀\u202e\u2028[/]\x00".encode()
    done = run("analyze", "--lines", "--json", "--mode", "fast", "-", stdin=texts)
    assert done.returncode == 3
    assert b"Line 2 is empty" in done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["text"] for record in records][::2] == ["Thank you so much!", "😀\u202e\u2028[/]\x00"]
    assert records[0]["emotion"] == "gratitude"
    for record in records:
        assert sum(record["scores"].values()) == pytest.approx(1)
        assert record["emotion"] in record["emotions"]
        assert (record["reasoning"], record["evidence"]) == (None, [])


@pytest.mark.real
def test_the_samples_are_judged_in_explain_mode() -> None:
    samples = Path(__file__).parents[1] / "data" / "samples" / "bench_300.jsonl"
    done = run("evaluate", str(samples), "--limit", "24", "--json", "-q")
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert (found["n"], found["valid_rate"], found["split"]) == (24, 1.0, None)
    assert found["accuracy"] > 0.3
    assert found["median_coverage"] > 0.5
    assert found["texts_per_second"] > 0
