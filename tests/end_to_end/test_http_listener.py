"""The HTTP listener: what HTTP clients do, right and wrong, straight to `http-socket`."""

import hashlib
import http.client

import pytest

from tests.support import PATIENCE, PYTHON, Site, connect, http_request, read_to_end, variables

HELLO = "printf 'Content-Type: text/plain\\n\\nhello'"
ENV = "printf 'Content-Type: text/plain\\n\\n'; exec env -0"
ECHO = PYTHON + """
import sys, hashlib
print("Content-Type: text/plain\\n")
print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest(), end="")
"""


def test_the_environment_of_an_http_request(site: Site) -> None:
    path = site.script("env.cgi", ENV)
    fields = {"Content-Type": "text/x", "X_Bad": "underscore", "X-Good": "yes", "Proxy": "evil", "Cookie": "a=1"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with connect(("127.0.0.1", site.server.port)) as sock:
        port = sock.getsockname()[1]
        sock.sendall(
            f"PUT {path}/a%20b%2Fc?q=%41 HTTP/1.1\r\nHost: h.example:81\r\n{head}Cookie: b=2\r\n"
            "Content-Length: 2\r\n\r\nhi".encode()
        )
        found = variables(read_to_end(sock))
    expected = {
        "CONTENT_LENGTH": "2",
        "CONTENT_TYPE": "text/x",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_HOST": "h.example:81",
        "HTTP_X_GOOD": "yes",
        "PATH_INFO": "/a b/c",
        "QUERY_STRING": "q=%41",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": str(port),
        "REQUEST_METHOD": "PUT",
        "REQUEST_SCHEME": "http",
        "REQUEST_URI": f"{path}/a%20b%2Fc?q=%41",
        "SCRIPT_NAME": path,
        "SERVER_NAME": "h.example",
        "SERVER_PORT": str(site.server.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    assert expected.items() <= found.items()
    assert not [name for name in found if "BAD" in name or "PROXY" in name or name.startswith("HTTP_CONTENT")]


@pytest.mark.parametrize(
    "path", ["/cgi-bin/../cgi-bin/./hello.cgi", "//cgi-bin//hello.cgi", "/cgi-bin/%68ello.cgi"]
)
def test_paths_are_normalised_as_a_web_server_does(site: Site, path: str) -> None:
    site.script("hello.cgi", HELLO)
    assert site.http(path).text == "hello"


@pytest.mark.parametrize(
    "path", ["/cgi-bin/../../../../bin/sh", "/cgi-bin/%2e%2e/%2e%2e/bin/sh", "/cgi-bin/..%2f..%2fsh"]
)
def test_no_path_leads_out_of_the_mount(site: Site, path: str) -> None:
    assert site.http(path).status == 404


@pytest.mark.parametrize("target", ["http://www.example.org/cgi-bin/there.cgi?q", "HTTP://a:80/cgi-bin/there.cgi?q"])
def test_a_target_in_absolute_form(site: Site, target: str) -> None:
    site.script("there.cgi", "printf 'Content-Type: text/plain\\n\\n%s' \"$QUERY_STRING\"")
    assert site.http(target).text == "q"


def test_expect_100_continue(site: Site) -> None:
    path = site.script("echo.cgi", ECHO)
    body = bytes(range(256)) * 12000
    with connect(("127.0.0.1", site.server.port)) as sock:
        sock.sendall(http_request(path, method="POST", Content_Length=str(len(body)), Expect="100-continue"))
        assert sock.recv(100) == b"HTTP/1.1 100 \r\n\r\n"
        sock.sendall(body)
        answer = read_to_end(sock)
    assert answer.text == hashlib.sha256(body).hexdigest()
    record = site.server.wait_for(event="request", uri=path, method="POST")
    assert record["rsize"] == len(answer.body)  # what went before the response is none of it


def test_no_100_for_a_request_that_is_refused(site: Site) -> None:
    with connect(("127.0.0.1", site.server.port)) as sock:
        sock.sendall(http_request("/cgi-bin/missing", method="POST", Content_Length="9", Expect="100-continue"))
        assert read_to_end(sock).line == b"HTTP/1.1 404 Not Found"


def test_a_real_client_library(site: Site) -> None:
    path = site.script("echo.cgi", ECHO)
    body = b"x" * 3_000_000
    for _ in range(3):
        client = http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=PATIENCE)
        client.request("POST", path, body=body)
        response = client.getresponse()
        assert response.headers["connection"] == "close"
        assert response.read().decode() == hashlib.sha256(body).hexdigest()
        client.close()


def test_every_response_says_that_the_connection_closes(site: Site) -> None:
    assert site.http(site.script("hello.cgi", HELLO)).headers["connection"] == "close"
    assert site.http("/cgi-bin/missing").headers["connection"] == "close"


def test_a_second_request_in_the_pipeline_does_not_spoil_the_first(site: Site) -> None:
    path = site.script("hello.cgi", HELLO)
    answer = site.http_bytes(http_request(path) * 2)
    assert (answer.text, answer.cut) == ("hello", False)


def test_the_response_to_an_old_client(site: Site) -> None:
    path = site.script("hello.cgi", HELLO)
    assert site.http_bytes(f"GET {path} HTTP/1.0\r\n\r\n".encode()).line == b"HTTP/1.0 200 OK"
    assert site.http_bytes(b"GET /cgi-bin/missing HTTP/1.0\r\n\r\n").line == b"HTTP/1.0 404 Not Found"


def test_head(site: Site) -> None:
    path = site.script("long.cgi", f"{HELLO}; exec head -c 1000000 /dev/zero")
    assert site.http(path, method="HEAD").body == b""
    answer = site.http("/cgi-bin/missing", method="HEAD")
    assert (answer.status, answer.body) == (404, b"")


@pytest.mark.parametrize("length", ["", "Content-Length: 5\r\n"])
def test_a_chunked_body_arrives_whole_and_with_its_length(site: Site, length: str) -> None:
    path = site.script("echo.cgi", ECHO)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{length}Transfer-Encoding: chunked\r\n\r\n"
    answer = site.http_bytes(head.encode() + b"5\r\nhello\r\n0\r\n\r\n")
    assert (answer.status, answer.cut) == (200, False)
    assert answer.text.strip() == hashlib.sha256(b"hello").hexdigest()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x09\x00\x00\x00", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX Y: z\r\n\r\n", 400),
        (b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70000 + b"\r\n\r\n", 431),
        (b"GET /" + b"y" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
def test_bad_requests_get_an_answer(site: Site, request_bytes: bytes, status: int) -> None:
    answer = site.http_bytes(request_bytes)
    assert (answer.status, answer.cut) == (status, False)
    assert len(answer.body) == int(answer.headers["content-length"])


def test_a_request_that_breaks_off(site: Site) -> None:
    seen = len(site.server.log)
    with connect(("127.0.0.1", site.server.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHo")
    site.server.wait_for(since=seen, event="request", problem="the connection ended inside the request")
