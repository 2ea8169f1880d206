"""Where the control socket is: made by an Emperor that starts, found by whoever wants to talk to one."""

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from loguru import logger

from pyemperor.actors.listeners import SocketVault
from pyemperor.cli.blame import problem
from pyemperor.cli.identity import Identity
from pyemperor.cli.pid_file import make_folder
from pyemperor.protocol.errors import ConfigError
from pyemperor.protocol.options import EmperorOptions, Vassal
from pyemperor.protocol.values import Address

#: How the socket is called in a folder that is PyEmperor's own.
_NAME = "pyemperor/control.sock"
#: What it ends in elsewhere, so that it is found.
_SUFFIX = ".pyemperor.sock"
_OURS = re.compile(r"(/pyemperor/control|\.pyemperor)\.sock$")
_REMEDY = "give it a place of its own: control-socket = PATH, or none"
#: Values of ``control-socket`` that mean that there is to be none.
_NONE = frozenset({"none", "off", "false", "-"})
#: The ids of a socket that this process makes are its own until it has dropped its privileges.
_MODE = 0o600


@contextlib.contextmanager
def control_socket(options: EmperorOptions, identity: Identity | None) -> Iterator[socket.socket | None]:
    """Listen at the Emperor's control socket, which belongs to ``identity``; None when there is to be none.

    To be called before privileges are dropped. A path that was asked for has to work, or it is a ConfigError;
    without one it is the first of :func:`default_paths` that does.
    """
    asked = options.control_socket
    if os.path.basename(asked) in _NONE:
        yield None
        return
    vault = SocketVault()
    bound = _bind_asked(vault, asked, identity) if asked else _bind_any(vault, options, identity)
    try:
        yield bound
    finally:
        if bound is not None:
            bound.close()
        # In a folder that the user who we are now may not write to it stays, and is replaced at the next start.
        vault.release("control")


def default_paths(options: EmperorOptions) -> list[str]:
    """Where the socket is when nobody says: beside the file with the process id, else where such things are."""
    pidfile = options.emperor_pidfile or options.pidfile
    paths = [os.path.splitext(pidfile)[0] + _SUFFIX] if pidfile else []
    if os.geteuid() == 0:
        paths.append(f"/run/{_NAME}")
    elif runtime := os.environ.get("XDG_RUNTIME_DIR"):
        paths.append(os.path.join(runtime, _NAME))
    return paths


def _bind_any(vault: SocketVault, options: EmperorOptions, identity: Identity | None) -> socket.socket | None:
    problems = []
    for path in default_paths(options):
        try:
            return _bind(vault, path, identity)
        except ConfigError as error:
            problems.append(error.problems[0].found)
    if problems:
        logger.warning("nobody can ask this Emperor: {} ({})", "; ".join(problems), _REMEDY)
    return None


def _bind_asked(vault: SocketVault, path: str, identity: Identity | None) -> socket.socket:
    try:
        return _bind(vault, path, identity)
    except ConfigError as error:
        raise problem("control-socket", error.problems[0].found, error.problems[0].remedy) from None


def _bind(vault: SocketVault, path: str, identity: Identity | None) -> socket.socket:
    owner = identity.owner if identity is not None and os.geteuid() == 0 else ""
    with contextlib.suppress(OSError):  # binding says what is wrong
        make_folder(os.path.dirname(path), identity)
    address = Address(kind="unix", path=path)
    vault.bind(Vassal(name="control", socket=(address,), chmod_socket=_MODE, chown_socket=owner))
    return socket.socket(fileno=os.dup(vault.fds("control")[0]))


def running() -> list[str]:
    """The control sockets at which somebody listens in this network namespace, by their names (unix(7))."""
    lines = Path("/proc/net/unix").read_text("utf-8", "surrogateescape").splitlines()[1:]
    # Num RefCount Protocol Flags Type St Inode Path; the flag is __SO_ACCEPTCON.
    rows = (line.split(None, 7) for line in lines)
    return sorted({row[7] for row in rows if len(row) == 8 and int(row[3], 16) & 0x10000 and _OURS.search(row[7])})
