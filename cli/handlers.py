"""The handlers of ``modifier1``: ours, and those that other packages register."""

from collections.abc import Callable, Iterable
from importlib import import_module

from loguru import logger

from pyemperor.actors.exchange import Handler
from pyemperor.actors.handlers import cgi, ping
from pyemperor.protocol.options import Vassal
from pyemperor.protocol.uwsgi import Modifier

#: Entry points of this group are named by a number, the ``modifier1``, and give a factory.
GROUP = "pyemperor.handlers"
#: Makes the handler of one vassal.
Factory = Callable[[Vassal], Handler]

_registered: dict[int, Factory] = {}


def registered() -> list[str]:
    """What other packages register, as ``MODIFIER=MODULE:NAME``. The Emperor looks, so that no worker has to."""
    from importlib.metadata import entry_points

    return [f"{entry.name}={entry.value}" for entry in entry_points(group=GROUP)]


def load_registered(specifications: Iterable[str]) -> None:
    """Import what :func:`registered` found; what cannot be imported is said, and left out."""
    for specification in specifications:
        modifier, _, value = specification.partition("=")
        module, _, name = value.partition(":")
        try:
            _registered[int(modifier)] = getattr(import_module(module), name)
        except Exception as error:
            logger.error("handler {} is not used: {!r}", specification, error)


def handlers_of(vassal: Vassal) -> dict[int, Handler]:
    """What each ``modifier1`` does in ``vassal``."""
    scripts = cgi.handler(vassal)
    # A vassal that has only CGI takes what a front end sends that knows no modifiers (Apache, uwsgi_curl).
    handlers: dict[int, Handler] = {
        Modifier.CGI: scripts,
        Modifier.WSGI: scripts,
        Modifier.PING: ping.handler(vassal),
    }
    for modifier, factory in _registered.items():
        try:
            handlers[modifier] = factory(vassal)
        except Exception as error:
            # Somebody else's package must not keep the vassal from serving its scripts.
            logger.error("handler {} is not used in {}: {!r}", modifier, vassal.name, error)
    return handlers
