"""The response on its way from the script to the client: nothing of it is doubled, lost, or sent too soon.

It knows neither time nor how the script lives; it only moves bytes, and says whether it could.

A script may talk before it has read its input, but the client does not listen before it has sent it: nginx sends
nothing more of a body once the response begins, and most clients read only then. So an *early* response waits
until the body is here. On a unix socket it waits even for a script that does not read: a connection of which
nothing is unread could not be broken any more.
"""

from loguru import logger

from pyemperor.actors.connection import ClientLeft, Connection
from pyemperor.actors.outcome import Outcome
from pyemperor.actors.process import WIDE, Process
from pyemperor.actors.script import Script
from pyemperor.actors.spool import CHUNK
from pyemperor.actors.wires import Request
from pyemperor.protocol.cgi_response import Kind, ResponseHead, error_response
from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.response import Response

#: Whoever was refused for want of room may ask again: a request is short.
_RETRY = ((b"Retry-After", b"1"),)


class Delivery:
    """The response of one exchange, of whichever script makes it in the end.

    What it has read and not sent is the client's ``pending``: at most a chunk and a head, for nothing is read
    while something of a response that has begun is pending.
    """

    #: The script has said how its response begins.
    begun = False
    #: The response is complete, or given up: what the script says from now on is heard by nobody.
    answered = False
    #: Nothing of the response is with the client: it can still become another one.
    unsent = True
    #: The script may end at once: its response is kept, to be sent in one piece.
    prompt = True
    #: The local redirect to follow when the script has ended, as the client would get it; nothing is pending then.
    redirect = b""
    #: The body comes in full chunks, and nothing of it is pending: it need not come through here.
    _flowing = False
    _process: Process | None = None
    _response: Response | None = None

    def __init__(self, client: Connection, outcome: Outcome) -> None:
        self._client = client
        self._outcome = outcome

    def begin(self, script: Script, request: Request, process: Process) -> None:
        """From now on ``process`` makes the response; nothing was sent of what the one before it said."""
        self._process = process
        self.begun, self.prompt, self.redirect = False, True, b""
        self._response = Response(
            request.variables[b"REQUEST_METHOD"],
            request.variables.get(b"SERVER_PROTOCOL", b""),
            self._client.wire.headers,
            head_limit=script.terms.head_limit,
            nph=script.nph,
            accel=script.terms.redirect == "accel",
        )
        self._redirects = script.terms.redirect == "internal"

    # ---- what is known of it ----------------------------------------------------------------------------

    @property
    def location(self) -> bytes:
        """Where the redirect leads."""
        assert self._response is not None
        assert self._response.head is not None
        assert self._response.head.location is not None
        return self._response.head.location

    @property
    def complete(self) -> bool:
        """Whether the script has said as much as it announced."""
        return self._response is not None and self._response.left == 0 and not self.redirect

    @property
    def early(self) -> bool:
        """Whether a response waits for the client to have sent its body. Nothing of it was sent then."""
        return bool(self._client.pending) and self.waits

    @property
    def waits(self) -> bool:
        """Whether whatever the script says now has to wait for the client to have sent its body."""
        client, process = self._client, self._process
        if not client.missing or self.answered or process is None:
            return False
        return client.needs_unread or (process.listens and not process.ending)

    # ---- from the script --------------------------------------------------------------------------------

    def pump(self) -> bool:
        """Pass on what the script says now, and close its output at its end; True when something moved.

        Raises RequestError for what is no response, ClientLeft.
        """
        client, process = self._client, self._process
        assert process is not None
        if client.pending and not self.unsent:
            return False
        if self._flowing:
            return self._flow(process)
        while data := process.read():
            if not self.answered:
                self._take(data)
            if self.prompt and len(client.pending) > 2 * CHUNK:  # it writes as fast as we read
                self.keep_nothing_back()
            if not self.prompt:
                self._flowing = len(data) == CHUNK and not self.unsent
                return True
        if data == b"":
            process.close_output()
        elif self.prompt:
            self.keep_nothing_back()
        return False

    def _flow(self, process: Process) -> bool:
        """Pass on the body of a large response, as long as nothing is to be done but that."""
        client, response = self._client, self._response
        if self.answered or client.pending or client.missing or not response or response.left == 0:
            self._flowing = client.full = False
            return self.pump()
        client.full = False
        moved = client.splice(process.stream(), WIDE if response.left is None else min(WIDE, response.left))
        if moved:
            response.passed(moved)
            self._finish_if_whole()
        elif moved == 0:
            process.close_output()
        return bool(moved)

    def _take(self, data: bytes) -> None:
        response, client = self._response, self._client
        assert response is not None
        encoded = response.feed(data)
        if response.head and not self.begun:
            self.begun = True
            self._note(response.head, response.head_size)
            if response.head.kind is Kind.LOCAL_REDIRECT and self._redirects:
                self.redirect, encoded = encoded, b""
        if response.surplus:
            self._outcome.problem = "the script sent more than its Content-Length announced"
        if self.prompt or self.waits:
            client.pending += encoded  # in one piece, or early
        else:
            self.send(encoded)
        self._finish_if_whole()

    def _note(self, head: ResponseHead, size: int) -> None:
        outcome = self._outcome
        for note in head.notes:
            logger.warning("{}: {}", outcome.script, note)
        outcome.status = head.status
        outcome.head_size = size
        outcome.head_fields = len(head.headers)

    def keep_nothing_back(self) -> None:
        """The script lives: send what was kept for a response in one piece, unless it is early."""
        self.prompt = False
        if self._client.pending and not self.waits:
            self.send()
        self._finish_if_whole()

    # ---- to the client ----------------------------------------------------------------------------------

    def send(self, data: bytes = b"") -> bool:
        """Send ``data`` of the response after what is pending of it; True when the client took something."""
        client = self._client
        taken = 0
        if data or client.pending:
            self.unsent = False
            taken = client.send(data, more=not self.answered)
        if self.answered and not client.pending:
            client.finish()
        return taken > 0

    def answer(self, data: bytes, *, bodiless: bool) -> bool:
        """Send a whole response that no script made; True when the client took something and has not all."""
        head, blank, _ = data.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/"):
            self._outcome.status = int(head[9:12])
            self._outcome.head_size = len(head) + len(blank)
        self.answered = True
        return self.send(head + blank if bodiless else data) and self._client.open

    def _finish_if_whole(self) -> None:
        """Finish a response that is as long as announced, whatever the script does beyond it."""
        if not self._client.pending and self.complete and self._process and not self._process.listens:
            self.finish()

    def close(self) -> None:
        """Say that nothing more will come from the script; raises ScriptError if that makes no whole response."""
        assert self._response is not None
        self._response.close()

    def finish(self) -> bool:
        """The response is whole; True when the client took something of what was left and has not all."""
        if self.answered:
            return False
        self.answered = True
        return self.send() and self._client.open

    def refuse(self, error: RequestError, protocol: bytes, *, bodiless: bool) -> None:
        """Answer with the error if nothing was sent yet; cut the response otherwise."""
        if self.answered:
            return
        self.answered = True
        client = self._client
        if not self.unsent:
            client.cut()
            return
        client.pending = b""
        headers = client.wire.headers + (_RETRY if error.status == 503 else ())
        # The remedy is for whoever runs the server: it goes to the log, not to the client.
        data = error_response(error.status, str(error), protocol=protocol or b"HTTP/1.1", headers=headers)
        try:
            self.answer(data, bodiless=bodiless)
        except ClientLeft:
            client.close()

    def give_up(self) -> None:
        """Nobody is there to take it."""
        self._client.close()
        self.answered = True
