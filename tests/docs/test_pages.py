"""The documentation tells of what is there: commands, options, keys, variables, files, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import yaml

from toolkit.cli import cli
from toolkit.contract.analysis import Analysis, Divergence
from toolkit.evaluation.evaluate import Evaluation
from toolkit.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NO_COMMANDS = {"text", "yaml", "json", "python"}
ELSEWHERE = ("data/raw", "data/processed", "models/runs", "toolkit/_assets")  # written by commands, or in a wheel
named = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def code(page: str) -> Iterator[str]:
    """The lines of a page that a person might copy into a shell; a line that ends in a backslash goes on."""
    fence: str | None = None
    indented, found = True, []
    for line in page.splitlines():
        opened = re.match(r"\s*```(\w*)", line)
        indented = not line or (indented and line.startswith("    "))
        if opened:
            fence = opened[1] if fence is None else None
        elif (fence is None and indented) or (fence is not None and fence not in NO_COMMANDS):
            found.append(line)
    typed = re.sub(r"(<<'?(\w+)'?)\n.*?\n\2$", r"\1", "\n".join(found), flags=re.DOTALL | re.MULTILINE)
    yield from (line.strip() for line in typed.replace("\\\n", " ").splitlines() if "emotion-lrm" in line)


def calls(line: str) -> Iterator[list[str]]:
    """The arguments of every `emotion-lrm` in a line of a shell; a remark behind three spaces is no part of it."""
    found = re.match(r"""(?:"[^"]*"|'[^']*'|(?!\s{3})[^"'])*""", line)
    assert found is not None
    words = shlex.shlex(found[0], punctuation_chars="();<>|&")
    words.whitespace_split = True
    call: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if set(word) <= set("<>"):
            waiting.pop(0)
        elif word.startswith('"$('):
            yield from calls(word[3:-2])
        elif word in ("{", "}") or set(word) <= set("();|&"):
            yield from _call(call)
            call = []
        else:
            call += shlex.split(word)
    yield from _call(call)


def _call(words: list[str]) -> Iterator[list[str]]:
    while words and re.fullmatch(r"\w+=.*", words[0], re.DOTALL):
        words = words[1:]
    if words and words[0] == "emotion-lrm":
        yield words[1:]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('emotion-lrm "a  b" --json', [["a  b", "--json"]]),
        ("pip install x && emotion-lrm doctor", [["doctor"]]),
        ("emotion-lrm analyze - < in.txt > out.txt   one text", [["analyze", "-"]]),
        ("A=1 emotion-lrm serve    # remark", [["serve"]]),
        ('eval "$(emotion-lrm completion bash)"', [["completion", "bash"]]),
        ('pip x; if ($?) { emotion-lrm "y" }', [["y"]]),
        ("printf 'a\\n' | emotion-lrm chat | head", [["chat"]]),
        ("the emotion-lrm program", []),
    ],
)
def test_calls_are_found_in_a_line(line: str, expected: list[list[str]]) -> None:
    assert list(calls(line)) == expected


def parse(args: list[str]) -> None:
    """Take a command line apart as the program would, without doing what it says."""
    command: click.Command = cli
    ctx = cli.make_context("emotion-lrm", list(args))
    while isinstance(command, click.Group):
        rest = [*getattr(ctx, "_protected_args", ()), *ctx.args]
        name, inner, rest = command.resolve_command(ctx, rest)
        assert inner is not None
        ctx, command = inner.make_context(name, rest, parent=ctx), inner


@pytest.fixture
def any_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a file is there is not asked."""
    monkeypatch.setattr(click.Path, "convert", lambda _self, value, _param, _ctx: value)


@named
@pytest.mark.usefixtures("any_file")
def test_every_command_line_is_understood(page: Path) -> None:
    for line in code(page.read_text(encoding="utf-8")):
        for args in calls(line):
            try:
                parse(args)
            except click.exceptions.Exit:
                assert {"--help", "--version"} & {*args}
            except click.UsageError as error:
                pytest.fail(f"{line}: {error.format_message()}")


@pytest.mark.usefixtures("any_file")
@pytest.mark.parametrize("args", [["batch", "x.csv"], ["evaluat", "x"], ["models", "lst"], ["serve", "--prot", "1"]])
def test_what_the_program_does_not_understand_is_noticed(args: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parse(args)


def broken_tables(page: str) -> list[str]:
    """The first line of everything that begins with a bar like a table and is none: a lone row, one without a head."""
    prose = re.sub(r"^```.*?^```$", "```", page, flags=re.DOTALL | re.MULTILINE)
    blocks = (block.strip("\n").splitlines() for block in re.split(r"\n\s*\n", prose))
    return [
        next(line for line in block if line.startswith("|"))
        for block in blocks
        if any(line.startswith("|") for line in block) and not is_table(block)
    ]


def is_table(block: list[str]) -> bool:
    """Whether a block is a head, a rule and rows, with at most a comment before and after."""
    lines = [line for line in block if not re.fullmatch(r"<!--.*-->", line)]
    rule = len(lines) > 2 and re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", lines[1])
    return bool(rule) and all(line.startswith("|") for line in lines)


@named
def test_every_row_belongs_to_a_table(page: Path) -> None:
    assert not broken_tables(page.read_text(encoding="utf-8"))


def test_a_row_without_its_table_is_found() -> None:
    table = "| a | b |\n|---|---|\n| 1 | 2 |\n"
    assert not broken_tables(f"Text\n\n{table}\nText\n\n```text\n| a |\n```\n")
    assert broken_tables(f"{table}\nText\nmore\n| 3 | 4 |\n") == ["| 3 | 4 |"]
    assert broken_tables(f"{table}\n| 3 | 4 |\n") == ["| 3 | 4 |"]
    assert broken_tables(f"Text\n{table}") == ["| a | b |"]


def test_most_commands_are_shown(generate: ModuleType) -> None:
    shown = {
        " ".join(args) for page in PAGES for line in code(page.read_text(encoding="utf-8")) for args in calls(line)
    }
    root = click.Context(cli, info_name="emotion-lrm")
    for command, ctx in generate.walk(cli, root):
        if not isinstance(command, click.Group):
            name = ctx.command_path.removeprefix("emotion-lrm ")
            assert any(line == name or line.startswith(f"{name} ") for line in shown), name


@named
def test_files_that_are_named_are_there(page: Path) -> None:
    text = "\n".join(line for line in page.read_text(encoding="utf-8").splitlines() if "planned" not in line)
    found = re.findall(r"(?<![\w./])(?:toolkit|convert|prompts|data|models|tests)/[\w./*-]*\w", text)
    assert not [name for name in found if not name.startswith(ELSEWHERE) and not [*ROOT.glob(name)]]


@named
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)|\bsrc(?:set)?=\"([^\"]+)\"", text):
        path, _, anchor = "".join(target).partition("#")
        if ":" in path:
            continue
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", goal.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, (
                target
            )


@named
def test_generated_parts_are_as_the_code_says(page: Path, generate: ModuleType) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == generate.renew(text), "run: make reference"


def test_the_reference_names_every_option(generate: ModuleType) -> None:
    page = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    for command, ctx in generate.walk(cli, click.Context(cli, info_name="emotion-lrm")):
        for name in generate.option_names(command):
            assert f"`{name}`" in page or not name.startswith("-"), f"{ctx.command_path} {name}"


def test_the_settings_that_are_shown_can_be_set() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert Settings.model_validate(yaml.safe_load(shown)).mode == "fast"


def keys(heading: str) -> list[str]:
    """The keys that the page on JSON explains under a heading, in order."""
    page = (ROOT / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


@pytest.mark.parametrize(
    ("heading", "kinds"),
    [("A reading", Analysis), ("An evaluation", Evaluation)],
)
def test_keys_are_explained(heading: str, kinds: Any) -> None:
    assert set(keys(heading)) == {field.name for field in fields(kinds)}


def test_keys_of_both_lenses_are_explained() -> None:
    assert keys("Both lenses") == [
        "text",
        "author",
        "reader",
        "divergence",
        *(field.name for field in fields(Divergence)),
    ]


def test_every_environment_variable_is_explained() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    sources = [
        path.read_text(encoding="utf-8") for name in ("toolkit", "convert") for path in (ROOT / name).rglob("*.py")
    ]
    found = {name for source in sources for name in re.findall(r"\bEMOTION_LRM_[A-Z_]*[A-Z]", source)}
    assert found
    assert not {name for name in found if f"`{name}`" not in page}
