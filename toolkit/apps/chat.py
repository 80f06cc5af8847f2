"""`emotion-lrm chat`: every message is read as it comes, with a timeline of the conversation's mood."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import click
from rich.console import Console

from convert.errors import ConvertError
from toolkit.apps.analyze import SOME_ROWS_FAILED, decode
from toolkit.apps.both import Pair
from toolkit.apps.conversation import Conversation, Turn, readings
from toolkit.apps.escape import visible
from toolkit.apps.follow import Reader, follow
from toolkit.apps.panel import WIDEST, bar, make_console, percent
from toolkit.apps.workers import open_workers
from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import NAMES
from toolkit.errors import EmotionLRMError, UsageError
from toolkit.inference.divergence import check_shared
from toolkit.inference.request import MODES, Wish, check_wish
from toolkit.settings import Settings, model_options

CHOICES: dict[str, tuple[str, ...]] = {
    "/help": (), "/lens": ("author", "reader", "both"), "/taxonomy": NAMES, "/mode": MODES, "/top": (), "/history": (),
    "/save": (), "/load": (), "/export": (), "/clear": (), "/quit": (),
}  # fmt: skip
HELP = """\
/lens NAME           author, reader, or both compared
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


@click.command()
@model_options
@click.pass_context
def chat(ctx: click.Context, settings: Settings) -> None:
    """Talk, and see how every message is read, while it is read.

    In a pipe every line is a message and a panel comes out for each. Nothing is kept unless you say /save.

    \b
    emotion-lrm chat
    emotion-lrm chat --lens both
    emotion-lrm chat --taxonomy ekman < messages.txt
    """
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    with one_at_a_time() as opened:
        talk = Talk(opened, settings, make_console(sys.stdout), interactive)
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


Open = Callable[[Settings], Reader]


@contextmanager
def one_at_a_time() -> Iterator[Open]:
    """Opens models; each takes the place of the one before, which stays where the new one cannot be had."""
    with ExitStack() as held:

        def opened(settings: Settings) -> Reader:
            fresh = ExitStack()
            model = fresh.enter_context(open_workers(settings))
            held.close()
            held.push(fresh)
            return model

        yield opened


class Talk:
    """A chat: what was said, how the next message is to be read, and where answers are shown.

    Args:
        opened: opens a model: at the start, and where another lens needs another one.

    Raises:
        UsageError: for a lens, taxonomy or mode that the model does not have.
    """

    def __init__(self, opened: Open, settings: Settings, console: Console, interactive: bool) -> None:
        self._opened, self._settings, self._console, self._interactive = opened, settings, console, interactive
        self._model = opened(settings)
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
        self.conversation.turns.append(follow(self._console, self._model, text, self._wish))
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
        self._change(lens=_one_of(_needed(name, "/lens both"), "/lens"))

    def _taxonomy(self, name: str) -> None:
        self._change(taxonomy=_one_of(_needed(name, "/taxonomy ekman"), "/taxonomy"))

    def _mode(self, name: str) -> None:
        self._change(mode=_one_of(_needed(name, "/mode fast"), "/mode"))

    def _top(self, number: str) -> None:
        most, last = _count(number or "10"), readings(self._last())
        for reading in last:
            if len(last) > 1:
                self._say(f"{reading.lens} lens")
            self._bars(reading, most)

    def _bars(self, reading: Analysis, most: int) -> None:
        scores = sorted(reading.scores.items(), key=lambda item: -item[1])[:most]
        width = max((len(label) for label, _ in scores), default=0)
        room = max(5, min(50, self._width() - width - 9))
        for label, share in scores:
            drawn = (bar(share, room) if not self._ascii() else "#" * round(share * room)).ljust(room)
            self._say(f"{label:<{width}}  {drawn}{percent(share):>6}")

    def _history(self) -> None:
        self._last()
        for line in self.conversation.history(self._width()):
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

    def _change(self, **changes: str) -> None:
        """Read what follows in another way, with another model where that is needed and none was named."""
        wanted = self._settings.model_copy(update=changes)
        if "lens" in changes and not _fits(wanted):
            wanted = wanted.model_copy(update={"taxonomy": None})
        lacking = not set(wanted.lenses) <= set(self._model.lenses)
        if lacking and not (wanted.model or wanted.adapter):
            self._model = self._opened(wanted)
        self._wish = self._checked(wanted.lens, wanted.taxonomy, wanted.mode)
        self._settings = wanted
        asked = " · ".join(f"{wish.lens} lens, {wish.taxonomy}" for wish in _wishes(self._wish))
        self._say(f"{asked}, {wanted.mode}")

    def _checked(self, lens: str, taxonomy: str | None, mode: str) -> Wish | Pair:
        known, name = self._model.lenses, self._model.name
        if lens != "both":
            return check_wish(lens, taxonomy, mode, known, name)
        check_shared(taxonomy)
        return Pair(*(check_wish(each, taxonomy, mode, known, name) for each in Lens))

    def _last(self) -> Turn:
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


def _wishes(wish: Wish | Pair) -> tuple[Wish, ...]:
    return (wish,) if isinstance(wish, Wish) else (wish.author, wish.reader)


def _fits(settings: Settings) -> bool:
    """Whether the lens, or both of them, can answer in the taxonomy."""
    return settings.taxonomy is None or all(settings.taxonomy in lens.taxonomies for lens in settings.lenses)


def _one_of(word: str, command: str) -> str:
    """A word that may follow a command."""
    if word not in CHOICES[command]:
        raise UsageError(f"There is no {command[1:]} {word!r}.", f"Use {', '.join(CHOICES[command])}.")
    return word


def _needed(value: str, example: str) -> str:
    if not value:
        raise UsageError("Something is missing after the command.", f"For example {example}")
    return value


def _count(number: str) -> int:
    with suppress(ValueError):
        if (count := int(number)) > 0:
            return count
    raise UsageError(f"{number!r} is no number of labels.", "For example /top 10.")


def _path(name: str, example: str) -> Path:
    path = Path(_needed(name, example))
    with suppress(RuntimeError):  # nobody here has the name behind ~
        if "\0" not in name:
            return path.expanduser()
    raise UsageError(f"There can be no file {name}.", f"For example {example}")
