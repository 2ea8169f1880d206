"""uWSGI's algorithms for the number of workers, a look a second."""

import doctest

import pytest

from pyemperor.actors import cheaper as module
from pyemperor.actors.cheaper import Cheaper, View
from pyemperor.protocol.errors import ConfigError
from pyemperor.protocol.options import Vassal, vassal_from
from pyemperor.protocol.report import Report


def of(algorithm: str = "spare", **options: int) -> Cheaper:
    given = {"processes": 8, "cheaper": 2} | options
    return Cheaper(Vassal("app", cheaper_algo=algorithm, **given))  # type: ignore[arg-type]


def busy(workers: int, waiting: int = 0) -> View:
    return View(workers, workers, 0, waiting)


def free(workers: int, idle: int) -> View:
    return View(workers, workers - idle, idle)


def test_the_example() -> None:
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


# ---- spare --------------------------------------------------------------------------------------------------


def test_spare_grows_when_all_were_full_for_more_than_overload() -> None:
    cheaper = of(cheaper_overload=2, cheaper_step=3)
    assert [cheaper.decide(busy(2)) for _ in range(6)] == [0, 0, 3, 0, 0, 3]


def test_spare_counts_back_when_somebody_is_free() -> None:
    cheaper = of(cheaper_overload=2)
    views = [busy(2), busy(2), free(2, 1), busy(2), busy(2)]
    assert [cheaper.decide(view) for view in views] == [0, 0, 0, 0, 1]


def test_spare_does_not_wait_while_connections_do() -> None:
    cheaper = of(cheaper_overload=100)
    assert cheaper.decide(busy(2, waiting=1)) == 1
    assert cheaper.decide(View(3, 2, 0, waiting=1)) == 0, "one is on its way"


def test_a_connection_that_waits_for_somebody_who_is_free_means_nothing() -> None:
    assert of().decide(View(2, 1, 1, waiting=5)) == 0


def test_spare_keeps_one_to_spare() -> None:
    cheaper = of(cheaper_overload=1)
    assert [cheaper.decide(free(5, 1)) for _ in range(10)] == [0] * 10


def test_spare_sends_one_away_each_overload_seconds() -> None:
    cheaper = of(cheaper_overload=3)
    assert [cheaper.decide(free(5, 5)) for _ in range(7)] == [0, 0, -1, 0, 0, -1, 0]


def test_a_worker_with_a_thread_to_spare_is_neither_full_nor_idle() -> None:
    cheaper = of(cheaper_overload=1)
    assert [cheaper.decide(View(4, 0, 0)) for _ in range(10)] == [0] * 10


def test_a_spike_stops_the_shrinking() -> None:
    cheaper = of(cheaper_overload=3)
    views = [free(5, 5), free(5, 5), busy(5), free(5, 5), free(5, 5), free(5, 5)]
    assert [cheaper.decide(view) for view in views] == [0, 0, 0, 0, 0, -1]


# ---- spare2 -------------------------------------------------------------------------------------------------


def test_spare2_keeps_as_many_idle_as_cheaper_says() -> None:
    cheaper = of("spare2", cheaper=3, cheaper_step=2)
    assert cheaper.decide(free(4, 2)) == 1
    assert cheaper.decide(busy(4)) == 2, "cheaper-step at a time"
    assert cheaper.decide(free(4, 3)) == 0
    assert cheaper.decide(View(5, 2, 1)) == 0, "two are coming"


def test_spare2_shrinks_after_cheaper_idle() -> None:
    cheaper = of("spare2", cheaper_idle=3)
    assert [cheaper.decide(free(5, 4)) for _ in range(6)] == [0, 0, -1, 0, 0, -1]
    cheaper.decide(free(5, 4))
    cheaper.decide(free(5, 2))
    assert [cheaper.decide(free(5, 4)) for _ in range(3)] == [0, 0, -1], "it begins anew"


# ---- backlog ------------------------------------------------------------------------------------------------


def test_backlog_goes_by_what_waits() -> None:
    cheaper = of("backlog", cheaper_overload=3, cheaper_step=2)
    assert cheaper.decide(busy(4, waiting=4)) == 2
    assert cheaper.decide(busy(4, waiting=3)) == 0
    assert cheaper.decide(free(4, 1)) == -1
    assert cheaper.decide(busy(4)) == 0, "all are at work"


# ---- limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["spare", "spare2", "backlog"])
def test_the_bounds_hold(algorithm: str) -> None:
    cheaper = of(algorithm, cheaper_step=5, cheaper_overload=1, cheaper_idle=1)
    assert cheaper.decide(busy(7, waiting=9)) == 1
    assert cheaper.decide(busy(8, waiting=9)) == 0
    assert [cheaper.decide(free(2, 2)) for _ in range(5)] == [0] * 5


def test_too_few_are_made_up_for() -> None:
    assert of(cheaper=3).decide(free(1, 1)) == 2


def test_with_much_memory_no_more_come_and_with_more_some_go() -> None:
    cheaper = of(cheaper_rss_limit_soft=100, cheaper_rss_limit_hard=200)
    assert cheaper.decide(View(4, 4, 0, 9, rss=99)) == 1
    assert cheaper.decide(View(4, 4, 0, 9, rss=100)) == 0
    assert cheaper.decide(View(4, 4, 0, 9, rss=200)) == -1
    assert cheaper.decide(View(2, 2, 0, 9, rss=200)) == 0


# ---- the options --------------------------------------------------------------------------------------------


def read(**options: object) -> tuple[Vassal, Report]:
    notes = Report("app.ini", lambda _: 0)
    table = {"socket": "/run/a.sock", "cgi": "/srv", **{k.replace("_", "-"): v for k, v in options.items()}}
    vassal = vassal_from(table, notes, name="app")
    notes.raise_problems()
    return vassal, notes


def test_the_first_workers() -> None:
    assert read(processes=4)[0].first_workers == 4
    assert read(workers=4, cheaper=2)[0].first_workers == 2
    assert read(processes=4, cheaper=2, cheaper_initial=3)[0].first_workers == 3
    assert read(processes=4, cheaper=2, cheaper_initial=1)[0].first_workers == 2
    assert read(processes=4, cheaper=2, cheaper_initial=9)[0].first_workers == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"processes": 2, "cheaper": 2}, "less than processes, which is 2"),
        ({"cheaper": 1}, "less than processes, which is 1"),
        (
            {"processes": 2, "cheaper": 1, "cheaper-rss-limit-soft": 5, "cheaper-rss-limit-hard": 5},
            "more than cheaper-rss-limit-soft (5)",
        ),
    ],
)
def test_what_cannot_be(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(").replace(")", r"\)")):
        read(**options)


def test_an_algorithm_that_is_not_built_in_gives_way_to_spare_as_in_uwsgi() -> None:
    _, notes = read(processes=2, cheaper=1, cheaper_algo="busyness")
    (warning,) = notes.warnings
    assert "busyness is not built in: spare decides" in str(warning)
