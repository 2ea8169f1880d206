"""Commands of attendants in simulated time: none is run. A step takes no time, but ``sleep 5``; a daemon lasts."""

from pyemperor.actors.program import ProgramEnded
from pyemperor.actors.simulation.processes import SimulatedInbox
from pyemperor.protocol.hooks import Step


class SimulatedHands:
    """Hands that touch nothing (see ``attendants.Hands``). What is ``lasting`` ends when it is signalled."""

    def __init__(self, inbox: SimulatedInbox, *, lasting: bool) -> None:
        self._inbox = inbox
        self._lasting = lasting
        self._pid = 0

    def run(self, argv: list[str], directory: str = "") -> int:
        self._pid += 1
        word, _, seconds = argv[-1].partition(" ")
        if not self._lasting:
            self._inbox.after(float(seconds) if word == "sleep" else 0.0, ProgramEnded(self._pid, ""))
        return self._pid

    def follow(self, pid: int) -> None:
        """Nothing ends by itself."""

    def signal(self, pid: int, number: int) -> None:
        self._inbox.after(0, ProgramEnded(pid, f"killed by signal {number}"))

    def left(self) -> bool:
        return False

    def bury(self, running: int) -> None:
        """Nobody is dead."""

    def pid_in(self, pidfile: str) -> int:
        return 0

    def write_pid(self, pidfile: str, pid: int) -> None:
        """There is no disk."""

    def stamp(self, file: str) -> tuple[int, int]:
        return 0, 0

    def perform(self, step: Step) -> None:
        """There is no disk."""
