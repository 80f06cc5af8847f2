"""`emotion-lrm convert export`: a folder with all that another program of llama.cpp's kind needs to serve the model."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convert.errors import FileError
from convert.file_types import FILE_TYPES
from toolkit.contract.lens import Lens
from toolkit.settings import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from convert.header import Header
    from toolkit.apps.proof import Proof

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
PROOF_TEXTS, PROOF_SHARE = 100, 0.95
_HERE = "here"

Steps = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Source:
    """The model to export: its file, what it says of itself, and its model card."""

    header: Header
    name: str
    lenses: tuple[Lens, ...]
    told: dict[str, Any]
    card: str


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder to write.")
@click.option("--model", metavar="NAME|FILE", help="A model's name or a GGUF file.  [default: the shipped model]")
@click.option("--adapter", type=_FOLDER, help="Export this LoRA folder, merged into its base, instead of a model.")
@click.option("--base", type=_FILE, help="With --adapter: the GGUF it belongs to.  [default: what its base.json names]")
@click.option(
    "-t", "--file-type", type=click.Choice(FILE_TYPES, case_sensitive=False), help="With --adapter.  [default: Q8_0]"
)
@click.option(
    "--lens",
    "lenses",
    type=click.Choice([str(lens) for lens in Lens]),
    multiple=True,
    help="[default: what the model knows]",
)
@click.option(
    "--prove",
    is_flag=False,
    flag_value=_HERE,
    metavar="[URL]",
    help="Compare with our own engine over HTTP: at URL, or a server that is started for it.",
)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads of the proof.")
def export(
    out: Path,
    model: str | None,
    adapter: Path | None,
    base: Path | None,
    file_type: str | None,
    lenses: tuple[str, ...],
    prove: str | None,
    threads: int | None,
) -> None:
    """Write a folder that other programs of llama.cpp serve.

    It holds the model with our prompt as its chat template, grammars and JSON schemas, a Modelfile for Ollama, the
    command for llama-server, model card, licences and checksums. --prove reads 100 of the shipped texts through the
    server and with our own engine; an export that is there already is then kept if it is whole.

    \b
    emotion-lrm convert export --out served
    emotion-lrm convert export --out served --prove
    emotion-lrm convert export --out served --prove http://127.0.0.1:8080
    """
    from toolkit.apps.licences import remark

    if adapter is None and (base or file_type):
        raise click.UsageError("--base and --file-type go with --adapter.")
    if adapter is not None and model:
        raise click.UsageError("Give --model or --adapter, not both.")
    if prove is None or not (out / "SHA256SUMS").is_file():
        with (
            Progress("Writing the export.") as progress,
            chosen_source(out, model, adapter, base, file_type, lenses, progress) as source,
        ):
            for path in write(out, source, progress):
                click.echo(path)
            if said := remark(source.told):
                click.echo(said, err=True)
    if prove is not None and not prove_export(out, None if prove == _HERE else prove, threads):
        click.get_current_context().exit(1)


@contextmanager
def chosen_source(
    out: Path,
    model: str | None,
    adapter: Path | None,
    base: Path | None,
    file_type: str | None,
    lenses: tuple[str, ...],
    progress: Steps | None = None,
) -> Iterator[Source]:
    """The model that was named, or the adapter merged into its base in a temporary file beside ``out``."""
    from toolkit.inference.store import ensure

    wanted = tuple(Lens(lens) for lens in lenses)
    if adapter is None:
        yield read_source(ensure(model, progress), wanted)
        return
    from convert.build import build_model
    from convert.files import explained
    from toolkit.base import base_of, find_base_gguf, load_base
    from toolkit.inference.origin import read_origin
    from toolkit.inference.store import load_shipped

    shipped = load_shipped()
    known = base_of(read_origin(adapter).base) or load_base(shipped.models[shipped.default].base)
    base = base or find_base_gguf(known)
    with explained(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
            kind = (file_type or "Q8_0").upper()
            built = Path(work) / f"{adapter.resolve().name}-{kind.lower()}.gguf"
            metadata = adapter_metadata(adapter, wanted)
            build_model(base, adapter, built, kind, metadata=metadata, progress=progress)
            yield read_source(built, wanted, adapter / "README.md")


def adapter_metadata(adapter: Path, lenses: tuple[Lens, ...] = ()) -> dict[str, Any]:
    """What a model says of itself that is built from somebody's own adapter folder.

    Args:
        lenses: those of an adapter that does not say which it has learned; the author's by default.

    Raises:
        ModelError: where the folder is damaged.
    """
    from toolkit.contract.prompt import load_prompt
    from toolkit.inference.origin import read_origin
    from toolkit.training.learned import read_learned

    origin, calibration = read_origin(adapter), adapter / "calibration.json"
    known = origin.lenses or lenses or (Lens.AUTHOR,)
    told = {
        "name": adapter.resolve().name,
        "base": origin.base,
        "datasets": list(origin.datasets),
        "licence": origin.licence,
        "lenses": [str(lens) for lens in known],
        "taxonomies": [lens.native for lens in known],
        "prompt_hash": load_prompt().digest,
        "calibration": calibration.read_text(encoding="utf-8") if calibration.is_file() else "{}",
        "learned": json.dumps(read_learned(adapter).to_dict()),
    }
    return {key: value for key, value in told.items() if value}


def read_source(path: Path, lenses: tuple[Lens, ...] = (), card: Path | None = None) -> Source:
    """The model in a GGUF, with the lenses that were asked for, or all that it knows.

    Raises:
        UsageError: for a lens that the model has not learned.
        ModelError: for a model of another prompt.
        ConvertError: for a damaged file.
    """
    from convert.header import check_header
    from toolkit.assets import asset
    from toolkit.contract.prompt import load_prompt
    from toolkit.errors import ModelError
    from toolkit.inference.request import check_lens

    header = check_header(path)
    told = {k.removeprefix("emotion_lrm."): v for k, v in header.metadata.items() if k.startswith("emotion_lrm.")}
    if told.get("prompt_hash", load_prompt().digest) != load_prompt().digest:
        raise ModelError(f"{path.name} was trained for another prompt.", "Convert its adapter again with this version.")
    known = tuple(Lens(lens) for lens in told.get("lenses", [Lens.AUTHOR]))
    for lens in lenses:
        check_lens(lens, known, path.stem)
    if card is None and "adapter" in told:
        card = asset("models", "adapters", str(told["adapter"])) / "README.md"
    text = card.read_text(encoding="utf-8") if card is not None and card.is_file() else f"# {path.stem}\n"
    return Source(header, path.stem, lenses or known, told, text)


def write(out: Path, source: Source, progress: Steps | None = None) -> tuple[Path, ...]:
    """Write the export; returns its files.

    Raises:
        FileError: ``out`` is there and not empty, or cannot be written.
    """
    from convert.export import control_tokens, jinja_template, write_export
    from toolkit.apps.export_texts import export_texts
    from toolkit.apps.licences import licences
    from toolkit.contract.prompt import frame_for
    from toolkit.inference.native import NativeModel

    native = NativeModel(source.header.path, vocab_only=True)
    try:
        frames = {lens: frame_for(native, lens) for lens in source.lenses}
    finally:
        native.close()
    heads = {str(lens): frame.head_text for lens, frame in frames.items()}
    template = jinja_template(heads, frames[source.lenses[0]].tail_text, control_tokens(source.header))
    texts = export_texts(source.name, frames, source.told, source.card) | licences(source.name, source.told)
    return write_export(out, source.header.path, source.name, template, texts, progress)


def prove_export(out: Path, url: str | None, threads: int | None) -> bool:
    """Print how far a server of the export reads the shipped texts as our engine does; says whether it suffices."""
    from convert.server import serving
    from toolkit.apps.proof import prove
    from toolkit.inference.engine import available_threads

    gguf, lenses = exported_model(out)
    threads = threads or available_threads()
    texts, enough = proof_texts(), True
    with Progress() as progress:
        for lens in lenses:
            options: dict[str, Any] = {"default_lens": lenses[0], "threads": threads, "progress": progress}
            with serving(gguf, threads) if url is None else nullcontext((url, url.rstrip("/"))) as (server, address):
                proof = prove(gguf, address, lens, texts, **options)
            show_proof(lens, server, proof)
            if proof.agreed < PROOF_SHARE * proof.n:
                click.echo(f"That is less than {PROOF_SHARE:.0%}.", err=True)
                enough = False
            if not all(one.excused for one in proof.differences):
                click.echo("Some differences have no explanation.", err=True)
                enough = False
    return enough


def exported_model(out: Path) -> tuple[Path, tuple[Lens, ...]]:
    """The GGUF of an export and its lenses, the default one first, after its checksums have been compared.

    Raises:
        FileError: where the export is not whole.
    """
    from convert.export import SUMS
    from convert.verify import verify

    found = sorted(out.glob("*.gguf"))
    if len(found) != 1:
        raise FileError(f"{out} holds no export with one GGUF", "Export into a new folder.")
    report = verify(found[0], out / SUMS)
    if not report.passed:
        detail = next(check.detail for check in report.checks if check.passed is False)
        raise FileError(f"The export {out} is damaged: {detail}", "Export into a new folder.")
    grammars = {lens for lens in Lens if (out / f"{lens}-label.gbnf").is_file()}
    source = read_source(found[0])
    return found[0], tuple(lens for lens in source.lenses if lens in grammars)


def proof_texts() -> list[str]:
    """The first hundred of the shipped texts that no model has learned."""
    from toolkit.assets import asset

    lines = asset("data", "samples", "bench_300.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines[:PROOF_TEXTS]]


def show_proof(lens: Lens, server: str, proof: Proof) -> None:
    """Print which server answered, the agreement, and every difference with its reason."""
    from toolkit.apps.escape import visible

    ways = ", ".join(f"{count} through {endpoint}" for endpoint, count in proof.endpoints.items())
    click.echo(f"{lens}: {server} gives the same emotion on {proof.agreed} of {proof.n} texts ({ways})")
    for one in proof.differences:
        click.echo(f"  {visible(one.text)}")
        click.echo(f"    ours {one.ours} {one.p_ours:.3f}, theirs {one.theirs} {one.p_theirs:.3f}: {one.reason}")
    sys.stdout.flush()
