"""One request on one connection, from its first byte to the script's exit: full duplex, in constant memory.

::

    client ── request body ──► stdin  ┐
           ◄─ response ─────── stdout ├ script      stderr ──► the log
                                      ┘
Every descriptor is non-blocking, and readiness arrives as a message of the runner's inbox; each step tries
what it is about, so a message that comes late or twice is harmless. What one side has not taken is kept, at
most one chunk a direction, and the other side is not read until it is gone: after every step, what is waited
for follows from what is left to do (:meth:`Exchange._await`).
"""

import os
import select
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from signal import SIGKILL, SIGTERM, Signals
from typing import Protocol

from loguru import logger

from pyemperor.actors.actor import Inbox
from pyemperor.actors.clock import Timer
from pyemperor.actors.connection import CHUNK, ClientLeft, Connection
from pyemperor.actors.script import Process, Script, cannot_run
from pyemperor.actors.wires import Request, Wire
from pyemperor.protocol.cgi_response import HeadParser, ResponseHead, encode_head, error_response
from pyemperor.protocol.errors import RequestError, ScriptError

#: Seconds between SIGTERM and SIGKILL of a script.
GRACE = 2.0
#: A script that runs longer than this is watched by its pidfd, so that its end is known whatever holds its
#: pipes; one whose output has ended may take as long to exit, and so tell whether that was all of it.
SETTLED = 0.05
#: Seconds of silence for which a descendant may hold the output of a script that has ended.
HELD = 2.0
#: Seconds to take the rest of a body that the script did not read, so that the client reads the answer.
DRAIN = 2.0
#: Responses that never have a body (RFC 9110 §6.4.1).
_BODILESS = (204, 304)


class Ready(Enum):
    """What an exchange waits for."""

    CLIENT = auto()
    INPUT = auto()
    OUTPUT = auto()
    EXIT = auto()
    TICK = auto()


#: What a ``modifier1`` does with a request: a script to run, or the bytes of the answer.
Handler = Callable[[Request], Script | bytes]


@dataclass(slots=True)
class Outcome:
    """What became of a request, for the log and the counters."""

    request: Request | None = None
    script: str = ""
    pid: int = 0
    status: int = 0
    sent: int = 0
    head_size: int = 0
    head_fields: int = 0
    started_at: float = 0.0
    problem: str = ""
    remedy: str = ""


class Errors(Protocol):
    """Where a script's stderr goes: a pipe that outlives the request."""

    @property
    def fd(self) -> int: ...
    def begin(self, script: str) -> None: ...
    def end(self) -> None: ...


class _Channel:
    """A descriptor of our own, in the wait of the inbox while something is wanted of it."""

    __slots__ = ("_inbox", "_ready", "_watched", "fd")

    def __init__(self, inbox: Inbox, ready: Ready) -> None:
        self.fd = -1
        self._inbox = inbox
        self._ready = ready
        self._watched = 0

    def open(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd

    def want(self, mask: int) -> None:
        """Wait for ``mask``; for nothing at all with 0, or a peer that has closed would be reported for ever."""
        if self.fd < 0 or mask == self._watched:
            return
        self._watched = mask
        if mask:
            self._inbox.watch(self.fd, mask, lambda _: (self._ready,))
        else:
            self._inbox.unwatch(self.fd)

    def close(self) -> None:
        if self.fd >= 0:
            self.want(0)
            os.close(self.fd)
            self.fd = -1


class Exchange:
    """Serves one accepted connection; :meth:`handle` returns True when it is over."""

    def __init__(
        self,
        inbox: Inbox,
        sock: socket.socket,
        wire: Wire,
        handlers: "dict[int, Handler]",
        errors: Errors,
        null: int,
        head_timeout: float,
    ) -> None:
        self.outcome = Outcome()
        self._inbox = inbox
        self._client = Connection(inbox, self._client_source, sock, wire)
        self._handlers = handlers
        self._errors = errors
        self._null = null
        self._process: Process | None = None
        self._stdin = _Channel(inbox, Ready.INPUT)
        self._stdout = _Channel(inbox, Ready.OUTPUT)
        self._pidfd = _Channel(inbox, Ready.EXIT)
        self._body = b""  # read from the client, not yet taken by the script
        self._head: HeadParser | None = HeadParser()  # None: the response has begun
        self._left: int | None = None  # bytes of the response's body that may follow, if that is known
        self._bodiless = False
        self._answered = False  # the response is complete, or given up
        self._ended_at: float | None = None  # when we told the script to end
        self._group = False  # it has, and others of its process group have not
        self._timeout = head_timeout  # seconds of silence that are allowed
        self._deadline = 0.0
        self._tick: Timer | None = None

    # ---- events -----------------------------------------------------------------------------------------

    def start(self, now: float) -> bool:
        """Begin; most requests lie there already."""
        self.outcome.started_at = now
        over = self.handle(Ready.CLIENT, now)
        if not over and self._tick is None:
            self._wait(self._timeout, now)
        return over

    def handle(self, ready: Ready, now: float) -> bool:
        """Take in one event; True when the exchange is over and everything of it is released."""
        try:
            match ready:
                case Ready.CLIENT:
                    self._client_ready(now)
                case Ready.OUTPUT:
                    self._read_script(now)
                case Ready.INPUT:
                    self._feed_script(now)
                case Ready.EXIT:
                    self._exited(now)
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
        if not client.open and self._stdout.fd < 0 and not self._group and (not process or process.ending):
            self.release()
            return True
        client.watch(more=self._wants_body)
        self._stdin.want(select.EPOLLOUT if self._body else 0)
        self._stdout.want(0 if client.pending else select.EPOLLIN)
        return False

    def _client_source(self, mask: int) -> Iterable[object]:
        return (Gone(self),) if self._client.left(mask) else (Ready.CLIENT,)

    # ---- the client -------------------------------------------------------------------------------------

    def _client_ready(self, now: float) -> None:
        client = self._client
        if client.draining:
            client.drain()
            return
        if client.pending:
            self._send(b"", now)
        elif client.open and client.request is None and (request := client.read_request()):
            self._begin(request, now)
        if self._wants_body:
            self._take_body(client.read_body(), now)

    @property
    def _wants_body(self) -> bool:
        return self._client.missing > 0 and not self._body and not self._answered

    def _begin(self, request: Request, now: float) -> None:
        self.outcome.request = request
        handler = self._handlers.get(request.modifier1)
        if handler is None:
            raise RequestError(
                f"this server does not handle uwsgi modifier1 {request.modifier1}; "
                "for CGI scripts, nginx needs `uwsgi_modifier1 9;` beside `uwsgi_pass`",
                status=501,
            )
        answer = handler(request)
        if isinstance(answer, bytes):
            self._answer(answer, now)
        else:
            self._run(answer, now)

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
        if self._client.send(data):
            self._progress(now)
        if self._answered and not self._client.pending:
            self._hang_up(now)

    def _hang_up(self, now: float) -> None:
        """The client has got everything."""
        self._client.finish()
        if self._client.draining:
            self._stdin.close()
            self._body = b""
            self._wait(DRAIN, now)

    def client_gone(self, why: str, now: float) -> None:
        """The client has left. If it still waited for its response, nobody wants that now: end the script."""
        unfed = self._stdin.fd >= 0 and self._client.missing > 0
        self._client.close()
        served = self._answered or (self._left == 0 and not unfed)
        self._answered = True
        if not served and self.outcome.request:
            self.outcome.problem = f"the client left{' inside the body of its request' * unfed}: {why}"
            self.outcome.status = self.outcome.status or 499
            self._end_script(now)

    # ---- the script -------------------------------------------------------------------------------------

    def _run(self, script: Script, now: float) -> None:
        self.outcome.script = script.name
        self._errors.begin(script.name)
        request = self.outcome.request
        assert request is not None
        self._process = self._start(script, bool(request.length))
        self.outcome.pid = self._process.pid
        self._timeout = script.timeout
        self._wait(min(SETTLED, script.timeout), now)
        self._progress(now)
        if request.length:
            self._take_body(self._client.first_body(), now)
            if self._client.missing:
                self._send(self._client.wire.interim(), now)

    def _start(self, script: Script, body: bool) -> Process:
        theirs = []
        try:
            stdin = self._null
            if body:
                stdin, ours = os.pipe2(os.O_CLOEXEC)
                theirs.append(stdin)
                self._stdin.open(ours)
            ours, stdout = os.pipe2(os.O_CLOEXEC)
            theirs.append(stdout)
            self._stdout.open(ours)
            return Process(script, stdin, stdout, self._errors.fd)
        except OSError as error:
            raise cannot_run(script, error) from None
        finally:
            for fd in theirs:
                os.close(fd)

    def _take_body(self, data: bytes, now: float) -> None:
        self._body = data
        self._feed_script(now)

    def _feed_script(self, now: float) -> None:
        if self._stdin.fd < 0:
            self._body = b""  # the script does not want it; it is taken so that the client reads the answer
            return
        try:
            while self._body:
                self._body = self._body[os.write(self._stdin.fd, self._body) :]
                self._progress(now)
        except BlockingIOError:
            return
        except BrokenPipeError:
            # Legal: a script need not read its input (RFC 3875 §4.2).
            self._body = b""
            self._stdin.close()
        if not self._client.missing:
            self._stdin.close()

    def _read_script(self, now: float) -> None:
        if self._stdout.fd < 0 or self._client.pending:
            return
        try:
            data = os.read(self._stdout.fd, CHUNK)
        except BlockingIOError:
            return
        self._progress(now)
        if not data:
            self._end_of_output(now)
        elif not self._answered:
            self._respond(data, now)

    def _respond(self, data: bytes, now: float) -> None:
        encoded = b""
        if self._head is not None:
            head = self._head.feed(data)
            if head is None:
                return
            data = self._head.leftover
            encoded = self._begin_response(head)
        if self._left is not None:
            if len(data) > self._left and not self._bodiless:
                self.outcome.problem = "the script sent more than its Content-Length announced"
            data = data[: self._left]
            self._left -= len(data)
        self._send(encoded + data, now)
        if self._left == 0 and self._stdin.fd < 0 and not self._client.pending:
            self._finish(now)

    def _begin_response(self, head: ResponseHead) -> bytes:
        for note in head.notes:
            logger.warning("{}: {}", self.outcome.script, note)
        self._bodiless = self._variable(b"REQUEST_METHOD") == b"HEAD" or head.status in _BODILESS
        self._left = 0 if self._bodiless else head.content_length
        self._head = None
        encoded = encode_head(head, self._variable(b"SERVER_PROTOCOL"), self._client.wire.headers)
        self.outcome.status = head.status
        self.outcome.head_size = len(encoded)
        self.outcome.head_fields = len(head.headers)
        return encoded

    # ---- the end ----------------------------------------------------------------------------------------

    def _end_of_output(self, now: float) -> None:
        self._stdout.close()
        assert self._process is not None
        if self._process.ending:
            self._conclude(now)
        else:
            self._wait(SETTLED, now)  # its exit follows at once, and says whether that was all; or it lives on
            self._exited(now)

    def _exited(self, now: float) -> None:
        """Reap; a script that lives is watched, one whose output somebody holds gets a little time."""
        process = self._process
        if process is None or process.ending:
            return
        if process.reap() is None:
            if self._pidfd.fd < 0:
                self._pidfd.open(os.pidfd_open(process.pid))
                self._pidfd.want(select.EPOLLIN)
            return
        self._pidfd.close()
        if self._ended_at is not None:
            self._stdout.close()
            self._look_after(process, now)
        elif self._stdout.fd < 0:
            self._conclude(now)
        else:
            self._wait(self._patience, now)

    def _conclude(self, now: float) -> None:
        """Nothing more will come from the script: judge whether what came is a whole response."""
        if self._answered:
            return
        ending = self._process.ending if self._process else None
        if ending and ending.signal:
            raise ScriptError(
                f"the script was killed by {Signals(ending.signal).name}",
                remedy="out of memory? See dmesg" if ending.signal == SIGKILL else "",
            )
        if self._head is not None:
            self._head.close()
        if self._left:
            raise ScriptError(
                f"the script ended {self._left} bytes before the end that its Content-Length announced",
                remedy="let it print the number of bytes that follow, or no Content-Length at all",
            )
        self._finish(now)

    def _finish(self, now: float) -> None:
        if not self._answered:
            self._answered = True
            self._hang_up(now)

    def _refuse(self, error: RequestError, now: float) -> None:
        """Answer with the error if nothing was sent yet; cut the response otherwise. End the script."""
        if not self.outcome.problem:
            self.outcome.problem, self.outcome.remedy = str(error), error.remedy
        if not self._answered:
            self._answered = True
            if self._head is None:
                self._client.cut()
            else:
                self._apologise(error, now)
        self._end_script(now)

    def _apologise(self, error: RequestError, now: float) -> None:
        # The remedy is for whoever runs the server: it goes to the log, not to the client.
        protocol = self._variable(b"SERVER_PROTOCOL") or b"HTTP/1.1"
        try:
            self._answer(
                error_response(error.status, str(error), protocol=protocol, headers=self._client.wire.headers), now
            )
        except ClientLeft:
            self._client.close()

    def _end_script(self, now: float) -> None:
        self._body = b""
        process = self._process
        if process is None or process.reap() is not None:
            for channel in (self._stdin, self._stdout, self._pidfd):
                channel.close()
            return
        # Its input stays open: a body that broke off must not pass for a whole one.
        process.signal(SIGTERM)
        self._ended_at = now
        self._wait(GRACE, now)
        self._exited(now)

    def _look_after(self, process: Process, now: float) -> None:
        """Others of the group get the rest of the script's time to end."""
        self._group = process.left_behind()
        if self._group:
            self._wait(SETTLED, now)

    # ---- time -------------------------------------------------------------------------------------------

    @property
    def _patience(self) -> float:
        """Seconds for which nothing may move."""
        held = self._process and self._process.ending and not self._client.pending
        return min(HELD, self._timeout) if held else self._timeout

    def _progress(self, now: float) -> None:
        """Something moved; the timer finds out when it fires."""
        self._deadline = now + self._patience

    def _wait(self, seconds: float, now: float) -> None:
        """Have :meth:`_overdue` called after ``seconds`` without progress."""
        self._deadline = now + seconds
        if self._tick:
            self._tick.cancel()
        self._tick = self._inbox.after(seconds, Ready.TICK)

    def _tick_at(self, now: float) -> None:
        self._exited(now)
        if now >= self._deadline:
            self._progress(now)  # unless what follows says otherwise
            self._overdue(now)
        if now < self._deadline:
            self._wait(self._deadline - now, now)

    def _overdue(self, now: float) -> None:
        """Nothing moved for long enough: give up on whoever it waited for."""
        client, process = self._client, self._process
        silence = f"for {self._timeout:g} s"
        if process is None and not client.draining:
            raise RequestError("the request did not arrive in time", status=408, remedy="see `socket-timeout`")
        if process and self._ended_at is not None:
            client.close()
            if now < self._ended_at + GRACE:
                self._look_after(process, now)
            else:
                process.signal(SIGKILL)
                self._group = False
                self._stdout.close()
                self._wait(GRACE, now)
        elif client.draining:
            client.close()
        elif client.pending:
            self.client_gone(f"it took nothing {silence}", now)
        elif process and process.ending:
            self._stdout.close()  # a descendant holds it
            self._conclude(now)
        elif self._stdout.fd < 0 and not self._answered:
            self._conclude(now)  # the script lives on without it
        elif self._wants_body and self._stdin.fd >= 0:
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
        if self._tick:
            self._tick.cancel()
            self._tick = None
        for channel in (self._stdin, self._stdout, self._pidfd):
            channel.close()
        self._client.close()
        self.outcome.sent = self._client.sent
        if self._process:
            self._errors.end()
            if self._process.reap() is None:
                self._process.signal(SIGKILL)


@dataclass(frozen=True, slots=True)
class Gone:
    """The client's end of the connection of this exchange is closed."""

    exchange: Exchange
