"""Kinds of values in a configuration: what TOML or INI text gives in, one typed value out.

A reader takes the raw value and raises ``ValueError``, whose text tells the user what to write instead. Those of
numbers are in ``quantities``.
"""

import posixpath
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from pyemperor.protocol.quantities import (
    count,
    flag,
    fraction,
    integer,
    megabytes,
    milliseconds,
    mode,
    number,
    seconds,
    size,
    umask,
)
from pyemperor.protocol.report import did_you_mean

_TCP = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]*):(?P<port>\d{1,5})")
#: Linux: sizeof(sockaddr_un.sun_path) is 108, with the closing NUL.
SUN_PATH = 107
#: Linux: an id has 32 bits, and the last one means "leave it as it is".
_MOST_ID = 2**32 - 2


class Address(msgspec.Struct, frozen=True):
    """Where to listen: a unix socket (``path``; ``@name`` is abstract) or TCP (``host``; "" is any)."""

    kind: Literal["unix", "tcp"]
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path if self.kind == "unix" else f"{host}:{self.port}"

    @property
    def place(self) -> str | int:
        """What addresses that collide have in common: path or port."""
        return posixpath.normpath(self.path) if self.kind == "unix" else self.port

    def collides(self, other: "Address") -> bool:
        """Say whether both cannot be bound at once; port 0 is a free port and collides with nothing."""
        if self.place != other.place or self.kind == "unix":
            return self.place == other.place
        anywhere = {"", "0.0.0.0", "::"}
        same_host = self.host == other.host or self.host in anywhere or other.host in anywhere
        return self.port != 0 and same_host


class Mount(msgspec.Struct, frozen=True):
    """Requests below the URL ``prefix`` ("" is all) are served from ``path``, a folder or one script."""

    prefix: str
    path: str


class Helper(msgspec.Struct, frozen=True):
    """Scripts whose name ends in ``ext`` are run by the program ``argv``, the script's path appended."""

    ext: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: its name and ``unit`` for the docs, ``expected`` for errors, and its reader.

    ``read`` takes the raw value and the folder that relative paths start from. ``scale`` is set where the
    value holds a time, which a scenario may stretch.
    """

    name: str
    expected: str
    read: Callable[[object, str], Any]
    unit: str = ""
    scale: Callable[[Any, float], Any] | None = None


# ---- text ---------------------------------------------------------------------------------------------


def text(value: object) -> str:
    """Read text; a number is taken as it is written."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("write it in quotes")
    if "\0" in str(value):
        raise ValueError("a NUL cannot stand in it")
    return str(value)


def switch(value: object) -> str:
    """Read text, or a switch that is on ("true") or off ("")."""
    if isinstance(value, bool):
        return "true" if value else ""
    result = text(value)
    return "" if result.lower() in ("false", "off", "no", "0") else result


def word(value: object) -> str:
    """Read a name of letters, digits, ``.``, ``_``, ``-``: names stand in targets like ``worker:NAME/1``."""
    if isinstance(value, str) and re.fullmatch(r"[\w.-]+", value, re.ASCII):
        return value
    raise ValueError("use letters, digits, '.', '_' and '-'")


def owner(value: object) -> str:
    """Read a user or group: its name, or its number."""
    result = text(value)
    if not re.fullmatch(r"[^\s:/-][^\s:/]*", result):
        raise ValueError('write a name like "www-data", or a number')
    if result.isdigit() and not (result.isascii() and len(result) <= 10 and int(result) <= _MOST_ID):
        raise ValueError(f"a number of a user or group is at most {_MOST_ID}")
    return result


def owners(value: object) -> str:
    """Read ``user`` or ``user:group``."""
    user, colon, group = text(value).partition(":")
    return owner(user) + (f":{owner(group)}" if colon else "")


def path(value: object, base: str) -> str:
    """Read a path; a relative one starts from the folder ``base``."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("write a path in quotes")
    return posixpath.join(base, value)


def source(value: object, base: str) -> str:
    """Read where vassals come from: a folder, a pattern, or ``scheme://...``; paths become absolute."""
    where = path(value, "")
    scheme, separator, rest = where.partition("://")
    if not separator:
        return posixpath.join(base, where)
    return f"{scheme}://{posixpath.join(base, rest)}" if scheme in ("dir", "glob") else where


def variable(value: object) -> tuple[str, str]:
    """Read ``NAME=value``."""
    name, equals, content = text(value).partition("=")
    if not equals or not name:
        raise ValueError('write "NAME=value"')
    return name, content


# ---- places and programs --------------------------------------------------------------------------------


def address(value: object, base: str) -> Address:
    """Read a socket address: ``host:port``, ``:port``, ``[::1]:port``, a path, or ``@abstract``."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError('write a path or "host:port" in quotes')
    where = value.strip()
    if match := _TCP.fullmatch(where):
        if int(match["port"]) > 65535:
            raise ValueError("a port is at most 65535")
        host = match["host"].strip("[]")
        return Address("tcp", host="" if host == "*" else host, port=int(match["port"]))
    if where.isdigit():
        raise ValueError(f'write ":{where}" for a port')
    if ":" in where and "/" not in where:
        raise ValueError('write "host:port" with the port in digits')
    where = re.sub("^unix:(//)?", "", where)  # nginx's way to write it
    file = where if where.startswith("@") else path(where, base)
    length = len(file.encode(errors="surrogateescape"))  # names of files need not be UTF-8
    if length > SUN_PATH:
        raise ValueError(f"{file} has {length} bytes, the system's limit is {SUN_PATH}")
    return Address("unix", path=file)


def mount(value: object, base: str) -> Mount:
    """Read ``/prefix=folder``, split at the first ``=``, or ``folder`` alone for every URL."""
    prefix, equals, folder = text(value).partition("=")
    if not equals:
        prefix, folder = "", prefix
    elif not prefix.startswith("/"):
        raise ValueError('the prefix begins with a slash: "/cgi-bin=folder"')
    if not folder:
        raise ValueError('write "/cgi-bin=folder"')
    return Mount(prefix.rstrip("/"), path(folder, base))


def helper(value: object, base: str) -> Helper:
    """Read ``.ext=program argument ...``; quotes as in a shell, a program without a slash comes from PATH."""
    ext, equals, command = text(value).partition("=")
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"the command has {str(error).lower()}") from None
    if not equals or not ext or not argv:
        raise ValueError('write ".pl=/usr/bin/perl -T"')
    if "://" in argv[0]:  # uWSGI's sym://
        raise ValueError("a function of a C library cannot be called here: name a program")
    program = path(argv[0], base) if "/" in argv[0] else argv[0]
    return Helper(ext, (program, *argv[1:]))


def table(value: object) -> dict[str, object]:
    """Pass a table on, to be typed by its own rows."""
    if not isinstance(value, dict):
        raise ValueError("write { key = value, ... } or a [table]")
    return value


def choice(*words: str) -> Kind:
    """Make the kind of a value that is one of ``words``."""

    def read(value: object, _base: str) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(did_you_mean(value, words) if isinstance(value, str) else "write it in quotes")
        return value

    return Kind("choice", "one of " + ", ".join(f'"{word}"' for word in words), read)


def _plain(name: str, expected: str, read: Callable[[object], Any], unit: str = "") -> Kind:
    return Kind(name, expected, lambda value, _base: read(value), unit)


#: A time that the machine sets, not the scenario: it never scales.
LATENCY = _plain("time", "a time", seconds, "seconds")
TIME = Kind("time", "a time", LATENCY.read, "seconds", scale=lambda value, factor: value * factor)
COUNT = _plain("count", "a whole number", count)
INTEGER = _plain("integer", "a whole number", integer)
NUMBER = _plain("number", "a number", number)
FRACTION = _plain("fraction", "a number from 0 to 1", fraction)
SIZE = _plain("size", "a number of bytes", size, "bytes")
FLAG = _plain("flag", "true or false", flag)
MODE = _plain("mode", "permission bits", mode)
UMASK = _plain("umask", "octal digits", umask)
MEGABYTES = _plain("megabytes", "a number of megabytes", megabytes, "megabytes")
MILLISECONDS = _plain("milliseconds", "a number of milliseconds", milliseconds, "milliseconds")
TEXT = _plain("text", "text", text)
SWITCH = _plain("switch", "text, or true", switch)
WORD = _plain("name", "a name", word)
OWNER = _plain("owner", "a user or group", owner)
OWNERS = _plain("owner", "user or user:group", owners)
VARIABLE = _plain("variable", "NAME=value", variable)
TABLE = _plain("table", "a table", table)
PATH = Kind("path", "a path", path)
SOURCE = Kind("source", "a folder, a pattern, or scheme://...", source)
ADDRESS = Kind("address", 'a path or "host:port"', address)
MOUNT = Kind("mount", '"/prefix=folder" or "folder"', mount)
HELPER = Kind("helper", '".ext=command"', helper)
