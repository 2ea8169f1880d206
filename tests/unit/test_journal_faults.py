"""What happens is said twice, as a log record and as a trace; and which frames a link's faults hit."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger

from pyemperor.actors.faults import LinkFaults, addresses
from pyemperor.actors.journal import Journal
from pyemperor.protocol.messages import EVENTS, Alive, Beat, Inject, Message, Probe, State, Trace

# ---- the journal --------------------------------------------------------------------------------------------


@pytest.fixture
def records() -> Iterator[list[Any]]:
    """What is logged."""
    found: list[Any] = []
    logger.remove()
    number = logger.add(lambda message: found.append(message.record), level=0)
    yield found
    logger.remove(number)


def test_a_state_is_logged_and_traced(records: list[Any]) -> None:
    traces: list[Trace] = []
    journal = Journal("emperor", traces.append)
    journal.state("master:app", State.CONVICTED, 12.5, 4711, "no answer for 5 s")
    assert traces == [Trace(12.5, "master:app", "state", "CONVICTED", 4711, "no answer for 5 s")]
    (record,) = records
    assert record["level"].name == "ERROR"
    assert record["message"] == "master:app is CONVICTED: no answer for 5 s"
    assert record["extra"] == {
        "actor": "master:app",
        "at": 12.5,
        "event": "state",
        "state": "CONVICTED",
        "pid": 4711,
        "reason": "no answer for 5 s",
    }


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_level(records: list[Any], state: State) -> None:
    Journal("emperor").state("master:app", state, 0.0)
    bad = {"CONVICTED": "ERROR", "CURSED": "ERROR", "EXILED": "ERROR"}
    odd = dict.fromkeys(("KILLING", "SUSPECT", "BACKOFF"), "WARNING")
    assert records[0]["level"].name == (bad | odd).get(state, "INFO")


def test_an_event_is_logged_and_traced(records: list[Any]) -> None:
    traces: list[Trace] = []
    Journal("emperor", traces.append).event("fork-server", "exit", 1.0, reason="why", level="ERROR")
    assert traces == [Trace(1.0, "fork-server", "exit", "", 0, "why")]
    assert records[0]["level"].name == "ERROR"
    assert "exit" in EVENTS


def test_warnings_and_errors_are_traced_once_and_for_a_scenario_to_read(records: list[Any]) -> None:
    traces: list[Trace] = []
    journal = Journal("worker:app/1", traces.append)
    journal.log("WARNING", "odd", 1.0)
    journal.log("ERROR", "wrong", 2.0, "master:app")
    journal.log("INFO", "as usual", 3.0)
    journal.log("WARNING", "said already", 4.0, event="state")
    assert traces == [
        Trace(1.0, "worker:app/1", "log", "", 0, "odd"),
        Trace(2.0, "master:app", "log", "", 0, "wrong"),
    ]
    assert [record["message"] for record in records] == ["odd", "wrong", "as usual", "said already"]


def test_text_with_braces_is_text(records: list[Any]) -> None:
    Journal("emperor").event("master:app", "kill", 0.0, reason="{0} {nothing} {")
    assert records[0]["message"] == "master:app kill: {0} {nothing} {"


def test_when_nobody_watches_nothing_goes_up(records: list[Any]) -> None:
    journal = Journal("emperor")
    journal.trace(Trace(0.0, "emperor", "beat"))
    journal.log("ERROR", "wrong", 0.0)
    assert len(records) == 1


# ---- addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "actor", "meant"),
    [
        ("master:app", "master:app", True),
        ("master:app", "master:app2", False),
        ("master:*", "master:app", True),
        ("worker:app/*", "worker:app/12", True),
        ("worker:app/*", "worker:apple/1", False),
        ("worker:*/1", "worker:app/1", True),
        ("*", "emperor", True),
        ("Emperor", "emperor", False),
    ],
)
def test_whom_a_pattern_means(pattern: str, actor: str, meant: bool) -> None:
    assert addresses(pattern, actor) is meant


# ---- faults of links ----------------------------------------------------------------------------------------

EMPEROR, APP, OTHER = "emperor", "master:app", "master:other"
BEAT, PROBE, ALIVE = Beat(1, 0.0), Probe(1), Alive(1)


def faults(*on: Inject, chance: float = 0.0) -> LinkFaults:
    """These faults, with this luck."""
    links = LinkFaults(lambda: chance)
    for fault in on:
        links.apply(fault)
    return links


@pytest.mark.parametrize(
    ("target", "hit"),
    [
        ("link:master:app>emperor", {(APP, EMPEROR)}),
        ("link:emperor<master:app", {(APP, EMPEROR)}),
        ("link:emperor>master:app", {(EMPEROR, APP)}),
        ("link:emperor<>master:app", {(APP, EMPEROR), (EMPEROR, APP)}),
        ("link:master:app<>emperor", {(APP, EMPEROR), (EMPEROR, APP)}),
        ("link:master:*>emperor", {(APP, EMPEROR), (OTHER, EMPEROR)}),
        ("link:*>*", {(a, b) for a in (EMPEROR, APP, OTHER) for b in (EMPEROR, APP, OTHER)}),
    ],
)
def test_the_direction_of_a_link(target: str, hit: set[tuple[str, str]]) -> None:
    links = faults(Inject("f", "drop", target))
    ends = [EMPEROR, APP, OTHER]
    assert {(a, b) for a in ends for b in ends if links.delay(a, b, BEAT) is None} == hit


def test_a_fault_may_mean_one_kind_of_message() -> None:
    links = faults(Inject("f", "drop", "link:*>*", match="beat"))
    assert links.delay(APP, EMPEROR, BEAT) is None
    assert links.delay(APP, EMPEROR, ALIVE) == 0.0
    assert links.delay(EMPEROR, APP, PROBE) == 0.0


@pytest.mark.parametrize(("chance", "late"), [(0.0, 2.0), (0.29, 2.0), (0.3, 0.0), (0.9, 0.0)])
def test_a_fault_may_hit_or_miss(chance: float, late: float) -> None:
    links = faults(Inject("f", "delay", "link:*>*", seconds=2.0, probability=0.3), chance=chance)
    assert links.delay(APP, EMPEROR, BEAT) == late


def test_faults_add_up_and_are_taken_back_one_by_one() -> None:
    links = faults(
        Inject("a", "delay", "link:*>*", seconds=2.0), Inject("b", "delay", "link:*>emperor", seconds=0.5)
    )
    assert links.delay(APP, EMPEROR, BEAT) == 2.5
    links.apply(Inject("c", "drop", "link:*>*"))
    assert links.delay(APP, EMPEROR, BEAT) is None
    for number, late in (("c", 2.5), ("a", 0.5), ("b", 0.0)):
        links.apply(Inject(number, "heal", ""))
        assert links.delay(APP, EMPEROR, BEAT) == late
    assert not links
    links.apply(Inject("a", "heal", ""))


def test_what_is_no_fault_of_a_link_is_none_here() -> None:
    assert not faults(Inject("f", "hang", "master:app"))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["drop", "delay", "heal"]))),
    st.sampled_from([BEAT, PROBE, ALIVE]),
)
def test_who_is_healed_of_everything_is_well(history: list[tuple[str, Any]], message: Message) -> None:
    links = faults(*[Inject(number, kind, "link:*>*", seconds=1.0) for number, kind in history])
    on = {number for place, (number, kind) in enumerate(history) if kind != "heal"
          and (number, "heal") not in history[place + 1 :]}  # fmt: skip
    assert bool(links) == bool(on)
    for number in on:
        links.apply(Inject(number, "heal", ""))
    assert not links
    assert links.delay(APP, EMPEROR, message) == 0.0
