"""What a fork of the template does to be a script, as if the interpreter had just started; then how it ends.

Runs in the template's interpreter (:mod:`program` says how): 3.8 or newer, the standard library and nothing else.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # the public one is mostly Python
import _thread
import atexit
import gc
import io
import os
import stat
import sys
import weakref
from importlib.machinery import SourceFileLoader
from itertools import takewhile

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself would only make each fork dearer
    from types import CodeType
    from typing import Any, NoReturn


class Origin:
    """The interpreter as it was before the first script: what a start has decided once for all of them.

    ``command`` is the interpreter and its flags, ``given`` the environment that it was started with.
    """

    __slots__ = ("added", "command", "kinds", "last_module", "main", "modules", "safe_path", "variables")

    def __init__(self, command: list[str], given: dict[bytes, bytes]) -> None:
        self.command = command
        #: What the interpreter itself has set: LC_CTYPE, where the locale was "C" (PEP 538).
        self.added = {name: value for name, value in os.environb.items() if given.get(name) != value}
        #: The names that are in the C library's environment.
        self.variables = list(os.environb)
        self.main = {name: value for name, value in vars(sys.modules["__main__"]).items() if name[:2] == "__"}
        self.modules = frozenset(map(id, sys.modules.values()))
        self.last_module = next(reversed(sys.modules))
        self.safe_path = bool(getattr(sys.flags, "safe_path", sys.flags.isolated))
        #: What the interpreter's own streams are made for, and never were used with.
        self.kinds = [_kind(number) for number in (0, 1, 2)]


class Job:
    """What a child has to run, and how it is to be dressed.

    Made before the fork: what the template writes is in its memory alone, each page that a child writes is a copy.
    """

    __slots__ = ("code", "command", "environment", "folder", "name", "names")

    def __init__(
        self,
        origin: Origin,
        code: CodeType,
        folder: str,
        path: bytes,
        arguments: tuple[bytes, ...],
        environment: dict[bytes, bytes],
    ) -> None:
        self.code = code
        self.folder = folder
        self.name = os.path.basename(path)[:15]
        sys.argv[:] = map(os.fsdecode, arguments)
        self.command = origin.command + sys.argv
        if sys.version_info >= (3, 10):  # noqa: UP036
            sys.orig_argv[:] = self.command
        environment.update(origin.added)
        self.environment = environment
        # What os.environ and os.environb share: the C library's is set in the child, as setenv(3) frees nothing.
        mapping: dict[bytes, bytes] = os.environb._data  # type: ignore[attr-defined]
        mapping.clear()
        mapping.update(environment)
        self.names = self._main(origin, os.fsdecode(path))

    def _main(self, origin: Origin, path: str) -> dict[str, Any]:
        """The names of a new ``__main__``."""
        module = sys.modules["__main__"] = type(sys)("__main__")
        names = vars(module)
        names.update(origin.main)
        if "__annotations__" in names:
            names["__annotations__"] = {}
        names["__file__"] = path
        names["__cached__"] = None
        names["__loader__"] = SourceFileLoader("__main__", path)
        return names


def dress(job: Job, origin: Origin) -> None:
    """Give the interpreter the request's environment, path and streams."""
    for name in origin.variables:
        os.unsetenv(name)
    for name, value in job.environment.items():
        os.putenv(name, value)
    if not origin.safe_path:
        sys.path.insert(0, job.folder)
    for number, stream in enumerate(("stdin", "stdout", "stderr")):
        if _kind(number) != origin.kinds[number]:
            made = _standard_stream(number, getattr(sys, stream))
            setattr(sys, stream, made)
            setattr(sys, f"__{stream}__", made)
    _title(job.command, job.name)
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()  # the standard library's `random` seeds itself anew in each fork, this does not
    gc.enable()


def _kind(number: int) -> tuple[int, int]:
    """What kind of file a descriptor is: of one kind, streams begin alike."""
    found = os.fstat(number)
    mode = stat.S_IFMT(found.st_mode)
    return mode, found.st_rdev if mode == stat.S_IFCHR else 0


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
    """Have ps and top show the script, as far as this interpreter can."""
    setproctitle: Any = sys.modules.get("setproctitle")
    if setproctitle is not None:
        setproctitle.setproctitle(os.fsencode(" ".join(command)).decode("utf-8", "replace"))
    try:
        fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, name)
        os.close(fd)
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


def finish(code: int, interrupted: bool, origin: Origin) -> NoReturn:
    """End as Py_FinalizeEx does: threads, atexit, streams, the globals of what the script is and has imported.

    A whole finalization would free the template's objects one by one, and copy all its memory to do so. What is
    out of the ordinary is left to it: it says what could not be written (exit code 120), and it stops threads.
    """
    threading: Any = sys.modules.get("threading")
    try:
        if threading is not None:
            threading._shutdown()
        atexit._run_exitfuncs()
    except BaseException:  # noqa: S110
        pass  # older ones raise what they have printed
    ordinary = _flushed() and not _thread._count()
    if ordinary:
        gc.collect()  # puts what refers before what is referred to: the finalizers come in this order
        for name in ("last_exc", "last_type", "last_value", "last_traceback"):
            if hasattr(sys, name):
                setattr(sys, name, None)
        sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
        _forget_modules(origin)
        _flushed()
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    if ordinary:
        os._exit(code)
    raise SystemExit(code)


def _flushed() -> bool:
    """Flush stdout and stderr; False when one of them still has what it could not write."""
    good = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except BaseException:
            good = False
    return good


def _forget_modules(origin: Origin) -> None:
    """Drop ``__main__`` and what the script imported: their files are flushed, their objects' ``__del__`` runs."""
    # It has come last into the table: to look at each of ours would copy the memory that they lie in.
    names = ["__main__", *takewhile(lambda name: name != origin.last_module, reversed(sys.modules))]
    dropped = []
    for name in names:
        module = sys.modules.pop(name, None)
        if isinstance(module, type(sys)) and id(module) not in origin.modules:
            dropped.append(weakref.ref(module))
        del module
    gc.collect()
    for reference in dropped:
        _clear(getattr(reference(), "__dict__", {}))


def _clear(names: dict[Any, Any]) -> None:
    """Set a module's globals to None, private ones first (_PyModule_ClearDict)."""
    private = [name for name in names if str(name)[:1] == "_" != str(name)[1:2]]
    for name in (*private, *[name for name in names if name != "__builtins__"]):
        names[name] = None
