"""The two ways of looking at a text."""

from __future__ import annotations

from enum import StrEnum

from toolkit.errors import UsageError


class Lens(StrEnum):
    """Whose emotion is read.

    ``author`` is learned from GoEmotions, whose labels are what raters read into a comment; ``reader`` from
    EmpatheticDialogues, whose labels are the feeling that a speaker set out to convey. A difference between the
    lenses therefore contains a difference between the two corpora.
    """

    AUTHOR = "author"
    READER = "reader"

    @property
    def native(self) -> str:
        """The taxonomy in which the model answers through this lens."""
        return {"author": "goemotions", "reader": "empathetic"}[self.value]

    @property
    def taxonomies(self) -> tuple[str, ...]:
        """The taxonomies that can be asked for through this lens, native first."""
        return {
            "author": ("goemotions", "ekman", "sentiment", "shared10"),
            "reader": ("empathetic", "shared10"),
        }[self.value]


def parse_lens(name: str) -> Lens:
    """The lens of that name.

    Raises:
        UsageError: for any other name.
    """
    try:
        return Lens(name)
    except ValueError:
        raise UsageError(f"There is no lens {name!r}.", "Use author or reader.") from None


def check_pair(lens: Lens, taxonomy: str) -> None:
    """Refuse a taxonomy that cannot be computed through a lens.

    Raises:
        UsageError: naming the allowed taxonomies.
    """
    if taxonomy not in lens.taxonomies:
        raise UsageError(
            f"The lens {lens} cannot answer in the taxonomy {taxonomy!r}.",
            f"Allowed with {lens}: {', '.join(lens.taxonomies)}.",
        )
