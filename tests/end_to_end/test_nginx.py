"""Behind a real nginx: what its clients get, and what it has to say about us in its error log."""

import hashlib
import http.client
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyemperor.actors.linux import living_descendants
from tests.support import PATIENCE, PYTHON, Server, Site, connect, converse, gone, pids, serving

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")

_BEHIND = """
[front]
kind = "nginx"
listen = "127.0.0.1:${port}"
[[vassal]]
name = "site"
socket = "site.sock"
cgi = "/cgi-bin=cgi"
cgi-timeout = 1
threads = 2
"""
HELLO = "printf 'Content-Type: text/plain\\n\\nhello'"
ECHO = PYTHON + """
import os, sys, hashlib
print("Content-Type: text/plain\\n")
print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest(), os.environ["CONTENT_LENGTH"], end="")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)  # nginx's workers are another user
    (folder / "cgi").mkdir()
    with serving(folder, _BEHIND) as server:
        yield Site(server, folder / "cgi", folder / "site.sock")


@dataclass(frozen=True)
class Response:
    """What a client of nginx gets; ``broken``: it could see that something is missing."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    broken: bool


def fetch(site: Site, path: str, method: str = "GET", body: bytes | None = None, **fields: str) -> Response:
    client = http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=PATIENCE)
    try:
        client.request(method, path, body=body, headers={k.replace("_", "-"): v for k, v in fields.items()})
        response = client.getresponse()
        try:
            return Response(response.status, response.headers, response.read(), broken=False)
        except (http.client.IncompleteRead, ConnectionResetError):
            return Response(response.status, response.headers, b"", broken=True)
    finally:
        client.close()


def errors(server: Server, path: str) -> list[str]:
    """What nginx has to complain of about ``path``; that it buffers is no complaint."""
    said = [r["message"] for r in server.log if r["level"] == "NGINX" and f" {path} " in r["message"]]
    return [message for message in said if "[warn]" not in message]


# ---- what works -----------------------------------------------------------------------------------------


def test_a_page(site: Site) -> None:
    path = site.script("hello.cgi", HELLO)
    for _ in range(20):
        response = fetch(site, path)
        assert (response.status, response.body) == (200, b"hello")
    assert errors(site.server, path) == []


def test_what_stock_params_make_of_the_environment(site: Site) -> None:
    path = site.script("env.cgi", "printf 'Content-Type: text/plain\\n\\n'; exec env -0")
    response = fetch(site, f"{path}/a%20b/%2e%2e/c?x=%20", Cookie="a=1", Proxy="evil", Authorization="Basic eA==")
    found = dict(pair.split("=", 1) for pair in response.body.decode().split("\0") if pair)
    expected = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "HTTP_COOKIE": "a=1",
        "PATH_INFO": "/c",
        "QUERY_STRING": "x=%20",
        "REMOTE_ADDR": "127.0.0.1",
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": f"{path}/a%20b/%2e%2e/c?x=%20",
        "SCRIPT_FILENAME": str(site.folder / "env.cgi"),
        "SCRIPT_NAME": path,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(site.server.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    assert expected.items() <= found.items()
    assert not {"HTTP_PROXY", "HTTP_AUTHORIZATION", "HTTP_CONNECTION", "CONTENT_LENGTH"} & found.keys()


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload(site: Site, chunked: bool) -> None:
    path = site.script("echo.cgi", ECHO)
    body = os.urandom(3 << 20)
    client = http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=PATIENCE)
    if chunked:
        fields = {"Transfer-Encoding": "chunked"}
        client.request("POST", path, iter([body[:1000], body[1000:]]), fields, encode_chunked=True)
    else:
        client.request("POST", path, body)
    assert client.getresponse().read().decode().split() == [hashlib.sha256(body).hexdigest(), str(len(body))]
    client.close()
    assert errors(site.server, path) == []


def test_a_script_that_talks_before_it_has_read_its_input(site: Site) -> None:
    script = "printf 'Content-Type: text/plain\\n\\n'; head -c 300000 /dev/zero; exec sha256sum"
    path, body = site.script("talks.cgi", script), os.urandom(8 << 20)
    response = fetch(site, path, "POST", body)
    assert response.body == bytes(300_000) + f"{hashlib.sha256(body).hexdigest()}  -\n".encode()
    assert errors(site.server, path) == []


def test_a_download(site: Site) -> None:
    path = site.script("large.cgi", "printf 'Content-Type: application/x\\n\\n'; exec head -c 20000000 /dev/zero")
    response = fetch(site, path)
    assert (len(response.body), response.broken) == (20_000_000, False)


@pytest.mark.parametrize("size", [1, 100_000, 3 << 20])
def test_a_body_left_unread_does_not_cost_the_answer(site: Site, size: int) -> None:
    path = site.script(f"deaf{size}.cgi", HELLO)
    for _ in range(5):
        response = fetch(site, path, "POST", bytes(size))
        assert (response.status, response.body) == (200, b"hello")
        assert fetch(site, f"/cgi-bin/none{size}", "POST", bytes(size)).status == 404
    assert errors(site.server, path) == []
    assert errors(site.server, f"/cgi-bin/none{size}") == []


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("printf 'Status: 404 Nope\\nContent-Type: text/plain\\n\\nnope'", 404),
        ("printf 'Location: http://a.example/\\n\\n'", 302),
        ("printf 'Status: 204 No Content\\n\\nsurplus'", 204),
        ("printf 'Status: 304 Not Modified\\nETag: \"x\"\\n\\n'", 304),
        ("printf 'Content-Length: 2\\nContent-Type: text/plain\\n\\nabcd'", 200),
        ("exec sleep 60", 504),
        ("exit 0", 502),
        ("echo no header; echo; kill -9 $$", 502),
    ],
)
def test_statuses_arrive_and_nginx_has_nothing_to_say(site: Site, script: str, status: int) -> None:
    path = site.script(f"status{status}-{len(script)}.cgi", script)
    response = fetch(site, path)
    assert (response.status, response.broken) == (status, False)
    assert "status" not in response.headers
    assert errors(site.server, path) == []


def test_a_head_request(site: Site) -> None:
    path = site.script("head.cgi", f"{HELLO}; exec head -c 1000000 /dev/zero")
    assert (fetch(site, path, "HEAD").status, fetch(site, path, "HEAD").body) == (200, b"")
    assert errors(site.server, path) == []


# ---- what breaks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["kill -9 $$", "exec sleep 60"])
def test_a_response_that_breaks_off_does_not_pass_for_a_whole_one(site: Site, end: str) -> None:
    path = site.script(f"cut{len(end)}.cgi", f"{HELLO}; head -c 200000 /dev/zero; {end}")
    assert fetch(site, path).broken
    record = site.server.wait_for(level="NGINX", message=lambda text: f" {path} " in text)
    assert "reset by peer" in record["message"]


def test_a_client_that_leaves_nginx_ends_the_script(site: Site) -> None:
    path = site.script("alone.cgi", "sleep 60 & echo alone $$ $! >&2; wait")
    with connect(("127.0.0.1", site.server.port)) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        running = pids(site, "alone")
    assert all(gone(pid, 1) for pid in running)


def test_stopped_with_the_server(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "cgi").mkdir()
    with serving(tmp_path, _BEHIND) as server:
        Site(server, tmp_path / "cgi", tmp_path / "site.sock").script("hello.cgi", HELLO)
        request = b"GET /cgi-bin/hello.cgi HTTP/1.0\r\n\r\n"
        assert converse(connect(("127.0.0.1", server.port)), request).text == "hello"
    with pytest.raises(ConnectionRefusedError):
        connect(("127.0.0.1", server.port))


def test_killed_with_the_server(tmp_path: Path) -> None:
    """SIGKILL leaves no time to stop nginx; the port is free all the same."""
    tmp_path.chmod(0o755)
    (tmp_path / "cgi").mkdir()
    server = Server(tmp_path, _BEHIND)
    tree = living_descendants([server.emperor.pid])
    server.emperor.kill()
    server.emperor.wait(PATIENCE)
    server.running.remove(server.emperor.pid)
    assert all(gone(pid) for pid in tree)
    with pytest.raises(ConnectionRefusedError):
        connect(("127.0.0.1", server.port))
