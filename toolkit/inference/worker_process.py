"""The worker process: it loads one model, reads requests from its input and writes answers to its output.

Native code may write to the standard output and may end the process; so the answers have a descriptor of their own,
and a thread that watches the input ends the process as soon as the parent is gone, whatever native code is doing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO

from toolkit.inference.protocol import decode, encode, error_message, request_from
from toolkit.inference.turns import Inbox, Model, Send, take_turns

Progress = Callable[[int, int, str], None]
Load = Callable[[dict[str, Any], Progress], Model]

BEAT = 1.0  # seconds between two signs of life
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve the model that the first message names."""
    serve(load_model)


def serve(load: Load) -> None:
    """Load with ``load`` what the first message names, then answer requests until the input ends."""
    for sent_to_groups in (signal.SIGINT, signal.SIGTERM):  # by Ctrl-C and by service managers; the parent decides
        signal.signal(sent_to_groups, signal.SIG_IGN)
    requests, write = sys.stdin.buffer, _own_output()

    def send(message: dict[str, Any]) -> None:
        write(encode(message))

    wanted: dict[str, Any] = decode(requests.readline())["load"]
    _die_with(wanted.pop("parent"))
    inbox = Inbox()
    threading.Thread(target=_listen, args=(requests, inbox, send), daemon=True).start()
    threading.Thread(target=_beat, args=(inbox, send), daemon=True).start()
    try:
        model = load(wanted, lambda done, total, step: send({"progress": [done, total, step]}))
    except Exception as error:
        send({"failed": error_message(error)})
        os._exit(1)
    send({"ready": {"name": model.name, "lenses": list(model.lenses), "noise_line": model.noise_line}})
    take_turns(model, inbox, Outbox(write).put)


class Outbox:
    """Answers that wait to be written together, until the engine begins the next texts or takes a breath.

    One write an answer wakes the parent as often, and it would take the processors from the engine.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write, self._waiting = write, SimpleQueue[bytes]()
        self._come, self._in_order = threading.Event(), threading.Lock()
        threading.Thread(target=self._flush_on, daemon=True).start()

    def put(self, message: dict[str, Any]) -> None:
        """Let an answer wait. What is begun is told at once, with all that waits: the engine may end this process."""
        self._waiting.put(encode(message))
        if "begun" in message:
            self._flush()
        else:
            self._come.set()

    def _flush(self) -> None:
        some = []
        with self._in_order:
            with contextlib.suppress(Empty):
                while True:
                    some.append(self._waiting.get_nowait())
            if some:
                self._write(b"".join(some))

    def _flush_on(self) -> None:
        while True:
            self._come.wait()
            self._come.clear()
            self._flush()


def load_model(wanted: dict[str, Any], progress: Progress) -> Model:
    """The model of the toolkit."""
    from toolkit.inference.model import EmotionModel

    return EmotionModel.load(**wanted, progress=progress)


def _listen(requests: BinaryIO, inbox: Inbox, send: Send) -> None:
    try:
        for line in requests:
            message = decode(line)
            if "drop" not in message:
                inbox.put(request_from(message))
            elif inbox.drop(message["drop"]):
                send({"id": message["drop"], "dropped": True})
    finally:
        os._exit(0)  # the parent closed the pipe or is dead; native code needs no farewell


def _beat(inbox: Inbox, send: Send) -> None:
    """Say from time to time that this process runs, and how far its model is, however long one step of it takes."""
    while True:
        send({"alive": inbox.steps})
        time.sleep(BEAT)


def _own_output() -> Callable[[bytes], None]:
    """A function that writes lines; from now on whatever prints goes to the standard error."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    lock = threading.Lock()

    def write(lines: bytes) -> None:
        try:
            with lock:
                while lines:
                    lines = lines[answers.write(lines) or 0 :]
        except BrokenPipeError:
            os._exit(0)

    return write


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process with its parent: another copy of our input's writing end would hide its death."""
    if not sys.platform.startswith("linux"):
        return
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return  # the end of the input remains
    if os.getppid() != parent:
        os._exit(0)  # it died before we asked
