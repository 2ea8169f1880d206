"""One request on one connection, from its first byte to the script's exit: full duplex, in constant memory.

::

    client ── request body ──► stdin  ┐
           ◄─ response ─────── stdout ├ script      stderr ──► the log
                                      ┘
Every descriptor is non-blocking, and readiness arrives as a message of the runner's inbox, so spurious
readiness is harmless. What one side has not taken is kept, at most one chunk a direction, and the other
side is not read until it is gone.
"""

import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from signal import SIGKILL, SIGTERM
from typing import Protocol

from loguru import logger

from pyemperor.actors.actor import Inbox
from pyemperor.actors.clock import Timer
from pyemperor.actors.script import Process, Script
from pyemperor.actors.wires import Request, Wire
from pyemperor.protocol.cgi_response import HeadParser, ResponseHead, encode_head, error_response
from pyemperor.protocol.errors import RequestError, ScriptError

CHUNK = 65536
#: Seconds between SIGTERM and SIGKILL of a script.
GRACE = 2.0
#: A script that runs longer than this is watched by its pidfd, so that its end is known whatever holds its pipes.
SETTLED = 0.05
#: Seconds for which a descendant may hold the output of a script that has ended.
HELD = 2.0
#: Seconds to take the rest of a body that the script did not read, so that the client reads the answer.
DRAIN = 2.0


class Ready(Enum):
    """What an exchange waits for."""

    CLIENT = auto()
    INPUT = auto()
    OUTPUT = auto()
    ERRORS = auto()
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
    def drain(self) -> None: ...


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
        self._sock = sock
        self._fd = sock.fileno()
        self._wire = wire
        self._handlers = handlers
        self._errors = errors
        self._null = null
        self._head_timeout = head_timeout
        self._head: HeadParser | None = HeadParser()
        self._process: Process | None = None
        self._timeout = head_timeout
        self._deadline = 0.0
        self._tick: Timer | None = None
        self._stdin = self._stdout = self._pidfd = -1
        self._body = b""  # read from the client, not yet taken by the script
        self._unread = 0  # bytes of the body that the client has still to send
        self._response = b""  # made by the script, not yet taken by the client
        self._no_body = False  # HEAD: RFC 3875 §4.3.3
        self._client_mask = -1
        self._paused = False  # the script is not read until the client has taken what it wrote
        self._answered = False  # nothing more will be sent
        self._closed = False
        self._killed = False

    # ---- events ---------------------------------------------------------------------------------------

    def start(self, now: float) -> bool:
        """Begin; most requests lie there already."""
        self.outcome.started_at = now
        self._deadline = now + self._head_timeout
        over = self.handle(Ready.CLIENT, now)
        if not over and self.outcome.request is None:
            self._watch_client(select.EPOLLIN)
            self._rearm(self._head_timeout)
        return over

    def handle(self, ready: Ready, now: float) -> bool:
        """Take in one event; True when the exchange is over and everything of it is released."""
        try:
            match ready:
                case Ready.CLIENT:
                    self._client_ready(now)
                case Ready.OUTPUT:
                    self._output_ready(now)
                case Ready.INPUT:
                    self._feed_script(now)
                case Ready.EXIT:
                    if self._process:
                        self._exited(now)
                case Ready.TICK:
                    self._tick_at(now)
                case Ready.ERRORS:
                    self._errors.drain()
        except RequestError as error:
            self._refuse(error, now)
        return self._over()

    def abort(self, why: str, now: float) -> bool:
        """End it without mercy: the client gets a 503 or a cut response, the script SIGKILL."""
        if self._process:
            self._process.signal(SIGKILL)
        self._refuse(RequestError(why, status=503), now)
        return self._over()

    # ---- the client -------------------------------------------------------------------------------------

    def _watch_client(self, mask: int) -> None:
        if mask != self._client_mask and not self._closed:
            self._client_mask = mask
            # The peer's end is always reported (EPOLLHUP); a TCP peer that only closes shows as EPOLLRDHUP.
            gone = 0 if self._sock.family == socket.AF_UNIX else select.EPOLLRDHUP
            self._inbox.watch(self._fd, mask | gone, self._client_source)

    def _client_source(self, mask: int) -> Iterable[object]:
        if mask & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP) and self.outcome.request:
            return (Gone(self),)
        return (Ready.CLIENT,)

    def _client_ready(self, now: float) -> None:
        if self._closed:
            return
        if self._response:
            self._send_more(now)
        if self.outcome.request and not self._unread:
            return
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self.client_gone(f"{error.strerror}", now)
            return
        if self.outcome.request is None:
            self._request_bytes(data, now)
        elif data:
            self._take_body(self._wire.body(data), now)
        else:
            self._unread = 0  # fewer than announced; the script reads the end
            self._feed_script(now)
            self._watch_client(0)
        if self._answered and not self._unread:
            self._close()

    def _request_bytes(self, data: bytes, now: float) -> None:
        if not data:
            self._wire.close()
            self._close()
            return
        request = self._wire.feed(data)
        if request is None:
            return
        self.outcome.request = request
        self._unread = request.length
        self._no_body = request.variables.get(b"REQUEST_METHOD") == b"HEAD"
        handler = self._handlers.get(request.modifier1)
        if handler is None:
            raise RequestError(
                f"this server does not handle uwsgi modifier1 {request.modifier1}",
                status=501,
                remedy="for CGI scripts, nginx needs `uwsgi_modifier1 9;` beside `uwsgi_pass`",
            )
        answer = handler(request)
        if isinstance(answer, bytes):
            self._head = None
            self._respond(answer, now)
            self._finish(now)
        else:
            self._run(answer, now)

    def client_gone(self, why: str, now: float) -> None:
        """The client has left: nobody reads the response, so the script is ended."""
        if self._answered:
            self._close()
        if self._closed:
            return
        self.outcome.problem = f"the client left: {why}"
        self.outcome.status = self.outcome.status or 499
        self._close()
        self._end_script(now)

    # ---- the script ---------------------------------------------------------------------------------------

    def _run(self, script: Script, now: float) -> None:
        self.outcome.script = script.name
        stdin = self._null
        if self._unread:
            stdin, self._stdin = os.pipe2(os.O_CLOEXEC)
        self._stdout, stdout = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = Process(script, stdin, stdout, self._errors.fd)
        finally:
            os.close(stdout)
            if stdin != self._null:
                os.close(stdin)
        self.outcome.pid = self._process.pid
        self._timeout = script.timeout
        self._deadline = now + script.timeout
        self._rearm(SETTLED)
        os.set_blocking(self._stdout, False)
        self._watch_output()
        if self._stdin >= 0:
            os.set_blocking(self._stdin, False)
            self._respond(self._wire.interim(), now)
            self._take_body(self._wire.body(b""), now)
        else:
            self._watch_client(0)

    def _take_body(self, data: bytes, now: float) -> None:
        self._unread -= len(data)
        if self._stdin < 0:
            return  # the script does not want it; it is taken so that the client reads the answer
        self._body = data
        self._feed_script(now)

    def _feed_script(self, now: float) -> None:
        if self._stdin < 0:
            return
        try:
            while self._body:
                self._body = self._body[os.write(self._stdin, self._body) :]
                self._progress(now)
        except BlockingIOError:
            self._watch_client(0)
            self._inbox.watch(self._stdin, select.EPOLLOUT, lambda _: (Ready.INPUT,))
            return
        except BrokenPipeError:
            # Legal: a script need not read its input (RFC 3875 §4.2).
            self._body = b""
            self._close_stdin()
        if self._unread:
            self._inbox.unwatch(self._stdin)
            self._watch_client(select.EPOLLIN)
        else:
            self._close_stdin()
            self._watch_client(0)

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            self._inbox.unwatch(self._stdin)
            os.close(self._stdin)
            self._stdin = -1

    def _output_ready(self, now: float) -> None:
        if self._stdout < 0 or self._response:
            return
        try:
            data = os.read(self._stdout, CHUNK)
        except BlockingIOError:
            return
        self._progress(now)
        if not data:
            self._end_of_output(now)
        elif self._answered or (self._no_body and self._head is None):
            pass
        elif self._head is None:
            self._respond(data, now)
        else:
            head = self._head.feed(data)
            if head:
                self._send_head(head, self._head.leftover, now)

    def _send_head(self, head: ResponseHead, leftover: bytes, now: float) -> None:
        assert self.outcome.request is not None
        for note in head.notes:
            logger.warning("{}: {}", self.outcome.script, note)
        protocol = self.outcome.request.variables.get(b"SERVER_PROTOCOL", b"HTTP/1.0")
        encoded = encode_head(head, protocol, self._wire.headers)
        self._head = None
        self.outcome.status = head.status
        self.outcome.head_size = len(encoded)
        self.outcome.head_fields = len(head.headers)
        self._respond(encoded if self._no_body else encoded + leftover, now)

    def _respond(self, data: bytes, now: float) -> None:
        self._response += data
        self._send_more(now)

    def _send_more(self, now: float) -> None:
        try:
            while self._response:
                sent = self._sock.send(self._response)
                self.outcome.sent += sent
                self._response = self._response[sent:]
                self._progress(now)
        except BlockingIOError:
            if self._stdout >= 0 and not self._paused:
                self._paused = True
                self._inbox.unwatch(self._stdout)
            self._watch_client(select.EPOLLOUT | (select.EPOLLIN if self._unread and not self._body else 0))
            return
        except OSError as error:
            self.client_gone(f"{error.strerror}", now)
            return
        if self._paused:
            self._paused = False
            self._watch_output()
            self._watch_client(select.EPOLLIN if self._unread and not self._body else 0)

    def _watch_output(self) -> None:
        self._inbox.watch(self._stdout, select.EPOLLIN, lambda _: (Ready.OUTPUT,))

    def _end_of_output(self, now: float) -> None:
        self._close_stdout()
        if self._head is not None and not self._answered:
            self._head.close()
        self._finish(now)
        self._exited(now)

    def _close_stdout(self) -> None:
        if self._stdout >= 0:
            self._inbox.unwatch(self._stdout)
            os.close(self._stdout)
            self._stdout = -1

    def _exited(self, now: float) -> None:
        """Reap; a script that lives on is watched, one whose output somebody holds gets a little time."""
        assert self._process is not None
        if self._process.reap() is None:
            if self._pidfd < 0:
                self._pidfd = os.pidfd_open(self._process.pid)
                self._inbox.watch(self._pidfd, select.EPOLLIN, lambda _: (Ready.EXIT,))
            return
        if self._pidfd >= 0:
            self._inbox.unwatch(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._stdout >= 0:
            self._deadline = min(self._deadline, now + HELD)
            self._rearm(self._deadline - now)

    # ---- the end --------------------------------------------------------------------------------------------

    def _progress(self, now: float) -> None:
        self._deadline = now + self._timeout

    def _rearm(self, seconds: float) -> None:
        if self._tick:
            self._tick.cancel()
        self._tick = self._inbox.after(max(0.0, seconds), Ready.TICK)

    def _tick_at(self, now: float) -> None:
        process = self._process
        if process and self._pidfd < 0 and process.ending is None:
            self._exited(now)
        if now < self._deadline:
            self._rearm(self._deadline - now)
        elif self._answered and not self._closed:
            self._close()  # the client had its time to send the rest of the body
        elif process is None:
            raise RequestError(
                "the request did not arrive in time", status=408, remedy="see `socket-timeout`"
            )
        elif process.ending is not None:
            self._close_stdout()
            self._finish(now)
        elif self._killed:
            process.signal(SIGKILL)
            self._close_stdout()
            self._deadline = now + GRACE
            self._rearm(GRACE)
        else:
            raise ScriptError(
                f"{self.outcome.script} was silent for {self._timeout:g} s and was ended",
                status=504,
                remedy="raise `cgi-timeout` if it may take that long",
            )

    def _refuse(self, error: RequestError, now: float) -> None:
        """Answer with the error if nothing was sent yet; cut the response otherwise. End the script."""
        self.outcome.problem = str(error)
        self.outcome.remedy = error.remedy
        if not self._answered:
            if self._head is None and self.outcome.sent:
                self._cut()
            else:
                self._head = None
                self.outcome.status = error.status
                # The remedy is for whoever runs the server: it goes to the log, not to the client.
                self._respond(error_response(error.status, str(error), headers=self._wire.headers), now)
                self._finish(now)
        self._end_script(now)

    def _end_script(self, now: float) -> None:
        if self._process is None or self._process.reap() is not None:
            self._close_stdin()
            self._close_stdout()
            return
        self._process.signal(SIGTERM)
        self._killed = True
        self._close_stdin()
        self._deadline = now + GRACE
        self._rearm(GRACE)
        self._exited(now)

    def _cut(self) -> None:
        """End a response that had begun so that the client sees it broken, not complete (TCP: by a reset)."""
        if self._sock.family != socket.AF_UNIX:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._answered = True
        self._close()

    def _finish(self, now: float) -> None:
        """The response is complete. What is left of the body is taken first, or the client would see a reset."""
        if self._answered:
            return
        self._answered = True
        if self._unread > 0 and not self._closed:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
            self._close_stdin()
            self._watch_client(select.EPOLLIN)
            self._deadline = now + DRAIN
            self._rearm(DRAIN)
        else:
            self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = self._answered = True
            self._inbox.unwatch(self._fd)
            self._sock.close()

    def _over(self) -> bool:
        if not self._closed or self._stdout >= 0 or (self._process and self._process.ending is None):
            return False
        self.release()
        return True

    def release(self) -> None:
        """Give back every descriptor and timer; also after an error of ours."""
        if self._tick:
            self._tick.cancel()
            self._tick = None
        self._close_stdin()
        self._close_stdout()
        if self._pidfd >= 0:
            self._inbox.unwatch(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self._close()
        if self._process and self._process.reap() is None:
            self._process.signal(SIGKILL)


@dataclass(frozen=True, slots=True)
class Gone:
    """The client's end of the connection of this exchange is closed."""

    exchange: Exchange
