"""``$(ENV)``, ``@(file)`` and ``%(placeholder)`` in values, and the arithmetic of the latter.

A placeholder is the first definition of a key. ``%(a b)`` joins, ``%(a + 1)`` counts, from left to right,
between spaces: ``+ - * /`` of whole numbers of 64 bits, ``++`` and ``--`` behind their operand. What is not
defined stays as it is written. Source: uWSGI, "Configuring uWSGI", section "Placeholders".
"""

import posixpath
import re
from collections.abc import Callable, Mapping

from pyemperor.protocol.dialect.bounds import LONGEST, substitute
from pyemperor.protocol.dialect.logic import reason
from pyemperor.protocol.dialect.settings import Notes, Setting, World
from pyemperor.protocol.report import did_you_mean

_ENVIRONMENT = re.compile(r"\$\(([^)$]+)\)")
_FILE = re.compile(r"@\(([^)@]+)\)")
_PLACEHOLDER = re.compile(r"%\(([^)%]+)\)")
_NUMBER = re.compile(r"[ \t]*([-+]?\d{1,19})")
_SCHEME = re.compile(r"[a-z]+://")
#: Options that have words of their own in %(...), which are no placeholders.
_TEMPLATES = frozenset({"log-format", "logformat", "log-req-format", "log-encoder", "log-req-encoder"})


class Placeholders:
    """Fills the values of one configuration."""

    def __init__(self, first: Mapping[str, Setting], world: World, notes: Notes) -> None:
        self._first = first
        self._world = world
        self._notes = notes
        self._filled: dict[str, str] = {}
        self._open: list[str] = []
        #: Names that were asked for.
        self.used: set[str] = set()

    def fill(self, setting: Setting) -> str:
        """Give the value of ``setting`` with everything in it replaced."""
        environ = self._world.environ
        text = setting.value
        steps: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
            (_ENVIRONMENT, lambda match: environ.get(match[1], match[0])),
            (_FILE, lambda match: self._content(match[1], setting)),
            (_PLACEHOLDER, lambda match: self._resolve(match, setting)),
        )
        for pattern, new in steps:
            text = substitute(pattern, new, text)
            if len(text) > LONGEST:
                self._notes.problem(setting, f"more than {LONGEST} characters once its placeholders are filled in")
                return ""
        return text

    def _content(self, path: str, setting: Setting) -> str:
        if _SCHEME.match(path):
            self._notes.problem(setting, f"@({path})", "@(/path/of/a/file)", only_files(path))
            return ""
        where = posixpath.join(self._world.cwd, path)
        try:
            return self._world.read(where).removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            self._notes.problem(setting, f"{where} cannot be read: {reason(error)}")
            return ""

    def _resolve(self, match: "re.Match[str]", setting: Setting) -> str:
        if " " in match[1]:
            return _pipeline(match[1], lambda name: self._value(name, setting) or "")
        value = self._value(match[1], setting)
        if value is not None:
            return value
        if setting.key not in _TEMPLATES and match[1] != "_":
            near = "" if self._notes.many else did_you_mean(match[1], self._first)
            self._notes.warning(setting, f"no placeholder {match[1]}: it stays as it is written", remedy=near)
        return match[0]

    def _value(self, name: str, setting: Setting) -> str | None:
        self.used.add(name)
        if name not in self._first or name in self._filled:
            return self._filled.get(name)
        if name in self._open:
            chain = " -> ".join([*self._open[self._open.index(name) :], name])
            self._notes.problem(setting, f"%({name}) refers to itself: {chain}")
            return ""
        if len(self._open) > 100:
            self._notes.problem(setting, "more than 100 placeholders within each other")
            return ""
        self._open.append(name)
        self._filled[name] = self.fill(self._first[name])
        self._open.pop()
        return self._filled[name]


def only_files(path: str) -> str:
    """Say why something that is no file is refused."""
    if path.startswith("exec://"):
        return "no program is run to read a configuration: write its output to a file before"
    return "only files are read: copy it to one"


def _pipeline(text: str, value: Callable[[str], str]) -> str:
    """Carry out ``a + b * 2``: each word works on what stands before it."""
    result = ""
    operator = ""
    for word in filter(None, text.split(" ")):
        if word in _OPERATIONS:
            operator = word
        elif word in ("++", "--"):
            result = str(_wrapped(_integer(result) + (1 if word == "++" else -1)))
            operator = ""
        else:
            operand = word if word.isascii() and word.isdigit() else value(word)
            if operator:
                result = str(_wrapped(_OPERATIONS[operator](_integer(result), _integer(operand))))
            else:
                result = (result + operand)[: LONGEST + 1]
            operator = ""
    return result


def _quotient(dividend: int, divisor: int) -> int:
    """Divide as C does: towards 0; by 0 it is 0, as in uWSGI."""
    if divisor == 0:
        return 0
    quotient = abs(dividend) // abs(divisor)
    return quotient if (dividend < 0) == (divisor < 0) else -quotient


_OPERATIONS: Mapping[str, Callable[[int, int], int]] = {
    "+": lambda one, other: one + other,
    "-": lambda one, other: one - other,
    "*": lambda one, other: one * other,
    "/": _quotient,
}


def _integer(text: str) -> int:
    """Read the number at the beginning, as C's strtoll; 0 when there is none."""
    match = _NUMBER.match(text)
    return _wrapped(int(match[1])) if match else 0


def _wrapped(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63
