"""Local redirects: the request that takes the place of another."""

import pytest

from pyemperor.protocol.cgi import base_environment, request_path, script_environment
from pyemperor.protocol.errors import ScriptError
from pyemperor.protocol.redirects import MAX_REDIRECTS, redirected
from pyemperor.protocol.variables import body_length, merge_vars

POST = merge_vars(
    [
        (b"REQUEST_METHOD", b"POST"),
        (b"QUERY_STRING", b"q=1"),
        (b"CONTENT_TYPE", b"text/plain"),
        (b"CONTENT_LENGTH", b"5"),
        (b"REQUEST_URI", b"/cgi-bin/old.cgi/x?q=1"),
        (b"PATH_INFO", b"/cgi-bin/old.cgi/x"),
        (b"SCRIPT_NAME", b"/cgi-bin/old.cgi"),
        (b"SCRIPT_FILENAME", b"/srv/old.cgi"),
        (b"DOCUMENT_ROOT", b"/srv"),
        (b"REMOTE_ADDR", b"192.0.2.7"),
        (b"HTTP_HOST", b"example.org"),
        (b"HTTP_COOKIE", b"a=1"),
        (b"HTTP_CONTENT_TYPE", b"text/plain"),
        (b"HTTP_CONTENT_LENGTH", b"5"),
        (b"HTTP_CONTENT_ENCODING", b"gzip"),
        (b"HTTP_TRANSFER_ENCODING", b"chunked"),
        (b"HTTP_EXPECT", b"100-continue"),
    ]
)


def test_a_post_becomes_a_get_without_a_body() -> None:
    variables = redirected(POST, b"/cgi-bin/new.cgi/a%20b?x=%31")
    assert variables == {
        b"REQUEST_METHOD": b"GET",
        b"QUERY_STRING": b"x=%31",
        b"REQUEST_URI": b"/cgi-bin/new.cgi/a%20b?x=%31",
        b"DOCUMENT_URI": b"/cgi-bin/new.cgi/a b",
        b"PATH_INFO": b"/cgi-bin/new.cgi/a b",
        b"DOCUMENT_ROOT": b"/srv",
        b"REMOTE_ADDR": b"192.0.2.7",
        b"HTTP_HOST": b"example.org",
        b"HTTP_COOKIE": b"a=1",
        b"REDIRECT_URL": b"/cgi-bin/old.cgi/x",
        b"REDIRECT_QUERY_STRING": b"q=1",
        b"REDIRECT_REQUEST_METHOD": b"POST",
    }
    assert body_length(variables) == 0
    assert b"PATH_INFO" in POST


def test_a_head_stays_one() -> None:
    assert redirected({b"REQUEST_METHOD": b"HEAD", b"PATH_INFO": b"/a"}, b"/b")[b"REQUEST_METHOD"] == b"HEAD"


def test_no_query_is_none_and_not_the_old_one() -> None:
    once = redirected(POST, b"/b?")
    assert b"QUERY_STRING" not in once
    twice = redirected(once, b"/c")
    assert b"REDIRECT_QUERY_STRING" not in twice
    assert twice[b"REDIRECT_URL"] == b"/b"


def test_the_script_hears_where_the_request_comes_from() -> None:
    environment = script_environment(
        redirected(POST, b"/cgi-bin/new.cgi"),
        base_environment({}, server_software="PyEmperor/1"),
        script_name=b"/cgi-bin/new.cgi",
        path_info=b"",
        script_filename=b"/srv/new.cgi",
        document_root=b"/srv",
    )
    assert {name: value for name, value in environment.items() if name.startswith(b"REDIRECT_")} == {
        b"REDIRECT_STATUS": b"200",
        b"REDIRECT_URL": b"/cgi-bin/old.cgi/x",
        b"REDIRECT_QUERY_STRING": b"q=1",
        b"REDIRECT_REQUEST_METHOD": b"POST",
    }


@pytest.mark.parametrize(
    ("location", "path"),
    [(b"/a/../../b", b"/b"), (b"/a/%2e%2e/b", b"/b"), (b"/a//./b/", b"/a/b/"), (b"/%2F", b"/")],
)
def test_no_path_leaves_the_site(location: bytes, path: bytes) -> None:
    variables = redirected(POST, location)
    assert request_path(variables) == path
    assert variables[b"REQUEST_URI"] == location


@pytest.mark.parametrize("location", [b"/a%00b", b"?x", b"", b"http://h/"])
def test_what_is_no_path(location: bytes) -> None:
    with pytest.raises(ScriptError, match="no path") as caught:
        redirected(POST, location)
    assert caught.value.status == 502


def test_circles_end() -> None:
    variables = POST
    for hops in range(MAX_REDIRECTS):
        variables = redirected(variables, b"/round", hops=hops)
    with pytest.raises(ScriptError, match="10 local redirects") as caught:
        redirected(variables, b"/round", hops=MAX_REDIRECTS)
    assert caught.value.status == 500
    assert "/round" in caught.value.remedy
