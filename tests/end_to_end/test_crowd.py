"""Far more clients than slots, all of them slow: each is answered, none is refused, and memory stays bounded."""

import resource
import selectors
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Site, connect, serving

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")

CLIENTS = 1000
BODY = 20_000
_FOUR_SLOTS = """
[front]
kind = "nginx"
listen = "127.0.0.1:${port}"
[[vassal]]
name = "crowd"
socket = "crowd.sock"
cgi = "/cgi-bin=cgi"
processes = 2
threads = 2
disable-logging = true
"""


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Site]:
    tmp_path.chmod(0o755)  # nginx's workers are another user
    (tmp_path / "cgi").mkdir()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(before[1], 4 * CLIENTS)), before[1]))
    with serving(tmp_path, _FOUR_SLOTS) as server:
        yield Site(server, tmp_path / "cgi", tmp_path / "crowd.sock")
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def private(pid: int) -> int:
    """Bytes of memory that this process shares with no other."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) * 1024


def test_a_thousand_slow_clients_of_four_slots(crowd: Site) -> None:
    """They send their request in two pieces, the second when all are connected, and read in small bites."""
    path = crowd.script("page.cgi", f"printf 'Content-Type: text/plain\\n\\n'; exec head -c {BODY} /dev/zero")
    head, rest = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode(), b"Connection: close\r\n\r\n"
    workers = crowd.server.workers("crowd")
    before = [private(pid) for pid in workers]
    selector = selectors.DefaultSelector()
    clients: dict[socket.socket, bytearray] = {}
    for _ in range(CLIENTS):
        sock = connect(("127.0.0.1", crowd.server.port))
        sock.sendall(head)
        clients[sock] = bytearray()
        selector.register(sock, selectors.EVENT_READ)
    for sock in clients:
        sock.sendall(rest)
    missing = len(clients)
    while missing:
        events = selector.select(30)
        assert events, f"{missing} of {CLIENTS} clients still wait"
        for key, _ in events:
            client = key.fileobj
            assert isinstance(client, socket.socket)
            data = client.recv(1000)
            clients[client] += data
            if not data:
                selector.unregister(client)
                client.close()
                missing -= 1
    selector.close()
    answers = [bytes(answer) for answer in clients.values()]
    assert {answer.split(b"\r\n", 1)[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
    assert all(answer.count(b"\0") == BODY for answer in answers)
    assert crowd.server.workers("crowd") == workers
    assert all(private(pid) - was < 2 << 20 for pid, was in zip(workers, before, strict=True))
    refused = [r for r in crowd.server.log if r["level"] == "NGINX" and "[warn]" not in r["message"]]
    assert refused == []
