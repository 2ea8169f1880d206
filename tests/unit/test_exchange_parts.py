"""The parts of an exchange where a server cannot be made to hit the moment: two events of one wait, a race."""

import os
import select
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from pyemperor.actors.actor import EpollInbox
from pyemperor.actors.cgi_runner import ErrorPipe
from pyemperor.actors.clock import monotonic
from pyemperor.actors.connection import Connection
from pyemperor.actors.deadlines import Deadlines
from pyemperor.actors.delivery import Delivery
from pyemperor.actors.exchange import Exchange
from pyemperor.actors.intake import Intake
from pyemperor.actors.outcome import Outcome
from pyemperor.actors.process import Process
from pyemperor.actors.script import GRACE, Script, Terms
from pyemperor.actors.slots import Slots
from pyemperor.actors.wires import Request, UwsgiWire
from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.uwsgi import encode_packet

PATIENCE = 15.0


def started(inbox: EpollInbox, command: str, *, body: bool = False) -> Process:
    script = Script(b"/bin/sh", (b"sh", b"-c", command.encode()), {}, b"/", "/test", Terms(60.0))
    with open(os.devnull) as null:
        return Process.start(inbox, script, stdin=None if body else null.fileno(), stderr=2)


def ended(process: Process) -> None:
    fd = os.pidfd_open(process.pid)
    process.signal(signal.SIGKILL)  # and reap it, if it is that quick
    assert select.select([fd], [], [], PATIENCE)[0]
    os.close(fd)
    assert process.reap()
    process.close()


def test_whoever_was_asked_to_end_sees_no_end_of_its_body(
    inbox: EpollInbox, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Its body is forgotten, and its pipe may be ready in the same wait: what is here is not the body."""
    ours, theirs = pair
    variables = [(b"REQUEST_METHOD", b"POST"), (b"CONTENT_LENGTH", b"200000")]
    theirs.sendall(encode_packet(variables) + bytes(60_000))
    client = Connection(inbox, ours, UwsgiWire(65535))
    while client.read_request() is None:
        pass
    intake = Intake(client)
    process = started(inbox, "trap '' TERM; while :; do sleep 1; done", body=True)
    intake.begin(process)
    client.missing = 0  # all of it is here
    process.end(monotonic(), signal.SIGTERM, GRACE)
    process.pending.clear()
    assert not intake.feed()
    assert process.listens
    ended(process)


def test_a_script_that_writes_as_fast_as_it_is_read_does_not_keep_its_reader(
    inbox: EpollInbox, pair: tuple[socket.socket, socket.socket]
) -> None:
    """While a response is kept to be sent in one piece, what is kept of it has a bound."""
    client = Connection(inbox, pair[0], UwsgiWire(65535))
    delivery = Delivery(client, Outcome())
    process = started(inbox, "printf 'X: y\\n\\n'; exec cat /dev/zero")
    request = Request(9, 0, {b"REQUEST_METHOD": b"GET"}, 0)
    script = Script(b"/bin/sh", (), {}, b"/", "/test", Terms(60.0))
    delivery.begin(script, request, process)
    file = Path(f"/proc/{process.pid}/comm")
    while file.read_text() != "cat\n":
        select.select([process.stream()], [], [], PATIENCE)
    for _ in range(20):
        delivery.pump()
    assert not delivery.prompt
    assert len(client.pending) < 1 << 20
    ended(process)
    client.close()


def test_a_script_that_cannot_be_started_holds_no_slot(inbox: EpollInbox, tmp_path: Path) -> None:
    slots = Slots(bytes(tmp_path), 1)
    script = Script(bytes(tmp_path / "missing"), (b"x",), {}, b"/", "/test", Terms(60.0), slot=slots.take())
    assert slots.take() is None
    with pytest.raises(RequestError, match="cannot be started"):
        Process.start(inbox, script, stdin=None, stderr=2)
    slot = slots.take()
    assert slot
    slot.release()


def test_stderr_is_a_scripts_own_before_it_is_started(
    inbox: EpollInbox, pair: tuple[socket.socket, socket.socket]
) -> None:
    """It may be first to run: its lines are its own, and O_NONBLOCK is not left to it by the one before."""
    said: list[str] = []
    errors = ErrorPipe(inbox, lambda line, _: said.append(line))
    script = Script(b"/bin/true", (b"true",), {}, b"/", "/x", Terms(60.0), warm=True)

    def start(_script: Script, _stdin: int, _stdout: int, stderr: int) -> Any:
        if not os.get_blocking(stderr):
            raise AssertionError("it is as the one before has left it")
        os.write(stderr, b"mine\n")
        errors.drain()
        raise OSError("not that way")

    os.set_blocking(errors.fd, False)
    with open(os.devnull) as null:
        exchange = Exchange(
            inbox, pair[0], UwsgiWire(65535), Outcome(), {9: lambda _: script}, errors, null.fileno(), 60.0, start
        )
        pair[1].sendall(encode_packet([(b"REQUEST_METHOD", b"GET")], modifier1=9))
        over = exchange.start(monotonic())
        while not over:
            over = exchange.handle(inbox.get().message, monotonic())
    errors.close()
    assert said == ["/x: mine"]


def test_a_timer_is_set_anew_when_patience_becomes_less(inbox: EpollInbox) -> None:
    time = Deadlines(inbox, "look", 60.0)
    now = monotonic()
    time.wait(60.0, now)
    time.moved(now, 0.01)
    assert inbox.get().message == "look"
    assert time.silent(monotonic())
