"""What the command says to people: what was started and how to try it, and what is wrong with a file.

On a terminal by rich, which is imported only there; in a pipe as plain text. What is there to be copied
(commands, nginx blocks) is never wrapped, cut or framed.
"""

import linecache
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

import msgspec

from pyemperor import __version__
from pyemperor.cli.front import upstream
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.options import Address, Mount, Vassal
from pyemperor.protocol.scenario import Scenario

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

#: Where a vassal really listens, as ``SocketVault.addresses`` says: a port 0 has become a number.
Listening = Callable[[str], Sequence[tuple[str, int] | str]]
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}
_BLOCK = """\
location {location} {{
    include uwsgi_params;
    uwsgi_modifier1 9;
    uwsgi_pass {upstream};
}}"""


# ---- what was started -------------------------------------------------------------------------------------


def banner(scenario: Scenario, listening: Listening | None = None, *, out: TextIO | None = None) -> None:
    """Say what serves, how to try it, and what to paste into nginx's configuration."""
    out = out or sys.stdout
    begun = _begun(scenario, listening)
    if out.isatty():
        _banner_on_terminal(begun, _console(out))
    else:
        out.write(_plain_banner(begun))
    out.flush()


@dataclass(frozen=True, slots=True)
class _Row:
    vassal: str
    workers: str
    listens: tuple[str, ...]
    serves: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Begun:
    name: str
    description: str
    rows: tuple[_Row, ...]
    tries: tuple[str, ...]
    blocks: tuple[str, ...]


def _begun(scenario: Scenario, listening: Listening | None) -> _Begun:
    vassals = [_bound(vassal, listening) for vassal in scenario.vassals]
    front = str(scenario.front.listen) if scenario.front.kind == "nginx" else ""
    tries = [
        command
        for vassal in vassals
        for mount in vassal.cgi
        if (command := _try(vassal, _script(vassal, mount), scenario.front.listen if front else None))
    ]
    blocks = [
        _BLOCK.format(location=_location(mount), upstream=_quoted(upstream(vassal)))
        for vassal in vassals
        if vassal.socket and not front
        for mount in vassal.cgi
    ]
    rows = tuple(_row(vassal) for vassal in vassals)
    if front:
        rows = (_Row("nginx", "in front", (f"{front} (http)",), ()), *rows)
    watched = tuple(_Row("watching", uri, (), ()) for uri in scenario.emperor.emperor)
    return _Begun(scenario.name, scenario.description, (*rows, *watched), tuple(tries), tuple(blocks))


def _bound(vassal: Vassal, listening: Listening | None) -> Vassal:
    """``vassal`` with the ports that it really got."""
    names = list(listening(vassal.name)) if listening else []
    if len(names) != len(vassal.addresses):
        return vassal
    addresses = tuple(
        address if isinstance(name, str) else msgspec.structs.replace(address, port=name[1])
        for address, name in zip(vassal.addresses, names, strict=True)
    )
    middle = len(vassal.socket)
    return msgspec.structs.replace(vassal, socket=addresses[:middle], http_socket=addresses[middle:])


def _row(vassal: Vassal) -> _Row:
    listens = [f"{address} (uwsgi)" for address in vassal.socket]
    listens += [f"{address} (http)" for address in vassal.http_socket]
    serves = tuple(f"{mount.prefix or '/'} = {mount.path}" for mount in vassal.cgi)
    workers = f"{_number(vassal.processes, 'process')} x {_number(vassal.threads, 'thread')}"
    return _Row(vassal.name, workers, tuple(listens), serves)


def _number(number: int, what: str) -> str:
    plural = "es" if what.endswith("s") else "s"
    return f"{number} {what}{'' if number == 1 else plural}"


def _script(vassal: Vassal, mount: Mount) -> str:
    """The URL path of something that can be asked for: a script that the mount really has."""
    try:
        files = [entry for entry in os.scandir(mount.path) if entry.is_file()]
    except OSError:
        return mount.prefix or "/"  # a single script, or not there yet
    endings = vassal.cgi_allowed_ext or ("",)
    names = sorted(file.name for file in files if file.name.endswith(endings) and os.access(file, os.X_OK))
    best = min(names, key=lambda name: not name.startswith(("hello", "index")), default="")
    return f"{mount.prefix}/{best}"


def _try(vassal: Vassal, path: str, front: Address | None) -> str:
    if front is None and vassal.http_socket:
        front = vassal.http_socket[0]
    if front is None:
        return ""
    if front.kind == "unix":
        return f"curl --unix-socket {front.path} http://localhost{path}"
    host = _ANY.get(front.host, f"[{front.host}]" if ":" in front.host else front.host)
    return f"curl http://{host}:{front.port}{path}"


def _location(mount: Mount) -> str:
    """A folder's location ends in a slash, so that /cgi-bin does not take /cgi-binaries as well."""
    if os.path.isfile(mount.path):
        return _quoted(mount.prefix or "/")
    return _quoted(f"{mount.prefix}/")


def _quoted(word: str) -> str:
    """``word`` as one argument of an nginx directive."""
    if not re.search(r"[\s;{}\"'\\]", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _plain_banner(begun: _Begun) -> str:
    lines = [f"PyEmperor {__version__}: {begun.name}", *([begun.description] if begun.description else []), ""]
    for row in begun.rows:
        lines.append(f"{row.vassal}: {row.workers}")
        lines += [f"  listens on {address}" for address in row.listens]
        lines += [f"  serves {mount}" for mount in row.serves]
    if begun.tries:
        lines += ["", "Try it:", *(f"  {command}" for command in begun.tries)]
    if begun.blocks:
        lines += ["", "For nginx, in a server block:", "", "\n\n".join(begun.blocks)]
    return "\n".join([*lines, "", ""])


def _banner_on_terminal(begun: _Begun, console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble(("PyEmperor", "bold"), f" {__version__}  ", (begun.name, "bold cyan"))
    console.print(head.append(f"  {begun.description}", "dim"), soft_wrap=True)
    console.print()
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim", pad_edge=False)
    for title in ("vassal", "workers", "listens on", "serves"):
        table.add_column(title, overflow="fold")
    for row in begun.rows:
        listens = Text("\n").join(_address(address) for address in row.listens)
        table.add_row(Text(row.vassal, "cyan"), row.workers, listens, Text("\n".join(row.serves)))
    console.print(table)
    if begun.tries:
        console.print("\ntry it", style="dim")
        for command in begun.tries:
            console.print(Text("  " + command, "green"), soft_wrap=True)
    if begun.blocks:
        console.print("\nfor nginx, in a server block", style="dim")
        for block in begun.blocks:
            text = Text(block)
            text.highlight_regex(r"(?m)^\s*[a-z_0-9]+(?=[ \w])", "blue")
            text.highlight_regex(r"[{};]", "dim")
            console.print(text, soft_wrap=True)
    console.print()


def _address(address: str) -> "Text":
    from rich.text import Text

    where, _, protocol = address.rpartition(" ")
    return Text.assemble(where, " ", (protocol, "dim"))


# ---- what is wrong ----------------------------------------------------------------------------------------


def show_problems(error: ConfigError, *, out: TextIO | None = None) -> None:
    """Say on stderr what is wrong in a configuration, where, and what to write instead."""
    _show(error.problems, "red", out or sys.stderr)


def show_warnings(warnings: Sequence[Problem], *, out: TextIO | None = None) -> None:
    """Say on stderr what is odd in a configuration that can be used all the same."""
    _show(warnings, "yellow", out or sys.stderr)


def _show(problems: Sequence[Problem], colour: str, out: TextIO) -> None:
    """One line each where a program may read; on a terminal with the line of the file that it is about."""
    if not out.isatty():
        out.writelines(f"{problem}\n" for problem in problems)
        return
    from rich.text import Text

    console = _console(out)
    for problem in problems:
        where = f"{problem.file}:{problem.line}" if problem.line else problem.file
        text = Text.assemble((where, "bold"), "  ", (problem.key, "cyan"), "\n")
        if source := linecache.getline(problem.file, problem.line).strip() if problem.line else "":
            text.append(f"    {source}\n", "dim")
        text.append(f"    {problem.found}", colour)
        if problem.expected:
            text.append(f"; expected {problem.expected}")
        if problem.remedy:
            text.append(f"\n    {problem.remedy}", "green")
        console.print(text, soft_wrap=True)


def _console(out: TextIO) -> "Console":
    from rich.console import Console

    return Console(file=out, highlight=False, markup=False)
