"""Whose fault an error of the system is: that of the Emperor's option which asked for what cannot be done."""

import contextlib
from collections.abc import Iterator

from pyemperor.protocol.errors import ConfigError, Problem


@contextlib.contextmanager
def blaming(option: str, value: str) -> Iterator[None]:
    """Turn an OSError into the problem of an option."""
    try:
        yield
    except OSError as error:
        raise problem(option, f"{value}: {error.strerror}") from None


def problem(option: str, found: str, remedy: str = "") -> ConfigError:
    """The error that an Emperor's ``option`` is wrong, and what to do instead."""
    return ConfigError(Problem("emperor", 0, option, found, remedy=remedy))
