"""What a person may set for every command that runs a model: flag, then environment, then file, then default."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import platformdirs
from pydantic import Field, ValidationError

from toolkit.config import Config, load_config
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import NAMES
from toolkit.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from toolkit.inference.model import EmotionModel

PREFIX = "EMOTION_LRM_"
BACKENDS = ("llama.cpp", "transformers")


class Settings(Config):
    """Settings of a run; the keys of ``config.yaml`` and, in capitals, of the environment."""

    model: str | None = None
    lens: Literal["author", "reader", "both"] = "author"
    taxonomy: str | None = None
    mode: Literal["fast", "explain"] = "explain"
    threads: int | None = Field(None, ge=1)
    gpu_layers: int = Field(0, ge=-1)
    adapter: str | None = None

    @property
    def lenses(self) -> tuple[Lens, ...]:
        """The lenses that the model has to know."""
        return tuple(Lens) if self.lens == "both" else (Lens(self.lens),)


def config_file(environ: Mapping[str, str] = os.environ) -> Path:
    """``EMOTION_LRM_CONFIG``, else ``config.yaml`` in the user's configuration folder; it need not exist."""
    named = environ.get(f"{PREFIX}CONFIG")
    return Path(named) if named else Path(platformdirs.user_config_dir("emotion-lrm", appauthor=False), "config.yaml")


def resolve(flags: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of a run; a flag that is None was not given.

    Raises:
        ConfigError: for an unknown key in the file or a value of the wrong kind, naming where it stands.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    try:
        return Settings.model_validate({**_from_file(environ), **_from_environment(environ), **given})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.", "Correct the value.") from None


def _from_file(environ: Mapping[str, str]) -> dict[str, Any]:
    path = config_file(environ)
    if not path.exists() and not environ.get(f"{PREFIX}CONFIG"):
        return {}
    return load_config(Settings, path).model_dump(exclude_unset=True)


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in Settings.model_fields:
        name = PREFIX + key.upper()
        if not environ.get(name):
            continue
        try:
            found[key] = getattr(Settings.model_validate({key: environ[name]}), key)
        except ValidationError as error:
            raise ConfigError(f"{name}: {error.errors()[0]['msg']}.", "Correct or unset it.") from None
    return found


_OPTIONS = {
    "model": click.option(
        "--model", metavar="NAME|FILE", help="A model's name or a GGUF file.  [default: the shipped model]"
    ),
    "lens": click.option(
        "--lens", type=click.Choice(("author", "reader", "both")), help="Whose emotion.  [default: author]"
    ),
    "taxonomy": click.option(
        "--taxonomy", type=click.Choice(NAMES), help="The set of labels.  [default: the lens's own]"
    ),
    "mode": click.option(
        "--mode", type=click.Choice(("fast", "explain")), help="Label only, or with reasoning.  [default: explain]"
    ),
    "threads": click.option(
        "--threads", type=click.IntRange(1), metavar="N", help="CPU threads.  [default: the model's choice]"
    ),
    "gpu_layers": click.option(
        "--gpu-layers", type=click.IntRange(-1), metavar="N", help="Layers on a GPU, -1 for all.  [default: 0]"
    ),
    "adapter": click.option("--adapter", metavar="FILE", help="A GGUF-LoRA to add to the model."),
}


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of :class:`Settings`; it receives the resolved ones as ``settings``."""
    return some_model_options(*Settings.model_fields)(command)


def some_model_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The same with some of these options, for a command that can do nothing with the others."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_settings(*args: Any, **kwargs: Any) -> Any:
            flags = {name: kwargs.pop(name) for name in names}
            return command(*args, settings=resolve(flags), **kwargs)

        for name in reversed(names):
            with_settings = _OPTIONS[name](with_settings)
        return with_settings

    return decorate


def is_quiet() -> bool:
    """Whether ``-q`` was given."""
    ctx = click.get_current_context(silent=True)
    return bool(ctx and (ctx.find_root().obj or {}).get("quiet"))


@contextmanager
def open_model(settings: Settings, backend: str = "llama.cpp") -> Iterator[EmotionModel]:
    """The model that the settings name; its first build shows progress on standard error unless ``-q`` was given.

    Args:
        backend: one of ``BACKENDS``.
    """
    model = _load_native(settings) if backend == "llama.cpp" else _load_unmerged(settings)
    try:
        yield model
    finally:
        model.close()


def wanted_model(settings: Settings) -> str | None:
    """The model that is asked for by name or file, or the shipped one that knows the lens; None is the default one.

    Raises:
        UsageError: where no shipped model knows it.
    """
    from toolkit.inference.store import default_name

    return settings.model or (None if settings.adapter else default_name(settings.lenses))


def building_notice(settings: Settings) -> tuple[str, str]:
    """What is said while a model is built for the first time, and of its licence, which ``-q`` does not silence."""
    from toolkit.inference.store import licence_remark

    told = "Building the model; this happens once and takes about a minute."
    return told, licence_remark(wanted_model(settings))


def _load_native(settings: Settings) -> EmotionModel:
    from toolkit.inference.model import EmotionModel

    with Progress(*building_notice(settings)) as progress:
        return EmotionModel.load(
            wanted_model(settings),
            threads=settings.threads,
            gpu_layers=settings.gpu_layers,
            adapter=settings.adapter,
            progress=progress,
        )


def _load_unmerged(settings: Settings) -> EmotionModel:
    from toolkit.inference.transformers_backend import load_unmerged

    if settings.adapter:
        raise UsageError("The backend transformers adds no GGUF-LoRA.", "Give the adapter's folder as --model.")
    return load_unmerged(wanted_model(settings), threads=settings.threads, gpu=settings.gpu_layers != 0)


class Progress:
    """A bar on standard error, which appears with the first step and goes away at the end.

    In a pipe there is only ``notice``, which is said before the first step, or without one a line a quarter of each
    step. With ``-q`` nothing is shown but ``remark``, a term of a licence, which is said before the first step.
    """

    def __init__(self, notice: str = "", remark: str = "") -> None:
        self._quiet, self._notice, self._remark, self._said = is_quiet(), notice, remark, ""
        self._console: Any = None
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, step: str) -> None:
        """Show that ``done`` of ``total`` units of ``step`` are finished."""
        if self._remark:
            click.echo(self._remark, err=True)
            self._remark = ""
        if self._quiet:
            return
        if self._console is None:
            self._start()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, description=step)
        elif not self._notice:
            self._say(f"{step} {25 * (4 * done // max(total, 1))} %")

    def _say(self, line: str) -> None:
        if line != self._said:
            self._console.print(line)
        self._said = line

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True, highlight=False, markup=False)
        if self._notice:
            self._console.print(self._notice)
        if self._console.is_terminal:
            columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()]
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
