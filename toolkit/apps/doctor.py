"""`emotion-lrm doctor`: whether everything is there that a reading needs, and what to do where it is not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from toolkit.apps.escape import visible

if TYPE_CHECKING:
    from toolkit.apps.checks import Check

_SEVERITY = ("ok", "warning", "broken")
_STYLES = {"ok": "green", "warning": "yellow", "broken": "bold red"}
_VERDICTS = {
    "ok": "All is well.",
    "warning": "Readings work; some things could be better.",
    "broken": "Something is broken.",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check this installation: packages, processor, model, memory, disk.

    Nothing is changed, built or downloaded. The exit code is 1 where something is broken, else 0.

    \b
    emotion-lrm doctor
    emotion-lrm doctor --json
    """
    from toolkit.apps.checks import examine

    checks = list(examine())
    status = worst(checks)
    if as_json:
        click.echo(json.dumps({"status": status, "checks": [asdict(check) for check in checks]}))
    else:
        show(checks)
        click.echo(f"{status}: {_VERDICTS[status]}")
    ctx.exit(1 if status == "broken" else 0)


def worst(checks: Iterable[Check]) -> str:
    """The most severe status among the checks."""
    return max((check.status for check in checks), key=_SEVERITY.index, default="ok")


def show(checks: Sequence[Check]) -> None:
    """Print the checks: a table on a terminal, one line each in a pipe."""
    from toolkit.apps.panel import make_console

    console = make_console(sys.stdout)
    if not console.is_terminal:
        for check in checks:
            click.echo(f"{check.status:<8} {check.name:<14} {visible(check.detail)}")
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    for heading in ("check", "status", "what was found"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        table.add_row(check.name, Text(check.status, _STYLES[check.status]), Text(visible(check.detail)))
    console.print(table)
