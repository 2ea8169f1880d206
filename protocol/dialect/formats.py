"""JSON and XML as uWSGI reads them: the settings of one section, in the order of the file.

All values are text, as in INI: true is "1", false and null are "0", a list is its key once more for each
element. Only one level has a meaning, so a table within the section is an error.
"""

import json
import re
from collections.abc import Callable
from xml.parsers import expat

from pyemperor.protocol.dialect.settings import Notes, Setting

Expand = Callable[[str, Setting], str]
TABLE = "a table within the section"
_MOST_MISSED = 10
PLAIN = "text, a number, true, false, or a list of such"


def json_settings(text: str, file: str, section: str, expand: Expand, notes: Notes) -> list[Setting] | None:
    """Read ``{"section": {"key": value}}``; a key that stands twice counts twice."""
    lines = _JsonLines(text)
    try:
        root = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        notes.problem(Setting("", "", file, error.lineno), f"not JSON: {error.msg} at column {error.colno}")
        return []
    except RecursionError:
        notes.problem(Setting("", "", file), "nested too deeply")
        return []
    except ValueError as error:  # a number of thousands of digits, NaN
        notes.problem(Setting("", "", file), f"not JSON: {str(error).split(';')[0]}")
        return []
    body = dict(root).get(section) if isinstance(root, _Pairs) else None
    if not isinstance(body, _Pairs):
        return None
    found = []
    for key, value in body:
        line = lines.of(key)
        for item in value if isinstance(value, list) and not isinstance(value, _Pairs) else [value]:
            place = Setting(key, "", file, line)
            if isinstance(item, list) or not key:
                notes.problem(place, TABLE, PLAIN)
            else:
                found.append(Setting(expand(key, place), expand(_text(item), place), file, line))
    return found


class _Pairs(list[tuple[str, object]]):
    """A JSON object whose keys may stand twice."""


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number")


def _text(value: object) -> str:
    return {True: "1", False: "0", None: "0"}[value] if value is None or isinstance(value, bool) else str(value)


class _JsonLines:
    """Finds the lines of keys in the order in which they are asked for."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        #: Keys that were not found, being written with escapes; each of them costs a look at the whole text.
        self._missed = 0

    def of(self, key: str) -> int:
        if self._missed > _MOST_MISSED:
            return 0
        match = re.compile(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:").search(self._text, self._at)
        if match is None:
            self._missed += 1
            return 0
        self._at = match.end()
        return self._text.count("\n", 0, match.start()) + 1


class _Refused(Exception):
    """The document has what no configuration needs."""


class _XmlReader:
    """Takes the elements within ``<uwsgi>``: the whole text of each, or "1" when it is empty."""

    def __init__(self, file: str, section: str, notes: Notes) -> None:
        self.found: list[Setting] = []
        self.seen = False
        self._file, self._section, self._notes = file, section, notes
        self._depth = self._body = 0
        self._text: list[str] = []
        self._parser = expat.ParserCreate("utf-8")  # as it was read, whatever it declares
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text.append
        self._parser.StartDoctypeDeclHandler = self._doctype

    def read(self, text: str) -> None:
        try:
            self._parser.Parse(text.encode(errors="replace"), True)
        except _Refused:
            self.seen = True
            place = Setting("", "", self._file, self._parser.CurrentLineNumber)
            self._notes.problem(place, "a DOCTYPE, whose entities could read any file", remedy="remove it")
        except expat.ExpatError as error:
            words = expat.ErrorString(error.code)
            self._notes.problem(Setting("", "", self._file, error.lineno), f"not XML: {words}")

    def _doctype(self, *_: object) -> None:
        raise _Refused

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if not self._body and name == "uwsgi" and self._asked(attributes.get("id")):
            self._body = self._depth
            self.seen = True
        elif self._body and self._depth == self._body + 2:
            self._notes.problem(self._place(name), "an element within an option", "text")
        self._text.clear()

    def _end(self, name: str) -> None:
        if self._body and self._depth == self._body + 1:
            place = self._place(name)
            self.found.append(Setting(name, "".join(self._text) or "1", self._file, place.line))
        elif self._depth == self._body:
            self._body = 0
        self._depth -= 1
        self._text.clear()

    def _asked(self, identity: str | None) -> bool:
        if self._section == "uwsgi":  # nobody asked for an id: the first one
            return not self.seen
        return identity in (None, self._section)

    def _place(self, name: str) -> Setting:
        return Setting(name, "", self._file, self._parser.CurrentLineNumber)


def xml_settings(text: str, file: str, section: str, expand: Expand, notes: Notes) -> list[Setting] | None:
    """Read ``<uwsgi><key>value</key></uwsgi>``, which may stand within another element.

    ``section`` is the id of the ``<uwsgi>``; one without an id is everybody's. There is no DOCTYPE.
    """
    reader = _XmlReader(file, section, notes)
    reader.read(text)
    if not reader.seen:
        return None
    return [Setting(one.key, expand(one.value, one), file, one.line) for one in reader.found]
