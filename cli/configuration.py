"""Reads the file of a vassal or of the Emperor: INI, YAML, JSON or XML as uWSGI does, or TOML."""

import contextlib
import fnmatch
import functools
import glob
import grp
import os
import pwd
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from pyemperor import __version__
from pyemperor.actors.confinement import missing_tools
from pyemperor.actors.opened import Opened
from pyemperor.protocol.dialect import Loaded, World, load
from pyemperor.protocol.dialect.bounds import MOST_SETTINGS, at_most
from pyemperor.protocol.dialect.loader import SUFFIXES, split_section
from pyemperor.protocol.dialect_options import emperor_of, vassal_of
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.options import (
    Address,
    EmperorOptions,
    Supervision,
    Vassal,
    emperor_from,
    supervision_from,
    supervision_under,
    vassal_from,
)
from pyemperor.protocol.parameters import each_text
from pyemperor.protocol.report import Report, in_file_order, show
from pyemperor.protocol.scenario import Scenario
from pyemperor.protocol.tables import NEEDLESS
from pyemperor.protocol.toml_lines import parse_toml
from pyemperor.protocol.values import ADDRESS

Warnings = tuple[Problem, ...]
_STARTED = time.time_ns() // 1000


def read_vassal(path: str, emperor: EmperorOptions | None = None, *, reloading: bool = False) -> Vassal:
    """The vassal in the file ``path``; its name is the file's, as uWSGI's Emperor names it.

    ``emperor`` has what is read with each vassal (vassals-include and the like). ``reloading`` is what
    ``if-reload`` asks. What its user should know goes to the log.
    Raises ConfigError with everything that is wrong.
    """
    vassal, warnings = vassal_and_warnings(path, emperor, reloading=reloading)
    _log(warnings, f"master:{vassal.name}")
    return vassal


def read_emperor(path: str) -> EmperorOptions:
    """The Emperor's options in the file ``path``; otherwise as :func:`read_vassal`."""
    options, warnings = emperor_and_warnings(path)
    _log(warnings, "emperor")
    return options


def _log(warnings: Warnings, actor: str) -> None:
    """Log what has not the effect that was meant; that something is needless here, ``check`` says."""
    from loguru import logger  # not above: check needs none

    for note in warnings:
        if note.found != NEEDLESS:
            logger.bind(actor=actor).warning("{}", note)


def vassal_and_warnings(
    path: str, emperor: EmperorOptions | None = None, *, reloading: bool = False, opened: Opened | None = None
) -> tuple[Vassal, Warnings]:
    """The vassal in a file, and what its user should know though it can be used; ``opened`` reads for it."""
    name = os.path.splitext(os.path.basename(split_address(path)[0]))[0]
    opened = opened or Opened()
    outer = supervision_under(emperor or EmperorOptions())
    called_at = address_on_demand(path, emperor, opened) if emperor is not None else None
    if _is_toml(path):
        vassal, warnings = _toml_vassal(path, name, opened, outer, called_at)
    else:
        loaded = _loaded(path, emperor, reloading, opened)
        vassal, warnings = vassal_of(
            loaded, path, name=name, base=_folder(path), supervision=outer, called_at=called_at
        )
    if missing := missing_tools(vassal):
        found = f"{' and '.join(sorted(missing))} not found: the limits and rights of scripts need it"
        raise ConfigError(Problem(path, 0, "", found, remedy="apt-get install util-linux"))
    return vassal, warnings


def address_on_demand(path: str, emperor: EmperorOptions, opened: Opened) -> Address | None:
    """The address at whose first connection the vassal in the file ``path`` starts; None: it starts at once.

    As in uWSGI, a file beside it comes before the folder of sockets. Raises ConfigError.
    """
    if extension := emperor.emperor_on_demand_extension:
        beside = path + extension
        try:
            text = opened.read(beside).partition("\n")[0].strip()
            called_at: Address = ADDRESS.read(text, _folder(path))
            return called_at
        except FileNotFoundError:
            pass  # this vassal is not one of those
        except (OSError, ValueError) as error:
            found = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            expected = ADDRESS.expected.replace('"', "")
            raise ConfigError(Problem(beside, 1, "", found, expected)) from None
    if folder := emperor.emperor_on_demand_directory:
        name = os.path.splitext(os.path.basename(path))[0]
        return Address("unix", path=os.path.join(folder, f"{name}.socket"))
    return None


def emperor_and_warnings(path: str) -> tuple[EmperorOptions, Warnings]:
    """The Emperor's options in a file, and what its user should know though they can be used."""
    if not _is_toml(path):
        return emperor_of(_loaded(path), path, base=_folder(path))
    table, report = _toml(path)
    options = emperor_from(_table(table, "emperor", report), report.at("emperor"), base=_folder(path))
    report.raise_problems()
    return options, in_file_order(report.warnings)


def kind_of(path: str) -> Literal["emperor", "vassal", "scenario"]:
    """What a file is for: one with an ``emperor`` is the Emperor's; TOML with ``[[vassal]]`` is a scenario.

    Raises ConfigError when it cannot be read.
    """
    if not _is_toml(path):
        return "emperor" if any(one.key == "emperor" for one in _loaded(path).settings) else "vassal"
    table, _ = _toml(path)
    if isinstance(table.get("vassal"), dict):
        return "vassal"
    emperor = table.get("emperor")
    if "vassal" not in table and isinstance(emperor, dict) and "emperor" in emperor:
        return "emperor"
    return "scenario"


_PID_FILES = ("pidfile", "pidfile2", "safe_pidfile", "safe_pidfile2")


def run_by(path: str) -> Scenario:
    """What ``pyemperor run`` makes of uWSGI's file of an Emperor or of one vassal.

    An Emperor in uWSGI's dialect speaks uWSGI's words, unless its file says how it wants to log.
    """
    name = os.path.splitext(os.path.basename(split_address(path)[0]))[0]
    if kind_of(path) == "vassal":
        vassal, warnings = vassal_and_warnings(path)
        # Who starts one vassal alone stops and reloads it by its pidfile: that is the Emperor's then.
        pids = {option: getattr(vassal, option) for option in _PID_FILES}
        vassal = msgspec.structs.replace(vassal, **dict.fromkeys(_PID_FILES, ""))
        return Scenario(name, (vassal,), emperor=EmperorOptions(**pids), warnings=warnings)
    options, warnings = emperor_and_warnings(path)
    if not _is_toml(path) and not any(one.key == "log-style" for one in _loaded(path).settings):
        options = msgspec.structs.replace(options, log_style="uwsgi")
    return Scenario(name, (), emperor=options, warnings=warnings)


def split_address(path: str) -> tuple[str, str]:
    """Split ``file:section``; a file that has a colon in its name is itself."""
    return (path, "uwsgi") if os.path.exists(path) or ":" not in path else split_section(path)


# ---- uWSGI's dialect --------------------------------------------------------------------------------------


def world(folder: str, *, reloading: bool = False, opened: Opened | None = None) -> World:
    """This machine, as a configuration in ``folder`` sees it, in the name of whoever ``opened`` reads for."""
    files = opened or Opened()
    uid, gid = (files.owner.uid, files.owner.gid) if files.owner else (os.getuid(), os.getgid())
    return World(
        read=files.read,
        cwd=folder,
        environ=os.environ,
        hostname=socket.gethostname(),
        uid=uid,
        user=_name(pwd.getpwuid, uid),
        gid=gid,
        group=_name(grp.getgrgid, gid),
        cpus=_cpus(),
        version=__version__,
        binary=sys.argv[0],
        started=_STARTED,
        reloading=reloading,
        exists=lambda path: files.ask(_readable, path),
        is_file=lambda path: files.ask(os.path.isfile, path),
        is_dir=lambda path: files.ask(os.path.isdir, path),
        inode=lambda path: files.ask(_inode, path),
        glob=lambda pattern: files.ask(_glob, pattern),
    )


@functools.cache
def _cpus() -> int:
    return os.cpu_count() or 1


def _loaded(
    path: str,
    emperor: EmperorOptions | None = None,
    reloading: bool = False,
    opened: Opened | None = None,
) -> Loaded:
    file, section = split_address(path)
    more = emperor.emperor_extra_extension if emperor is not None else ()
    if os.path.splitext(file)[1].lower() not in SUFFIXES and not file.endswith(more):
        raise ConfigError(_no_format(path, file))
    before: list[tuple[str, str]] = []
    after: list[tuple[str, str]] = []
    if emperor is not None:  # in the order of the command line that uWSGI's Emperor makes for a vassal
        before += [("inherit", one) for one in emperor.vassals_inherit_before]
        before += [("include", one) for one in emperor.vassals_include_before]
        before += [("set", f"{name}={value}") for name, value in emperor.vassal_set]
        after += [("inherit", one) for one in emperor.vassals_inherit]
        after += [("include", one) for one in emperor.vassals_include]
    here = world(_folder(path), reloading=reloading, opened=opened)
    return load(os.path.basename(file), here, section=section, shown=file, before=before, after=after)


def _no_format(path: str, file: str) -> Problem:
    """What is wrong with a path that does not end as a configuration does."""
    if os.path.isdir(file):
        return Problem(path, 0, "", "this is a folder", "a file", f"its vassals are run by --emperor {file}")
    if not os.path.lexists(file):
        return Problem(path, 0, "", "there is no such file")
    remedy = "name it .ini if its options stand below [uwsgi]"
    return Problem(path, 0, "", "the ending of its name tells no format", f"{' '.join(SUFFIXES)} .toml", remedy)


def _folder(path: str) -> str:
    return os.path.dirname(os.path.abspath(split_address(path)[0]))


def _glob(pattern: str) -> tuple[str, ...]:
    """The paths that a pattern fits, as glob.glob; raises OSError when it would have to look at too many."""
    folder, name = os.path.split(pattern)
    if not glob.has_magic(pattern):
        return (pattern,) if os.path.lexists(pattern) else ()
    folders = _glob(folder) if glob.has_magic(folder) else (folder,)
    found = at_most(MOST_SETTINGS, (path for each in folders for path in _listed(each, name)))
    return tuple(sorted(path for path in found if path))


def _listed(folder: str, name: str) -> Iterator[str]:
    """Look at what is in a folder: the path of each that ``name`` fits, "" for the others."""
    if not glob.has_magic(name):
        path = os.path.join(folder, name)
        yield path if os.path.lexists(path) else ""
        return
    # In what is no folder, or not for us, nothing fits.
    with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
        for entry in entries:
            hidden = entry.name.startswith(".") and not name.startswith(".")
            fits = not hidden and fnmatch.fnmatch(entry.name, name)
            yield os.path.join(folder, entry.name) if fits else ""


def _name(lookup: Any, number: int) -> str:
    """The name of a user or group; the number of one that has none."""
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


def _readable(path: str) -> bool:
    return os.access(path, os.R_OK, effective_ids=True)


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


# ---- TOML -------------------------------------------------------------------------------------------------


def _is_toml(path: str) -> bool:
    return path.lower().endswith(".toml")


def _toml(path: str, opened: Opened | None = None) -> tuple[dict[str, Any], Report]:
    try:
        return parse_toml((opened or Opened()).read(path), path)
    except UnicodeDecodeError as error:
        raise ConfigError(Problem(path, 0, "", f"this is not UTF-8 text ({error})")) from None
    except OSError as error:
        raise ConfigError(Problem(path, 0, "", f"cannot be read: {error.strerror}")) from None


def _toml_vassal(
    path: str, name: str, opened: Opened, outer: Supervision, called_at: Address | None
) -> tuple[Vassal, Warnings]:
    """The vassal in a ``[vassal]`` table, or in the keys at the top; with ``supervision`` as its sub-table."""
    whole, report = _toml(path, opened)
    table: Mapping[str, object] = whole
    if "vassal" in whole:
        table, report = _table(whole, "vassal", report), report.at("vassal")
    own = _table(table, "supervision", report)
    supervision = supervision_from(own, report.at("supervision"), outer=outer)
    named = each_text(dict(table), report, lambda text, _: text.replace("%n", name))
    vassal = vassal_from(
        named,
        report,
        name=name,
        base=_folder(path),
        supervision=supervision,
        besides=("supervision",),
        called_at=called_at,
    )
    report.raise_problems()
    return vassal, in_file_order(report.warnings)


def _table(whole: Mapping[str, object], key: str, report: Report) -> dict[str, object]:
    value = whole.get(key, {})
    if isinstance(value, dict):
        return value
    report.at(key).problem(show(value), "a table", f"write [{key}]")
    return {}
