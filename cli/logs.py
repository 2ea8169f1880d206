"""The log of a process: where loguru's records, those of other libraries and the requests become lines."""

import contextlib
import errno
import logging
import os
import signal
import time
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import msgspec
from loguru import logger

from pyemperor.actors.administration import VassalStatus
from pyemperor.actors.credentials import acting_as
from pyemperor.actors.outcome import Outcome
from pyemperor.cli.lines import Entry, Json, Served, Style, colourful
from pyemperor.cli.log_file import LogFile, LogFileOptions, open_to_append
from pyemperor.cli.log_format import Request
from pyemperor.cli.log_options import RequestLog, file_of, problem_entry, strftime_of
from pyemperor.cli.pretty_lines import Pretty
from pyemperor.cli.stderr import Stderr
from pyemperor.cli.uwsgi_lines import Uwsgi
from pyemperor.protocol.messages import Birth
from pyemperor.protocol.options import Vassal


class _Log:
    """The one log of this process."""

    def __init__(
        self, style: Style, level: str, actor: str, file: LogFile | None, requests: RequestLog | None
    ) -> None:
        self.style = style
        self.level = logger.level(level).no
        self.actor = actor
        self.file = file
        self.stderr = Stderr(self._missing, file=file)
        self.pid = os.getpid()
        self.numbers = count(1)
        self.requests = requests

    def record(self, message: Any) -> None:
        """Write a record of loguru (a sink)."""
        record = message.record
        self.write(Entry.of(record, self.actor), record["time"].timestamp())

    def write(self, entry: Entry, wall: float) -> None:
        """Write an entry, if the style has words for it."""
        line = self.style.entry(entry, wall)
        if line:
            self.stderr.write(line)

    def _missing(self, number: int) -> str:
        text = f"{number} log lines were lost here: nobody read them in time"
        return self.style.entry(Entry(level="WARNING", actor=self.actor, message=text), time.time())


_log: _Log | None = None
#: What uWSGI calls a vassal, by its name.
_ids: dict[str, str] = {}


def call(vassal: str, id: str) -> None:
    """Have the log in uWSGI's words call ``vassal`` by what it is there, ``id``, from now on."""
    _ids[vassal] = id


def log_to_stderr(
    style: str,
    *,
    level: str = "INFO",
    birth: Birth | None = None,
    actor: str = "emperor",
    file: LogFileOptions | None = None,
    date: str = "",
) -> None:
    """Log everything of this process to stderr; a later call replaces an earlier one.

    ``style`` is ``pretty``, ``uwsgi`` or ``json``. ``birth`` is that of the process itself; one without says
    by ``actor`` who speaks in records that name nobody. With a ``file`` stderr becomes that file, followed when
    it is rotated or SIGUSR1 comes, and so it is for every process below that has no file of its own. ``date`` is
    uWSGI's ``log-date``. Raises OSError when ``file`` cannot be opened.
    """
    global _log
    known = _log.level if _log else None
    log_file, problem = _log_file(birth, actor, file)
    date = birth.vassal.log_date if birth else date
    requests = RequestLog(birth.vassal) if birth and birth.kind == "worker" else None
    _log = _Log(_style(style, level, birth, date), level, birth.actor if birth else actor, log_file, requests)
    if known != _log.level:
        # Not anew in what the fork server forks: its memory is shared as long as nobody writes to it.
        logger.remove()
        logger.add(_sink, level=level, format="{message}", backtrace=False, diagnose=False)
        logging.getLogger().addHandler(_BRIDGE)
    signal.signal(signal.SIGUSR1, _signalled)
    if problem:
        logger.warning("{}", problem)


#: Tells the fork server, and so all below it, where the Emperor logs to.
_FILE = "PYEMPEROR_LOG_FILE"


def _log_file(birth: Birth | None, actor: str, file: LogFileOptions | None) -> tuple[LogFile | None, str]:
    """The log file of this process, or why it has none though it should; raises OSError for the Emperor's."""
    own = file_of(birth.vassal) if birth else file
    if birth is None and actor == "emperor":
        os.environ.pop(_FILE, None)
        if own is not None:
            os.environ[_FILE] = msgspec.json.encode(own).decode()
    wanted = own or _inherited()
    try:
        return (LogFile(wanted, is_open=wanted.path == _opened) if wanted else None), ""
    except OSError as error:
        if birth is None and own is not None:
            raise
        # What was inherited still goes to the right file; it is only not followed.
        if own is None or birth is None:
            return None, ""
        option = "logto2" if birth.vassal.logto2 else "logto"
        return None, f"{birth.vassal.problem(option, own.path)}: {error.strerror}; logging goes on here"


#: The path of what :func:`open_log` has opened in this process.
_opened: str | None = None


def _inherited() -> LogFileOptions | None:
    text = os.environ.get(_FILE)
    return msgspec.json.decode(text, type=LogFileOptions) if text else None


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Let nothing that is logged be heard, also not in the file that was inherited; stderr is put back."""
    inherited = os.environ.pop(_FILE, None)
    with contextlib.ExitStack() as stack:
        if inherited is not None:
            stack.callback(os.environ.__setitem__, _FILE, inherited)
        stderr = os.dup(2)
        stack.callback(os.close, stderr)
        stack.callback(os.dup2, stderr, 2)
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        stack.callback(os.close, null)
        os.dup2(null, 2)
        yield


def open_log(birth: Birth) -> None:
    """Make stderr the log file of a vassal while this process may still open any; what fails is tried later.

    For the child that :func:`log_to_stderr` is called in, before it drops its privileges (uWSGI's ``logto``).
    """
    global _opened
    file = file_of(birth.vassal)
    if file is None or birth.vassal.logto2 or birth.vassal.owner:
        return  # a vassal of a tyrant opens what its owner may open
    try:
        fd = open_to_append(file, file.mode, file.uid, file.gid)
    except OSError:
        return  # log_to_stderr() tries it as the vassal's user, and says what is wrong
    os.dup2(fd, 2)
    os.close(fd)
    _opened = file.path


def reopen(vassals: Iterable[Vassal] = ()) -> None:
    """Begin anew with the log file of this process, and make those of ``vassals``, where they were moved away.

    Processes that log to them see it at their next line.
    """
    if _log is not None and _log.file is not None:
        _log.file.reopen()
    for vassal in vassals:
        if file := file_of(vassal):
            try:
                with acting_as(vassal.owner):
                    os.close(open_to_append(file, file.mode, file.uid, file.gid))
            except OSError as error:
                if error.errno != errno.ELOOP:  # a link is the vassal's own affair: its processes follow it
                    logger.warning("logto = {}: {}", file.path, error.strerror)


def log_statuses(statuses: Iterable[VassalStatus]) -> None:
    """Log how each vassal is, one line each (uWSGI's answer to SIGUSR1)."""
    for one in statuses:
        pids = f", pid {' '.join(map(str, one.pids))}" if one.pids else ""
        why = "".join(f"; {text}" for text in (one.reason, one.refused) if text)
        figures = f"generation {one.generation}, {one.requests} requests, loyal {int(one.loyal)}"
        text = f"{one.state}{pids}, {figures}{why}"
        logger.bind(actor=f"master:{one.name}", event="status").info("{}", text)


def _signalled(_number: int, _frame: object) -> None:
    reopen()


def _sink(message: Any) -> None:
    if _log is not None:
        _log.record(message)


def log_request(birth: Birth, core: int, outcome: Outcome, now: float, *, enabled: bool = True) -> None:
    """Log one request, which ended at ``now`` (monotonic seconds).

    If not ``enabled``, only one with a problem, or that uWSGI's ``log-4xx`` and the like ask for. It runs for
    every request, so it does without loguru, whose records cost several times as much. Before
    :func:`log_to_stderr` nothing is logged.
    """
    log = _log
    if log is None:
        return
    rules = log.requests
    if not (enabled or outcome.problem or (rules and rules.exempt(outcome, now))):
        return
    if log.level > (_WARNING if outcome.problem else _INFO):
        return
    wall = time.time()
    number = next(log.numbers)
    if rules is not None and rules.line is not None and outcome.request is not None:
        log.stderr.write(rules.line(Request(birth, core, outcome, now, wall, log.pid, number)))
        if outcome.problem:
            log.write(problem_entry(birth, outcome, now), wall)
        return
    xff = rules is not None and rules.x_forwarded_for
    served = Served.of(birth, core, outcome, now, pid=log.pid, number=number, x_forwarded_for=xff)
    log.stderr.write(log.style.served(served, wall))


_INFO = logger.level("INFO").no
_WARNING = logger.level("WARNING").no


def _style(name: str, level: str, birth: Birth | None, date: str = "") -> Style:
    match name:
        case "json":
            return Json()
        case "uwsgi":
            micros = birth is not None and birth.vassal.log_micros
            return Uwsgi(birth, date=strftime_of(date), micros=micros, ids=_ids)
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
