"""One request on one connection, from its first byte to the script's exit: full duplex, in constant memory.

::

    client ── request body ──► stdin  ┐
           ◄─ response ─────── stdout ├ script      stderr ──► the log
                                      ┘
Every descriptor is non-blocking, and readiness arrives as a message of the runner's inbox; each step tries
what it is about, so a message that comes late or twice is harmless. What one side has not taken is kept, at
most one chunk a direction, and the other side is not read until it is gone: after every step, what is waited
for follows from what is left to do (:meth:`Exchange._settle`).

A script may talk before it has read its input, but the client does not listen before it has sent it: nginx sends
nothing more of a body once the response begins, and most clients read only then. So an *early* response waits
until the body is here. That is spooled meanwhile, since the script may not read it before it is heard.
"""

import contextlib
import select
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from signal import SIGKILL, SIGXCPU, SIGXFSZ, Signals
from typing import Protocol

import msgspec
from loguru import logger

from pyemperor.actors.actor import Inbox
from pyemperor.actors.connection import ClientLeft, Connection
from pyemperor.actors.deadlines import Deadlines
from pyemperor.actors.outcome import Outcome, new_id
from pyemperor.actors.script import WIDE, Process, Ready, Script, Spawn
from pyemperor.actors.spool import CHUNK, Spool
from pyemperor.actors.wires import Request, Wire
from pyemperor.protocol.cgi_response import Kind, error_response
from pyemperor.protocol.errors import RequestError, ScriptError
from pyemperor.protocol.redirects import redirected
from pyemperor.protocol.response import Response

#: A script that ends within this many seconds is heard in one piece, and so is its response: nginx and the client
#: are woken once.
PROMPT = 0.002
#: A script that runs longer than this is watched by its pidfd, so that its end is known whatever holds its
#: pipes; one whose output has ended may take as long to exit, and so tell whether that was all of it.
SETTLED = 0.05
#: Seconds of silence for which a descendant may hold the output of a script that has ended.
HELD = 2.0
#: Seconds to take the rest of a body that the script did not read, so that the client reads the answer.
DRAIN = 2.0


#: What a ``modifier1`` does with a request: a script to run, or the bytes of the answer.
Handler = Callable[[Request], Script | bytes]

#: What of the script's output is waited for, as epoll masks (``Process.watch``).
_NOTHING, _END = -1, 0

#: What the kernel means by a signal of its own.
_WHY_KILLED = {
    SIGKILL: "out of memory? See dmesg",
    SIGXCPU: "see `cgi-limit-cpu`",
    SIGXFSZ: "see `cgi-limit-fsize`",
}

#: Whoever was refused for want of room may ask again: a request is short.
_RETRY = ((b"Retry-After", b"1"),)


class Errors(Protocol):
    """Where a script's stderr goes: a pipe that outlives the request."""

    @property
    def fd(self) -> int: ...
    def begin(self, script: str, request_id: str) -> None: ...
    def end(self) -> None: ...


class Exchange:
    """Serves one accepted connection; :meth:`handle` returns True when it is over."""

    _script: Script | None = None
    _process: Process | None = None
    _response: Response | None = None
    _answered = False  # the response is complete, or given up
    _unsent = True  # nothing of the response is with the client
    _flowing = False  # the body comes in full chunks: it need not come through here
    _body: Spool | None = None  # of a request that starts when all of it is here (post-buffering)
    _redirect = b""  # the local redirect to follow when the script has ended, as the client would get it
    _prompt = True  # the script may end at once
    _settled = False  # it takes long enough that the client may leave

    def __init__(
        self,
        inbox: Inbox,
        sock: socket.SocketType,
        wire: Wire,
        handlers: "dict[int, Handler]",
        errors: Errors,
        null: int,
        head_timeout: float,
        warm: Spawn | None = None,
        *,
        post_buffering: bool = False,
    ) -> None:
        self.outcome = Outcome()
        self._inbox = inbox
        self._client = Connection(inbox, sock, wire)
        self._handlers = handlers
        self._errors = errors
        self._null = null
        self._time = Deadlines(inbox, Ready.TICK, head_timeout)
        self._warm = warm
        self._post_buffering = post_buffering

    # ---- events -----------------------------------------------------------------------------------------

    def start(self, now: float) -> bool:
        """Begin; most requests lie there already."""
        self.outcome.started_at = now
        over = self.handle(Ready.CLIENT, now)
        if not over and not self._time.running:
            self._time.wait(self._time.silence, now)
        return over

    def handle(self, ready: Ready, now: float) -> bool:
        """Take in one event; True when the exchange is over and everything of it is released."""
        try:
            match ready:
                case Ready.CLIENT:
                    self._client_ready(now)
                case Ready.OUTPUT:
                    self._script_talks(now)
                case Ready.INPUT:
                    self._feed_script(b"", now)
                case Ready.EXIT:
                    self._look_for_end(now)
                case Ready.TICK:
                    self._tick_at(now)
        except ClientLeft as error:
            self.client_gone(str(error), now)
        except RequestError as error:
            self._refuse(error, now)
        return self._settle()

    def abort(self, why: str, now: float) -> bool:
        """End it without mercy: the client gets a 503 or a cut response, the script SIGKILL."""
        if self._process:
            self._process.signal(SIGKILL)
        self._refuse(RequestError(why, status=503), now)
        return self._settle()

    def _settle(self) -> bool:
        """Release everything if it is over; else wait for what can be done next, and for nothing else."""
        client, process = self._client, self._process
        if process and self._prompt and not process.ending:
            process.watch(_END)  # most requests are over then
            return False
        if not client.open and (not process or (process.gone and not process.talks)):
            self.release()
            return True
        if client.open:
            # No reference to it stays here: most exchanges are freed without the garbage collector.
            client.watch(self._heard, more=self._wants_body, early=self._early, leaving=self._settled)
        if process:
            process.watch(_NOTHING if client.pending or client.full else select.EPOLLIN)
        return False

    def _heard(self, mask: int) -> Iterable[object]:
        return (Gone(self),) if self._client.left(mask) else (Ready.CLIENT,)

    # ---- the client -------------------------------------------------------------------------------------

    def _client_ready(self, now: float) -> None:
        client = self._client
        if client.draining:
            client.drain()
            return
        if client.full and self._process:
            self._flow(self._process, now)
        elif client.pending and not self._early:
            self._send(b"", now)
        elif client.open and client.request is None:
            if request := client.read_request():
                self.outcome.request = request
                if self._post_buffering and client.missing:
                    self._body = Spool()
                    self._keep(client.first_body(), now)
                    client.send(client.wire.interim())
                else:
                    self._begin(request, now)
            elif client.wire.takes_chunks:
                client.send(client.wire.interim())
                self._progress(now)
        if self._wants_body:
            data = client.read_body()
            if self._process is None and self._body:
                self._keep(data, now)
            else:
                self._feed_script(data, now)

    def _keep(self, data: bytes, now: float) -> None:
        """Keep a part of the body; begin with the request when that was the last."""
        request = self.outcome.request
        assert self._body is not None
        assert request is not None
        with _room():
            self._body.put(data)
        self._progress(now)
        if not self._client.missing:
            self._begin(request, now)

    @property
    def _early(self) -> bool:
        """Whether a response waits for the client to have sent its body. Nothing of it was sent then."""
        client, process = self._client, self._process
        return bool(client.missing and client.pending and process and process.listens and not process.ending)

    @property
    def _wants_body(self) -> bool:
        if not self._client.missing or self._answered:
            return False
        return self._process is None or not self._process.pending.next or self._early

    def _begin(self, request: Request, now: float) -> None:
        handler = self._handlers.get(request.modifier1)
        if handler is None:
            raise RequestError(
                f"this server does not handle uwsgi modifier1 {request.modifier1}; "
                "for CGI scripts, nginx needs `uwsgi_modifier1 9;` beside `uwsgi_pass`",
                status=501,
            )
        answer = handler(self._named(request))
        if isinstance(answer, bytes):
            self._answer(answer, now)
        else:
            self._run(answer, request, now)

    def _named(self, request: Request) -> Request:
        """The request with its id, the web server's or one of ours."""
        variables, outcome = request.variables, self.outcome
        known = variables.get(b"REQUEST_ID")
        if known:
            outcome.id = known.decode("utf-8", "backslashreplace")
            return request
        outcome.id = outcome.id or new_id()
        variables = {**variables, b"REQUEST_ID": outcome.id.encode()}
        return Request(request.modifier1, request.modifier2, variables, request.length)

    def _answer(self, data: bytes, now: float) -> None:
        """Send a whole response that no script made."""
        head, blank, _ = data.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/"):
            self.outcome.status = int(head[9:12])
            self.outcome.head_size = len(head) + len(blank)
        self._answered = True
        self._send(head + blank if self._variable(b"REQUEST_METHOD") == b"HEAD" else data, now)

    def _variable(self, name: bytes) -> bytes:
        request = self.outcome.request
        return request.variables.get(name, b"") if request else b""

    def _send(self, data: bytes, now: float) -> None:
        """Send ``data`` of the response after what is pending of it."""
        if data or self._client.pending:
            self._unsent = False
            if self._client.send(data) and not self._prompt:
                self._progress(now)
        if self._answered and not self._client.pending:
            self._hang_up(now)

    def _hang_up(self, now: float) -> None:
        """The client has got everything."""
        self._client.finish()
        if self._client.draining:
            if self._process:
                self._process.close_input()
            self._time.wait(DRAIN, now)

    def client_gone(self, why: str, now: float) -> None:
        """The client has left. If it still waited for its response, nobody wants that now: end the script."""
        client, response = self._client, self._response
        unfed = client.missing > 0 and (self._process is None or self._process.listens)
        complete = response is not None and response.left == 0 and not unfed and not self._redirect
        served = (self._answered or complete) and not client.pending
        client.close()
        self._answered = True
        if not served and client.request and not self.outcome.problem:
            self.outcome.problem = f"the client left{' inside the body of its request' * unfed}: {why}"
            self.outcome.status = self.outcome.status or 499
            if unfed or not (self._script and self._script.persistent):
                self._end_script(now)

    # ---- the script -------------------------------------------------------------------------------------

    def _run(self, script: Script, request: Request, now: float) -> None:
        outcome, variables = self.outcome, request.variables
        self._script = script
        outcome.script = script.name
        self._errors.begin(script.name, outcome.id)
        stdin = None if request.length else self._null
        self._process = Process(self._inbox, script, stdin=stdin, stderr=self._errors.fd, warm=self._warm)
        outcome.pid = self._process.pid
        self._response = Response(
            variables[b"REQUEST_METHOD"],
            variables.get(b"SERVER_PROTOCOL", b""),
            self._client.wire.headers,
            head_limit=script.head_limit,
            nph=script.name.rpartition("/")[2].startswith("nph-"),
            accel=script.redirect == "accel",
        )
        time = self._time
        time.silence = script.timeout
        time.limit(script.first_byte, script.total, now)
        time.moved(now, script.timeout)
        time.go_on(now, PROMPT)
        if request.length:
            self._prompt = False
            if self._body:
                self._process.pending, self._body = self._body, None
            self._feed_script(self._client.first_body(), now)
            if self._client.missing:
                self._client.send(self._client.wire.interim())

    def _feed_script(self, data: bytes, now: float) -> None:
        process = self._process
        if process is None:
            return
        with _room():
            taken = process.feed(data, last=not self._client.missing)
        if taken or data:
            self._progress(now)

    def _script_talks(self, now: float) -> None:
        process = self._process
        if process is None or not process.talks or (self._client.pending and not self._unsent):
            return
        if self._flowing:
            self._flow(process, now)
            return
        while data := process.read():
            if not self._answered:
                self._respond(data, now)
            if not self._prompt:
                self._progress(now)
                self._flowing = len(data) == CHUNK and not self._unsent
                return
        if data == b"":
            process.close_output()
            self._end_of_output(process, now)
        elif self._prompt:
            self._keep_nothing_back(now)

    def _flow(self, process: Process, now: float) -> None:
        """Pass on the body of a large response, as long as nothing is to be done but that."""
        client, response = self._client, self._response
        if self._answered or client.pending or client.missing or not response or response.left == 0:
            self._flowing = client.full = False
            self._script_talks(now)
            return
        client.full = False
        moved = client.splice(process.stream(), WIDE if response.left is None else min(WIDE, response.left))
        if moved:
            response.passed(moved)
            self._progress(now)
            self._finish_if_whole(now)
        elif moved == 0:
            process.close_output()
            self._end_of_output(process, now)

    def _keep_nothing_back(self, now: float) -> None:
        """The script lives: send what was kept for a response in one piece."""
        self._prompt = False
        if self._client.pending:
            self._send(b"", now)
        self._finish_if_whole(now)

    def _respond(self, data: bytes, now: float) -> None:
        response, process = self._response, self._process
        assert response is not None
        assert process is not None
        begun = response.head is not None
        encoded = response.feed(data)
        if response.head and not begun:
            for note in response.head.notes:
                logger.warning("{}: {}", self.outcome.script, note)
            self.outcome.status = response.head.status
            self.outcome.head_size = response.head_size
            self.outcome.head_fields = len(response.head.headers)
            self._time.begun()
            if response.head.kind is Kind.LOCAL_REDIRECT and self._script and self._script.redirect == "internal":
                self._redirect, encoded = encoded, b""
        if response.surplus:
            self.outcome.problem = "the script sent more than its Content-Length announced"
        if self._prompt or (self._client.missing and process.listens):
            self._client.pending += encoded  # in one piece, or early
        else:
            self._send(encoded, now)
        self._finish_if_whole(now)

    def _finish_if_whole(self, now: float) -> None:
        """Finish a response that is as long as announced, whatever the script does beyond it."""
        response, process = self._response, self._process
        fed = process is not None and not process.listens
        if response and response.left == 0 and fed and not self._client.pending and not self._redirect:
            self._finish(now)

    # ---- the end ----------------------------------------------------------------------------------------

    def _end_of_output(self, process: Process, now: float) -> None:
        if process.ending:
            self._conclude(now)
        else:
            # Its exit follows at once, and says whether that was all; or it lives on.
            self._look_for_end(now)
            if not process.ending:
                self._keep_nothing_back(now)
                self._time.wait(SETTLED, now)

    def _look_for_end(self, now: float) -> None:
        """Reap; a script that lives is watched, one whose output somebody holds gets a little time."""
        process = self._process
        if process is None or process.ending:
            return
        if process.reap() is None:
            process.watch_exit()
        elif process.asked_at is not None:
            process.close_output()
            self._time.wait(process.insist(now), now)
        elif not process.talks:
            self._conclude(now)
        else:
            self._time.wait(self._patience, now)

    def _conclude(self, now: float) -> None:
        """Nothing more will come from the script: judge whether what came is a whole response."""
        if self._answered:
            return
        assert self._process is not None
        assert self._response is not None
        ending = self._process.ending
        if ending:
            self._make_room()
        if ending and ending.signal:
            signal = Signals(ending.signal)
            raise ScriptError(f"the script was killed by {signal.name}", remedy=_WHY_KILLED.get(signal, ""))
        self._response.close()
        if self._redirect:
            self._follow(now)
        else:
            self._finish(now)

    def _follow(self, now: float) -> None:
        """Serve the request that a local redirect makes of this one (RFC 3875 §6.2.2).

        What no handler of ours finds, the web server in front may have: then the client asks for it.
        """
        request, response, redirect = self.outcome.request, self._response, self._redirect
        assert request is not None
        assert response is not None
        assert response.head is not None
        assert response.head.location is not None
        variables = redirected(request.variables, response.head.location, hops=self.outcome.redirects)
        self.outcome.redirects += 1
        self._part_with_script()
        self._process = self._response = self._script = None
        self._redirect, self._prompt = b"", True
        try:
            self._begin(msgspec.structs.replace(request, variables=variables, length=0), now)
        except RequestError as error:
            if error.status != 404:
                raise
            self._answer(redirect, now)

    def _finish(self, now: float) -> None:
        if self._answered:
            return
        if self._client.pending:
            self._send(b"", now)
        self._answered = True
        if not self._client.pending:
            self._hang_up(now)

    def _refuse(self, error: RequestError, now: float) -> None:
        """Answer with the error if nothing was sent yet; cut the response otherwise. End the script."""
        if not self.outcome.problem:
            self.outcome.problem, self.outcome.remedy = str(error), error.remedy
        if not self._answered:
            self._answered = True
            if self._unsent:
                self._client.pending = b""
                self._apologise(error, now)
            else:
                self._client.cut()
        self._end_script(now)

    def _apologise(self, error: RequestError, now: float) -> None:
        # The remedy is for whoever runs the server: it goes to the log, not to the client.
        protocol = self._variable(b"SERVER_PROTOCOL") or b"HTTP/1.1"
        headers = self._client.wire.headers + (_RETRY if error.status == 503 else ())
        try:
            self._answer(error_response(error.status, str(error), protocol=protocol, headers=headers), now)
        except ClientLeft:
            self._client.close()

    def _end_script(self, now: float) -> None:
        process = self._process
        if process is None:
            return
        self._prompt = False
        process.pending.clear()
        if process.reap() is not None:
            process.close()
            return
        # Its input stays open: a body that broke off must not pass for a whole one.
        process.end(now)
        self._time.wait(process.insist(now), now)
        self._look_for_end(now)

    # ---- time -------------------------------------------------------------------------------------------

    @property
    def _patience(self) -> float:
        """Seconds for which nothing may move."""
        client = self._client
        held = self._process and self._process.ending and not client.pending and not client.full
        return min(HELD, self._time.silence) if held else self._time.silence

    def _progress(self, now: float) -> None:
        """Something moved; the timer finds out when it fires. Whoever was asked to end gains nothing by it."""
        if self._process is None or self._process.asked_at is None:
            self._time.moved(now, self._patience)

    def _over_limit(self, limit: str) -> None:
        """Give up on a script that has all the time it may take behind it, whatever it does."""
        script, process = self._script, self._process
        if not script or not process or process.ending or process.asked_at is not None:
            return
        if limit == "begin":
            said, option = f"did not begin its response within {script.first_byte:g} s", "cgi-first-byte-timeout"
        else:
            said, option = f"did not end within {script.total:g} s", "cgi-total-timeout` or `harakiri"
        raise ScriptError(f"{script.name} {said} and was ended", status=504, remedy=f"raise `{option}`")

    def _tick_at(self, now: float) -> None:
        if self._prompt and self._process:
            self._prompt = False
            self._time.go_on(now, SETTLED)
            return
        self._settled = True
        self._look_for_end(now)
        if limit := self._time.over(now):
            self._over_limit(limit)
        if self._time.silent(now):
            self._progress(now)  # unless what follows says otherwise
            self._overdue(now)
        if not self._time.silent(now):
            self._time.go_on(now)

    def _overdue(self, now: float) -> None:
        """Nothing moved for long enough: give up on whoever it waited for."""
        client, process = self._client, self._process
        silence = f"for {self._time.silence:g} s"
        if process and process.asked_at is not None:
            client.close()
            self._time.wait(process.insist(now), now)
        elif client.draining:
            client.close()
        elif client.full or (client.pending and not self._early):
            self.client_gone(f"it took nothing {silence}", now)
        elif process is None:
            if not client.begun:
                client.close()  # a browser opens connections that it may never use
                return
            raise RequestError("the request did not arrive in time", status=408, remedy="see `socket-timeout`")
        elif process.ending or not (process.talks or self._answered or self._redirect):
            process.close_output()  # a descendant holds it, or the script lives on without it
            self._conclude(now)
        elif self._wants_body and process.listens:
            raise RequestError(
                f"{client.missing} bytes of the request's body did not arrive: nothing came {silence}",
                status=408,
                remedy="the client is slow or gone; `cgi-timeout` is the limit",
            )
        else:
            raise ScriptError(
                f"{self.outcome.script} was silent {silence} and was ended",
                status=504,
                remedy="raise `cgi-timeout` if it may take that long",
            )

    def release(self) -> None:
        """Give back every descriptor and timer; also after an error of ours."""
        self._time.cancel()
        self._client.close()
        self.outcome.sent = self._client.sent
        if self._body:
            self._body.clear()
        self._part_with_script()

    def _part_with_script(self) -> None:
        process = self._process
        if process:
            self._errors.end()
            if process.reap() is None:
                process.signal(SIGKILL)
            process.close()
            self.outcome.ending = process.ending
        self._make_room()

    def _make_room(self) -> None:
        """Let the mount have its next request: before this one's client can ask again."""
        if self._script and self._script.slot:
            self._script.slot.release()


@contextlib.contextmanager
def _room() -> Iterator[None]:
    """Whatever keeps a body may find no room for it."""
    try:
        yield
    except OSError as error:
        raise RequestError(
            f"no room for the body of the request: {error.strerror}",
            status=507,
            remedy=f"make room in {tempfile.gettempdir()}, or set TMPDIR",
        ) from None


@dataclass(frozen=True, slots=True)
class Gone:
    """The client's end of the connection of this exchange is closed."""

    exchange: Exchange
