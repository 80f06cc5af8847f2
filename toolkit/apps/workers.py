"""The model in worker processes, for commands that must outlive a crash of native code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from toolkit.settings import Progress, Settings, building_notice, wanted_model

if TYPE_CHECKING:
    from toolkit.inference.worker import WorkerModel


@contextmanager
def open_workers(settings: Settings, workers: int = 1) -> Iterator[WorkerModel]:
    """The model that the settings name, in ``workers`` processes; its first build shows progress on standard error."""
    from toolkit.inference.worker import WorkerModel

    with Progress(*building_notice(settings)) as progress:
        model = WorkerModel.load(
            wanted_model(settings),
            threads=settings.threads,
            gpu_layers=settings.gpu_layers,
            adapter=settings.adapter,
            progress=progress,
            workers=workers,
        )
    with model:
        yield model
