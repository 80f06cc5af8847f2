"""`emotion-lrm convert verify`: what ``convert`` finds out about a file, and what the file is worth on its task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convert.commands import print_report
from convert.commands import verify as of_file
from convert.errors import ConvertError
from toolkit.errors import EmotionLRMError
from toolkit.settings import Progress

if TYPE_CHECKING:
    from convert.verify import Answer

_METRIC_LIMIT = 500
_OWN = (
    click.Option(["--metric"], is_flag=True, help="Compare its answers to labelled texts with the reference's."),
    click.Option(
        ["--source", "corpora"], type=click.Path(path_type=Path), metavar="DIR", help="Folder with the corpora."
    ),
    click.Option(
        ["--limit"],
        type=click.IntRange(1),
        default=_METRIC_LIMIT,
        show_default=True,
        metavar="N",
        help="For --metric: the first N texts only.",
    ),
)


def _verify(metric: bool, corpora: Path | None, limit: int, as_json: bool, file: Path, **given: Any) -> None:
    from convert.verify import verify as verify_file
    from toolkit.contract.prompt import load_prompt

    reference, threads = given["reference"], given["threads"]
    further = {"metric": lambda: task_metric(file, reference, corpora, limit, threads)} if metric else {}
    given["prompt_hash"] = given["prompt_hash"] or (load_prompt().digest if metric else None)
    print_report(verify_file(file, **given, further=further), as_json)


verify = click.Command(
    "verify",
    params=[*of_file.params, *_OWN],
    callback=_verify,
    help=f"{of_file.help}\n\nWith --metric its label posteriors are held against those of --reference on labelled "
    "texts: GoEmotions' dev split where the corpora are, else the samples that ship.",
)


def task_metric(
    file: Path, reference: Path | None, source: Path | None = None, limit: int | None = None, threads: int | None = None
) -> Answer:
    """Whether a file names the right emotion of labelled texts as often as its reference, to within ``Bounds``.

    Raises:
        ConvertError: for a file, or labelled texts, that cannot be read.
    """
    from toolkit.apps.quality import Bounds, judge_file, labelled_rows, loss_against

    if reference is None:
        return None, "no reference given"
    try:
        rows, judged_by = labelled_rows(source, limit)
        with Progress() as progress:
            expected, found = (judge_file(path, rows, threads, progress) for path in (reference, file))
    except EmotionLRMError as error:
        raise ConvertError(str(error), error.hint) from error
    loss = loss_against(expected, found)
    return loss.within(Bounds()), (
        f"top-1 {found.accuracy:.3f}, the reference {expected.accuracy:.3f} ± {loss.noise:.3f}; "
        f"macro-F1 {found.macro_f1:.3f} and {expected.macro_f1:.3f} ± {loss.macro_f1_noise:.3f}; "
        f"KL {loss.kl:.4f}; on {judged_by}"
    )
