"""uWSGI's log-format: what each variable says, and that nobody outside can bend a line."""

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemperor.actors import wires
from pyemperor.actors.outcome import Outcome
from pyemperor.actors.script import Ending
from pyemperor.cli.log_format import _VALUES, Request, compile_format, unknown
from pyemperor.protocol.messages import Birth
from pyemperor.protocol.options import Vassal

#: Wed Feb  5 11:35:43 2014 UTC, when the request ended.
WALL = 1391600143.25
BIRTH = Birth(kind="worker", vassal=Vassal(name="shop"), beat=10, index=2)
VARIABLES = {
    b"REQUEST_METHOD": b"POST",
    b"REQUEST_URI": b"/cgi-bin/buy.cgi?item=1",
    b"SERVER_PROTOCOL": b"HTTP/1.1",
    b"REMOTE_ADDR": b"192.0.2.7",
    b"REMOTE_USER": b"ann",
    b"HTTP_HOST": b"www.example.org",
    b"HTTP_USER_AGENT": b"curl/8",
    b"HTTP_REFERER": b"https://example.org/",
    b"HTTP_X_FORWARDED_FOR": b"198.51.100.3",
    b"HTTP_X_REAL": b"yes",
}
OUTCOME = Outcome(
    wires.Request(9, 3, VARIABLES, 17), id="ab" * 16, script="/srv/buy.cgi", pid=77, status=200, sent=326,
    head_size=44, head_fields=2, started_at=100.0, ending=Ending(1, 0, 0.0125, 4096000), redirects=1,
)  # fmt: skip
REQUEST = Request(BIRTH, 1, OUTCOME, 101.25, WALL, 4711, 5)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def said(text: str, request: Request = REQUEST) -> str:
    line = compile_format(text)(request)
    assert line.endswith("\n")
    return line[:-1]


#: uWSGI's documentation, "Formatting uWSGI requests logs", and what is ours.
EXPECTED = {
    "uri": "/cgi-bin/buy.cgi?item=1", "method": "POST", "user": "ann", "addr": "192.0.2.7",
    "host": "www.example.org", "proto": "HTTP/1.1", "uagent": "curl/8", "referer": "https://example.org/",
    "status": "200", "rsize": "282", "hsize": "44", "size": "326", "headers": "2", "cl": "17",
    "micros": "1250000", "msecs": "1250", "secs": "1.250000", "time": "1391600142", "tmsecs": "1391600142000",
    "tmicros": "1391600142000000", "ctime": "Wed Feb  5 11:35:42 2014", "ftime": "Wed Feb  5 11:35:42 2014",
    "ltime": "05/Feb/2014:11:35:42 +0000", "epoch": "1391600143", "pid": "4711", "wid": "2", "core": "1",
    "switches": "0", "vars": "10", "modifier1": "9", "modifier2": "3", "rerr": "0", "werr": "0", "ioerr": "0",
    "pktsize": str(sum(len(k) + len(v) + 4 for k, v in VARIABLES.items())),
    "vassal": "shop", "request_id": "ab" * 16, "number": "5", "script": "/srv/buy.cgi", "script_pid": "77",
    "exit": "1", "signal": "-", "cpu": "0.012500", "maxrss": "4096000", "redirects": "1", "problem": "-",
}  # fmt: skip
MEMORY = {"vsz", "rss", "vszM", "rssM"}


@pytest.mark.parametrize(("name", "value"), EXPECTED.items())
def test_variable(name: str, value: str) -> None:
    assert said(f"<%({name})>") == f"<{value}>"


def test_every_variable_is_tested() -> None:
    assert set(_VALUES) == set(EXPECTED) | MEMORY


def test_memory_is_that_of_the_worker() -> None:
    vsz, rss, vsz_mb, rss_mb = map(int, said("%(vsz) %(rss) %(vszM) %(rssM)").split())
    assert vsz > rss > 1_000_000
    assert vsz // 2**20 - vsz_mb <= 1
    assert abs(rss // 2**20 - rss_mb) <= 1
    with open(f"/proc/{os.getpid()}/status", encoding="ascii") as file:
        kilobytes = int(re.findall(r"VmRSS:\s+(\d+)", file.read())[0])
    assert abs(kilobytes * 1024 - rss) < 0.2 * rss


def test_variables_of_the_request_by_name_and_what_is_not_there() -> None:
    assert said("%(var.HTTP_X_REAL) %(var.HTTP_X_OTHER) %(metric.x) %(nobody)") == "yes - - -"
    assert unknown("%(uri) %(var.X) %(ftime) %(nobody) %(metric.x)") == ("nobody", "metric.x")


def test_what_is_no_variable_stays() -> None:
    assert said("100% %s %% %() %(uri %(method)%") == "100% %s %% %() %(uri POST%"


def test_ftime_is_written_as_log_date_says() -> None:
    assert compile_format("%(ftime)", "%Y-%m-%d")(REQUEST) == "2014-02-05\n"


def test_addr_may_be_the_one_that_a_proxy_forwards_for() -> None:
    line = compile_format("%(addr)", x_forwarded_for=True)
    assert line(REQUEST) == "198.51.100.3\n"
    direct = msgspec.structs.replace(OUTCOME, request=wires.Request(9, 0, {b"REMOTE_ADDR": b"192.0.2.7"}, 0))
    assert line(replace(REQUEST, outcome=direct)) == "192.0.2.7\n"


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (40, "SIGRTMIN+6"), (34, "SIGRTMIN")])
def test_a_script_that_was_killed_has_a_signal_and_no_exit_code(number: int, name: str) -> None:
    killed = msgspec.structs.replace(OUTCOME, ending=Ending(-1, number, 0.0, 0))
    assert said("%(exit) %(signal)", replace(REQUEST, outcome=killed)) == f"- {name}"


def test_a_request_that_no_script_served() -> None:
    ping = Request(BIRTH, 0, Outcome(status=404, started_at=100.0), 99.0, WALL, 1, 1)
    for name in {*EXPECTED, *MEMORY}:
        assert re.fullmatch(r"-|[\w :/+.]+", said(f"%({name})", ping)), name
    assert said("%(msecs) %(uri) %(cl) %(exit) %(script_pid)", ping) == "0 - 0 - -"
    left = msgspec.structs.replace(OUTCOME, status=499)
    assert said("%(werr) %(rerr) %(ioerr)", replace(REQUEST, outcome=left)) == "1 0 1"


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_nobody_can_forge_a_line_or_leave_his_quotes(value: bytes) -> None:
    known = wires.Request(9, 0, {b"HTTP_USER_AGENT": value, b"X": value}, 0)
    line = compile_format('{"agent": "%(uagent)", "x": "%(var.X)", "end": %(status)}')(
        replace(REQUEST, outcome=msgspec.structs.replace(OUTCOME, request=known))
    )
    assert line[:-1].isprintable()
    told = json.loads(line)
    text = value.decode("utf-8", "backslashreplace") or "-"
    assert told == {"agent": text, "x": text, "end": 200}


def test_every_variable_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "logging.md").read_text()
    assert [name for name in _VALUES if f"`{name}`" not in page] == []
