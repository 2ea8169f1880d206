"""The log for a person at a terminal at three in the morning: few lines, in words, the bad ones in colour."""

import time
from functools import lru_cache
from zlib import crc32

from pyemperor.cli.lines import (
    BOLD,
    CYAN,
    DIM,
    GREEN,
    RED,
    YELLOW,
    Before,
    Entry,
    History,
    Served,
    called,
    duration,
    paint,
    size,
)
from pyemperor.protocol.escapes import printable
from pyemperor.protocol.messages import State

_LEVELS = {"WARNING": "WARN"}
_LEVEL_COLOURS = {"WARN": f"{BOLD};{YELLOW}", "ERROR": f"{BOLD};{RED}", "CRITICAL": f"{BOLD};{RED}"}
_STATUS_COLOURS = {2: GREEN, 3: CYAN, 4: YELLOW, 5: RED}
#: Cyan, blue, magenta, and their bright ones: those that mean nothing else.
_ACTOR_COLOURS = ("36", "34", "35", "96", "94", "95")
#: Events that another line says better.
_SAID_ELSEWHERE = frozenset({"start", "restart", "beat", "kill", "probe.sent"})
_URI = 400
_WIDTH = 12


class Pretty:
    """Lines such as ``11:35:36.120 WARN  bench/1      died: killed by signal 9 (pid 4711)``.

    With ``debug`` it also says what is usually of no interest: every step of a process that does well.
    """

    def __init__(self, *, colour: bool = False, debug: bool = False) -> None:
        self._colour = colour
        self._debug = debug
        self._history = History()

    def entry(self, entry: Entry, wall: float) -> str:
        before = self._history.before(entry)
        level, text = _words(entry, before)
        if level == "DEBUG" and not self._debug:
            return ""
        text = printable(text.expandtabs())
        if level in ("ERROR", "CRITICAL"):
            text = self._paint(text, RED)
        elif level == "DEBUG":
            text = self._paint(text, DIM)
        line = self._line(level, entry.actor, wall, text)
        if entry.traceback:
            line += "".join(f"    {printable(row)}\n" for row in entry.traceback.splitlines())
        return line

    def served(self, served: Served, wall: float) -> str:
        problem = served.problem and printable(served.problem)
        if served.remedy:
            problem += f" ({printable(served.remedy)})"
        if not served.method and problem:  # there was no request to speak of
            return self._line(served.level, served.actor, wall, problem)
        uri = served.uri if len(served.uri) <= _URI else f"{served.uri[:_URI]}..."
        status = self._paint(str(served.status), _STATUS_COLOURS.get(served.status // 100, RED))
        ended = f" exit {served.exit}" * bool(served.exit) + f" {served.signal}" * bool(served.signal)
        figures = f"{size(served.rsize)} {duration(served.msecs)}{ended} {_short(served.request_id)}"
        text = f"{printable(served.method)} {printable(uri)} {status} {self._paint(figures.rstrip(), DIM)}"
        return self._line(served.level, served.actor, wall, f"{text}: {problem}" if problem else text)

    def _line(self, level: str, actor: str, wall: float, text: str) -> str:
        level = _LEVELS.get(level, level)
        name = printable(called(actor))
        stamp = f"{_clock(int(wall))}.{int(wall % 1 * 1000):03d}"
        if self._colour:
            padding = " " * (_WIDTH - len(name))
            name = self._paint(name, _actor_colour(name)) + padding
            return (
                f"{self._paint(stamp, DIM)} {self._paint(f'{level:<5}', _LEVEL_COLOURS.get(level, DIM))} "
                f"{name} {text}\n"
            )
        return f"{stamp} {level:<5} {name:<{_WIDTH}} {text}\n"

    def _paint(self, text: str, colour: str) -> str:
        return paint(text, colour) if self._colour else text


@lru_cache(maxsize=4)
def _clock(second: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(second))


@lru_cache(maxsize=256)
def _actor_colour(name: str) -> str:
    """A worker has its vassal's colour, in every process and every run."""
    return _ACTOR_COLOURS[crc32(name.rpartition("/")[0].encode() or name.encode()) % len(_ACTOR_COLOURS)]


# ---- words ------------------------------------------------------------------------------------------------


def _short(request_id: str) -> str:
    """Enough of an id to see which lines belong together; the JSON style has all of it."""
    return f"#{printable(request_id[-8:])}" if request_id else ""


def _words(entry: Entry, before: Before) -> tuple[str, str]:
    """The level and the words for an entry; DEBUG for what nobody needs to see when all is well."""
    if entry.event == "state":
        level, text = _state_words(entry, before)
        return level, text + (f" (pid {entry.pid})" if entry.pid and entry.state != State.CONVICTED else "")
    reason = f": {entry.reason}" if entry.reason else ""
    match entry.event:
        case event if event in _SAID_ELSEWHERE or (event == "exit" and entry.level == "INFO"):
            return "DEBUG", event + reason
        case "stderr":
            return entry.level, f"{entry.message} {_short(entry.request_id)}".rstrip()
        case "loyal":
            return entry.level, "has served its first request"
        case "probe.cleared":
            return "INFO", f"answered {entry.reason}: it is well"
        case "starved":
            return "WARNING", "the machine starves it of CPU: it gets more time to answer"
        case "retire":
            return entry.level, f"is replaced{reason}"
        case "resize":
            return entry.level, f"cheaper{reason}"
        case "credit":
            return entry.level, entry.reason
        case "exit":
            return entry.level, f"is gone{reason}"
    return entry.level, entry.message


def _state_words(entry: Entry, before: Before) -> tuple[str, str]:
    reason = entry.reason
    because = f": {reason}" if reason else ""
    match entry.state:
        case State.READY if before.state != State.SUSPECT:
            if before.again and not entry.attendant:
                return "INFO", "ready again"
            # Whoever reads that the vassal is ready knows it of its workers.
            return "DEBUG" if entry.worker or entry.attendant else "INFO", "ready"
        case State.SUSPECT:
            return "WARNING", "silent: asking it whether it lives"
        case State.CONVICTED:
            return "ERROR", reason
        case State.STOPPING:
            if reason:  # nobody asked it to
                return "WARNING", f"{reason}: it finishes what it accepted"
            return "DEBUG" if entry.worker or entry.attendant else "INFO", "stopping"
        case State.KILLING:
            return "WARNING", "killing it" + because
        case State.BACKOFF:
            return "WARNING", reason
        case State.CURSED:
            return "ERROR", f"cursed, it fails again and again{because}"
        case State.EXILED:
            return "ERROR", f"exiled, it stays down{because}"
        case State.SLEEPING:
            return "INFO", f"sleeps until a connection comes in at {reason}"
        case State.ABSENT if before.state == State.KILLING:
            return "INFO", "ended"  # why was said before
        case State.ABSENT if before.ending:
            return "DEBUG" if entry.worker or entry.attendant else "INFO", "ended" + because
        case State.ABSENT if entry.attendant:
            # "exit code 0" alone: it has done what it was for.
            return ("DEBUG", "done") if reason == "exit code 0" else ("WARNING", f"ended{because}")
        case State.ABSENT:
            return "WARNING", "died" + because
    return "DEBUG", entry.state.lower() + because
