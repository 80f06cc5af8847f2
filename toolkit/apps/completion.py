"""`emotion-lrm completion`: the script that teaches a shell to complete commands, options and file names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_EMOTION_LRM_COMPLETE"  # click's name for the program emotion-lrm; the shell sets it when it asks


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete emotion-lrm.

    \b
    bash, in ~/.bashrc:    eval "$(emotion-lrm completion bash)"
    zsh, in ~/.zshrc:      eval "$(emotion-lrm completion zsh)"
    fish, once:            emotion-lrm completion fish > ~/.config/fish/completions/emotion-lrm.fish
    """
    click.echo(script(shell))


def script(shell: str) -> str:
    """The completion script for one of ``SHELLS``; it calls `emotion-lrm` for every list of candidates."""
    from toolkit.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None
    return kind(cli, {}, "emotion-lrm", VARIABLE).source()
