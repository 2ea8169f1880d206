"""Imports loguru without asyncio.

loguru imports asyncio for coroutine sinks, which nobody here has: 6 MB in each process and a tenth of the
time that a start takes. While loguru is imported it finds a stand-in; whoever needs asyncio gets the real one.
"""

import sys
from types import ModuleType

#: What loguru looks up while it is imported.
_LOOKED_UP = ("get_running_loop", "iscoroutinefunction")


def import_loguru() -> None:
    """Import loguru; afterwards ``import loguru`` finds it everywhere."""
    if "loguru" in sys.modules or "asyncio" in sys.modules:
        return
    stand_in = ModuleType("asyncio")
    for name in _LOOKED_UP:
        setattr(stand_in, name, lambda *_: False)
    sys.modules["asyncio"] = stand_in
    try:
        import loguru  # noqa: F401
    except AttributeError:
        # A loguru that looks up more: then with all its weight.
        for name in [name for name in sys.modules if name.partition(".")[0] == "loguru"]:
            del sys.modules[name]
    finally:
        del sys.modules["asyncio"]
