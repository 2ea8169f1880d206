"""Request variables and the script's environment."""

import os

import pytest

from pyemperor.protocol.cgi import DEFAULT_PATH, _gate, base_environment, script_environment, search_words
from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.variables import body_length, merge_vars

GET = (b"REQUEST_METHOD", b"GET")


def environment(
    *pairs: tuple[bytes, bytes],
    configured: dict[str, str] | None = None,
    path_info: bytes = b"",
    pass_auth: bool = False,
    allowed: tuple[bytes, ...] = (),
    unset: tuple[bytes, ...] = (),
    request_id: bytes = b"",
) -> dict[bytes, bytes]:
    return script_environment(
        merge_vars([GET, *pairs]),
        base_environment(configured or {}, server_software="PyEmperor/1"),
        script_name=b"/cgi-bin/x",
        path_info=path_info,
        script_filename=b"/srv/cgi/x",
        document_root=b"/srv/cgi",
        pass_auth=pass_auth,
        allowed=allowed,
        unset=unset,
        request_id=request_id,
    )


# ---- merge_vars -------------------------------------------------------------------------------------


def test_variables_without_repetition_come_back_as_they_are() -> None:
    assert merge_vars([GET, (b"HTTP_X", b"\xe9")]) == {b"REQUEST_METHOD": b"GET", b"HTTP_X": b"\xe9"}


def test_repeated_fields_join_in_order_and_repeated_variables_do_not() -> None:
    merged = merge_vars(
        [
            (b"REQUEST_METHOD", b"GET"),
            (b"HTTP_X_FORWARDED_FOR", b"1.2.3.4"),
            (b"HTTP_COOKIE", b"a=1"),
            (b"REQUEST_METHOD", b"POST"),
            (b"HTTP_X_FORWARDED_FOR", b"5.6.7.8"),
            (b"HTTP_COOKIE", b"b=2"),
            (b"HTTP_COOKIE", b"c=3"),
        ]
    )
    assert merged == {
        b"REQUEST_METHOD": b"POST",
        b"HTTP_X_FORWARDED_FOR": b"1.2.3.4, 5.6.7.8",
        b"HTTP_COOKIE": b"a=1; b=2; c=3",
    }


def test_one_host_may_come_twice_but_not_two() -> None:
    assert merge_vars([GET, (b"HTTP_HOST", b"a"), (b"HTTP_HOST", b"a")])[b"HTTP_HOST"] == b"a"
    with pytest.raises(RequestError, match="two Host header fields"):
        merge_vars([GET, (b"HTTP_HOST", b"a"), (b"HTTP_HOST", b"b")])


def test_an_empty_variable_is_left_out_an_empty_header_field_stays() -> None:
    merged = merge_vars([GET, (b"CONTENT_TYPE", b""), (b"SERVER_NAME", b""), (b"HTTP_X", b"")])
    assert merged == {b"REQUEST_METHOD": b"GET", b"HTTP_X": b""}


@pytest.mark.parametrize("pair", [(b"PATH_INFO", b"/x\0y"), (b"HTTP_X\0", b"v"), (b"HTTP_X", b"\0")])
def test_nul_is_a_400(pair: tuple[bytes, bytes]) -> None:
    with pytest.raises(RequestError, match="NUL") as caught:
        merge_vars([GET, pair])
    assert caught.value.status == 400


def test_no_method_is_a_400_that_names_the_include() -> None:
    with pytest.raises(RequestError, match="REQUEST_METHOD") as caught:
        merge_vars([])
    assert "include uwsgi_params" in caught.value.remedy


def test_two_lengths_that_differ_are_a_400() -> None:
    with pytest.raises(RequestError, match=r"CONTENT_LENGTH is 5, .* says b'6'"):
        merge_vars([GET, (b"CONTENT_LENGTH", b"5"), (b"HTTP_CONTENT_LENGTH", b"6")])
    with pytest.raises(RequestError, match="says b'5, 6'"):
        merge_vars(
            [GET, (b"CONTENT_LENGTH", b"5"), (b"HTTP_CONTENT_LENGTH", b"5"), (b"HTTP_CONTENT_LENGTH", b"6")]
        )


def test_a_length_that_the_web_server_took_away_is_not_taken_from_the_client() -> None:
    merged = merge_vars([GET, (b"CONTENT_LENGTH", b""), (b"HTTP_CONTENT_LENGTH", b"6")])
    assert body_length(merged) == 0


@pytest.mark.parametrize(("coding", "length"), [(b"chunked", None), (b"gzip, Chunked", None), (b"gzip", 0)])
def test_body_length_without_content_length(coding: bytes, length: int | None) -> None:
    assert body_length(merge_vars([GET, (b"HTTP_TRANSFER_ENCODING", coding)])) == length


# ---- environments -----------------------------------------------------------------------------------


def test_the_least_environment() -> None:
    assert environment() == {
        b"PATH": DEFAULT_PATH.encode(),
        b"GATEWAY_INTERFACE": b"CGI/1.1",
        b"SERVER_SOFTWARE": b"PyEmperor/1",
        b"REDIRECT_STATUS": b"200",
        b"REQUEST_METHOD": b"GET",
        b"SCRIPT_NAME": b"/cgi-bin/x",
        b"SCRIPT_FILENAME": b"/srv/cgi/x",
        b"DOCUMENT_ROOT": b"/srv/cgi",
        b"QUERY_STRING": b"",
        b"SERVER_PROTOCOL": b"HTTP/1.0",
        b"SERVER_NAME": b"localhost",
        b"SERVER_PORT": b"80",
        b"REMOTE_ADDR": b"0.0.0.0",
        b"REMOTE_HOST": b"0.0.0.0",
    }


def test_configured_variables_arrive_and_may_replace_path() -> None:
    env = environment(configured={"PATH": "/bin", "GIT_PROJECT_ROOT": "/srv/git", "TITLE": "é\udcff"})
    assert env[b"PATH"] == b"/bin"
    assert env[b"GIT_PROJECT_ROOT"] == b"/srv/git"
    assert env[b"TITLE"] == "é".encode() + b"\xff"


def test_the_request_wins_over_configuration() -> None:
    env = environment((b"REMOTE_USER", b"eve"), configured={"REMOTE_USER": "root", "SERVER_NAME": "fallback"})
    assert env[b"REMOTE_USER"] == b"eve"
    assert env[b"SERVER_NAME"] == b"fallback"


def test_names_that_the_vassal_lists_pass() -> None:
    pairs = ((b"GIT_PROJECT_ROOT", b"/srv/git"), (b"CGIT_CONFIG", b"/etc/cgitrc"))
    env = environment(*pairs, allowed=(b"GIT_PROJECT_ROOT", b"NOT_SENT"))
    assert env[b"GIT_PROJECT_ROOT"] == b"/srv/git"
    assert not env.keys() & {b"CGIT_CONFIG", b"NOT_SENT"}


def test_names_that_begin_as_the_vassal_lists_pass() -> None:
    pairs = ((b"GIT_A", b"1"), (b"GIT_", b"2"), (b"GIT", b"3"), (b"XGIT_A", b"4"), (b"HTTP_AUTHORIZATION", b"5"))
    env = environment(*pairs, allowed=(b"GIT_*", b"HTTP_AUTH*"))
    assert env.keys() & dict(pairs).keys() == {b"GIT_A", b"GIT_", b"HTTP_AUTHORIZATION"}


@pytest.mark.parametrize("allowed", [(b"*",), (b"HTTP_*", b"UWSGI_*", b"PATH_*", b"SCRIPT_NAME", b"S*", b"G*")])
def test_what_no_list_lets_in(allowed: tuple[bytes, ...]) -> None:
    names = b"HTTP_PROXY http_proxy HTTP_X=Y PATH_INFO PATH_TRANSLATED SCRIPT_NAME SCRIPT_FILENAME".split()
    names += b"GATEWAY_INTERFACE SERVER_SOFTWARE UWSGI_FILE".split()
    env = environment(*((name, b"evil") for name in names), allowed=allowed)
    assert b"evil" not in env.values()
    assert not env.keys() & {b"PATH_INFO", b"PATH_TRANSLATED"}


def test_unset_is_the_last_word() -> None:
    env = environment(
        (b"REMOTE_USER", b"u"), allowed=(b"REMOTE_USER",), unset=(b"REMOTE_USER", b"PATH", b"NOT_THERE")
    )
    assert not env.keys() & {b"REMOTE_USER", b"PATH", b"NOT_THERE"}


def test_a_request_has_the_web_servers_id_or_ours() -> None:
    assert environment((b"REQUEST_ID", b"nginx"), request_id=b"ours")[b"REQUEST_ID"] == b"nginx"
    assert environment(request_id=b"ours")[b"REQUEST_ID"] == b"ours"
    assert b"REQUEST_ID" not in environment()


def test_what_was_decided_about_a_name_does_not_pile_up() -> None:
    for start in range(0, 10_000, 500):
        pairs = [(b"HTTP_X%d" % n, b"v") for n in range(start, start + 500)]
        env = environment(*pairs, (b"HTTP_x", b"evil"), (b"LD_PRELOAD", b"evil"))
        assert env.keys() >= dict(pairs).keys()
        assert b"evil" not in env.values()
    assert len(_gate(frozenset(), False)) <= 1024


# ---- search words -----------------------------------------------------------------------------------


def words(query: bytes, method: bytes = b"GET") -> tuple[bytes, ...]:
    return search_words(merge_vars([(b"REQUEST_METHOD", method), (b"QUERY_STRING", query)]))


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        (b"", ()),
        (b"one", (b"one",)),
        (b"one+two", (b"one", b"two")),
        (b"a%20b+c%2Bd", (b"a b", b"c+d")),
        (b"x%3Dy", (b"x=y",)),
        (b"%C3%BC", ("ü".encode(),)),
        (b"a:@/?,.!x", (b"a:@/\\?,.!x",)),
        (b"$(id);%60ls%60", (b"\\$\\(id\\)\\;\\`ls\\`",)),
        (b"%5C%22", (b'\\\\\\"',)),
        (b"x-s", (b"x-s",)),
        (b"+".join([b"w"] * 256), (b"w",) * 256),
        (b"x" * 8192, (b"x" * 8192,)),
    ],
)
def test_search_words(query: bytes, arguments: tuple[bytes, ...]) -> None:
    assert words(query) == words(query, b"HEAD") == arguments
    assert words(query, b"POST") == ()


@pytest.mark.parametrize(
    "query",
    [
        b"a=b",
        b"word+a=b",
        b"-s",
        b"word+-s",
        b"word+%2Ds",
        b"a%00b",
        b"word+a%0Ab",
        b"%7f",
        b"a++b",
        b"+",
        b"a+",
        b"a%2",
        b"a%zz",
        b"a b",
        b"a#b",
        b"\xc3\xbc",
        b"+".join([b"w"] * 257),
        b"x" * 8193,
        b"%3B" * 4097,
        b"%41" * 8193,
    ],
)
def test_one_bad_word_spoils_them_all(query: bytes) -> None:
    assert words(query) == ()


def test_the_web_servers_document_root_is_the_sites() -> None:
    env = environment((b"DOCUMENT_ROOT", b"/var/www/"), path_info=b"/a/b")
    assert env[b"DOCUMENT_ROOT"] == b"/var/www/"
    assert env[b"PATH_TRANSLATED"] == b"/var/www/a/b"


@pytest.mark.parametrize(
    ("pairs", "name", "port"),
    [
        ([(b"HTTP_HOST", b"example.org")], b"example.org", b"80"),
        ([(b"HTTP_HOST", b"example.org:8080")], b"example.org", b"8080"),
        ([(b"HTTP_HOST", b"example.org"), (b"HTTPS", b"on")], b"example.org", b"443"),
        ([(b"HTTP_HOST", b"h"), (b"REQUEST_SCHEME", b"https")], b"h", b"443"),
        ([(b"HTTP_HOST", b"[::1]:8443")], b"[::1]", b"8443"),
        ([(b"HTTP_HOST", b"$(id)"), (b"SERVER_ADDR", b"10.0.0.1")], b"10.0.0.1", b"80"),
        ([(b"HTTP_HOST", b"h:1"), (b"SERVER_NAME", b"n"), (b"SERVER_PORT", b"2")], b"n", b"2"),
        ([(b"HTTP_HOST", b"h:1"), (b"SERVER_NAME", b""), (b"SERVER_PORT", b"2")], b"h", b"2"),
        ([(b"HTTP_HOST", b"h"), (b"SERVER_NAME", b"_"), (b"SERVER_PORT", b"2")], b"h", b"2"),
        ([(b"HTTP_HOST", b"a.org"), (b"SERVER_NAME", b"*.org"), (b"SERVER_PORT", b"2")], b"a.org", b"2"),
        ([(b"HTTP_HOST", b"a.org"), (b"SERVER_NAME", b"a.*")], b"a.org", b"80"),
        ([(b"HTTP_HOST", b"a.org"), (b"SERVER_NAME", b".org")], b"a.org", b"80"),
        ([(b"SERVER_NAME", b"~^(a|b)$"), (b"SERVER_ADDR", b"10.0.0.1")], b"10.0.0.1", b"80"),
    ],
)
def test_server_name_and_port(pairs: list[tuple[bytes, bytes]], name: bytes, port: bytes) -> None:
    env = environment(*pairs)
    assert (env[b"SERVER_NAME"], env[b"SERVER_PORT"]) == (name, port)


@pytest.mark.parametrize(
    ("field", "auth_type"),
    [(b"Basic dTpw", b"Basic"), (b"digest x", b"Digest"), (b"Bearer x", b"Bearer"), (b"", None), (b"\xff", None)],
)
def test_auth_type_follows_the_credentials_of_a_user(field: bytes, auth_type: bytes | None) -> None:
    env = environment((b"REMOTE_USER", b"u"), (b"HTTP_AUTHORIZATION", field))
    assert env.get(b"AUTH_TYPE") == auth_type
    assert b"AUTH_TYPE" not in environment((b"HTTP_AUTHORIZATION", field))


def test_posix_spawn_takes_the_environment_byte_for_byte() -> None:
    env = environment((b"HTTP_X", b"\xff\xc3\xa9\n=;'"), (b"QUERY_STRING", b"\x80"))
    read, write = os.pipe()
    pid = os.posix_spawn("/usr/bin/env", ["env", "-0"], env, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)])
    os.close(write)
    with open(read, "rb") as pipe:
        seen = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert dict(entry.split(b"=", 1) for entry in seen.split(b"\0")[:-1]) == env
