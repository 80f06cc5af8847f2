"""The command line: it lists the commands; each floor brings its own, loaded only when it is called."""

from __future__ import annotations

import difflib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import click

from convert.errors import ConvertError
from toolkit import __version__
from toolkit.apps.escape import visible
from toolkit.errors import EmotionLRMError

# Name: where it lives, and the first line of its help, repeated here so that listing commands loads none of them.
COMMANDS = {
    "analyze": ("toolkit.apps.analyze:analyze", "Read the emotion of each TEXT and say what it rests on."),
    "chat": ("toolkit.apps.chat:chat", "Talk, and see how every message is read, while it is read."),
    "batch": ("toolkit.apps.batch:batch", "Read every text of a CSV, TSV, JSONL, text or Parquet file."),
    "evaluate": ("toolkit.evaluation.commands:evaluate", "Measure a model by PROTOCOL, or on a file of your own."),
    "data": ("toolkit.corpora.commands:data", "Prepare the corpora and write reasoning for them."),
    "train": ("toolkit.training.commands:train", "Fine-tune an adapter as CONFIG says."),
    "convert": ("toolkit.apps.conversion:convert", "Merge, write GGUF, quantize, verify, export, bundle."),
    "bench": ("toolkit.apps.bench:bench", "Measure the speed of this machine against the ordinary way."),
    "serve": ("toolkit.apps.serve:serve", "Answer over HTTP: texts in, readings out as JSON."),
    "ui": ("toolkit.apps.ui:ui", "Show a page: write a text or give a file, and see how it is read."),
    "app": ("toolkit.apps.desktop:app", "Show the page in a window of its own; closing the window ends everything."),
    "models": ("toolkit.apps.models:models", "See and remove the models on this machine."),
    "doctor": ("toolkit.apps.doctor:doctor", "Check this installation: packages, processor, model, memory, disk."),
    "completion": ("toolkit.apps.completion:completion", "Print the script that makes SHELL complete emotion-lrm."),
}
OWN_OPTIONS = {"--debug", "-q", "--quiet", "-v", "--verbose", "--version", "-h", "--help"}
INTERRUPTED = 130


def _remember(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().ensure_object(dict)[param.name] = True
    if value and param.name == "verbose":
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")


def verbosity_options() -> list[click.Option]:
    """The options ``--debug``, ``-q`` and ``-v``, which stand before or after a command's name."""
    texts = {
        "--debug": "Show a traceback when something fails.",
        "-q,--quiet": "No progress on standard error.",
        "-v,--verbose": "Say more on standard error.",
    }
    return [
        click.Option(names.split(","), is_flag=True, is_eager=True, expose_value=False, callback=_remember, help=text)
        for names, text in texts.items()
    ]


class Commands(click.Group):
    """A group that loads a command only when it is called, and takes a lone argument for a text to analyze."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command, or None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        _add_verbosity(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``analyze`` before the first argument that is neither an option of the group nor a command."""
        start = next((i for i, arg in enumerate(args) if arg not in OWN_OPTIONS), len(args))
        if start < len(args) and args[start] not in COMMANDS:
            rest = args[start:]
            if len(rest) == 1 and rest[0].startswith("-") and " " in rest[0].partition("=")[0]:
                rest = ["--", *rest]  # a text such as "-5 degrees and I love it"
            if not ctx.resilient_parsing:  # a shell that asks for completions wants candidates, no verdict
                self._check_lone_text(ctx, rest)
            args = [*args[:start], "analyze", *rest]
        return super().parse_args(ctx, args)

    def _check_lone_text(self, ctx: click.Context, rest: list[str]) -> None:
        """Refuse what looks like a mistyped command, or like a text without its quotation marks."""
        if rest[0] == "--" and len(rest) == 2:
            return
        command = self.get_command(ctx, "analyze")
        assert command is not None
        try:
            values, _, _ = command.make_parser(click.Context(command, ctx, "analyze")).parse_args(list(rest))
        except click.UsageError:
            if rest[0].startswith("-") or " " in rest[0]:
                raise
            raise _unknown(rest[0], 2, ctx) from None
        found = values.get("texts")
        texts: tuple[str, ...] = found if isinstance(found, tuple) else ()
        if texts and texts[0] in COMMANDS:
            raise click.UsageError(f"Options of {texts[0]} go after its name.", ctx)
        if len(texts) > 1 or (texts and nearest_command(texts[0])):
            raise _unknown(texts[0], len(texts), ctx)


def _add_verbosity(command: click.Command) -> None:
    taken = {name for param in command.params for name in param.opts} | {param.name for param in command.params}
    command.params += [o for o in verbosity_options() if not taken & {*o.opts, o.name}]
    for inner in getattr(command, "commands", {}).values():
        _add_verbosity(inner)


def nearest_command(word: str, cutoff: float = 0.8) -> str | None:
    """The command (or ``--help``, ``--version``) that a single word resembles, or None."""
    if len(word) < 2 or any(character.isspace() for character in word):  # "I" resembles no command
        return None
    near = difflib.get_close_matches(word.lower(), [*COMMANDS, "help", "version"], 1, cutoff)
    return near[0] if near and near[0] in COMMANDS else f"--{near[0]}" if near else None


def _unknown(word: str, count: int, ctx: click.Context) -> click.UsageError:
    near = nearest_command(word, 0.6 if count > 1 else 0.8)
    shown = word if len(word) <= 40 else word[:39] + "…"
    guess = f"Did you mean {near}?" if near else "The nearest is analyze, which takes several texts."
    plea = "Put a text of several words in quotation marks." if count > 1 else f"As a text: analyze {shown}"
    return click.UsageError(f"There is no command {shown!r}. {guess} {plea}", ctx)


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=list(verbosity_options()),
    options_metavar="[--debug] [-q] [-v]",
    subcommand_metavar='"TEXT" | COMMAND ...',
)
@click.version_option(__version__, prog_name="emotion-lrm", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Read the emotion in a text with a small language model, on your own CPU, offline.

    \b
    emotion-lrm "I feel disappointed and ignored..."
    emotion-lrm --json "I feel disappointed and ignored..."
    emotion-lrm analyze --lines - < comments.txt
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 fine, 1 the work failed, 2 wrong usage, 3 finished but some rows failed, 130 interrupted. A reader of our output
    that goes away early (``| head``) has had what it wanted: 0.
    """
    told: dict[str, bool] = {}
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(None if args is None else list(args), "emotion-lrm", standalone_mode=False, obj=told)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # click itself turns a broken pipe into SystemExit
        _forget_stdout()
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if told.get("debug") and not isinstance(error, (click.ClickException, click.exceptions.Abort)):
            traceback.print_exception(error)
        code, cause, hint = explain(error)
        click.echo("\n".join(visible(line) for line in (f"Error: {cause}", hint) if line), err=True)
    return code if isinstance(code, int) else 0


def explain(error: BaseException) -> tuple[int, str, str]:
    """Exit code, cause in one sentence, and next step (or an empty string) of a failure."""
    match error:
        case KeyboardInterrupt() | click.exceptions.Abort():
            return INTERRUPTED, "Interrupted.", ""
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "emotion-lrm"
            return 2, error.format_message(), f"See: {path} --help"
        case click.ClickException():
            return error.exit_code, error.format_message(), ""
        case EmotionLRMError() | ConvertError():
            return getattr(error, "exit_code", 1), str(error), error.hint
        case OSError():
            named = f": {error.filename}" if error.filename else ""
            return 1, f"{error.strerror or error}{named}.", "Check the path, its permissions and the free space."
        case MemoryError():
            return 1, "There is not enough memory.", "Close other programs, or take a smaller model."
    return 1, f"Unexpected {type(error).__name__}: {error}", "Run it again with --debug, and report the traceback."


def _forget_stdout() -> None:
    # Otherwise the interpreter flushes the broken pipe once more at exit and complains.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
