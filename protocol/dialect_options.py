"""From the settings of uWSGI's dialect to typed options, with what uWSGI lets pass and what it passes over.

uWSGI's rules: the last of several values counts, lists grow; a flag without a value is true, and so is every word
that is not false, off, no or 0; a number ends where its digits end. Where such a rule hides a mistake, a warning
says so. An unknown name is a placeholder; one that nobody uses is warned of, and an error with ``strict``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pyemperor.protocol.dialect import Loaded, Setting
from pyemperor.protocol.dialect.loader import DIRECTIVES
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.option_rows.elsewhere import elsewhere
from pyemperor.protocol.options import (
    OPTIONS,
    Address,
    EmperorOptions,
    Supervision,
    Vassal,
    emperor_from,
    vassal_from,
)
from pyemperor.protocol.quantities import is_flag
from pyemperor.protocol.report import Path, Report, did_you_mean, in_file_order
from pyemperor.protocol.tables import Option, rows

Scope = Literal["emperor", "vassal"]
_ROWS: dict[Scope, dict[str, Option]] = {"emperor": rows(OPTIONS, "emperor"), "vassal": rows(OPTIONS, "vassal")}
_OTHERS: dict[Scope, tuple[Scope, str]] = {
    "emperor": ("vassal", "an option of vassals, without effect on the Emperor"),
    "vassal": ("emperor", "an option of the Emperor, without effect on a vassal"),
}
#: What a name without a value stands for, by the kind of its option.
_BARE = {"flag": "true", "mode": "1", "switch": "true"}
_NUMBERS = frozenset({"count", "time", "size", "megabytes", "milliseconds"})
_DIGITS = re.compile(r"\d+")
_UNKNOWN = "unknown option, has no effect"
_MAY_EXPLAIN = frozenset({_UNKNOWN, *(words for _, words in _OTHERS.values())})
_FALSE = frozenset({"false", "off", "no", "0"})


@dataclass(frozen=True, slots=True)
class DialectReport(Report):
    """A report whose values come from several files; ``origin`` knows where."""

    origin: Callable[[Path], Setting] = field(default=lambda _: Setting("", "", ""))

    def _here(self, found: str, expected: str, remedy: str) -> Problem:
        place = self.origin(self.path)
        unquoted = [re.sub(" in quotes|\"", "", words) for words in (expected, remedy)]  # INI has no quotes
        return Problem(place.file, place.line, place.key, found, *unquoted)


def vassal_of(
    loaded: Loaded,
    file: str,
    *,
    name: str,
    base: str,
    supervision: Supervision | None = None,
    called_at: Address | None = None,
) -> tuple[Vassal, tuple[Problem, ...]]:
    """Make the vassal ``name`` of what was loaded from ``file``; also give the warnings.

    Relative paths start from ``base``; for ``called_at`` see :func:`vassal_from`. Raises :class:`ConfigError`
    with everything that is wrong, in all files.
    """
    _check_read(loaded)
    table, report = _table(loaded, file, "vassal")
    vassal = vassal_from(table, report, name=name, base=base, supervision=supervision, called_at=called_at)
    return vassal, _judged(report)


def emperor_of(loaded: Loaded, file: str, *, base: str) -> tuple[EmperorOptions, tuple[Problem, ...]]:
    """Make the Emperor's options of what was loaded from ``file``; else as :func:`vassal_of`."""
    _check_read(loaded)
    table, report = _table(loaded, file, "emperor")
    return emperor_from(table, report, base=base), _judged(report)


def _check_read(loaded: Loaded) -> None:
    """Raise what kept the file from being read: what is not in it then is nobody's mistake."""
    if loaded.notes.problems and not loaded.settings:
        raise ConfigError(*in_file_order(loaded.notes.problems))


def _judged(report: Report) -> tuple[Problem, ...]:
    if report.problems:
        # A misspelt option, or one at the wrong place, may be why another one is missing.
        misspelt = [note for note in report.warnings if note.found in _MAY_EXPLAIN]
        raise ConfigError(*in_file_order([*report.problems, *misspelt]))
    return in_file_order(report.warnings)


def _table(loaded: Loaded, file: str, scope: Scope) -> tuple[Mapping[str, object], DialectReport]:
    """Gather the raw values of all options by their own names, and report what is none."""
    given: dict[str, list[Setting]] = {}
    strict = any(one.key == "strict" and one.value.lower() not in _FALSE for one in loaded.settings)
    notes = loaded.notes
    report = DialectReport(
        file, lambda _: 0, (), notes.problems, notes.warnings, lambda path: _origin(path, given, file)
    )
    unknown: set[str] = set()
    for one in loaded.settings:
        row = _ROWS[scope].get(one.key)
        if row is not None:
            given.setdefault(row.name, []).append(one)
        elif one.key not in unknown and one.key not in DIRECTIVES:
            unknown.add(one.key)
            _report_unknown(one, loaded, scope, strict)
    table: dict[str, object] = {}
    for name, settings in given.items():
        row = _ROWS[scope][name]
        if row.repeat:
            table[name] = [_value(row, one, loaded) for one in settings]
        else:
            _report_repeated(settings, loaded)
            given[name] = settings[-1:]
            table[name] = _value(row, settings[-1], loaded)
    return table, report


def _origin(path: Path, given: Mapping[str, list[Setting]], file: str) -> Setting:
    """Where the value at ``path`` of a table stands."""
    settings = given.get(str(path[0])) if path else None
    if not settings:
        return Setting(".".join(map(str, path)), "", file)
    index = path[1] if len(path) > 1 and isinstance(path[1], int) else 0
    return settings[min(index, len(settings) - 1)]


def _report_unknown(one: Setting, loaded: Loaded, scope: Scope, strict: bool) -> None:
    notes = loaded.notes
    other, words = _OTHERS[scope]
    if one.key in _ROWS[other]:
        notes.warning(one, words)
    elif fate := elsewhere(one.key):
        status, why = fate
        if status == "refused":
            notes.problem(one, "refused", remedy=why)
        else:
            notes.warning(one, "not supported, has no effect", remedy=why)
    elif one.key not in loaded.placeholders:
        near = "" if notes.many else did_you_mean(one.key, _ROWS[scope])
        if strict:
            notes.problem(one, "unknown option, and the file says strict", remedy=near)
        else:
            notes.warning(one, _UNKNOWN, remedy=near)


def _report_repeated(settings: list[Setting], loaded: Loaded) -> None:
    last = settings[-1]
    for one in settings[:-1]:
        if one.file == last.file and one.line != last.line and one.value != last.value:
            loaded.notes.warning(one, f"has no effect: line {last.line} gives {last.key} another value")


def _value(row: Option, one: Setting, loaded: Loaded) -> str:
    """The value as our readers take it."""
    kind = row.kind.name
    if not one.value:
        return _BARE.get(kind, "")
    if kind == "flag" and not is_flag(one.value):
        loaded.notes.warning(one, f'"{one.value}" is taken as true', remedy="write true or false")
        return "true"
    if kind in _NUMBERS and (digits := _DIGITS.match(one.value)):
        try:
            row.kind.read(one.value, "")
        except ValueError:
            loaded.notes.warning(one, f'"{one.value}" is taken as {digits[0]}', row.expected.replace('"', ""))
            return digits[0]
    return one.value
