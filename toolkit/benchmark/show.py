"""The figures as tables on a terminal, and as one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from convert.files import replacing
from toolkit.benchmark.growth import Growth, widest_gaps
from toolkit.benchmark.measure import MODES, OURS, Measured
from toolkit.corpora.figures import BLUE, GREY, ORANGE, require_matplotlib
from toolkit.inference.tuning import Tuning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from toolkit.benchmark.file_types import Tried


def print_bench(machine: dict[str, Any], found: Sequence[Measured], startup: dict[str, float], file: IO[str]) -> None:
    """Machine, texts a second of every file type, and the smaller figures below."""
    console = Console(file=file, highlight=False, markup=False)
    processor, build = _machine(machine)
    console.print(processor)
    console.print(build, style="dim")
    for model in found:
        console.print(f"\n{model.model}, {model.threads} threads")
        console.print(_speeds(model))
        console.print(_details(model))
    console.print(f"\nstart to end: help {startup['help']:.2f} s, one text {startup['one_text']:.2f} s")


def print_growth(found: Sequence[Growth], file: IO[str]) -> None:
    """Speed and memory by amount, and how far the slowest lies below the fastest."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("amount", "mode", "a second", "to the smallest", "memory"):
        table.add_column(heading, justify="left" if heading == "mode" else "right")
    for growth in found:
        memory = "" if growth.memory is None else _megabytes(growth.memory)
        speed = (f"{growth.per_second:,.1f}", f"{growth.to_smallest:.2f}")
        table.add_row(f"{growth.amount:,} {growth.of}", growth.mode, *speed, memory)
    console = Console(file=file, highlight=False, markup=False)
    console.print(table)
    told = "; ".join(f"{kind} {gap:.0%}" for kind, gap in widest_gaps(found).items())
    console.print(f"the slowest below the fastest: {told}")


def print_file_types(tried: Sequence[Tried], file: IO[str]) -> None:
    """The file types from the fastest to the slowest; what lost too much is marked."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("type", "texts/s", "lost", "±", "F1 lost", "±", "KL"):
        table.add_column(heading, justify="left" if heading == "type" else "right")
    table.add_column("")
    for one in sorted(tried, key=lambda one: -one.texts_per_second):
        lost = (one.loss.top1, one.loss.noise, one.loss.macro_f1, one.loss.macro_f1_noise)
        told = (f"{value:{form}}" for value, form in zip(lost, ("+.3f", ".3f", "+.3f", ".3f"), strict=True))
        refused = "refused" if one.refused else ""
        table.add_row(one.file_type, f"{one.texts_per_second:.1f}", *told, f"{one.loss.kl:.4f}", refused)
    Console(file=file, highlight=False, markup=False).print(table)


def print_tuning(model: str, tuning: Tuning, texts_per_second: float, kept: Path | None, file: IO[str]) -> None:
    """The settings that were found, and where they lie."""
    console = Console(file=file, highlight=False, markup=False)
    console.print(
        f"{model}: {tuning.threads} threads for batches, {tuning.single_threads} for single tokens, "
        f"{tuning.active} sequences, {tuning.rows or 'the usual'} tokens a pass: "
        f"{texts_per_second:.1f} texts explained a second"
    )
    console.print(f"kept in {kept}" if kept else "not kept: the file carries no hash of its content", style="dim")


def _speeds(model: Measured) -> Table:
    """Texts that each read a turn and a second, and how many times what others reach."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "mode"):
        table.add_column(heading, no_wrap=True)
    for heading in ("texts", "a second", "to ordinary", "to server"):
        table.add_column(heading, justify="right")
    for row in model.rows:
        ratios = ("" if ratio is None else f"{ratio:.1f}" for ratio in (row.ratio_to_ordinary, row.ratio_to_server))
        table.add_row(row.name, row.mode, str(row.texts), f"{row.texts_per_second:.2f}", *ratios)
    return table


def _details(model: Measured) -> Table:
    roof, single, memory = model.roof, model.single, model.memory
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row(
        "roof",
        f"{roof['fast_tokens_per_second']:,.0f} of {roof['tokens_per_second']:,.0f} tokens a second, "
        f"{roof['share']:.2f}",
    )
    table.add_row(
        "one text",
        f"{1000 * single['fast']:.0f} ms in fast mode, {single['ratio']:.2f} times a forward pass of as many tokens",
    )
    peak, allowed = memory["peak"], memory["allowed"]
    assert allowed is not None
    told = "not told by this system" if peak is None else f"{_megabytes(peak)} at the peak"
    parts = f"file {_megabytes(memory['file'] or 0)}, KV cache {_megabytes(memory['kv_cache'] or 0)}"
    table.add_row("memory", f"{told}; {parts}, with 250 MB more {_megabytes(allowed)}")
    return table


def draw_bench(machine: dict[str, Any], found: Sequence[Measured], path: Path) -> None:
    """Write a PNG: texts a second of every way, a panel a mode.

    Raises:
        EmotionLRMError: without matplotlib.
        FileError: where the file cannot be written.
    """
    require_matplotlib()
    with replacing(path) as temporary:
        bench_figure(machine, found).savefig(temporary, format="png", metadata={"Software": None})


def bench_figure(machine: dict[str, Any], found: Sequence[Measured]) -> Figure:
    """The picture of :func:`draw_bench`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.8 + 0.5 * sum(len(model.rows) for model in found)), layout="constrained", dpi=110)
    for axes, mode in zip(figure.subplots(len(MODES), 1, squeeze=False)[:, 0], MODES, strict=True):
        rows = [(model, row) for model in found for row in model.rows if row.mode == mode][::-1]
        names = [f"{row.name} ({model.file_type})" for model, row in rows]
        rates = [row.texts_per_second for _, row in rows]
        colours = [BLUE if row.name == OURS else ORANGE if "server" in row.name else GREY for _, row in rows]
        bars = axes.barh(range(len(rows)), rates, color=colours)
        told = [_bar_label(row.texts_per_second, row.ratio_to_ordinary) for _, row in rows]
        axes.bar_label(bars, told, padding=3, fontsize=8)
        axes.set_yticks(range(len(rows)), names)
        axes.set_title(f"{mode}: texts a second", loc="left", fontsize=10)
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    told = [*_machine(machine), "threads: " + ", ".join(f"{model.file_type} {model.threads}" for model in found)]
    figure.suptitle("\n".join(textwrap.fill(line, 130) for line in told), x=0.01, ha="left", fontsize=7)
    return figure


def _machine(machine: dict[str, Any]) -> tuple[str, str]:
    """The processor, and how llama.cpp was built."""
    return (
        f"{machine['cpu']}, {machine['usable']} of {machine['cores']} cores, {' '.join(machine['flags'])}",
        f"llama-cpp-python {machine['llama_cpp_python']}: {machine['build']}; matrices: {machine['kernel']}",
    )


def _bar_label(rate: float, ratio: float | None) -> str:
    return f"{rate:.1f}" if ratio is None else f"{rate:.1f}, {ratio:.1f} times"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
