"""A worker's templates: which exist, how a script is forked from one, and what becomes of those that fail.

Whatever goes wrong here is an OSError, raised before the script has begun: then it can be run by exec, and
nothing is lost. A script is never begun twice: its child begins only by a word on the line, and the line is
hung up before anybody runs the script in another way.
"""

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from socket import socket
from typing import Any

from pyemperor.actors.clock import monotonic
from pyemperor.actors.warm.child import Child
from pyemperor.actors.warm.interpreter import PATIENCE, Failed, Key, Program, Stricken, Template
from pyemperor.actors.warm.shebang import Identity, Named, examine, identity_of

#: What is imported in advance as soon as a script has imported it: what has no work of its own at a fork (from
#: Python 3.11 on).
COMMON = (
    "argparse", "base64", "bisect", "calendar", "codecs", "collections", "configparser", "contextlib", "copy",
    "csv", "dataclasses", "datetime", "decimal", "difflib", "enum", "fnmatch", "fractions", "functools",
    "glob", "gzip", "hashlib", "heapq", "hmac", "html", "html.parser", "http", "http.cookies", "inspect",
    "io", "ipaddress", "itertools", "json", "locale", "math", "mimetypes", "operator", "os", "pathlib",
    "pprint", "re", "shlex", "shutil", "sqlite3", "stat", "string", "struct", "textwrap", "time", "traceback",
    "types", "typing", "unicodedata", "urllib.parse", "uuid", "xml.etree.ElementTree", "zlib",
)  # fmt: skip

#: Seconds until one that failed is started again: doubled each time, up to the second.
_BACKOFF = (1.0, 60.0)
#: Templates at a time; the least recently used ends, when its scripts have.
_MOST = 8
#: How often a template may die over a version of a script before that runs by exec for good.
_STRIKES = 2
_REMEMBERED = 1024

#: What of a request's environment an interpreter, the dynamic linker or the C library looks at when it starts.
_AT_START = (b"PYTHON", b"LC_", b"LD_", b"MALLOC_", b"GLIBC_", b"OPENSSL_")
_irrelevant: set[bytes] = set()
_AT_START_TOO = frozenset((b"LANG", b"LANGUAGE", b"HOME", b"TZ"))


class Templates:
    """All templates of a worker: each is started by the first script that names its interpreter.

    ``environment`` is what every script of the vassal is given, ``modules`` are imported in advance, ``common``
    when a script has imported them. ``log`` is told, in one line, of whatever a user should know. Safe to use from
    several threads.
    """

    def __init__(
        self,
        log: Callable[[str], None],
        environment: Mapping[bytes, bytes] | None = None,
        modules: Iterable[str] = (),
        common: Iterable[str] = COMMON,
    ) -> None:
        self._log = log
        self._environment = {n: v for n, v in (environment or {}).items() if not _matters(n)}
        self._modules = tuple(modules)
        self._common = tuple(common)
        #: Templates that failed: whoever comes after them imports nothing by itself.
        self._careful: set[Key] = set()
        #: Folders of which was said that their scripts start cold.
        self._said: set[bytes] = set()
        self._lock = threading.Lock()
        self._templates: OrderedDict[Key, Template] = OrderedDict()
        self._ended: list[Template] = []
        #: Failures in a row, and when to try again.
        self._failures: OrderedDict[Key, tuple[int, float]] = OrderedDict()
        self._strikes: OrderedDict[tuple[bytes, Identity], int] = OrderedDict()

    def spawn(self, script: Program, stdin: int, stdout: int, stderr: int) -> Child:
        """Run ``script`` in a fork of the template of its ``#!`` line, with these descriptors as 0, 1 and 2.

        Raises OSError when it cannot, and :meth:`Child.begin` does: the script has not begun and is to be run by
        exec. That is so while a template starts: nobody waits for one. Either takes a second at most, when a
        template hangs.
        """
        named = examine(script.path, script.environment)
        blamed = (script.path, named.identity)
        if self._strikes.get(blamed, 0) >= _STRIKES:
            raise OSError(errno.ENOEXEC, "templates have died over this script")
        template = self._template(_key(named, script.environment))
        try:
            line = template.ask(script, named.identity, (stdin, stdout, stderr))
        except Failed as error:
            with self._lock:
                self._failed(template, error)
            raise
        return Child(line, partial(self._begun, template, blamed))

    def _begun(self, template: Template, blamed: tuple[bytes, Identity], line: socket) -> int:
        try:
            pid = template.await_word(line)
        except Stricken as error:
            with self._lock:
                _remember(self._strikes, blamed, self._strikes.get(blamed, 0) + 1)
                self._failed(template, error)
            raise
        except OSError as error:
            if error.errno == errno.ENOTUNIQ:
                self._say_once(os.path.dirname(blamed[0]))
            raise
        if self._strikes or self._failures:
            with self._lock:
                self._strikes.pop(blamed, None)
                if self._templates.get(template.key) is template:  # what it said may be older than its failure
                    self._failures.pop(template.key, None)
        return pid

    def _say_once(self, folder: bytes) -> None:
        if folder not in self._said and len(self._said) < _REMEMBERED:
            self._said.add(folder)
            self._log(
                f"{os.fsdecode(folder)} has a module of the name of one in Python's library that scripts use: "
                "its scripts start cold, to find the right one. Rename it, or set cgi-warm-learn = false"
            )

    def wait_until_up(self, script: Program, seconds: float) -> bool:
        """Start the template of ``script``, and wait; False after ``seconds``. Raises OSError if it fails."""
        key = _key(examine(script.path, script.environment), script.environment)
        try:
            self._template(key)
        except BlockingIOError:
            if not self._templates[key].wait(seconds):
                return False
            self._template(key)
        return True

    def _template(self, key: Key) -> Template:
        with self._lock:
            template = self._templates.get(key)
            if template is None:
                template = self._start(key)
            self._templates.move_to_end(key)
            fresh = template.greeting is None
            try:
                if not template.up():
                    raise BlockingIOError(errno.EAGAIN, "the template is not up yet")
            except Failed as error:
                self._failed(template, error)
                raise
            if fresh:
                self._welcome(template)
            return template

    def _start(self, key: Key) -> Template:
        self._ended = [template for template in self._ended if not template.gone()]
        _, at = self._failures.get(key, (0, 0.0))
        if monotonic() < at:
            raise OSError(errno.EBUSY, "the template has failed, and waits before it starts again")
        if len(self._templates) >= _MOST:
            _, oldest = self._templates.popitem(last=False)
            oldest.close()
            self._ended.append(oldest)
        common = () if key in self._careful else self._common
        template = Template(key, {**self._environment, **dict(key.environment)}, self._modules, common)
        self._templates[key] = template
        return template

    def _welcome(self, template: Template) -> None:
        assert template.greeting is not None
        missing = template.greeting[1]
        if missing:
            self._log(f"{template.key.interpreter} cannot import, for cgi-warm-preload: {', '.join(missing)}")

    def _failed(self, template: Template, error: OSError) -> None:
        if self._templates.get(template.key) is not template:
            return  # another thread has seen it, too
        del self._templates[template.key]
        if len(self._careful) < _REMEMBERED:
            self._careful.add(template.key)
        template.kill()
        self._ended.append(template)
        failures = self._failures.get(template.key, (0, 0.0))[0] + 1
        wait = min(_BACKOFF[0] * 2 ** (failures - 1), _BACKOFF[1])
        _remember(self._failures, template.key, (failures, monotonic() + wait))
        command = " ".join((template.key.interpreter, *template.key.flags))
        self._log(f"the template of {command} failed: {error.strerror}; its scripts start cold for {wait:g} s")

    def close(self) -> None:
        """End all templates, and wait a second for it; scripts that still run live on."""
        with self._lock:
            for template in self._templates.values():
                template.kill()
                self._ended.append(template)
            self._templates.clear()
            end = monotonic() + PATIENCE
            for template in self._ended:
                template.wait_until_gone(max(0.0, end - monotonic()))
            self._ended = [template for template in self._ended if not template.gone()]


def _key(named: Named, environment: Mapping[bytes, bytes]) -> Key:
    path = environment.get(b"PYTHONPATH")
    if path and not all(folder.startswith(b"/") for folder in path.split(b":")):
        raise OSError(errno.ENOEXEC, "a relative PYTHONPATH begins in the script's folder")
    relevant = sorted((name, environment[name]) for name in environment.keys() - _irrelevant if _matters(name))
    return Key(named.interpreter, identity_of(os.stat(named.interpreter)), named.flags, tuple(relevant))


def _matters(name: bytes) -> bool:
    if name in _AT_START_TOO or name.startswith(_AT_START):
        return True
    if len(_irrelevant) < _REMEMBERED:
        _irrelevant.add(name)
    return False


def _remember(table: OrderedDict[Any, Any], key: object, value: object) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > _REMEMBERED:
        table.popitem(last=False)
