"""RFC 3875 section by section, as far as it can be told without a process.

The table in docs/cgi.md names these tests, those of whole exchanges, and what they are about.
"""

import re
from pathlib import Path

import pytest

from pyemperor.protocol.cgi import (
    base_environment,
    match_mount,
    request_path,
    script_candidates,
    script_environment,
    search_words,
)
from pyemperor.protocol.cgi_response import HeadParser, Kind, ResponseHead, encode_head
from pyemperor.protocol.errors import RequestError, ScriptError
from pyemperor.protocol.redirects import redirected
from pyemperor.protocol.response import Response
from pyemperor.protocol.variables import merge_vars

# What nginx 1.22.1 sends for `POST /cgi-bin/x.cgi/a/b?q=1` with its own uwsgi_params.
NGINX = [
    (b"QUERY_STRING", b"q=1"),
    (b"REQUEST_METHOD", b"POST"),
    (b"CONTENT_TYPE", b"text/plain"),
    (b"CONTENT_LENGTH", b"5"),
    (b"REQUEST_URI", b"/cgi-bin/x.cgi/a%2Fb?q=1"),
    (b"PATH_INFO", b"/cgi-bin/x.cgi/a/b"),
    (b"DOCUMENT_ROOT", b"/usr/share/nginx/html"),
    (b"SERVER_PROTOCOL", b"HTTP/1.1"),
    (b"REQUEST_SCHEME", b"http"),
    (b"REMOTE_ADDR", b"192.0.2.7"),
    (b"REMOTE_PORT", b"40112"),
    (b"SERVER_PORT", b"80"),
    (b"SERVER_NAME", b"example.org"),
    (b"HTTP_HOST", b"example.org"),
    (b"HTTP_CONTENT_TYPE", b"text/plain"),
    (b"HTTP_CONTENT_LENGTH", b"5"),
    (b"HTTP_ACCEPT", b"*/*"),
]


def environment(
    *more: tuple[bytes, bytes], configured: dict[str, str] | None = None, pass_auth: bool = False
) -> dict[bytes, bytes]:
    """Go the way of a request: merge, match, split, where /cgi-bin is a mount and x.cgi a file in it."""
    variables = merge_vars([*NGINX, *more])
    path = request_path(variables)
    mount = match_mount(path, [b"/cgi-bin", b""])
    assert mount == b"/cgi-bin"
    rest = path[len(mount) :]
    script, path_info = next(split for split in script_candidates(rest) if split[0] == b"/x.cgi")
    return script_environment(
        variables,
        base_environment(configured or {}, server_software="PyEmperor/0.1"),
        script_name=mount + script,
        path_info=path_info,
        script_filename=b"/usr/lib/cgi-bin" + script,
        document_root=b"/usr/lib/cgi-bin",
        pass_auth=pass_auth,
    )


def read(output: bytes) -> ResponseHead:
    head = HeadParser().feed(output)
    assert head is not None
    return head


# ---- §4.1 meta-variables ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(b"CONTENT_LENGTH", b"5", id="4.1.2"),
        pytest.param(b"CONTENT_TYPE", b"text/plain", id="4.1.3"),
        pytest.param(b"GATEWAY_INTERFACE", b"CGI/1.1", id="4.1.4"),
        pytest.param(b"PATH_INFO", b"/a/b", id="4.1.5"),
        pytest.param(b"PATH_TRANSLATED", b"/usr/share/nginx/html/a/b", id="4.1.6"),
        pytest.param(b"QUERY_STRING", b"q=1", id="4.1.7"),
        pytest.param(b"REMOTE_ADDR", b"192.0.2.7", id="4.1.8"),
        pytest.param(b"REMOTE_HOST", b"192.0.2.7", id="4.1.9"),
        pytest.param(b"REQUEST_METHOD", b"POST", id="4.1.12"),
        pytest.param(b"SCRIPT_NAME", b"/cgi-bin/x.cgi", id="4.1.13"),
        pytest.param(b"SERVER_NAME", b"example.org", id="4.1.14"),
        pytest.param(b"SERVER_PORT", b"80", id="4.1.15"),
        pytest.param(b"SERVER_PROTOCOL", b"HTTP/1.1", id="4.1.16"),
        pytest.param(b"SERVER_SOFTWARE", b"PyEmperor/0.1", id="4.1.17"),
        pytest.param(b"HTTP_ACCEPT", b"*/*", id="4.1.18"),
    ],
)
def test_meta_variables_behind_nginx(name: bytes, value: bytes) -> None:
    """RFC 3875 §4.1.2 to §4.1.18: each meta-variable for a request as nginx's own uwsgi_params sends it."""
    assert environment()[name] == value


def test_auth_type_and_remote_user() -> None:
    """RFC 3875 §4.1.1, §4.1.11: REMOTE_USER needs its AUTH_TYPE, which nginx has no variable for."""
    env = environment((b"REMOTE_USER", b"u"), (b"HTTP_AUTHORIZATION", b"Basic dTpw"))
    assert (env[b"REMOTE_USER"], env[b"AUTH_TYPE"]) == (b"u", b"Basic")


def test_auth_type_of_other_schemes() -> None:
    """RFC 3875 §4.1.1: AUTH_TYPE is the auth-scheme of the credentials; extensions are tokens as they are."""
    env = environment((b"REMOTE_USER", b"u"), (b"HTTP_AUTHORIZATION", b"Negotiate YII="))
    assert env[b"AUTH_TYPE"] == b"Negotiate"


def test_no_body_no_length() -> None:
    """RFC 3875 §4.1.2: CONTENT_LENGTH is there if and only if a body is."""
    env = environment((b"REQUEST_METHOD", b"GET"), (b"CONTENT_LENGTH", b""), (b"HTTP_CONTENT_LENGTH", b""))
    assert b"CONTENT_LENGTH" not in env


def test_remote_addr_is_always_there() -> None:
    """RFC 3875 §4.1.8: MUST be set; where nobody knows it, to an address that nobody trusts."""
    env = environment((b"REMOTE_ADDR", b""))
    assert env[b"REMOTE_ADDR"] == env[b"REMOTE_HOST"] == b"0.0.0.0"


def test_what_the_web_server_knows_about_the_client_passes() -> None:
    """RFC 3875 §4.1.9, §4.1.10: a web server that looks up names or idents says so."""
    env = environment((b"REMOTE_HOST", b"client.example.org"), (b"REMOTE_IDENT", b"me"))
    assert (env[b"REMOTE_HOST"], env[b"REMOTE_IDENT"]) == (b"client.example.org", b"me")


@pytest.mark.parametrize("name", [b"_", b"*.example.org", b"~^www", b"www.*", b""])
def test_server_name_is_a_name(name: bytes) -> None:
    """RFC 3875 §4.1.14: a hostname or address; nginx sends the first word of its server_name, whatever it is."""
    assert environment((b"SERVER_NAME", name))[b"SERVER_NAME"] == b"example.org"


def test_empty_is_unset() -> None:
    """RFC 3875 §4.1: no difference between empty and missing; nginx sends CONTENT_LENGTH="" with a GET."""
    env = environment((b"CONTENT_LENGTH", b""), (b"CONTENT_TYPE", b""), (b"SERVER_NAME", b""))
    assert not env.keys() & {b"CONTENT_LENGTH", b"CONTENT_TYPE"}
    assert env[b"SERVER_NAME"] == b"example.org"


def test_query_string_is_always_there() -> None:
    """RFC 3875 §4.1.7: QUERY_STRING MUST be set, to "" without a query; it is not decoded."""
    assert environment((b"QUERY_STRING", b""))[b"QUERY_STRING"] == b""
    assert environment((b"QUERY_STRING", b"a=%2F+"))[b"QUERY_STRING"] == b"a=%2F+"


@pytest.mark.parametrize(("path", "info"), [(b"/cgi-bin/x.cgi/", b"/"), (b"/cgi-bin/x.cgi", None)])
def test_a_lone_slash_is_path_info(path: bytes, info: bytes | None) -> None:
    """RFC 3875 §4.1.5, §4.1.6: uWSGI loses a PATH_INFO of "/"; without one, PATH_TRANSLATED is unset too."""
    env = environment((b"PATH_INFO", path))
    assert env.get(b"PATH_INFO") == info
    assert (b"PATH_TRANSLATED" in env) == (info is not None)
    assert env[b"SCRIPT_NAME"] == b"/cgi-bin/x.cgi"


def test_repeated_header_fields_are_joined() -> None:
    """RFC 3875 §4.1.18: MUST be one value; uWSGI and fcgiwrap keep the last and lose cookies."""
    env = environment(
        (b"HTTP_COOKIE", b"a=1"), (b"HTTP_COOKIE", b"b=2"), (b"HTTP_ACCEPT", b"x/y"), (b"HTTP_ACCEPT", b"z/z")
    )
    assert env[b"HTTP_COOKIE"] == b"a=1; b=2"
    assert env[b"HTTP_ACCEPT"] == b"*/*, x/y, z/z"


def test_credentials_and_known_fields_are_withheld() -> None:
    """RFC 3875 §4.1.18, §9.2: no credentials, nothing twice, nothing of the connection."""
    sent = [
        b"HTTP_AUTHORIZATION",
        b"HTTP_PROXY_AUTHORIZATION",
        b"HTTP_CONNECTION",
        b"HTTP_TRANSFER_ENCODING",
        b"HTTP_KEEP_ALIVE",
        b"HTTP_TE",
        b"HTTP_TRAILER",
        b"HTTP_UPGRADE",
    ]
    env = environment(*((name, b"x") for name in sent))
    assert not env.keys() & {*sent, b"HTTP_CONTENT_TYPE", b"HTTP_CONTENT_LENGTH"}


def test_credentials_where_the_vassal_wants_them() -> None:
    """RFC 3875 §9.2 as Apache's CGIPassAuth reads it: a script that authenticates by itself gets them."""
    env = environment((b"HTTP_AUTHORIZATION", b"Bearer t"), pass_auth=True)
    assert env[b"HTTP_AUTHORIZATION"] == b"Bearer t"


# ---- §4.4 the command line ----------------------------------------------------------------------------


def words(query: bytes, method: bytes = b"GET") -> tuple[bytes, ...]:
    return search_words(merge_vars([*NGINX, (b"REQUEST_METHOD", method), (b"QUERY_STRING", query)]))


def test_search_words_become_arguments() -> None:
    """RFC 3875 §4.4: a query without an unencoded "=", divided at "+", each word decoded; for GET and HEAD."""
    assert words(b"red+%3Dgreen%20") == words(b"red+%3Dgreen%20", b"HEAD") == (b"red", b"=green ")
    assert words(b"red+green", b"POST") == words(b"red+a=b") == ()


def test_search_words_are_escaped_for_a_shell() -> None:
    """RFC 3875 §7.2: characters that are active in the Bourne shell have a backslash before them."""
    assert words(b"a;$(id)") == (rb"a\;\$\(id\)",)


def test_all_search_words_or_none() -> None:
    """RFC 3875 §4.4: MUST NOT generate any command line if a part cannot be created. CVE-2012-1823: ?-s."""
    assert words(b"fine+%00") == words(b"fine+%zz") == words(b"-s") == words(b"+".join([b"w"] * 300)) == ()


# ---- §4.2, §8, §9: what a request cannot do -----------------------------------------------------------


def test_httpoxy() -> None:
    """CVE-2016-5385 to -5388: a `Proxy` header field must not become the variable HTTP_PROXY."""
    env = environment((b"HTTP_PROXY", b"http://evil/"), (b"http_proxy", b"http://evil/"))
    assert not env.keys() & {b"HTTP_PROXY", b"http_proxy"}


@pytest.mark.parametrize(
    "name",
    [
        *("LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV", "ENV", "PATH", "PYTHONPATH", "PERL5LIB", "IFS"),
        *("HOME", "BASH_FUNC_x%%", "UWSGI_FILE", "HTTP_X=Y", "HTTP_x", "HTTP_X Y"),
        *("REDIRECT_STATUS", "SCRIPT_FILENAME", "SCRIPT_NAME", "SERVER_SOFTWARE"),
    ],
)
def test_no_other_variable_gets_in(name: str) -> None:
    """RFC 3875 §9: uWSGI passes LD_PRELOAD and BASH_ENV from the socket; here only listed names pass."""
    assert b"evil" not in environment((name.encode(), b"evil")).values()


def test_configuration_does_not_replace_what_the_request_says() -> None:
    """CVE-2025-65082: Apache let configured variables supersede those that it computes for CGI."""
    names = ["SCRIPT_NAME", "SCRIPT_FILENAME", "PATH_INFO", "PATH_TRANSLATED", "QUERY_STRING", "REMOTE_ADDR"]
    names += ["REQUEST_METHOD", "CONTENT_LENGTH", "GATEWAY_INTERFACE", "SERVER_SOFTWARE", "SERVER_PROTOCOL"]
    configured = dict.fromkeys(names, "evil")
    assert environment(configured=configured) == environment()
    without_body = (b"CONTENT_LENGTH", b"")
    assert environment(without_body, configured=configured) == environment(without_body)


def test_smuggling() -> None:
    """CVE-2023-27522 and kin: two lengths that differ are two ideas of where the request ends."""
    with pytest.raises(RequestError, match="CONTENT_LENGTH is 6"):
        merge_vars([*NGINX, (b"CONTENT_LENGTH", b"6")])


def test_nul_does_not_cut_a_path() -> None:
    """RFC 3875 §7.2: NUL cannot be in a variable; uWSGI runs lf.cgi for `lf.cgi%00.txt`."""
    with pytest.raises(RequestError, match="NUL"):
        merge_vars([*NGINX, (b"PATH_INFO", b"/cgi-bin/lf.cgi\0.txt")])


def test_mounts_end_at_a_segment() -> None:
    """RFC 3875 §8.1: uWSGI's mount /cgi-bin also serves /cgi-binX/env.cgi."""
    assert match_mount(b"/cgi-binX/env.cgi", [b"/cgi-bin"]) is None


@pytest.mark.parametrize("path", [b"/cgi-bin/../../bin/sh", b"/cgi-bin/./x.cgi", b"/cgi-bin/x.cgi/.."])
def test_traversal(path: bytes) -> None:
    """RFC 3875 §8.1, CVE-2021-41773: a dot segment that the web server left in is refused."""
    with pytest.raises(RequestError, match="segment"):
        request_path({b"PATH_INFO": path})


# ---- §5 and §6: the response ------------------------------------------------------------------------


def test_nph() -> None:
    """RFC 3875 §5: a script may make its whole response; it is known by its status line, not by its name."""
    head = read(b"HTTP/1.1 203 Fine\r\nContent-Type: text/plain\r\n\r\n")
    assert encode_head(head, b"HTTP/1.1") == b"HTTP/1.1 203 Fine\r\nContent-Type: text/plain\r\n\r\n"


def test_nph_by_name() -> None:
    """RFC 3875 §5: by convention its name begins with nph-; what it says is checked like anybody's."""
    response = Response(b"GET", b"HTTP/1.1", nph=True)
    sent = response.feed(b"HTTP/1.0 203 Fine\nContent-Type: text/plain\nConnection: close\n\nbody")
    assert sent == b"HTTP/1.1 203 Fine\r\nContent-Type: text/plain\r\n\r\nbody"
    with pytest.raises(ScriptError, match="status line"):
        Response(b"GET", b"HTTP/1.1", nph=True).feed(b"HTTP/1.0 abc\n\n")


def test_head_has_no_body() -> None:
    """RFC 3875 §4.3.3: the server MUST discard the content that a script sends to a HEAD."""
    response = Response(b"HEAD", b"HTTP/1.1")
    sent = response.feed(b"Content-Type: text/plain\nContent-Length: 4\n\nbody")
    assert sent == b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n"


def test_document_response() -> None:
    """RFC 3875 §6.2.1: a document has a Content-Type and is a 200 without a Status."""
    head = read(b"Content-Type: text/html\n\n")
    assert (head.kind, head.status) == (Kind.DOCUMENT, 200)


def test_local_redirect_response() -> None:
    """RFC 3875 §6.2.2: a Location that is a path, and no other header field."""
    head = read(b"Location: /other?x\n\n")
    assert (head.kind, head.location) == (Kind.LOCAL_REDIRECT, b"/other?x")
    assert read(b"Location: /other#part\n\n").kind is Kind.CLIENT_REDIRECT


def test_local_redirect_is_another_request() -> None:
    """RFC 3875 §6.2.2: the response MUST be that to a request for the path; a GET, since the body is used up."""
    variables = redirected(merge_vars(NGINX), b"/cgi-bin/x.cgi/c%20d?x")
    assert request_path(variables) == b"/cgi-bin/x.cgi/c d"
    assert (variables[b"REQUEST_METHOD"], variables[b"QUERY_STRING"]) == (b"GET", b"x")
    assert not variables.keys() & {b"CONTENT_LENGTH", b"CONTENT_TYPE"}


def test_local_redirects_do_not_go_in_circles() -> None:
    """RFC 3875 §6.2.2 sets no limit; Apache follows ten."""
    with pytest.raises(ScriptError, match="circles"):
        redirected(merge_vars(NGINX), b"/cgi-bin/x.cgi", hops=10)


def test_local_redirect_left_to_nginx() -> None:
    """RFC 3875 §6.2.2 by X-Accel-Redirect: nginx 1.22.1 serves the path in place of this response."""
    raw = Response(b"GET", b"HTTP/1.1", accel=True).feed(b"Location: /other?x\n\n")
    assert b"\r\nX-Accel-Redirect: /other?x\r\n" in raw


def test_client_redirect_response() -> None:
    """RFC 3875 §6.2.3: an absolute Location alone is a 302."""
    head = read(b"Location: http://example.org/\r\n\r\n")
    assert head.kind is Kind.CLIENT_REDIRECT
    assert encode_head(head, b"HTTP/1.0") == b"HTTP/1.0 302 Found\r\nLocation: http://example.org/\r\n\r\n"


def test_client_redirect_response_with_document() -> None:
    """RFC 3875 §6.2.4: Location, Status and Content-Type, in any order (uWSGI lets Location win)."""
    head = read(b"Location: http://example.org/\nStatus: 303 See Other\nContent-Type: text/html\n\n")
    assert (head.kind, head.status, head.reason) == (Kind.CLIENT_REDIRECT_DOCUMENT, 303, b"See Other")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("name", [b"Content-Type", b"content-type", b"CONTENT-TYPE"])
@pytest.mark.parametrize("space", [b"", b" ", b" \t"])
def test_header_lines(name: bytes, space: bytes, end: bytes) -> None:
    """RFC 3875 §6.3: CRLF or LF, names in any case, space after the colon optional (uWSGI wants one)."""
    head = read(name + b":" + space + b"text/plain" + end + b"\r\n")
    assert head.headers == ((name, b"text/plain"),)


def test_no_space_before_the_colon() -> None:
    """RFC 3875 §6.3: white space is not permitted between the name and the colon."""
    with pytest.raises(ScriptError, match="b' ' in its name"):
        read(b"Content-Type : text/plain\n\n")


def test_a_content_type_is_never_invented() -> None:
    """RFC 3875 §6.3.1: a script that sends a body says what it is; the server SHOULD NOT guess."""
    assert Response(b"GET", b"HTTP/1.1").feed(b"Status: 200 OK\n\n<html>") == b"HTTP/1.1 200 OK\r\n\r\n<html>"


def test_cgi_fields_are_not_repeated() -> None:
    """RFC 3875 §6.3: a CGI field MUST NOT occur twice; the first counts."""
    head = read(b"Status: 404 a\nStatus: 500 b\nContent-Type: a/b\nContent-Type: c/d\n\n")
    assert (head.status, head.headers) == (404, ((b"Content-Type", b"a/b"),))
    assert len(head.notes) == 2


def test_status_is_three_digits_and_does_not_leak() -> None:
    """RFC 3875 §6.3.3: nginx passes a Status field of its upstream on to the client, so it must be gone."""
    raw = encode_head(read(b"Status:404 Nope\nA: b\n\n"), b"HTTP/1.1")
    assert raw == b"HTTP/1.1 404 Nope\r\nA: b\r\n\r\n"
    with pytest.raises(ScriptError, match="Status: abc"):
        read(b"Status: abc\n\n")


@pytest.mark.parametrize(("status", "length"), [(204, None), (205, b"0"), (304, b"4"), (200, b"4")])
def test_a_length_where_there_can_be_one(status: int, length: bytes | None) -> None:
    """RFC 3875 §6.3.4, RFC 9110 §8.6, §15.3.6: conflicting header fields are resolved."""
    headers = dict(read(b"Status: %d x\nContent-Length: 4\n\n" % status).headers)
    assert headers.get(b"Content-Length") == length


def test_connection_fields_are_dropped() -> None:
    """RFC 3875 §6.3.4: header fields about the connection to the client are the server's."""
    head = read(b"Connection: close\nKeep-Alive: 5\nUpgrade: h2c\nProxy-Connection: x\nTE: x\nA: b\n\n")
    assert head.headers == ((b"A", b"b"),)


def test_a_transfer_coding_is_refused() -> None:
    """RFC 3875 §6.3.4: uWSGI, fcgiwrap and Apache hand chunk sizes to the client as if they were the body."""
    with pytest.raises(ScriptError, match="Transfer-Encoding: chunked"):
        read(b"Content-Type: text/plain\nTransfer-Encoding: chunked\n\n5\r\nhello\r\n0\r\n\r\n")


def test_extension_fields_are_dropped() -> None:
    """RFC 3875 §6.3.5: X-CGI-* is for the server and MAY be dropped."""
    assert read(b"X-CGI-Debug: 1\nX-Other: 2\n\n").headers == ((b"X-Other", b"2"),)


def test_a_response_cannot_be_split() -> None:
    """RFC 9112 §11.1: a CR in a value ends a line for some readers."""
    with pytest.raises(ScriptError, match="control character 0x0d"):
        read(b"X: a\rSet-Cookie: admin=1\n\n")


def test_obsolete_folding_is_undone() -> None:
    """RFC 9112 §5.2: nginx answers a folded header with 502; it leaves here as one line."""
    raw = encode_head(read(b"Content-Type: text/html;\n charset=utf-8\n\n"), b"HTTP/1.1")
    assert raw == b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"


def test_interim_responses_are_passed_over() -> None:
    """RFC 9110 §15.2: 103 and then 200 breaks uWSGI, fcgiwrap and Apache; nginx shows a 100 as final."""
    parser = HeadParser()
    interim = b"Status: 103 Early Hints\nLink: </a>\n\nHTTP/1.1 100 Continue\r\n\r\n"
    head = parser.feed(interim + b"Status: 200\n\nbody")
    assert head is not None
    assert (head.status, head.headers, parser.leftover) == (200, (), b"body")


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (b"", "without sending a response"),
        (b"Content-Type: text/plain\n", "before the blank line"),
        (b"Segmentation fault\n", "line 1 .* no colon"),
    ],
)
def test_what_ends_too_early_is_answered_in_words(output: bytes, words: str) -> None:
    """RFC 3875 §6.1: a response MUST be sent; uWSGI closes in silence and nginx shows a bare 502."""
    parser = HeadParser()
    assert parser.feed(output) is None
    with pytest.raises(ScriptError, match=words) as caught:
        parser.close()
    assert caught.value.status == 502


def test_the_checklist_names_tests_that_there_are() -> None:
    """docs/cgi.md: every row of the checklist has its test."""
    page = (Path(__file__).parents[2] / "docs" / "cgi.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [0-9][0-9., ]* \|.*\| `(\w+)` \|$", page, re.MULTILINE)
    code = "".join(file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in rows if f"def {name}(" not in code] == []
    assert len(rows) == len(re.findall(r"^\| [0-9]", page, re.MULTILINE)) > 40
