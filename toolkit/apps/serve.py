"""`emotion-lrm serve`: readings over HTTP for programs, on this machine unless told otherwise."""

from __future__ import annotations

import gc
import ipaddress
import math
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.errors import EmotionLRMError, UsageError
from toolkit.settings import PREFIX, Progress, Settings, building_notice, is_quiet, model_options, wanted_model

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from toolkit.apps.api.gate import Limits
    from toolkit.inference.worker import WorkerModel


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, metavar="H", help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, metavar="P", help="0 takes a free one."
)
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Worker processes.")
@click.option(
    "--max-queue",
    type=click.IntRange(1, 100_000),
    default=256,
    show_default=True,
    metavar="N",
    help="Requests that may be open, and texts that may wait, before others get 503.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, 3600, min_open=True),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Seconds until a single text must be answered.",
)
@click.option(
    "--api-key-file",
    type=click.Path(readable=False, path_type=Path),
    metavar="FILE",
    help="A file with the key that callers must send.  [default: EMOTION_LRM_API_KEY, else none]",
)
@click.option("--allow-origin", "origins", multiple=True, metavar="URL", help="Whose web pages may call; repeatable.")
@model_options
def serve(
    host: str, port: int, workers: int, max_queue: int, timeout: float, api_key_file: Path | None,
    origins: tuple[str, ...], settings: Settings,
) -> None:  # fmt: skip
    """Answer over HTTP: texts in, readings out as JSON.

    The address is printed to standard output once it is listened on; /docs there shows what can be asked. --lens,
    --taxonomy and --mode are what a request gets that does not say. No text is written to any log. SIGTERM ends the
    server when open requests are answered.

    \b
    emotion-lrm serve
    emotion-lrm serve --port 0 --mode fast
    EMOTION_LRM_API_KEY=... emotion-lrm serve --host 0.0.0.0
    """
    check_extra()
    from toolkit.apps.api.application import make_application
    from toolkit.apps.api.gate import Limits

    key, limits = read_key(os.environ, api_key_file), Limits(timeout, max_queue)
    with listening(host, port) as listener, _open(settings, workers, max_queue) as model:
        for lens in settings.lenses:
            model.wish(lens=lens, taxonomy=settings.taxonomy, mode=settings.mode)
        application = make_application(model, settings, limits, key, origins)
        _announce(listener, key)
        run(application, listener, limits)


def check_extra() -> None:
    """See that what only the server needs is installed.

    Raises:
        EmotionLRMError: where it is not.
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise EmotionLRMError(f"The server needs the package {error.name}.", 'pip install ".[serve]"') from None


def read_key(environ: Mapping[str, str], file: Path | None) -> str | None:
    """The key that callers must send: from the file, else from ``EMOTION_LRM_API_KEY``, else None.

    Raises:
        UsageError: for a key that no header can carry.
        OSError: for a file that cannot be read.
    """
    key = file.read_text(encoding="utf-8", errors="replace").strip() if file else environ.get(f"{PREFIX}API_KEY")
    if not key and not file:
        return None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError("The API key must be one word of printable ASCII.", "For example: openssl rand -hex 24")
    return key


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that has the address; connections are accepted once the server runs.

    Raises:
        EmotionLRMError: where the address cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _no_address(host, port, error) from None
    with listener:
        try:
            if os.name == "posix":  # on Windows this would take the address away from another program
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            raise _no_address(host, port, error) from None
        yield listener


def _no_address(host: str, port: int, error: OSError) -> EmotionLRMError:
    return EmotionLRMError(
        f"Cannot listen on {host}, port {port}: {error.strerror or error}.",
        "Choose another --port, 0 for any that is free, or another --host.",
    )


@contextmanager
def _open(settings: Settings, workers: int, capacity: int) -> Iterator[WorkerModel]:
    from toolkit.inference.worker import WorkerModel

    with Progress(*building_notice(settings)) as progress:
        model = WorkerModel.load(
            wanted_model(settings), threads=settings.threads, gpu_layers=settings.gpu_layers, adapter=settings.adapter,
            progress=progress, workers=workers, capacity=capacity,
        )  # fmt: skip
    with model:
        yield model


def _announce(listener: socket.socket, key: str | None) -> None:
    """Listen, print the address, and warn where others can reach it."""
    host, port = listener.getsockname()[:2]
    try:
        listener.listen(1024)
    except OSError as error:
        raise _no_address(host, port, error) from None
    if not ipaddress.ip_address(host).is_loopback:
        who = "with the key " if key else ""
        click.echo(f"Everybody {who}who reaches this machine can ask it; nothing is encrypted.", err=True)
    click.echo(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    if not is_quiet():
        click.echo("What can be asked: /docs. Ctrl-C ends the server.", err=True)


def run(application: ASGIApp, listener: socket.socket, limits: Limits) -> None:
    """Answer requests until SIGTERM, which ends this normally once open requests are answered, or Ctrl-C."""
    import uvicorn

    from toolkit.apps.api.connection import Connection

    connection: Any = partial(Connection, limits)  # uvicorn's types want a class
    config = uvicorn.Config(
        application, http=connection, lifespan="off", ws="none", access_log=False, log_config=None,
        server_header=False, proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(limits.seconds + limits.finish_seconds),
    )  # fmt: skip
    # uvicorn sends itself the signal again when it is done; that we were asked to end is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    gc.freeze()  # what is here now stays: looking through it again and again took 8 % of the server's time
    uvicorn.Server(config).run(sockets=[listener])
