"""What every teacher of reasoning is: asked for chains, it answers each with a reasoning or with why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from toolkit.contract.example import Example
from toolkit.errors import EmotionLRMError


@dataclass(frozen=True, slots=True)
class Ask:
    """One chain that is wanted: for ``example``, arguing for its first label.

    Attributes:
        attempt: counted from 0; a teacher answers another attempt with another wording.
        rival: an akin label that a judge finds nearly as likely, which the reasoning may set aside.
    """

    example: Example
    attempt: int = 0
    rival: str | None = None


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Why a teacher has no reasoning to give: a reason that is counted."""

    reason: str


REFUSED = NoAnswer("request refused")


class Teacher(Protocol):
    """Whoever writes chains."""

    def write_all(self, asks: Sequence[Ask]) -> Iterator[str | NoAnswer]:
        """One answer for each of ``asks``, in their order.

        Raises:
            BudgetSpentError: where no more may be asked; what was answered so far stands.
            TeacherError: where the teacher cannot be asked at all.
        """
        ...

    def usage(self) -> dict[str, int]:
        """What the answers have cost, by name: for the report."""
        ...


class TeacherError(EmotionLRMError):
    """A teacher cannot be asked: it is not there, refuses the key, or answers in another form."""


class RefusedError(TeacherError):
    """A teacher refuses one request. Whether it would refuse every other as well, the request alone does not tell."""


class BudgetSpentError(EmotionLRMError):
    """The tokens that may be spent are spent."""
