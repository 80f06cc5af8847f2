"""The line editor of the chat: several lines, history, completion of commands."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.layout.utils import explode_text_fragments
from prompt_toolkit.output import Output

from toolkit.apps.escape import visible

# History lives as long as the chat: what people write here is theirs, and only /save puts it on the disk.


def messages(
    choices: Mapping[str, Sequence[str]], source: Input | None = None, screen: Output | None = None
) -> Iterator[str]:
    """What a person types, message by message, until Ctrl-D on an empty line. Ctrl-C drops what was typed.

    Args:
        choices: every command, and the words that may follow it.
        source: where keys come from; None is the terminal.
        screen: where the editor is drawn; None is the terminal.
    """
    session: PromptSession[str] = PromptSession(
        completer=Commands(choices),
        complete_while_typing=False,
        key_bindings=_keys(),
        multiline=True,
        prompt_continuation=lambda *_: "… ",
        input_processors=[Escapes()],
        input=source,
        output=screen,
    )
    while True:
        try:
            yield session.prompt("> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


class Commands(Completer):
    """Completes a command and the word after it; in a message it stays silent."""

    def __init__(self, choices: Mapping[str, Sequence[str]]) -> None:
        self._choices = choices

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:  # noqa: ARG002
        """What may stand at the cursor."""
        typed = document.text_before_cursor
        command, gap, word = typed.partition(" ")
        known = self._choices.get(command, ()) if gap else [*self._choices] if typed.startswith("/") else ()
        started = word if gap else typed
        yield from (Completion(name, -len(started)) for name in known if name.startswith(started))


class Escapes(Processor):
    """Shows hidden characters as the panel does: what is pasted must not turn the line around or hide in it."""

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        """The line, and where its characters stand in what is shown of it."""
        line = explode_text_fragments(transformation_input.fragments)
        shown: StyleAndTextTuples = [(style, visible(character)) for style, character, *_ in line]
        starts = list(accumulate((len(text) for _, text, *_ in shown), initial=0))
        return Transformation(
            shown,
            source_to_display=lambda position: starts[min(position, len(line))],
            display_to_source=lambda position: bisect_right(starts, position) - 1,
        )


def _keys() -> KeyBindings:
    """Enter sends; Alt-Enter begins a new line.

    A key that is pressed while an answer is written comes as the terminal's line discipline has it: Enter as Ctrl-J,
    which prompt_toolkit takes for Enter where nobody binds it.
    """
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("escape", "c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
