"""CGI, the request's side (RFC 3875 §3, §4): the script's environment and arguments, URL paths.

Names and values are ``bytes`` from the packet to ``posix_spawn``, which takes them as they are: nothing is
decoded, so a script sees exactly the bytes that the web server sent, and no time goes into codecs.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import filterfalse
from urllib.parse import unquote_to_bytes

from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.variables import INCLUDE_PARAMS

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Longest URL path, and longest component of one that is looked up as a file (Linux: PATH_MAX, NAME_MAX).
MAX_PATH = 4096
MAX_COMPONENT = 255

#: Most search words, and most bytes of them, that become arguments of a script.
MAX_WORDS = 256
MAX_WORDS_SIZE = 8192

# What a request may set in a script's environment, beside HTTP_* and SSL_*. Everything else the web server
# sends (LD_PRELOAD, BASH_ENV, PATH ...) stays outside unless the vassal names it.
_META_VARIABLES = frozenset(
    # RFC 3875 §4.1
    b"AUTH_TYPE CONTENT_LENGTH CONTENT_TYPE QUERY_STRING REMOTE_ADDR REMOTE_HOST REMOTE_IDENT REMOTE_USER "
    b"REQUEST_METHOD SERVER_NAME SERVER_PORT SERVER_PROTOCOL "
    # what every web server adds, and Apache after a redirect (see redirects.py)
    b"REDIRECT_QUERY_STRING REDIRECT_REQUEST_METHOD REDIRECT_URL "
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
# What the gateway alone knows.
_COMPUTED = frozenset(
    b"GATEWAY_INTERFACE PATH_INFO PATH_TRANSLATED SCRIPT_FILENAME SCRIPT_NAME SERVER_SOFTWARE".split()
)
# Their absence has a meaning too, so configuration cannot lend them a value (CVE-2025-65082).
_NEVER_CONFIGURED = _COMPUTED | frozenset(
    b"CONTENT_LENGTH CONTENT_TYPE QUERY_STRING REDIRECT_STATUS REMOTE_ADDR REQUEST_METHOD SERVER_PROTOCOL".split()
)

_HOST = re.compile(rb"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_DOT_SEGMENT = re.compile(rb"/\.\.?(?:/|\Z)")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_AUTH_TYPES = {b"basic": b"Basic", b"digest": b"Digest"}
_AUTH_SCHEME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §11.1: a token
# A client of which the web server says nothing: an address that no list of trusted ones has (§4.1.8: MUST).
_UNKNOWN_ADDRESS = b"0.0.0.0"


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
    allowed: Collection[bytes] = (),
    unset: Collection[bytes] = (),
    request_id: bytes = b"",
) -> dict[bytes, bytes]:
    """Return the environment of one script (RFC 3875 §4.1), ready for ``posix_spawn``.

    ``variables`` comes from :func:`~pyemperor.protocol.variables.merge_vars`, ``base`` from
    :func:`base_environment`. The request may set the variables of RFC 3875, the usual ones of web servers,
    ``SSL_*``, ``HTTP_*``, and those ``allowed``: names, or what names begin with and a ``*``; credentials
    (§9.2) only with ``pass_auth`` or by name. Nothing allows ``HTTP_PROXY`` and what is computed here: that
    wins over all of it. ``document_root``, the mount's directory, and ``request_id`` serve where
    the web server sends none. The names in ``unset`` (uWSGI's ``cgi-unset``) are removed last.
    """
    passes = _gate(frozenset(allowed), pass_auth)
    environment = {**base, **variables}
    for name in filterfalse(passes.__getitem__, variables):
        if name in base:
            environment[name] = base[name]
        else:
            del environment[name]
    environment[b"SCRIPT_NAME"] = script_name
    environment[b"SCRIPT_FILENAME"] = script_filename
    environment.setdefault(b"DOCUMENT_ROOT", document_root)
    if path_info:
        environment[b"PATH_INFO"] = path_info
        environment[b"PATH_TRANSLATED"] = environment[b"DOCUMENT_ROOT"].rstrip(b"/") + path_info
    environment.setdefault(b"QUERY_STRING", b"")
    environment.setdefault(b"SERVER_PROTOCOL", b"HTTP/1.0")
    environment.setdefault(b"REMOTE_HOST", environment.setdefault(b"REMOTE_ADDR", _UNKNOWN_ADDRESS))
    if _names_nobody(environment.get(b"SERVER_NAME", b"")) or b"SERVER_PORT" not in environment:
        _name_server(environment)
    if b"REMOTE_USER" in environment and b"AUTH_TYPE" not in environment:
        scheme = variables.get(b"HTTP_AUTHORIZATION", b"").partition(b" ")[0]
        if _AUTH_SCHEME.fullmatch(scheme):
            environment[b"AUTH_TYPE"] = _AUTH_TYPES.get(scheme.lower(), scheme)
    if request_id:
        environment.setdefault(b"REQUEST_ID", request_id)
    for name in unset:
        environment.pop(name, None)
    return environment


class _Gate(dict[bytes, bool]):
    """Which names may pass into an environment; what was decided is remembered, so that it costs a look-up.

    Clients choose names: so it remembers no long ones, and forgets everything rather than grow.
    """

    def __init__(self, allowed: frozenset[bytes], pass_auth: bool) -> None:
        super().__init__()
        self._names = allowed.union(_CREDENTIALS) if pass_auth else allowed
        self._prefixes = tuple(name[:-1] for name in allowed if name.endswith(b"*"))

    def __missing__(self, name: bytes) -> bool:
        passes = self._may_pass(name)
        if len(name) <= 64:
            if len(self) >= 1024:
                self.clear()
            self[name] = passes
        return passes

    def _may_pass(self, name: bytes) -> bool:
        if name in _META_VARIABLES:
            return True
        if name in _COMPUTED or name.upper() == b"HTTP_PROXY" or b"=" in name:
            return False
        if name in self._names or name.startswith(self._prefixes):
            return True
        if name in _WITHHELD or not name.startswith((b"HTTP_", b"SSL_")):
            return False
        return not name.translate(None, _FIELD_NAME_CHARACTERS)


_gate = lru_cache(maxsize=64)(_Gate)


def _names_nobody(server_name: bytes) -> bool:
    # nginx's $server_name is the first word of its `server_name`, which may be: _, *.org, .org, www.*, ~regex.
    return server_name[:1] in b"_*.~" or server_name.endswith(b"*")


def _name_server(environment: dict[bytes, bytes]) -> None:
    """Set ``SERVER_NAME`` and ``SERVER_PORT`` (§4.1.14, §4.1.15) from ``Host`` where the web server did not."""
    host, port = _host_and_port(environment.get(b"HTTP_HOST", b""))
    if _names_nobody(environment.get(b"SERVER_NAME", b"")):
        environment[b"SERVER_NAME"] = host or environment.get(b"SERVER_ADDR", b"localhost")
    if b"SERVER_PORT" not in environment:
        secure = environment.get(b"HTTPS") in (b"on", b"1") or environment.get(b"REQUEST_SCHEME") == b"https"
        environment[b"SERVER_PORT"] = port or (b"443" if secure else b"80")


@lru_cache(maxsize=64)
def _host_and_port(field: bytes) -> tuple[bytes, bytes]:
    found = _HOST.fullmatch(field)
    return (found[1], found[2] or b"") if found else (b"", b"")


# ---- the script's arguments --------------------------------------------------------------------------

# §4.4: what a search word consists of; "=" is missing here, since none of them may have one.
_SEARCH_WORD = rb"(?:[A-Za-z0-9\-_.!~*'();/?:@&,$]|%[0-9A-Fa-f]{2})+"
_SEARCH_STRING = re.compile(rb"%b(?:\+%b)*" % (_SEARCH_WORD, _SEARCH_WORD))
_ACTIVE_IN_A_SHELL = re.compile(rb"[&;`'\"|*?~<>^()\[\]{}$\\]")


def search_words(variables: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
    """Return the arguments that a query without "=" stands for (RFC 3875 §4.4), decoded; all or none.

    Only GET and HEAD have search words. What is active in a shell has a backslash before it (§7.2), as Apache
    writes it: that is for scripts that hand their arguments to one, not a reason to. There are no words at all
    if one of them begins with "-" (it would be an option: CVE-2012-1823) or has a control character, or if
    they are more than :data:`MAX_WORDS` or longer than :data:`MAX_WORDS_SIZE` bytes. A script that an
    interpreter of ours runs should get none: the interpreter may take them for its own.
    """
    query = variables.get(b"QUERY_STRING", b"")
    if not query or variables.get(b"REQUEST_METHOD") not in (b"GET", b"HEAD"):
        return ()
    if query.count(b"+") >= MAX_WORDS or not _SEARCH_STRING.fullmatch(query):
        return ()
    words = [unquote_to_bytes(word) for word in query.split(b"+")]
    if any(word.startswith(b"-") or _CONTROL.search(word) for word in words):
        return ()
    escaped = tuple(_ACTIVE_IN_A_SHELL.sub(rb"\\\g<0>", word) for word in words)
    return escaped if sum(map(len, escaped)) <= MAX_WORDS_SIZE else ()


# ---- URL paths --------------------------------------------------------------------------------------


def request_path(variables: Mapping[bytes, bytes]) -> bytes:
    """Return the request's path, decoded, as the web server sent it in ``PATH_INFO``.

    Raises :class:`RequestError`: 400 without a path or with a ``.`` or ``..`` segment, 414 over
    :data:`MAX_PATH` bytes. Web servers resolve dot segments before they pass a request on, so one that
    arrives here is an attack or a broken front end: it is refused, not resolved (RFC 3875 §8.1).
    """
    path = variables.get(b"PATH_INFO", b"")
    if not path.startswith(b"/"):
        raise RequestError("the request has no PATH_INFO that begins with '/'", remedy=INCLUDE_PARAMS)
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
    found = None
    for mount in mounts:
        if path.startswith(mount) and path[len(mount) : len(mount) + 1] in (b"", b"/"):
            found = mount if found is None or len(mount) > len(found) else found
    return found


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
