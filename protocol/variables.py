"""Request variables (RFC 3875 §4.1, §4.2): what a packet says, checked and made one mapping.

Names and values are ``bytes``: nothing is decoded, so a script sees exactly what the web server sent.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import filterfalse

from pyemperor.protocol.errors import RequestError

#: What to do where a variable is missing that every web server sends.
INCLUDE_PARAMS = "nginx needs `include uwsgi_params;` beside `uwsgi_pass`"


def merge_vars(pairs: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Make one mapping of a packet's variables, checked: what later steps read as *the request*.

    A repeated header field is joined (RFC 3875 §4.1.18: ", ", a cookie with "; "); of a repeated
    meta-variable the last counts. An empty meta-variable is left out, since §4.1 gives both one meaning.
    ``UWSGI_*`` is never looked at. Raises :class:`RequestError` 400 for a NUL byte, no ``REQUEST_METHOD``,
    two ``Host`` fields that differ, or a ``CONTENT_LENGTH`` that is no number or not the client's; 413 for
    a length beyond 64 bits.
    """
    merged = dict(pairs)
    return check_vars(merged if len(merged) == len(pairs) else _join_repeated(pairs))


def check_vars(merged: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Check and clean the variables of a request that has none twice, as :func:`merge_vars` does."""
    names = b"".join(merged)
    if b"\0" in names or b"\0" in b"".join(merged.values()):
        raise RequestError("the request has a NUL byte in a variable or header field")
    if b"UWSGI_" in names:
        merged = {name: value for name, value in merged.items() if not name.startswith(b"UWSGI_")}
    for name in [*filterfalse(merged.__getitem__, merged)]:  # those without a value
        if not name.startswith(b"HTTP_"):
            del merged[name]
    if b"REQUEST_METHOD" not in merged:
        raise RequestError("the request has no REQUEST_METHOD", remedy=INCLUDE_PARAMS)
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
