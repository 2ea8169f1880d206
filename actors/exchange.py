"""One request on one connection, from its first byte to the script's exit: full duplex, in constant memory.

::

    client ── request body ── intake ──► stdin  ┐
           ◄─ response ────── delivery ─ stdout ├ script      stderr ──► the log
                                                ┘
Every descriptor is non-blocking, and readiness arrives as a message of the runner's inbox; each step tries
what it is about, so a message that comes late or twice is harmless. What one side has not taken is kept, at
most one chunk a direction, and the other side is not read until it is gone: after every step, what is waited
for follows from what is left to do (:meth:`Exchange._settle`).

Here is what happens when, and how long it may take; what happens to the bytes is in ``intake`` and ``delivery``.
"""

import select
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from signal import SIGKILL, SIGTERM
from typing import Protocol

import msgspec

from pyemperor.actors import refusals
from pyemperor.actors.actor import Inbox
from pyemperor.actors.connection import ClientLeft, Connection
from pyemperor.actors.deadlines import Deadlines
from pyemperor.actors.delivery import Delivery
from pyemperor.actors.intake import Intake
from pyemperor.actors.outcome import Outcome, name
from pyemperor.actors.process import LOOK, Process, Ready
from pyemperor.actors.script import GRACE, UNKNOWN, Script, Spawn
from pyemperor.actors.wires import Request, Wire
from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.redirects import redirected

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


class Errors(Protocol):
    """Where a script's stderr goes: a pipe that outlives the request."""

    @property
    def fd(self) -> int: ...
    def begin(self, script: str, request_id: str) -> None: ...
    def end(self) -> None: ...


class Exchange:
    """Serves one accepted connection; :meth:`handle` returns True when it is over."""

    _process: Process | None = None
    _settled = False  # it takes long enough that the client may leave
    _drains = False  # the client was given its time to drain
    #: The signal that asks the script to end, and the seconds until SIGKILL.
    _farewell: tuple[int, float] = SIGTERM, GRACE
    _blind = False  # there is no descriptor that tells of the script's end

    def __init__(
        self,
        inbox: Inbox,
        sock: socket.SocketType,
        wire: Wire,
        outcome: Outcome,
        handlers: Mapping[int, Handler],
        errors: Errors,
        null: int,
        head_timeout: float,
        warm: Spawn | None = None,
        *,
        post_buffering: bool = False,
    ) -> None:
        self.outcome = outcome
        self._inbox = inbox
        self._client = Connection(inbox, sock, wire)
        self._intake = Intake(self._client)
        self._delivery = Delivery(self._client, self.outcome)
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
        return self._first(self._client_ready, now)

    def go_on(
        self, size: int, answer: Script | bytes | RequestError, process: Process | None, now: float
    ) -> bool:
        """Begin in the middle: what came, ``size`` bytes, is the request of the outcome; as :meth:`start`.

        ``answer`` is what its handler decided; ``process``, if any, is its script, which has had its moment.
        """
        request, started_at = self.outcome.request, self.outcome.started_at
        assert request is not None
        self._process = process

        def serve(now: float) -> None:
            self._client.looked_at(request, size)
            if isinstance(answer, RequestError):
                raise answer
            if process is None:
                self._serve(answer, request, now)
                return
            self._runs(process, request, started_at)
            self._time.go_on(now, max(0.0, started_at + SETTLED - now))
            if process.has_spoken:
                self._progress(now)
            self._script_talks(now)

        return self._first(serve, now)

    def deliver(self, rest: bytes, size: int, silence: float, now: float) -> bool:
        """Begin near the end: all that is left to do is to send the ``rest`` of the response; as :meth:`start`.

        ``size`` is that of what came and was not taken, -1 for a client that has said more than its request.
        """
        request = self.outcome.request
        assert request is not None

        def send(now: float) -> None:
            self._client.looked_at(request, size)
            self._client.sent, self._client.pending = self.outcome.sent, rest
            self._delivery.unsent, self._delivery.answered = False, True
            self._delivery.send()

        self._time.silence = silence
        return self._first(send, now)

    def _first(self, step: Callable[[float], None], now: float) -> bool:
        """Take the first step: until then nobody else knows what is to be given back after an error of ours."""
        try:
            over = self._step(step, now)
            if not over and not self._time.running:
                self._time.wait(self._time.silence, now)
        except BaseException:
            self.release()
            raise
        return over

    def handle(self, ready: Ready, now: float) -> bool:
        """Take in one event; True when the exchange is over and everything of it is released."""
        match ready:
            case Ready.CLIENT:
                step = self._client_ready
            case Ready.OUTPUT:
                step = self._script_talks
            case Ready.INPUT:
                step = self._script_listens
            case Ready.EXIT:
                step = self._look_for_end
            case Ready.TICK:
                step = self._tick_at
        return self._step(step, now)

    def _step(self, step: Callable[[float], None], now: float) -> bool:
        try:
            step(now)
        except ClientLeft as error:
            self.client_gone(str(error), now)
        except RequestError as error:
            self._refuse(error, now)
        return self._settle(now)

    def abort(self, why: str, now: float) -> bool:
        """End it without mercy: the client gets a 503 or a cut response, the script SIGKILL."""
        if self._process:
            self._process.signal(SIGKILL)
        self._refuse(RequestError(why, status=503), now)
        return self._settle(now)

    def _settle(self, now: float) -> bool:
        """Release everything if it is over; else wait for what can be done next, and for nothing else."""
        client, process, delivery = self._client, self._process, self._delivery
        if process and delivery.prompt and not process.ending:
            process.watch(_END)  # most requests are over then
            return False
        if not client.open and (not process or (process.gone and not process.talks)):
            self.release()
            return True
        if client.open:
            if client.draining and not self._drains:
                self._begin_to_drain(now)
            # No reference to it stays here: most exchanges are freed without the garbage collector.
            client.watch(self._heard, more=self._wants_body, early=delivery.early, leaving=self._settled)
        if process:
            process.watch(_NOTHING if client.pending or client.full else select.EPOLLIN)
        return False

    def _heard(self, mask: int) -> Iterable[object]:
        # What it has sent before it left is read first: it may be all of the body.
        left = self._client.left(mask) and not (mask & select.EPOLLIN and self._wants_body)
        return (Gone(self),) if left else (Ready.CLIENT,)

    # ---- the client -------------------------------------------------------------------------------------

    def _client_ready(self, now: float) -> None:
        client = self._client
        if client.draining:
            client.drain()
            return
        if client.full:
            self._script_talks(now)
        elif client.pending and not self._delivery.early:
            if self._delivery.send():
                self._progress(now)
        elif client.open and client.request is None:
            self._read_request(now)
        if client.missing and self._wants_body:
            if self._intake.take():
                self._progress(now)
            if not client.missing:
                self._body_here(now)

    def _read_request(self, now: float) -> None:
        client = self._client
        request = client.read_request()
        if request:
            self.outcome.request = request
            if self._post_buffering and client.missing:
                self._intake.keep()
                self._progress(now)
            else:
                self._begin(request, now)
        elif client.wire.announced:
            self.outcome.request = client.wire.announced
            client.ask_for_body()
            self._progress(now)

    def _body_here(self, now: float) -> None:
        request, process = self._client.request, self._process
        if request and self._intake.keeps:
            self._begin(request, now)
        elif process:
            self._settled = False  # from now on, whoever has said all may say so by ending its side
            self._time.go_on(now, SETTLED)
            if not process.talks:
                self._end_of_output(process, now)

    @property
    def _wants_body(self) -> bool:
        if not self._client.missing or self._delivery.answered:
            return False
        return self._intake.takes or self._delivery.early

    def _begin(self, request: Request, now: float) -> None:
        handler = self._handlers.get(request.modifier1)
        if handler is None:
            raise refusals.not_handled(request.modifier1)
        name(self.outcome, request)
        self._serve(handler(request), request, now)

    def _serve(self, answer: Script | bytes, request: Request, now: float) -> None:
        if isinstance(answer, bytes):
            self._answer(answer, now)
        else:
            self._run(answer, request, now)

    def _answer(self, data: bytes, now: float) -> None:
        if self._delivery.answer(data, bodiless=self._bodiless):
            self._progress(now)

    @property
    def _bodiless(self) -> bool:
        return self._variable(b"REQUEST_METHOD") == b"HEAD"

    def _variable(self, name: bytes) -> bytes:
        request = self.outcome.request
        return request.variables.get(name, b"") if request else b""

    def client_gone(self, why: str, now: float) -> None:
        """The client has left. If it still waited for its response, nobody wants that now: end the script."""
        client, delivery, outcome = self._client, self._delivery, self.outcome
        unfed = client.missing > 0 and (self._process is None or self._process.listens)
        served = (delivery.answered or (delivery.complete and not unfed)) and not client.pending
        delivery.give_up()
        if not served and outcome.request and not outcome.problem:
            outcome.problem = f"the client left{' inside the body of its request' * unfed}: {why}"
            if delivery.unsent:
                outcome.status = 499
            if unfed or not self._persistent:
                self._end_script(now)

    @property
    def _persistent(self) -> bool:
        """Whether a script may go on that nobody hears."""
        return self._process is not None and self._process.script.terms.persistent

    def _begin_to_drain(self, now: float) -> None:
        """The client has got everything, and has little time to say what nobody hears."""
        self._drains = True
        # What the script may still read stays open: a body that broke off must not pass for a whole one.
        if self._process is None or self._process.asked_at is None:
            self._time.wait(DRAIN, now)

    # ---- the script -------------------------------------------------------------------------------------

    def _run(self, script: Script, request: Request, now: float) -> None:
        self.outcome.script = script.name
        stdin = None if request.length else self._null
        self._errors.begin(script.name, self.outcome.id)  # before it can say anything
        try:
            process = Process.start(self._inbox, script, stdin=stdin, stderr=self._errors.fd, warm=self._warm)
        except RequestError:
            self._errors.end()
            raise
        self._runs(process, request, now)

    def _runs(self, process: Process, request: Request, now: float) -> None:
        self._process = process
        script, outcome = process.script, self.outcome
        outcome.pid = process.pid
        self._delivery.begin(script, request, process)
        time = self._time
        time.silence = script.terms.timeout
        time.limit(script.terms.first_byte, script.terms.total, now)
        time.moved(now, script.terms.timeout)
        time.go_on(now, PROMPT)
        if request.length:
            self._delivery.prompt = False
            if self._intake.begin(process):
                self._progress(now)

    def _script_listens(self, now: float) -> None:
        if self._intake.feed():
            self._progress(now)

    def _script_talks(self, now: float) -> None:
        process = self._process
        if process is None or not process.talks:
            return
        delivery = self._delivery
        if delivery.pump() and (self._client.open or self._persistent):
            self._progress(now)  # what nobody hears is none
        if delivery.begun:
            self._time.begun()
        if not process.talks or (process.ending and delivery.redirect):
            self._end_of_output(process, now)

    # ---- the end ----------------------------------------------------------------------------------------

    def _end_of_output(self, process: Process, now: float) -> None:
        if process.ending:
            self._conclude(now)
        else:
            # Its exit follows at once, and says whether that was all; or it lives on.
            self._look_for_end(now)
            if not process.ending:
                self._delivery.keep_nothing_back()
                self._time.wait(self._patience if self._goes_on else SETTLED, now)

    @property
    def _goes_on(self) -> bool:
        """Whether a script whose output has ended has more to do before that can be answered: to read, to end."""
        return self._delivery.waits or bool(self._delivery.redirect)

    def _look_for_end(self, now: float) -> None:
        """Reap; a script that lives is watched, one whose output somebody holds gets a little time."""
        process = self._process
        if process is None or process.ending:
            return
        if process.reap() is None:
            self._blind = not process.watch_exit()
        elif process.asked_at is not None:
            process.close_output()
            self._time.wait(process.insist(now), now)
        elif not process.talks or self._delivery.redirect:
            self._conclude(now)
        else:
            self._time.wait(self._patience, now)

    def _conclude(self, now: float) -> None:
        """Nothing more will come from the script: judge whether what came is a whole response."""
        if self._delivery.answered:
            return
        assert self._process is not None
        ending = self._process.ending
        if ending:
            self._process.make_room()  # before this one's client can ask again
            if ending.code < 0:
                raise refusals.script_killed(ending.signal)
        self._delivery.close()
        if self._delivery.redirect:
            self._follow(now)
        elif self._delivery.finish():
            self._progress(now)

    def _follow(self, now: float) -> None:
        """Serve the request that a local redirect makes of this one (RFC 3875 §6.2.2).

        What no handler of ours finds, the web server in front may have: then the client asks for it.
        """
        request, redirect = self.outcome.request, self._delivery.redirect
        assert request is not None
        variables = redirected(request.variables, self._delivery.location, hops=self.outcome.redirects)
        self.outcome.redirects += 1
        self.outcome.status = 0
        self._part_with_script()
        self._process = None
        try:
            self._begin(msgspec.structs.replace(request, variables=variables, length=0), now)
        except RequestError as error:
            if error.status != 404:
                raise
            self._answer(redirect, now)

    def _refuse(self, error: RequestError, now: float) -> None:
        """Answer with the error if nothing was sent yet; cut the response otherwise. End the script."""
        if not self.outcome.problem:
            self.outcome.problem, self.outcome.remedy = str(error), error.remedy
        self.outcome.request = self.outcome.request or self._client.wire.announced
        self._delivery.refuse(error, self._variable(b"SERVER_PROTOCOL"), bodiless=self._bodiless)
        self._end_script(now)

    def _end_script(self, now: float) -> None:
        process = self._process
        if process is None:
            return
        self._delivery.prompt = False
        process.pending.clear()
        if process.reap() is not None:
            process.close()
            return
        # Its input stays open: a body that broke off must not pass for a whole one.
        process.end(now, *self._farewell)
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
        """Something moved; the timer finds out when it fires.

        Whoever was asked to end gains nothing by it, nor does a descendant that talks to nobody.
        """
        process = self._process
        if process is None or (process.asked_at is None and (self._client.open or not process.ending)):
            self._time.moved(now, self._patience)

    def _tick_at(self, now: float) -> None:
        if self._delivery.prompt and self._process:
            self._delivery.prompt = False
            self._time.go_on(now, SETTLED)
            return
        self._settled = self._process is not None
        self._look_for_end(now)
        if limit := self._time.over(now):
            self._over_limit(limit)
        if self._time.silent(now):
            self._progress(now)  # unless what follows says otherwise
            self._overdue(now)
        if not self._time.silent(now):
            self._time.go_on(now, LOOK if self._blind else inf)

    def _over_limit(self, limit: str) -> None:
        """Give up on a script that has all the time it may take behind it, whatever it or its descendants do."""
        process = self._process
        if not process or process.asked_at is not None or (process.ending and not process.talks):
            return
        script = process.script
        if limit == "begin":
            raise refusals.begins_late(script.name, script.terms.first_byte)
        self.outcome.harakiri = True
        self._farewell = script.terms.farewell, script.terms.grace
        doing = process.doing() if script.terms.explain else ""
        raise refusals.ends_late(script.name, script.terms.total, self.outcome.redirects, doing)

    def _overdue(self, now: float) -> None:
        """Nothing moved for long enough: give up on whoever it waited for."""
        client, process, delivery = self._client, self._process, self._delivery
        silence = self._time.silence
        if process and process.asked_at is not None:
            client.close()
            self._time.wait(process.insist(now), now)
        elif client.draining:
            client.close()
        elif client.full or (client.pending and not delivery.early):
            self.client_gone(f"it took nothing for {silence:g} s", now)
        elif process is None:
            if client.begun:
                raise refusals.request_late()
            client.close()  # a browser opens connections that it may never use
        elif process.ending or not (process.talks or delivery.answered or self._goes_on):
            process.close_output()  # a descendant holds it, or the script lives on without it
            self._conclude(now)
        elif self._wants_body and (process.listens or delivery.early):
            raise refusals.body_late(client.missing, silence)
        elif client.open:
            raise refusals.script_silent(self.outcome.script, silence)
        else:
            raise refusals.script_lingers(self.outcome.script, silence)

    # ---- what is given back -----------------------------------------------------------------------------

    def release(self) -> None:
        """Give back every descriptor and timer; also after an error of ours."""
        self._time.cancel()
        self._client.close()
        self.outcome.sent = self._client.sent
        self._intake.clear()
        self._part_with_script()

    def _part_with_script(self) -> None:
        process = self._process
        if process:
            self._errors.end()
            if process.reap() is None:
                process.signal(SIGKILL)
            process.close()
            self.outcome.ending = None if process.ending is UNKNOWN else process.ending


@dataclass(frozen=True, slots=True)
class Gone:
    """The client's end of the connection of this exchange is closed."""

    exchange: Exchange
