"""What every test stands on: a home and a cache of its own, no hub, and on request no network at all."""

from __future__ import annotations

import functools
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toolkit.inference import kernel

with tempfile.TemporaryDirectory() as cache, pytest.MonkeyPatch.context() as patch:  # the user's own is left alone
    patch.setenv("EMOTION_LRM_CACHE", cache)
    kernel.install()  # before a test imports llama_cpp

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
# A shell ignores SIGINT for what it starts in the background, and the programs that tests interrupt would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)

USER_SETTINGS = ("CONFIG", "MODEL", "LENS", "TAXONOMY", "MODE", "THREADS", "GPU_LAYERS", "ADAPTER", "BASE", "API_KEY")


@pytest.fixture(scope="session", autouse=True)
def isolated_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home, a configuration folder and a model cache that are empty at the start of the session.

    ``EMOTION_LRM_CORPORA`` stays: it says where the corpora lie, not how a person likes to run things.
    """
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "USERPROFILE"):
            patch.setenv(name, str(home))
        for name, folder in (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache"), ("XDG_DATA_HOME", ".data")):
            patch.setenv(name, str(home / folder))
        for name in USER_SETTINGS:
            patch.delenv(f"EMOTION_LRM_{name}", raising=False)
        patch.setenv("EMOTION_LRM_CACHE", str(home / "cache"))
        yield home


class NetworkTouchedError(OSError):
    """Something reached for the network where it must not."""


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Refuse name look-ups and connections, and fail the test that tried, even if it swallowed the refusal.

    Sockets of the family AF_UNIX, with which processes of one machine speak, stay open. A whole module goes offline
    with ``pytestmark = pytest.mark.usefixtures("offline")``.
    """
    attempts: list[str] = []

    def refuse(target: object) -> None:
        attempts.append(str(target))
        raise NetworkTouchedError(f"offline test: {target}")

    def guarded(real: Any) -> Any:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family != getattr(socket, "AF_UNIX", None):
                refuse(address)
            return real(self, address)

        return connect

    def look_up(host: object, *_: object, **__: object) -> None:
        refuse(host)

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        monkeypatch.setattr(socket, name, look_up)
    yield attempts
    assert not attempts, f"the network was touched: {', '.join(attempts)}"


@pytest.fixture(scope="session")
def shipped_path(isolated_home: Path) -> Callable[[str | None], Path]:
    """A function from the name of a shipped model, None for the default one, to its GGUF, built once a session."""
    from toolkit.inference.store import ensure

    @functools.cache
    def build(name: str | None) -> Path:
        path = ensure(name)
        assert path.is_relative_to(isolated_home)
        return path

    return build


@pytest.fixture(scope="session")
def default_model_path(shipped_path: Callable[[str | None], Path]) -> Path:
    """The default model, built once a session from the shipped adapter. Tests that use it are marked ``real``."""
    return shipped_path(None)


@pytest.fixture(scope="session")
def default_model(default_model_path: Path) -> Iterator[Any]:
    """The default model, loaded: an :class:`~toolkit.inference.model.EmotionModel`."""
    from toolkit import EmotionModel

    with EmotionModel.load(default_model_path) as model:
        yield model


@pytest.fixture(scope="session")
def shallow_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function (file type, layers) -> GGUF of the default base with the first of its thirty layers alone."""
    from convert.gguf_file import as_field, copied_fields, write_gguf
    from convert.header import check_header
    from convert.merge import merged_plans, merged_rows
    from toolkit.base import find_base_gguf, load_base

    folder = tmp_path_factory.mktemp("shallow")

    def make(file_type: str = "F32", layers: int = 2) -> Path:
        made = folder / f"{layers}-{file_type}.gguf"
        if not made.exists():
            base = check_header(find_base_gguf(load_base("smollm2-135m")))
            names = tuple(f"blk.{layer}." for layer in range(layers))
            kept = tuple(t for t in base.tensors if not t.name.startswith("blk.") or t.name.startswith(names))
            fields = copied_fields(base) | {"llama.block_count": as_field(layers)}
            plans = merged_plans(replace(base, tensors=kept), file_type)
            write_gguf(made, "llama", fields, plans, lambda plan: merged_rows(base, plan.name, None))
        return made

    return make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that needs a shipped model as ``real``, so that no marker is forgotten.

    The files of this folder itself come first: they take longest, and would else keep one of two processes waiting.
    """
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)
    for item in items:
        if {"default_model", "default_model_path", "shipped_path"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("real")


@pytest.fixture(scope="session")
def playwright() -> Iterator[Any]:
    """Playwright, started once a session, as its loop can be."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=120_000)  # ms: the first reading loads the model, on a machine that may be busy
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def chromium(playwright: Any) -> Iterator[Any]:
    """Debian's Chromium, or the one that EMOTION_LRM_BROWSER names."""
    program = os.environ.get("EMOTION_LRM_BROWSER", "/usr/bin/chromium")
    flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    browser = playwright.chromium.launch(executable_path=program, args=flags)
    yield browser
    browser.close()
