"""A script's output, in pieces of any size, into the bytes of one HTTP response (RFC 3875 §6, RFC 9112).

Only what belongs to the response comes out: a head that is valid, and of the body no more than may follow it.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from pyemperor.protocol.cgi_response import MAX_HEAD, HeadParser, Kind, ResponseHead, encode_head, parse_head
from pyemperor.protocol.errors import ScriptError
from pyemperor.protocol.redirects import accel_redirect

#: Statuses of responses that have no body (RFC 9110 §6.4.1, §15.3.6).
_BODILESS = (204, 205, 304)


def in_one_piece(output: bytes, protocol: bytes, limit: int) -> tuple[ResponseHead, int, bytes] | None:
    """The response that ``output`` is, all that a script has said: its head, the size of that, and its bytes.

    It is what :class:`Response` makes of the same bytes for a GET, found in one look. None for whatever is not
    plain: that takes a closer one, or is an error. ``protocol`` is the request's, ``limit`` is for the head.
    """
    end = output.find(b"\n\n", 0, _PLAIN)
    crlf = output.find(b"\n\r\n", 0, _PLAIN if end < 0 else end + 1)
    end, start = (end, end + 2) if crlf < 0 else (crlf, crlf + 3)
    plain = _plain_head(output[:end], protocol) if end > 0 and start <= limit else None
    if plain is None or plain[0].content_length not in (None, len(output) - start):
        return None
    head, encoded = plain
    return head, len(encoded), encoded + output[start:]


#: Bytes within which a plain head ends; those that are repeated are remembered.
_PLAIN = 512


@lru_cache(maxsize=128)
def _plain_head(block: bytes, protocol: bytes) -> tuple[ResponseHead, bytes] | None:
    """The head and its bytes; None where it is no head, or not all that there is to do is to send it."""
    try:
        head = parse_head(block)
    except ScriptError:
        return None
    if head.notes or head.nph or head.status < 200 or head.status in _BODILESS or head.kind is Kind.LOCAL_REDIRECT:
        return None
    return head, encode_head(head, protocol)


class Response:
    """The response to one request; ``headers`` are the server's own, ``method`` and ``protocol`` the request's.

    ``head_limit`` is that of the script's header block in bytes; ``nph`` says that the script's name promises
    a status line; ``accel`` has nginx follow local redirects.

    Whoever follows local redirects himself looks at :attr:`head` after the first :meth:`feed` that sets it: if
    its kind is ``LOCAL_REDIRECT``, what that returned is the whole response as a 302. Send it, or drop it and
    make a new :class:`Response` for the request that :func:`~pyemperor.protocol.redirects.redirected` returns.
    """

    #: None until the script has printed all of it.
    head: ResponseHead | None = None
    #: Size in bytes of the head as it was sent.
    head_size = 0
    #: Bytes of the body that may still follow; None: whatever comes until the end.
    left: int | None = None
    #: The script printed more than its Content-Length announced.
    surplus = False
    _bodiless = False

    def __init__(
        self,
        method: bytes,
        protocol: bytes,
        headers: Iterable[tuple[bytes, bytes]] = (),
        *,
        head_limit: int = MAX_HEAD,
        nph: bool = False,
        accel: bool = False,
    ) -> None:
        self._parser = HeadParser(limit=head_limit)
        self._method = method
        self._protocol = protocol
        self._extra = headers
        self._nph = nph
        self._accel = accel

    def feed(self, output: bytes) -> bytes:
        """Take output of the script; what is to be sent for it. Raises ScriptError for what is no response."""
        encoded = b""
        if self.head is None:
            head = self._parser.feed(output)
            if head is None:
                return b""
            output = self._parser.leftover
            encoded = self._begin(head)
        if self.left is None:
            return encoded + output
        self.surplus |= len(output) > self.left and not self._bodiless
        body = output[: self.left]
        self.left -= len(body)
        return encoded + body

    def _begin(self, head: ResponseHead) -> bytes:
        redirect = head.kind is Kind.LOCAL_REDIRECT
        if self._nph and not head.nph:
            said = "its name says nph-, and it printed no status line: read as any script's output"
            head = replace(head, notes=(*head.notes, said))
        if redirect and self._accel:
            head = accel_redirect(head)
        self.head = head
        self._bodiless = self._method == b"HEAD" or head.status in _BODILESS or redirect
        self.left = 0 if self._bodiless else head.content_length
        encoded = encode_head(head, self._protocol, self._extra)
        self.head_size = len(encoded)
        return encoded

    def passed(self, size: int) -> None:
        """Say that ``size`` bytes of the body, no more than :attr:`left`, were passed on in another way."""
        if self.left is not None:
            self.left -= size

    def close(self) -> None:
        """Say that the output has ended: raises ScriptError if the response is not whole."""
        if self.head is None:
            self._parser.close()
        if self.left:
            raise ScriptError(
                f"the script ended {self.left} bytes before the end that its Content-Length announced",
                remedy="let it print the number of bytes that follow, or no Content-Length at all",
            )
