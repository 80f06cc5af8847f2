"""`emotion-lrm chat`: every message is read as it comes, with a timeline of the conversation's mood."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO, Protocol

import click
from rich.console import Console

from convert.errors import ConvertError
from toolkit.apps.analyze import SOME_ROWS_FAILED, decode
from toolkit.apps.conversation import Conversation
from toolkit.apps.escape import visible
from toolkit.apps.panel import WIDEST, bar, make_console, percent, print_panel
from toolkit.apps.workers import open_workers
from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens, parse_lens
from toolkit.contract.taxonomy import NAMES
from toolkit.errors import EmotionLRMError, UsageError
from toolkit.inference.request import MODES, Wish, check_wish
from toolkit.settings import Settings, model_options

CHOICES: dict[str, tuple[str, ...]] = {
    "/help": (), "/lens": ("author", "reader", "both"), "/taxonomy": NAMES, "/mode": MODES, "/top": (), "/history": (),
    "/save": (), "/load": (), "/export": (), "/clear": (), "/quit": (),
}  # fmt: skip
HELP = """\
/lens author|reader  whose emotion is read
/taxonomy NAME       the set of labels
/mode fast|explain   label only, or with reasoning
/top [N]             more labels of the last message
/history             the messages so far
/save FILE           keep the conversation in a file
/load FILE           go on with one that was kept
/export FILE         write the readings as .md or .jsonl
/clear               forget the conversation
/quit                leave (also Ctrl-D)

Enter sends; Alt-Enter begins a new line; Ctrl-C stops an
answer. A message that starts with / is written //so."""


class Reader(Protocol):
    """What answers: a WorkerModel, or an EmotionModel."""

    name: str
    lenses: tuple[Lens, ...]

    def analyze(self, text: str, *, lens: Lens, taxonomy: str | None, mode: str) -> Analysis: ...


@click.command()
@model_options
@click.pass_context
def chat(ctx: click.Context, settings: Settings) -> None:
    """Talk, and see how every message is read.

    In a pipe every line is a message and a panel comes out for each. Nothing is kept unless you say /save.

    \b
    emotion-lrm chat
    emotion-lrm chat --taxonomy ekman < messages.txt
    """
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    with open_workers(settings) as model:
        talk = Talk(model, settings, make_console(sys.stdout), interactive)
        if interactive:
            from toolkit.apps.chat_prompt import messages

            click.echo("Write, and press Enter. /help lists commands; Ctrl-D ends.")
            talk.run(messages(CHOICES))
        else:
            talk.run(piped(sys.stdin.buffer))
    if talk.failed and not interactive:
        ctx.exit(SOME_ROWS_FAILED)


def piped(stdin: BinaryIO) -> Iterator[str]:
    """One message a line."""
    for line in stdin:
        yield decode(line).rstrip("\r\n")


class Talk:
    """A chat: what was said, how the next message is to be read, and where answers are shown.

    Raises:
        UsageError: for a lens, taxonomy or mode that the model does not have.
    """

    def __init__(self, model: Reader, settings: Settings, console: Console, interactive: bool) -> None:
        self._model, self._console, self._interactive = model, console, interactive
        self._wish = self._checked(settings.lens, settings.taxonomy, settings.mode)
        self.conversation = Conversation()
        self.failed = 0
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: self._say(HELP), "/lens": self._lens, "/taxonomy": self._taxonomy, "/mode": self._mode,
            "/top": self._top, "/history": lambda _: self._history(), "/save": self._save, "/load": self._load,
            "/export": self._export, "/clear": lambda _: self._clear(),
        }  # fmt: skip

    def run(self, messages: Iterator[str]) -> None:
        """Answer every message until they end or one is /quit."""
        for message in messages:
            if message.strip() == "/quit":
                return
            try:
                self._answer(message)
            except (EmotionLRMError, ConvertError) as error:
                self.failed += 1
                click.echo("\n".join(visible(line) for line in (f"Error: {error}", error.hint) if line), err=True)
            except KeyboardInterrupt:
                if not self._interactive:
                    raise
                self._say("Stopped.")

    def _answer(self, message: str) -> None:
        if not message.strip():
            return
        if message.startswith("/") and not message.startswith("//"):
            self._command(message)
            return
        text = message[1:] if message.startswith("//") else message
        waiting = self._console.status("reading…") if self._console.is_terminal else nullcontext()
        with waiting:
            wish = self._wish
            reading = self._model.analyze(text, lens=wish.lens, taxonomy=wish.taxonomy, mode=wish.mode)
        self.conversation.turns.append(reading)
        print_panel(self._console, reading)
        if len(self.conversation.turns) > 1:
            self._mood()
        self._say("")

    def _command(self, line: str) -> None:
        name, _, rest = line.strip().partition(" ")
        if name not in self._commands:
            raise UsageError(f"There is no command {name}.", "/help lists them; a message is written //so.")
        self._commands[name](rest.strip())

    # The commands

    def _lens(self, name: str) -> None:
        lens = parse_lens(_needed(name, "/lens author"))
        taxonomy = self._wish.taxonomy if self._wish.taxonomy in lens.taxonomies else None
        self._change(lens, taxonomy, self._wish.mode)

    def _taxonomy(self, name: str) -> None:
        self._change(self._wish.lens, _needed(name, "/taxonomy ekman"), self._wish.mode)

    def _mode(self, name: str) -> None:
        self._change(self._wish.lens, self._wish.taxonomy, _needed(name, "/mode fast"))

    def _top(self, number: str) -> None:
        if number and not number.isdecimal():
            raise UsageError(f"{number!r} is no number.", "For example /top 10.")
        scores = sorted(self._last().scores.items(), key=lambda item: -item[1])[: int(number[:4] or 10)]
        width = max((len(label) for label, _ in scores), default=0)
        room = max(5, min(50, self._width() - width - 9))
        for label, share in scores:
            drawn = (bar(share, room) if not self._ascii() else "#" * round(share * room)).ljust(room)
            self._say(f"{label:<{width}}  {drawn}{percent(share):>6}")

    def _history(self) -> None:
        self._last()
        for line in self.conversation.history():
            self._say(line)
        self._mood()

    def _save(self, name: str) -> None:
        self.conversation.save(_path(name, "/save talk.json"))
        self._say("Saved.")

    def _load(self, name: str) -> None:
        self.conversation.load(_path(name, "/load talk.json"))
        self._say(f"{len(self.conversation.turns)} messages.")

    def _export(self, name: str) -> None:
        self._last()
        self.conversation.export(_path(name, "/export talk.md"))
        self._say("Written.")

    def _clear(self) -> None:
        self.conversation = Conversation()
        self._say("Forgotten.")

    def _change(self, lens: Lens, taxonomy: str | None, mode: str) -> None:
        self._wish = self._checked(lens, taxonomy, mode)
        self._say(f"{self._wish.lens} lens, {self._wish.taxonomy}, {self._wish.mode}")

    def _checked(self, lens: Lens | str, taxonomy: str | None, mode: str) -> Wish:
        return check_wish(lens, taxonomy, mode, self._model.lenses, self._model.name)

    def _last(self) -> Analysis:
        if not self.conversation.turns:
            raise UsageError("Nothing was said yet.", "Write a message first.")
        return self.conversation.turns[-1]

    # What is shown

    def _mood(self) -> None:
        if self.conversation.turns:
            self._say(self.conversation.timeline(self._width(), self._ascii()))

    def _say(self, text: str) -> None:
        terminal = self._console.is_terminal
        self._console.print(text, style="dim" if terminal else None, soft_wrap=not terminal)

    def _width(self) -> int:
        return min(self._console.width, WIDEST)

    def _ascii(self) -> bool:
        return self._console.options.ascii_only


def _needed(value: str, example: str) -> str:
    if not value:
        raise UsageError("Something is missing after the command.", f"For example {example}")
    return value


def _path(name: str, example: str) -> Path:
    return Path(_needed(name, example)).expanduser()
