"""Programs beside the workers, as uWSGI's ``attach-daemon`` and its relatives describe them. Pure."""

import posixpath
from collections.abc import Callable

import msgspec

from pyemperor.protocol.quantities import flag
from pyemperor.protocol.report import suggest
from pyemperor.protocol.values import Kind, text

#: Linux's numbers of the signals that daemons take orders by (signal(7)).
_SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "KILL": 9, "USR1": 10, "USR2": 12, "TERM": 15, "CONT": 18, "WINCH": 28}
_SIGTERM = _SIGNALS["TERM"]
_OWN_USER = "daemons run as the vassal's uid and gid: write cmd=setpriv --reuid=USER ..., or a vassal of its own"
#: Keys of uWSGI that are not taken, and what to write instead.
_REMEDIES = {
    "uid": _OWN_USER,
    "gid": _OWN_USER,
    "ns_pid": "a systemd unit of its own",
    "stdin": "daemons read /dev/null: write cmd=... < FILE",
}
_SYNONYMS = {"command": "cmd", "exec": "cmd", "daemon": "daemonize"}
_KEYS = ("cmd", "pidfile", "control", "daemonize", "touch", "stopsignal", "reloadsignal", "chdir", "freq")


class Daemon(msgspec.Struct, frozen=True):
    """One program: ``/bin/sh -c command``.

    With a ``pidfile`` it is started only where no process of that file lives. The program writes it itself and
    goes to the background, or else (``foreground``) it is written for it. ``touch`` are files that it is
    restarted for. The end of a ``control`` daemon is the end of the vassal.
    """

    command: str
    pidfile: str = ""
    foreground: bool = True
    control: bool = False
    touch: tuple[str, ...] = ()
    stop_signal: int = _SIGTERM
    #: 0: as ``stop_signal``.
    reload_signal: int = 0
    chdir: str = ""


def attached(value: object, _base: str = "") -> Daemon:
    """Read ``command``."""
    return Daemon(_command(text(value)))


def controlling(value: object, _base: str = "") -> Daemon:
    """Read the ``command`` of a control daemon."""
    return Daemon(_command(text(value)), control=True)


def smart(value: object, base: str = "") -> Daemon:
    """Read ``pidfile command``, of a program that goes to the background."""
    file, _, command = text(value).strip().partition(" ")
    return Daemon(_command(command), pidfile=posixpath.join(base, file), foreground=False)


def smart_foreground(value: object, base: str = "") -> Daemon:
    """Read ``pidfile command``, of a program that stays in the foreground."""
    return msgspec.structs.replace(smart(value, base), foreground=True)


def described(value: object, base: str = "") -> Daemon:
    """Read ``cmd=...,pidfile=...``; a comma in a value is written as ``\\\\,``."""
    given: dict[str, str] = {}
    for pair in _split(text(value)):
        key, equals, content = pair.partition("=")
        name = _SYNONYMS.get(key.strip(), key.strip())
        if name in _REMEDIES:
            raise ValueError(f"no {name} here: {_REMEDIES[name]}")
        if name not in _KEYS:
            raise ValueError(f"no key {name!r}: {suggest(name, [*_KEYS, *_SYNONYMS])}")
        if name in given:
            raise ValueError(f"{name} is given twice")
        # A key alone is a switch that is on.
        given[name] = content if equals else "true"
    pidfile = given.get("pidfile", "")
    return Daemon(
        command=_command(given.get("cmd", "")),
        pidfile=posixpath.join(base, pidfile) if pidfile else "",
        foreground=not pidfile or flag(given.get("daemonize", "false")),
        control=flag(given.get("control", "false")),
        touch=tuple(posixpath.join(base, file) for file in given.get("touch", "").split(";") if file),
        stop_signal=_signal(given.get("stopsignal", str(_SIGTERM))),
        reload_signal=_signal(given["reloadsignal"]) if "reloadsignal" in given else 0,
        chdir=posixpath.join(base, given["chdir"]) if "chdir" in given else "",
    )


def _split(words: str) -> list[str]:
    return [part.replace("\0", ",") for part in words.replace("\\,", "\0").split(",")]


def _command(words: str) -> str:
    command = words.strip()
    if not command:
        raise ValueError("there is no command in it")
    return command


def _signal(word: str) -> int:
    """A signal by its number or its name."""
    name = word.strip().upper().removeprefix("SIG")
    if name.isdigit() and 1 <= int(name) <= 64:
        return int(name)
    if name not in _SIGNALS:
        raise ValueError(f"no signal {word!r}: write a number, or one of SIG{', SIG'.join(_SIGNALS)}")
    return _SIGNALS[name]


def _kind(expected: str, read: Callable[[object, str], Daemon]) -> Kind:
    return Kind("daemon", expected, read)


ATTACHED = _kind("a command", attached)
CONTROLLING = _kind("a command", controlling)
SMART = _kind('"pidfile command"', smart)
SMART_FOREGROUND = _kind('"pidfile command"', smart_foreground)
DESCRIBED = _kind('"cmd=...,pidfile=..."', described)
