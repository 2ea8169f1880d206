"""A script that is forked from the template behaves as one that its interpreter runs from a cold start.

The table is run both ways, with the same descriptors, environment and directory: stdout, stderr and exit status
are the same to the byte.
"""

import ast
import errno
import json
import os
import re
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pyemperor.actors.actor import EpollInbox
from pyemperor.actors.cgi_runner import ErrorPipe
from pyemperor.actors.exchange import Exchange
from pyemperor.actors.linux import become_subreaper
from pyemperor.actors.outcome import Outcome
from pyemperor.actors.process import Process
from pyemperor.actors.script import Script, Terms
from pyemperor.actors.warm import Child, Templates, awaited, interpreter
from pyemperor.actors.warm.shebang import named
from pyemperor.actors.warm.templates import COMMON
from pyemperor.actors.wires import UwsgiWire
from pyemperor.actors.worker import reap_adopted
from pyemperor.protocol.uwsgi import encode_packet

PATIENCE = 15.0
ENVIRONMENT = {b"PATH": b"/usr/bin:/bin", b"LANG": b"C.UTF-8", b"GATEWAY_INTERFACE": b"CGI/1.1"}
#: Interpreters of this machine: the one that runs the tests, the system's, and those that lie beside the first.
OTHERS = sorted(
    path
    for path in {Path("/usr/bin/python3"), *Path(sys.base_prefix).parent.glob("3.*/bin/python3")}
    if path.exists() and not str(path).startswith(sys.base_prefix)
)


@dataclass(frozen=True)
class Cgi:
    """A script as a handler gives it (``script.Script``)."""

    path: bytes
    arguments: tuple[bytes, ...]
    environment: dict[bytes, bytes] = field(default_factory=lambda: dict(ENVIRONMENT))

    @property
    def directory(self) -> bytes:
        return os.path.dirname(self.path)


@dataclass(frozen=True)
class Ran:
    out: bytes
    err: bytes
    status: int


def plain(ran: Ran) -> Ran:
    """Without addresses, which are never the same."""
    out, err = (re.sub(rb"0x[0-9a-f]+", b"0x", said) for said in (ran.out, ran.err))
    return Ran(out, err, ran.status)


class Place:
    """A folder of scripts, and the templates that run them."""

    def __init__(self, folder: Path, templates: Templates, log: list[str]) -> None:
        self.folder = folder
        self.templates = templates
        self.log = log

    def script(
        self, text: str, *words: bytes, name: str = "script.py", shebang: str = sys.executable, **env: str
    ) -> Cgi:
        file = self.folder / name
        file.write_text(f"#!{shebang}\n{text}")
        file.chmod(0o755)
        settled(file)
        environment = {**ENVIRONMENT, **{name.encode(): value.encode() for name, value in env.items()}}
        return Cgi(bytes(file), (bytes(file), *words), environment)

    def warm(self, script: Cgi, stdin: bytes | None = None) -> Ran:
        assert self.templates.wait_until_up(script, PATIENCE)
        with running(self.templates, script, stdin) as run:
            return run.wait()

    def cold(self, script: Cgi, stdin: bytes | None = None) -> Ran:
        run = subprocess.Popen(
            script.arguments,
            env=script.environment,
            cwd=script.directory,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        out, err = run.communicate(stdin, timeout=PATIENCE)
        return Ran(out, err, run.returncode)


def settled(file: Path, enough: int = 20_000_000) -> None:
    """Wait until the file's times tell this version from the next, as they do for whoever edits by hand."""
    found = file.stat()
    while time.time_ns() < found.st_ctime_ns + enough:
        os.sched_yield()


class running:
    """A script on its way, with pipes to it."""

    def __init__(self, templates: Templates, script: Cgi, stdin: bytes | None = None) -> None:
        if stdin is None:
            theirs = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        else:
            theirs, ours = os.pipe2(os.O_CLOEXEC)
            os.write(ours, stdin)
            os.close(ours)
        self.out, out = os.pipe2(os.O_CLOEXEC)
        self.err, err = os.pipe2(os.O_CLOEXEC)
        try:
            self.child = begun(templates, script, theirs, out, err)
        except BaseException:
            os.close(self.out)
            os.close(self.err)
            raise
        finally:
            for fd in (theirs, out, err):
                os.close(fd)

    def __enter__(self) -> "running":
        return self

    def __exit__(self, *_: object) -> None:
        self.child.close()
        os.close(self.out)
        os.close(self.err)

    def read(self) -> tuple[bytes, bytes]:
        """All output, both streams at once."""
        said = {self.out: b"", self.err: b""}
        poll = select.poll()
        for fd in said:
            poll.register(fd, select.POLLIN)
        talking = set(said)
        while talking:
            ready = poll.poll(PATIENCE * 1000)
            assert ready, f"the script says nothing and does not end: {said}"
            for fd, _ in ready:
                data = os.read(fd, 65536)
                said[fd] += data
                if not data:
                    poll.unregister(fd)
                    talking.discard(fd)
        return said[self.out], said[self.err]

    def wait(self) -> Ran:
        out, err = self.read()
        return Ran(out, err, os.waitstatus_to_exitcode(self.status()))

    def status(self) -> int:
        while (exit := self.child.reap()) is None:
            assert readable(self.child.fileno()), "the script does not end"
        assert self.child.reap() == exit
        assert exit.status is not None
        return exit.status


def begun(templates: Templates, script: Cgi, stdin: int, stdout: int, stderr: int) -> Child:
    child = templates.spawn(script, stdin, stdout, stderr)
    child.begin()
    return child


def piped(templates: Templates, script: Cgi) -> tuple[Child, int, int]:
    """It runs; our end of its stdin, and that of its stdout and stderr."""
    stdin, stdout = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    child = begun(templates, script, stdin[0], stdout[1], stdout[1])
    os.close(stdin[0])
    os.close(stdout[1])
    return child, stdin[1], stdout[0]


def readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(PATIENCE * 1000))


@pytest.fixture(scope="module")
def templates() -> Iterator[tuple[Templates, list[str]]]:
    log: list[str] = []
    templates = Templates(log.append)
    yield templates, log
    templates.close()


@pytest.fixture
def place(tmp_path: Path, templates: tuple[Templates, list[str]]) -> Place:
    return Place(tmp_path, *templates)


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Where other interpreters run: some of them are too old."""
    log: list[str] = []
    templates = Templates(log.append)
    yield Place(tmp_path_factory.mktemp("versions"), templates, log)
    templates.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Place]:
    """A place whose templates nobody else uses: the test will harm them."""
    log: list[str] = []
    templates = Templates(log.append)
    yield Place(tmp_path, templates, log)
    templates.close()


@pytest.fixture
def kept(own: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place where the code of a script is kept at once, as that of one that nobody has edited lately."""
    sources = [source.replace(b"_SETTLED = 100_000_000", b"_SETTLED = 0") for source in interpreter._SOURCES]
    assert sources != interpreter._SOURCES
    monkeypatch.setattr(interpreter, "_SOURCES", sources)
    return own


# ---- as from a cold start -----------------------------------------------------------------------------------

TABLE = {
    "print": "print('Content-Type: text/plain\\n\\nhello')",
    "empty": "",
    "arguments": "import sys; print(sys.argv)",
    "path": "import sys; print(sys.path)",
    "names": "print(sorted(globals())); print(list(globals()))",
    "constant sets": "for x in {8, 0}: print(x)\nprint({16, 8, 0})",
    "main": "import __main__, sys\nassert sys.modules['__main__'] is __main__\n"
    "assert vars(__main__) is globals()\n"
    "if __name__ == '__main__':\n    print(__file__, __doc__, __spec__, __package__, __cached__)\n"
    "    print(type(__loader__).__name__, __loader__.name, __loader__.path, __builtins__)",
    "docstring": "'''What it does.'''\nprint(__doc__)",
    "executable": "import sys; print(sys.executable, sys.prefix, sys.flags, sys.orig_argv, sys.warnoptions)",
    "directory": "import os; print(os.getcwd())",
    "environment": "import os; print(os.environ, os.environb, os.getenv('LANG'))",
    "environment below": "import subprocess; print(subprocess.run(['env', '-0'], capture_output=True).stdout)",
    "streams": "import sys\nfor s in (sys.stdin, sys.stdout, sys.stderr):\n"
    "    print(s, s.fileno(), s.encoding, s.errors, s.line_buffering, s.write_through, s.buffer, s.mode, s.name,\n"
    "          s.seekable(), s.isatty(), s.newlines, s.buffer.raw.name, s.buffer.raw.mode, s.buffer.raw.closefd)\n"
    "assert sys.stdin is sys.__stdin__ and sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__",
    "defaults": "import sys, locale, time\nprint(sys.getdefaultencoding(), sys.getfilesystemencoding(),\n"
    "      locale.setlocale(locale.LC_CTYPE), locale.setlocale(locale.LC_ALL), time.tzname)",
    "signals": "import signal\nfor s in sorted(signal.valid_signals()): print(s, signal.getsignal(s))\n"
    "print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.set_wakeup_fd(-1), signal.alarm(0))",
    "descriptors": "import os; print(sorted(os.listdir('/proc/self/fd')))",
    "umask": "import os; print(os.umask(0))",
    "session": "import os; print(os.getsid(0) == os.getpgrp() == os.getpid())",
    "name": "print(open('/proc/self/comm').read())",
    "collector": "import gc; print(gc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.garbage)",
    "exit 3": "import sys; sys.exit(3)",
    "exit none": "print('x'); raise SystemExit",
    "exit true": "raise SystemExit(True)",
    "exit negative": "raise SystemExit(-1)",
    "exit large": "raise SystemExit(257)",
    "exit huge": "raise SystemExit(1 << 70)",
    "exit words": "import sys; print('out'); sys.exit('no\u00fcn')",
    "exit tuple": "import sys; sys.exit((1, 2))",
    "os._exit": "import os; print('lost'); os._exit(5)",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "aborted": "import resource, os; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()",
    "exception": "import sys\ndef f():\n    raise ValueError('no')\nprint('before')\nf()",
    "exception chained": "def f():\n    try:\n        {}['x']\n    except KeyError as e:\n"
    "        raise ValueError('no') from e\ntry:\n    f()\nexcept ValueError:\n    1 / 0",
    "exception group": "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])",
    "exception in module": "import json; json.loads('{')",
    "interrupted": "import atexit; atexit.register(print, 'end'); raise KeyboardInterrupt",
    "interrupted by signal": "import os, signal; print('x'); os.kill(os.getpid(), signal.SIGINT)",
    "recursion": "def f(): f()\ntry:\n    f()\nexcept RecursionError as e: print(e)",
    "excepthook": "import sys\ndef hook(*a): print(a[0], a[1], a[2].tb_frame.f_code.co_name, sys.exc_info())\n"
    "sys.excepthook = hook\n1 / 0",
    "excepthook fails": "import sys\ndef hook(*a): raise KeyError('hook')\nsys.excepthook = hook\n1 / 0",
    "excepthook exits": "import sys\ndef hook(*a): sys.exit(9)\nsys.excepthook = hook\n1 / 0",
    "last": "import sys, atexit\natexit.register(lambda: print(sys.last_type, sys.last_value))\n1 / 0",
    "warning": "import warnings\ndef f(): warnings.warn('beware')\nf()",
    "atexit": "import atexit\natexit.register(print, 'one'); atexit.register(print, 'two'); print('body')",
    "atexit after error": "import atexit\natexit.register(print, 'end')\n1 / 0",
    "atexit fails": "import atexit\natexit.register(print, 'end'); atexit.register(lambda: 1 / 0)",
    "threads": "import threading\ngate = threading.Event()\ndef f():\n    gate.wait(); print('thread')\n"
    "threading.Thread(target=f).start()\n"
    "print('body', threading.current_thread() is threading.main_thread(), threading.enumerate()[0].name)\n"
    "gate.set()",
    "daemon threads": "import threading\nup = threading.Event()\ndef f():\n"
    "    up.set(); threading.Event().wait()\nthreading.Thread(target=f, daemon=True).start(); up.wait()\n"
    "print('body', threading.active_count())",
    "pool": "from concurrent.futures import ThreadPoolExecutor\n"
    "print(list(ThreadPoolExecutor(2).map(abs, [-1, -2])))",
    "multiprocessing": "import multiprocessing\ndef f(x): return x * x\nif __name__ == '__main__':\n"
    "    with multiprocessing.get_context('fork').Pool(2) as pool: print(pool.map(f, [1, 2, 3]))",
    "multiprocessing spawn": "import multiprocessing\ndef f(x): print(x, flush=True)\nif __name__ == '__main__':\n"
    "    p = multiprocessing.get_context('spawn').Process(target=f, args=(4,))\n    p.start(); p.join()\n"
    "    print(p.exitcode)",
    "subprocess": "import subprocess\nprint(subprocess.check_output(['cat'], input=b'fed'))",
    "os.system": "import os, sys\nprint('first', flush=True); print(os.system('echo second; exit 3'))",
    "fork": "import os\nif os.fork(): os.wait(); print('parent')\nelse: print('child')",
    "pickle": "import pickle\nclass A:\n    pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A)",
    "dataclass": "from __future__ import annotations\nimport dataclasses, typing\n@dataclasses.dataclass\n"
    "class A:\n    x: int = 1\nprint(A(), typing.get_type_hints(A), __annotations__)",
    "annotations": "x: int = 1\nprint(__annotations__)",
    "inspect": "import inspect\ndef f():\n    return 1\nprint(inspect.getsource(f), inspect.getmodule(f))",
    "exec": "import os, sys\nos.execv('/bin/echo', ['echo', 'replaced'])",
    "unflushed file": "f = open('made', 'w'); f.write('hi')",
    "unflushed file in a function": "class A:\n    pass\na = A(); a.me = a; a.f = open('made', 'w')\n"
    "a.f.write('hi')\ndef g(): return a",
    "unflushed file without a name": "open('made', 'w').write('hi')",
    "unflushed file after an error": "def g(): pass\nf = open('made', 'w'); f.write('hi')\n1 / 0",
    "unflushed file in a module": "import helper",
    "unflushed file of an application that fails": "import fails",
    "unflushed file of an error's frame": "exec('f = open(\"made\", \"w\"); f.write(\"hi\")\\n"
    "def g(): pass\\n1 / 0', {})",
    "unflushed file of a class that fails": "class A:\n    f = open('made', 'w'); f.write('hi')\n"
    "    e = ValueError(1); raise e",
    "unflushed file of an old cycle": "import gc\nx = [open('made', 'w')]; x[0].write('hi'); x.append(x)\n"
    "gc.collect(); del x",
    "unflushed file in place of a stream": "import sys\nf = open('made', 'w'); f.me = f; f.write('hi')\n"
    "sys.stdin = f; del f",
    "unflushed file beside a signal's handler": "import signal\ndef f(*a): pass\n"
    "signal.signal(signal.SIGTERM, f)\nf = open('made', 'w'); f.write('hi')",
    "unflushed file of a hook": "import sys\nlog = open('made', 'w')\ndef hook(*a): log.write(repr(a[1]))\n"
    "sys.excepthook = hook\n1 / 0",
    "unflushed file beside a registered function": "import codecs\ndef f(e): return '', 0\n"
    "codecs.register_error('mine', f)\nlog = open('made', 'w'); log.write('hi')",
    "printed by C": "import ctypes; ctypes.CDLL(None).puts(b'hi')",
    "del of a key": "class A:\n    def __del__(self): print('deleted')\nglobals()[A()] = 1; del A",
    "del beside a signal's handler": "import signal\nclass A:\n    def __del__(self): print('deleted')\na = A()\n"
    "signal.signal(signal.SIGTERM, lambda *a: None)",
    "error that is falsy": "class A(Exception):\n    def __len__(self): return 0\nraise A('no')",
    "environment of posix": "import posix, os\nprint(posix.environ is os.environ._data, posix.environ)",
    "environment anew": "import os, importlib\nimportlib.reload(os)\nprint(os.environ)",
    "del": "class A:\n    def __del__(self): print('deleted')\na = A()\ndef f(): return a",
    "finalize": "import weakref\nclass A:\n    pass\na = A(); weakref.finalize(a, print, 'finalized')",
    "del in order": "class A:\n    def __init__(self, n): self.n = n\n"
    "    def __del__(self): print(self.n, B.__name__ if B else None)\n"
    "class B:\n    pass\na = A(1); b = A(2); c = A(3); c.me = c; b.other = c\ndef f(): return a",
    "del of a lock": "import os\nclass Lock:\n    def __init__(self): open('lock', 'w').close()\n"
    "    def __del__(self): os.remove('lock'); print(os.listdir('.'))\nlock = Lock()",
    "temporary": "import tempfile, os\nd = tempfile.TemporaryDirectory(dir='.'); print(os.path.isdir(d.name))",
    "stdout replaced": "import sys, io\n"
    "sys.stdout = io.TextIOWrapper(sys.stdout.detach(), 'latin-1')\nprint('\\xfc')",
    "stdout codec": "import sys, codecs\n"
    "sys.stdout = codecs.getwriter('utf-8')(sys.stdout.buffer)\nprint('\\xfc')",
    "stdout buffer": "import sys\nsys.stdout.buffer.write(b'\\xff\\0')",
    "stdout kept": "import sys, io\nkept = sys.stdout; print('one'); sys.stdout = io.StringIO(); print('two')",
    "stdout none": "import sys\nsys.stdout = None\nprint('lost')",
    "stdout closed": "import sys\nprint('x'); sys.stdout.close()",
    "stdout descriptor closed": "import os\nprint('x', flush=True); os.close(1); print('y')",
    "stderr none": "import sys\nsys.stderr = None\n1 / 0",
    "order": "import sys\nprint('Status: 200'); print('oops', file=sys.stderr); sys.stdout.flush(); print('end')",
    "surrogates": "import sys\nprint('\\udcff')",
    "help": "print(exit, quit, copyright)",
    "caches": "import json, sys\nprint(sys.getrecursionlimit(), sys.getswitchinterval(), sys.gettrace())",
    "import beside": "import beside; print(beside.__name__, beside.WORD)",
    "shadow": "import json; print(json.__file__)",
}


@pytest.mark.parametrize("case", TABLE)
def test_as_from_a_cold_start(place: Place, case: str) -> None:
    as_from_a_cold_start(place, case)


@pytest.mark.parametrize("case", TABLE)
def test_as_from_a_cold_start_each_time(kept: Place, case: str) -> None:
    as_from_a_cold_start(kept, case, 3)


def as_from_a_cold_start(place: Place, case: str, times: int = 1) -> None:
    (place.folder / "beside.py").write_text("WORD = 'neighbour'")
    (place.folder / "helper.py").write_text("def f(): pass\nf = open('made', 'w'); f.write('hi')")
    (place.folder / "fails.py").write_text("f = open('made', 'w')\ndef main():\n    f.write('hi'); 1 / 0\nmain()")
    script = place.script(TABLE[case], b"a", b"b\xff c")
    expected = place.cold(script)
    made = place.folder / "made"
    written = made.read_text() if made.exists() else None
    for _ in range(times):
        made.unlink(missing_ok=True)
        assert plain(place.warm(script)) == plain(expected)
        assert (made.read_text() if made.exists() else None) == written
    assert not place.log


INPUT = {
    "read": "import sys; print(sys.stdin.read())",
    "buffer": "import sys; print(sys.stdin.buffer.read(), sys.stdin.encoding)",
    "descriptor": "import os; print(os.read(0, 100))",
    "lines": "for line in __import__('sys').stdin: print(repr(line))",
    "input": "print(repr(input()))",
    "form": "import sys, os, urllib.parse\n"
    "print(urllib.parse.parse_qs(sys.stdin.buffer.read(int(os.environ['CONTENT_LENGTH']))))",
    "unread": "print('early')",
    "passed on": "import subprocess; print(subprocess.run(['cat'], stdout=subprocess.PIPE).stdout)",
    "kind": "import sys; print(sys.stdin, sys.stdin.seekable(), sys.stdin.buffer.raw)",
}


@pytest.mark.parametrize("case", INPUT)
def test_the_body_is_on_stdin(place: Place, case: str) -> None:
    body = b"a=1&b=\r\n\xfc" if case in ("buffer", "descriptor", "form", "unread") else "a=\u00fc\r\nb".encode()
    script = place.script(INPUT[case], CONTENT_LENGTH=str(len(body)))
    assert place.warm(script, body) == place.cold(script, body)


SETTINGS = [
    {"LANG": "C"},
    {"LC_ALL": "C"},
    {"LC_CTYPE": "C", "LANG": ""},
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "latin-1:replace"},
    {"PYTHONUNBUFFERED": "1"},
    {"PYTHONHASHSEED": "7"},
    {"TZ": "Asia/Tokyo"},
    {"HOME": "/nowhere", "PYTHONPATH": "/elsewhere"},
]
SETTING = (
    "import sys, os, locale, time\n"
    "for s in (sys.stdin, sys.stdout, sys.stderr):\n"
    "    print(s.encoding, s.errors, s.line_buffering, s.write_through)\n"
    "print(sys.flags, sys.getfilesystemencoding(), locale.setlocale(locale.LC_CTYPE), time.tzname)\n"
    "print(os.environ, sys.path, hash('x') if 'PYTHONHASHSEED' in os.environ else 0)"
)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_an_environment_that_matters_at_the_start_has_a_template_of_its_own(
    own: Place, setting: dict[str, str]
) -> None:
    script = own.script(SETTING, **setting)
    assert own.warm(script) == own.cold(script)


@pytest.mark.parametrize("flags", ["-u", "-I", "-Es", "-S", "-sB", "-O", "-bb", "-P", "-Wignore", "-Xutf8"])
def test_flags_of_the_first_line(own: Place, flags: str) -> None:
    text = "assert __debug__, 'optimized'\n" if flags == "-O" else ""
    script = own.script(text + TABLE["executable"] + "\n" + TABLE["path"], shebang=f"{sys.executable} {flags}")
    assert own.warm(script) == own.cold(script)


@pytest.mark.parametrize("python", OTHERS, ids=str)
@pytest.mark.parametrize(
    "case",
    ["names", "streams", "signals", "exception", "atexit", "unflushed file", "del", "del in order", "threads",
     "daemon threads"],
)
def test_other_versions(versions: Place, python: Path, case: str) -> None:
    script = versions.script(TABLE[case], shebang=str(python))
    question = [str(python), "-c", "import sys; print(sys.version_info >= (3, 8))"]
    version = subprocess.run(question, capture_output=True, check=True, timeout=50)
    if version.stdout != b"True\n":
        said = r"is it a Python, 3.8 or newer, and may it fork\?|waits before it starts again"
        with pytest.raises(OSError, match=said):
            versions.warm(script)
        return
    (versions.folder / "made").unlink(missing_ok=True)
    ran = versions.warm(script)
    made = case != "unflushed file" or (versions.folder / "made").read_text() == "hi"
    assert made
    assert ran == versions.cold(script)


def test_a_virtual_environments_scripts_see_its_packages(own: Place, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=50)
    (package,) = venv.glob("lib/python*/site-packages")
    (package / "only_here.py").write_text("WORD = 'found'")
    script = own.script("import only_here, sys; print(only_here.WORD, sys.prefix)", shebang=f"{venv}/bin/python3")
    ran = own.warm(script)
    assert ran == own.cold(script)
    assert ran.out.split() == [b"found", bytes(venv)]


# ---- the environment is the request's -----------------------------------------------------------------------


def test_the_environment_is_the_requests_to_the_byte(place: Place) -> None:
    script = place.script("import subprocess; subprocess.run(['env', '-0'])")
    odd = {b"QUERY_STRING": b"\xff\xfe=&\n", b"HTTP_X": b"", b"lower": "\u00fc".encode(), b"HTTP_LANG": b"x"}
    script = Cgi(script.path, script.arguments, {**ENVIRONMENT, **odd})
    expected = place.cold(script)
    assert place.warm(script) == expected
    assert b"QUERY_STRING=\xff\xfe=&\n\0" in expected.out


def test_nothing_is_left_of_the_request_before(place: Place) -> None:
    text = "import os, sys\nprint(os.environ.get('SECRET'), sys.argv, globals().get('left'))\nleft = 1\n"
    text += "sys.path.append('/left'); os.environ['LEFT'] = '1'; sys.modules['left'] = os"
    first = place.script(text, b"word", SECRET="of the first")
    assert place.warm(first).out.startswith(b"of the first [")
    second = Cgi(first.path, first.arguments[:1])
    assert place.warm(second) == place.cold(second)


def test_random_numbers_differ(place: Place) -> None:
    script = place.script("import random, os, uuid; print(random.random(), uuid.uuid4(), os.urandom(4))")
    assert len({place.warm(script).out for _ in range(5)}) == 5


def test_random_numbers_differ_where_the_module_is_preloaded(own: Place) -> None:
    own.templates = Templates(own.log.append, modules=("random", "tempfile"))
    script = own.script("import random, tempfile; print(random.random(), next(tempfile._get_candidate_names()))")
    try:
        assert len({own.warm(script).out for _ in range(5)}) == 5
    finally:
        own.templates.close()


# ---- what is run ---------------------------------------------------------------------------------------------


def test_an_edited_script_runs_as_it_is(place: Place) -> None:
    for number in range(20):  # of the same size, and the clock of a file system is coarse
        file = place.folder / "edited.py"
        file.write_text(f"#!{sys.executable}\nprint('{number:02}')\n")
        file.chmod(0o755)
        script = Cgi(bytes(file), (bytes(file),))
        assert place.warm(script).out == b"%02d\n" % number


def test_a_script_behind_a_link_imports_what_lies_beside_it(place: Place) -> None:
    target = place.folder / "target"
    target.mkdir()
    (target / "beside.py").write_text("WORD = 1")
    real = place.script("import beside, sys; print(sys.path[0], __file__, sys.argv)", name="target/real.py")
    (place.folder / "link.py").symlink_to(os.fsdecode(real.path))
    link = bytes(place.folder / "link.py")
    script = Cgi(link, (link,))
    assert place.warm(script) == place.cold(script)


COLD = {
    "syntax": ("print('x'\n", errno.ENOEXEC),
    "null": ("x = '\0'", errno.ENOEXEC),
    "indentation": ("if True:\nx = 1", errno.ENOEXEC),
    "nested": ("(" * 5000 + ")" * 5000, errno.ENOEXEC),
    "warned about": ("x = 1\nprint(x is 1)", errno.ENOEXEC),
}


@pytest.mark.parametrize("case", COLD)
def test_what_the_compiler_has_to_say_is_left_to_a_cold_start(place: Place, case: str) -> None:
    text, number = COLD[case]
    script = place.script(text)
    assert place.cold(script).err
    for _ in range(2):  # also when it is known
        with pytest.raises(OSError, match="format") as raised:
            place.warm(script)
        assert raised.value.errno == number
    assert place.warm(place.script("print('still up')")).out == b"still up\n"


LINES = {
    "#!/usr/bin/python3\n": ("/usr/bin/python3", ()),
    "#! /usr/bin/python3 -Es \n": ("/usr/bin/python3", ("-Es",)),
    "#!/usr/bin/python3.11\tq\n": None,
    "#!/usr/bin/python\n": ("/usr/bin/python", ()),
    "#!/usr/bin/python2\n": None,
    "#!/usr/bin/python3": None,
    "#!/usr/bin/python3\r\n": None,
    "#!/usr/bin/python3 -m\n": None,
    "#!/usr/bin/python3 -u -E\n": None,
    "#!/usr/bin/python3 -i\n": None,
    "#!/usr/bin/pypy3\n": None,
    "#!python3\n": None,
    "#!/bin/sh\n": None,
    "#!/usr/bin/env sh\n": None,
    "#!/usr/bin/env X=1 python3\n": None,
    "#!/usr/bin/env\n": None,
    "#!\n": None,
    "print()\n": None,
    "\x7fELF": None,
}


@pytest.mark.parametrize("line", LINES, ids=repr)
def test_the_first_line_names_the_interpreter(line: str) -> None:
    expected = LINES[line]
    if expected is None:
        with pytest.raises(OSError, match=r".") as raised:
            named(line.encode(), "/usr/bin:/bin")
        assert raised.value.errno == errno.ENOEXEC
    else:
        assert named(line.encode(), "/usr/bin:/bin") == expected


def test_env_looks_for_the_interpreter_in_the_requests_path(place: Place) -> None:
    folder = place.folder / "bin"
    folder.mkdir()
    (folder / "python3").symlink_to(sys.executable)
    assert named(b"#!/usr/bin/env python3\n", f"/nowhere:{folder}") == (f"{folder}/python3", ())
    assert named(b"#!/usr/bin/env -S python3 -u -E\n", str(folder)) == (f"{folder}/python3", ("-u", "-E"))
    with pytest.raises(OSError, match="not a Python"):
        named(b"#!/usr/bin/env python3\n", "/nowhere")


def test_a_wrapper_is_no_interpreter(own: Place) -> None:
    wrapper = own.folder / "python3"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    with pytest.raises(OSError, match="is a script"):
        own.warm(own.script("print(1)", shebang=str(wrapper)))


def test_who_may_not_execute_a_script_does_not_run_it_warm_either(place: Place) -> None:
    script = place.script("print(1)")
    os.chmod(script.path, 0o644)
    with pytest.raises(PermissionError):
        place.warm(script)


def test_a_folder_that_is_gone(place: Place) -> None:
    script = place.script("print(1)")
    assert place.warm(script).out == b"1\n"

    class Elsewhere(Cgi):
        directory = b"/nowhere"

    with pytest.raises(FileNotFoundError):
        place.warm(Elsewhere(script.path, script.arguments))


@pytest.mark.parametrize("size", [300_000, 4 << 20])
def test_a_request_that_is_too_large_for_a_packet(place: Place, size: int) -> None:
    script = place.script("print(1)", QUERY_STRING="x" * size)
    with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
        place.warm(script)


def test_modules_beside_the_last_script_are_not_the_templates(own: Place, tmp_path: Path) -> None:
    for name in ("os", "json", "struct", "_socket", "select"):
        (own.folder / f"{name}.py").write_text("raise SystemExit('taken over')")
    (tmp_path / "elsewhere").mkdir()
    script = Place(tmp_path / "elsewhere", own.templates, own.log).script("print('fine')")
    before = Path.cwd()
    os.chdir(own.folder)
    try:
        assert own.warm(script).out == b"fine\n"
    finally:
        os.chdir(before)


def test_the_program_is_in_the_syntax_of_its_oldest_interpreter() -> None:
    for source in interpreter._SOURCES:
        ast.parse(source, feature_version=(3, 8))


# ---- modules in advance -----------------------------------------------------------------------------------------


def test_preloaded_modules_are_there_and_missing_ones_are_named_once(own: Place) -> None:
    (own.folder / "leaves.py").write_text("raise SystemExit(1)")
    own.templates = Templates(own.log.append, {b"PYTHONPATH": b"", b"VASSALS": b"own"}, ("json", "not_there"))
    script = own.script("import sys, os; print('json' in sys.modules, 'not_there' in sys.modules)")
    try:
        assert own.warm(script).out == b"True False\n"
        own.warm(script)
    finally:
        own.templates.close()
    (line,) = own.log
    assert "not_there (ModuleNotFoundError" in line
    assert "cgi-warm-preload" in line


def test_what_a_preloaded_module_prints_is_in_no_response(own: Place) -> None:
    library = own.folder / "library"
    library.mkdir()
    (library / "noisy.py").write_text("import sys; print('out'); print('err', file=sys.stderr)")
    own.templates = Templates(own.log.append, None, ("noisy",))
    script = own.script("import sys; print('noisy' in sys.modules)", PYTHONPATH=str(library))
    try:
        ran = own.warm(script)
    finally:
        own.templates.close()
    assert (ran.out, ran.err, own.log) == (b"True\n", b"", [])


LOADED = "import sys; print('csv' in sys.modules)"


def learnt(place: Place, name: str = "csv") -> None:
    """Wait until the template has imported the module."""
    script = place.script(f"import sys; print('{name}' in sys.modules)", name="is_learnt.py")
    deadline = time.monotonic() + PATIENCE
    while place.warm(script).out != b"True\n":
        assert time.monotonic() < deadline


def test_what_a_script_has_imported_is_there_for_the_next(own: Place) -> None:
    """For all of the template's scripts, in whatever way it was imported."""
    first = own.script("import helper", name="first.py")
    (own.folder / "helper.py").write_text(f"{LOADED}; import csv; print(csv.reader.__name__)")
    assert own.warm(own.script(LOADED)).out == b"False\n"
    assert own.warm(first).out == b"False\nreader\n"
    learnt(own)
    assert own.warm(first).out == b"True\nreader\n"


def test_a_template_that_is_not_to_learn_has_what_it_was_given(own: Place) -> None:
    own.templates = Templates(own.log.append, None, ("json",), ())
    script = own.script(f"{LOADED}; import csv, json")
    try:
        assert [own.warm(script).out for _ in range(3)] == [b"False\n"] * 3
    finally:
        own.templates.close()


def test_a_template_that_dies_over_a_module_does_so_once(own: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import that takes too long ends it as a hang would: those who wait start cold, and no other learns."""
    later = [0.0]
    monkeypatch.setattr("pyemperor.actors.warm.templates.monotonic", lambda: time.monotonic() + later[0])
    (own.folder / "sitecustomize.py").write_text(
        "import sys, signal, os\n"
        "template = os.getpid()\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        while name == 'csv' and os.getpid() == template: signal.pause()\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    other = own.folder / "scripts"
    other.mkdir()
    place = Place(other, own.templates, own.log)
    script = place.script("import csv; print(1)", PYTHONPATH=str(own.folder))
    assert place.warm(script).out == b"1\n"
    template = only(own.templates)
    assert template.wait_until_gone(PATIENCE)
    with pytest.raises(OSError, match="dead"):
        place.warm(script)
    later[0] += 3600
    assert [place.warm(script).out for _ in range(3)] == [b"1\n"] * 3
    assert only(own.templates) is not template
    assert len(own.log) == 1


def test_a_script_whose_modules_the_template_has_taken_over_ends_as_before(own: Place) -> None:
    script = own.script("import csv\nf = open('made', 'w'); f.write('hi')\ndef g(): return f")
    for _ in range(3):
        own.warm(script)
        assert (own.folder / "made").read_text() == "hi"
        (own.folder / "made").unlink()


def test_a_module_of_a_scripts_own_is_not_taken_for_the_librarys(own: Place) -> None:
    (own.folder / "csv.py").write_text("print('mine')")
    script = own.script("import csv, calendar")
    assert [own.warm(script).out for _ in range(2)] == [b"mine\n"] * 2
    (own.folder / "csv.py").unlink()
    learnt(own, "calendar")
    assert own.warm(own.script(LOADED)).out == b"False\n"


def test_what_a_script_has_put_in_a_modules_place_is_not_asked(own: Place) -> None:
    text = "import sys\nclass M:\n    def __getattr__(self, name): raise ValueError\nsys.modules['csv'] = M()"
    script = own.script(text)
    assert own.warm(script) == own.cold(script) == Ran(b"", b"", 0)


def test_a_module_beside_a_script_is_found_before_one_that_is_loaded(own: Place) -> None:
    """A cold start would find it: so the script gets one, and the log says so, once."""
    script = own.script(f"{LOADED}; import csv")
    own.warm(script)
    learnt(own)
    folder = own.folder / "csv"

    def is_cold() -> bool:
        try:
            return own.warm(script).out != b"True\n"
        except OSError as error:
            if error.errno != errno.ENOTUNIQ:
                raise
            return True

    (own.folder / "csvs.py").touch()
    (own.folder / "csv.txt").touch()
    folder.mkdir()  # of data: it is no module
    assert not is_cold()
    (own.folder / "csv.py").write_text("print('mine')")
    assert is_cold()
    assert own.cold(script).out == b"False\nmine\n"
    (own.folder / "csv.py").unlink()
    assert not is_cold()
    settled(folder, 150_000_000)
    assert not is_cold()
    (folder / "__init__.pyc").touch()  # which changes nothing in the folder of the script
    assert is_cold()
    (folder / "__init__.pyc").unlink()
    assert not is_cold()
    folder.rmdir()
    settled(own.folder, 150_000_000)
    assert not is_cold()
    (own.folder / "csv.cpython-311-x86_64-linux-gnu.so").touch()
    assert is_cold()
    (line,) = own.log
    assert "its scripts start cold" in line
    assert str(own.folder) in line


def test_a_release_that_was_switched_by_a_link_is_where_modules_are_found(kept: Place) -> None:
    """Its files may be the same, hard-linked: the script is known, its folder is another one."""
    script = kept.script("import release; print(release.NUMBER)")
    for number in (1, 2):
        (kept.folder / f"r{number}").mkdir()
        os.link(script.path, kept.folder / f"r{number}" / "script.py")
        (kept.folder / f"r{number}" / "release.py").write_text(f"NUMBER = {number}")
    current = kept.folder / "current"
    linked = Cgi(bytes(current / "script.py"), (bytes(current / "script.py"),))
    current.symlink_to("r1")
    assert [kept.warm(linked).out for _ in range(2)] == [b"1\n"] * 2
    current.unlink()
    current.symlink_to("r2")
    assert kept.warm(linked).out == b"2\n"


def test_a_script_of_good_standing_is_looked_at_again_when_its_template_has_learnt(kept: Place) -> None:
    """What lies beside it was hidden by nothing when it ran last."""
    script = kept.script("import csv; print(csv.__file__)", name="mine.py")
    (kept.folder / "csv.py").touch()
    elsewhere = kept.folder / "elsewhere"
    elsewhere.mkdir()
    settled(kept.folder)
    own = f"{kept.folder}/csv.py\n".encode()
    assert [kept.warm(script).out for _ in range(2)] == [own] * 2
    place = Place(elsewhere, kept.templates, kept.log)
    place.warm(place.script(f"{LOADED}; import csv"))
    learnt(place)
    with pytest.raises(OSError, match="not unique") as raised:
        kept.warm(script)
    assert raised.value.errno == errno.ENOTUNIQ


def test_a_linked_script_finds_what_comes_to_lie_beside_its_file(kept: Place) -> None:
    """The folder of the link says nothing of that."""
    kept.warm(kept.script(f"{LOADED}; import csv"))
    learnt(kept)
    target, links = kept.folder / "target", kept.folder / "links"
    target.mkdir()
    links.mkdir()
    place = Place(target, kept.templates, kept.log)
    (links / "link.py").symlink_to(place.script("import csv; print(csv.__file__)").path)
    linked = Cgi(bytes(links / "link.py"), (bytes(links / "link.py"),))
    settled(links)
    assert [b"lib" in kept.warm(linked).out for _ in range(2)] == [True] * 2
    (target / "csv.py").touch()
    with pytest.raises(OSError, match="not unique") as raised:
        kept.warm(linked)
    assert raised.value.errno == errno.ENOTUNIQ


def test_a_release_that_moves_below_its_link_is_found_there(kept: Place) -> None:
    """Nothing changes in its folder, nor about that."""
    for number in (1, 2):
        folder = kept.folder / f"r{number}" / "cgi"
        folder.mkdir(parents=True)
        (folder / "release.py").write_text(f"NUMBER = {number}")
        kept.script("import release; print(release.NUMBER)", name=f"r{number}/cgi/script.py")
    current = kept.folder / "current"
    linked = Cgi(bytes(current / "cgi/script.py"), (bytes(current / "cgi/script.py"),))
    current.symlink_to("r1")
    settled(kept.folder / "r1/cgi")
    assert [kept.warm(linked).out for _ in range(2)] == [b"1\n"] * 2
    (kept.folder / "r1").rename(kept.folder / "old")
    (kept.folder / "r2").rename(kept.folder / "r1")
    current.unlink()
    current.symlink_to("old")
    assert kept.warm(linked).out == b"1\n"


def test_a_module_beside_a_script_is_seen_whatever_the_time_of_its_folder(kept: Place) -> None:
    """rsync -t and tar set that; of the last change of the inode only the kernel says when it was."""
    script = kept.script(f"{LOADED}; import csv")
    kept.warm(script)
    learnt(kept)
    before = kept.folder.stat()
    settled(kept.folder)
    assert [kept.warm(script).out for _ in range(2)] == [b"True\n"] * 2
    (kept.folder / "csv.py").touch()
    os.utime(kept.folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(OSError, match="not unique") as raised:
        kept.warm(script)
    assert raised.value.errno == errno.ENOTUNIQ


def test_a_relative_pythonpath_is_left_to_a_cold_start(own: Place) -> None:
    with pytest.raises(OSError, match="PYTHONPATH"):
        own.templates.spawn(own.script("print(1)", PYTHONPATH="lib"), 0, 1, 2)


def test_who_outlives_the_template_writes_to_nobody_else(own: Place) -> None:
    """What it would tell is for its template alone; another process may have that pid by then."""
    become_subreaper()
    script = own.script("import sys, os; sys.stdin.read(); import csv; print(os.getppid())")
    assert own.templates.wait_until_up(script, PATIENCE)
    stdin, stdout = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    child = begun(own.templates, script, stdin[0], stdout[1], stdout[1])
    own.templates.close()
    os.close(stdin[1])
    os.close(stdout[1])
    assert os.read(stdout[0], 100) == b"%d\n" % os.getpid()
    assert os.read(stdout[0], 100) == b""
    while child.reap() is None:
        assert readable(child.fileno())
    child.close()
    os.close(stdin[0])
    os.close(stdout[0])


def test_no_common_module_has_work_of_its_own_at_a_fork() -> None:
    """Neither random, which seeds itself, nor threading, which makes its locks anew: all scripts would pay."""
    code = f"import sys, {', '.join(COMMON)}; sys.exit(' '.join({{'random', 'threading'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-ISc", code], stderr=subprocess.PIPE, timeout=PATIENCE)
    assert run.stderr.strip() == b""


def test_who_writes_rubbish_to_the_template_tells_it_nothing(own: Place) -> None:
    """A script may open whatever its user may: all that it can say there is the name of a common module."""
    script = own.script("import csv")
    own.warm(script)
    rubbish = own.script(
        "import os\n"
        "mine = [os.readlink(f'/proc/self/fd/{number}') for number in (1, 2)]\n"
        "for name in os.listdir(f'/proc/{os.getppid()}/fd'):\n"
        "    path = f'/proc/{os.getppid()}/fd/{name}'\n"
        "    kind = os.readlink(path)\n"
        "    if kind.startswith('pipe:') and kind not in mine:\n"
        "        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)\n"
        "        os.write(fd, b'antigravity \\xff\\x00 this' * 100)\n"
        "        try: os.read(fd, 100)\n"
        "        except BlockingIOError: pass\n"
        "        os.close(fd)\n"
    )
    assert own.warm(rubbish).err == b""
    loaded = own.script("import sys; print('antigravity' in sys.modules, 'this' in sys.modules)")
    assert own.warm(loaded).out == b"False False\n"


def test_a_module_that_starts_threads_is_refused(own: Place, tmp_path: Path) -> None:
    code = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    (tmp_path / "threaded.py").write_text(code)
    own.templates = Templates(own.log.append, None, ("threaded",))
    try:
        with pytest.raises(OSError, match="starts threads"):
            own.warm(own.script("print(1)", PYTHONPATH=str(tmp_path)))
    finally:
        own.templates.close()
    assert "starts threads" in own.log[0]


# ---- the template's own troubles --------------------------------------------------------------------------------


def only(templates: Templates) -> interpreter.Template:
    (template,) = templates._templates.values()
    return template


def test_nobody_waits_for_a_template_that_starts(own: Place) -> None:
    script = own.script("print(1)")
    with pytest.raises(BlockingIOError), running(own.templates, script):
        pass
    assert own.warm(script).out == b"1\n"


def test_an_interpreter_that_ignores_its_children_may_be_a_template(own: Place) -> None:
    """SIGCHLD ignored: the kernel reaps, and nobody can be waited for (wait(2)). A template sees to its own."""
    (own.folder / "sitecustomize.py").write_text("import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)")
    assert own.warm(own.script("print(1)", PYTHONPATH=str(own.folder))).out == b"1\n"


def test_a_template_that_died_is_replaced_after_a_while(own: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    script = own.script("print(1)")
    own.warm(script)
    template = only(own.templates)
    os.kill(template.pid, signal.SIGKILL)
    assert template.wait_until_gone(PATIENCE)
    with pytest.raises(OSError, match="dead"):
        own.warm(script)
    with pytest.raises(OSError, match="waits"):
        own.warm(script)
    assert "its scripts start cold for 1 s" in own.log[0]
    monkeypatch.setattr("pyemperor.actors.warm.templates.monotonic", lambda: now + 3600)
    assert own.warm(script).out == b"1\n"
    assert len(own.log) == 1


def test_a_template_that_hangs_is_killed_and_its_request_is_not_run_later(own: Place) -> None:
    script = own.script("open('ran', 'w')")
    own.warm(script)
    (own.folder / "ran").unlink()
    template = only(own.templates)
    os.kill(template.pid, signal.SIGSTOP)
    before = time.monotonic()
    with pytest.raises(OSError, match="hangs"):
        own.warm(script)
    assert time.monotonic() - before < 5
    assert template.wait_until_gone(PATIENCE)
    own.templates.close()
    assert not (own.folder / "ran").exists()


def test_a_script_over_which_templates_die_runs_cold(own: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    later = [0.0]
    monkeypatch.setattr("pyemperor.actors.warm.templates.monotonic", lambda: time.monotonic() + later[0])
    slow = "f(a, b, c)\n" * 380_000  # the alarm ends the compilation, and the template with it
    script = own.script(slow, name="slow.py")
    good = own.script("print(1)", name="good.py")
    for _ in range(2):
        own.warm(good)
        with pytest.raises(OSError, match=r"it died|it hangs"):
            own.warm(script)
        later[0] += 3600
    own.warm(good)
    with pytest.raises(OSError, match="have died over this script"):
        own.warm(script)
    assert own.warm(good).out == b"1\n"


def test_a_script_outlives_its_template(own: Place) -> None:
    become_subreaper()  # as a worker is
    script = own.script("import sys; print('up', flush=True); sys.exit(int(sys.stdin.read()))")
    assert own.templates.wait_until_up(script, PATIENCE)
    child, stdin, stdout = piped(own.templates, script)
    assert os.read(stdout, 10) == b"up\n"
    template = only(own.templates)
    os.kill(template.pid, signal.SIGKILL)
    assert template.wait_until_gone(PATIENCE)
    assert readable(child.fileno())
    assert child.reap() is None
    poll = select.poll()
    poll.register(child.watched(), select.POLLIN)
    assert not poll.poll(0)  # and nobody is told again and again
    os.write(stdin, b"42")
    os.close(stdin)
    assert readable(child.fileno())
    exit = child.reap()
    assert exit is not None
    assert exit.status is not None
    assert os.waitstatus_to_exitcode(exit.status) == 42
    assert exit.peak > 1 << 20
    child.close()
    os.close(stdout)


def test_without_a_descriptor_its_end_is_not_watched_but_known(own: Place) -> None:
    script = own.script("import sys; sys.exit(int(sys.stdin.read()))")
    assert own.templates.wait_until_up(script, PATIENCE)
    child, stdin, stdout = piped(own.templates, script)
    program = Script(script.path, script.arguments, script.environment, script.directory, "warm", Terms(timeout=5))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with closing(EpollInbox()) as inbox:
        process = Process.running(inbox, program, child.pid, child, stdout, b"", None)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            assert not process.watch_exit()
            assert process.reap() is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.write(stdin, b"42")
        os.close(stdin)
        assert readable(child.fileno())
        ending = process.reap()
        assert ending is not None
        assert ending.code == 42
        process.close()


def test_the_exit_status_of_an_orphan_is_its_runners(own: Place) -> None:
    """It ends while its template hangs, and is a zombie of the worker's before its runner has heard of it."""
    become_subreaper()
    script = own.script("import sys; sys.exit(int(sys.stdin.read()))")
    assert own.templates.wait_until_up(script, PATIENCE)
    stdin = os.pipe2(os.O_CLOEXEC)
    child = begun(own.templates, script, stdin[0], 1, 2)
    template = only(own.templates)
    os.kill(template.pid, signal.SIGSTOP)
    os.write(stdin[1], b"42")
    for fd in stdin:
        os.close(fd)
    pidfd = os.pidfd_open(child.pid)
    assert readable(pidfd)
    os.close(pidfd)
    os.kill(template.pid, signal.SIGKILL)
    assert template.wait_until_gone(PATIENCE)
    reap_adopted(awaited)  # as the worker does, now and then
    exit = child.reap()
    assert exit is not None
    assert exit.status is not None
    assert os.waitstatus_to_exitcode(exit.status) == 42
    child.close()
    assert child.pid not in awaited


class Parent:
    """Stands for a template: has a child that exits with 42, and obeys one word after the other.

    ``reap`` it, ``hang`` up its line, ``leave``.
    """

    def __init__(self) -> None:
        become_subreaper()
        line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen(
            [sys.executable, "-ISc", self.LIFE, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        theirs.close()
        self.child = Child(line, lambda _: int(self.heard()))
        self.child.begin()

    LIFE = (
        "import os, sys\n"
        "pid = os.fork() or os._exit(42)\n"
        "os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)\n"
        "print(pid, flush=True)\n"
        "for word in sys.stdin:\n"
        "    if word == 'reap\\n': os.wait()\n"
        "    elif word == 'hang\\n': os.close(int(sys.argv[1]))\n"
        "    else: break\n"
        "    print(word, flush=True)\n"
    )

    def heard(self) -> bytes:
        assert self.process.stdout is not None
        assert readable(self.process.stdout.fileno())
        return self.process.stdout.readline()

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())
        self.process.stdin.flush()
        self.heard()

    def leave(self) -> None:
        self.process.communicate(b"leave\n", timeout=PATIENCE)

    def __enter__(self) -> "Parent":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.child.close()


def test_a_zombie_of_a_template_that_dies_has_not_ended_yet() -> None:
    """The kernel closes a process's descriptors before it gives its children to another parent."""
    with Parent() as parent:
        parent.say("hang")
        assert readable(parent.child.fileno())
        assert parent.child.reap() is None
        parent.leave()
        exit = parent.child.reap()
        assert exit is not None
        assert exit.status is not None
        assert os.waitstatus_to_exitcode(exit.status) == 42


def test_a_status_that_died_with_the_template_is_not_made_up() -> None:
    """A script of whose end nobody knows was not answered in full, and has no exit code in the log."""
    with Parent() as parent, closing(EpollInbox()) as inbox, closing(ErrorPipe(inbox, lambda *_: None)) as errors:
        ours, theirs = socket.socketpair()
        sock = socket.SocketType(theirs.family, theirs.type, 0, theirs.detach())
        script = Script(b"/x", (b"/x",), {}, b"/", "x", Terms(PATIENCE), warm=True)
        handlers = {9: lambda _: script}
        exchange = Exchange(
            inbox, sock, UwsgiWire(4096), Outcome(), handlers, errors, 0, PATIENCE, lambda *_: parent.child
        )
        parent.say("reap")
        parent.say("hang")
        ours.settimeout(PATIENCE)
        ours.sendall(encode_packet([(b"REQUEST_METHOD", b"GET")], modifier1=9))
        over = exchange.start(time.monotonic())
        while not over:
            over = exchange.handle(inbox.get().message, time.monotonic())
        with closing(ours):
            assert ours.recv(4096).startswith(b"HTTP/1.1 502 ")
    assert exchange.outcome.problem.startswith("nobody knows how the script ended")
    assert exchange.outcome.ending is None


def test_templates_end_with_whoever_started_them(own: Place) -> None:
    own.warm(own.script("print(1)"))
    template = only(own.templates)
    template.close()  # as the kernel does it for a worker that is gone
    assert template.wait_until_gone(PATIENCE)


def test_closing_ends_all_templates(own: Place) -> None:
    own.warm(own.script("print(1)"))
    pid = only(own.templates).pid
    own.templates.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_interpreter_that_was_replaced_is_started_anew(own: Place) -> None:
    python = own.folder / "python3"
    python.symlink_to(sys.executable)
    script = own.script("print(1)", shebang=str(python))
    own.warm(script)
    first = only(own.templates).pid
    python.unlink()
    python.write_bytes(Path(sys.executable).resolve().read_bytes())
    python.chmod(0o755)
    with pytest.raises(OSError, match="not up yet"), running(own.templates, script):
        pass
    assert {template.pid for template in own.templates._templates.values()} - {first}


def test_cpu_time_and_memory_are_the_scripts_own(place: Place) -> None:
    script = place.script("import time\nx = bytearray(64 << 20)\nwhile time.process_time() < 0.2: pass")
    assert place.templates.wait_until_up(script, PATIENCE)
    with running(place.templates, script) as run:
        run.read()
        run.status()
        exit = run.child.reap()
    assert exit is not None
    assert 0.2 <= exit.cpu < 2
    assert 64 << 20 < exit.peak < 256 << 20


def test_a_group_can_be_signalled_as_soon_as_there_is_a_pid(place: Place) -> None:
    script = place.script("import time\ntime.sleep(60)")
    assert place.templates.wait_until_up(script, PATIENCE)
    for _ in range(10):
        with running(place.templates, script) as run:
            os.killpg(run.child.pid, signal.SIGTERM)
            assert run.wait().status == -signal.SIGTERM


def test_many_at_once(place: Place) -> None:
    script = place.script("import os, sys; print(os.environ['NUMBER'], sys.stdin.read())")
    assert place.templates.wait_until_up(script, PATIENCE)
    wrong: list[object] = []

    def client(first: int) -> None:
        for number in range(first, first + 25):
            mine = Cgi(script.path, script.arguments, {**ENVIRONMENT, b"NUMBER": b"%d" % number})
            ran = place.warm(mine, b"<%d>" % number)
            if ran != Ran(b"%d <%d>\n" % (number, number), b"", 0):
                wrong.append(ran)

    threads = [threading.Thread(target=client, args=(first,)) for first in range(0, 200, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not wrong


def test_more_at_once_than_a_socket_queues(place: Place) -> None:
    script = place.script("import time; time.sleep(0.01)")
    assert place.templates.wait_until_up(script, PATIENCE)
    failed: list[OSError] = []

    def client() -> None:
        try:
            with running(place.templates, script) as run:
                run.wait()
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=client) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not failed


def test_no_descriptor_of_another_script_is_inherited(place: Place) -> None:
    """The lines of those that run are open in the template, at higher numbers than what it was given last."""
    waiting = place.script("import sys; sys.stdin.read()", name="waiting.py")
    listing = place.script("import os; print(sorted(os.listdir('/proc/self/fd')))", name="listing.py")
    place.warm(listing)
    first, second = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    children = [begun(place.templates, waiting, stdin[0], 1, 2) for stdin in (first, second)]
    os.close(first[1])
    assert readable(children[0].fileno())
    assert place.warm(listing).out == b"['0', '1', '2', '3']\n"  # the last is that of listdir()
    os.close(second[1])
    for child, stdin in zip(children, (first, second), strict=True):
        assert readable(child.fileno())
        child.reap()
        child.close()
        os.close(stdin[0])


def test_no_descriptor_is_left_in_the_worker(place: Place) -> None:
    script = place.script("print(1)")
    place.warm(script)
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(5):
        place.warm(script)
    with pytest.raises(OSError, match="format"):
        place.warm(place.script("(", name="bad.py"))
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_no_descriptor_and_no_memory_is_left_in_the_template(own: Place) -> None:
    script = own.script("print(1)")

    def look() -> tuple[int, int]:
        pid = only(own.templates).pid
        text = Path(f"/proc/{pid}/status").read_text()
        size = re.search(r"RssAnon:\s+(\d+)", text)
        assert size
        return len(os.listdir(f"/proc/{pid}/fd")), int(size.group(1))

    for number in range(200):
        mine = Cgi(script.path, script.arguments, {**ENVIRONMENT, b"QUERY_STRING": b"%d" % number * 2000})
        own.warm(mine)
        if number == 50:
            before = look()
    end = time.monotonic() + PATIENCE
    while look()[0] > before[0] and time.monotonic() < end:  # it may not have closed the last line yet
        os.sched_yield()
    after = look()
    assert after[0] <= before[0]
    assert after[1] - before[1] < 500


def test_files_of_other_kinds_on_stdin(place: Place) -> None:
    script = place.script("import sys, json; print(sys.stdin.seekable(), sys.stdin.read(), sys.stdin.tell())")
    assert place.templates.wait_until_up(script, PATIENCE)
    spool = place.folder / "spool"
    spool.write_text("spooled")
    assert stat.S_ISREG(spool.stat().st_mode)
    read, write = os.pipe2(os.O_CLOEXEC)
    with spool.open("rb") as file:
        child = begun(place.templates, script, file.fileno(), write, write)
    os.close(write)
    with os.fdopen(read, "rb") as out:
        assert json.dumps(out.read().decode()) == '"True spooled 7\\n"'
    child.close()
