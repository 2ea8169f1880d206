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
import sys
import weakref
from itertools import takewhile

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself would only make each fork dearer
    from typing import Any, NoReturn

    from pyemperor.actors.warm.program import Source


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
        return ["__main__", *takewhile(lambda name: name != self._last_module, reversed(sys.modules))]

    def tell_to(self, pipe: int) -> None:
        """Let scripts tell this process, by this descriptor of it, what they had to import."""
        found = os.fstat(pipe)
        self._news = (os.getpid(), pipe, (found.st_dev, found.st_ino))

    def tell(self, names: list[str]) -> None:
        """Let the template know what of this it might import for the next script."""
        words = [name for name in names if name in self.common and self._is_standard(sys.modules.get(name))]
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


class Job:
    """What a child has to run, and how it is to be dressed.

    Made before the fork: what the template writes is in its memory alone, each page that a child writes is a copy.
    """

    __slots__ = ("command", "environment", "kinds", "names", "source")

    def __init__(
        self,
        origin: Origin,
        source: Source,
        arguments: tuple[bytes, ...],
        environment: dict[bytes, bytes],
        kinds: tuple[tuple[int, int], ...],
    ) -> None:
        self.source = source
        self.kinds = kinds
        sys.argv[:] = map(os.fsdecode, arguments)
        self.command = origin.command + sys.argv
        if sys.version_info >= (3, 10):  # noqa: UP036
            sys.orig_argv[:] = self.command
        environment.update(origin.added)
        self.environment = environment
        show(environment)
        self.names = source.main()


def show(environment: dict[bytes, bytes]) -> None:
    """Have it in os.environ and os.environb; the C library's is set in the child, as setenv(3) frees nothing."""
    mapping: dict[bytes, bytes] = os.environb._data  # type: ignore[attr-defined]
    mapping.clear()
    mapping.update(environment)


def dress(job: Job, origin: Origin) -> None:
    """Give the interpreter the request's environment, path and streams."""
    for name in origin.environment:
        os.unsetenv(name)
    for name, value in job.environment.items():
        os.putenv(name, value)
    if not origin.safe_path:
        sys.path.insert(0, job.source.folder)
    if job.kinds != origin.kinds:
        _make_streams(job.kinds, origin.kinds)
    _title(job.command, job.source.name)
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()  # the standard library's `random` seeds itself anew in each fork, this does not
    gc.enable()


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
        # It puts what refers before what is referred to: the finalizers come in this order. Without older objects
        # a younger collection does; a whole one also empties what the interpreter keeps for reuse.
        gc.collect(2 if any(gc.get_count()[1:]) else 1)
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
    names = origin.newcomers()
    origin.tell(names)
    dropped = []
    for name in names:
        module = sys.modules.pop(name, None)
        if isinstance(module, type(sys)) and not origin.brought(module):
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
