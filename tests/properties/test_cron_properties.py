"""Schedules against what the calendar of the standard library says, minute by minute."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pyemperor.protocol.cron import Cron, Crontab

_EPOCH = datetime(1970, 1, 1)


def _field(most: int) -> st.SearchStrategy[int]:
    """Any, more often than not: else hardly a schedule would ever be due."""
    return st.just(-1) | st.integers(-4, -1) | st.integers(-most, most)


_CRONS = st.builds(Cron, st.just("x"), _field(59), _field(23), _field(31), _field(12), _field(7))
_MINUTES = st.integers(0, 200 * 366 * 24 * 60)


def _moment(minute: int) -> datetime:
    return _EPOCH + timedelta(minutes=minute)


def _due(cron: Cron, moment: datetime) -> bool:
    """uWSGI's core/cron.c, in other words."""

    def field(wanted: int, value: int) -> bool:
        return value % abs(wanted) == 0 if wanted < 0 else value == wanted

    week = 0 if cron.week == 7 else cron.week
    day, weekday = field(cron.day, moment.day), field(week, moment.isoweekday() % 7)
    rest = (
        field(cron.minute, moment.minute) and field(cron.hour, moment.hour) and field(cron.month, moment.month)
    )
    return rest and (day or weekday if cron.day >= 0 and cron.week >= 0 else day and weekday)


@given(_CRONS, _MINUTES)
def test_a_schedule_fits_when_the_calendar_says_so(cron: Cron, minute: int) -> None:
    assert cron.fits(minute) == _due(cron, _moment(minute))


@given(st.integers(0, 59), st.integers(0, 23), _MINUTES)
def test_a_schedule_that_is_due_soon(minute: int, hour: int, start: int) -> None:
    """Fields of a moment fit at that moment."""
    moment = _moment(start).replace(minute=minute, hour=hour)
    cron = Cron("x", minute, hour, moment.day, moment.month)
    assert cron.fits(int((moment - _EPOCH).total_seconds()) // 60)


@given(st.lists(_CRONS, max_size=4), _MINUTES, st.lists(st.integers(1, 5), max_size=40))
def test_looks_that_come_late_miss_nothing_and_keep_nothing_twice(
    crons: list[Cron], start: int, steps: list[int]
) -> None:
    table = Crontab(crons, start)
    now = start
    for step in steps:
        expected = [
            index
            for index, cron in enumerate(crons)
            if any(_due(cron, _moment(minute)) for minute in range(now + 1, now + step + 1))
        ]
        now += step
        assert table.due(now) == expected
        assert table.due(now) == []


@given(st.integers(0, 59), st.integers(0, 23), st.lists(st.integers(-180, 180), max_size=60), _MINUTES)
def test_however_the_clock_jumps_an_appointment_is_kept_once_a_day(
    minute: int, hour: int, jumps: list[int], start: int
) -> None:
    """By jumps of up to three hours. What the clock has shown, however often, is kept once."""
    start += 24 * 60
    table, cron = Crontab([Cron("x", minute, hour)], start), Cron("x", minute, hour)
    now = latest = start
    kept = 0
    for jump in jumps:
        now = max(now + jump, latest - 180)
        kept += len(table.due(now))
        latest = max(latest, now)
    assert kept == sum(_due(cron, _moment(at)) for at in range(start + 1, latest + 1))
