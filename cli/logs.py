"""The log of a process: where loguru's records, those of other libraries and the requests become lines."""

import logging
import os
import time
from itertools import count
from typing import Any

from loguru import logger

from pyemperor.actors.outcome import Outcome
from pyemperor.cli.lines import Entry, Json, Served, Style, colourful
from pyemperor.cli.pretty_lines import Pretty
from pyemperor.cli.stderr import Stderr
from pyemperor.cli.uwsgi_lines import Uwsgi
from pyemperor.protocol.messages import Birth


class _Log:
    """The one log of this process."""

    def __init__(self, style: Style, level: str, actor: str) -> None:
        self.style = style
        self.level = logger.level(level).no
        self.actor = actor
        self.stderr = Stderr(self._missing)
        self.pid = os.getpid()
        self.requests = count(1)

    def record(self, message: Any) -> None:
        """Write a record of loguru (a sink)."""
        record = message.record
        line = self.style.entry(Entry.of(record, self.actor), record["time"].timestamp())
        if line:
            self.stderr.write(line)

    def _missing(self, number: int) -> str:
        text = f"{number} log lines were lost here: nobody read them in time"
        return self.style.entry(Entry(level="WARNING", actor=self.actor, message=text), time.time())


_log: _Log | None = None


def log_to_stderr(
    style: str, *, level: str = "INFO", birth: Birth | None = None, actor: str = "emperor"
) -> None:
    """Log everything of this process to stderr; a later call replaces an earlier one.

    ``style`` is ``pretty``, ``uwsgi`` or ``json``. ``birth`` is that of the process itself; one without says
    by ``actor`` who speaks in records that name nobody.
    """
    global _log
    known = _log.level if _log else None
    _log = _Log(_style(style, level, birth), level, birth.actor if birth else actor)
    if known != _log.level:
        # Not anew in what the fork server forks: its memory is shared as long as nobody writes to it.
        logger.remove()
        logger.add(_sink, level=level, format="{message}", backtrace=False, diagnose=False)
        logging.getLogger().addHandler(_BRIDGE)


def _sink(message: Any) -> None:
    if _log is not None:
        _log.record(message)


def log_request(birth: Birth, core: int, outcome: Outcome, now: float, *, enabled: bool = True) -> None:
    """Log one request, which ended at ``now`` (monotonic seconds); if not ``enabled``, only with a problem.

    It runs for every request, so it does without loguru, whose records cost several times as much. Before
    :func:`log_to_stderr` nothing is logged.
    """
    log = _log
    if log is None or not (enabled or outcome.problem):
        return
    if log.level > (_WARNING if outcome.problem else _INFO):
        return
    served = Served.of(birth, core, outcome, now, pid=log.pid, number=next(log.requests))
    log.stderr.write(log.style.served(served, time.time()))


_INFO = logger.level("INFO").no
_WARNING = logger.level("WARNING").no


def _style(name: str, level: str, birth: Birth | None) -> Style:
    match name:
        case "json":
            return Json()
        case "uwsgi":
            return Uwsgi(birth)
        case "pretty":
            return Pretty(colour=colourful(2), debug=logger.level(level).no < _INFO)
    raise ValueError(f"no log style {name!r}: it is pretty, uwsgi or json")


class _Bridge(logging.Handler):
    """Takes what libraries log by the standard library: pykka's actors that die of an error, above all."""

    def emit(self, record: logging.LogRecord) -> None:
        known = logging.getLevelName(record.levelno) in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
        level = record.levelname if known else record.levelno
        logger.opt(exception=record.exc_info).log(level, "{}", record.getMessage())


_BRIDGE = _Bridge(logging.WARNING)
