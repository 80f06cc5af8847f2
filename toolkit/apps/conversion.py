"""`emotion-lrm convert`: the verbs of the package ``convert``, and those that also need prompts, labels or a model."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from convert.commands import convert as files_and_tensors

# Name: where it lives, and the first line of its help, repeated here so that listing commands loads none of them.
OURS = {
    "quantize": ("toolkit.apps.quantize:quantize", "Write SOURCE, a GGUF of floats, in fewer bits."),
    "verify": ("toolkit.apps.verify:verify", "Say whether FILE is what it claims to be."),
    "export": ("toolkit.apps.export:export", "Write a folder that other programs of llama.cpp serve."),
    "bundle": ("toolkit.apps.bundle:bundle", "Write one file that installs on a machine without a network."),
}


TELLING = ("merge", "build")
"""Of the others, those whose model then says what its adapter does: prompt, lenses, calibration, licence."""


class Verbs(click.Group):
    """The group of ``convert.commands`` with the commands that stand on toolkit, loaded only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Merge, gguf, quantize, verify, build, export, bundle."""
        return list(dict.fromkeys([*files_and_tensors.commands, *OURS]))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command, or None for an unknown name. What this group was given (``-q``, ``-v``) it takes too."""
        if cmd_name in OURS:
            module, _, attribute = OURS[cmd_name][0].partition(":")
            command: click.Command | None = getattr(import_module(module), attribute)
        else:
            command = files_and_tensors.get_command(ctx, cmd_name)
        if command is not None and cmd_name in TELLING:
            command = _telling(command)
        if command is not None:
            taken = {name for param in command.params for name in (*param.opts, param.name)}
            command.params += [param for param in self.params if not taken & {*param.opts, param.name}]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(name)) for name in self.list_commands(ctx)])


def _telling(command: click.Command) -> click.Command:
    """The command, with what the adapter has to say as the metadata of what it writes."""

    def call(adapter: Path, **given: Any) -> None:
        from toolkit.apps.export import adapter_metadata
        from toolkit.apps.licences import remark

        assert command.callback is not None
        metadata = adapter_metadata(adapter)
        command.callback(adapter=adapter, metadata=metadata, **given)
        if said := remark(metadata):
            click.echo(said, err=True)

    return click.Command(command.name, params=list(command.params), callback=call, help=command.help)


def _summary(name: str) -> str:
    return OURS[name][1] if name in OURS else (files_and_tensors.commands[name].help or "").splitlines()[0]


convert = Verbs("convert", help="Merge, write GGUF, quantize, verify, export, bundle.")
