"""`emotion-lrm models`: what lies in the cache folder."""

from __future__ import annotations

import json
from typing import Any

import click

from toolkit.errors import ModelError


@click.group()
def models() -> None:
    """See and remove the models on this machine.

    \b
    emotion-lrm models list
    emotion-lrm models show emotion-smollm2-135m-q8_0
    """


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a model.")
def list_models(as_json: bool) -> None:
    """List the models that are built, with their size."""
    from toolkit.inference.store import installed

    found = installed()
    for model in found:
        if as_json:
            click.echo(json.dumps({"name": model.name, "path": str(model.path), "bytes": model.bytes}))
        else:
            click.echo(f"{model.name}  {megabytes(model.bytes)}")
    if not found:
        click.echo("No model is built yet; the first analysis builds one.", err=True)


@models.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(name: str, as_json: bool) -> None:
    """Show what the model NAME says of itself."""
    found = describe(name)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    width = max(map(len, found))
    for key, value in found.items():
        told = megabytes(value) if key == "bytes" else ", ".join(value) if isinstance(value, list) else value
        click.echo(f"{key:<{width}}  {told}")


@models.command()
@click.argument("name", required=False)
def path(name: str | None) -> None:
    """Print where the model NAME lies, or the folder of all models."""
    from toolkit.inference.store import locate, models_folder

    click.echo(locate(name) if name else models_folder())


@models.command()
@click.argument("name")
def remove(name: str) -> None:
    """Delete the model NAME from the cache folder; the next analysis that needs it builds it again."""
    from toolkit.inference.store import remove as delete

    click.echo(f"Removed {delete(name)}.", err=True)


def describe(name: str) -> dict[str, Any]:
    """Name, path, size in bytes and own metadata of a built model; of the calibration only what it was fitted on.

    Raises:
        ModelError: where no sound model of that name is built.
    """
    from toolkit.inference.calibration import parse_calibration
    from toolkit.inference.store import installed, locate

    wanted = locate(name).resolve()
    for model in installed():
        if model.path.resolve() == wanted:
            long = ("name", "calibration", "learned")
            metadata = {key: value for key, value in model.metadata.items() if key not in long}
            calibrated = parse_calibration(model.metadata.get("calibration") or "{}").lenses.values()
            fitted = ", ".join(one.fitted_on for one in calibrated if one.fitted_on)
            return {
                "name": model.name, "path": str(model.path), "bytes": model.bytes, **metadata, "calibrated_on": fitted
            }  # fmt: skip
    raise ModelError(
        f"{wanted} is no sound model of the cache folder.", "Remove it; the next analysis builds it again."
    )


def megabytes(size: int) -> str:
    """``145 MB``, in millions of bytes."""
    return f"{size / 1e6:,.0f} MB"
