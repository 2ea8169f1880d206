"""What becomes of a request, and the name under which logs and scripts know it."""

import itertools
import os
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


def new_id() -> str:
    """An id in the form of nginx's ``$request_id``: 32 hexadecimal digits, the first half this process's own."""
    return f"{_half(os.getpid())}{next(_numbers):016x}"


_numbers = itertools.count(1)


@cache
def _half(_pid: int) -> str:
    return os.urandom(8).hex()
