"""What a fork of the template does to be a script, as if the interpreter had just started; then how it ends.

Runs in the template's interpreter (:mod:`program` says how), in one namespace with the other two: 3.8 or newer,
the standard library and nothing else.
"""

from __future__ import annotations

import io
import os
import sys

# What a child calls, by name: to look it up in its module would write to five pages more, and each is a copy.
from _signal import SIG_DFL, SIGCHLD, SIGINT, set_wakeup_fd  # type: ignore[import-not-found]
from _signal import signal as set_handler
from _thread import _count as count_threads
from _weakref import ref
from atexit import _run_exitfuncs as run_exit_functions
from gc import collect, enable, get_objects, get_referrers, is_tracked
from marshal import loads
from os import _exit, chdir, closerange, dup2, fsdecode, getpid, putenv, setsid, unsetenv, write
from struct import Struct
from sys import modules

_sys: dict[str, Any] = vars(sys)
_Module = type(sys)
_environment: dict[bytes, bytes] = os.environb._data  # type: ignore[attr-defined]
_clear_environment, _update_environment = _environment.clear, _environment.update
_LAST = ("last_exc", "last_type", "last_value", "last_traceback")
_MARK = "__template_mark__"
#: From 3.14 on only a whole collection is one.
_GENERATIONS = sys.version_info < (3, 14)
_STREAMS = (("stdin", "__stdin__"), ("stdout", "__stdout__"), ("stderr", "__stderr__"))
_pack_started = Struct("=cI").pack
pack_failed = Struct("=ci").pack

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself would only make each fork dearer
    from typing import Any

    from pyemperor.actors.warm.sources import Source


class Origin:
    """The interpreter as it was before the first script: what a start has decided once for all of them.

    ``command`` is the interpreter and its flags, ``given`` the environment that it was started with, ``bare`` the
    modules that it had then; ``kinds`` are those of its own streams, which were never used. ``common`` are modules
    that are imported as soon as a script has imported them.
    """

    __slots__ = (
        "_bare", "_last_module", "_library", "_modules", "_news",
        "added", "beyond", "command", "common", "environment", "kinds", "main", "safe_path",
    )  # fmt: skip

    def __init__(
        self,
        command: list[str],
        given: dict[bytes, bytes],
        common: list[str],
        kinds: tuple[tuple[int, int], ...],
        bare: frozenset[str],
    ) -> None:
        self.command = command
        self.kinds = kinds
        #: What is in the C library's environment.
        self.environment = dict(os.environb)
        #: What the interpreter itself has set: LC_CTYPE, where the locale was "C" (PEP 538).
        self.added = {name: value for name, value in self.environment.items() if given.get(name) != value}
        self.main = {name: value for name, value in vars(sys.modules["__main__"]).items() if name[:2] == "__"}
        self.safe_path = bool(getattr(sys.flags, "safe_path", sys.flags.isolated))
        self.common = frozenset(common).difference(sys.modules)
        self._library = os.path.dirname(os.__file__) + os.sep
        #: The template, its descriptor of the pipe for news, and that pipe.
        self._news = (0, -1, (0, 0))
        self._bare = bare.union(sys.builtin_module_names)
        self.look_at_modules()

    def look_at_modules(self) -> None:
        """What is imported now is the template's; what comes later, a script's."""
        self._modules = frozenset(id(module) for name, module in sys.modules.items() if name != "__main__")
        self._last_module = next(reversed(sys.modules))
        #: Names that a cold start would look for beside the script, and does not find here any more.
        self.beyond = frozenset(name.partition(".")[0] for name in sys.modules) - self._bare

    def brought(self, module: object) -> bool:
        """Whether it is one that the template has imported."""
        return id(module) in self._modules

    def newcomers(self) -> list[str]:
        """The names of ``__main__`` and of what the script has imported."""
        # It has come last into the table: to look at each of ours would copy the memory that they lie in.
        names = ["__main__"]
        for name in reversed(modules):
            if name == self._last_module:
                break
            names.append(name)
        return names

    def tell_to(self, pipe: int) -> None:
        """Let scripts tell this process, by this descriptor of it, what they had to import."""
        found = os.fstat(pipe)
        self._news = (os.getpid(), pipe, (found.st_dev, found.st_ino))

    def tell(self, names: list[str]) -> None:
        """Let the template know what of this it might import for the next script."""
        words = [name for name in names if name in self.common and self._is_standard(modules.get(name))]
        pid, number, pipe = self._news
        if not words or os.getppid() != pid:
            return
        try:
            fd = os.open(f"/proc/{pid}/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            found = os.fstat(fd)
            if (found.st_dev, found.st_ino) == pipe:  # it is not somebody else by now
                os.write(fd, " ".join(words).encode() + b" ")
            os.close(fd)
        except OSError:
            pass  # it is gone, or hears us no more: the next script imports them itself

    def _is_standard(self, module: object) -> bool:
        """Whether it is the standard library's: a script can have one of the same name."""
        if type(module) is not type(sys):
            return False
        file = getattr(vars(module).get("__spec__"), "origin", None)
        return type(file) is str and (file in ("built-in", "frozen") or file.startswith(self._library))


def show(environment: dict[bytes, bytes]) -> None:
    """Have it in os.environ, os.environb and posix.environ, which are one table."""
    _clear_environment()
    _update_environment(environment)


def begin(
    source: Source, fds: tuple[int, int, int, int], rest: bytes, highest: int, origin: Origin
) -> dict[str, Any]:
    """Be a new process that is about to run the script; the value is the names of its ``__main__``."""
    arguments, environment, directory, kinds = loads(rest)
    try:
        _become(fds, highest, directory)
    except OSError as error:
        say(fds[3], pack_failed(b"F", error.errno or 0))
        _exit(127)
    for name in origin.environment:
        unsetenv(name)
    for name, value in origin.added.items():
        environment[name] = value
    for name, value in environment.items():
        putenv(name, value)  # not before the fork: setenv(3) frees nothing
    show(environment)
    words = [source.file]
    for word in arguments[1:]:
        words.append(fsdecode(word))
    _sys["argv"][:] = words
    command = origin.command + words
    if "orig_argv" in _sys:
        _sys["orig_argv"][:] = command
    if not origin.safe_path:
        _sys["path"][:0] = [source.folder]
    if kinds != origin.kinds:
        _make_streams(kinds, origin.kinds)
    _title(command, source.name)
    if "numpy.random" in modules:
        modules["numpy.random"].seed()  # the library's own `random` does so in each fork by itself
    enable()
    return _main(source)


def say(line: int, packet: bytes) -> None:
    """Answer, unless the line is hung up."""
    try:
        write(line, packet)
    except OSError:
        return


def _become(fds: tuple[int, int, int, int], highest: int, directory: bytes) -> None:
    """Be a process of one's own, with three descriptors; raises OSError if that, or the line, fails."""
    setsid()
    set_wakeup_fd(-1)
    set_handler(SIGCHLD, SIG_DFL)
    dup2(fds[0], 0)
    dup2(fds[1], 1)
    dup2(fds[2], 2)
    chdir(directory)
    write(fds[3], _pack_started(b"S", getpid()))
    closerange(3, highest + 1)


def _main(source: Source) -> dict[str, Any]:
    """The names of a new ``__main__``: one that was frozen with its template would never be collected."""
    module = modules["__main__"] = _Module("__main__")
    names = vars(module)
    names.update(source.names)
    if "__annotations__" in names:
        names["__annotations__"] = {}
    return names


def _make_streams(kinds: tuple[tuple[int, int], ...], made_for: tuple[tuple[int, int], ...]) -> None:
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if kinds[number] != made_for[number]:
            stream = _standard_stream(number, getattr(sys, name))
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _standard_stream(number: int, like: Any) -> Any:
    """The stream on a descriptor, as the interpreter makes it at a start (create_stdio, pylifecycle.c).

    What depends on the environment and on flags was decided when ``like`` was made at the template's own start.
    """
    writes = number > 0
    unbuffered = writes and like.write_through
    binary: Any = open(number, "wb" if writes else "rb", 0 if unbuffered else -1, closefd=False)  # noqa: SIM115
    raw = binary if unbuffered else binary.raw
    raw.name = like.name
    stream: Any = io.TextIOWrapper(
        binary,
        like.encoding,
        like.errors,
        newline="\n",
        line_buffering=like.line_buffering or (not unbuffered and raw.isatty()),
        write_through=like.write_through,
    )
    stream.mode = "w" if writes else "r"
    return stream


def _title(command: list[str], name: bytes) -> None:
    """Have ps show the script, where its interpreter can: that changes the process' name as well."""
    if "setproctitle" in modules:
        title = os.fsencode(" ".join(command)).decode("utf-8", "replace")
        modules["setproctitle"].setproctitle(title)
        try:
            with open("/proc/self/comm", "wb", 0) as comm:
                comm.write(name)
        except OSError:
            pass  # no /proc here: it is only a name


# ---- its end --------------------------------------------------------------------------------------------


def report(error: BaseException) -> int:
    """Say what ended the script, in the interpreter's words, without the template's frame: its exit code."""
    if isinstance(error, SystemExit):
        code = error.code
        if code is None:
            return 0
        if isinstance(code, int):
            return code & 0xFF if -(1 << 63) <= code < 1 << 63 else 255
        _complain(f"{code}\n")
        return 1
    kind, trace = type(error), error.__traceback__ and error.__traceback__.tb_next
    error.__traceback__ = trace
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    another: BaseException | None = None
    try:
        sys.excepthook(kind, error, trace)
    except BaseException as raised:
        another = raised
    if isinstance(another, SystemExit):
        return report(another)
    if another is not None:
        _complain("Error in sys.excepthook:\n")
        another.__traceback__ = another.__traceback__ and another.__traceback__.tb_next
        sys.__excepthook__(type(another), another, another.__traceback__)
        _complain("\nOriginal exception was:\n")
        sys.__excepthook__(kind, error, trace)
    return 1


def _complain(words: str) -> None:
    stream = sys.stderr or sys.__stderr__
    if stream is not None:
        stream.write(words)
        stream.flush()


def finish(code: int, interrupted: bool, origin: Origin, made: dict[str, Any]) -> None:
    """End as Py_FinalizeEx does: threads, atexit, streams, the globals of what the script is and has imported.

    A whole finalization would free the template's objects one by one, and copy all its memory to do so. What is
    out of the ordinary is left to it: it says what could not be written (exit code 120), and it stops threads.
    ``made`` are the names that the script's ``__main__`` was made with.
    """
    try:
        if "threading" in modules:
            modules["threading"]._shutdown()
        run_exit_functions()
    except BaseException:  # noqa: S110
        pass  # older ones raise what they have printed
    flush_c = modules["ctypes"].pythonapi.fflush if "ctypes" in modules else None
    ordinary = flushed() and not count_threads()
    if ordinary:
        # It puts what refers before what is referred to: the finalizers come in this order. Where nothing is of
        # the oldest generation a younger collection does; a whole one also empties what is kept for reuse.
        collect(1 if _GENERATIONS and not get_objects(2) else 2)
        if _holds_nothing(modules.get("__main__"), origin, made):
            del modules["__main__"]
        else:
            _forget_modules(origin)
        flushed()
    if interrupted:
        set_handler(SIGINT, SIG_DFL)
        os.kill(getpid(), SIGINT)
    if ordinary:
        if flush_c is not None:
            flush_c(None)  # what C code has printed
        _exit(code)


def _holds_nothing(main: object, origin: Origin, made: dict[str, Any]) -> bool:
    """Whether there is nothing to collect when a ``__main__`` goes that was made with these names.

    So it is without a new module, an error that was reported, or a stream that was replaced, which may hold
    anything; and if nothing in it can refer to anything.
    """
    if type(main) is not _Module or len(origin.newcomers()) > 1:
        return False
    for name in _LAST:
        if name in _sys:
            return False
    for name, original in _STREAMS:
        if _sys.get(name) is not _sys.get(original):
            return False
    for name, value in main.__dict__.items():
        if type(name) is not str:
            return False
        ours = made.get(name) is value or (type(value) is _Module and origin.brought(value))
        if is_tracked(value) and not ours:
            return False
    return True


def _forget_modules(origin: Origin) -> None:
    """Drop ``__main__`` and what the script imported: their files are flushed, their objects' ``__del__`` runs."""
    for name in _LAST:
        if name in _sys:
            _sys[name] = None
    for name, original in _STREAMS:
        _sys[name] = _sys.get(original)
    names = origin.newcomers()
    origin.tell(names)
    marks = []
    for name in names:
        module = modules.pop(name, None)
        if isinstance(module, _Module) and not origin.brought(module):
            mark = module.__dict__[_MARK] = _Mark()
            marks.append(ref(mark))
            del mark
        del module
    collect()
    # Who is still there is held by something of the interpreter's, as a handler of a signal is.
    for left in marks:
        for holder in get_referrers(left()):
            if type(holder) is dict and _MARK in holder:
                _clear(holder)


class _Mark:
    """Lives as long as the globals of a module: they may outlive it, as a function holds them, and not it."""

    __slots__ = ("__weakref__",)


def flushed() -> bool:
    """Flush stdout and stderr; False when one of them still has what it could not write."""
    good = True
    for stream in (_sys.get("stdout"), _sys.get("stderr")):
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except BaseException:
            good = False
    return good


def _clear(names: dict[Any, Any]) -> None:
    """Set a module's globals to None, private ones first (_PyModule_ClearDict)."""
    del names[_MARK]
    private = [name for name in names if str(name)[:1] == "_" != str(name)[1:2]]
    for name in (*private, *[name for name in names if name != "__builtins__"]):
        names[name] = None
