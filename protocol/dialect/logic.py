"""The logic of the dialect: ``for`` and ``if`` blocks, and what they ask of the machine.

Source: uWSGI, "Configuration logic". Blocks may stand within blocks, and ``else`` is understood, as in
uWSGI's development branch.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pyemperor.protocol.dialect.bounds import backtracks
from pyemperor.protocol.dialect.settings import Notes, Setting, World

#: What ``%(_)`` stands for in a body, once for each time that it is carried out; None leaves it alone.
Values = list[str | None]
#: More is a mistake, or malice.
MOST_TIMES = 10_000
_CLOSING = frozenset({"end", "endfor", "end-for", "endif", "end-if"})
_BUILT_IN = frozenset({"cgi", "http", "ping"})
_LINE = 1023  # of for-readline


@dataclass(slots=True)
class Block:
    """A condition or a cycle: its opening line, what it holds, and what holds otherwise."""

    head: Setting
    body: "list[Setting | Block]" = field(default_factory=list)
    otherwise: "list[Setting | Block]" = field(default_factory=list)


def nest(settings: Iterable[Setting], notes: Notes) -> "list[Setting | Block]":
    """Put what stands between an opening and its closing line into a block; one without an end ends here."""
    top: list[Setting | Block] = []
    open_blocks: list[Block] = []
    bodies = [top]
    for one in settings:
        if one.key in LOGIC:
            block = Block(one)
            bodies[-1].append(block)
            open_blocks.append(block)
            bodies.append(block.body)
        elif one.key in _CLOSING:
            if open_blocks:
                open_blocks.pop()
                bodies.pop()
            else:
                notes.warning(one, "closes nothing")
        elif one.key == "else" and open_blocks:
            bodies[-1] = open_blocks[-1].otherwise
        else:
            bodies[-1].append(one)
    for block in open_blocks:
        word = "endfor" if block.head.key.startswith("for") else "endif"
        notes.warning(block.head, "is never closed, goes on to the end of the section", remedy=f"write {word} =")
    return top


# ---- cycles and conditions --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What one block asks: the data of its opening line, the machine, and the first value of each key so far."""

    head: Setting
    world: World
    so_far: Mapping[str, str]
    notes: Notes

    @property
    def data(self) -> str:
        return self.head.value

    @property
    def path(self) -> str:
        return posixpath.join(self.world.cwd, self.data)


def _for_glob(asked: Asked) -> Values:
    try:
        found = asked.world.glob(asked.path)
    except OSError as error:
        asked.notes.problem(asked.head, f"{asked.data}: {reason(error)}")
        return []
    if asked.data.startswith("/"):
        return [*found] or [asked.data]
    return [posixpath.relpath(path, asked.world.cwd) for path in found] or [asked.data]


def _for_times(asked: Asked) -> Values:
    digits = re.match(r"\d{1,18}", asked.data)
    times = int(digits[0]) if digits else 0
    if not digits or times > MOST_TIMES:
        asked.notes.problem(asked.head, asked.data or "nothing", f"a whole number, at most {MOST_TIMES}")
        return []
    return [str(number) for number in range(1, times + 1)]


def _for_readline(asked: Asked) -> Values:
    try:
        text = asked.world.read(asked.path)
    except (OSError, UnicodeDecodeError) as error:
        asked.notes.problem(asked.head, f"{asked.path} cannot be read: {reason(error)}")
        return []
    lines = text.split("\n")
    return [line[:_LINE] for line in (lines if lines[-1] else lines[:-1])]


def _variable(asked: Asked, known: Mapping[str, str]) -> tuple[bool, str | None]:
    """Compare ``NAME`` or ``NAME=value`` with what is known."""
    name, equals, wanted = asked.data.partition("=")
    value = known.get(name)
    return value is not None and (not equals or value == wanted), value


def _hostname_matches(asked: Asked) -> bool:
    try:
        if not backtracks(asked.data):
            return re.search(asked.data, asked.world.hostname) is not None
        remedy = "repeat no group, and nothing more than three times"
        asked.notes.problem(asked.head, f"{asked.data} could search for ever", remedy=remedy)
        return False
    except (re.error, RecursionError, OverflowError) as error:
        asked.notes.problem(asked.head, f"{asked.data} is no regular expression: {error}")
        return False


_CYCLES: Mapping[str, Callable[[Asked], Values]] = {
    "for": lambda asked: [word for word in asked.data.split(" ") if word],
    "for-glob": _for_glob,
    "for-times": _for_times,
    "for-readline": _for_readline,
}
_CONDITIONS: Mapping[str, Callable[[Asked], tuple[bool, str | None]]] = {
    "env": lambda asked: _variable(asked, asked.world.environ),
    "opt": lambda asked: _variable(asked, asked.so_far),
    "exists": lambda asked: (asked.world.exists(asked.path), asked.data),
    "file": lambda asked: (asked.world.is_file(asked.path), asked.data),
    "dir": lambda asked: (asked.world.is_dir(asked.path), asked.data),
    "directory": lambda asked: (asked.world.is_dir(asked.path), asked.data),
    "plugin": lambda asked: (asked.data in _BUILT_IN, asked.data),
    "hostname": lambda asked: (asked.data == asked.world.hostname, asked.data),
    "hostname-match": lambda asked: (_hostname_matches(asked), asked.data),
    "reload": lambda asked: (asked.world.reloading, None),
    "uid": lambda asked: (asked.data in (str(asked.world.uid), asked.world.user), asked.data),
    "gid": lambda asked: (asked.data in (str(asked.world.gid), asked.world.group), asked.data),
}
_ALIASES = {f"if{name}": f"if-{name}" for name in ("env", "exists", "plugin", "dir")}
LOGIC = frozenset({
    *_CYCLES, *_ALIASES, *(f"if-{name}" for name in _CONDITIONS), *(f"if-not-{name}" for name in _CONDITIONS)
})  # fmt: skip
#: Every word that is part of the logic and no option.
WORDS = LOGIC | _CLOSING | {"else"}


def values(asked: Asked) -> Values:
    """Give the values for which the body of a block is carried out: for a condition one, or none."""
    word = _ALIASES.get(asked.head.key, asked.head.key)
    if word in _CYCLES:
        return _CYCLES[word](asked)
    negated = word.startswith("if-not-")
    holds, value = _CONDITIONS[word.removeprefix("if-not-" if negated else "if-")](asked)
    return [value] if holds != negated else []


def reason(error: OSError | UnicodeDecodeError) -> str:
    """Say in words why a file could not be read."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 text ({error.reason} at byte {error.start})"
    return error.strerror or str(error)
