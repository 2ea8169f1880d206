"""The table of options: name, kind, default, meaning, where each applies, and what becomes of it here.

It drives the readers of TOML and INI, ``check``, ``--help`` and the documentation. Names and units are
uWSGI's; those of ``[supervision]`` are OTP's. To add an option, add one row to a chapter in ``option_rows``, and,
if it is honoured, the field of the same name to the struct of its scope. Defaults stand in the table alone. The
rows of the CGI plugin are in ``cgi_options``.
"""

import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import msgspec

from pyemperor.protocol.ancillary import Ancillary
from pyemperor.protocol.cgi_options import CGI_OPTIONS, check_cgi
from pyemperor.protocol.errors import Problem
from pyemperor.protocol.hooks import Step, named
from pyemperor.protocol.option_rows.ancillary import ANCILLARY
from pyemperor.protocol.option_rows.emperor import EMPEROR
from pyemperor.protocol.option_rows.identity import IDENTITY
from pyemperor.protocol.option_rows.logs import LOGS
from pyemperor.protocol.option_rows.processes import PROCESSES
from pyemperor.protocol.option_rows.sockets import SOCKETS
from pyemperor.protocol.quantities import seconds
from pyemperor.protocol.report import Report
from pyemperor.protocol.tables import Option, defaults, read, rows
from pyemperor.protocol.values import COUNT, FRACTION, NUMBER, TABLE, TIME, Address, Helper, Mount, choice

__all__ = [
    "OPTIONS",
    "Address",
    "Backoff",
    "EmperorOptions",
    "Helper",
    "Mount",
    "Option",
    "Owner",
    "Supervision",
    "Vassal",
    "emperor_from",
    "seconds",
    "supervision_from",
    "supervision_under",
    "vassal_from",
]

Scope = Literal["emperor", "vassal", "supervision", "backoff"]

# ---- the table ----------------------------------------------------------------------------------------

#: uWSGI's options by chapter.
CHAPTERS: dict[str, tuple[Option, ...]] = {
    "emperor": EMPEROR,
    "sockets": SOCKETS,
    "processes": PROCESSES,
    "identity": IDENTITY,
    "logs": LOGS,
    "ancillary": ANCILLARY,
    "cgi": CGI_OPTIONS,
}
OPTIONS: tuple[Option, ...] = (
    *(option for chapter in CHAPTERS.values() for option in chapter),
    # Supervision: OTP's supervisor flags; delays and limits per vassal
    Option("supervision", "strategy", choice("one_for_one", "one_for_all", "rest_for_one"), "one_for_one",
           "which workers restart when one dies"),
    Option("supervision", "intensity", COUNT, 5, "restarts allowed within period"),
    Option("supervision", "period", TIME, 60.0, "window in which restarts are counted", least=0.01),
    Option("supervision", "stable-after", TIME, 10.0, "time ready after which its first restart is immediate"),
    Option("supervision", "start-timeout", TIME, 60.0, "time until ready", least=0.1),
    Option("supervision", "mercy", TIME, 60.0, "time to finish when asked to stop"),
    Option("supervision", "on-exceed", choice("curse", "escalate"), "curse",
           "more restarts than intensity: quarantine this vassal, or let the level above decide"),
    Option("supervision", "backoff", TABLE, None, "delays between restarts: initial, factor, max, jitter"),
    Option("backoff", "initial", TIME, 0.1, "delay before the first restart of a child that was not stable"),
    Option("backoff", "factor", NUMBER, 2.0, "growth of the delay from one restart to the next", least=1),
    Option("backoff", "max", TIME, 60.0, "longest delay"),
    Option("backoff", "jitter", FRACTION, 0.1, "random part of the delay, up and down", most=0.99),
)


_ROWS = {scope: rows(OPTIONS, scope) for scope in ("emperor", "vassal", "supervision", "backoff")}


def _default(scope: Scope, name: str) -> Any:
    return _ROWS[scope][name].default


@functools.cache
def _defaults(scope: Scope, scale: float) -> Mapping[str, Any]:
    """The defaults of a scope, which are the same for a thousand vassals."""
    return defaults(_ROWS[scope], scale)


# ---- typed values ---------------------------------------------------------------------------------------

#: Where values stand: option, file, line from 1; of a list one entry for each element.
Places = tuple[tuple[str, str, int], ...]


def placed(problem: Problem, places: Places, index: int | None = None) -> Problem:
    """Say where the option of ``problem`` stands; unchanged when nobody knows, or not which of several it is."""
    found = [(file, line) for key, file, line in places if key == problem.key]
    if index is None and len(found) == 1:
        index = 0
    if index is None or not 0 <= index < len(found):
        return problem
    file, line = found[index]
    return replace(problem, file=file, line=line)


class EmperorOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """The honoured options of the Emperor; times are seconds."""

    #: No option: where they stand.
    places: Places = ()

    #: Folders, patterns, or ``scheme://...``; paths are absolute.
    emperor: tuple[str, ...] = _default("emperor", "emperor")
    emperor_freq: float = _default("emperor", "emperor-freq")
    emperor_required_heartbeat: float = _default("emperor", "emperor-required-heartbeat")
    heartbeat_probe: float = _default("emperor", "heartbeat-probe")
    vassals_include: tuple[str, ...] = _default("emperor", "vassals-include")
    vassals_include_before: tuple[str, ...] = _default("emperor", "vassals-include-before")
    vassals_inherit: tuple[str, ...] = _default("emperor", "vassals-inherit")
    vassals_inherit_before: tuple[str, ...] = _default("emperor", "vassals-inherit-before")
    vassal_set: tuple[tuple[str, str], ...] = _default("emperor", "vassal-set")
    emperor_on_demand_extension: str = _default("emperor", "emperor-on-demand-extension")
    emperor_on_demand_directory: str = _default("emperor", "emperor-on-demand-directory")
    emperor_tyrant: bool = _default("emperor", "emperor-tyrant")
    emperor_tyrant_nofollow: bool = _default("emperor", "emperor-tyrant-nofollow")
    emperor_tyrant_initgroups: bool = _default("emperor", "emperor-tyrant-initgroups")
    emperor_nofollow: bool = _default("emperor", "emperor-nofollow")
    emperor_extra_extension: tuple[str, ...] = _default("emperor", "emperor-extra-extension")
    emperor_stats: Address | None = _default("emperor", "emperor-stats")
    emperor_procname: str = _default("emperor", "emperor-procname")
    #: Seconds, which are milliseconds in a file; None leaves them to [supervision].
    emperor_throttle: float | None = _default("emperor", "emperor-throttle")
    emperor_max_throttle: float | None = _default("emperor", "emperor-max-throttle")
    hook_emperor_start: tuple[Step, ...] = _default("emperor", "hook-emperor-start")
    vassals_start_hook: tuple[Step, ...] = _default("emperor", "vassals-start-hook")
    vassals_stop_hook: tuple[Step, ...] = _default("emperor", "vassals-stop-hook")
    exec_as_vassal: tuple[Step, ...] = _default("emperor", "exec-as-vassal")
    hook_as_vassal: tuple[Step, ...] = _default("emperor", "hook-as-vassal")
    #: Name or number; "" leaves it.
    uid: str = _default("emperor", "uid")
    gid: str = _default("emperor", "gid")
    add_gid: tuple[str, ...] = _default("emperor", "add-gid")
    no_initgroups: bool = _default("emperor", "no-initgroups")
    #: None leaves it.
    umask: int | None = _default("emperor", "umask")
    env: tuple[tuple[str, str], ...] = _default("emperor", "env")
    unenv: tuple[str, ...] = _default("emperor", "unenv")
    chdir: str = _default("emperor", "chdir")
    daemonize: str = _default("emperor", "daemonize")
    daemonize2: str = _default("emperor", "daemonize2")
    pidfile: str = _default("emperor", "pidfile")
    pidfile2: str = _default("emperor", "pidfile2")
    safe_pidfile: str = _default("emperor", "safe-pidfile")
    safe_pidfile2: str = _default("emperor", "safe-pidfile2")
    emperor_pidfile: str = _default("emperor", "emperor-pidfile")
    control_socket: str = _default("emperor", "control-socket")
    log_style: str = _default("emperor", "log-style")
    logto: str = _default("emperor", "logto")
    logto2: str = _default("emperor", "logto2")
    log_maxsize: int = _default("emperor", "log-maxsize")
    log_backupname: str = _default("emperor", "log-backupname")
    touch_logreopen: tuple[str, ...] = _default("emperor", "touch-logreopen")
    touch_logrotate: tuple[str, ...] = _default("emperor", "touch-logrotate")
    #: None leaves it to the log file's own default.
    logfile_chmod: int | None = _default("emperor", "logfile-chmod")
    #: "true", a format of strftime(3), or "" for none.
    log_date: str = _default("emperor", "log-date")

    @property
    def at_start(self) -> tuple[Step, ...]:
        """What is done before anything else."""
        return named("hook-emperor-start", self.hook_emperor_start)

    @property
    def before_vassals(self) -> tuple[Step, ...]:
        """What is done before a vassal starts, as uWSGI orders it."""
        return (
            *named("vassals-start-hook", self.vassals_start_hook),
            *named("hook-as-vassal", self.hook_as_vassal),
            *named("exec-as-vassal", self.exec_as_vassal),
        )

    @property
    def after_vassals(self) -> tuple[Step, ...]:
        """What is done when a vassal has ended."""
        return named("vassals-stop-hook", self.vassals_stop_hook)

    def environment_of(self, vassal: "Vassal") -> tuple[tuple[str, str], ...]:
        """The variables for the scripts of ``vassal``: of two with one name its own, and none that is unset."""
        given = {**dict(self.env), **dict(vassal.env)}
        return tuple((name, value) for name, value in given.items() if name not in vassal.unenv)


class Backoff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The delay before a restart: ``initial * factor**n`` seconds up to ``max``, plus or minus ``jitter``."""

    initial: float = _default("backoff", "initial")
    factor: float = _default("backoff", "factor")
    max: float = _default("backoff", "max")
    jitter: float = _default("backoff", "jitter")


class Supervision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """How one vassal is supervised: OTP's flags, then delays in seconds."""

    strategy: Literal["one_for_one", "one_for_all", "rest_for_one"] = _default("supervision", "strategy")
    intensity: int = _default("supervision", "intensity")
    period: float = _default("supervision", "period")
    stable_after: float = _default("supervision", "stable-after")
    start_timeout: float = _default("supervision", "start-timeout")
    mercy: float = _default("supervision", "mercy")
    on_exceed: Literal["curse", "escalate"] = _default("supervision", "on-exceed")
    backoff: Backoff = Backoff()


class Owner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose vassal it is under ``emperor-tyrant``: user, group, and all supplementary groups, by number."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Vassal(Ancillary, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """The honoured options of one vassal. Times are seconds, sizes bytes, paths absolute."""

    name: str
    #: No option: whom everything of it is done as, by the owner of its file. None: by ``uid`` and ``gid``.
    owner: Owner | None = None
    #: No option: where those stand that may turn out wrong only when they are used.
    places: Places = ()
    socket: tuple[Address, ...] = _default("vassal", "socket")
    http_socket: tuple[Address, ...] = _default("vassal", "http-socket")
    chmod_socket: int = _default("vassal", "chmod-socket")
    #: ``user`` or ``user:group``; "" leaves it.
    chown_socket: str = _default("vassal", "chown-socket")
    listen: int = _default("vassal", "listen")
    buffer_size: int = _default("vassal", "buffer-size")
    socket_timeout: float = _default("vassal", "socket-timeout")
    post_buffering: int = _default("vassal", "post-buffering")
    processes: int = _default("vassal", "processes")
    threads: int = _default("vassal", "threads")
    #: As asked for; what is sent is at most a third of the Emperor's tolerance. 0: none.
    heartbeat: float = _default("vassal", "heartbeat")
    harakiri: float = _default("vassal", "harakiri")
    harakiri_verbose: bool = _default("vassal", "harakiri-verbose")
    harakiri_graceful_timeout: float = _default("vassal", "harakiri-graceful-timeout")
    harakiri_graceful_signal: int = _default("vassal", "harakiri-graceful-signal")
    on_demand: bool = _default("vassal", "on-demand")
    cheap: bool = _default("vassal", "cheap")
    #: 0: never.
    idle: float = _default("vassal", "idle")
    die_on_idle: bool = _default("vassal", "die-on-idle")
    worker_reload_mercy: float = _default("vassal", "worker-reload-mercy")
    max_requests: int = _default("vassal", "max-requests")
    max_requests_delta: int = _default("vassal", "max-requests-delta")
    min_worker_lifetime: float = _default("vassal", "min-worker-lifetime")
    max_worker_lifetime: float = _default("vassal", "max-worker-lifetime")
    max_worker_lifetime_delta: float = _default("vassal", "max-worker-lifetime-delta")
    reload_on_rss: int = _default("vassal", "reload-on-rss")
    reload_on_as: int = _default("vassal", "reload-on-as")
    evil_reload_on_rss: int = _default("vassal", "evil-reload-on-rss")
    evil_reload_on_as: int = _default("vassal", "evil-reload-on-as")
    mem_collector_freq: float = _default("vassal", "mem-collector-freq")
    #: Fewest workers; 0: always ``processes``.
    cheaper: int = _default("vassal", "cheaper")
    cheaper_initial: int = _default("vassal", "cheaper-initial")
    cheaper_step: int = _default("vassal", "cheaper-step")
    cheaper_overload: int = _default("vassal", "cheaper-overload")
    cheaper_algo: str = _default("vassal", "cheaper-algo")
    cheaper_idle: int = _default("vassal", "cheaper-idle")
    cheaper_rss_limit_soft: int = _default("vassal", "cheaper-rss-limit-soft")
    cheaper_rss_limit_hard: int = _default("vassal", "cheaper-rss-limit-hard")
    #: Name or number; "" leaves it.
    uid: str = _default("vassal", "uid")
    gid: str = _default("vassal", "gid")
    chdir: str = _default("vassal", "chdir")
    add_gid: tuple[str, ...] = _default("vassal", "add-gid")
    no_initgroups: bool = _default("vassal", "no-initgroups")
    #: None leaves it.
    umask: int | None = _default("vassal", "umask")
    procname_prefix: str = _default("vassal", "procname-prefix")
    procname_prefix_spaced: str = _default("vassal", "procname-prefix-spaced")
    procname_append: str = _default("vassal", "procname-append")
    procname: str = _default("vassal", "procname")
    procname_master: str = _default("vassal", "procname-master")
    cpu_affinity: int = _default("vassal", "cpu-affinity")
    prio: int = _default("vassal", "prio")
    env: tuple[tuple[str, str], ...] = _default("vassal", "env")
    unenv: tuple[str, ...] = _default("vassal", "unenv")
    pidfile: str = _default("vassal", "pidfile")
    pidfile2: str = _default("vassal", "pidfile2")
    safe_pidfile: str = _default("vassal", "safe-pidfile")
    safe_pidfile2: str = _default("vassal", "safe-pidfile2")
    disable_logging: bool = _default("vassal", "disable-logging")
    touch_reload: tuple[str, ...] = _default("vassal", "touch-reload")
    touch_chain_reload: tuple[str, ...] = _default("vassal", "touch-chain-reload")
    touch_workers_reload: tuple[str, ...] = _default("vassal", "touch-workers-reload")
    logto: str = _default("vassal", "logto")
    logto2: str = _default("vassal", "logto2")
    log_maxsize: int = _default("vassal", "log-maxsize")
    log_backupname: str = _default("vassal", "log-backupname")
    touch_logreopen: tuple[str, ...] = _default("vassal", "touch-logreopen")
    touch_logrotate: tuple[str, ...] = _default("vassal", "touch-logrotate")
    #: None leaves it to the log file's own default.
    logfile_chmod: int | None = _default("vassal", "logfile-chmod")
    #: "true", a format of strftime(3), or "" for none.
    log_date: str = _default("vassal", "log-date")
    daemonize: str = _default("vassal", "daemonize")
    daemonize2: str = _default("vassal", "daemonize2")
    log_format: str = _default("vassal", "log-format")
    log_4xx: bool = _default("vassal", "log-4xx")
    log_5xx: bool = _default("vassal", "log-5xx")
    log_zero: bool = _default("vassal", "log-zero")
    log_ioerror: bool = _default("vassal", "log-ioerror")
    log_big: int = _default("vassal", "log-big")
    #: Milliseconds.
    log_slow: int = _default("vassal", "log-slow")
    log_x_forwarded_for: bool = _default("vassal", "log-x-forwarded-for")
    log_micros: bool = _default("vassal", "log-micros")
    cgi: tuple[Mount, ...] = _default("vassal", "cgi")
    cgi_from_docroot: bool = _default("vassal", "cgi-from-docroot")
    cgi_index: tuple[str, ...] = _default("vassal", "cgi-index")
    cgi_allowed_ext: tuple[str, ...] = _default("vassal", "cgi-allowed-ext")
    cgi_symlinks: Literal["deny", "owner", "follow"] = _default("vassal", "cgi-symlinks")
    cgi_safe: tuple[str, ...] = _default("vassal", "cgi-safe")
    cgi_dontresolve: bool = _default("vassal", "cgi-dontresolve")
    cgi_helper: tuple[Helper, ...] = _default("vassal", "cgi-helper")
    cgi_search_words: bool = _default("vassal", "cgi-search-words")
    cgi_local_redirect: Literal["internal", "accel", "302"] = _default("vassal", "cgi-local-redirect")
    #: Per mount: the prefix, None for every mount, and the value.
    cgi_warm: tuple[tuple[str | None, Literal["python"]], ...] = _default("vassal", "cgi-warm")
    cgi_warm_preload: tuple[str, ...] = _default("vassal", "cgi-warm-preload")
    cgi_warm_learn: bool = _default("vassal", "cgi-warm-learn")
    cgi_pass_auth: bool = _default("vassal", "cgi-pass-auth")
    cgi_allowed_env: tuple[str, ...] = _default("vassal", "cgi-allowed-env")
    cgi_unset: tuple[str, ...] = _default("vassal", "cgi-unset")
    cgi_timeout: float = _default("vassal", "cgi-timeout")
    cgi_first_byte_timeout: float = _default("vassal", "cgi-first-byte-timeout")
    cgi_total_timeout: float = _default("vassal", "cgi-total-timeout")
    cgi_buffer_size: int = _default("vassal", "cgi-buffer-size")
    cgi_do_not_kill_on_error: bool = _default("vassal", "cgi-do-not-kill-on-error")
    cgi_concurrency: tuple[tuple[str | None, int], ...] = _default("vassal", "cgi-concurrency")
    #: Resource limits (setrlimit(2)); None leaves what the vassal has.
    cgi_limit_as: int | None = _default("vassal", "cgi-limit-as")
    cgi_limit_cpu: float | None = _default("vassal", "cgi-limit-cpu")
    cgi_limit_nproc: int | None = _default("vassal", "cgi-limit-nproc")
    cgi_limit_fsize: int | None = _default("vassal", "cgi-limit-fsize")
    cgi_limit_nofile: int | None = _default("vassal", "cgi-limit-nofile")
    cgi_limit_core: int | None = _default("vassal", "cgi-limit-core")
    cgi_no_new_privs: bool = _default("vassal", "cgi-no-new-privs")
    cgi_new_session: bool = _default("vassal", "cgi-new-session")
    cgi_run_as_owner: bool = _default("vassal", "cgi-run-as-owner")
    supervision: Supervision = Supervision()

    def problem(self, option: str, found: str, remedy: str = "", index: int | None = None) -> Problem:
        """What is wrong with ``option``, or with element ``index`` of its list, and where it stands."""
        return placed(Problem(f"vassal {self.name}", 0, option, found, remedy=remedy), self.places, index)

    @property
    def reload_mercy(self) -> float:
        """Seconds that the whole vassal has to finish."""
        return self.supervision.mercy

    @property
    def start_timeout(self) -> float:
        """Seconds from the fork until ready."""
        return self.supervision.start_timeout

    @property
    def first_workers(self) -> int:
        """How many workers there are at the start."""
        if not self.cheaper:
            return self.processes
        return min(max(self.cheaper_initial, self.cheaper), self.processes)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All listening addresses: those of ``socket``, then those of ``http_socket``."""
        return self.socket + self.http_socket


#: Addresses of one vassal: their sockets travel to its processes in one message.
MOST_ADDRESSES = 60
#: Bytes of all its options, which travel in one message as well.
LARGEST_VASSAL = 128 * 1024
#: Vassal options that only the system can judge, when they are used.
_TRIED = ("socket", "http-socket", "chown-socket", "uid", "gid", "add-gid", "chdir", "prio", "logto", "logto2")
#: Characters of what the Emperor's ``env`` adds to them.
LARGEST_ENVIRONMENT = 32 * 1024
#: Vassal options that are another name for a field of its supervision.
_INTO_SUPERVISION = {"reload_mercy": "mercy", "start_timeout": "start_timeout"}


# ---- from tables to values ------------------------------------------------------------------------------


def emperor_from(
    table: Mapping[str, object], report: Report, *, base: str = "", scale: float = 1.0
) -> EmperorOptions:
    """Make the Emperor's options from a table of raw values."""
    options = _ROWS["emperor"]
    given = read(options, table, report, base=base, scale=scale)
    places = _places(table, options, report)
    size = sum(len(name) + len(value) for name, value in filter(None, given.get("env", ())))
    if size > LARGEST_ENVIRONMENT:
        report.at("env").problem(f"{size} characters in all", f"at most {LARGEST_ENVIRONMENT}")
    return EmperorOptions(**{**_defaults("emperor", scale), **given}, places=places)


def _places(table: Mapping[str, object], options: Iterable[str], report: Report) -> Places:
    """Where those of ``options`` stand that ``table`` gives."""
    found = []
    for name in options:
        if (value := table.get(name)) is not None:
            whole = report.at(name)
            views = [whole.at(index) for index in range(len(value))] if isinstance(value, list) else [whole]
            found += [(name, *view.place) for view in views]
    return tuple(found)


@functools.cache
def _default_supervision(scale: float) -> Supervision:
    backoff = Backoff(**_defaults("backoff", scale))
    return Supervision(**{**_defaults("supervision", scale), "backoff": backoff})


def supervision_under(emperor: EmperorOptions, scale: float = 1.0) -> Supervision:
    """Give the supervision of vassals that ask for none: the defaults, but for the throttles of ``emperor``."""
    backoff = Backoff(**defaults(_ROWS["backoff"], scale))
    if emperor.emperor_throttle is not None:
        initial = emperor.emperor_throttle * scale
        backoff = msgspec.structs.replace(backoff, initial=initial, max=max(initial, backoff.max))
    if emperor.emperor_max_throttle is not None:
        backoff = msgspec.structs.replace(backoff, max=emperor.emperor_max_throttle * scale)
    return Supervision(**defaults(_ROWS["supervision"], scale) | {"backoff": backoff})


def supervision_from(
    table: Mapping[str, object], report: Report, *, outer: Supervision | None = None, scale: float = 1.0
) -> Supervision:
    """Make a supervision; what the table does not give comes from ``outer``, else from the defaults."""
    outer = outer or supervision_under(EmperorOptions(), scale)
    if not table:
        return outer
    flags = read(_ROWS["supervision"], table, report, scale=scale)
    delays = read(_ROWS["backoff"], flags.pop("backoff", {}), report.at("backoff"), scale=scale)
    return msgspec.structs.replace(outer, **flags, backoff=msgspec.structs.replace(outer.backoff, **delays))


def vassal_from(
    table: Mapping[str, object],
    report: Report,
    *,
    name: str,
    base: str = "",
    scale: float = 1.0,
    supervision: Supervision | None = None,
    besides: Collection[str] = (),
    called_at: Address | None = None,
) -> Vassal:
    """Make a vassal from a table of raw values by uWSGI's names; relative paths start from ``base``.

    Also reports what one option alone cannot show: nothing to listen on, nothing to serve, a socket or a
    mount given twice. The keys in ``besides`` are somebody else's. ``called_at`` is the address at which the
    Emperor starts the vassal on demand, whether or not it has it as a socket of its own.
    """
    options = _ROWS["vassal"]
    given = read(options, table, report, base=base, scale=scale, besides=besides)
    _check_vassal(table, given, report, called_at)
    outer = supervision or supervision_from({}, report, scale=scale)
    values = {**_defaults("vassal", scale), **given}
    moved = {}
    for option, field in _INTO_SUPERVISION.items():
        del values[option]
        if option in given:
            moved[field] = given[option]
    if called_at is not None:
        values |= _on_demand(values, called_at, given)
    places = _places(table, _TRIED, report)
    vassal = Vassal(name=name, **values, places=places, supervision=msgspec.structs.replace(outer, **moved))
    _check_size(vassal, report)
    return vassal


def _check_size(vassal: Vassal, report: Report) -> None:
    """Report a vassal that does not fit into a message between processes."""
    if len(vassal.addresses) > MOST_ADDRESSES:
        report.problem(f"{len(vassal.addresses)} sockets", f"at most {MOST_ADDRESSES}")
    size = len(repr(vassal).encode(errors="replace"))
    if size > LARGEST_VASSAL:
        remedy = "long lists of variables are better read by the scripts themselves"
        report.problem(f"{size} bytes of options", f"at most {LARGEST_VASSAL}", remedy)


def _on_demand(values: Mapping[str, Any], called_at: Address, given: Collection[str]) -> dict[str, Any]:
    """What differs for a vassal that the Emperor calls; its sockets are everybody's, as uWSGI makes them."""
    changed: dict[str, Any] = {"on_demand": True}
    if called_at not in values["socket"] + values["http_socket"]:
        changed["socket"] = (called_at, *values["socket"])
    if "chmod_socket" not in given:
        changed["chmod_socket"] = 0o666
    return changed


#: What is found where neither the vassal nor the Emperor says where it listens.
NO_SOCKET = "no socket"


def _check_vassal(
    table: Mapping[str, object], given: Mapping[str, Any], report: Report, called_at: Address | None
) -> None:
    if called_at is None and all(table.get(name, []) == [] for name in ("socket", "uwsgi-socket", "http-socket")):
        report.problem(NO_SOCKET, "socket or http-socket", 'write http-socket = "127.0.0.1:8080"')
    _check_cheaper(given, report)
    check_cgi(table, given, report)


_ALGORITHMS = ("spare", "spare2", "backlog")


def _check_cheaper(given: Mapping[str, Any], report: Report) -> None:
    fewest, most = given.get("cheaper", 0), given.get("processes", _default("vassal", "processes"))
    if fewest and fewest >= most:
        report.at("cheaper").problem(str(fewest), f"less than processes, which is {most}")
    algorithm = given.get("cheaper_algo", "spare")
    if algorithm not in _ALGORITHMS:
        remedy = f"write one of {', '.join(_ALGORITHMS)}"
        report.at("cheaper-algo").warning(f"{algorithm} is not built in: spare decides", remedy=remedy)
    soft, hard = given.get("cheaper_rss_limit_soft", 0), given.get("cheaper_rss_limit_hard", 0)
    if hard and hard <= soft:
        report.at("cheaper-rss-limit-hard").problem(str(hard), f"more than cheaper-rss-limit-soft ({soft})")
