"""URLs, as requests and scripts write them (RFC 3986, RFC 9112 §3.2)."""

import re


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Divide a request target into the host that it names, b"" if none, and the path with its query.

    A client may write any target as if to a proxy; then its host counts, not the ``Host`` field (RFC 9112 §3.2.2).
    """
    scheme, colon, rest = target.partition(b"://")
    if not colon or scheme.lower() not in (b"http", b"https"):
        return b"", target
    host = re.split(rb"[/?]", rest, maxsplit=1)[0]
    path = rest[len(host) :]
    return host, path if path.startswith(b"/") else b"/" + path


def normalised_path(path: bytes) -> bytes:
    """Return a decoded path as a web server passes it on: no dot segments (RFC 3986 §5.2.4), no double slashes."""
    if b"//" not in path and b"/." not in path:
        return path
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    trailing = b"/" if segments and segments[-1] in (b"", b".", b"..") and kept else b""
    return b"/" + b"/".join(kept) + trailing
