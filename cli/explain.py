"""``pyemperor options``: what is known of uWSGI's options, and what becomes of each here."""

import difflib
import sys
from collections.abc import Sequence
from typing import TextIO

import msgspec

from pyemperor.protocol.dialect.loader import DIRECTIVES
from pyemperor.protocol.dialect.logic import WORDS
from pyemperor.protocol.option_rows.elsewhere import elsewhere
from pyemperor.protocol.options import OPTIONS
from pyemperor.protocol.tables import Option

#: What becomes of an option, for people.
FATES = {
    "honoured": "honoured",
    "accepted": "accepted: needs no effect here",
    "planned": "known, has no effect yet",
    "refused": "refused: an error",
}
_COLOURS = {"honoured": "green", "accepted": "dim", "planned": "yellow", "refused": "red"}
_SCOPES = {
    "emperor": "of the Emperor",
    "vassal": "of a vassal",
    "supervision": "of [supervision]",
    "backoff": "of backoff in [supervision]",
}


class Explained(msgspec.Struct, frozen=True, omit_defaults=True):
    """One option as ``--json`` shows it; the scope is that of the file where it stands."""

    name: str
    scope: str
    status: str
    meaning: str
    value: str = ""
    default: str = ""
    repeatable: bool = False
    aliases: tuple[str, ...] = ()
    why: str = ""


def explain(name: str | None, *, json: bool, out: TextIO | None = None) -> int:
    """Print the option ``name``, or all of them; the exit code is 2 when there is none of this name."""
    out = out or sys.stdout
    found = [_explained(row) for row in OPTIONS if name is None or name in (row.name, *row.aliases)]
    if not found and name is not None:
        found = _of_other_kinds(name)
    if not found:
        near = difflib.get_close_matches(str(name), sorted({row.name for row in OPTIONS}), n=3)
        remedy = f"; did you mean {', '.join(near)}?" if near else ""
        print(f"pyemperor: no option {name}{remedy}", file=sys.stderr)
        return 2
    if json:
        out.writelines(msgspec.json.encode(one).decode() + "\n" for one in found)
    elif name is not None:
        out.write("\n".join(map(_page, found)))
    elif out.isatty():
        _table(found, out)
    else:
        out.writelines(f"{one.name}\t{one.scope}\t{one.status}\t{_words(one)}\n" for one in found)
    return 0


def _explained(row: Option) -> Explained:
    return Explained(
        row.name,
        row.scope,
        row.status,
        row.meaning,
        row.expected,
        row.default_text,
        row.repeat,
        row.aliases,
        row.why,
    )


def _of_other_kinds(name: str) -> list[Explained]:
    """A word of the dialect, or an option of uWSGI that has no row."""
    if name in WORDS or name in DIRECTIVES:
        meaning = "a word of the configuration dialect: docs/ini.md"
        return [Explained(name, "any file", "honoured", meaning)]
    if fate := elsewhere(name):
        status, why = fate
        return [Explained(name, "uWSGI", status, "an option of uWSGI outside of what PyEmperor is for", why=why)]
    return []


def _page(one: Explained) -> str:
    lines = [
        f"{one.name} ({_SCOPES.get(one.scope, one.scope)}): {one.meaning}",
        f"  here      {FATES[one.status]}" + (f" ({one.why})" if one.why else ""),
    ]
    if one.value:
        lines.append(f"  value     {one.value}")
    if one.default:
        lines.append(f"  default   {one.default}")
    if one.aliases:
        lines.append(f"  also      {', '.join(one.aliases)}")
    return "\n".join(lines) + "\n"


def _words(one: Explained) -> str:
    return f"{one.meaning} ({one.why})" if one.why else one.meaning


def _table(found: Sequence[Explained], out: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for title in ("option", "of", "here", "meaning"):
        table.add_column(title, overflow="fold")
    for one in found:
        status = Text(one.status, _COLOURS[one.status])
        meaning = Text(one.meaning).append(f" ({one.why})" if one.why else "", "dim")
        table.add_row(Text(one.name, "cyan"), one.scope, status, meaning)
    Console(file=out, highlight=False, markup=False).print(table)
