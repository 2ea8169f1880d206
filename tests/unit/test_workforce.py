"""Who is hired, who replaces whom, who is let go: one rule a test. And when a worker has done enough."""

import doctest
import math

import msgspec
import pytest

from pyemperor.actors import workforce as module
from pyemperor.actors.wear import Excess, Memory, excess, limits_memory, longest_life, most_requests
from pyemperor.actors.workforce import Dismiss, Hire, Kill, Workforce
from pyemperor.protocol.options import Vassal

MEGABYTE = 1 << 20


def crew(count: int = 2, least: int = 0, most: int = 0) -> Workforce:
    """So many workers that are up."""
    workforce = Workforce(map(str, range(1, count + 1)), least or count, most or count)
    for index in range(1, count + 1):
        assert workforce.up(str(index)) == []
    return workforce


def test_the_example() -> None:
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


def test_one_that_is_worn_serves_until_its_replacement_does() -> None:
    workforce = crew()
    assert workforce.retire("1") == [Hire("1.1", 1)]
    assert workforce.serving == ["1", "2"]
    assert workforce.up("1.1") == [Dismiss("1")]
    assert workforce.serving == ["2", "1.1"]
    assert workforce.gone("1") == []


def test_one_at_a_time_is_replaced_in_the_order_of_their_start() -> None:
    workforce = crew(3)
    assert workforce.retire("3") == [Hire("3.1", 3)]
    assert workforce.retire("2") == workforce.retire("1") == []
    assert workforce.up("3.1") == [Dismiss("3")]
    assert workforce.gone("3") == [Hire("1.2", 1)]
    assert workforce.up("1.2") == [Dismiss("1")]
    assert workforce.gone("1") == [Hire("2.3", 2)]


def test_that_it_is_worn_may_be_said_twice() -> None:
    workforce = crew()
    assert workforce.retire("1") == [Hire("1.1", 1)]
    assert workforce.retire("1") == []
    assert workforce.worn == ["1"]


def test_one_that_died_is_as_good_as_new() -> None:
    workforce = crew()
    workforce.retire("1")
    workforce.retire("2")
    workforce.down("2")
    workforce.up("2")
    workforce.up("1.1")
    assert workforce.gone("1") == []


def test_one_that_dies_while_it_is_replaced_is_replaced_all_the_same() -> None:
    workforce = crew()
    workforce.retire("1")
    workforce.down("1")
    assert workforce.up("1.1") == [Dismiss("1")]


def test_a_replacement_that_cannot_start_leaves_everything_as_it_was() -> None:
    workforce = crew()
    workforce.retire("1")
    workforce.refused("1.1")
    assert workforce.serving == ["1", "2"]
    assert workforce.mend() == [Hire("1.2", 1)]


def test_a_replacement_that_dies_after_it_was_ready_is_a_worker_like_others() -> None:
    workforce = crew()
    workforce.retire("1")
    workforce.up("1.1")
    workforce.down("1.1")
    assert workforce.gone("1") == []
    assert workforce.up("1.1") == []
    assert workforce.serving == ["2", "1.1"]


def test_who_is_evicted_is_killed_first_and_replaced_at_once() -> None:
    workforce = crew()
    assert workforce.evict("2") == [Kill("2"), Hire("2.1", 2)]
    assert workforce.evict("2") == []
    assert workforce.size == 2
    assert workforce.up("2.1") == []
    assert workforce.gone("2") == []


def test_who_is_evicted_while_it_is_replaced_is_not_replaced_twice() -> None:
    workforce = crew()
    workforce.retire("1")
    assert workforce.evict("1") == [Kill("1")]
    assert workforce.up("1.1") == [], "it is told to end already"
    assert workforce.size == 2


def test_an_evicted_replacement_is_replaced_with_its_task() -> None:
    workforce = crew()
    workforce.retire("1")
    assert workforce.evict("1.1") == [Kill("1.1"), Hire("1.2", 1)]
    workforce.gone("1.1")
    assert workforce.up("1.2") == [Dismiss("1")]


def test_who_was_evicted_and_could_not_be_replaced_is_missed() -> None:
    workforce = crew()
    workforce.evict("1")
    workforce.refused("1.1")
    workforce.gone("1")
    assert workforce.size == 1
    assert workforce.mend() == [Hire("1.2", 1)]
    assert workforce.mend() == []


def test_it_grows_by_the_lowest_free_numbers_and_not_beyond_the_most() -> None:
    workforce = crew(1, least=1, most=4)
    assert workforce.resize(2) == [Hire("2.1", 2), Hire("3.2", 3)]
    assert workforce.resize(5) == [Hire("4.3", 4)]
    assert workforce.resize(1) == []


def test_it_shrinks_by_the_oldest_idle_one_and_not_below_the_least() -> None:
    workforce = crew(3, least=1, most=3)
    assert workforce.resize(-1, idle=["2", "3"]) == [Dismiss("2")]
    assert workforce.resize(-1, idle=[]) == [Dismiss("1")]
    assert workforce.resize(-1, idle=["3"]) == []
    assert workforce.size == 1


def test_the_number_of_one_that_finishes_is_not_given_away() -> None:
    workforce = crew(2, least=1, most=2)
    workforce.resize(-1, idle=["1"])
    assert workforce.resize(1) == []
    workforce.gone("1")
    assert workforce.resize(1) == [Hire("1.1", 1)]


def test_of_a_pair_nobody_is_spared() -> None:
    workforce = crew(2, least=1, most=2)
    workforce.retire("1")
    assert workforce.resize(-1, idle=["1"]) == [Dismiss("2")]
    assert workforce.size == 1


def test_what_comes_too_late_is_nobodys() -> None:
    workforce = crew()
    workforce.down("9")
    workforce.refused("9")
    assert [workforce.up("9"), workforce.retire("9"), workforce.evict("9"), workforce.gone("9")] == [[]] * 4
    assert workforce.processes == 2


# ---- wear ---------------------------------------------------------------------------------------------------


def test_each_further_worker_has_the_delta_on_top() -> None:
    vassal = Vassal("a", max_requests=100, max_requests_delta=10)
    assert [most_requests(vassal, index) for index in (1, 2, 3)] == [100, 110, 120]
    vassal = Vassal("a", max_worker_lifetime=60, max_worker_lifetime_delta=5)
    assert [longest_life(vassal, index) for index in (1, 2, 3)] == [60, 65, 70]


def test_without_a_limit_the_delta_means_nothing() -> None:
    vassal = Vassal("a", max_requests_delta=10, max_worker_lifetime_delta=5)
    assert most_requests(vassal, 2) == longest_life(vassal, 2) == math.inf
    assert not limits_memory(vassal)
    assert excess(vassal, Memory(1 << 40, 1 << 40)) is None


@pytest.mark.parametrize(
    ("limit", "memory", "evil"),
    [
        ("reload-on-rss", Memory(rss=64 * MEGABYTE), False),
        ("reload-on-as", Memory(space=64 * MEGABYTE), False),
        ("evil-reload-on-rss", Memory(rss=64 * MEGABYTE), True),
        ("evil-reload-on-as", Memory(space=64 * MEGABYTE), True),
    ],
)
def test_a_limit_is_reached_by_its_own_kind_of_memory(limit: str, memory: Memory, evil: bool) -> None:
    def limited(size: int) -> Vassal:
        return msgspec.structs.replace(Vassal("a"), **{limit.replace("-", "_"): size})

    assert excess(limited(64 * MEGABYTE), memory) == Excess(f"it uses 64 MB, {limit} is 64", evil)
    assert excess(limited(64 * MEGABYTE + 1), memory) is None
    assert excess(limited(64 * MEGABYTE), Memory(memory.space, memory.rss)) is None


def test_the_evil_limit_comes_first() -> None:
    found = excess(Vassal("a", reload_on_rss=1, evil_reload_on_rss=2), Memory(rss=2))
    assert found is not None
    assert found.evil
