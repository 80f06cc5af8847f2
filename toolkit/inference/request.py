"""What a caller may ask of a model, checked without loading one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict, TypeVar

from toolkit.contract.lens import Lens, check_pair, parse_lens
from toolkit.errors import UsageError

MODES = ("fast", "explain")
T = TypeVar("T")


class Options(TypedDict, total=False):
    """How texts are to be read, as keywords.

    ``lens`` is ``author`` where it is left out, ``taxonomy`` the lens's own, ``mode`` is ``explain``.
    """

    lens: Lens | str
    taxonomy: str | None
    mode: str


@dataclass(frozen=True, slots=True)
class Wish:
    """How texts are to be read. Requests with the same wish share batches."""

    lens: Lens
    taxonomy: str
    mode: str


def check_wish(lens: Lens | str, taxonomy: str | None, mode: str, known: Sequence[Lens], model: str) -> Wish:
    """The wish with its default taxonomy filled in.

    Args:
        known: the lenses that the model named ``model`` has learned.

    Raises:
        UsageError: for a lens, a taxonomy or a mode that cannot be had.
    """
    lens = check_lens(lens, known, model)
    taxonomy = taxonomy or lens.native
    check_pair(lens, taxonomy)
    if mode not in MODES:
        raise UsageError(f"There is no mode {mode!r}.", f"Use {' or '.join(MODES)}.")
    return Wish(lens, taxonomy, mode)


def check_lens(lens: Lens | str, known: Sequence[Lens], model: str) -> Lens:
    """The lens, if the model named ``model`` has learned it.

    Raises:
        UsageError: naming the lenses in ``known``.
    """
    lens = parse_lens(str(lens))
    if lens not in known:
        raise UsageError(f"The model {model} has not learned the lens {lens}.", f"It knows: {', '.join(known)}.")
    return lens


def refuse_empty(text: object, which: str = "The text") -> str:
    """The text itself.

    Raises:
        UsageError: naming ``which``, where it holds nothing but white space, or is no string at all.
    """
    if not isinstance(text, str):
        raise UsageError(f"{which} is no string but {type(text).__name__}.", "Pass a str.")
    if not text.strip():
        raise UsageError(f"{which} is empty.", "Pass at least one word.")
    return text


def refuse_lone_text(texts: Iterable[T]) -> Iterable[T]:
    """The texts themselves.

    Raises:
        UsageError: where they are one string, whose letters would be read one by one.
    """
    if isinstance(texts, str):
        raise UsageError("One text was given where several belong.", "Pass a list, or call analyze or compare.")
    return texts


def until_refused(texts: Iterable[T], refused: list[UsageError], pauses: bool = False) -> Iterator[T]:
    """The texts before the first that cannot be read; why it cannot goes into ``refused``.

    Args:
        pauses: let a None pass.
    """
    for number, text in enumerate(texts):
        try:
            if text is not None or not pauses:
                refuse_empty(text, f"The text at index {number}")
        except UsageError as error:
            refused.append(error)
            return
        yield text
