"""The transcript of a scenario's run on a terminal: its timeline in calm colours, its verdict as a table."""

import io
import shutil
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyemperor.cli.lines import BOLD, DIM, GREEN, MAGENTA, RED, YELLOW, colourful, duration, paint
from pyemperor.cli.transcript import Form, Plain, Verdict
from pyemperor.cli.verdict import NO_ANSWER
from pyemperor.protocol.escapes import printable
from pyemperor.protocol.messages import State, Trace

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_COLOURS: dict[str, str] = {
    State.SPAWNING: DIM,
    State.STARTING: DIM,
    State.STABLE: DIM,
    State.STOPPING: DIM,
    State.SLEEPING: DIM,
    State.READY: GREEN,
    State.SUSPECT: YELLOW,
    State.BACKOFF: YELLOW,
    State.ABSENT: YELLOW,
    State.KILLING: RED,
    State.CONVICTED: RED,
    State.CURSED: RED,
    State.EXILED: RED,
    "start": DIM,
    "exit": YELLOW,
    "kill": RED,
    "request": RED,
    "fault": f"{BOLD};{MAGENTA}",
    "heal": MAGENTA,
}
#: The expectation of something that was met is shown when it is no longer than this.
_SHORT = 40


def form() -> Form:
    """How a run is shown to people: for a terminal, or plain in a pipe."""
    return Terminal(colour=colourful(1)) if sys.stdout.isatty() else Plain()


class Terminal:
    """Entries as :class:`Plain` has them, in colours, each reason once; a table of what was expected and found."""

    def __init__(self, *, colour: bool = True, width: int = 0) -> None:
        self._colour = colour
        self._width = width
        self._plain = Plain()
        self._said: set[tuple[str, str]] = set()

    def entry(self, trace: Trace, at: float) -> str:
        if not self._plain.entry(trace, at):
            return ""
        what = trace.state if trace.event == "state" else f"{trace.event} {trace.state}".rstrip()
        colour = _COLOURS.get(trace.state if trace.event == "state" else trace.event, "")
        clock = self._paint(f"{at:+10.3f}", DIM)
        if colour == YELLOW and trace.reason == "exit code 0":
            colour = DIM
        line = f"{clock}  {printable(trace.actor):<18} {self._paint(what, colour)}"
        told = (trace.actor, trace.reason) in self._said and trace.event != "request"
        self._said.add((trace.actor, trace.reason))
        return line if told or not trace.reason else f"{line}{' ' * (13 - len(what))} {printable(trace.reason)}"

    def verdict(self, verdict: Verdict) -> str:
        from rich.console import Console, Group
        from rich.text import Text

        parts: list[Text | Table] = [Text(f"  ! {problem}", "bold red") for problem in verdict.problems]
        parts += [_findings(verdict), *(_load(name, answers) for name, answers in verdict.loads.items())]
        seed = "" if verdict.seed is None else f" (seed {verdict.seed})"
        said = "every expectation is met" if verdict.met else "FAILED"
        last = Text(f"{verdict.scenario}: {said}{seed}", "bold green" if verdict.met else "bold red")
        page = io.StringIO()
        width = self._width or min(shutil.get_terminal_size().columns, 120)
        console = Console(file=page, force_terminal=True, no_color=not self._colour, width=width)
        console.print(Group(Text(), *parts, Text(), last))
        return page.getvalue().rstrip("\n")

    def _paint(self, text: str, colour: str) -> str:
        return paint(text, colour) if self._colour and colour else text


def _findings(verdict: Verdict) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("", width=3, justify="right")
    table.add_column("expectation", overflow="fold", ratio=3)
    table.add_column("found", overflow="fold", ratio=3)
    table.add_column("expected", overflow="fold", ratio=3)
    for finding in verdict.findings:
        mark = Text("✓", "green") if finding.met else Text("✗", "bold red")
        found = Text(printable(finding.found), "" if finding.met else "bold red")
        told = not finding.met or len(finding.expected) <= _SHORT
        table.add_row(mark, Text(finding.id), found, Text(finding.expected if told else "", "dim"))
    return table


def _load(name: str, answers: Sequence[tuple[str, float]]) -> "Text":
    from rich.text import Text

    statuses = Counter("no answer" if status == NO_ANSWER else status for status, _ in answers)
    counts = ", ".join(f"{number} x {status}" for status, number in sorted(statuses.items()))
    times = [seconds * 1000 for _, seconds in answers]
    middle = f"; median {duration(statistics.median(times))}, slowest {duration(max(times))}" if times else ""
    return Text(f"     {name}: {counts or 'no requests'}{middle}", "dim")
