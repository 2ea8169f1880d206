"""Parse TOML, and find the line of every key, which ``tomllib`` does not tell (TOML 1.0)."""

import re
import tomllib
from bisect import bisect_right
from functools import partial
from typing import Any

from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.report import Path, Report

#: A dotted key of so many parts that tomllib, and who notes all its beginnings, would take for ever.
_DEEP_KEY = re.compile(r"""(?<![\w-])(?:(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){32}""")
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'  # up to two quotes may stand before the closing three
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")
_TOML_ERROR = re.compile(
    r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL
)


def parse_toml(text: str, file: str) -> tuple[dict[str, Any], Report]:
    """Parse TOML and number its lines; its syntax errors are the user's, so no other exception leaves."""
    if _DEEP_KEY.search(text):
        raise ConfigError(Problem(file, 0, "", "nested too deeply"))
    try:
        table = tomllib.loads(text)
        return table, Report(file, partial(line_of, key_lines(text)))
    except RecursionError:
        raise ConfigError(Problem(file, 0, "", "nested too deeply")) from None
    except ValueError as error:  # TOMLDecodeError, and an integer of thousands of digits
        match = _TOML_ERROR.fullmatch(str(error))
        if match is None:
            raise ConfigError(Problem(file, 0, "", f"not TOML: {str(error).split(';')[0]}")) from None
        line = int(match["line"] or text.rstrip("\n").count("\n") + 1)
        where = f"column {match['column']}" if match["column"] else "end of file"
        raise ConfigError(Problem(file, line, "", f"not TOML: {match['what']} at {where}")) from None


def key_lines(text: str) -> dict[Path, int]:
    """Map the path of every key, table and array element to the line, from 1, where it begins.

    The text must be TOML that ``tomllib`` accepted: nothing is validated a second time.
    ``("vassal", 1, "threads")`` is the key ``threads`` of the second ``[[vassal]]``.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


def line_of(lines: dict[Path, int], path: Path) -> int:
    """Return the line of ``path``, or of the nearest table around it; 0 when there is none."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return 0


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        #: How many elements each array of tables has so far.
        self._elements: dict[Path, int] = {}

    def document(self) -> None:
        table: Path = ()
        self._skip(_BLANK)
        while self.at < len(self.text):
            if self._peek("["):
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)

    # ---- statements ----

    def _header(self) -> Path:
        """Read ``[a.b]`` or ``[[a.b]]`` and return the path of the table that it opens."""
        line = self._line()
        array = self._peek("[[")
        self.at += 2 if array else 1
        keys = self._keys()
        self.at += 2 if array else 1
        table: Path = ()
        for key in keys[:-1]:
            table = self._newest(table, key)
            self.lines.setdefault(table, line)
        if array:
            name = (*table, keys[-1])
            self.lines.setdefault(name, line)
            self._elements[name] = self._elements.get(name, 0) + 1
        table = self._newest(table, keys[-1])
        self.lines[table] = line
        return table

    def _newest(self, table: Path, key: str) -> Path:
        name = (*table, key)
        return (*name, self._elements[name] - 1) if name in self._elements else name

    def _pair(self, table: Path) -> None:
        line = self._line()
        path = table
        for key in self._keys():
            path = (*path, key)
            self.lines.setdefault(path, line)
        self.at += 1  # the =
        self._skip(_SPACE)
        self._value(path)

    # ---- values ----

    def _value(self, path: Path) -> None:
        if self._peek("["):
            self._array(path)
        elif self._peek("{"):
            self._inline_table(path)
        elif self._peek('"') or self._peek("'"):
            self._skip(_STRING)
        else:
            self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        self.at += 1
        index = 0
        while not self._ahead("]"):
            self.lines[(*path, index)] = self._line()
            self._value((*path, index))
            index += 1
            self._comma()
        self.at += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        while not self._ahead("}"):
            self._pair(path)
            self._comma()
        self.at += 1

    # ---- tokens ----

    def _keys(self) -> list[str]:
        """Read a dotted key and the space around it."""
        keys: list[str] = []
        while not keys or self._peek("."):
            if keys:
                self.at += 1
            self._skip(_SPACE)
            start = self.at
            quoted = self._peek('"') or self._peek("'")
            self._skip(_STRING if quoted else _BARE_KEY)
            raw = self.text[start : self.at]
            keys.append(str(tomllib.loads(f"key = {raw}")["key"]) if quoted else raw)
            self._skip(_SPACE)
        return keys

    def _comma(self) -> None:
        if self._ahead(","):
            self.at += 1

    def _ahead(self, token: str) -> bool:
        self._skip(_BLANK)
        return self._peek(token)

    def _peek(self, token: str) -> bool:
        return self.text.startswith(token, self.at)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        if match := pattern.match(self.text, self.at):
            self.at = match.end()

    def _line(self) -> int:
        return bisect_right(self._starts, self.at)
