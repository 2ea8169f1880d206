"""The log in uWSGI's very words, for the tools and eyes that know them (2.0: core/emperor.c, master.c).

What happens here and not in uWSGI (a probe, a back-off, a remedy) is said in plain lines of its manner.
"""

import os
import re
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from pyemperor.cli.lines import Before, Entry, History, Served, called, ctime, strftime
from pyemperor.protocol.escapes import printable
from pyemperor.protocol.messages import Birth, State

#: Events whose state says it already.
_SAID_ELSEWHERE = frozenset({"start", "restart", "beat", "kill", "probe.sent", "exit"})
#: logging.c formats into a buffer of this size; what the client may choose is left out of a longer line.
_LONGEST = 4096
_SILENCE = re.compile(r"no heartbeat for (\d+)")


class Uwsgi:
    """What the Emperor logs of its vassals, a master of its workers, a worker of its requests.

    ``birth`` is that of the process that logs, None for the Emperor. ``date`` is a strftime format: then every
    line but those of requests begins with it (``log-date``). With ``micros`` requests are timed in microseconds.
    ``ids`` has what uWSGI calls a vassal, by its name, where that differs: its file.
    """

    def __init__(
        self,
        birth: Birth | None = None,
        *,
        date: str = "",
        micros: bool = False,
        ids: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._date = date
        self._micros = micros
        self._ids = ids
        self._history = History()
        self._preamble = _preamble(birth) if birth and birth.kind == "master" else []
        self._cores = birth.vassal.threads if birth else 1

    def entry(self, entry: Entry, wall: float) -> str:
        before = self._history.before(entry)
        if id := self._ids.get(entry.vassal):
            entry = msgspec.structs.replace(entry, vassal=id)
        stamp = f"{strftime(self._date, int(wall)) if self._date else ctime(int(wall))} - "
        if entry.event == "state":
            words = _attendant_state if entry.attendant else self._worker_state if entry.worker else _vassal_state
            lines = words(entry, before, stamp)
        else:
            lines = _event(entry, stamp)
        if self._date:
            lines = [line if line.startswith(stamp) else stamp + line for line in lines]
        lines = [printable(line) for line in lines]
        lines += [f"    {printable(row)}" for row in entry.traceback.splitlines()]
        return "".join(f"{line}\n" for line in lines)

    def served(self, served: Served, wall: float) -> str:
        problem = ""
        if served.problem:
            what = f"{served.method} {served.uri[:_LONGEST]}: " if served.method else ""
            remedy = f" ({served.remedy})" if served.remedy else ""
            problem = printable(f"{served.vassal}: {what}{served.problem}{remedy}") + "\n"
        if not served.method:
            return problem  # nothing that could be called a request
        if served.harakiri:
            problem = f"{ctime(int(wall))} - {_harakiri(served.worker, served.pid)}\n{problem}"
        addr, user, method, uri, proto = map(
            printable, (served.addr, served.user, served.method, served.uri, served.proto)
        )
        if len(addr) + len(user) + len(method) + len(uri) + len(proto) > _LONGEST - 256:
            addr, user, method, uri = "0.0.0.0", "", "-", "-"
        begun = ctime(int(wall - served.msecs / 1000))
        took = f"{int(served.msecs * 1000)} micros" if self._micros else f"{int(served.msecs)} msecs"
        return (
            f"[pid: {served.pid}|app: -1|req: -1/{served.number}] {addr} ({user}) "
            f"{{{served.vars} vars in {served.pktsize} bytes}} [{begun}] {method} {uri} => "
            f"generated {served.rsize} bytes in {took} ({proto} {served.status}) "
            f"{served.headers} headers in {served.hsize} bytes (0 switches on core {served.core})\n{problem}"
        )

    def _worker_state(self, entry: Entry, before: Before, stamp: str) -> list[str]:
        me = f"worker {entry.worker}"
        mine = f"{me} (pid: {entry.pid})"
        match entry.state:
            case State.STARTING if before.again:
                return [f"Respawned uWSGI {me} (new pid: {entry.pid})"]
            case State.STARTING:
                preamble, self._preamble = self._preamble, []
                return [*preamble, f"spawned uWSGI {me} (pid: {entry.pid}, cores: {self._cores})"]
            case State.STOPPING if not entry.reason:
                return [f"Gracefully killing {mine}..."]
            case State.STOPPING:
                return [f"{mine} finishes what it accepted: {entry.reason}"]
            case State.SUSPECT:
                return [f"{mine} is silent: asking it whether it lives"]
            case State.CONVICTED:
                return [f"{mine} is hung: {entry.reason}"]
            case State.KILLING if before.state == State.STOPPING:
                return [f"{stamp}{mine} is taking too much time to die...NO MERCY !!!"]
            case State.KILLING if before.state != State.CONVICTED:
                return [f"{mine} is killed: {entry.reason}"]
            case State.ABSENT if before.state == State.STOPPING and before.ending:
                return [f"{me} buried after {(entry.at or 0.0) - before.at:.0f} seconds"]
            case State.ABSENT if before.ending:
                return [f"{me} killed successfully (pid: {entry.pid})"]
            case State.ABSENT:
                signal = re.search(r"killed by signal \d+", entry.reason)
                how = f", {signal[0]}" if signal else ""
                return [f"DAMN ! {mine} died{how} :( trying respawn ..."]
            case State.BACKOFF | State.CURSED:
                return [f"worker respawning too fast !!! {me}: {entry.reason}"]
            case State.EXILED:
                return [f"{mine} stays down: {entry.reason}"]
        return []


def _attendant_state(entry: Entry, before: Before, _stamp: str) -> list[str]:
    me = f"[uwsgi-daemons] {entry.actor}"
    match entry.state:
        case State.BACKOFF | State.CURSED:
            return [f"{me} respawning too fast !!! {entry.reason}"]
        case State.KILLING | State.CONVICTED:
            return [f"{me} (pid: {entry.pid}) is killed: {entry.reason}"]
        case State.ABSENT if not before.ending and entry.reason != "exit code 0":
            return [f"{me} (pid: {entry.pid}) ended: {entry.reason}"]
    return []


def _vassal_state(entry: Entry, before: Before, stamp: str) -> list[str]:
    name = entry.vassal or entry.actor
    vassal = f"[emperor] vassal {name}"
    cursed = f"{stamp}[emperor] curse the uwsgi instance {name} (pid: {entry.pid})"
    match entry.state:
        case State.STARTING:
            return [f"{stamp}{vassal} has been spawned"]
        case State.READY if before.state != State.SUSPECT:
            return [f"{stamp}{vassal} is ready to accept requests"]
        case State.SUSPECT:
            return [f"{vassal} is silent: asking it whether it lives"]
        case State.CONVICTED:
            silence = _SILENCE.search(entry.reason)
            seconds = f"{silence[1]} seconds" if silence else "a long time"
            return [
                f"{vassal} sent no heartbeat in last {seconds}, brutally respawning it...",
                f"[emperor] {entry.reason}",
            ]
        case State.STOPPING:
            return [cursed if entry.reason else f"{stamp}[emperor] stop the uwsgi instance {name}"]
        case State.KILLING if before.state == State.STOPPING:
            return [f"{stamp}[emperor] NO MERCY for vassal {name} !!!"]
        case State.KILLING if before.state != State.CONVICTED:
            return [f"{vassal} is killed: {entry.reason}"]
        case State.ABSENT:
            removed = f"{stamp}[emperor] removed uwsgi instance {name}"
            asked = before.state in (State.STOPPING, State.KILLING)
            return [removed] if asked else [cursed, f"{vassal} ended: {entry.reason}", removed]
        case State.CURSED:
            throttled = f"{stamp}[emperor] unloyal bad behaving vassal found: {name} throttling it..."
            return [throttled, f"{vassal}: {entry.reason}"]
        case State.BACKOFF:
            return [f"{vassal}: {entry.reason}"]
        case State.EXILED:
            return [f"{vassal} stays down: {entry.reason}"]
        case State.SLEEPING:
            mode = 'back to "on demand" mode' if before.state else '"on demand" instance detected'
            waiting = f'waiting for connections on socket "{entry.reason}" ...'
            return [f"[uwsgi-emperor] {name} -> {mode}, {waiting}"]
    return []


def _event(entry: Entry, stamp: str) -> list[str]:
    match entry.event:
        case event if event in _SAID_ELSEWHERE and entry.level != "ERROR":
            return []
        case "reload":
            return [f"{stamp}[emperor] reload the uwsgi instance {entry.vassal}", f"[emperor] {entry.message}"]
        case "reign":
            return ["*** starting uWSGI Emperor ***", f"[emperor] {entry.message}"]
        case "quit":
            return ["[emperor] *** RAGNAROK EVOKED ***", f"[emperor] {entry.message}"]
        case "harakiri":
            return [f"{stamp}{_harakiri(entry.worker, entry.pid)}", f"{entry.vassal}: {entry.message}"]
        case "loyal":
            return [f"{stamp}[emperor] vassal {entry.vassal} is now loyal"]
        case "buried":
            return [f"{stamp}The Emperor is buried."]
        case "stderr":
            return [entry.message]
        case "status":
            return [f"vassal instance {entry.vassal} status {entry.message}"]
        case "probe.cleared":
            return [f"[emperor] {_name(entry)} answered {entry.reason}: it is alive"]
        case "retire":
            return [f"...The work of process {entry.pid} is done. Seeya! ({_name(entry)}: {entry.reason})"]
        case "resize":
            return [f"cheaper: {entry.reason}"]
        case "pause":
            return [f"{stamp}*** PAUSE (press start to resume, if you do not have a joypad send SIGTSTP) ***"]
        case "resume":
            return [f"{stamp}*** (SIGTSTP received) resuming workers ***"]
        case "starved":
            return [f"[emperor] {_name(entry)} gets more time to answer: the machine starves it of CPU"]
        case "credit":
            return [f"[emperor] {entry.reason}"]
    who = called(entry.actor) if entry.attendant else entry.actor.partition(":")[2] or "emperor"
    return [f"[{who}] {entry.message}"]


def _harakiri(worker: int, pid: int) -> str:
    """Its words; it kills the worker, and all that the worker serves: here it is the script alone."""
    return f"*** HARAKIRI ON WORKER {worker} (pid: {pid}, try: 1) ***"


def _name(entry: Entry) -> str:
    return f"worker {entry.worker} of {entry.vassal}" if entry.worker else f"vassal {entry.vassal}"


def _preamble(birth: Birth) -> list[str]:
    """What uWSGI's master says before its first worker."""
    vassal = birth.vassal
    mode = {(False, False): "single process", (True, False): "preforking", (False, True): "threaded"}.get(
        (vassal.processes > 1, vassal.threads > 1), "preforking+threaded"
    )
    whole, each = vassal.reload_mercy, vassal.worker_reload_mercy
    governs = "reload-mercy clips it" if whole < each else "its own"
    return [
        f"your mercy for graceful operations on workers is {min(whole, each):.0f} seconds",
        f"worker-reload-mercy = {each:.0f} is a worker's ({governs}), reload-mercy = {whole:.0f} the vassal's",
        f"*** Operational MODE: {mode} ***",
        f"spawned uWSGI master process (pid: {os.getpid()})",
    ]
