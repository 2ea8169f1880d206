"""Writes the tables of options in docs/*.md from the tables in the code: ``make docs``.

A table stands between ``<!-- options: SCOPE -->``, ``<!-- chapter: NAME -->``, ``<!-- events -->``,
``<!-- messages -->`` or ``<!-- scenarios -->`` and ``<!-- end -->``; what else is in the file is left alone.
With ``--check`` nothing is written, and the exit code says whether something would be.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from pyemperor.protocol import expect, fault, load, messages, options, scenario
from pyemperor.protocol.tables import Option

_ROWS = (*options.OPTIONS, *scenario.KEYS, *load.KEYS, *fault.KEYS, *expect.KEYS)
_BLOCK = re.compile(r"(<!-- (?P<what>[a-z :]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_SCENARIOS = Path(__file__).parents[1] / "scenarios"
_EFFECT = {"honoured": "honoured", "accepted": "needless", "planned": "not yet", "refused": "an error"}


def table(what: str) -> str:
    """The table of ``what`` in Markdown."""
    if what == "events":
        return _lines(("event", "meaning"), ((f"`{name}`", text) for name, text in messages.EVENTS.items()))
    if what == "messages":
        return _lines(("message", "fields", "meaning"), map(_message, messages.Message.__subclasses__()))
    if what == "scenarios":
        return _lines(("file", "what it shows"), map(_scenario, sorted(_SCENARIOS.glob("*.toml"))))
    if what.startswith("chapter: "):
        chapter = options.CHAPTERS[what.removeprefix("chapter: ")]
        head = ("option", "of", "what it asks for", "here", "why, or what to do")
        return _lines(head, map(_in_chapter, chapter))
    scope = what.removeprefix("options: ")
    found = [row for row in _ROWS if row.scope == scope and row.status == "honoured"]
    if not found:
        raise SystemExit(f"there is no table of {what}")
    return _lines(("option", "value", "default", "meaning"), map(_honoured, found))


def _scenario(file: Path) -> tuple[str, ...]:
    return f"`{file.name}`", tomllib.loads(file.read_text(encoding="utf-8"))["description"]


def _message(one: type[messages.Message]) -> tuple[str, ...]:
    meaning = " ".join((one.__doc__ or "").partition("\n\n")[0].split())
    meaning = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", meaning).replace("``", "`")
    return f"`{one.__name__}`", ", ".join(f"`{name}`" for name in one.__struct_fields__), meaning


def _honoured(row: Option) -> tuple[str, ...]:
    meaning = row.meaning + (f" (only {', '.join(row.kinds)})" if row.kinds else "")
    return _names(row), row.expected, _default(row), meaning


def _in_chapter(row: Option) -> tuple[str, ...]:
    return _names(row), row.scope, row.meaning, _EFFECT[row.status], row.why


def _names(row: Option) -> str:
    return ", ".join(f"`{name}`" for name in (row.name, *row.aliases))


def _default(row: Option) -> str:
    if row.needed:
        return "must be given"
    if row.kind.name == "signal":
        return f"`{next(name for name, number in fault.SIGNALS.items() if number == row.default)}`"
    text = row.default_text
    return f"`{text}`" if text and row.kind.name != "time" else text


def _lines(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    all_rows = [head, ("---",) * len(head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(row)} |\n" for row in all_rows)


def _filled(text: str) -> str:
    return _BLOCK.sub(lambda block: block[1] + table(block["what"]) + block[3], text)


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
