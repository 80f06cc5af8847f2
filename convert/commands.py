"""The commands of ``convert``: parse, call, print. Results go to standard output, progress to standard error."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convert.file_types import DIRECT_TYPES, FILE_TYPES, default_file_type

if TYPE_CHECKING:
    from convert.quantize import QuantizationReport
    from convert.verify import VerifyReport

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_EITHER = click.Path(exists=True, path_type=Path)
_NEW = click.Path(path_type=Path)

_out = click.option("-o", "--out", type=_NEW, required=True, help="The file to write.")
_adapter = click.option("--adapter", type=_FOLDER, required=True, help="A LoRA folder in PEFT's format.")
_base_gguf = click.option(
    "--base", type=_FILE, required=True, envvar="EMOTION_LRM_BASE", help="The base GGUF (or EMOTION_LRM_BASE)."
)


def _file_type(choices: tuple[str, ...], default: str | None) -> Callable[..., Callable[..., None]]:
    return click.option(
        "-t",
        "--file-type",
        type=click.Choice(choices, case_sensitive=False),
        default=default,
        show_default=default is not None,
        required=default is None,
        help="How the weights are stored.",
    )


@click.group()
def convert() -> None:
    """Merge, write GGUF, quantize, verify."""


@convert.command()
@click.option(
    "--base",
    type=_EITHER,
    required=True,
    envvar="EMOTION_LRM_BASE",
    help="A base GGUF, or with --torch a model folder.",
)
@_adapter
@_out
@_file_type(DIRECT_TYPES, "BF16")
@click.option("--torch", "with_torch", is_flag=True, help="Merge with torch and PEFT into a Hugging Face folder.")
def merge(
    base: Path,
    adapter: Path,
    out: Path,
    file_type: str,
    with_torch: bool,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Merge a LoRA adapter into its base."""
    if with_torch:
        if file_type not in ("BF16", "F32"):
            raise click.UsageError("With --torch the file type is BF16 or F32.")
        from convert.merge_hf import merge_hf

        click.echo(merge_hf(base, adapter, out, "float32" if file_type == "F32" else "bfloat16", metadata))
        return
    if base.is_dir():
        raise click.UsageError("A model folder needs --torch; without it, give a base GGUF.")
    from convert.merge import merge_adapter

    click.echo(merge_adapter(base, adapter, out, file_type, metadata, progress=show_progress))


@convert.command()
@click.argument("adapters", type=_FOLDER, nargs=-1, required=True)
@click.option("-o", "--out", type=_NEW, required=True, help="The folder to write, new or empty.")
@click.option("--weights", metavar="W,W", help="How much each counts, such as 3,1; alike by default.")
@click.option("--rank", type=click.IntRange(1, 256), default=16, show_default=True, help="Rank of the mean.")
def average(adapters: tuple[Path, ...], out: Path, weights: str | None, rank: int) -> None:
    """Write the weighted mean of ADAPTERS, trained on the same base, as one adapter.

    \b
    emotion-lrm convert average models/runs/mine/adapter models/adapters/author --weights 3,1 -o models/runs/mean
    """
    from convert.average import average_adapters

    try:
        counts = [float(part) for part in weights.split(",")] if weights else [1.0] * len(adapters)
    except ValueError:
        raise click.BadParameter(f"{weights} is no list of numbers.", param_hint="--weights") from None
    kept = average_adapters(adapters, counts, out, rank)
    click.echo(f"{out}  rank {rank} keeps {kept:.2%} of the mean's squared norm")


@convert.command()
@click.argument("folder", type=_FOLDER)
@_out
@click.option(
    "-t",
    "--file-type",
    type=click.Choice(DIRECT_TYPES, case_sensitive=False),
    help="How the weights are stored; of an adapter, F16 or F32.  [default: BF16, of an adapter F16]",
)
@click.option("--base", type=_FILE, envvar="EMOTION_LRM_BASE", help="For an adapter folder: the GGUF it belongs to.")
def gguf(folder: Path, out: Path, file_type: str | None, base: Path | None) -> None:
    """Write a Hugging Face model FOLDER as GGUF, or a LoRA folder as GGUF-LoRA (give --base)."""
    if not (folder / "adapter_config.json").is_file():
        from convert.hf_to_gguf import hf_to_gguf

        click.echo(hf_to_gguf(folder, out, file_type or "BF16", progress=show_progress))
        return
    if base is None:
        raise click.UsageError("An adapter folder needs --base, the GGUF it belongs to.")
    from convert.gguf_lora import adapter_to_gguf

    click.echo(adapter_to_gguf(base, folder, out, file_type or "F16"))


@convert.command()
@click.argument("source", type=_FILE)
@_out
@_file_type(FILE_TYPES, None)
@click.option("--threads", type=click.IntRange(min=1), help="For K-quants; default: every core.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def quantize(source: Path, out: Path, file_type: str, threads: int | None, as_json: bool) -> None:
    """Write SOURCE, a GGUF of floats, in fewer bits."""
    from convert.quantize import quantize as quantize_file

    print_quantized(quantize_file(source, out, file_type, show_progress, threads), out, as_json)


def print_quantized(report: "QuantizationReport", out: Path, as_json: bool) -> None:
    """Print what a quantized file really holds."""
    if as_json:
        click.echo(json.dumps(asdict(report)))
        return
    tensors = ", ".join(f"{count} {name}" for name, count in sorted(report.tensors.items()))
    click.echo(f"{out}  {report.n_bytes / 1e6:.1f} MB  {report.bits_per_weight:.2f} bits per weight  ({tensors})")
    for reason in sorted(set(report.fallbacks.values())):
        names = [name for name, why in report.fallbacks.items() if why == reason]
        click.echo(f"{len(names)} tensors are {reason}", err=True)


@convert.command()
@click.argument("file", type=_FILE)
@click.option("--manifest", type=_FILE, help="A SHA256SUMS file.")
@click.option("--prompt-hash", help="The prompt hash it should carry.")
@click.option("--base", type=_EITHER, help="Its base GGUF or model folder: tokens must be the same.")
@click.option("--reference", type=_FILE, help="A GGUF whose logits it should have.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(
    file: Path,
    manifest: Path | None,
    prompt_hash: str | None,
    base: Path | None,
    reference: Path | None,
    threads: int,
    as_json: bool,
) -> None:
    """Say whether FILE is what it claims to be."""
    from convert.verify import verify as verify_file

    print_report(verify_file(file, manifest, prompt_hash, base, reference, threads=threads), as_json)


def print_report(report: "VerifyReport", as_json: bool) -> None:
    """Print the checks of a file; a failed one ends the command with exit code 1."""
    if as_json:
        checks = [asdict(check) for check in report.checks]
        click.echo(json.dumps({"path": str(report.path), "passed": report.passed, "checks": checks}))
    else:
        marks = {True: "ok", False: "FAILED", None: "-"}
        for check in report.checks:
            click.echo(f"{marks[check.passed]:7} {check.name:9} {check.detail}")
    if not report.passed:
        click.get_current_context().exit(1)


@convert.command()
@_base_gguf
@_adapter
@_out
@_file_type(FILE_TYPES, default_file_type())
@click.option("--chat-template", type=_FILE, help="A file that becomes the model's chat template.")
def build(
    base: Path,
    adapter: Path,
    out: Path,
    file_type: str,
    chat_template: Path | None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Merge, quantize and check in one go; what is built already is kept."""
    from convert.build import build_model

    template = chat_template.read_text(encoding="utf-8") if chat_template else None
    result = build_model(base, adapter, out, file_type, metadata, template, show_progress)
    click.echo(f"{result.path}  {result.file_type}  {result.n_bytes / 1e6:.1f} MB")
    click.echo(f"built in {result.seconds:.1f} s" if result.built else "was there already", err=True)


def show_progress(done: int, total: int, what: str) -> None:
    """Rewrite one line on standard error, where a person is looking and has not asked for quiet."""
    root = click.get_current_context().find_root().obj
    if not sys.stderr.isatty() or (isinstance(root, dict) and root.get("quiet")):
        return
    end = "\n" if done >= total else ""
    sys.stderr.write(f"\r\x1b[K{done / max(total, 1):4.0%}  {what}{end}")
    sys.stderr.flush()
