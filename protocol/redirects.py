"""Local redirects (RFC 3875 §6.2.2): a script answers with a path of this server, which is asked in its place.

Three ways to follow one: the client does (302), nginx does (:func:`accel_redirect`), or this server does, with
the request that :func:`redirected` makes. The last does not ask the web server again: whatever guards a path
there does not guard it here.
"""

import dataclasses
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from pyemperor.protocol.cgi_response import ResponseHead
from pyemperor.protocol.errors import ScriptError
from pyemperor.protocol.urls import normalised_path

#: Redirects in a row that one request may take (Apache's ``LimitInternalRecursion``).
MAX_REDIRECTS = 10

# What speaks of the body, which stays behind, and of the script that the request meant first.
_LEFT_BEHIND = frozenset(
    b"CONTENT_LENGTH CONTENT_TYPE HTTP_EXPECT HTTP_TRAILER HTTP_TRANSFER_ENCODING "
    b"PATH_TRANSLATED QUERY_STRING REDIRECT_QUERY_STRING SCRIPT_FILENAME SCRIPT_NAME".split()
)


def redirected(variables: Mapping[bytes, bytes], location: bytes, *, hops: int = 0) -> dict[bytes, bytes]:
    """Return the variables of the request for ``location`` that takes the place of the one for ``variables``.

    Both are as :func:`~pyemperor.protocol.cgi.merge_vars` makes them. It is a GET (a HEAD stays one) without a
    body; ``REDIRECT_URL``, ``REDIRECT_QUERY_STRING`` and ``REDIRECT_REQUEST_METHOD`` say, as in Apache, what it
    was before. ``hops`` is the number of redirects that led to ``variables``. Raises :class:`ScriptError`: 500
    over :data:`MAX_REDIRECTS`, 502 for a path that no request can have.
    """
    if hops >= MAX_REDIRECTS:
        raise ScriptError(
            f"the scripts redirect in circles: {hops} local redirects in a row",
            status=500,
            remedy=f"the last leads to {location[:200]!r}",
        )
    raw_path, _, query = location.partition(b"?")
    path = normalised_path(unquote_to_bytes(raw_path))
    if not raw_path.startswith(b"/") or b"\0" in path:
        raise ScriptError("the script redirects to what is no path", remedy=f"the path is {raw_path[:200]!r}")
    kept = {
        name: value
        for name, value in variables.items()
        if name not in _LEFT_BEHIND and not name.startswith(b"HTTP_CONTENT_")
    }
    before = variables.get(b"REQUEST_METHOD", b"GET")
    kept |= {
        b"REQUEST_METHOD": b"HEAD" if before == b"HEAD" else b"GET",
        b"REQUEST_URI": location,
        b"DOCUMENT_URI": path,
        b"PATH_INFO": path,
        b"REDIRECT_URL": variables.get(b"PATH_INFO", b"/"),
        b"REDIRECT_REQUEST_METHOD": before,
    }
    if query:
        kept[b"QUERY_STRING"] = query
    if b"QUERY_STRING" in variables:
        kept[b"REDIRECT_QUERY_STRING"] = variables[b"QUERY_STRING"]
    return kept


def accel_redirect(head: ResponseHead) -> ResponseHead:
    """Return a local redirect that nginx follows by itself; for whoever does not know how, it is still a 302."""
    assert head.location is not None
    return dataclasses.replace(head, headers=(*head.headers, (b"X-Accel-Redirect", head.location)))
