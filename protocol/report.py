"""Collect everything that is wrong in one configuration file, so that its user reads it at once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from pyemperor.protocol.errors import ConfigError, Problem

Key = str | int
#: Keys from the top of a file down to a value; an ``int`` is an index into an array.
Path = tuple[Key, ...]
#: Problems, and warnings, that are told of one file: its user mends these first.
MOST_TOLD = 50
#: Longer words are no slips of the pen; and so many known ones are looked at.
_LONGEST_WORD, _MOST_WORDS = 60, 1000


@dataclass(frozen=True, slots=True)
class Report:
    """The problems and warnings of one file, seen from one place in it.

    ``line_of`` gives the line of a path, 0 when unknown. :meth:`at` looks at a deeper place; all views
    of one file share their lists.
    """

    file: str
    line_of: Callable[[Path], int]
    path: Path = ()
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def at(self, *keys: Key) -> "Report":
        """Look at the value under ``keys``."""
        return replace(self, path=self.path + keys)

    @property
    def place(self) -> tuple[str, int]:
        """File and line of the value that is looked at; line 0 when unknown."""
        here = self._here("", "", "")
        return here.file, here.line

    def problem(self, found: str, expected: str = "", remedy: str = "") -> None:
        """Note what makes the file unusable."""
        self.problems.append(self._here(found, expected, remedy))

    def warning(self, found: str, expected: str = "", remedy: str = "") -> None:
        """Note what the user should know, though the file can be used."""
        self.warnings.append(self._here(found, expected, remedy))

    def raise_problems(self) -> None:
        """Raise all problems as one :class:`ConfigError`, in file order; return if there is none."""
        if self.problems:
            raise ConfigError(*in_file_order(self.problems))

    def _here(self, found: str, expected: str, remedy: str) -> Problem:
        key = ".".join(key for key in self.path if isinstance(key, str))
        return Problem(self.file, self.line_of(self.path), key, found, expected, remedy)


def in_file_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sort by line, what has no line first; copies of a vassal have their problems only once.

    Of more than :data:`MOST_TOLD` the last says how many more there are.
    """
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: problem.line)
    if (left := len(ordered) - MOST_TOLD) > 0:
        ordered[MOST_TOLD:] = [Problem(ordered[-1].file, 0, "", f"and {left} more")]
    return tuple(ordered)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest the nearest of ``known``; "" when none is near."""
    # Here, not above: every worker has what this module imports, and few files have a mistake in them.
    from difflib import get_close_matches

    if len(word) > _LONGEST_WORD:
        return ""
    names = sorted({name for name in known if len(name) <= _LONGEST_WORD})[:_MOST_WORDS]
    near = get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""


def suggest(word: str, known: Iterable[str]) -> str:
    """Suggest the nearest of ``known``, else list them all when they are few."""
    names = sorted(set(known))
    return did_you_mean(word, names) or (f"known: {', '.join(names)}" if 0 < len(names) <= 12 else "")


def show(value: object) -> str:
    """Show a value as its user wrote it, shortened."""
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            return "a table"
        case list() | tuple():
            return "a list"
        case str():
            return f'"{value}"' if len(value) <= 60 else f'"{value[:57]}..."'
        case int() if value.bit_length() > 128:
            return "a number of more than 38 digits"
        case _:
            return str(value)
