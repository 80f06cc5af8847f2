"""Dates beside texts: which column holds them, how they are written, and what comes in which period."""

from __future__ import annotations

import email.utils
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import islice

from toolkit.apps.columns import dated_columns, find_column
from toolkit.apps.tables import SAMPLE, Table
from toolkit.errors import DataError

MOST_PERIODS = 62
_MOST_FILLED = 130
_ENOUGH = 0.8  # of the sample's cells have to be dates
_DAY, _MONTH, _YEAR = 10, 7, 4  # so much of an ISO date names the period


def _written(form: str) -> Callable[[str], date]:
    """Dates of a form, with or without a time of day behind them."""
    return lambda cell: datetime.strptime(cell.split()[0], form).date()


def _iso(cell: str) -> date:
    found = datetime.fromisoformat(cell)
    return (found.astimezone(UTC) if found.tzinfo else found).date()


def _seconds(cell: str) -> date:
    value = float(cell)
    return datetime.fromtimestamp(value / 1000 if abs(value) > 1e11 else value, UTC).date()


# Several may fit one cell: the first that fits most of a column is taken.
_FORMS: dict[str, Callable[[str], date]] = {
    "year-month-day": _iso,
    "year-month": _written("%Y-%m"),
    "year": _written("%Y"),
    "month/day/year": _written("%m/%d/%Y"),
    "day/month/year": _written("%d/%m/%Y"),
    "year/month/day": _written("%Y/%m/%d"),
    "day.month.year": _written("%d.%m.%Y"),
    "seconds since 1970": _seconds,
    "as in e-mail": lambda cell: email.utils.parsedate_to_datetime(cell).astimezone(UTC).date(),
}


@dataclass(frozen=True, slots=True)
class DateColumn:
    """A column of dates: where it stands, its name, and the form of its dates, a key of ``_FORMS``."""

    position: int
    name: str
    form: str

    @property
    def note(self) -> str:
        """What was found, for the person who did not name the column."""
        return f"Date column: {self.name}, as {self.form} (found; --date-column chooses another)."


def find_dates(table: Table, wanted: str | None) -> DateColumn | None:
    """The column of that name or number; without one the first that has a name for dates and holds them, or None.

    Raises:
        UsageError: where there is no column of that name.
        DataError: where it holds no dates.
    """
    if wanted is not None:
        position = find_column(wanted, table.columns, "--date-column")
        form = _form_of(table, position)
        if form is None:
            raise DataError(
                f"The column {table.columns[position]} holds no dates that can be read.",
                f"These are: {', '.join(_FORMS)}.",
            )
        return DateColumn(position, table.columns[position], form)
    for position in dated_columns(table.columns):
        if position not in (table.text, table.id) and (form := _form_of(table, position)) is not None:
            return DateColumn(position, table.columns[position], form)
    return None


def read_dates(table: Table, column: DateColumn) -> Iterator[date | None]:
    """The date of every row, or None; one for every row that the table has."""
    for cell in _cells(table, column.position):
        yield None if cell is None else _read(cell, column.form)


def _form_of(table: Table, position: int) -> str | None:
    sample = [cell for cell in islice(_cells(table, position), SAMPLE) if cell is not None]
    if not sample:
        return None
    fits = {form: sum(_read(cell, form) is not None for cell in sample) for form in _FORMS}
    best = max(fits, key=lambda form: fits[form])
    return best if fits[best] >= _ENOUGH * len(sample) else None


def _cells(table: Table, position: int) -> Iterator[str | None]:
    """The cells of a column, read as if they were the ids: the number of the row stands for an empty one."""
    for row in replace(table, id=position).rows():
        yield None if row.id == row.number else str(row.id).strip().strip('"')


def _read(cell: str, form: str) -> date | None:
    try:
        return _FORMS[form](cell)
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None


class Timeline:
    """Labels by period: days while there are few of them, then months, then years, so that it stays small."""

    def __init__(self) -> None:
        self.periods: dict[str, Counter[str]] = {}
        self._width = _DAY

    @property
    def unit(self) -> str:
        """``day``, ``month`` or ``year``."""
        return {_DAY: "day", _MONTH: "month", _YEAR: "year"}[self._width]

    def add(self, day: date, label: str) -> None:
        """Count one text."""
        self.periods.setdefault(day.isoformat()[: self._width], Counter())[label] += 1
        while len(self.periods) > MOST_PERIODS and self._width > _YEAR:
            self._coarsen()

    def _coarsen(self) -> None:
        self._width = _MONTH if self._width == _DAY else _YEAR
        finer, self.periods = self.periods, {}
        for period, counts in finer.items():
            self.periods.setdefault(period[: self._width], Counter()).update(counts)

    def in_order(self) -> list[str]:
        """Every period from the first to the last, also those without a text unless these are too many to draw."""
        found = sorted(self.periods)
        if len(found) < 2:
            return found
        filled: list[str] = []
        for period in _from(found[0], self._width):
            filled.append(period)
            if len(filled) > _MOST_FILLED:
                return found
            if period == found[-1]:
                break
        return filled


def _from(first: str, width: int) -> Iterator[str]:
    """The periods from one on."""
    day = date.fromisoformat(first + "0000-01-01"[width:])
    step = {_DAY: 1, _MONTH: 31, _YEAR: 366}[width]
    while True:
        yield day.isoformat()[:width]
        try:
            day = date.fromisoformat((day + timedelta(step)).isoformat()[:width] + "0000-01-01"[width:])
        except OverflowError:
            return
