"""What becomes of a request, and the name under which logs and scripts know it."""

import itertools
import os
from collections.abc import Iterator
from functools import cache

import msgspec

from pyemperor.actors.script import Ending
from pyemperor.actors.wires import Request


class Outcome(msgspec.Struct):
    """What became of a request, for the log and the counters; ``ending`` is the script's, once it is known."""

    request: Request | None = None
    id: str = ""
    script: str = ""
    pid: int = 0
    status: int = 0
    sent: int = 0
    head_size: int = 0
    head_fields: int = 0
    started_at: float = 0.0
    problem: str = ""
    remedy: str = ""
    ending: Ending | None = None
    redirects: int = 0
    #: Whether its script had all the time that it may take (``harakiri``, ``cgi-total-timeout``).
    harakiri: bool = False


def name(outcome: Outcome, request: Request) -> None:
    """Give ``request`` its id, the web server's or one of ours; one that takes the place of another keeps it."""
    known = request.variables.get(b"REQUEST_ID")
    if known:
        outcome.id = known.decode("utf-8", "backslashreplace")
    else:
        outcome.id = outcome.id or _new_id()
        request.variables[b"REQUEST_ID"] = outcome.id.encode()


def _new_id() -> str:
    """An id in the form of nginx's ``$request_id``: 32 hexadecimal digits, the first half this process's own."""
    half, numbers = _ours(os.getpid())
    return f"{half}{next(numbers):016x}"


@cache
def _ours(_pid: int) -> tuple[str, Iterator[int]]:
    return os.urandom(8).hex(), itertools.count(1)
