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


def named(request: Request, outcome: Outcome) -> Request:
    """The request with its id, the web server's or one of ours; a request that took its place keeps it."""
    variables = request.variables
    known = variables.get(b"REQUEST_ID")
    if known:
        outcome.id = known.decode("utf-8", "backslashreplace")
        return request
    outcome.id = outcome.id or _new_id()
    variables = {**variables, b"REQUEST_ID": outcome.id.encode()}
    return Request(request.modifier1, request.modifier2, variables, request.length)


def _new_id() -> str:
    """An id in the form of nginx's ``$request_id``: 32 hexadecimal digits, the first half this process's own."""
    half, numbers = _ours(os.getpid())
    return f"{half}{next(numbers):016x}"


@cache
def _ours(_pid: int) -> tuple[str, Iterator[int]]:
    return os.urandom(8).hex(), itertools.count(1)
