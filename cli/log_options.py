"""What the options of a vassal or of the Emperor mean for the log: which file, which requests, in which words."""

import os
from collections.abc import Callable

from pyemperor.actors.outcome import Outcome
from pyemperor.cli.identity import identity_of
from pyemperor.cli.lines import Entry
from pyemperor.cli.log_file import MODE, LogFileOptions
from pyemperor.cli.log_format import Request, compile_format
from pyemperor.protocol.errors import ConfigError
from pyemperor.protocol.escapes import encodable
from pyemperor.protocol.messages import Birth
from pyemperor.protocol.options import EmperorOptions, Vassal


def file_of(options: Vassal | EmperorOptions) -> LogFileOptions | None:
    """The log file of a vassal or of the Emperor; None when it has none of its own.

    Under an Emperor ``daemonize`` sends no vassal to the background: as with uWSGI it is another ``logto``.
    """
    path = options.logto2 or options.logto or options.daemonize2 or options.daemonize
    if not path:
        return None
    return LogFileOptions(
        path,
        options.log_maxsize,
        options.log_backupname,
        options.touch_logreopen,
        options.touch_logrotate,
        MODE if options.logfile_chmod is None else options.logfile_chmod,
        *_owner(options.uid, options.gid),
    )


def _owner(user: str, group: str) -> tuple[int, int]:
    """User and group of a log file that is made; who cannot be found is said where the identity is taken."""
    try:
        identity = identity_of(user, group)
    except ConfigError:
        return -1, -1
    return (identity.uid, identity.gid) if identity else (-1, -1)


def strftime_of(date: str) -> str:
    """The strftime format of ``log-date``: given as a flag it is ctime(3)'s; "" is none."""
    return "%a %b %e %H:%M:%S %Y" if date.lower() in ("true", "1", "on", "yes") else date


class RequestLog:
    """How a vassal's requests are logged: ``line`` by its ``log-format``, None for the style's own words."""

    def __init__(self, vassal: Vassal) -> None:
        date = strftime_of(vassal.log_date)
        self.line: Callable[[Request], str] | None = None
        if vassal.log_format:
            self.line = compile_format(vassal.log_format, date, x_forwarded_for=vassal.log_x_forwarded_for)
        self.x_forwarded_for = vassal.log_x_forwarded_for
        self._vassal = vassal

    def exempt(self, outcome: Outcome, now: float) -> bool:
        """Whether a request is logged although the logging of requests is disabled."""
        vassal, status = self._vassal, outcome.status
        return (
            (vassal.log_4xx and 400 <= status <= 499)
            or (vassal.log_5xx and 500 <= status <= 599)
            or (vassal.log_zero and outcome.sent <= outcome.head_size)
            or (vassal.log_ioerror and status == 499)
            or 0 < vassal.log_big <= outcome.sent - outcome.head_size
            or 0 < vassal.log_slow <= (now - outcome.started_at) * 1000
        )


def problem_entry(birth: Birth, outcome: Outcome, now: float) -> Entry:
    """What went wrong with a request, beside a line of the user's own format."""
    known = outcome.request.variables if outcome.request else {}
    words = (known.get(key, b"-") for key in (b"REQUEST_METHOD", b"REQUEST_URI"))
    what = b" ".join(words).decode("utf-8", "backslashreplace")
    remedy = f" ({outcome.remedy})" if outcome.remedy else ""
    return Entry(
        level="WARNING",
        actor=birth.actor,
        vassal=birth.vassal.name,
        worker=birth.index,
        event="harakiri" if outcome.harakiri else "",
        pid=os.getpid() if outcome.harakiri else 0,
        request_id=encodable(outcome.id),
        message=encodable(f"{what}: {outcome.problem}{remedy}"),
        at=round(now, 6),
    )
