"""Type one table of a configuration by its rows: what is known, of which kind, within which bounds."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pyemperor.protocol.report import MOST_TOLD, Report, show, suggest
from pyemperor.protocol.values import Kind

#: What is said of an accepted option.
NEEDLESS = "accepted, has no effect"


@dataclass(frozen=True, slots=True)
class Option:
    """One row. ``why`` is for the user: why an option has no effect, or why it is refused.

    *accepted*: valid and without effect, because what it asks for is always so or has no meaning here.
    *planned*: known and not honoured yet. Both are warnings. *refused*: an error.
    """

    scope: str
    name: str
    kind: Kind
    default: Any
    meaning: str
    status: Literal["honoured", "accepted", "planned", "refused"] = "honoured"
    why: str = ""
    #: May be given several times, in TOML as a list; the value is a tuple.
    repeat: bool = False
    least: float | None = None
    most: float | None = None
    aliases: tuple[str, ...] = ()
    #: Has to be given.
    needed: bool = False
    #: Goes only with these values of the table's ``kind``; () is all.
    kinds: tuple[str, ...] = ()
    #: Name of the field, where it is not the option's name with ``_`` for ``-``.
    field_name: str = ""

    @property
    def field(self) -> str:
        """The attribute that holds the value."""
        return self.field_name or self.name.replace("-", "_")

    @property
    def expected(self) -> str:
        """What a value has to be, in words."""
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (("at least", self.least), ("at most", self.most))
            if bound is not None
        ]
        return ", ".join([self.kind.expected, *bounds]) + (", or a list of such" if self.repeat else "")

    @property
    def default_text(self) -> str:
        """The default in words; "" when it is nothing."""
        value = self.default
        if isinstance(value, tuple) and len(value) == 1:
            (value,) = value
        if value is None or value in ("", (), [], {}):
            return ""
        match self.kind.name:
            case "flag":
                return str(value).lower()
            case "mode":
                return f'"{value:o}"'
            case "time":
                return f"{value:g} s"
        return f"{value:g}" if isinstance(value, float) else str(value)

    def fallback(self, scale: float = 1.0) -> Any:
        """Give the default, its times stretched by ``scale``."""
        stretch = self.kind.scale
        if stretch is None or self.default is None:
            return self.default
        if self.repeat:
            return tuple(stretch(one, scale) for one in self.default)
        return stretch(self.default, scale)

    def value(self, raw: object, report: Report, base: str = "", scale: float = 1.0) -> Any:
        """Type a raw value; None when it is wrong, which ``report`` then says."""
        if not self.repeat:
            return self._one(raw, report, base, scale)
        if not isinstance(raw, list):
            return (self._one(raw, report, base, scale),)
        return tuple(self._one(item, report.at(index), base, scale) for index, item in enumerate(raw))

    def _one(self, raw: object, report: Report, base: str, scale: float) -> Any:
        try:
            value = self.kind.read(raw, base)
        except ValueError as error:
            report.problem(show(raw), self.expected, str(error))
            return None
        if (self.least is not None and value < self.least) or (self.most is not None and value > self.most):
            report.problem(show(raw), self.expected)
            return None
        return value if self.kind.scale is None else self.kind.scale(value, scale)


def rows(options: Iterable[Option], scope: str) -> dict[str, Option]:
    """Index the rows of a scope by name and alias."""
    return {name: row for row in options if row.scope == scope for name in (row.name, *row.aliases)}


def read(
    options: Mapping[str, Option],
    table: Mapping[str, object],
    report: Report,
    *,
    base: str = "",
    scale: float = 1.0,
    besides: Collection[str] = (),
) -> dict[str, Any]:
    """Type what one table gives, by field name; what is wrong or has no effect goes to ``report``.

    The keys in ``besides`` are somebody else's.
    """
    given: dict[str, Any] = {}
    names: dict[str, str] = {}
    unknown = 0
    for key, raw in table.items():
        here = report.at(key)
        row = options.get(key)
        if key in besides:
            continue
        if row is None:
            unknown += 1  # of many nobody is told what was meant, which takes its time to find
            here.problem("unknown key", remedy=suggest(key, [*options, *besides]) if unknown <= MOST_TOLD else "")
        elif row.field in names:
            here.problem(f"the same option as {names[row.field]}", "one of them")
        elif row.status == "refused":
            here.problem("refused", remedy=row.why)
        else:
            names[row.field] = key
            value = row.value(raw, here, base, scale)
            if row.status == "honoured" and value is not None:
                given[row.field] = value
            if row.status == "accepted":
                here.warning(NEEDLESS, remedy=row.why)
            elif row.status == "planned":
                here.warning("not supported yet, has no effect", remedy=row.why)
    return given


def defaults(options: Mapping[str, Option], scale: float = 1.0) -> dict[str, Any]:
    """Give the default of every honoured row by field name, with its times stretched by ``scale``."""
    return {row.field: row.fallback(scale) for row in options.values() if row.status == "honoured"}


def planned(scope: str, name: str, kind: Kind, meaning: str, *aliases: str, why: str = "", repeat: bool = False
            ) -> Option:  # fmt: skip
    """Make the row of an option that is known, and has no effect yet; ``why`` says what to do meanwhile."""
    return Option(scope, name, kind, () if repeat else None, meaning, "planned", why, repeat, aliases=aliases)


def accepted(scope: str, name: str, kind: Kind, meaning: str, why: str, *aliases: str, repeat: bool = False
             ) -> Option:  # fmt: skip
    """Make the row of an option that needs no effect, and ``why``."""
    return Option(scope, name, kind, () if repeat else None, meaning, "accepted", why, repeat, aliases=aliases)


def refused(scope: str, name: str, kind: Kind, meaning: str, why: str, *aliases: str, repeat: bool = False
            ) -> Option:  # fmt: skip
    """Make the row of an option without which it would be wrong to go on; ``why`` says what to write instead."""
    return Option(scope, name, kind, () if repeat else None, meaning, "refused", why, repeat, aliases=aliases)


def everywhere(*options: Option) -> tuple[Option, ...]:
    """Give rows that mean the same to a vassal and to the Emperor, once for each."""
    return tuple(replace(option, scope=scope) for scope in ("emperor", "vassal") for option in options)


def check_kind(options: Mapping[str, Option], kind: str, table: Mapping[str, object], report: Report) -> None:
    """Report keys that a table of this ``kind`` ("" while unknown) lacks, or that do not go with it."""
    for name, row in options.items():
        applies = not row.kinds or kind in row.kinds
        if applies and row.needed and name not in table:
            report.problem(f"no {name}", f"{name}, {row.expected}")
        elif kind and not applies and name in table:
            report.at(name).problem(f"does not go with {kind}", f"{name} with {' or '.join(row.kinds)}")
