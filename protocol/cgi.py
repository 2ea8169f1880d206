"""CGI, the request's side (RFC 3875 §3, §4): request variables, the script's environment, URL paths.

Names and values are ``bytes`` from the packet to ``posix_spawn``, which takes them as they are: nothing is
decoded, so a script sees exactly the bytes that the web server sent, and no time goes into codecs.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from pyemperor.protocol.errors import RequestError

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Longest URL path, and longest component of one that is looked up as a file (Linux: PATH_MAX, NAME_MAX).
MAX_PATH = 4096
MAX_COMPONENT = 255

_INCLUDE_PARAMS = "nginx needs `include uwsgi_params;` beside `uwsgi_pass`"

# What a request may set in a script's environment, beside HTTP_* and SSL_*. Everything else the web server
# sends (LD_PRELOAD, BASH_ENV, PATH ...) stays outside unless the vassal names it.
_META_VARIABLES = frozenset(
    # RFC 3875 §4.1
    b"AUTH_TYPE CONTENT_LENGTH CONTENT_TYPE QUERY_STRING REMOTE_ADDR REMOTE_HOST REMOTE_IDENT REMOTE_USER "
    b"REQUEST_METHOD SERVER_NAME SERVER_PORT SERVER_PROTOCOL "
    # what every web server adds
    b"DOCUMENT_ROOT DOCUMENT_URI HTTPS REMOTE_PORT REQUEST_ID REQUEST_SCHEME REQUEST_URI SERVER_ADDR".split()
)
_FIELD_NAME_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
_CREDENTIALS = (b"HTTP_AUTHORIZATION", b"HTTP_PROXY_AUTHORIZATION")
# Header fields that are not the script's business: RFC 3875 §4.1.18 and §9.2, hop-by-hop fields (RFC 9110
# §7.6.1), and `Proxy`, which programs mistake for the variable that names their proxy (CVE-2016-5385).
_WITHHELD = frozenset(_CREDENTIALS) | frozenset(
    b"HTTP_CONNECTION HTTP_CONTENT_LENGTH HTTP_CONTENT_TYPE HTTP_KEEP_ALIVE HTTP_PROXY HTTP_PROXY_CONNECTION "
    b"HTTP_TE HTTP_TRAILER HTTP_TRANSFER_ENCODING HTTP_UPGRADE".split()
)
# Their absence has a meaning too, so configuration cannot lend them a value (CVE-2025-65082).
_NEVER_CONFIGURED = frozenset(
    b"CONTENT_LENGTH CONTENT_TYPE GATEWAY_INTERFACE PATH_INFO PATH_TRANSLATED QUERY_STRING REDIRECT_STATUS "
    b"REMOTE_ADDR REQUEST_METHOD SCRIPT_FILENAME SCRIPT_NAME SERVER_PROTOCOL SERVER_SOFTWARE".split()
)

_HOST = re.compile(rb"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_DOT_SEGMENT = re.compile(rb"/\.\.?(?:/|\Z)")
_AUTH_TYPES = {b"basic": b"Basic", b"digest": b"Digest"}


# ---- request variables ------------------------------------------------------------------------------


def merge_vars(pairs: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Make one mapping of a packet's variables, checked: what later steps read as *the request*.

    A repeated header field is joined (RFC 3875 §4.1.18: ", ", a cookie with "; "); of a repeated
    meta-variable the last counts. An empty meta-variable is left out, since §4.1 gives both one meaning.
    ``UWSGI_*`` is never looked at. Raises :class:`RequestError` 400 for a NUL byte, no ``REQUEST_METHOD``,
    two ``Host`` fields that differ, or a ``CONTENT_LENGTH`` that is no number or not the client's; 413 for
    a length beyond 64 bits.
    """
    merged = dict(pairs)
    if len(merged) != len(pairs):
        merged = _join_repeated(pairs)
    names = b"\n".join(merged)
    if b"\0" in names or b"\0" in b"".join(merged.values()):
        raise RequestError("the request has a NUL byte in a variable or header field")
    if b"UWSGI_" in names:
        merged = {name: value for name, value in merged.items() if not name.startswith(b"UWSGI_")}
    if b"" in merged.values():
        merged = {name: value for name, value in merged.items() if value or name.startswith(b"HTTP_")}
    if b"REQUEST_METHOD" not in merged:
        raise RequestError("the request has no REQUEST_METHOD", remedy=_INCLUDE_PARAMS)
    if b"CONTENT_LENGTH" in merged:
        _check_content_length(merged[b"CONTENT_LENGTH"], merged.get(b"HTTP_CONTENT_LENGTH"))
    return merged


def body_length(variables: Mapping[bytes, bytes]) -> int | None:
    """Return the size of the request body in bytes, ``None`` for a chunked body of unknown size.

    A ``CONTENT_LENGTH`` always wins: nginx removes the chunks, says how many bytes are left, and still
    sends the client's ``Transfer-Encoding: chunked``. Only without it is the body on the wire chunked.
    """
    length = variables.get(b"CONTENT_LENGTH")
    if length is not None:
        return int(length)
    coding = variables.get(b"HTTP_TRANSFER_ENCODING", b"")
    return None if coding.lower().endswith(b"chunked") else 0


def _join_repeated(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    merged: dict[bytes, bytes] = {}
    for name, value in pairs:
        if name not in merged or not name.startswith(b"HTTP_"):
            merged[name] = value
        elif name == b"HTTP_HOST":
            if value != merged[name]:
                raise RequestError("the request has two Host header fields that differ")
        else:
            merged[name] += (b"; " if name == b"HTTP_COOKIE" else b", ") + value
    return merged


def _check_content_length(length: bytes, from_client: bytes | None) -> None:
    if not length.isdigit():
        raise RequestError(f"CONTENT_LENGTH is not a number: {length[:40]!r}")
    if len(length) > 18:
        raise RequestError("CONTENT_LENGTH is too large", status=413)
    if from_client and from_client != length:
        raise RequestError(
            f"CONTENT_LENGTH is {length.decode()}, the Content-Length header field says {from_client[:40]!r}",
            remedy="the web server and its client disagree on where the request ends: possible smuggling",
        )


# ---- the script's environment -----------------------------------------------------------------------


def base_environment(configured: Mapping[str, str], *, server_software: str) -> dict[bytes, bytes]:
    """Return what is the same for all requests of a mount: ``PATH``, the vassal's ``env``, the server's name.

    Made once; nothing of the environment of this process is in it. Of ``configured``, names that describe
    one request or the gateway itself are ignored (RFC 3875 §4.1.4, §4.1.17).
    """
    environment = {b"PATH": DEFAULT_PATH.encode()}
    for name, value in configured.items():
        key = name.encode("utf-8", "surrogateescape")
        if key not in _NEVER_CONFIGURED:
            environment[key] = value.encode("utf-8", "surrogateescape")
    environment[b"GATEWAY_INTERFACE"] = b"CGI/1.1"
    environment[b"SERVER_SOFTWARE"] = server_software.encode("ascii")
    environment[b"REDIRECT_STATUS"] = b"200"  # php-cgi refuses to run without
    return environment


def script_environment(
    variables: Mapping[bytes, bytes],
    base: Mapping[bytes, bytes],
    *,
    script_name: bytes,
    path_info: bytes,
    script_filename: bytes,
    document_root: bytes,
    pass_auth: bool = False,
    pass_vars: Collection[bytes] = (),
) -> dict[bytes, bytes]:
    """Return the environment of one script (RFC 3875 §4.1), ready for ``posix_spawn``.

    ``variables`` comes from :func:`merge_vars`, ``base`` from :func:`base_environment`. The request may set
    the variables of RFC 3875, the usual ones of web servers, ``SSL_*``, ``HTTP_*``, and those in
    ``pass_vars``; credentials (§9.2) only with ``pass_auth``. Whatever is computed here wins over both.
    ``document_root`` is the mount's directory: it serves where the web server names none.
    """
    environment = {**base}
    for name, value in variables.items():
        if _may_pass(name):
            environment[name] = value
    for name in (*_CREDENTIALS, *pass_vars) if pass_auth else pass_vars:
        if name in variables:
            environment[name] = variables[name]
    environment[b"SCRIPT_NAME"] = script_name
    environment[b"SCRIPT_FILENAME"] = script_filename
    environment.setdefault(b"DOCUMENT_ROOT", document_root)
    if path_info:
        environment[b"PATH_INFO"] = path_info
        environment[b"PATH_TRANSLATED"] = environment[b"DOCUMENT_ROOT"].rstrip(b"/") + path_info
    environment.setdefault(b"QUERY_STRING", b"")
    environment.setdefault(b"SERVER_PROTOCOL", b"HTTP/1.0")
    if b"REMOTE_ADDR" in environment:
        environment.setdefault(b"REMOTE_HOST", environment[b"REMOTE_ADDR"])
    if b"SERVER_NAME" not in environment or b"SERVER_PORT" not in environment:
        _name_server(environment)
    if b"REMOTE_USER" in environment and b"AUTH_TYPE" not in environment:
        scheme = variables.get(b"HTTP_AUTHORIZATION", b"").partition(b" ")[0].lower()
        if scheme in _AUTH_TYPES:
            environment[b"AUTH_TYPE"] = _AUTH_TYPES[scheme]
    return environment


def _may_pass(name: bytes) -> bool:
    if name in _META_VARIABLES:
        return True
    if name in _WITHHELD or not name.startswith((b"HTTP_", b"SSL_")):
        return False
    return not name.translate(None, _FIELD_NAME_CHARACTERS)


def _name_server(environment: dict[bytes, bytes]) -> None:
    """Set ``SERVER_NAME`` and ``SERVER_PORT`` (§4.1.14, §4.1.15) from ``Host`` if the web server did not."""
    host = _HOST.fullmatch(environment.get(b"HTTP_HOST", b""))
    secure = environment.get(b"HTTPS") in (b"on", b"1") or environment.get(b"REQUEST_SCHEME") == b"https"
    default_port = b"443" if secure else b"80"
    environment.setdefault(b"SERVER_NAME", host[1] if host else environment.get(b"SERVER_ADDR", b"localhost"))
    environment.setdefault(b"SERVER_PORT", host[2] or default_port if host else default_port)


# ---- URL paths --------------------------------------------------------------------------------------


def request_path(variables: Mapping[bytes, bytes]) -> bytes:
    """Return the request's path, decoded, as the web server sent it in ``PATH_INFO``.

    Raises :class:`RequestError`: 400 without a path or with a ``.`` or ``..`` segment, 414 over
    :data:`MAX_PATH` bytes. Web servers resolve dot segments before they pass a request on, so one that
    arrives here is an attack or a broken front end: it is refused, not resolved (RFC 3875 §8.1).
    """
    path = variables.get(b"PATH_INFO", b"")
    if not path.startswith(b"/"):
        raise RequestError("the request has no PATH_INFO that begins with '/'", remedy=_INCLUDE_PARAMS)
    if len(path) > MAX_PATH:
        raise RequestError(f"the path is too long: {len(path)} bytes, {MAX_PATH} are allowed", status=414)
    if b"/." in path and _DOT_SEGMENT.search(path):
        raise RequestError("the path has a '.' or '..' segment")
    return path


def match_mount(path: bytes, mounts: Iterable[bytes]) -> bytes | None:
    """Return the longest of ``mounts`` that ``path`` lies under, ``None`` if there is none.

    A mount ends at a segment boundary: ``/cgi-bin`` takes ``/cgi-bin`` and ``/cgi-bin/x``, never
    ``/cgi-binX``. The mount ``b""`` is the default: it takes every path. No mount ends in "/".
    """
    found = [m for m in mounts if path.startswith(m) and path[len(m) : len(m) + 1] in (b"", b"/")]
    return max(found, key=len, default=None)


def script_candidates(path: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield every split of ``path``, the part after the mount, into (script, ``PATH_INFO``), shortest first.

    ``/a/b/`` gives ("", "/a/b/"), ("/a", "/b/"), ("/a/b", "/"). The script is the first that is no
    directory; a "/" that remains is the script's ``PATH_INFO`` (§4.1.5) or asks for a directory's index.
    Raises :class:`RequestError` 414 on reaching a component that no file can have for a name.
    """
    yield b"", path
    start = 0
    while 0 <= start < len(path):
        end = path.find(b"/", start + 1)
        stop = len(path) if end < 0 else end
        if stop - start > MAX_COMPONENT + 1:
            raise RequestError(f"a part of the path is longer than {MAX_COMPONENT} bytes", status=414)
        if stop - start > 1:  # "//" and a final "/" name nothing
            yield path[:stop], path[stop:]
        start = end
