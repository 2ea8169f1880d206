"""What reading one configuration may cost: a file may have been written by nobody's friend.

The files of tenants are read in the Emperor's process. So everything that a few lines could make grow without end
has a bound here, and what passes it is an error with a place, like any other.
"""

import re
from collections.abc import Callable, Iterator

from pyemperor.protocol.dialect.settings import Setting

#: Bytes of one file.
LARGEST = 256 * 1024
#: Characters that are read and filled in, in all; a file counts each time that it is read.
MOST_TEXT = 4 * 1024 * 1024
#: Settings and blocks that are carried out, and options that custom ones stand for.
MOST_SETTINGS = 20_000
#: Characters of one value: one that grows beyond this doubles itself.
LONGEST = 65536

_REPETITION = re.compile(r"[*+?{]")
_OF_A_GROUP = re.compile(r"\)[*+?{]")
_INERT = re.compile(r"\\.|\[\^?\]?[^]]*\]|(?<=\()\?")
_MOST_REPETITIONS, _MOST_ALTERNATIVES = 3, 4


class TooMuch(Exception):
    """A configuration costs more than it may; ``at`` is the setting that made it so."""

    def __init__(self, at: Setting, found: str) -> None:
        super().__init__(found)
        self.at = at
        self.found = found


def substitute(pattern: "re.Pattern[str]", new: "Callable[[re.Match[str]], str]", text: str) -> str:
    """Replace as ``pattern.sub`` does, but stop as soon as it is longer than :data:`LONGEST`."""
    parts: list[str] = []
    at = size = 0
    for match in pattern.finditer(text):
        parts += text[at : match.start()], new(match)
        size += len(parts[-2]) + len(parts[-1])
        at = match.end()
        if size > LONGEST:
            return "".join(parts)
    return "".join([*parts, text[at:]])


def replaced(setting: Setting, old: str, new: str) -> str:
    """Replace ``old`` in the value of ``setting``; raises :class:`TooMuch` when that is too long."""
    size = len(setting.value) + setting.value.count(old) * (len(new) - len(old))
    if size > LONGEST and old in setting.value:
        raise TooMuch(setting, f"more than {LONGEST} characters once {old} is filled in")
    return setting.value.replace(old, new)


def backtracks(pattern: str) -> bool:
    """Whether a search for the regular expression might take for ever, even in so short a text as a host's name.

    Python's engine tries every way of matching, and nothing else runs meanwhile. So there may be few choices, and
    no choice within a repetition.
    """
    bare = _INERT.sub("x", pattern)
    return (
        len(_REPETITION.findall(bare)) > _MOST_REPETITIONS
        or bare.count("|") > _MOST_ALTERNATIVES
        or _OF_A_GROUP.search(bare) is not None
    )


def at_most(number: int, found: Iterator[str]) -> Iterator[str]:
    """Pass on what was found; raises OSError for one that is too many, as who looks at the machine does."""
    for index, one in enumerate(found):
        if index >= number:
            raise OSError(0, f"more than {number} files")
        yield one
