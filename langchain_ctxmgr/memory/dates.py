"""Dates in a question, as periods: `8 May 2023`, `in June`, `last week`, `3 days ago`.

A date without a year is taken as the last one that the conversation reached; relative
ones count from when the question was asked.
"""

from __future__ import annotations

import calendar
import re
from datetime import date, datetime, timedelta
from typing import NamedTuple

_MONTH_NAMES = {name.lower(): i for i, name in enumerate(calendar.month_name) if name}
_MONTHS = _MONTH_NAMES | {name[:3]: i for name, i in _MONTH_NAMES.items()} | {"sept": 9}
_DAYS = {name.lower(): i for i, name in enumerate(calendar.day_name)}
_NUMBERS = ["a", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_COUNTS = {word: i + 1 for i, word in enumerate(_NUMBERS)} | {"an": 1, "one": 1, "couple": 2}
_UNIT_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}

_MONTH = r"(?P<month>" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\b\.?"
_YEAR = r"(?P<year>(?:19|20)\d\d)"
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b(?P<year>(?:19|20)\d\d)-(?P<month>[01]\d)-(?P<day>[0-3]\d)\b",
        rf"\b{_DAY}\s+(?:of\s+)?{_MONTH}(?:,?\s+{_YEAR}\b)?",
        rf"\b{_MONTH}\s+{_DAY}\b(?!\d)(?:,?\s+{_YEAR}\b)?",
        rf"\b{_MONTH},?\s+(?:of\s+)?{_YEAR}\b",
        rf"\b(?:in|during|since|by|until|of|early|mid|late|last|this|around)[ -]{_MONTH}",
    )
)
_BARE_YEAR = re.compile(rf"\b(?:in|during|since|of|year)\s+{_YEAR}\b", re.IGNORECASE)
_AGO = re.compile(
    r"\b(?P<count>\d{1,3}|an?|one|two|three|four|five|six|seven|eight|nine|ten"
    r"|(?:a )?couple(?: of)?)\s+(?P<unit>day|week|month|year)s?\s+ago\b",
    re.IGNORECASE,
)
_RELATIVE = re.compile(
    r"\b(?:(?P<near>yesterday|today|tonight|this morning)"
    r"|(?P<which>last|this|past|previous)\s+(?P<what>week|weekend|month|year|"
    + "|".join(_DAYS)
    + r"))\b",
    re.IGNORECASE,
)


class Period(NamedTuple):
    """Days from `first` to and with `last`."""

    first: date
    last: date


def periods(
    text: str, asked_at: datetime, said_until: datetime | None = None
) -> tuple[Period, ...]:
    """The periods that `text` names, earliest first.

    Args:
        text: A question.
        asked_at: What "last week" counts from.
        said_until: When the conversation it is asked about ended; by default `asked_at`.
    """
    today = asked_at.date()
    reached = today if said_until is None else min(today, said_until.date())
    found: set[Period] = set()
    rest = text
    for pattern in _PATTERNS:
        for match in pattern.finditer(rest):
            period = _explicit(match.groupdict(), reached)
            if period is not None:
                found.add(period)
        rest = pattern.sub(" ", rest)
    for match in _BARE_YEAR.finditer(rest):
        year = int(match["year"])
        found.add(Period(date(year, 1, 1), date(year, 12, 31)))
    found.update(_ago(match, today) for match in _AGO.finditer(rest))
    found.update(_relative(match, today) for match in _RELATIVE.finditer(rest))
    return tuple(sorted(found))


def _explicit(parts: dict[str, str | None], reached: date) -> Period | None:
    named = parts["month"] or ""
    month = int(named) if named.isdigit() else _MONTHS[named.lower()]
    year, day = parts.get("year"), parts.get("day")
    if not 1 <= month <= 12:  # noqa: PLR2004 - months of a year
        return None
    which = int(year) if year else reached.year - (month > reached.month)
    length = calendar.monthrange(which, month)[1]
    if day is None:
        return Period(date(which, month, 1), date(which, month, length))
    if not 1 <= int(day) <= length:
        return None
    exact = date(which, month, int(day))
    if not year and exact > reached:
        exact = exact.replace(year=which - 1) if (month, exact.day) != (2, 29) else exact
    return Period(exact, exact)


def _ago(match: re.Match[str], today: date) -> Period:
    counted = match["count"].lower().removeprefix("a ").removesuffix(" of")
    count = int(counted) if counted.isdigit() else _COUNTS[counted]
    unit = _UNIT_DAYS[match["unit"].lower()]
    middle = today - timedelta(days=min(count * unit, 36_500))
    slack = timedelta(days=unit // 2)
    return Period(middle - slack, middle + slack)


def _relative(match: re.Match[str], today: date) -> Period:
    near = (match["near"] or "").lower()
    if near:
        day = today - timedelta(days=near == "yesterday")
        return Period(day, day)
    what, is_this = match["what"].lower(), match["which"].lower() == "this"
    if what in _DAYS:
        back = (today.weekday() - _DAYS[what]) % 7 or (0 if is_this else 7)
        return Period(today - timedelta(days=back), today - timedelta(days=back))
    if what in {"week", "weekend"}:
        return _week(what, today, is_this=is_this)
    first = today.replace(day=1) if what == "month" else today.replace(month=1, day=1)
    if is_this:
        return Period(first, today)
    end = first - timedelta(days=1)
    return Period(end.replace(day=1, month=end.month if what == "month" else 1), end)


def _week(what: str, today: date, *, is_this: bool) -> Period:
    monday = today - timedelta(days=today.weekday())
    if what == "weekend":
        saturday = monday + timedelta(days=5 if is_this else -2)
        return Period(saturday, saturday + timedelta(days=1))
    if is_this:
        return Period(monday, today)
    return Period(monday - timedelta(days=7), monday - timedelta(days=1))
