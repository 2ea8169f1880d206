"""Plays a scenario on this machine: the actor that carries out what its timeline commands.

The Emperor is a child process. Its traces come up a link, faults go down the same link or as signals, and
requests go in where a web server's would.
"""

import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pyemperor.actors.actor import Actor, System
from pyemperor.actors.linux import living_descendants
from pyemperor.actors.pipe import Pipe
from pyemperor.cli.havoc import Send, Signal
from pyemperor.cli.load import Client, Door, Finished, Nudge
from pyemperor.cli.processes import watch_signals
from pyemperor.cli.timeline import (
    Abandon,
    Ask,
    Command,
    Ended,
    Event,
    Heard,
    Interrupted,
    Over,
    Quit,
    Show,
    Start,
    Timeline,
    Wake,
)
from pyemperor.cli.traffic import Answered
from pyemperor.protocol.messages import Message, Trace
from pyemperor.protocol.scenario import Scenario


class _LinkLost:
    """The Emperor's end of the link is closed: its death is reported by its pidfd."""


class _Gone:
    """The Emperor's process is gone; what it said before may still lie in the link."""


class Player(Actor):
    """One real run of ``scenario``. It must run on the main thread, for the signals."""

    def __init__(
        self,
        system: System,
        scenario: Scenario,
        timeline: Timeline,
        emperor: "subprocess.Popen[bytes]",
        link: socket.socket,
        show: Callable[[Trace], None],
    ) -> None:
        super().__init__(system)
        #: What ended it, if it was not the end of the timeline.
        self.error: BaseException | None = None
        self._timeline = timeline
        self._emperor = emperor
        self._pidfd = os.pidfd_open(emperor.pid)
        self._show = show
        self._clients: set[Client] = set()
        self._doors = {vassal.name: Door.of(vassal, scenario.front) for vassal in scenario.vassals}
        inbox = self.actor_inbox
        self._link = Pipe(inbox, link, lambda message, _: message, lambda _: _LinkLost())
        inbox.watch(self._pidfd, select.EPOLLIN, self._gone)
        watch_signals(inbox, _interrupted, signal.SIGINT, signal.SIGTERM)

    def on_start(self) -> None:
        self._event(Start(self._emperor.pid), self.system.now())

    def handle(self, message: Any, now: float) -> None:
        match message:
            case Finished(client=client, status=status):
                self._clients.discard(client)
                self._event(Answered(client.turn, status, now - client.began), now)
            case Nudge(client=client):
                self._moved(client.nudge(now), now)
            case _Gone():
                # Timers come after descriptors: by then everything that it said is heard.
                self.after(0, Ended(self._emperor.wait()))
            case Trace():
                self._event(Heard(message), now)
            case Message() | _LinkLost():
                pass
            case _:
                self._event(message, now)

    def _gone(self, _mask: int) -> Iterable[object]:
        self.actor_inbox.unwatch(self._pidfd)
        return (_Gone(),)

    def _event(self, event: Event, now: float) -> None:
        for command in self._timeline.handle(event, now):
            self._do(command, now)

    def _do(self, command: Command, now: float) -> None:
        match command:
            case Show(trace=trace):
                self._show(trace)
            case Wake(at=at, event=event):
                self.after(max(0.0, at - now), event)
            case Ask(turn=turn, load=load):
                client = Client(self.actor_inbox, self._doors[load.vassal], turn, load, now)
                self._clients.add(client)
                self._moved(client.connect(), now)
            case Signal(pid=pid, number=number):
                send_signal(pid, number)
            case Send(inject=inject):
                self._link.send(inject)
            case Quit():
                send_signal(self._emperor.pid, signal.SIGTERM)
            case Abandon():
                kill_all([self._emperor.pid, *living_descendants([self._emperor.pid])])
            case Over():
                self.stop()

    def _moved(self, messages: Iterable[object], now: float) -> None:
        for message in messages:
            self.handle(message, now)

    def on_stop(self) -> None:
        self._close()

    def on_failure(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        self.error = error
        self._close()

    def _close(self) -> None:
        for client in self._clients:
            client.close()
        self._link.close()
        os.close(self._pidfd)


def scripts(worker: int) -> list[int]:
    """The scripts that a worker runs now, and what they have started."""
    return living_descendants([worker])


def send_signal(pid: int, number: int) -> None:
    """Signal ``pid``; it may be gone already, which its supervisor reports better."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def kill_all(pids: Sequence[int]) -> None:
    """SIGKILL them all."""
    for pid in pids:
        send_signal(pid, signal.SIGKILL)


def _interrupted(number: int) -> object:
    return Interrupted(signal.Signals(number).name)
