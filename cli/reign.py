"""The Emperor's process: sockets, signals, the web server in front, and the Emperor on the main thread.

``pyemperor run FILE`` becomes it; for a scenario with a timeline the player starts it as a child,
``python -P -m pyemperor.cli.reign FILE --link FD [--set NAME=VALUE ...]``, and listens at the link.
"""

import argparse
import contextlib
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pykka
from loguru import logger
from setproctitle import setproctitle

from pyemperor import __version__
from pyemperor.actors.actor import Threads
from pyemperor.actors.administration import Absolve, Origin, Refuse, Reload, RenewWorkers, Status
from pyemperor.actors.clock import monotonic
from pyemperor.actors.control import Control
from pyemperor.actors.credentials import can_act
from pyemperor.actors.emperor import ChildEnded, Companion, Emperor, Govern, Quit
from pyemperor.actors.imperial_host import ImperialForkHost
from pyemperor.actors.journal import Journal
from pyemperor.actors.listeners import SocketVault
from pyemperor.actors.monitor import Monitor, Rescan, Source
from pyemperor.actors.monitor_files import EXTENSIONS, VassalFiles
from pyemperor.actors.overseer import Overseer
from pyemperor.actors.pid_files import PidFiles
from pyemperor.actors.pipe import Pipe
from pyemperor.actors.register import Register, Told
from pyemperor.actors.stats import Stats
from pyemperor.actors.superior import FromParent, ParentLost
from pyemperor.cli.blame import problem
from pyemperor.cli.daemon import Settled, settled
from pyemperor.cli.front import Nginx
from pyemperor.cli.handlers import registered
from pyemperor.cli.logs import call, log_statuses, reopen
from pyemperor.cli.processes import log_level, watch_signals
from pyemperor.cli.scenarios import read_scenario
from pyemperor.cli.service_manager import service_manager
from pyemperor.cli.vassal_reader import RootWarnings, VassalReader, empty_mounts
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.frames import encode
from pyemperor.protocol.messages import Trace
from pyemperor.protocol.options import EmperorOptions, Vassal, placed
from pyemperor.protocol.scenario import Scenario

#: sysexits.h: a defect of ours ended the Emperor; the masters finish what they accepted, and end.
_EX_SOFTWARE = 70
#: What no vassal's claim to its sockets is called.
_STATS = "emperor-stats://"


@dataclass(frozen=True, slots=True)
class _Signals:
    """What signals tell the Emperor, on its own thread."""

    emperor: Emperor
    monitor: Companion | None

    def __call__(self, number: int) -> object:
        emperor, now = self.emperor, monotonic()
        match number:
            case signal.SIGCHLD:
                return ChildEnded()
            case signal.SIGHUP:
                return Reload()
            case signal.SIGUSR1:
                reopen(emperor.vassals)
                log_statuses(emperor.handle(Status(), now))
            case signal.SIGWINCH:
                if self.monitor is not None:
                    self.monitor.tell(Rescan())
            case signal.SIGUSR2:
                log_statuses(emperor.handle(Status(), now))
            case signal.SIGURG:
                for one in emperor.handle(Status(), now):
                    emperor.handle(Absolve(one.name, lambda _: None), now)
            case _:
                return Quit(signal.Signals(number).name)
        return Status()  # nobody hears the answer


_HEARD = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGURG,
    signal.SIGWINCH,
    signal.SIGCHLD,
)  # fmt: skip


def reign(
    scenario: Scenario,
    *,
    link: socket.socket | None = None,
    begun: Callable[[SocketVault], None] = lambda _: None,
) -> int:
    """Run the Emperor until it is told to quit; the value is the exit code.

    Besides the vassals of ``scenario`` it governs those of its imperial monitors (the option ``emperor``:
    ``dir://FOLDER``, ``glob://PATTERN``, or a path).
    ``link`` carries traces up and faults down. ``begun`` is called once the sockets are bound. Raises
    ConfigError when a socket cannot be bound or the front cannot be started; then nothing was started.
    """
    setproctitle(scenario.emperor.emperor_procname or "pyemperor emperor")
    with settled(scenario.emperor, level=log_level(link is not None)) as process:
        return _reign(scenario, link, begun, process)


def _reign(
    scenario: Scenario, link: socket.socket | None, begun: Callable[[SocketVault], None], process: Settled
) -> int:
    _look_at_tyranny(scenario.emperor)
    _look_at_python(scenario.emperor)
    sources = [source_of(uri, scenario.emperor) for uri in scenario.emperor.emperor]
    vault = SocketVault()
    front = None
    try:
        for vassal in scenario.vassals:
            vault.bind(vassal)
            for note in empty_mounts(vassal):
                logger.bind(actor=f"master:{vassal.name}").warning("{}", note)
        if scenario.front.kind == "nginx":
            front = Nginx(scenario.vassals, str(scenario.front.listen))
        stats = _bind_stats(vault, scenario.emperor)
        begun(vault)
        return _rule(scenario, vault, link, sources, process, stats)
    finally:
        if front is not None:
            front.stop()
        vault.close()


def _look_at_python(options: EmperorOptions) -> None:
    """Whoever we are now must be able to start the fork server."""
    if not os.access(sys.executable, os.X_OK):
        found = f"{options.uid or options.gid} may not run {sys.executable}"
        raise problem("uid", found, "install PyEmperor where everybody may read it, such as /opt/pyemperor")


def _bind_stats(vault: SocketVault, options: EmperorOptions) -> socket.socket | None:
    """Listen for who wants statistics; ``vault`` closes it at the end. Raises ConfigError."""
    if (address := options.emperor_stats) is None:
        return None
    try:
        vault.bind(Vassal("emperor-stats", socket=(address,)), claim=_STATS)
    except ConfigError as error:
        raise problem("emperor-stats", error.problems[0].found, error.problems[0].remedy) from None
    return socket.socket(fileno=os.dup(vault.fds(_STATS)[0]))


def _look_at_tyranny(options: EmperorOptions) -> None:
    """Who is not root cannot run vassals as others."""
    if options.emperor_tyrant and not can_act():
        remedy = "remove uid and gid" if options.uid or options.gid else "start it as root"
        raise problem("emperor-tyrant", "only root can run each vassal as the owner of its file", remedy)


def source_of(uri: str, options: EmperorOptions) -> Source:
    """The source of vassals that ``uri`` names; raises ConfigError for one of a kind that there is not."""
    kind, separator, _ = uri.partition("://")
    if separator and kind not in ("dir", "glob"):
        found = f"there is no imperial monitor {kind}://"
        unknown = Problem("command line", 0, "emperor", found, "dir://FOLDER or glob://PATTERN")
        raise ConfigError(placed(unknown, options.places, options.emperor.index(uri)))
    endings = (*EXTENSIONS, *options.emperor_extra_extension)
    return VassalFiles(uri, VassalReader(options), endings, nofollow=options.emperor_nofollow)


def _rule(
    scenario: Scenario,
    vault: SocketVault,
    link: socket.socket | None,
    sources: Sequence[Source],
    process: Settled,
    stats: socket.socket | None,
) -> int:
    def host(actor: Overseer) -> ImperialForkHost:
        level = log_level(link is not None)
        module = "pyemperor.cli.fork_server"
        style = scenario.emperor.log_style
        command = [sys.executable, "-P", "-m", module, "{fd}", files, style, level, *registered()]
        return ImperialForkHost(actor.actor_inbox, None, vault.fds, command=command)

    files = "{}:{}".format(*_open_files())
    manager = service_manager(os.environ)
    listener = manager if link is None else None  # whoever plays a scenario is the service then
    journal = Journal("emperor")
    vassals = [Govern(vassal) for vassal in scenario.vassals]
    # A player shows nothing but what its scenario is about.
    warn = RootWarnings().hear if link is None else lambda _: None

    def overhear(message: object) -> None:
        _name(message)
        warn(message)

    for govern in vassals:
        overhear(govern)
    emperor = Emperor(
        Threads(),
        host,
        journal,
        scenario.emperor,
        vault,
        vassals,
        listener=listener,
        pid_files=PidFiles(),
    )
    inbox = emperor.actor_inbox
    if link is not None:
        journal.up = Pipe(inbox, link, lambda message, _: FromParent(message), ParentLost).send
    monitor = _watch_vassals(emperor, scenario, sources, overhear)
    watch_signals(inbox, _Signals(emperor, monitor), *_HEARD)
    ref = emperor.actor_ref
    if (sock := process.control) is not None:
        # Whoever waits there hears when we are gone.
        emperor.accompany("control socket", lambda: Control.start(Threads(), ref, sock, owner=ref))
    if stats is not None:
        Stats.start(Threads(), ref, stats, scenario.emperor, time.time)
    if sources:
        watched = ", ".join(scenario.emperor.emperor)
        logger.bind(actor="emperor", event="reign").info("PyEmperor {} watches {}", __version__, watched)
    process.up_with(inbox)
    emperor.run_here()
    if monitor is not None:
        monitor.stop()
    if listener is not None:
        listener.notify("STATUS=The Emperor is buried.")
    if emperor.failure is not None:
        return _EX_SOFTWARE
    logger.bind(actor="emperor", event="buried").info("the Emperor is buried: every process has ended")
    return emperor.exit_code


def _name(message: object) -> None:
    """Have the log in uWSGI's words call vassals by their files."""
    match message:
        case Govern(vassal=Vassal(name=name), origin=Origin(id=id)) | Refuse(name=name, origin=Origin(id=id)):
            call(name, id)


def _open_files() -> tuple[int, int]:
    """Have as many files open as we may, the fork server too: each vassal has a socket, each master an office.

    Return the former limit, which is that of all others.
    """
    former = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return former


def _watch_vassals(
    emperor: Emperor, scenario: Scenario, sources: Sequence[Source], overhear: Callable[[object], None]
) -> Companion | None:
    """Start the imperial monitor, if there is anything to watch; ``overhear`` gets what the Emperor is told."""
    if not sources and not any(map(_touch_files, scenario.vassals)):
        return None

    def tell(message: object) -> None:
        overhear(message)
        with contextlib.suppress(pykka.ActorDeadError):  # it has ended, and needs no vassals any more
            emperor.actor_ref.tell(message)

    register = Register()  # what one monitor has told the Emperor the next one need not

    def engage() -> pykka.ActorRef[Any]:
        return Monitor.start(
            Threads(),
            sources,
            tell,
            scenario.emperor.emperor_freq,
            touch_files=_touch_files,
            static=scenario.vassals,
            register=register,
            owner=emperor.actor_ref,
        )

    return emperor.accompany("imperial monitor", engage)


def _touch_files(vassal: Vassal) -> dict[str, Told]:
    """What follows when a file of the vassal is touched; a reload includes its workers."""

    def renew_workers(name: str) -> RenewWorkers:
        return RenewWorkers(name, "touch-workers-reload")

    return {
        **dict.fromkeys(vassal.touch_workers_reload, renew_workers),
        **dict.fromkeys((*vassal.touch_reload, *vassal.touch_chain_reload), Reload),
    }


def main(arguments: list[str]) -> int:
    """Run as the child of a player."""
    parser = argparse.ArgumentParser(prog="pyemperor.cli.reign")
    parser.add_argument("file")
    parser.add_argument("--link", type=int, required=True)
    parser.add_argument("--set", action="append", default=[])
    parsed = parser.parse_args(arguments)
    parameters: Mapping[str, str] = dict(pair.split("=", 1) for pair in parsed.set)
    link = socket.socket(fileno=parsed.link)
    try:
        return reign(read_scenario(parsed.file, parameters), link=link)
    except ConfigError as error:
        for problem in error.problems:
            link.sendall(encode(Trace(monotonic(), "emperor", "log", "", 0, str(problem))))
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
