"""`emotion-lrm chat`: in a pipe and with an editor, its commands, its files, and texts that mean harm."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from toolkit.apps.chat import CHOICES, HELP, Talk, one_at_a_time
from toolkit.apps.chat_prompt import Commands, messages
from toolkit.apps.conversation import Conversation, mood, step
from toolkit.cli import main
from toolkit.contract.analysis import Analysis
from toolkit.contract.lens import Lens
from toolkit.errors import DataError, UsageError
from toolkit.settings import Settings

from .conftest import through_the_reader

Make = Callable[..., Analysis]


class Quick:
    """Reads at once; the word in the text that is an emotion decides."""

    name = "quick"
    noise_line = 0.1

    def __init__(self, reading: Make, *lenses: Lens) -> None:
        self._reading, self.lenses = reading, lenses or (Lens.AUTHOR,)
        self.asked: list[tuple[str, str | None, str]] = []

    def stream(self, text: str, *, lens: Lens, taxonomy: str, mode: str) -> Generator[Analysis, None, None]:
        assert lens in self.lenses
        self.asked.append((text, taxonomy, mode))
        emotion = next((word for word in ("joy", "anger", "neutral") if word in text), "disappointment")
        named = {"emotion": emotion, "fine_emotion": emotion, "emotions": (emotion,), "evidence": ()}
        whole = self._reading(text=text, **named | (through_the_reader() if lens is Lens.READER else {}))
        yield dataclasses.replace(whole, reasoning="The author ")
        if text == "interrupt":
            raise KeyboardInterrupt
        yield whole


@pytest.fixture
def quick(reading: Make) -> Quick:
    return Quick(reading)


def talk(
    quick: Quick,
    *lines: str,
    interactive: bool = True,
    width: int = 60,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    opened: Callable[[Settings], Quick] | None = None,
) -> tuple[Talk, str]:
    """What a chat shows on a terminal of 60 columns without colour."""
    file = io.StringIO()
    console = Console(
        file=file,
        force_terminal=interactive,
        color_system=None,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
    )
    made = Talk(opened or (lambda _: quick), settings, console, interactive)
    made.run(iter(lines))
    return made, file.getvalue()


@pytest.fixture
def piped(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Quick]:
    @contextmanager
    def opened(*_: Any) -> Iterator[Quick]:
        yield quick

    monkeypatch.setattr("toolkit.apps.chat.open_workers", opened)

    def feed(content: bytes) -> Quick:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return quick

    return feed


def test_in_a_pipe_lines_come_in_and_panels_go_out(
    piped: Callable[[bytes], Quick], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)  # no editor is needed here
    monkeypatch.delitem(sys.modules, "toolkit.apps.chat_prompt", raising=False)
    quick = piped("\ufeffI feel joy\r\n\nsome anger, é\n/quit\nnever read\n".encode())
    assert main(["chat"]) == 0
    assert [text for text, _, _ in quick.asked] == ["I feel joy", "some anger, é"]
    told = capsys.readouterr()
    assert told.out.startswith("JOY   62 %\n")
    assert "mood  ▇▂  joy → anger" in told.out
    assert not re.search("[\x1b│>]", told.out)
    assert told.err == ""


def test_in_a_pipe_a_wrong_command_is_said_and_the_rest_goes_on(
    piped: Callable[[bytes], Quick], capsys: pytest.CaptureFixture[str]
) -> None:
    quick = piped(b"/taxnomy ekman\n/lens both\n/lens reader\n/mode slow\njoy\n")
    assert main(["chat"]) == 3
    assert len(quick.asked) == 1
    told = capsys.readouterr().err
    assert "There is no command /taxnomy." in told
    assert told.count("The model quick has not learned the lens reader.") == 2
    assert "There is no mode 'slow'." in told


@pytest.mark.parametrize("args", [["--lens", "reader"], ["--lens", "both"], ["--taxonomy", "empathetic"]])
def test_what_the_model_cannot_do_is_wrong_usage(piped: Callable[[bytes], Quick], args: list[str]) -> None:
    assert piped(b"joy\n").asked == []
    assert main(["chat", *args]) == 2


def test_both_lenses_are_read_and_compared(reading: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    two = Quick(reading, *Lens)
    saved, page = tmp_path / "talk.json", tmp_path / "talk.md"
    made, told = talk(
        two, "so much joy", "/top 1", "/lens author", "anger", "/lens both", "/taxonomy ekman", "/taxonomy shared10",
        "/lens reader", f"/save {saved}", f"/export {page}", "/history", settings=Settings(lens="both"),
    )  # fmt: skip
    assert two.asked[:2] == [("so much joy", "goemotions", "explain"), ("so much joy", "empathetic", "explain")]
    assert re.search(r"JOY   62 %.*SAD   70 %.*(part by|cannot be)", told, re.S)
    assert re.search(r"^author lens\ndisappointment .*62 %\nreader lens\nsad .*70 %$", told, re.M)
    assert "author  ▇▂  joy → anger\nreader  ▂   sad" in told
    assert "author lens, shared10 · reader lens, shared10, explain" in told
    assert "reader lens, shared10, explain" in told
    assert "  1  joy 62 % | sad 70 %  so much joy" in told
    assert "Both lenses together cannot answer in the taxonomy 'ekman'" in capsys.readouterr().err
    again, _ = talk(two, f"/load {saved}")
    assert again.conversation.turns == made.conversation.turns
    text = page.read_text(encoding="utf-8")
    assert "## 1. author lens: joy (62 %), reader lens: sad (70 %)\n\n> so much joy\n\nAuthor lens: " in text
    assert made.conversation.turns[0].divergence.summary in text  # type: ignore[union-attr]


def test_a_lens_that_needs_another_model_opens_it(reading: Make) -> None:
    asked: list[str] = []

    def opened(settings: Settings) -> Quick:
        asked.append(settings.lens)
        return Quick(reading, *(Lens if settings.lens == "both" else [Lens.AUTHOR]))

    _, told = talk(Quick(reading), "joy", "/lens both", "joy", "/lens author", "/lens reader", opened=opened)
    assert asked == ["author", "both"]
    assert "SAD   70 %" in told
    _, told = talk(Quick(reading), "/lens both", "joy", opened=opened, settings=Settings(model="mine.gguf"))
    assert asked == ["author", "both", "author"]
    assert "SAD" not in told


def test_models_take_turns_and_a_failure_leaves_the_old_one(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[str] = []

    @contextmanager
    def workers(settings: Settings) -> Iterator[Quick]:
        if settings.lens == "reader":
            raise UsageError("No model that ships reads through the lens reader.", "")
        alive.append(settings.lens)
        yield quick
        alive.remove(settings.lens)

    monkeypatch.setattr("toolkit.apps.chat.open_workers", workers)
    with one_at_a_time() as opened:
        opened(Settings(lens="author"))
        opened(Settings(lens="both"))
        assert alive == ["both"]
        with pytest.raises(UsageError):
            opened(Settings(lens="reader"))
        assert alive == ["both"]
    assert alive == []


def test_a_reasoning_is_on_the_screen_before_it_is_finished(quick: Quick) -> None:
    _, told = talk(quick, "joy")
    growing = re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", told).split("╭")
    assert "│ The author   " in growing[1] or "reading" in growing[0]
    assert growing[-1].count("a hope they had in others") == 1
    _, piped_out = talk(quick, "joy", interactive=False)
    assert piped_out.count("The author") == 1


def test_panel_and_timeline_fit_into_sixty_columns(quick: Quick) -> None:
    _, told = talk(quick, *["much joy", "such anger", "neutral"] * 30)
    assert max(map(len, re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", told).splitlines())) == 60
    last = [line for line in told.splitlines() if line.startswith("mood")][-1]
    assert last.endswith("▇▂▅▇▂▅  joy → anger → neutral")
    assert len(last) == 60


def test_commands_change_how_the_next_message_is_read(quick: Quick) -> None:
    _, told = talk(quick, "a", "/taxonomy ekman", "/mode fast", "b", "/lens author", "c", "//not a command")
    assert quick.asked == [
        ("a", "goemotions", "explain"), ("b", "ekman", "fast"), ("c", "ekman", "fast"),
        ("/not a command", "ekman", "fast"),
    ]  # fmt: skip
    assert "author lens, ekman, fast" in told


def test_top_history_clear_and_help(quick: Quick, capsys: pytest.CaptureFixture[str]) -> None:
    _, told = talk(quick, "/help", "such\nanger \x1b[31m", "/top 2", "/history", "/clear", "/history")
    assert HELP.splitlines()[0] in told
    assert set(CHOICES) == set(re.findall(r"^(/\w+)", HELP, re.M)) | {"/help"}
    assert re.search(r"^disappointment  █+\S*\s+62 %\nsadness +█+\S*\s+22 %$", told, re.M)
    assert "  1  anger 62 %  such anger \\x1b[31m" in told
    assert "Nothing was said yet." in capsys.readouterr().err


def test_ctrl_c_stops_the_answer_and_the_chat_goes_on(quick: Quick) -> None:
    made, told = talk(quick, "interrupt", "joy")
    assert "Stopped." in told
    assert [turn.text for turn in made.conversation.turns] == ["joy"]
    with pytest.raises(KeyboardInterrupt):
        talk(quick, "interrupt", interactive=False)


def test_a_conversation_is_saved_loaded_and_exported(quick: Quick, tmp_path: Path) -> None:
    saved, readable = tmp_path / "my talk.json", tmp_path / "talk.md"
    nasty = "anger <b> \u202e [red] \ud800\n# no heading"
    made, _ = talk(quick, "joy", nasty, f"/save {saved}", "neutral", f"/save {saved}", f"/export {readable}")
    assert made.failed == 0
    again, told = talk(quick, f"/load {saved}", "/history", f"/export {tmp_path / 'talk.jsonl'}")
    assert again.conversation.turns == made.conversation.turns
    assert "3 messages." in told
    text = readable.read_text(encoding="utf-8")
    assert "## 2. anger (62 %)\n\n> anger &lt;b&gt; \\u202e [red] \\ud800\n> # no heading\n" in text
    lines = (tmp_path / "talk.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["joy", nasty, "neutral"]


def test_a_conversation_that_was_kept_goes_on_in_its_file(quick: Quick, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    talk(quick, "joy", f"/save {saved}")
    made, _ = talk(quick, f"/load {saved}", "anger", f"/save {saved}")
    assert made.failed == 0
    again, _ = talk(quick, f"/load {saved}")
    assert [turn.text for turn in again.conversation.turns] == ["joy", "anger"]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("/top x", "'x' is no number of labels."),
        ("/top 0", "'0' is no number of labels."),
        ("/top -1", "'-1' is no number of labels."),
        ("/lens", "Something is missing after the command."),
        ("/save", "Something is missing after the command."),
        ("/load", "Something is missing after the command."),
        ("/export", "Something is missing after the command."),
        ("/save folder.json", "folder.json exists already."),
        ("/export folder.md", "folder.md exists already."),
        ("/export talk.txt", "talk.txt does not say its form."),
        ("/load missing.json", "No such file or folder: missing.json"),
        ("/load folder.json", "This is a folder, not a file: folder.json"),
        ("/load file/x.json", "A file stands where a folder is needed: file/x.json"),
        ("/load file", "file is no saved conversation."),
        ("/save file", "file exists already."),
        ("/save file/x.json", "A file stands where a folder is needed: file"),
        ("/save ~nobody-of-that-name/x.json", "There can be no file ~nobody-of-that-name/x.json."),
        ("/load a\0.json", "There can be no file a\\x00.json."),
    ],
)
def test_a_command_that_cannot_be_is_said_and_the_chat_goes_on(
    quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str,
    told: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in ("folder.json", "folder.md"):
        Path(name).mkdir()
    Path("file").write_text("precious", encoding="utf-8")
    check_said_and_goes_on(quick, capsys, command, told)
    assert Path("file").read_text(encoding="utf-8") == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"folder.json", "folder.md", "file"}


def check_said_and_goes_on(quick: Quick, capsys: pytest.CaptureFixture[str], command: str, told: str) -> None:
    """A command in the middle of a chat fails with one sentence and the next step, and takes nothing with it."""
    made, _ = talk(quick, "joy", command, "anger")
    assert [turn.text for turn in made.conversation.turns] == ["joy", "anger"]
    said, hint = capsys.readouterr().err.splitlines()
    assert said == f"Error: {told}"
    assert hint


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EACCES, "No permission"),
        (errno.EROFS, "The file system is read-only"),
        (errno.ENOSPC, "The disk is full"),
    ],
)
@pytest.mark.parametrize(
    ("command", "refused"),
    [
        ("/save there.json", "convert.files.tempfile.mkstemp"),
        ("/save there.json", "pathlib.Path.exists"),  # of a folder that must not be looked into
        ("/export there.md", "convert.files.tempfile.mkstemp"),
        ("/load there.json", "pathlib.Path.read_bytes"),
    ],
)
def test_a_place_that_refuses_is_said_and_the_chat_goes_on(
    quick: Quick, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str,
    refused: str, number: int, told: str,
) -> None:  # fmt: skip
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), "there")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(refused, refuse)
    check_said_and_goes_on(quick, capsys, command, f"{told}: there")


def test_files_of_others_are_left_alone(reading: Make, tmp_path: Path) -> None:
    taken = tmp_path / "taken.json"
    taken.write_text("precious", encoding="utf-8")
    conversation = Conversation([reading()])
    for act in (conversation.save, conversation.export):
        with pytest.raises(UsageError, match=r"exists already|does not say"):
            act(taken)
    assert taken.read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize(
    "change",
    [
        lambda turn: turn.pop("emotion"),
        lambda turn: turn.update(fine_emotion="rage"),
        lambda turn: turn.update(emotion="rage"),
        lambda turn: turn["scores"].update(joy=7),
        lambda turn: turn["scores"].update(joy="x"),
        lambda turn: turn.update(taxonomy="plutchik"),
        lambda turn: turn.update(text=5),
        lambda turn: turn.update(lens="both"),
    ],
)
def test_a_file_that_is_no_conversation_is_refused(reading: Make, tmp_path: Path, change: Callable[..., Any]) -> None:
    path = tmp_path / "talk.json"
    Conversation([reading()]).save(path)
    told = json.loads(path.read_bytes())
    Conversation().load(path)
    change(told["turns"][0])
    path.write_text(json.dumps(told), encoding="utf-8")
    kept = Conversation([reading(), reading()])
    with pytest.raises(DataError, match="no saved conversation"):
        kept.load(path)
    assert len(kept.turns) == 2


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"turns": {"a": 1}}'])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match="no saved conversation"):
        Conversation().load(tmp_path / "x.json")


def test_mood_is_signed_certainty(reading: Make) -> None:
    assert mood(reading(fine_emotion="joy")) == 0.62
    assert mood(reading(fine_emotion="anger")) == -0.62
    assert mood(reading(fine_emotion="neutral")) == mood(reading(fine_emotion="surprise")) == 0
    assert mood(reading(fine_emotion="anger", abstained=True)) == 0
    assert [step(value) for value in (-1, -0.62, 0, 0.62, 1)] == ["▁", "▂", "▅", "▇", "█"]
    assert Conversation([reading(), reading()]).timeline(60, ascii_only=True).isascii()


@pytest.mark.parametrize(
    ("keys", "typed"),
    [
        ("one\rtwo\r\x04", ["one", "two"]),
        ("one\x1b\rtwo\x1b\nthree\r\x04", ["one\ntwo\nthree"]),
        ("typed ahead\nand on\n\x04", ["typed ahead", "and on"]),
        ("dropped\x03kept\r\x04", ["kept"]),
        ("\x1b[200~pasted\nlines\x1b[201~\r\x04", ["pasted\nlines"]),
    ],
)
def test_the_editor(keys: str, typed: list[str]) -> None:
    with create_pipe_input() as source:
        source.send_text(keys)
        assert list(messages(CHOICES, source, DummyOutput())) == typed


def test_history_comes_back_with_the_arrow() -> None:
    with create_pipe_input() as source:
        source.send_text("first\r")
        typed = messages(CHOICES, source, DummyOutput())
        assert next(typed) == "first"
        later = threading.Timer(0.5, source.send_text, ["\x1b[A!\r"])  # history is loaded in the background
        later.start()
        assert next(typed) == "first!"
        later.join()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("/ta", ["/taxonomy"]),
        ("/taxonomy e", ["ekman", "empathetic"]),
        ("/l", ["/lens", "/load"]),
        ("/save x", []),
        ("I like /l", []),
        ("", []),
    ],
)
def test_commands_and_their_words_are_completed(typed: str, offered: list[str]) -> None:
    found = Commands(CHOICES).get_completions(Document(typed), CompleteEvent(completion_requested=True))
    assert [completion.text for completion in found] == offered
