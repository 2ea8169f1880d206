"""Whose fault an error of the system is: that of the Emperor's option which asked for what cannot be done."""

import contextlib
import errno
from collections.abc import Iterator

from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.options import EmperorOptions, placed

_REMEDIES = {
    errno.ENOENT: "make the folder, or name another one",
    errno.EACCES: "start it as root, or name a path that its user may write to",
    errno.EPERM: "start it as root",
    errno.ELOOP: "it is a symbolic link, which root does not follow for another user: name what it leads to",
    errno.EISDIR: "name a file in that folder",
}


@contextlib.contextmanager
def blaming(option: str, value: str) -> Iterator[None]:
    """Turn an OSError into the problem of an option."""
    try:
        yield
    except OSError as error:
        raise problem(option, f"{value}: {error.strerror}", _REMEDIES.get(error.errno or 0, "")) from None


@contextlib.contextmanager
def placing(options: EmperorOptions) -> Iterator[None]:
    """Add to the problems of the Emperor's options the file and line where they stand."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(*(placed(one, options.places) for one in error.problems)) from None


def problem(option: str, found: str, remedy: str = "") -> ConfigError:
    """The error that an Emperor's ``option`` is wrong, and what to do instead."""
    return ConfigError(Problem("emperor", 0, option, found, remedy=remedy))
