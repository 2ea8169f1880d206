"""The clients of loads, against servers that behave and servers that do not, over real sockets."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pykka
import pytest

from pyemperor.actors.actor import Actor, Threads
from pyemperor.cli.load import Client, Door, Finished, Nudge
from pyemperor.cli.traffic import Turn
from pyemperor.protocol.load import Load
from pyemperor.protocol.options import Vassal
from pyemperor.protocol.scenario import Front
from pyemperor.protocol.uwsgi import PacketParser
from pyemperor.protocol.values import Address

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
TURN = Turn("load-1", 0.0, 0)


class Asker(Actor):
    """Sends one request and tells its future how that ended."""

    def __init__(self, door: Door, load: Load, ended: "pykka.ThreadingFuture[Any]") -> None:
        super().__init__(Threads())
        self._door, self._load, self._result = door, load, ended

    def on_start(self) -> None:
        now = self.system.now()
        client = Client(self.actor_inbox, self._door, TURN, self._load, now)
        self._move(client.connect(), now)

    def handle(self, message: Any, now: float) -> None:
        match message:
            case Finished(client=client, status=status):
                self._result.set((status, now - client.began))
                self.stop()
            case Nudge(client=client):
                self._move(client.nudge(now), now)

    def _move(self, messages: Any, now: float) -> None:
        for message in messages:
            self.handle(message, now)


def ask(door: Door, **load: Any) -> tuple[str, float]:
    """Status and seconds of one request."""
    ended: pykka.ThreadingFuture[Any] = pykka.ThreadingFuture()
    Asker.start(door, Load("load-1", "burst", "app", **{"timeout": 10.0} | load), ended)
    result: tuple[str, float] = ended.get(timeout=20)
    return result


@contextmanager
def server(tmp_path: Path, serve: Callable[[socket.socket], None]) -> Iterator[Door]:
    """A server for one connection at a unix socket; ``serve`` gets the connection."""
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(10)

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        yield Door(Address("unix", path=path), uwsgi=False)
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (OK, "200"),
        (b"HTTP/1.0 404 Not Found\r\n\r\nup to the end of the connection", "404"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "200"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, "200"),
        (b"", "0"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "0"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", "0"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "0"),
        (b"what do you want?\r\n\r\n", "0"),
    ],
)
def test_only_a_whole_answer_counts(tmp_path: Path, answer: bytes, status: str) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    with server(tmp_path, serve) as door:
        assert ask(door)[0] == status


def test_the_request_over_http(tmp_path: Path) -> None:
    got: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        got.append(connection.recv(65536))
        connection.sendall(OK)

    with server(tmp_path, serve) as door:
        assert ask(door, method="POST", path="/form?x=1", body="name=a")[0] == "200"
    head, _, body = got[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /form?x=1 HTTP/1.1\r\n")
    assert b"\r\nContent-Length: 6" in head
    assert b"\r\nConnection: close" in head
    assert body == b"name=a"


def test_the_request_over_uwsgi(tmp_path: Path) -> None:
    got: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        got.append(connection.recv(65536))
        connection.sendall(OK)

    with server(tmp_path, serve) as door:
        assert ask(Door(door.address, uwsgi=True), method="POST", path="/form?x=1", body="name=a")[0] == "200"
    parser = PacketParser()
    packet = parser.feed(got[0])
    assert packet is not None
    assert packet.modifier1 == 9
    variables = dict(packet.vars)
    assert variables[b"REQUEST_METHOD"] == b"POST"
    assert variables[b"REQUEST_URI"] == b"/form?x=1"
    assert variables[b"PATH_INFO"] == b"/form"
    assert variables[b"QUERY_STRING"] == b"x=1"
    assert variables[b"CONTENT_LENGTH"] == b"6"
    assert parser.leftover == b"name=a"


def test_a_large_body_while_the_server_does_not_read_at_once(tmp_path: Path) -> None:
    body = "x" * 3_000_000
    sizes: list[int] = []

    def serve(connection: socket.socket) -> None:
        size = 0
        while size < len(body):
            size += len(connection.recv(1 << 16))
        sizes.append(size)
        connection.sendall(OK)

    with server(tmp_path, serve) as door:
        assert ask(door, method="POST", body=body)[0] == "200"
    assert sizes[0] >= len(body)


def test_an_answer_before_the_end_of_the_body_is_read(tmp_path: Path) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    with server(tmp_path, serve) as door:
        assert ask(door, method="POST", body="x" * 3_000_000)[0] == "413"


def test_silence_ends_with_the_timeout(tmp_path: Path) -> None:
    def serve(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass  # until the client hangs up

    with server(tmp_path, serve) as door:
        status, seconds = ask(door, timeout=0.2)
    assert status == "0"
    assert 0.2 <= seconds < 5


def test_nobody_listens(tmp_path: Path) -> None:
    assert ask(Door(Address("unix", path=str(tmp_path / "none")), uwsgi=False))[0] == "0"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = Address("tcp", host="127.0.0.1", port=unused.getsockname()[1])
        assert ask(Door(address, uwsgi=False))[0] == "0"


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)  # fills the queue: one more than its length (unix(7))
        door = Door(Address("unix", path=path), uwsgi=False)
        ended: pykka.ThreadingFuture[Any] = pykka.ThreadingFuture()
        Asker.start(door, Load("load-1", "burst", "app", timeout=10.0), ended)
        with pytest.raises(pykka.Timeout):
            ended.get(timeout=0.1)
        listener.settimeout(10)
        begun = time.monotonic()
        listener.accept()[0].close()
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(OK)
        assert ended.get(timeout=10)[0] == "200"
        assert time.monotonic() - begun < 5


UNIX, HTTP = Address("unix", path="/app.sock"), Address("tcp", host="", port=8080)


@pytest.mark.parametrize(
    ("vassal", "front", "door"),
    [
        (Vassal("app", socket=(UNIX,)), Front(), Door(UNIX, uwsgi=True)),
        (Vassal("app", socket=(UNIX,), http_socket=(HTTP,)), Front(), Door(HTTP, uwsgi=False)),
        (Vassal("app", socket=(UNIX,), http_socket=(HTTP,)), Front("nginx"),
         Door(Address("tcp", host="127.0.0.1", port=8088), uwsgi=False)),
    ],
)
def test_where_requests_go_in(vassal: Vassal, front: Front, door: Door) -> None:
    assert Door.of(vassal, front) == door
