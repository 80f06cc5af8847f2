"""`emotion-lrm convert bundle`: one file with everything that a machine without a network needs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit import __version__
from toolkit.settings import Progress, is_quiet

if TYPE_CHECKING:
    from convert.bundle import Manifest

_FILE_TYPE = "q8_0"  # BF16 is fast only where the processor computes in it, and the other machine is unknown
_PROJECT = "emotion-lrm"


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="FILE|DIR",
    help="The zip to write, or the folder for it.  [default: here, named after Python version and platform]",
)
@click.option("--model", metavar="NAME|FILE", help="A model's name or a GGUF file.  [default: the shipped one as Q8_0]")
@click.option(
    "--wheels",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of wheels to take instead of building or packing them.",
)
@click.option("--extra", "extras", multiple=True, help="Carry the packages of this extra too, such as serve.")
def bundle(out: Path, model: str | None, wheels: Path | None, extras: tuple[str, ...]) -> None:
    """Write one file that installs on a machine without a network.

    It holds the wheels of emotion-lrm and of all that it needs, a model, and a start script that checks the processor
    first. The other machine needs the same Python version and platform, and AVX2. The first bundle takes several
    minutes, for llama-cpp-python is built anew, not for this processor alone.

    \b
    emotion-lrm convert bundle --out bundles
    unzip bundles/emotion-lrm-*.zip && emotion-lrm-*/start.sh "I feel disappointed and ignored..."
    """
    from convert.bundle import manifest_of_this_machine, write_bundle
    from convert.files import explained
    from toolkit.apps.export import read_source
    from toolkit.apps.licences import licences, remark
    from toolkit.inference.store import ensure, load_shipped

    with Progress("Building the model; this happens once and takes about a minute.") as progress:
        source = read_source(ensure(model or f"{load_shipped().default}-{_FILE_TYPE}", progress))
    manifest = manifest_of_this_machine(__version__, f"{source.name}.gguf", extras)
    path = out if out.suffix == ".zip" and not out.is_dir() else out / f"{manifest.folder}.zip"
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as work:
            found = collect_wheels(Path(work), wheels, extras, _say)
            texts = {"README.txt": readme(manifest), "MODEL_CARD.md": source.card}
            texts |= licences(source.name, source.told)
            write_bundle(path, manifest, found, source.header.path, texts)
    click.echo(f"{path}  {path.stat().st_size / 1e6:,.0f} MB, {len(found)} wheels")
    if said := remark(source.told):
        click.echo(said, err=True)


def collect_wheels(work: Path, given: Path | None, extras: tuple[str, ...], say: Callable[[str], None]) -> list[Path]:
    """The wheels of the project and of all that it needs: given ones first, else built or packed into ``work``.

    Raises:
        ConvertError: where one cannot be had.
    """
    from importlib import metadata
    from importlib.util import find_spec

    from packaging.utils import canonicalize_name

    from convert.bundle import (
        LLAMA,
        build_wheel,
        distributions_for,
        editable_source,
        given_wheels,
        pack_wheel,
        portable_llama_wheel,
        require_version,
        requirements_of,
    )
    from toolkit.inference.store import models_folder

    ready = given_wheels(given) if given is not None else {}

    def wheel_of(distribution: metadata.Distribution) -> Path:
        name = canonicalize_name(distribution.name)
        if name in ready:
            require_version(ready[name], distribution)
            return ready[name]
        if (checkout := editable_source(distribution)) is not None:
            # With the build backend that is here no network is needed.
            return build_wheel(checkout, work, *(["--no-build-isolation"] if find_spec("hatchling") else []))
        if name == LLAMA:
            return portable_llama_wheel(distribution.version, models_folder().with_name("wheels"), say)
        return pack_wheel(distribution, work)

    own = wheel_of(metadata.distribution(_PROJECT))
    return [own, *map(wheel_of, distributions_for(requirements_of(own, extras)))]


def readme(manifest: Manifest) -> str:
    """How to use the bundle."""
    return (
        f"Emotion-LRM {manifest.version} for {manifest.system} {manifest.machine} and Python {manifest.python}, "
        "to be used without a network.\n\n"
        "Unpack it, and run start.sh (Windows: start.bat) with whatever emotion-lrm takes:\n\n"
        '    ./start.sh "I feel disappointed and ignored..."\n'
        "    ./start.sh chat\n\n"
        "The first start checks the files and installs them into the folder .venv beside this file; where that cannot "
        "be written,\nset EMOTION_LRM_BUNDLE_VENV to another folder. Nothing outside of that folder is changed.\n"
    )


def _say(line: str) -> None:
    if not is_quiet():
        click.echo(line, err=True)
