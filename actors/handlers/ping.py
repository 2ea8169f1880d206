"""``modifier1`` 100: answers that this worker serves requests (uWSGI's ``--ping``)."""

from collections.abc import Callable

from pyemperor.actors.wires import Request
from pyemperor.protocol.options import Vassal
from pyemperor.protocol.uwsgi import PONG


def handler(_vassal: Vassal) -> Callable[[Request], bytes]:
    """The answer is the same for every vassal."""
    return lambda _request: PONG
