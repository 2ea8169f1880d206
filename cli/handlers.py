"""The handlers of ``modifier1``: ours, and those that other packages register."""

from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points

from loguru import logger

from pyemperor.actors.exchange import Handler
from pyemperor.actors.handlers import cgi, ping
from pyemperor.protocol.options import Vassal
from pyemperor.protocol.uwsgi import Modifier

#: Entry points of this group are named by a number, the ``modifier1``, and give a function from the vassal
#: to a handler.
GROUP = "pyemperor.handlers"
Factory = Callable[[Vassal], Handler]


@cache
def registered() -> list[tuple[int, Factory]]:
    """What other packages register. The fork server asks once: looking takes longer than a fork."""
    found = []
    for entry in entry_points(group=GROUP):
        try:
            found.append((int(entry.name), entry.load()))
        except Exception as error:
            logger.error("handler {} = {} is not used: {!r}", entry.name, entry.value, error)
    return found


def handlers_of(vassal: Vassal) -> dict[int, Handler]:
    """What each ``modifier1`` does in ``vassal``."""
    scripts = cgi.handler(vassal)
    # A vassal that has only CGI takes what a front end sends that knows no modifiers (Apache, uwsgi_curl).
    handlers: dict[int, Handler] = {
        Modifier.CGI: scripts,
        Modifier.WSGI: scripts,
        Modifier.PING: ping.handler(vassal),
    }
    for modifier, factory in registered():
        try:
            handlers[modifier] = factory(vassal)
        except Exception as error:
            # Somebody else's package must not keep the vassal from serving its scripts.
            logger.error("handler {} is not used in {}: {!r}", modifier, vassal.name, error)
    return handlers
