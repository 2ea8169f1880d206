"""The short way of a request: served in one go, if that can be done at once.

Most requests lie there whole, have no body, and their script is over in a moment with a short response. Such a
request needs no events, and nothing of what waits for them: it goes straight through, in local variables. Whatever
turns out otherwise goes on as an :class:`~pyemperor.actors.exchange.Exchange`, from where it stands. Nothing is
lost by that: the bytes of the request are only looked at until the response is out.
"""

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable
from math import inf

import msgspec

from pyemperor.actors.actor import EpollInbox
from pyemperor.actors.connection import LOOK, TAKE
from pyemperor.actors.exchange import PROMPT, Errors, Exchange, Handler
from pyemperor.actors.outcome import Outcome, name
from pyemperor.actors.process import Process
from pyemperor.actors.script import Child, Ending, Script, Spawn, execute, fork_warm, reap
from pyemperor.actors.spool import CHUNK
from pyemperor.actors.wires import Request
from pyemperor.protocol.cgi_response import ResponseHead
from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.response import in_one_piece
from pyemperor.protocol.uwsgi import Modifier, plain_packet
from pyemperor.protocol.variables import body_length, check_vars

_CGI = int(Modifier.CGI)
#: Bytes of the longest packet that goes this way.
_PACKET = 8192
#: Seconds in which a script may begin to talk, and in which one whose output has ended may exit.
_MOMENT, _EXIT = 0.035, 0.01
#: Seconds for which only the end of a script is waited for that was over in its moment, but not at once, when it
#: last ran; and how many are remembered.
_SLOW, _REMEMBERED = 0.02, 1024
#: poll(2) reports the end of a pipe whatever it is asked for.
_END = 0


class Express:
    """Serves the connections of one runner; ``exchange`` makes the exchange of those that take longer."""

    def __init__(
        self,
        inbox: EpollInbox,
        handler: Handler,
        errors: Errors,
        null: int,
        warm: Spawn | None,
        buffer_size: int,
        clock: Callable[[], float],
        exchange: Callable[[socket.SocketType, Outcome], Exchange],
    ) -> None:
        self._inbox = inbox
        self._handler = handler
        self._errors = errors
        self._null = null
        self._warm = warm
        self._buffer_size = buffer_size
        self._clock = clock
        self._exchange = exchange
        self._slow: dict[str, float] = {}

    def serve(self, sock: socket.SocketType, now: float) -> Outcome | Exchange:
        """Serve a connection: what became of its request, if that is over; else the exchange that goes on."""
        outcome = Outcome(started_at=now)
        try:
            size = self._look(sock, outcome)
            request = outcome.request
            if request is None:
                return self._regularly(sock, now)
        except (RequestError, OSError):
            return self._regularly(sock, now)
        name(outcome, request)
        try:
            answer = self._handler(request)
        except RequestError as error:
            return self._go_on(sock, outcome, size, error, now)
        except BaseException:
            sock.close()
            raise
        if isinstance(answer, bytes):
            return self._go_on(sock, outcome, size, answer, now)
        return self._run(sock, outcome, size, answer)

    def _go_on(
        self,
        sock: socket.SocketType,
        outcome: Outcome,
        size: int,
        answer: Script | bytes | RequestError,
        now: float,
        process: Process | None = None,
    ) -> Outcome | Exchange:
        exchange = self._exchange(sock, outcome)
        return outcome if exchange.go_on(size, answer, process, now) else exchange

    def _regularly(self, sock: socket.SocketType, now: float) -> Outcome | Exchange:
        """Begin anew: what is wrong, or still to come, is found again."""
        exchange = self._exchange(sock, Outcome())
        return exchange.outcome if exchange.start(now) else exchange

    def _look(self, sock: socket.SocketType, outcome: Outcome) -> int:
        """See whether the request lies there whole, and has no body; the number of its bytes."""
        try:
            data = sock.recv(_PACKET, LOOK)
        except BlockingIOError:  # we are faster than the client
            if not self._inbox.await_now(sock.fileno(), select.POLLIN, PROMPT):
                return 0
            data = sock.recv(_PACKET, LOOK)
        found = plain_packet(data, _CGI, self._buffer_size)
        if found is not None:
            variables = check_vars(found)
            if body_length(variables) == 0 and variables[b"REQUEST_METHOD"] != b"HEAD":
                outcome.request = Request(data[0], data[3], variables, 0)
        return len(data)

    def _run(self, sock: socket.SocketType, outcome: Outcome, size: int, script: Script) -> Outcome | Exchange:
        pid, child, output = 0, None, -1
        self._errors.begin(script.name, outcome.id)
        outcome.script = script.name
        try:
            output, stdout = os.pipe2(os.O_CLOEXEC)
            try:
                child = fork_warm(script, self._null, stdout, self._errors.fd, self._warm)
                if child is None:
                    pid = execute(script, self._null, stdout, self._errors.fd)
            finally:
                os.close(stdout)
            plain = None
            said, whole = self._hear(output, script, child)
            if child:
                with contextlib.suppress(OSError):  # it does not run; exec can do it as well
                    pid = child.begin()
            outcome.pid = pid
            if whole and pid:
                plain = self._plain(outcome.request, script, said)
                outcome.ending = self._ending(pid, child)
        except BaseException as error:
            if output >= 0:
                os.close(output)
            if not (pid or child) and isinstance(error, OSError):
                # It tries again, and says why not.
                return self._go_on(sock, outcome, size, script, self._clock())
            self._give_up(script, pid, child)
            sock.close()
            raise
        if not pid:
            os.close(output)
            return self._run(sock, outcome, size, msgspec.structs.replace(script, warm=False))
        if plain is None or outcome.ending is None or outcome.ending.code < 0:
            process = Process.running(self._inbox, script, pid, child, output, said, outcome.ending)
            return self._go_on(sock, outcome, size, script, self._clock(), process)
        head, outcome.head_size, response = plain
        outcome.status, outcome.head_fields = head.status, len(head.headers)
        os.close(output)
        if child:
            child.close()
        if script.slot:
            script.slot.release()  # before this one's client can ask again
        self._errors.end()
        return self._send(sock, outcome, size, response, script.terms.timeout)

    def _give_up(self, script: Script, pid: int, child: Child | None) -> None:
        with contextlib.suppress(OSError):
            if pid or child:
                os.killpg(child.begin() if child else pid, signal.SIGKILL)
        if child:
            child.close()
        if script.slot:
            script.slot.release()

    def _hear(self, output: int, script: Script, child: Child | None) -> tuple[bytes, bool]:
        """What the script says within its moment, and whether that is all of it."""
        inbox, slow, said = self._inbox, self._slow, b""
        # The line of a child hangs up when it is known how it ended, which is after its output: one wait for both.
        end = child.line if child else output
        if not inbox.await_now(end, _END, slow.get(script.name, PROMPT)):
            if inbox.empty():  # it was not mail that ended the wait
                slow.pop(script.name, None)
            most = min(_MOMENT, script.terms.timeout, script.terms.first_byte or inf, script.terms.total or inf)
            if not inbox.await_now(output, select.POLLIN, most):
                return b"", False
            said = os.read(output, CHUNK)
            if not inbox.await_now(end, _END, PROMPT):
                return said, False
            if most == _MOMENT:
                if len(slow) >= _REMEMBERED:
                    slow.clear()
                slow[script.name] = _SLOW
        if child and not inbox.await_now(output, _END, 0):
            return said, False  # a descendant holds it, or nothing has begun
        rest = os.read(output, CHUNK)
        return said + rest, len(rest) < CHUNK

    def _plain(
        self, request: Request | None, script: Script, said: bytes
    ) -> tuple[ResponseHead, int, bytes] | None:
        """The response, if there is nothing to do but to send it."""
        assert request is not None
        if script.nph:
            return None
        return in_one_piece(said, request.variables.get(b"SERVER_PROTOCOL", b""), script.terms.head_limit)

    def _ending(self, pid: int, child: Child | None) -> Ending | None:
        """How a script has ended whose output has, unless it lives on."""
        if ending := reap(pid, child):
            return ending
        if child:
            return reap(pid, child) if self._inbox.await_now(child.fileno(), select.POLLIN, _EXIT) else None
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return None  # none is left: an exchange looks after it by the clock
        try:
            return reap(pid, None) if self._inbox.await_now(pidfd, select.POLLIN, _EXIT) else None
        finally:
            os.close(pidfd)

    def _send(
        self, sock: socket.SocketType, outcome: Outcome, size: int, response: bytes, silence: float
    ) -> Outcome | Exchange:
        try:
            outcome.sent = sock.send(response, TAKE)
            if outcome.sent == len(response):
                if len(sock.recv(size + 1, TAKE)) <= size:
                    sock.close()
                    return outcome
                size = -1
        except BlockingIOError:
            pass
        except OSError as error:
            if not outcome.sent:
                outcome.problem = f"the client left: {error.strerror}"
            sock.close()
            return outcome
        exchange = self._exchange(sock, outcome)
        return outcome if exchange.deliver(response[outcome.sent :], size, silence, self._clock()) else exchange
