"""The lines of an INI file as uWSGI reads them.

A line is ``key = value``, split at its first ``=``; space around both is cut. A key alone has the value "".
A comment has ``;`` or ``#`` as its first character: there are no quotes, no comments behind a value, and no
lines that go on. A section that comes back goes on.
"""

from collections.abc import Callable

from pyemperor.protocol.dialect.settings import Notes, Setting
from pyemperor.protocol.report import suggest

_SPACE = " \t\r"


def ini_settings(
    text: str, file: str, section: str, expand: Callable[[str, Setting], str], notes: Notes
) -> list[Setting] | None:
    """Read the settings of one section; None when there is no such section, which ``notes`` do not say.

    ``expand`` replaces the magic variables in a line, which it gets with its place.
    """
    found: list[Setting] = []
    here = ""
    sections: set[str] = set()
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(_SPACE)
        if not line or line[0] in ";#":
            continue
        place = Setting("", "", file, number)
        if here == section or line.startswith("["):
            line = expand(line, place).strip(_SPACE)
        if line.startswith("["):
            here = _section(line, place, notes)
            sections.add(here)
            continue
        key, _, value = line.partition("=")
        if here == section:
            found.append(Setting(key.rstrip(_SPACE), value.strip(_SPACE), file, number))
            if not found[-1].key:
                notes.problem(found.pop(), "no name before the =", "key = value")
        elif not sections:
            notes.warning(Setting(key.rstrip(_SPACE), "", file, number), "stands before any [section], is ignored")
    return found if section in sections else None


def _section(line: str, place: Setting, notes: Notes) -> str:
    if not line.endswith("]"):
        notes.problem(place, f"{line} has no closing bracket", remedy=f"write {line.split()[0].rstrip(']')}]")
    return line[1:].rstrip("]")


def ini_sections(text: str) -> list[str]:
    """Name the sections of a file, for whoever asked for another one."""
    lines = (line.strip(_SPACE) for line in text.split("\n"))
    return [line[1:-1] for line in lines if line.startswith("[") and line.endswith("]")]


def nearest_section(asked: str, text: str) -> str:
    """Say which section of an INI file may have been meant."""
    return suggest(asked, ini_sections(text)) or f"write [{asked}] above the options"
