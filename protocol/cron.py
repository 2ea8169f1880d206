"""When a command is due. Source: uWSGI, "The uWSGI cron-like interface", and its core/cron.c. Pure.

A schedule has five fields: minute, hour, day of the month, month, day of the week (0 or 7 is Sunday). -1 is any,
-n every n: where the field can be divided by n, so -15 is minutes 0, 15, 30 and 45. All fields must fit, but where
both a day of the month and a day of the week are given, one of them is enough.

Time comes in as a *minute*: the minutes since 1970-01-01 00:00 as the clock on the wall shows it. That clock
jumps: by hand, by NTP, twice a year. As in Vixie's cron, a schedule that names an hour (it has an appointment)
misses none that was skipped and keeps none twice, while all others go by the clock as it is.
"""

from collections.abc import Sequence

import msgspec

from pyemperor.protocol.quantities import flag, seconds
from pyemperor.protocol.report import suggest
from pyemperor.protocol.values import Kind, text

_HOURS, _DAYS = 60, 24 * 60
#: A jump of more minutes is a clock that was set: it goes on from there.
_JUMP = 3 * _HOURS
#: So many minutes may pass between two looks of a machine that is busy: no schedule misses one of them.
_LATE = 5
_RANGES = {"minute": 59, "hour": 23, "day": 31, "month": 12, "week": 7}
_OTHER_KEYS = ("unique", "harakiri")


class Cron(msgspec.Struct, frozen=True):
    """A command and its schedule.

    ``unique``: it never runs twice at a time. ``harakiri`` is its longest time in seconds, None the vassal's.
    """

    command: str
    minute: int = -1
    hour: int = -1
    day: int = -1
    month: int = -1
    week: int = -1
    unique: bool = False
    harakiri: float | None = None

    @property
    def appointed(self) -> bool:
        """Whether it is for an hour of the day, and not for every so many minutes or hours."""
        return self.hour >= 0

    def fits(self, minute: int) -> bool:
        """Say whether it is due in this minute."""
        days, rest = divmod(minute, _DAYS)
        month, day = _month_and_day(days)
        week = 0 if self.week == 7 else self.week
        weekday = (days + 4) % 7  # 1970-01-01 was a Thursday
        on_day, on_weekday = _matches(self.day, day), _matches(week, weekday)
        either = self.day >= 0 and self.week >= 0
        return (
            _matches(self.minute, rest % _HOURS)
            and _matches(self.hour, rest // _HOURS)
            and _matches(self.month, month)
            and (on_day or on_weekday if either else on_day and on_weekday)
        )


def _matches(wanted: int, value: int) -> bool:
    return value == wanted if wanted >= 0 else value % -wanted == 0


def _month_and_day(days: int) -> tuple[int, int]:
    """The date of so many days since 1970-01-01.

    Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    """
    of_era = (days + 719468) % 146097
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    from_march = (5 * of_year + 2) // 153
    return (from_march + 2) % 12 + 1, of_year - (153 * from_march + 2) // 5 + 1


class Crontab:
    """Says which of ``crons`` are due, each time it is shown the clock; the first look is at ``minute``'s next."""

    def __init__(self, crons: Sequence[Cron], minute: int) -> None:
        self._crons = crons
        #: The minute of the last look, and the latest for which appointments were kept.
        self._last = self._kept = minute

    def due(self, minute: int) -> list[int]:
        """Return the indexes of what is due in ``minute``, shown now; nothing twice for one look's minute."""
        if minute == self._last:
            return []
        ahead = minute - self._kept
        self._last = minute
        if not -_JUMP <= ahead <= _JUMP:
            ahead, self._kept = 1, minute - 1
        # Those that were skipped, and this one; none while a clock that was put back catches up.
        for_appointed = range(self._kept + 1, minute + 1)
        for_all = for_appointed if 0 < ahead <= _LATE else range(minute, minute + 1)
        self._kept = max(self._kept, minute)
        return [
            index
            for index, cron in enumerate(self._crons)
            if any(map(cron.fits, for_appointed if cron.appointed else for_all))
        ]


# ---- what a user writes -----------------------------------------------------------------------------------


def cron(value: object, _base: str = "") -> Cron:
    """Read ``minute hour day month weekday command``."""
    words = text(value).split(None, len(_RANGES))
    if len(words) <= len(_RANGES):
        raise ValueError('write five numbers and a command: "0 3 -1 -1 -1 command"')
    fields = [_field(name, word) for name, word in zip(_RANGES, words, strict=False)]
    minute, hour, day, month, week = fields
    return Cron(words[-1].strip(), minute, hour, day, month, week)


def unique_cron(value: object, base: str = "") -> Cron:
    """Read the same, for a command that never runs twice at a time."""
    return msgspec.structs.replace(cron(value, base), unique=True)


def cron2(value: object, _base: str = "") -> Cron:
    """Read ``minute=...,hour=... command``; what is not named is any."""
    keys, _, command = text(value).strip().partition(" ")
    if "=" not in keys:
        keys, command = "", text(value)
    if not command.strip():
        raise ValueError('write "minute=0,hour=3 command"')
    fields: dict[str, int] = {}
    unique, harakiri = False, None
    for pair in filter(None, keys.split(",")):
        key, _, content = pair.partition("=")
        if key in _RANGES:
            fields[key] = _field(key, content)
        elif key == "unique":
            unique = flag(content)
        elif key == "harakiri":
            harakiri = seconds(content)
        elif key == "legion":
            raise ValueError("there are no legions here: leave legion out")
        else:
            raise ValueError(f"no key {key!r}: {suggest(key, [*_RANGES, *_OTHER_KEYS])}")
    minute, hour, day, month, week = (fields.get(name, -1) for name in _RANGES)
    return Cron(command.strip(), minute, hour, day, month, week, unique, harakiri)


def _field(name: str, word: str) -> int:
    most = _RANGES[name]
    try:
        number = int(word)
    except ValueError:
        raise ValueError(f"{name} is {word!r}: write a number, -1 for any, -n for every n") from None
    if not -most <= number <= most:
        raise ValueError(f"{name} is {number}: it goes to {most}")
    return number


_FIVE = '"minute hour day month weekday command"'
CRON = Kind("cron", _FIVE, cron)
UNIQUE_CRON = Kind("cron", _FIVE, unique_cron)
CRON2 = Kind("cron", '"minute=...,hour=... command"', cron2)
