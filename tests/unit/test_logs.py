"""What the log says, in each style, and that writing it never harms the one who writes."""

import json
import logging
import os
import pty
import re
import subprocess
import sys
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pykka
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger
from msgspec.structs import replace

from pyemperor.actors.administration import VassalStatus
from pyemperor.actors.detector import Convict, Evidence, Verdict, explain
from pyemperor.actors.journal import Journal
from pyemperor.actors.outcome import Outcome
from pyemperor.actors.wires import Request
from pyemperor.cli import logs
from pyemperor.cli.lines import Entry, Json, Served, duration, parts, size
from pyemperor.cli.logs import log_request, log_statuses, log_to_stderr
from pyemperor.cli.pretty_lines import Pretty
from pyemperor.cli.stderr import PATIENCE, Stderr, _with_room
from pyemperor.cli.uwsgi_lines import Uwsgi
from pyemperor.protocol.escapes import printable
from pyemperor.protocol.messages import Birth, State
from pyemperor.protocol.options import Supervision, Vassal

#: Wed Feb  5 11:35:43 2014 UTC
WALL = 1391600143.25
MASTER = Birth(kind="master", vassal=Vassal(name="hello", processes=2, threads=2, worker_reload_mercy=10), beat=10)
WORKER = Birth(kind="worker", vassal=MASTER.vassal, beat=10, index=1)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Set up the log of this process, and leave nothing of it behind."""
    monkeypatch.setattr(logs, "_log", None)
    yield log_to_stderr
    logger.remove()
    logging.getLogger().removeHandler(logs._BRIDGE)


def state(actor: str, state: State, at: float = 0.0, pid: int = 0, reason: str = "", **rest: str) -> Entry:
    vassal, worker = parts(actor)
    return Entry(
        level=rest.get("level", "INFO"), actor=actor, vassal=vassal, worker=worker, event="state", state=state,
        pid=pid, reason=reason, message=f"{actor} is {state}", at=at,
    )  # fmt: skip


def event(actor: str, name: str, reason: str = "", message: str = "", level: str = "INFO", pid: int = 0) -> Entry:
    vassal, worker = parts(actor)
    return Entry(
        level=level, actor=actor, vassal=vassal, worker=worker, event=name, reason=reason, message=message, at=0.0,
        pid=pid,
    )  # fmt: skip


def outcome(**variables: bytes) -> Outcome:
    """The request of uWSGI's documentation of its log, as nginx would send it."""
    known = {
        "REQUEST_METHOD": b"GET",
        "REQUEST_URI": b"/cgi-bin/hello.cgi",
        "SERVER_PROTOCOL": b"HTTP/1.1",
        "REMOTE_ADDR": b"10.0.0.1",
    } | variables
    request = Request(9, 0, {name.encode(): value for name, value in known.items()}, 0)
    return Outcome(
        request, script="/cgi-bin/hello.cgi", pid=77, status=200, sent=326, head_size=44, head_fields=1,
        started_at=100.0,
    )


def served(result: Outcome, seconds: float = 0.0137) -> Served:
    return Served.of(WORKER, 1, result, result.started_at + seconds, pid=20826, number=3)


# ---- uWSGI's words ----------------------------------------------------------------------------------------


def lines(style: Uwsgi | Pretty, *entries: Entry) -> list[str]:
    return "".join(style.entry(entry, WALL) for entry in entries).splitlines()


def test_request_line_is_uwsgis() -> None:
    assert Uwsgi().served(served(outcome(REMOTE_USER=b"ann")), WALL) == (
        "[pid: 20826|app: -1|req: -1/3] 10.0.0.1 (ann) {5 vars in 122 bytes} [Wed Feb  5 11:35:43 2014] "
        "GET /cgi-bin/hello.cgi => generated 282 bytes in 13 msecs (HTTP/1.1 200) "
        "1 headers in 44 bytes (0 switches on core 1)\n"
    )


def test_request_line_leaves_out_what_is_too_long_for_uwsgis_buffer() -> None:
    line = Uwsgi().served(served(outcome(REQUEST_URI=b"/" + b"a" * 5000)), WALL)
    assert "] 0.0.0.0 () {" in line
    assert "] - - => generated 282 bytes" in line
    assert len(line) < 4096


def test_request_with_a_problem_has_a_second_line_with_the_remedy() -> None:
    result = outcome()
    result.status, result.problem, result.remedy = 504, "it was silent for 60 s", "raise `cgi-timeout`"
    first, second = Uwsgi().served(served(result), WALL).splitlines()
    assert first.startswith("[pid: 20826|app: -1|")
    assert second == "hello: GET /cgi-bin/hello.cgi: it was silent for 60 s (raise `cgi-timeout`)"


def test_life_of_a_vassal_as_the_emperor_logs_it() -> None:
    actor = "master:hello"
    stamp = "Wed Feb  5 11:35:43 2014 - "
    assert lines(
        Uwsgi(),
        event("emperor", "reign", message="PyEmperor watches /etc/uwsgi/vassals"),
        event(actor, "start"),
        state(actor, State.SPAWNING),
        state(actor, State.STARTING, pid=7),
        state(actor, State.READY, pid=7),
        event(actor, "loyal"),
        state(actor, State.STABLE, pid=7),
        event("emperor", "quit", message="SIGTERM: stopping every vassal"),
        state(actor, State.STOPPING, pid=7),
        state(actor, State.ABSENT, pid=7, reason="exit code 0"),
        event(actor, "exit", "exit code 0"),
        event("emperor", "buried"),
    ) == [
        "*** starting uWSGI Emperor ***",
        "[emperor] PyEmperor watches /etc/uwsgi/vassals",
        f"{stamp}[emperor] vassal hello has been spawned",
        f"{stamp}[emperor] vassal hello is ready to accept requests",
        f"{stamp}[emperor] vassal hello is now loyal",
        "[emperor] *** RAGNAROK EVOKED ***",
        "[emperor] SIGTERM: stopping every vassal",
        f"{stamp}[emperor] stop the uwsgi instance hello",
        f"{stamp}[emperor] removed uwsgi instance hello",
        f"{stamp}The Emperor is buried.",
    ]


def test_killed_vassal_is_cursed_and_removed_whether_its_link_or_its_death_is_seen_first() -> None:
    actor = "master:hello"
    stamp = "Wed Feb  5 11:35:43 2014 - "
    ready = state(actor, State.READY, pid=7)
    link = state(actor, State.STOPPING, pid=7, reason="its link is lost")
    death = state(actor, State.ABSENT, pid=7, reason="killed by signal 9")
    curse, removed = (
        f"{stamp}[emperor] curse the uwsgi instance hello (pid: 7)",
        f"{stamp}[emperor] removed uwsgi instance hello",
    )
    assert lines(Uwsgi(), ready, link, death)[1:] == [curse, removed]
    assert lines(Uwsgi(), ready, death)[1:] == [
        curse,
        "[emperor] vassal hello ended: killed by signal 9",
        removed,
    ]


def test_silence_is_uwsgis_line_only_at_the_conviction() -> None:
    actor = "master:hello"
    seen = Evidence(state="S", cpu=0.0, run_delay=0.0, unread=0, gone=False)
    sentence = explain(Convict("hello", 30.2, Verdict.BLOCKED, seen, seen, waited=5.0, extensions=0), 7)
    style = Uwsgi()
    suspected = lines(
        style, state(actor, State.READY, pid=7), state(actor, State.SUSPECT, pid=7), event(actor, "probe.sent")
    )
    assert not any("heartbeat" in line or "respawning" in line for line in suspected)
    assert lines(style, event(actor, "probe.cleared", "after 0.10 s"), state(actor, State.READY, pid=7)) == [
        "[emperor] vassal hello answered after 0.10 s: it is alive"
    ]
    convicted = lines(style, state(actor, State.SUSPECT), state(actor, State.CONVICTED, pid=7, reason=sentence))
    assert convicted[-2:] == [
        "[emperor] vassal hello sent no heartbeat in last 30 seconds, brutally respawning it...",
        f"[emperor] {sentence}",
    ]
    assert lines(style, state(actor, State.KILLING, pid=7, reason="it is hung")) == []


def test_mercy_that_is_over_and_a_vassal_that_keeps_failing() -> None:
    actor = "master:hello"
    stamp = "Wed Feb  5 11:35:43 2014 - "
    asked = [state(actor, State.STOPPING, pid=7), state(actor, State.KILLING, pid=7, reason="its mercy is over")]
    assert lines(Uwsgi(), *asked)[1] == f"{stamp}[emperor] NO MERCY for vassal hello !!!"
    assert lines(Uwsgi(), state(actor, State.CURSED, reason="next start in 57.0 s")) == [
        f"{stamp}[emperor] unloyal bad behaving vassal found: hello throttling it...",
        "[emperor] vassal hello: next start in 57.0 s",
    ]


def test_life_of_workers_as_their_master_logs_it() -> None:
    one, two = "worker:hello/1", "worker:hello/2"
    assert lines(
        Uwsgi(MASTER),
        event(one, "start"),
        state(one, State.STARTING, pid=11),
        state(two, State.STARTING, pid=12),
        state(one, State.READY, pid=11),
        state(one, State.ABSENT, pid=11, reason="killed by signal 9"),
        event(one, "restart"),
        state(one, State.STARTING, pid=13),
        state(one, State.READY, pid=13),
        state(one, State.STOPPING, at=5.0, pid=13),
        state(two, State.STOPPING, at=5.0, pid=12),
        state(one, State.ABSENT, at=8.1, pid=13, reason="exit code 0"),
        state(two, State.KILLING, at=15.0, pid=12, reason="its mercy is over"),
        state(two, State.ABSENT, at=15.1, pid=12, reason="its mercy is over"),
    ) == [
        "your mercy for graceful operations on workers is 10 seconds",
        "worker-reload-mercy = 10 is a worker's (its own), reload-mercy = 60 the vassal's",
        "*** Operational MODE: preforking+threaded ***",
        f"spawned uWSGI master process (pid: {os.getpid()})",
        "spawned uWSGI worker 1 (pid: 11, cores: 2)",
        "spawned uWSGI worker 2 (pid: 12, cores: 2)",
        "DAMN ! worker 1 (pid: 11) died, killed by signal 9 :( trying respawn ...",
        "Respawned uWSGI worker 1 (new pid: 13)",
        "Gracefully killing worker 1 (pid: 13)...",
        "Gracefully killing worker 2 (pid: 12)...",
        "worker 1 buried after 3 seconds",
        "Wed Feb  5 11:35:43 2014 - worker 2 (pid: 12) is taking too much time to die...NO MERCY !!!",
        "worker 2 killed successfully (pid: 12)",
    ]


@pytest.mark.parametrize("kind", ["master:hello", "worker:hello/1"])
@pytest.mark.parametrize("style", [Uwsgi(), Uwsgi(MASTER), Pretty(), Pretty(debug=True, colour=True), Json()])
def test_every_state_can_be_said_by_every_style(style: Uwsgi | Pretty | Json, kind: str) -> None:
    for reached in State:
        said = style.entry(state(kind, reached, pid=7, reason="because"), WALL)
        assert said == "" or said.endswith("\n")
    assert style.entry(state(kind, State.EXILED, pid=7, reason="because"), WALL)


def test_a_vassal_on_demand_in_uwsgis_words() -> None:
    asleep = state("master:hello", State.SLEEPING, reason="/run/hello.socket")
    assert lines(Uwsgi(), asleep, state("master:hello", State.READY, pid=7), asleep) == [
        '[uwsgi-emperor] hello -> "on demand" instance detected, '
        'waiting for connections on socket "/run/hello.socket" ...',
        "Wed Feb  5 11:35:43 2014 - [emperor] vassal hello is ready to accept requests",
        '[uwsgi-emperor] hello -> back to "on demand" mode, '
        'waiting for connections on socket "/run/hello.socket" ...',
    ]


def test_what_uwsgi_has_no_words_for_is_said_in_its_manner() -> None:
    assert lines(
        Uwsgi(),
        event("emperor", "", message="SIGTERM: stopping every vassal"),
        event("worker:hello/1", "stderr", message="hello: no such table"),
        event("worker:hello/1", "", message="a runner did not end", level="ERROR"),
        event("emperor", "credit", "2.00 s of our own lateness were given to everybody"),
        event("worker:hello/1", "starved", "starved"),
        event("fork-server", "exit", "replaced", "fork-server exit: replaced", level="ERROR"),
    ) == [
        "[emperor] SIGTERM: stopping every vassal",
        "hello: no such table",
        "[hello/1] a runner did not end",
        "[emperor] 2.00 s of our own lateness were given to everybody",
        "[emperor] worker 1 of hello gets more time to answer: the machine starves it of CPU",
        "[emperor] fork-server exit: replaced",
    ]


def test_log_date_stamps_every_line_but_those_of_requests_and_none_twice() -> None:
    style = Uwsgi(date="%Y-%m-%d")
    said = lines(style, state("master:hello", State.READY, pid=7), event("emperor", "", message="SIGHUP"))
    assert said == [
        "2014-02-05 - [emperor] vassal hello is ready to accept requests",
        "2014-02-05 - [emperor] SIGHUP",
    ]
    assert style.served(served(outcome()), WALL).startswith("[pid: 20826|")


def test_request_line_in_microseconds_and_with_the_address_that_a_proxy_forwards_for() -> None:
    result = outcome(HTTP_X_FORWARDED_FOR=b"198.51.100.3")
    told = Served.of(WORKER, 1, result, result.started_at + 0.0137, pid=1, number=3, x_forwarded_for=True)
    line = Uwsgi(micros=True).served(told, WALL)
    assert "] 198.51.100.3 () {" in line
    assert "bytes in 13700 micros (" in line
    assert served(result).addr == "10.0.0.1"
    nobody = Served.of(WORKER, 1, outcome(), 100.1, pid=1, number=3, x_forwarded_for=True)
    assert nobody.addr == "10.0.0.1"


# ---- for people ---------------------------------------------------------------------------------------------


def test_a_vassal_that_does_well_takes_few_lines() -> None:
    one = "worker:hello/1"
    said = lines(
        Pretty(),
        event("master:hello", "start"),
        state("master:hello", State.SPAWNING),
        state("master:hello", State.STARTING, pid=7),
        state(one, State.SPAWNING),
        state(one, State.READY, pid=8),
        state("master:hello", State.READY, pid=7),
        state("master:hello", State.STABLE, pid=7),
        state("master:hello", State.STOPPING, pid=7),
        state(one, State.STOPPING, pid=8),
        state(one, State.ABSENT, pid=8, reason="exit code 0"),
        state("master:hello", State.ABSENT, pid=7, reason="exit code 0"),
    )
    assert said == [
        "11:35:43.250 INFO  hello        ready (pid 7)",
        "11:35:43.250 INFO  hello        stopping (pid 7)",
        "11:35:43.250 INFO  hello        ended: exit code 0 (pid 7)",
    ]


def test_a_worker_that_dies_is_a_warning_and_its_return_is_said() -> None:
    one = "worker:hello/1"
    said = lines(
        Pretty(),
        state(one, State.READY, pid=8),
        state(one, State.ABSENT, pid=8, reason="killed by signal 9"),
        event(one, "exit", "killed by signal 9"),
        event(one, "restart"),
        state(one, State.SPAWNING),
        state(one, State.STARTING, pid=9),
        state(one, State.READY, pid=9),
    )
    assert said == [
        "11:35:43.250 WARN  hello/1      died: killed by signal 9 (pid 8)",
        "11:35:43.250 INFO  hello/1      ready again (pid 9)",
    ]


def test_a_process_that_outlives_its_link_is_a_warning() -> None:
    lost = state("worker:hello/1", State.STOPPING, pid=8, reason="its link is lost")
    ended = state("worker:hello/1", State.ABSENT, pid=8, reason="exit code 0")
    assert lines(Pretty(), lost, ended) == [
        "11:35:43.250 WARN  hello/1      its link is lost: it finishes what it accepted (pid 8)",
        "11:35:43.250 WARN  hello/1      died: exit code 0 (pid 8)",
    ]
    assert lines(Uwsgi(), lost, ended) == [
        "worker 1 (pid: 8) finishes what it accepted: its link is lost",
        "DAMN ! worker 1 (pid: 8) died :( trying respawn ...",
    ]


def test_the_loss_of_the_fork_server_is_said_although_exits_are_not() -> None:
    lost = event("fork-server", "exit", "replaced; nothing that runs is harmed", level="ERROR")
    assert lines(Pretty(), lost) == [
        "11:35:43.250 ERROR fork-server  is gone: replaced; nothing that runs is harmed"
    ]


def test_request_for_people() -> None:
    assert Pretty().served(served(outcome()), WALL) == (
        "11:35:43.250 INFO  hello/1      GET /cgi-bin/hello.cgi 200 282 B 14 ms\n"
    )
    result = outcome()
    result.status, result.problem, result.remedy = 502, "not a CGI response", "print a blank line"
    assert Pretty().served(served(result), WALL) == (
        "11:35:43.250 WARN  hello/1      GET /cgi-bin/hello.cgi 502 282 B 14 ms: "
        "not a CGI response (print a blank line)\n"
    )
    nothing = Outcome(problem="the connection ended inside the uwsgi packet")
    assert Pretty().served(served(nothing), WALL) == (
        "11:35:43.250 WARN  hello/1      the connection ended inside the uwsgi packet\n"
    )


def test_colours_only_where_they_are_asked_for() -> None:
    entries = [state("master:hello", State.CONVICTED, reason="hung"), state("worker:hello/1", State.BACKOFF)]
    plain = "".join(Pretty().entry(entry, WALL) for entry in entries)
    coloured = "".join(Pretty(colour=True).entry(entry, WALL) for entry in entries)
    assert "\x1b" not in plain
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9_950, "10 kB"), (123_456, "123 kB"), (999_600, "1.0 MB"),
     (5 * 10**9, "5.0 GB"), (5 * 10**13, "50000 GB")],
)  # fmt: skip
def test_sizes(number: int, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(("msecs", "text"), [(0.04, "0.0 ms"), (9.94, "9.9 ms"), (9.96, "10 ms"), (1234, "1.2 s")])
def test_durations(msecs: float, text: str) -> None:
    assert duration(msecs) == text


# ---- nasty text ---------------------------------------------------------------------------------------------

#: What breaks logs: controls, C1, line separators, bidi, quotes, lone surrogates, JSON in disguise.
NASTY = st.text(
    st.one_of(
        st.characters(codec=None),
        st.sampled_from("\n\r\t\x00\x1b\x7f\x85\x9b\u2028\u202e\ud800\"\\{}%"),
    ),
    max_size=40,
)
BYTES = st.binary(max_size=60) | NASTY.map(lambda text: text.encode("utf-8", "surrogatepass"))


def is_one_harmless_line(text: str) -> bool:
    return text.endswith("\n") and len(text.splitlines()) == 1 and text[:-1].isprintable()


@settings(deadline=None, max_examples=150)
@given(uri=BYTES, user=BYTES, method=BYTES.filter(len), problem=NASTY)
def test_no_client_can_forge_a_line_or_command_a_terminal(
    uri: bytes, user: bytes, method: bytes, problem: str
) -> None:
    result = outcome(REQUEST_URI=uri, REMOTE_USER=user, REQUEST_METHOD=method, HTTP_USER_AGENT=uri)
    good = served(result)
    result.problem = problem
    bad = served(result)
    assert is_one_harmless_line(Uwsgi().served(good, WALL))
    assert is_one_harmless_line(Pretty().served(good, WALL))
    assert is_one_harmless_line(Pretty().served(bad, WALL))
    assert len(Uwsgi().served(bad, WALL).splitlines()) == (2 if problem else 1)
    line = Json().served(bad, WALL)
    assert len(line.splitlines()) == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", line)
    told = json.loads(line)
    assert told["event"] == "request"
    assert told["status"] == 200
    assert told.get("uri", "") == uri.decode("utf-8", "backslashreplace")


@settings(deadline=None, max_examples=150)
@given(message=NASTY, reason=NASTY, actor=NASTY)
def test_no_record_is_more_than_a_line_whatever_it_says(message: str, reason: str, actor: str) -> None:
    records: list[Entry] = []
    handler = logger.add(lambda record: records.append(Entry.of(record.record, "emperor")), format="{message}")
    try:
        logger.bind(actor=actor, at=1.5, event="log", reason=reason).warning("{}", message)
    finally:
        logger.remove(handler)
    (entry,) = records
    assert is_one_harmless_line(Pretty().entry(entry, WALL))
    assert is_one_harmless_line(Uwsgi().entry(entry, WALL))
    told = json.loads(Json().entry(entry, WALL))
    assert told.get("message", "") == message.encode("utf-8", "backslashreplace").decode()
    assert told["level"] == "WARNING"


def test_printable_text_stays_as_it_is() -> None:
    assert printable("/käse?q=a b") == "/käse?q=a b"
    assert printable("a\nb\x1b[31m\u202e") == r"a\nb\x1b[31m\u202e"


# ---- the whole way ------------------------------------------------------------------------------------------


def test_states_as_json(log: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> None:
    log("json")
    Journal("emperor").state("worker:bench/1", State.READY, 12.5, pid=42)
    told = json.loads(capfd.readouterr().err)
    assert told.pop("time").endswith("+00:00")
    assert told == {
        "level": "INFO", "actor": "worker:bench/1", "vassal": "bench", "worker": 1, "event": "state",
        "state": "READY", "pid": 42, "message": "worker:bench/1 is READY", "at": 12.5,
    }  # fmt: skip


def test_a_crashed_actor_is_an_error_that_is_seen_once(
    log: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    class Clumsy(pykka.ThreadingActor):
        def on_receive(self, message: object) -> None:
            raise KeyError("a\nb")

    log("json", actor="worker:bench/1")
    actor = Clumsy.start()
    actor.tell("anything")
    assert actor.actor_stopped.wait(5)
    (told,) = map(json.loads, capfd.readouterr().err.splitlines())
    assert told["level"] == "ERROR"
    assert told["actor"] == "worker:bench/1"
    assert "Unhandled exception in Clumsy" in told["message"]
    assert 'raise KeyError("a\\nb")' in told["traceback"]


def test_a_traceback_is_indented_below_its_line(
    log: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    log("pretty")
    try:
        raise ValueError("first\n11:00:00.000 INFO forged")
    except ValueError:
        logger.exception("it broke")
    first, *rest = capfd.readouterr().err.splitlines()
    assert first.endswith("ERROR emperor      it broke")
    assert rest[-1] == "    11:00:00.000 INFO forged"
    assert all(line.startswith("    ") for line in rest)


def test_requests_are_counted_and_silenced_but_not_their_problems(
    log: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    log("uwsgi", birth=WORKER)
    log_request(WORKER, 0, outcome(), 100.1)
    log_request(WORKER, 0, outcome(), 100.1, enabled=False)
    bad = outcome()
    bad.problem = "no such script"
    log_request(WORKER, 0, bad, 100.1, enabled=False)
    first, second, third = capfd.readouterr().err.splitlines()
    assert first.startswith(f"[pid: {os.getpid()}|app: -1|req: -1/1] ")
    assert second.startswith(f"[pid: {os.getpid()}|app: -1|req: -1/2] ")
    assert third == "hello: GET /cgi-bin/hello.cgi: no such script"


def test_the_level_holds_for_requests_as_well(
    log: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    log("pretty", level="WARNING")
    log_request(WORKER, 0, outcome(), 100.1)
    logger.info("nothing of interest")
    assert capfd.readouterr().err == ""


def test_a_format_of_the_users_own_and_its_problems_in_the_words_of_the_style(
    log: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    vassal = replace(WORKER.vassal, log_format="%(method) %(status) %(ftime)", log_date="%Y")
    birth = replace(WORKER, vassal=vassal)
    log("uwsgi", birth=birth)
    log_request(birth, 0, outcome(), 100.1)
    bad = outcome()
    bad.problem, bad.remedy = "no such script", "write one"
    log_request(birth, 0, bad, 100.1)
    log_request(birth, 0, Outcome(problem="nobody spoke"), 100.1)
    year = time.strftime("%Y")
    assert capfd.readouterr().err.splitlines() == [
        f"GET 200 {year}",
        f"GET 200 {year}",
        f"{year} - [hello/1] GET /cgi-bin/hello.cgi: no such script (write one)",
        "hello: nobody spoke",
    ]


def test_how_the_vassals_are(log: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> None:
    statuses = [
        VassalStatus("shop", "STABLE", 3, (4711, 4713), 1, requests=9, loyal=True),
        VassalStatus("wiki", "CURSED", 1, (), 6, reason="next start in 57.0 s", refused="no socket"),
    ]
    log("uwsgi")
    log_statuses(statuses)
    log("pretty")
    log_statuses(statuses[1:])
    *first, last = capfd.readouterr().err.splitlines()
    assert first == [
        "vassal instance shop status STABLE, pid 4711 4713, generation 3, 9 requests, loyal 1",
        "vassal instance wiki status CURSED, generation 1, 0 requests, loyal 0; next start in 57.0 s; no socket",
    ]
    assert last.endswith(" INFO  wiki         " + first[1].removeprefix("vassal instance wiki status "))


@pytest.mark.parametrize(
    ("wish", "logged"),
    [
        ({}, []),
        ({"log_4xx": True}, ["404", "499"]),
        ({"log_5xx": True}, ["504"]),
        ({"log_ioerror": True}, ["499"]),
        ({"log_zero": True}, ["302"]),
        ({"log_big": 400}, ["504"]),
        ({"log_slow": 1000}, ["200"]),
        ({"log_4xx": True, "log_slow": 1000, "log_zero": True}, ["200", "302", "404", "499"]),
    ],
)
def test_what_is_logged_although_logging_is_disabled(
    log: Callable[..., None], capfd: pytest.CaptureFixture[str], wish: dict[str, object], logged: list[str]
) -> None:
    birth = replace(WORKER, vassal=replace(WORKER.vassal, log_format="%(status)", **wish))
    log("uwsgi", birth=birth)
    results = ((200, 326, 1.0), (302, 44, 0.1), (404, 326, 0.1), (499, 60, 0.1), (504, 444, 0.9))
    for status, sent, seconds in results:
        result = outcome()
        result.status, result.sent = status, sent
        log_request(birth, 0, result, result.started_at + seconds, enabled=False)
    assert capfd.readouterr().err.split() == logged


def test_a_vassals_file_is_opened_before_its_user_may_not(tmp_path: Path) -> None:
    """As the fork server's child does it, and the log of the process takes it over."""
    path = tmp_path / "private" / "site.log"
    path.parent.mkdir(0o700)
    program = (
        "import os, sys\n"
        "from loguru import logger\n"
        "from pyemperor.cli.logs import log_to_stderr, open_log\n"
        "from pyemperor.protocol.messages import Birth\n"
        "from pyemperor.protocol.options import Vassal\n"
        "birth = Birth(kind='master', vassal=Vassal(name='site', logto=sys.argv[1], uid='nobody'), beat=10)\n"
        "open_log(birth)\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "log_to_stderr('pretty', birth=birth)\n"
        "logger.info('here')\n"
    )
    command = [sys.executable, "-P", "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(maxsplit=3)[3] for line in path.read_text().splitlines()] == ["here"]
    assert os.geteuid() != 0 or path.stat().st_uid == 65534


def test_the_emperors_file_is_that_of_all_below_who_have_none(
    log: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(logs._FILE, "")
    program = (
        "import os, subprocess, sys\n"
        "from loguru import logger\n"
        "from pyemperor.cli.log_file import LogFileOptions\n"
        "from pyemperor.cli.logs import log_to_stderr\n"
        "if sys.argv[2] == 'emperor':\n"
        "    log_to_stderr('pretty', file=LogFileOptions(sys.argv[1]))\n"
        "    subprocess.run([sys.executable, '-P', '-c', os.environ['PROGRAM'], sys.argv[1], 'fork-server'])\n"
        "else:\n"
        "    log_to_stderr('pretty', actor=sys.argv[2])\n"
        "    os.rename(sys.argv[1], sys.argv[1] + '.1')\n"
        "    open(sys.argv[1], 'x').close()\n"
        "logger.info('{} speaks', sys.argv[2])\n"
    )
    path = tmp_path / "emperor.log"
    monkeypatch.setenv("PROGRAM", program)
    command = [sys.executable, "-P", "-c", program, str(path), "emperor"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    told = [line.split(maxsplit=3)[3] for line in path.read_text().splitlines()]
    assert told == ["fork-server speaks", "emperor speaks"]


def test_an_unknown_style_is_named(log: Callable[..., None]) -> None:
    with pytest.raises(ValueError, match="'fancy': it is pretty, uwsgi or json"):
        log("fancy")


# ---- writing ------------------------------------------------------------------------------------------------


def missing(count: int) -> str:
    return f"({count} missing)\n"


def drain(fd: int) -> bytes:
    os.set_blocking(fd, False)
    data = b""
    try:
        while part := os.read(fd, 65536):
            data += part
    except BlockingIOError:
        pass
    os.set_blocking(fd, True)
    return data


@pytest.fixture(params=["pipe", "pipe of an older kernel", "terminal"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, Stderr]]:
    """Something that can be full: where it is read, and the log that writes to it."""
    if request.param == "terminal":
        reading, writing = pty.openpty()
        tty.setraw(writing)
    else:
        reading, writing = os.pipe()
    stderr = Stderr(missing, writing)
    if request.param == "pipe of an older kernel":
        stderr._write = _with_room
    yield reading, stderr
    os.close(reading)
    os.close(writing)


def test_a_reader_who_does_not_read_stops_nobody_and_hears_later_what_he_missed(ends: tuple[int, Stderr]) -> None:
    reading, stderr = ends
    number = 2000
    begun = time.monotonic()
    for index in range(number):
        stderr.write(f"line {index} {'x' * 100}\n")
    assert time.monotonic() - begun < 20 * PATIENCE + 2
    # A cut line is the last that is read before the gap; whoever reads a terminal gets it in pieces.
    early = drain(reading)
    while more := drain(reading):
        early += more
    stderr.write("at last\n")
    rest = drain(reading)
    while not rest.endswith(b"at last\n"):  # what was still on its way comes first
        rest += drain(reading)
    late = rest.decode().splitlines()
    whole = re.findall(rb"line \d+ x{100}\n", early + rest)
    assert 0 < len(whole) < number
    assert late[-1] == "at last"
    assert late[-2] == f"({number - len(whole)} missing)"
    assert b"line 0 " in whole[0]


def test_a_line_longer_than_the_pipe_is_cut_and_the_next_begins_on_its_own() -> None:
    reading, writing = os.pipe()
    try:
        stderr = Stderr(missing, writing)
        stderr.write("x" * 200_000 + "\n")
        cut = drain(reading)
        stderr.write("next\n")
        assert set(cut) == {ord("x")}
        assert drain(reading) == b"\n(1 missing)\nnext\n"
    finally:
        os.close(reading)
        os.close(writing)


def test_nobody_at_the_other_end_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stderr = Stderr(missing, writing)
    stderr.write("into the void\n")
    os.close(writing)
    stderr.write("to nowhere\n")
    assert stderr._dropped == 2


def test_lines_of_many_processes_do_not_mix() -> None:
    program = (
        "import sys\n"
        "from pyemperor.cli.stderr import Stderr\n"
        "stderr = Stderr(lambda count: f'{count} missing\\n')\n"
        "for index in range(300): stderr.write(sys.argv[1] * 900 + '\\n')\n"
    )
    reading, writing = os.pipe()
    writers = [
        subprocess.Popen([sys.executable, "-P", "-c", program, letter], stderr=writing) for letter in "abc"
    ]
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        found = pipe.read().splitlines()
    assert [writer.wait(10) for writer in writers] == [0, 0, 0]
    assert not [line for line in found if not re.fullmatch(r"a{900}|b{900}|c{900}|\d+ missing", line)]
    assert {line[0] for line in found} >= set("abc")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_vassals_log_file_that_is_made_again_is_its_users_and_no_link_is_followed(tmp_path: Path) -> None:
    moved, link, target = tmp_path / "moved", tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    logs.reopen(Vassal("app", logto=str(path), uid="nobody") for path in (moved, link))
    assert not target.exists()
    assert (moved.owner(), moved.stat().st_mode & 0o777) == ("nobody", 0o640)
    logs.reopen([Vassal("app", logto2=str(link))])
    assert not target.exists(), "a link that leads nowhere makes no file"


def test_the_mercy_that_governs_is_said_at_the_start() -> None:
    """The seed's second complaint: reload-mercy = 10, and the log said 60."""
    vassal = Vassal(name="hello", supervision=Supervision(mercy=10))
    master = Birth(kind="master", vassal=vassal, beat=10)
    said = lines(Uwsgi(master), state("worker:hello/1", State.STARTING, pid=1))
    assert said[:2] == [
        "your mercy for graceful operations on workers is 10 seconds",
        "worker-reload-mercy = 60 is a worker's (reload-mercy clips it), reload-mercy = 10 the vassal's",
    ]


def test_a_worker_and_the_one_that_replaces_it_are_two() -> None:
    one = "worker:hello/1"
    assert lines(
        Uwsgi(),
        event(one, "start"),
        state(one, State.STARTING, pid=11),
        event(one, "retire", pid=11, reason="it is old"),
        event(one, "start"),
        state(one, State.STARTING, pid=12),
        state(one, State.READY, pid=12),
        state(one, State.STOPPING, at=5.0, pid=11),
        state(one, State.STABLE, at=6.0, pid=12),
        state(one, State.ABSENT, at=7.0, pid=11, reason="exit code 0"),
        state(one, State.ABSENT, at=9.0, pid=12, reason="killed by signal 9"),
    ) == [
        "spawned uWSGI worker 1 (pid: 11, cores: 1)",
        "...The work of process 11 is done. Seeya! (worker 1 of hello: it is old)",
        "spawned uWSGI worker 1 (pid: 12, cores: 1)",
        "Gracefully killing worker 1 (pid: 11)...",
        "worker 1 buried after 2 seconds",
        "DAMN ! worker 1 (pid: 12) died, killed by signal 9 :( trying respawn ...",
    ]
