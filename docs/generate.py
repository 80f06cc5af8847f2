"""Write the parts of the documentation that follow from code and data: ``python docs/generate.py``.

A page marks such a part with ``<!-- generated: NAME -->`` and ``<!-- end -->``; a test holds the pages against the
code. With ``--examples`` what pages show of the default model is made anew too: what a command prints, in parts named
``output COMMAND``, and the panel of a text on a terminal, ``picture FILE TEXT``.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import click
from pydantic_core import PydanticUndefined

from toolkit.base import BaseModelConfig, GGUFSource
from toolkit.cli import cli
from toolkit.config import Config
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import NAMES, load_taxonomy
from toolkit.settings import PREFIX, Settings, model_options
from toolkit.training.config import (
    DataSettings,
    Distillation,
    EncoderConfig,
    LensData,
    LoraSettings,
    SampleData,
    TrainConfig,
)

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PART = re.compile(r"(<!-- generated: (\S+)(?: ([^\n]*))? -->\n).*?(<!-- end -->)", re.DOTALL)
COARSER = ("ekman", "sentiment", "shared10")
_WORDS = {bool: "true or false", float: "number", int: "whole number", NoneType: "null", Path: "path", str: "text"}
CONFIGS: tuple[type[Config], ...] = (
    TrainConfig, LoraSettings, DataSettings, LensData, Distillation, SampleData, EncoderConfig, BaseModelConfig,
    GGUFSource,
)  # fmt: skip


def pages() -> list[Path]:
    """Every page of the documentation, and the README."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def renew(text: str, examples: bool = False) -> str:
    """A page with its generated parts written anew; what commands print only with ``examples``."""

    def part(found: re.Match[str]) -> str:
        opening, kind, argument, closing = found.groups()
        if kind in ("output", "picture") and not examples:
            return found[0]
        return f"{opening}\n{PARTS[kind](argument or '').strip()}\n\n{closing}"

    return PART.sub(part, text)


# Commands


def walk(command: click.Command, ctx: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """A command and all that stand below it."""
    yield command, ctx
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            assert inner is not None
            yield from walk(inner, click.Context(inner, parent=ctx, info_name=name))


def commands(_: str) -> str:
    """A section for each command: what it does, how it is called, its options."""
    root = click.Context(cli, info_name="emotion-lrm")
    shared = {"": option_names(cli), "options-of-a-model": option_names(_any_model_command)}
    return "\n\n".join("\n\n".join(_section(*found, root, shared)) for found in walk(cli, root) if found[0] is not cli)


@click.command()
@model_options
def _any_model_command(settings: Settings) -> None:
    """A command that has the options of a model and no others."""


def model_settings(_: str) -> str:
    """The options of every command that runs a model."""
    return "\n".join(_options_table(_any_model_command.params))


def option_names(command: click.Command) -> set[str]:
    """Every way to write an option of ``command``."""
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts)}


def _section(
    command: click.Command, ctx: click.Context, root: click.Context, shared: dict[str, set[str]]
) -> Iterator[str]:
    yield f"{'##' if ctx.parent is root else '###'} {ctx.command_path}"
    if not isinstance(command, click.Group):
        yield f"`{ctx.command_path} {' '.join(command.collect_usage_pieces(ctx))}`"
    yield from _paragraphs(inspect.cleandoc(command.help or ""))
    own = [param for param in command.params if isinstance(param, click.Option) and not shared[""] & {*param.opts}]
    model = shared["options-of-a-model"]
    if model <= option_names(command):
        own = [param for param in own if not model & {*param.opts}]
        yield "It takes the [options of a model](#options-of-a-model)" + (", and:" if own else ".")
    if own:
        yield "\n".join(_options_table(own))


def _paragraphs(text: str) -> Iterator[str]:
    """Click's help as Markdown: a paragraph that starts with ``\\b`` is kept line by line."""
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        if lines and lines[0] == "\b":
            yield "\n".join(f"    {line}" for line in lines[1:])
        else:
            yield " ".join(lines)


def _options_table(options: Iterable[click.Parameter]) -> Iterator[str]:
    yield "| option | meaning |\n|---|---|"
    for option in options:
        assert isinstance(option, click.Option)
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        told = f"{names} {_values(option)}".strip()
        yield f"| {_cell(told)} | {_cell(_meaning(option))} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _values(option: click.Option) -> str:
    if option.is_flag:
        return ""
    if isinstance(option.type, click.Choice):
        return " ".join(f"`{choice}`" for choice in option.type.choices)
    named = {"integer range": "N", "float range": "X", "integer": "N", "text": "TEXT"}
    metavar = option.metavar or named.get(option.type.name, option.type.name.upper())
    return " or ".join(f"`{part}`" for part in metavar.split("|"))


def _meaning(option: click.Option) -> str:
    told = re.sub(r"\s*\[default: (.*?)\]", r" Default: \1.", option.help or "")
    if isinstance(option.type, (click.IntRange, click.FloatRange)):
        low, high = option.type.min, option.type.max
        told += f" {low} to {high}." if high is not None else f" At least {low}."
    if option.required:
        told += " Required."
    if option.multiple:
        told += " Repeatable." if "epeatable" not in told else ""
    if option.show_default and option.default is not None:
        told += f" Default: `{option.default}`."
    return told.strip()


def chat_help(_: str) -> str:
    """What `/help` says in the chat."""
    from toolkit.apps.chat import HELP

    return f"```text\n{HELP.strip()}\n```"


# Settings and configuration files


def settings_table(_: str) -> str:
    """The keys of ``config.yaml``, with the option and the environment variable of each."""
    rows = ["| key | option | environment | values | default |", "|---|---|---|---|---|"]
    for key, field in Settings.model_fields.items():
        option = f"`--{key.replace('_', '-')}`"
        default = "–" if field.default is None else f"`{field.default}`"
        rows.append(f"| `{key}` | {option} | `{PREFIX}{key.upper()}` | {_kind(field.annotation)} | {default} |")
    return "\n".join(rows)


def config_tables(_: str) -> str:
    """The keys of the configurations of training and of base models."""
    return "\n\n".join("\n".join(_config_table(config)) for config in CONFIGS)


def _config_table(config: type[Config]) -> Iterator[str]:
    yield f"### {config.__name__}\n\n{(config.__doc__ or '').splitlines()[0].replace('``', '`')}\n"
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    for key, field in config.model_fields.items():
        default = _default(field.get_default(call_default_factory=True, validated_data={}))
        yield f"| `{key}` | {_kind(field.annotation)} | {default} | {(field.description or '').replace('<', '&lt;')} |"


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Config):
        return "its own"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return "`null`" if value is None else f"`{value}`"


def _kind(annotation: Any) -> str:
    """A type in words that somebody who writes YAML knows."""
    inner = get_args(annotation)
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if get_origin(annotation) is tuple:
        return f"list of {_kind(inner[0])}"
    if inner:
        return " or ".join(_kind(part) for part in inner)
    if issubclass(annotation, StrEnum):
        return " or ".join(f"`{member}`" for member in annotation)
    if issubclass(annotation, Config):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return _WORDS[annotation]


def shipped_file(name: str) -> str:
    """A shipped file as it stands."""
    kind = "yaml" if name.endswith(".yaml") else "text"
    return f"```{kind}\n{(ROOT / name).read_text(encoding='utf-8').strip()}\n```"


# Taxonomies


def taxonomies(_: str) -> str:
    """Every taxonomy with the definitions of its labels, and where they go in a coarser one."""
    return "\n\n".join("\n".join(_taxonomy(name)) for name in NAMES)


def _taxonomy(name: str) -> Iterator[str]:
    taxonomy = load_taxonomy(name)
    lenses = " and ".join(f"`{lens}`" for lens in Lens if name in lens.taxonomies)
    yield f"## {name}\n\n{taxonomy.title}; lens {lenses}. {taxonomy.source}\n"
    goals = [goal for goal in COARSER if any(goal in lens.taxonomies for lens in Lens if lens.native == name)]
    yield "| label | what must be true of the situation |" + "".join(f" {goal} |" for goal in goals)
    yield "|---" * (2 + len(goals)) + "|"
    for entry in taxonomy.entries:
        mapped = (entry.maps.get(goal) or f"– {entry.left_out.get(goal, '')}".strip() for goal in goals)
        yield f"| {entry.name} | {entry.definition} |" + "".join(f" {goal} |" for goal in mapped)


# What commands print


def output(command: str) -> str:
    """What a command of a shell prints with the default model."""
    printed = subprocess.run(["bash", "-c", command], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return f"```text\n{printed.rstrip()}\n```"


def picture(argument: str) -> str:
    """An SVG of the panel that a text gets on a terminal; ``argument`` is its path from the page, and the text."""
    path, _, text = argument.partition(" ")
    draw_panel(text, DOCS / "images" / Path(path).name)
    return f'![What a terminal shows after: emotion-lrm "{text}"]({path})'


def draw_panel(text: str, path: Path) -> None:
    """Read ``text`` with the default model and draw the terminal on which the panel stands."""
    from io import StringIO

    from rich.console import Console
    from rich.terminal_theme import MONOKAI

    from toolkit import EmotionModel
    from toolkit.apps.panel import print_panel

    console = Console(file=StringIO(), record=True, width=84, force_terminal=True, color_system="truecolor",
                      highlight=False, markup=False, emoji=False)  # fmt: skip
    console.print(f'$ emotion-lrm "{text}"\n')
    with EmotionModel.load() as model:
        print_panel(console, model.analyze(text))
    svg = console.export_svg(title="emotion-lrm", theme=MONOKAI, unique_id="panel")
    path.write_text(re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL), encoding="utf-8")


PARTS = {
    "commands": commands,
    "chat-help": chat_help,
    "model-options": model_settings,
    "settings": settings_table,
    "configs": config_tables,
    "file": shipped_file,
    "taxonomies": taxonomies,
    "output": output,
    "picture": picture,
}


def main() -> None:
    """Write every page whose generated parts have changed."""
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = renew(before, examples="--examples" in sys.argv)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
