"""Whether the account of an entry is disabled or expired, by what the mapped attributes hold.

======================  ===========================================================================
userAccountControl      a number; disabled where bit 2 is set (MS-ADTS section 2.2.16)
accountExpires          100 ns since 1601, in UTC; 0 and 2^63-1: never (MS-ADA1, accountExpires)
nsAccountLock           TRUE or FALSE, without case
pwdAccountLockedTime    generalized time, locked since then; 000001010000Z: for good (slapo-ppolicy(5))
krbPrincipalExpiration  generalized time (RFC 4517 section 3.3.13), expired from then on
shadowExpire            days since 1970, in UTC, expired from the first second of that day on;
                        -1: never (shadow(3))
any other               disabled where it is TRUE or `disabled`, without case; any other value is none
======================  ===========================================================================

What holds none of these forms closes: the account counts as disabled.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple

from ldappolicy.entry import Entry
from ldappolicy.errors import InputError
from ldappolicy.facts import FOREVER

SHOWN = 64
"""Of a value, in characters."""

_ALWAYS = -FOREVER
_DISABLED = 0x2
_NEVER = frozenset((0, 2**63 - 1))
_TICKS = 10_000_000
_SECONDS_FROM_1601 = 11_644_473_600
_DAY_S = 86_400
_LOCKED_FOR_GOOD = "000001010000Z"


HELD_BY_ALL = frozenset(("useraccountcontrol",))
"""What every user of Active Directory has (MS-SAMR): whose cannot be seen, it may not be read."""

LOCKS = frozenset(("nsaccountlock", "pwdaccountlockedtime"))
"""What only those have who are locked: that nobody has it says nothing."""


class End(NamedTuple):
    """The end of an account: from when on it is disabled, in seconds since 1970, and what says so.

    `problem`: what is wrong with a value of `name` that cannot be read.
    """

    at: float = FOREVER
    reason: str = ""
    name: str = ""
    problem: str = ""


def end_of(entry: Entry, names: Iterable[str]) -> End:
    """The first end that any of some attributes gives an account; FOREVER where none does."""
    return min(ends(entry, names), key=lambda end: end.at, default=End())


def ends(entry: Entry, names: Iterable[str]) -> Iterator[End]:
    """Every end of an account."""
    for name in names:
        word, read = _FORMS.get(name.lower(), _ANY)
        for value in entry.values(name):
            shown = repr(value[:SHOWN])
            try:
                at = read(value.strip(" "))
            except InputError as expected:
                problem = f"{shown} counts as disabled, expected {expected}"
                yield End(_ALWAYS, f"{name}: {problem}", name, problem)
                continue
            since = f" on {_date(at)}" if word == "expired" and at < FOREVER else ""
            yield End(at, f"{word}{since}: {name} is {shown}", name)


def _date(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError):
        return f"second {at:.0f}"  # beyond the year 9999


_NUMBER = re.compile(r"-?[0-9]{1,19}")


def _number(value: str, least: int, most: int, expected: str) -> int:
    if _NUMBER.fullmatch(value) and least <= int(value) <= most:
        return int(value)
    raise InputError(expected)


def _flags(value: str) -> float:
    number = _number(value, -(2**31), 2**32 - 1, "a 32-bit number")
    return _ALWAYS if number & _DISABLED else FOREVER


def _file_time(value: str) -> float:
    ticks = _number(value, 0, 2**63 - 1, "100 ns since 1601, 0 or 2^63-1")
    return FOREVER if ticks in _NEVER else ticks / _TICKS - _SECONDS_FROM_1601


def _day(value: str) -> float:
    days = _number(value, -1, 2**31 - 1, "days since 1970, or -1")
    return FOREVER if days < 0 else days * float(_DAY_S)


def _lock(value: str) -> float:
    if value.upper() not in ("TRUE", "FALSE"):
        raise InputError("TRUE or FALSE")
    return _ALWAYS if value.upper() == "TRUE" else FOREVER


def _locked(value: str) -> float:
    return _ALWAYS if value == _LOCKED_FOR_GOOD else generalized_time(value)


def _word(value: str) -> float:
    return _ALWAYS if value.upper() in ("TRUE", "DISABLED") else FOREVER


_TIME = re.compile(
    r"(?P<day>[0-9]{8})(?P<hour>[0-9]{2})(?:(?P<minute>[0-9]{2})(?P<second>[0-9]{2})?)?"
    r"(?:[.,](?P<fraction>[0-9]{1,9})[0-9]*)?(?:Z|(?P<sign>[+-])(?P<hours>[0-9]{2})(?P<minutes>[0-9]{2})?)"
)


def generalized_time(value: str) -> float:
    """Seconds since 1970 of RFC 4517 section 3.3.13; raises InputError with what was expected."""
    expected = "a generalized time (20301231235959Z)"
    found = _TIME.fullmatch(value)
    if found is None:
        raise InputError(expected)
    hour, minute, second = (int(found[name] or 0) for name in ("hour", "minute", "second"))
    unit = 1 if found["second"] else 60 if found["minute"] else 3600  # of the fraction
    ahead = timedelta(hours=int(found["hours"] or 0), minutes=int(found["minutes"] or 0))
    if minute > 59 or second > 60 or ahead >= timedelta(days=1) or int(found["minutes"] or 0) > 59:
        raise InputError(expected)
    try:
        zone = timezone(-ahead if found["sign"] == "-" else ahead)
        year, month, day = int(found["day"][:4]), int(found["day"][4:6]), int(found["day"][6:])
        whole = datetime(year, month, day, hour, minute, tzinfo=zone)
    except ValueError:
        raise InputError(expected) from None
    return whole.timestamp() + second + unit * float(f"0.{found['fraction'] or 0}")


_Form = tuple[str, Callable[[str], float]]

_ANY: _Form = ("disabled", _word)
_FORMS: dict[str, _Form] = {
    "useraccountcontrol": ("disabled", _flags),
    "accountexpires": ("expired", _file_time),
    "nsaccountlock": ("disabled", _lock),
    "pwdaccountlockedtime": ("disabled", _locked),
    "krbprincipalexpiration": ("expired", generalized_time),
    "shadowexpire": ("expired", _day),
}
