"""Reads a configuration with everything that it includes, and carries out its directives."""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from pyemperor.protocol.dialect.bounds import LONGEST, MOST_SETTINGS, MOST_TEXT, TooMuch, replaced
from pyemperor.protocol.dialect.formats import Expand, json_settings, xml_settings
from pyemperor.protocol.dialect.ini import ini_settings, nearest_section
from pyemperor.protocol.dialect.logic import Asked, Block, nest, reason, values
from pyemperor.protocol.dialect.magic import expand_magic, magic_table
from pyemperor.protocol.dialect.placeholders import Placeholders, only_files
from pyemperor.protocol.dialect.settings import Loaded, Notes, Setting, World


def _yaml_settings(
    text: str, file: str, section: str, expand: Expand, notes: Notes
) -> list[Setting] | None:
    from pyemperor.protocol.dialect.yaml_format import yaml_settings

    return yaml_settings(text, file, section, expand, notes)


_READERS = {
    ".ini": ini_settings,
    ".xml": xml_settings,
    ".yml": _yaml_settings,
    ".yaml": _yaml_settings,
    ".json": json_settings,
    ".js": json_settings,
}
#: Extensions of files that uWSGI reads.
SUFFIXES = tuple(_READERS)
_DEEPEST = 16
_SCHEME = re.compile(r"[a-z]+://")


def load(
    file: str,
    world: World,
    *,
    section: str = "uwsgi",
    shown: str = "",
    before: Sequence[tuple[str, str]] = (),
    after: Sequence[tuple[str, str]] = (),
) -> Loaded:
    """Read ``file``; what is wrong is in the notes of the result.

    ``shown`` is the file as its user knows it, where that is not ``file``: errors name it.
    ``before`` and ``after`` are directives that the Emperor puts around it: ``("include", path)``,
    ``("inherit", path)`` or ``("set", "key=value")``.
    """
    loader = _Loader(file, section, world, shown or file)
    try:
        for key, value in before:
            loader.add(Setting(key, value, "the Emperor"))
        loader.include(file, section, Setting("", "", shown or file))
        for key, value in after:
            loader.add(Setting(key, value, "the Emperor"))
        return loader.finish()
    except TooMuch as error:
        return loader.give_up(error.at, error.found)
    except RecursionError:
        return loader.give_up(loader.here, "nested too deeply")


class _Loader:
    def __init__(self, file: str, section: str, world: World, shown: str) -> None:
        self._world = replace(world, read=lambda path: self._counted(world.read(path)))
        #: What is read or carried out now.
        self.here = Setting("", "", shown)
        self._text = 0
        self._shown_folder = posixpath.dirname(shown)
        self._main = (file, section)
        self._notes = Notes()
        self._settings: list[Setting] = []
        self._first: dict[str, Setting] = {}
        self._values: dict[str, str] = {}
        self._made: set[str] = set()
        self._custom: dict[str, str] = {}
        self._files: dict[str, None] = {}
        self._chain: list[tuple[str, str]] = []
        self._last_ini = ""
        self._steps = 0
        self._inherits: list[Setting] = []
        self._black: set[str] = set()
        self._white: set[str] = set()

    # ---- files ----

    def include(self, name: str, section: str, at: Setting) -> None:
        """Read a section of a file, and carry out what it says."""
        self.here = at
        path = posixpath.normpath(posixpath.join(self._world.cwd, name))
        if (path, section) in self._chain:
            self._notes.problem(at, f"{name} includes itself", remedy="remove one of the two lines")
        elif len(self._chain) >= _DEEPEST:
            self._notes.problem(at, f"more than {_DEEPEST} files within each other")
        else:
            self._chain.append((path, section))
            if (found := self._read(name, path, section, at)) is not None:
                self._carry_out(nest(found, self._notes), None)
            self._chain.pop()

    def _read(self, name: str, path: str, section: str, at: Setting) -> list[Setting] | None:
        reader = _READERS.get(posixpath.splitext(path)[1].lower())
        if reader is None and len(self._chain) == 1 and (name, section) == self._main:
            reader = ini_settings  # emperor-extra-extension: whoever gives the first file knows what it is
        if reader is None:
            self._notes.problem(at, f"{name} has no ending that tells its format", " ".join(_READERS))
            return None
        try:
            text = self._world.read(path).removeprefix("\ufeff")
        except (OSError, UnicodeDecodeError) as error:
            self._notes.problem(at, f"{path} cannot be read: {reason(error)}")
            return None
        self._files[path] = None
        if reader is ini_settings:
            self._last_ini = name
        shown = posixpath.join(self._shown_folder, name)
        found = reader(text, shown, section, self._magic(name, section), self._notes)
        if found is None:
            expected = f"a section {section}"
            remedy = nearest_section(section, text) if reader is ini_settings else ""
            # uWSGI goes on without it in either case; an empty vassal serves nothing.
            note = self._notes.warning if len(self._chain) > 1 else self._notes.problem
            whose = "" if at.file == shown else f"{shown} has "
            note(at, f"{whose}no section {section}", expected, remedy)
        return found

    def _counted(self, text: str) -> str:
        """Count what is read, or made: few lines may make much of it."""
        self._text += len(text)
        if self._text > MOST_TEXT:
            raise TooMuch(self.here, f"more than {MOST_TEXT} characters are read and filled in")
        return text

    def _magic(self, name: str, section: str) -> Expand:
        shown = "" if section == "uwsgi" else section
        main = (self._main[0], "" if self._main[1] == "uwsgi" else self._main[1])
        table = magic_table(name, shown, self._world, main)

        def expand(text: str, place: Setting) -> str:
            expanded, unknown = expand_magic(text, table)
            if len(expanded) > LONGEST:
                raise TooMuch(place, f"a line of more than {LONGEST} characters")
            for letter in unknown:
                remedy = f"write %%{letter} for a percent sign"
                self._notes.warning(place, f"%{letter} is no magic variable, and vanishes", remedy=remedy)
            return expanded

        return expand

    # ---- settings ----

    def _carry_out(self, nodes: Iterable[Setting | Block], context: str | None) -> None:
        for node in nodes:
            self._count(node if isinstance(node, Setting) else node.head)
            if isinstance(node, Setting):
                self.add(_with(node, context))
                continue
            if not node.body and not node.otherwise:
                continue
            head = _with(node.head, context)
            times = values(Asked(head, self._world, self._values, self._notes))
            # As in uWSGI a cycle repeats each line of its body, not the body.
            for child in node.body:
                for value in times:
                    self._carry_out([child], context if value is None else value)
            if not times:
                self._carry_out(node.otherwise, context)

    def _count(self, setting: Setting) -> None:
        """Count what is carried out: cycles within cycles, or files that include others twice, never end."""
        self._steps += 1
        if self._steps >= MOST_SETTINGS:
            raise TooMuch(setting, f"more than {MOST_SETTINGS} settings")

    def add(self, setting: Setting) -> None:
        """Take one setting; a directive is carried out at once."""
        self.here = setting
        key = setting.key
        if key in self._black or (self._white and key not in self._white and key != "end-whitelist"):
            self._notes.problem(setting, "forbidden here", remedy="by blacklist or whitelist")
            return
        self._settings.append(setting)
        self._first.setdefault(key, setting)
        self._values.setdefault(key, setting.value)
        if directive := _DIRECTIVES.get(key):
            directive(self, setting)

    def _load(self, setting: Setting) -> None:
        value = Placeholders(self._first, self._world, self._notes).fill(setting)
        name, section = split_section(value)
        if _SCHEME.match(value) or value == "-":
            self._notes.problem(setting, value, "the path of a file", only_files(value))
        elif not name and not self._last_ini:
            self._notes.problem(setting, value, "the path of a file, or :section")
        else:
            self.include(name or self._last_ini, section, setting)

    def _inherit(self, setting: Setting) -> None:
        self._inherits.append(setting)

    def _set(self, setting: Setting) -> None:
        key, equals, value = setting.value.partition("=")
        if not equals or not key:
            self._notes.problem(setting, setting.value or "nothing", "name=value")
            return
        if setting.key != "set":
            self._made.add(key)
        self.add(replace(setting, key=key, value=value))

    def _declare(self, setting: Setting) -> None:
        name, equals, template = setting.value.partition("=")
        if not equals or not name:
            self._notes.problem(setting, setting.value, "name=option=value;option=value, with $1, $2 ...")
        self._custom[name] = template

    def _list_names(self, setting: Setting) -> None:
        names = self._black if setting.key.endswith("blacklist") else self._white
        names.clear()
        if not setting.key.startswith("end-"):
            names.update(setting.value.split())

    def _refuse(self, setting: Setting) -> None:
        self._notes.problem(setting, "refused", remedy=_REFUSED[setting.key])

    # ---- the end ----

    def finish(self) -> Loaded:
        """Read what is inherited, fill in all values, and replace custom options by what they stand for."""
        seen: set[str] = set()
        while self._inherits:
            setting = self._inherits.pop(0)
            if setting.value not in seen:
                seen.add(setting.value)
                self._load(setting)
        filler = Placeholders(self._first, self._world, self._notes)
        done: list[Setting] = []
        for setting in self._settings:
            if setting.key in _DIRECTIVES or setting.key in _IMMEDIATE:
                done.append(setting)
                continue
            self.here = setting
            filled = replace(setting, value=self._counted(filler.fill(setting)))
            if (template := self._custom.get(filled.key)) is None:
                done.append(filled)
            else:
                self._made.add(filled.key)
                done.extend(self._customised(template, filled))
        return Loaded(tuple(done), frozenset(self._made | filler.used), tuple(self._files), self._notes)

    def give_up(self, at: Setting, found: str) -> Loaded:
        """Say why nothing comes of it."""
        self._notes.problem(at, found)
        return Loaded((), frozenset(), tuple(self._files), self._notes)

    def _customised(self, template: str, use: Setting) -> Iterator[Setting]:
        """Give what a custom option stands for: its template, with the words of its value for $1, $2 ..."""
        words = use.value.split(" ") if use.value else [""]
        for part in filter(None, template.split(";")):
            self._count(use)
            made = replace(use, value=part)
            for number, word in enumerate(words if "$" in part else (), 1):
                made = replace(made, value=replaced(made, f"${number}", word))
            key, equals, value = self._counted(made.value).partition("=")
            if not equals:
                return
            if key in _DIRECTIVES:
                self._notes.problem(use, f"a custom option cannot stand for {key}")
            else:
                yield replace(use, key=key, value=value)


_LOADING = ("ini", "include", "yaml", "yml", "json", "js", "xml", "xmlconfig", "config")
_REFUSED = {
    "resolve": "no name is looked up to read a configuration: write the address",
    "inject-before": "use include",
    "inject-after": "use include",
}
_DIRECTIVES: dict[str, Callable[[_Loader, Setting], None]] = {
    **dict.fromkeys(_LOADING, _Loader._load),
    **dict.fromkeys(("set", "set-ph", "set-placeholder"), _Loader._set),
    **dict.fromkeys(("declare-option", "declare-option2"), _Loader._declare),
    **dict.fromkeys(("blacklist", "whitelist", "end-blacklist", "end-whitelist"), _Loader._list_names),
    **dict.fromkeys(_REFUSED, _Loader._refuse),
    "inherit": _Loader._inherit,
}
#: Carried out while they are read, so nothing is filled into their values.
_IMMEDIATE = frozenset({"strict", "plugins", "plugin", "need-plugins", "need-plugin"})
#: Words of the dialect itself, which are no options of an Emperor or a vassal.
DIRECTIVES = frozenset(_DIRECTIVES) | {"strict"}


def split_section(address: str) -> tuple[str, str]:
    """Split ``file:section``; the section is ``uwsgi`` when none is named."""
    name, _, section = address.rpartition(":") if ":" in address else (address, "", "")
    return name, section or "uwsgi"


def _with(setting: Setting, context: str | None) -> Setting:
    return setting if context is None else replace(setting, value=replaced(setting, "%(_)", context))
