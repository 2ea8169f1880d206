"""Writes the tables of options in docs/*.md from the tables in the code: ``make docs``.

A table stands between ``<!-- options: SCOPE -->`` and ``<!-- end -->``; what else is in the file is left alone.
With ``--check`` nothing is written, and the exit code says whether something would be.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyemperor.protocol import expect, fault, load, options, scenario
from pyemperor.protocol.tables import Option

_ROWS = (*options.OPTIONS, *scenario.KEYS, *load.KEYS, *fault.KEYS, *expect.KEYS)
_BLOCK = re.compile(r"(<!-- options: (?P<scope>[a-z]+)(?P<rest> without effect)? -->\n).*?(<!-- end -->)", re.DOTALL)
_EFFECT = {"accepted": "needless", "planned": "not yet", "refused": "an error"}


def table(scope: str, *, honoured: bool) -> str:
    """The table of the rows of ``scope`` in Markdown: those that have an effect, or those that have none."""
    found = [row for row in _ROWS if row.scope == scope and (row.status == "honoured") == honoured]
    if not found:
        raise SystemExit(f"no options of scope {scope}")
    if honoured:
        return _lines(("option", "value", "default", "meaning"), map(_honoured, found))
    return _lines(("option", "what it asks for", "here", "why, or what to do"), map(_without_effect, found))


def _honoured(row: Option) -> tuple[str, ...]:
    meaning = row.meaning + (f" (with `kind` {' or '.join(row.kinds)})" if row.kinds else "")
    return _names(row), row.expected, _default(row), meaning


def _without_effect(row: Option) -> tuple[str, ...]:
    return _names(row), row.meaning, _EFFECT[row.status], row.why


def _names(row: Option) -> str:
    return ", ".join(f"`{name}`" for name in (row.name, *row.aliases))


def _default(row: Option) -> str:
    value: Any = row.default
    if row.needed:
        return "must be given"
    if isinstance(value, tuple) and len(value) == 1:
        (value,) = value
    if value is None or value in ("", (), [], {}):
        return ""
    match row.kind.name:
        case "flag":
            return f"`{str(value).lower()}`"
        case "mode":
            return f'`"{value:o}"`'
        case "signal":
            return f"`{next(name for name, number in fault.SIGNALS.items() if number == value)}`"
        case "time":
            return f"{value:g} s"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _lines(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    all_rows = [head, ("---",) * len(head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(row)} |\n" for row in all_rows)


def _filled(text: str) -> str:
    return _BLOCK.sub(lambda block: block[1] + table(block["scope"], honoured=not block["rest"]) + block[4], text)


def main(arguments: list[str]) -> int:
    """Bring every file up to date, or say which is not."""
    stale = 0
    for file in sorted(Path(__file__).parent.glob("*.md")):
        text = file.read_text(encoding="utf-8")
        if (new := _filled(text)) != text:
            stale += 1
            print(f"docs/{file.name} is behind the code" + (": run make docs" if arguments else "; written"))
            if not arguments:
                file.write_text(new, encoding="utf-8")
    return bool(arguments and stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
