"""The rows of the CGI plugin in the table of options, and what two of them together may not say.

Names and meanings are uWSGI's (its ``plugins/cgi``); what it has not is named in its style.
"""

import re
from collections.abc import Mapping
from typing import Any

from pyemperor.protocol.report import Report, suggest
from pyemperor.protocol.tables import Option
from pyemperor.protocol.values import (
    COUNT,
    FLAG,
    HELPER,
    LATENCY,
    MOUNT,
    PATH,
    SIZE,
    TEXT,
    TIME,
    Kind,
    Mount,
    choice,
    text,
)

# ---- kinds of values ------------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?")
_NEVER_ALLOWED = re.compile(r"HTTP_PROXY|UWSGI_.*", re.IGNORECASE)


def for_mount(kind: Kind) -> Kind:
    """Make the kind of ``value``, for every mount, or ``/prefix=value``, for one: (prefix or None, value)."""

    def read(value: object, base: str) -> tuple[str | None, Any]:
        if not (isinstance(value, str) and value.startswith("/") and "=" in value):
            return None, kind.read(value, base)
        prefix, _, rest = value.partition("=")
        return prefix.rstrip("/"), kind.read(rest, base)

    return Kind(f"{kind.name} for a mount", f'{kind.expected}, or "/prefix=" before it', read)


def _limit(value: object, base: str) -> int:
    number: int = COUNT.read(value, base)
    if number < 1:
        raise ValueError("at least 1, or nothing could be served")
    return number


def _allowed(value: object, _base: str) -> str:
    name = text(value)
    if not _NAME.fullmatch(name):
        raise ValueError('write a name, or the beginning of one and a *: "SHIB_*"')
    if _NEVER_ALLOWED.fullmatch(name):
        raise ValueError("no script ever gets it from a request")
    return name


def _extension(value: object, _base: str) -> str:
    ending = text(value)
    if not ending or "/" in ending:
        raise ValueError('write the end of a file\'s name: ".cgi"')
    return ending


def _name(value: object, _base: str) -> str:
    name = text(value)
    if name in ("", ".", "..") or "/" in name:
        raise ValueError('write the name of a file in the folder: "index.cgi"')
    return name


_ALLOWED = Kind("variable", "the name of a variable", _allowed)
_EXTENSION = Kind("text", "text", _extension)
_INDEX = Kind("text", "text", _name)
_CONCURRENCY = for_mount(Kind("count", "a whole number from 1 on", _limit))
_WARM = for_mount(choice("python"))

# ---- the rows -------------------------------------------------------------------------------------------

_ALWAYS = "it is always so"
CGI_OPTIONS: tuple[Option, ...] = (
    # Where scripts are
    Option("vassal", "cgi", MOUNT, (), "serve the scripts in a folder, or one script, below a URL prefix",
           repeat=True),
    Option("vassal", "cgi-from-docroot", FLAG, False, "take the scripts from the folder that the web server "
           "sends as DOCUMENT_ROOT, and from no mount"),
    Option("vassal", "cgi-index", _INDEX, (), "script to run for the URL of a folder", repeat=True),
    Option("vassal", "cgi-allowed-ext", _EXTENSION, (), "run only scripts with this ending; default: all",
           repeat=True),
    Option("vassal", "cgi-symlinks", choice("deny", "owner", "follow"), "follow", "symbolic links below a mount: "
           "none; those whose target has the same owner; all. Wherever they may lead, they stay below the mount"),
    Option("vassal", "cgi-safe", PATH, (), "folder outside the mounts that symbolic links may lead to",
           repeat=True),
    Option("vassal", "cgi-dontresolve", FLAG, False, "do not look at symbolic links at all: they lead anywhere"),
    # How they run
    Option("vassal", "cgi-helper", HELPER, (), "run scripts with this ending by a program: .ext=command",
           repeat=True, aliases=("cgi-map-helper",)),
    Option("vassal", "cgi-search-words", FLAG, True, "give the words of a query without \"=\" as arguments "
           "(RFC 3875 §4.4); never to a helper"),
    Option("vassal", "cgi-local-redirect", choice("internal", "accel", "302"), "internal", "answer a script's "
           "Location: /path by serving it from our mounts; by nginx's X-Accel-Redirect; by the client"),
    Option("vassal", "cgi-warm", _WARM, (), "run Python scripts in forks of an interpreter that is up",
           repeat=True),
    Option("vassal", "cgi-warm-preload", TEXT, (), "module that the warm interpreter imports before",
           repeat=True),
    Option("vassal", "cgi-warm-learn", FLAG, True, "have it import the common modules that scripts import"),
    # Their environment
    Option("vassal", "cgi-pass-auth", FLAG, False, "let scripts see the Authorization header"),
    Option("vassal", "cgi-allowed-env", _ALLOWED, (), "variable that the web server may set beside those of "
           "CGI: a name, or its beginning and a *", repeat=True),
    Option("vassal", "cgi-unset", TEXT, (), "variable to take from the environment", repeat=True),
    # Their limits
    Option("vassal", "cgi-timeout", TIME, 60.0, "longest silence of a script, then 504", least=0.01),
    Option("vassal", "cgi-first-byte-timeout", TIME, 0.0, "longest time until a script's answer begins, "
           "then 504; 0: no limit but cgi-timeout"),
    Option("vassal", "cgi-total-timeout", TIME, 0.0, "longest time that the scripts of a request may take, "
           "then 504 or a cut answer; 0: no limit"),
    Option("vassal", "cgi-buffer-size", SIZE, 65536, "largest header of a script's answer", least=256),
    Option("vassal", "cgi-do-not-kill-on-error", FLAG, False, "let a script finish when its client has left"),
    Option("vassal", "cgi-concurrency", _CONCURRENCY, (), "requests that a mount serves at a time, in all "
           "workers; one more gets 503", repeat=True),
    Option("vassal", "cgi-limit-as", SIZE, None, "address space of a script (RLIMIT_AS)"),
    Option("vassal", "cgi-limit-cpu", LATENCY, None, "CPU time of a script (RLIMIT_CPU), in whole seconds",
           least=1),
    Option("vassal", "cgi-limit-nproc", COUNT, None, "processes of a script's user (RLIMIT_NPROC)"),
    Option("vassal", "cgi-limit-fsize", SIZE, None, "largest file that a script may write (RLIMIT_FSIZE)"),
    Option("vassal", "cgi-limit-nofile", COUNT, None, "descriptors of a script (RLIMIT_NOFILE)", least=3),
    Option("vassal", "cgi-limit-core", SIZE, None, "largest core dump of a script (RLIMIT_CORE)"),
    # Their rights
    Option("vassal", "cgi-no-new-privs", FLAG, False, "scripts gain no rights by setuid programs (prctl(2))"),
    Option("vassal", "cgi-run-as-owner", FLAG, False, "run each script as the user who owns it, by the rules of "
           "Apache's suexec; the vassal runs as root"),
    Option("vassal", "cgi-new-session", FLAG, True, "give each script a session of its own (setsid(2)); without "
           "it a process group"),
    # Without effect
    Option("vassal", "cgi-close-stdin-on-eof", FLAG, True, "end a script's input where the body ends",
           "accepted", _ALWAYS),
    Option("vassal", "cgi-path-info", FLAG, False, "disable PATH_INFO", "accepted",
           "uWSGI never read it either"),
    Option("vassal", "cgi-optimize", FLAG, False, "resolve the mounts once, at the start", "accepted",
           "a mount costs one look at most, and may be a link that is turned while serving",
           aliases=("cgi-optimized",)),
    Option("vassal", "cgi-async-max-attempts", COUNT, 10, "seconds for which an async core waits for a script "
           "to end", "accepted", "nothing waits for it: its end is an event"),
    Option("vassal", "cgi-loadlib", TEXT, (), "load a C library into the worker", "refused",
           "run the script by a program instead: cgi-helper, or keep Python warm: cgi-warm", repeat=True),
)

#: What is set up for each script between the worker and the script's own exec.
BY_EXEC = (
    "cgi-limit-as",
    "cgi-limit-cpu",
    "cgi-limit-nproc",
    "cgi-limit-fsize",
    "cgi-limit-nofile",
    "cgi-limit-core",
    "cgi-no-new-privs",
    "cgi-run-as-owner",
)

# ---- what goes together ---------------------------------------------------------------------------------


def check_cgi(table: Mapping[str, object], given: Mapping[str, Any], report: Report) -> None:
    """Report what one CGI option alone cannot show: nothing to serve, a mount given twice or that is none.

    ``table`` has the raw values, ``given`` the typed ones by field name.
    """
    if table.get("cgi", []) == [] and not given.get("cgi_from_docroot"):
        report.problem("nothing to serve", "cgi", 'write cgi = "/cgi-bin=cgi-bin"')
    mounts: tuple[Mount | None, ...] = given.get("cgi", ())
    prefixes = [mount.prefix for mount in mounts if mount]
    for prefix in sorted({prefix for prefix in prefixes if prefixes.count(prefix) > 1}):
        report.at("cgi").problem(f'"{prefix or "/"}" is mounted twice', "one folder for each prefix")
    for option in ("cgi-concurrency", "cgi-warm"):
        _check_prefixes(given.get(option.replace("-", "_"), ()), prefixes, report.at(option))
    if given.get("cgi_run_as_owner") and given.get("uid", "root") not in ("root", "0"):
        remedy = "remove it: only root can run a script as its owner"
        report.at("cgi-run-as-owner").problem("the vassal has a uid", remedy=remedy)
    needs_exec = [name for name in BY_EXEC if given.get(name.replace("-", "_"), False) is not False]
    if given.get("cgi_warm") and needs_exec:
        report.at("cgi-warm").warning("has no effect", remedy=f"remove it, or {', '.join(needs_exec)}")


def _check_prefixes(values: tuple[tuple[str | None, Any] | None, ...], known: list[str], report: Report) -> None:
    for prefix in (value[0] for value in values if value):
        if prefix is not None and prefix not in known:
            report.problem(f'nothing is mounted at "{prefix or "/"}"', remedy=suggest(prefix, known))
