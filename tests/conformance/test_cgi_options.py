"""uWSGI's CGI options, and what it has not: each shown by what the handler makes of a request, run for real.

The table of options is ``protocol/cgi_options.py``; what uWSGI does is told by its documentation ("Running CGI
scripts on uWSGI") and its ``plugins/cgi``.
"""

import errno
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyemperor.actors import confinement
from pyemperor.actors.handlers.cgi import handler
from pyemperor.actors.refusals import no_locks
from pyemperor.actors.script import Script
from pyemperor.actors.slots import Slots
from pyemperor.actors.wires import Request
from pyemperor.protocol.errors import ConfigError, RequestError
from pyemperor.protocol.options import Vassal, vassal_from
from pyemperor.protocol.report import Report
from tests import support

SAY_ENVIRONMENT = "exec env"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")


def vassal(folder: Path, **options: Any) -> Vassal:
    """A vassal with these options, read as from a file."""
    report = Report("app.toml", lambda _: 0)
    given = {key.replace("_", "-"): value for key, value in options.items()}
    made = vassal_from({"socket": "x.sock", "cgi": "/cgi-bin=cgi"} | given, report, name="v", base=str(folder))
    report.raise_problems()
    return made


def problem(folder: Path, **options: Any) -> str:
    """What is wrong with these options."""
    with pytest.raises(ConfigError) as caught:
        vassal(folder, **options)
    return str(caught.value)


def request(path: str, query: str = "", **variables: str) -> Request:
    given = {b"REQUEST_METHOD": b"GET", b"PATH_INFO": path.encode(), b"QUERY_STRING": query.encode()}
    return Request(9, 0, given | {name.encode(): value.encode() for name, value in variables.items()}, 0)


class Site:
    """A folder with scripts in ``cgi``, and a vassal for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "cgi").mkdir()

    def script(self, name: str, text: str = "exit 0", mode: int = 0o755) -> Path:
        file = self.folder / "cgi" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n" if "#!" not in text else text)
        file.chmod(mode)
        return file

    def asked(self, path: str, query: str = "", options: dict[str, Any] | None = None, **variables: str) -> Script:
        script = handler(vassal(self.folder, **options or {}))(request(path, query, **variables))
        assert isinstance(script, Script)
        return script

    def refused(self, path: str, **options: Any) -> RequestError:
        with pytest.raises(RequestError) as caught:
            handler(vassal(self.folder, **options))(request(path))
        return caught.value

    def run(self, path: str, query: str = "", options: dict[str, Any] | None = None, **variables: str) -> str:
        """What the script says, run as the handler wants it."""
        script = self.asked(path, query, options, **variables)
        environment = {os.fsdecode(name): os.fsdecode(value) for name, value in script.environment.items()}
        return subprocess.run(
            list(map(os.fsdecode, script.arguments)),
            executable=os.fsdecode(script.path),
            env=environment,
            cwd=os.fsdecode(script.directory),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=15,
        ).stdout


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ``cgi-concurrency`` has its files, also of the processes that a test starts."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site that other users can reach: pytest's own folders are for its user alone."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield Site(folder)
    shutil.rmtree(folder)


# ---- where scripts are --------------------------------------------------------------------------------------


def test_cgi(site: Site) -> None:
    """`cgi` mounts folders and files; the longest prefix wins, and it ends where a name ends."""
    site.script("a.cgi")
    site.script("deep/a.cgi")
    options = {"cgi": ["/cgi-bin=cgi", "/cgi-bin/d=cgi/deep", "/one=cgi/a.cgi", "cgi/deep"]}
    for path, file, name, info in (
        ("/cgi-bin/a.cgi/x", "a.cgi", b"/cgi-bin/a.cgi", b"/x"),
        ("/cgi-bin/d/a.cgi", "deep/a.cgi", b"/cgi-bin/d/a.cgi", None),
        ("/one/a.cgi", "a.cgi", b"/one", b"/a.cgi"),
        ("/a.cgi", "deep/a.cgi", b"/a.cgi", None),
    ):
        script = site.asked(path, options=options)
        assert script.path == os.fsencode(site.folder / "cgi" / file)
        assert (script.environment[b"SCRIPT_NAME"], script.environment.get(b"PATH_INFO")) == (name, info)
    assert site.refused("/cgi-binX/a.cgi").status == 404


def test_cgi_index(site: Site) -> None:
    """`cgi-index`: the first that is there; without it a folder is a 404, and never a list of files."""
    site.script("sub/index.pl")
    site.script("sub/index.cgi")
    options = {"cgi_index": ["none.cgi", "index.cgi", "index.pl"]}
    assert site.asked("/cgi-bin/sub/", options=options).path.endswith(b"/sub/index.cgi")
    assert site.refused("/cgi-bin/sub/").status == 404
    assert "name of a file" in problem(site.folder, cgi_index="../index.cgi")


def test_cgi_from_docroot(site: Site) -> None:
    """`cgi-from-docroot`: the web server says where scripts are; no mount plays a part."""
    site.script("a.cgi")
    options = {"cgi_from_docroot": True, "cgi": []}
    script = site.asked("/cgi/a.cgi/x", options=options, DOCUMENT_ROOT=str(site.folder))
    assert script.path == os.fsencode(site.folder / "cgi" / "a.cgi")
    assert script.environment[b"SCRIPT_NAME"] == b"/cgi/a.cgi"
    assert script.environment[b"PATH_TRANSLATED"] == os.fsencode(site.folder / "x")
    error = site.refused("/cgi/a.cgi", **options)
    assert (error.status, "DOCUMENT_ROOT" in error.remedy) == (404, True)


def test_cgi_allowed_ext(site: Site) -> None:
    """`cgi-allowed-ext` is the end of the name of what would run: also of an index, and of a file mount."""
    site.script("a.cgi")
    site.script("index.pl")
    site.script("acgi")
    options = {"cgi_allowed_ext": ".cgi", "cgi_index": "index.pl", "cgi": ["/cgi-bin=cgi", "/one=cgi/index.pl"]}
    assert site.asked("/cgi-bin/a.cgi/x.pl", options=options).path.endswith(b"/a.cgi")
    for path in ("/cgi-bin/acgi", "/cgi-bin/acgi/x.cgi", "/cgi-bin/", "/one", "/one/a.cgi"):
        assert site.refused(path, **options).status == 403


# ---- no source is ever shown --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/cgi-bin/a.php/.", 400),
        ("/cgi-bin/a.php.", 404),
        ("/cgi-bin/a.php%00.txt", 404),
        ("/cgi-bin/a.PHP", 404),
        ("/cgi-bin/a.php ", 404),
        ("/cgi-bin/a.php::$DATA", 404),
        ("/cgi-bin/a.php~", 403),
        ("/cgi-bin/a.php.bak", 403),
        ("/cgi-bin/.htaccess", 403),
    ],
)
def test_nothing_but_scripts_is_answered_with(site: Site, path: str, status: int) -> None:
    """Backups and the like are not of the allowed endings; what is no name of a file is no script."""
    for name in ("a.php", "a.php~", "a.php.bak", ".htaccess"):
        site.script(name, "secret", 0o644)
    assert site.refused(path, cgi_helper=".php=/bin/sh", cgi_allowed_ext=".php").status == status


def test_without_allowed_endings_what_is_not_executable_is_not_run(site: Site) -> None:
    site.script("a.php~", "secret", 0o644)
    script = site.asked("/cgi-bin/a.php~", options={"cgi_helper": ".php=/bin/sh"})
    with pytest.raises(PermissionError):  # of which script.py makes a 403
        os.posix_spawn(script.path, script.arguments, script.environment)
    assert site.refused("/cgi-bin/a.php~", cgi_limit_core=0).status == 403


# ---- how they run -------------------------------------------------------------------------------------------


def test_cgi_helper(site: Site) -> None:
    """`cgi-helper` may have arguments; the first that fits counts; the script need not be executable."""
    site.script("a.sh", "echo $0 $-", 0o644)
    options = {"cgi_helper": [".sh=/bin/sh -f -u", "sh=/bin/false"]}
    said = site.run("/cgi-bin/a.sh", "-c+id", options)
    assert re.fullmatch(rf"{site.folder}/cgi/a\.sh [a-z]*f[a-z]*u[a-z]*\n|{site.folder}/cgi/a\.sh uf\n", said)
    assert "C library" in problem(site.folder, cgi_helper=".py=sym://run_python")


def test_cgi_search_words(site: Site) -> None:
    """RFC 3875 §4.4: on, unless a helper runs the script, which could take them for its own options."""
    site.script("a.cgi", 'printf "%s|" "$@"')
    assert site.run("/cgi-bin/a.cgi", "one+t%20wo") == "one|t wo|"
    assert site.run("/cgi-bin/a.cgi", "one=two") == "|"
    assert site.run("/cgi-bin/a.cgi", "one", {"cgi_search_words": False}) == "|"
    helped = site.asked("/cgi-bin/a.cgi", "one", {"cgi_helper": ".cgi=/bin/sh"})
    assert helped.arguments == (b"/bin/sh", os.fsencode(site.folder / "cgi" / "a.cgi"))


def test_what_the_runner_is_told(site: Site) -> None:
    """Timeouts, sizes and the like are passed on; times may be stretched by a scenario."""
    site.script("a.cgi")
    script = site.asked("/cgi-bin/a.cgi")
    terms = script.terms
    assert (terms.timeout, terms.first_byte, terms.total, terms.head_limit) == (60, 0, 0, 65536)
    assert (terms.redirect, terms.persistent, script.warm, script.slot) == ("internal", False, False, None)
    options = {
        "cgi_timeout": "7s",
        "cgi_first_byte_timeout": 3,
        "cgi_total_timeout": "1m",
        "cgi_buffer_size": "8k",
        "cgi_local_redirect": "accel",
        "cgi_do_not_kill_on_error": True,
    }
    terms = site.asked("/cgi-bin/a.cgi", options=options).terms
    assert (terms.timeout, terms.first_byte, terms.total, terms.head_limit) == (7, 3, 60, 8192)
    assert (terms.redirect, terms.persistent) == ("accel", True)


# ---- what they see ------------------------------------------------------------------------------------------


def test_cgi_environment(site: Site) -> None:
    """`cgi-pass-auth`, `cgi-allowed-env` and `cgi-unset` let in and take out, each by name."""
    site.script("env.cgi", SAY_ENVIRONMENT)
    sent = {"HTTP_AUTHORIZATION": "Basic x", "SHIB_ID": "7", "GEO": "AQ", "GEOX": "1", "LD_DEBUG": "all"}
    sent |= {"HTTP_PROXY": "evil", "UWSGI_FILE": "evil", "HTTP_COOKIE": "c"}

    def seen(**options: Any) -> set[str]:
        lines = site.run("/cgi-bin/env.cgi", options=options, **sent).splitlines()
        return {line.partition("=")[0] for line in lines} & set(sent)

    assert seen() == {"HTTP_COOKIE"}
    assert seen(cgi_pass_auth=True) == {"HTTP_COOKIE", "HTTP_AUTHORIZATION"}
    assert seen(cgi_allowed_env=["SHIB_*", "GEO"]) == {"HTTP_COOKIE", "SHIB_ID", "GEO"}
    assert seen(cgi_allowed_env=["HTTP_*"]) >= {"HTTP_COOKIE"}
    assert "HTTP_PROXY" not in seen(cgi_allowed_env=["HTTP_*"])
    assert seen(cgi_unset="HTTP_COOKIE") == set()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "UWSGI_FILE", "UWSGI_*", "*", "A=B", "", "A*B"])
def test_variables_that_cannot_be_allowed(site: Site, name: str) -> None:
    assert "cgi-allowed-env" in problem(site.folder, cgi_allowed_env=name)


# ---- at a time ----------------------------------------------------------------------------------------------


def test_cgi_concurrency(site: Site) -> None:
    """`cgi-concurrency` bounds the requests of a mount in all workers; one more is a 503."""
    site.script("a.cgi")
    options = {"cgi": ["/slow=cgi", "/fast=cgi"], "cgi_concurrency": ["/slow=2", "3"]}
    workers = [handler(vassal(site.folder, **options)) for _ in range(2)]

    def take(mount: str, worker: int) -> Any:
        script = workers[worker](request(f"/{mount}/a.cgi"))
        assert isinstance(script, Script)
        return script.slot

    slow = [take("slow", worker) for worker in (0, 1)]
    fast = [take("fast", worker) for worker in (0, 1, 0)]
    for worker in (0, 1):
        for mount in ("slow", "fast"):
            with pytest.raises(RequestError, match="too many requests") as caught:
                take(mount, worker)
            assert (caught.value.status, "cgi-concurrency" in caught.value.remedy) == (503, True)
    slow[0].release()
    slow[0].release()
    slow.append(take("slow", 1))
    with pytest.raises(RequestError):
        take("slow", 0)
    for slot in (*slow, *fast):
        slot.release()


_HOLDER = """
import sys
from pyemperor.actors.refusals import no_locks
from pyemperor.actors.slots import Slots
slots = Slots(sys.argv[1].encode(), 2)
held = [slots.take(), slots.take()]
print(slots.take() is None, flush=True)
sys.stdin.read()
"""


def test_a_worker_that_is_killed_leaves_no_slot_taken(site: Site) -> None:
    """The kernel gives them back, whatever ended the holder (kill -9 as well); a script inherits none."""
    name = str(site.folder)
    command = [sys.executable, "-P", "-c", _HOLDER, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        slots = Slots(name.encode(), 2)
        assert slots.take() is None
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        held = [slots.take(), slots.take(), slots.take()]
    assert [slot is None for slot in held] == [False, False, True]
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, close_fds=False):
        for slot in held[:2]:
            assert slot is not None
            slot.release()
        again = slots.take()
        assert again is not None
        again.release()


_TWO_AT_A_TIME = """
[[vassal]]
name = "site"
socket = "site.sock"
cgi = "/cgi-bin=cgi"
processes = 2
threads = 2
cgi-concurrency = 2
"""


class Held:
    """Requests whose script waits for the byte that is announced as their body."""

    def __init__(self, site: support.Site) -> None:
        self.site = site
        self.path = site.script("held.cgi", "echo held $$ >&2; printf 'Content-Type: text/plain\\n\\n'; cat")
        self.begun = 0
        self.socks: list[socket.socket] = []

    def begin(self) -> tuple[socket.socket, int]:
        """Begin one; its connection, and its script's process id."""
        self.begun += 1
        sock = support.connect(self.site.socket)
        self.socks.append(sock)
        sock.sendall(support.packet(self.path, method="POST", length=1))
        said = self.site.server.wait_for(count=self.begun, event="stderr", message=lambda text: ": held " in text)
        return sock, int(said["message"].split()[-1])

    def wait_for_room(self) -> None:
        """Ask until a request is no longer refused."""
        deadline = time.monotonic() + support.PATIENCE
        while self.site.uwsgi(self.path).status == 503:
            assert time.monotonic() < deadline
        self.begun += 1


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    (tmp_path / "cgi").mkdir()
    with support.serving(tmp_path, _TWO_AT_A_TIME) as server:
        made = Held(support.Site(server, tmp_path / "cgi", tmp_path / "site.sock"))
        try:
            yield made
        finally:
            for sock in made.socks:
                sock.close()


def test_cgi_concurrency_in_a_vassal(held: Held) -> None:
    """Two requests fill it, in whichever workers; an answer makes room for another."""
    first, _ = held.begin()
    held.begin()
    refused = held.site.uwsgi(held.path)
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert "cgi-concurrency" in held.site.server.wait_for(event="request", status=503)["remedy"]
    first.sendall(b"x")
    assert support.read_to_end(first).text == "x"
    held.wait_for_room()


def test_a_killed_worker_makes_room_in_its_vassal(held: Held) -> None:
    _, pid = held.begin()
    held.begin()
    worker = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    assert support.gone(worker)
    held.wait_for_room()


@as_root
def test_a_folder_for_slots_that_is_somebody_elses_is_refused(site: Site) -> None:
    site.script("a.cgi")
    theirs = site.folder / f"pyemperor-{os.geteuid()}"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    error = site.refused("/cgi-bin/a.cgi", cgi_concurrency=1)
    assert error.status == 503
    assert f"in {theirs}: others may write to it; remove it" in error.remedy


def test_what_is_in_the_way_of_slots_is_named(site: Site) -> None:
    site.script("a.cgi")
    folder = site.folder / f"pyemperor-{os.geteuid()}"
    folder.write_text("a file")
    error = site.refused("/cgi-bin/a.cgi", cgi_concurrency=1)
    assert error.remedy == (
        f"`cgi-concurrency` keeps its locks in {folder}: Not a directory; "
        "remove it, or set TMPDIR to another folder"
    )
    folder.unlink()
    held = site.asked("/cgi-bin/a.cgi", options={"cgi_concurrency": 1}).slot
    assert held is not None
    held.release()
    (file,) = folder.iterdir()
    file.unlink()
    file.mkdir()
    error = site.refused("/cgi-bin/a.cgi", cgi_concurrency=1)
    assert f"in {folder}: Is a directory; remove it" in error.remedy


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOLCK, "set TMPDIR to another folder"), (errno.EMFILE, "raise the limit")]
)
def test_an_error_of_a_lock_that_names_no_file_has_a_remedy(number: int, advice: str) -> None:
    error = no_locks("/tmp/pyemperor-0", OSError(number, os.strerror(number)))
    assert f"in /tmp/pyemperor-0: {os.strerror(number)}; {advice}" in error.remedy


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cgi_concurrency": "/elsewhere=2"}, 'nothing is mounted at "/elsewhere"'),
        ({"cgi_concurrency": 0}, "at least 1"),
        ({"cgi_concurrency": "/cgi-bin=many"}, "whole number"),
        ({"cgi_warm": "/cgi-bin=perl"}, "python"),
        ({"cgi_warm": "/elsewhere=python"}, 'nothing is mounted at "/elsewhere"'),
        ({"cgi_run_as_owner": True, "uid": "www-data"}, "the vassal has a uid"),
        ({"cgi_symlinks": "no"}, '"deny", "owner", "follow"'),
        ({"cgi_loadlib": "x.so"}, "cgi-helper"),
        ({"cgi": []}, "nothing to serve"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(site: Site, options: dict[str, Any], words: str) -> None:
    assert words in problem(site.folder, **options)


# ---- limits and rights --------------------------------------------------------------------------------------


def test_cgi_limits(site: Site) -> None:
    """`cgi-limit-*` are the limits of setrlimit(2), for the script alone."""
    site.script("limits.cgi", "cat /proc/self/limits; echo $0 $#")
    before = Path("/proc/self/limits").read_text()
    options = {
        "cgi_limit_as": "1G",
        "cgi_limit_cpu": "9.5s",
        "cgi_limit_fsize": "1M",
        "cgi_limit_nofile": 32,
        "cgi_limit_nproc": 1000,
        "cgi_limit_core": 0,
    }
    said = site.run("/cgi-bin/limits.cgi", "w", options)
    limits = dict(re.findall(r"^Max (.+?) {2,}(\S+ +\S+)", said, re.MULTILINE))
    wanted = {
        "address space": 1 << 30,
        "file size": 1 << 20,
        "open files": 32,
        "processes": 1000,
        "core file size": 0,
    }
    assert {name: limits[name].split() for name in wanted} == {name: [str(n)] * 2 for name, n in wanted.items()}
    assert limits["cpu time"].split() == ["10", "11"], "SIGXCPU first, which says what it was"
    assert said.splitlines()[-1] == f"{site.folder}/cgi/limits.cgi 1"
    assert Path("/proc/self/limits").read_text() == before


def test_a_limit_that_is_tighter_already_stays() -> None:
    """An ordinary user cannot raise a limit: a script would never start."""
    ask = "from pyemperor.actors import confinement; from pyemperor.protocol.options import Vassal;"
    ask += "print(confinement.tools_of(Vassal('v', cgi_limit_nofile=4096)))"
    command = ["/bin/sh", "-c", 'ulimit -n 64; exec "$@"', "sh", sys.executable, "-P", "-c", ask]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == "{'prlimit': ('--nofile=64',)}\n"


def test_cgi_new_session(site: Site) -> None:
    """`cgi-new-session`: a session for each script, which those that run as their owners have in any case."""
    site.script("a.cgi")
    assert site.asked("/cgi-bin/a.cgi").terms.session
    assert not site.asked("/cgi-bin/a.cgi", options={"cgi_new_session": False}).terms.session


def test_cgi_no_new_privs(site: Site) -> None:
    """`cgi-no-new-privs`: no setuid program gives the script more than it has (prctl(2))."""
    site.script("a.cgi", "grep NoNewPrivs /proc/self/status")
    assert site.run("/cgi-bin/a.cgi").split() == ["NoNewPrivs:", "0"]
    assert site.run("/cgi-bin/a.cgi", options={"cgi_no_new_privs": True}).split() == ["NoNewPrivs:", "1"]
    both = {"cgi_no_new_privs": True, "cgi_limit_core": 0, "cgi_helper": ".cgi=/bin/sh -e"}
    assert site.run("/cgi-bin/a.cgi", options=both).split() == ["NoNewPrivs:", "1"]


@pytest.mark.parametrize(
    ("text", "mode", "status"),
    [
        ("#!/bin/sh\n", 0o644, 403),
        ("#!/nowhere/sh\n", 0o755, 500),
        ("#!\n", 0o755, 500),
        ("echo no #! line\n", 0o755, 500),
        ("", 0o755, 500),
    ],
)
def test_what_cannot_start_is_said_by_its_status_also_behind_limits(
    site: Site, text: str, mode: int, status: int
) -> None:
    """A tool before the script would only exit, or hand a text without ``#!`` to a shell."""
    file = site.script("a.cgi", "#!")
    file.write_text(text)
    file.chmod(mode)
    assert site.refused("/cgi-bin/a.cgi", cgi_no_new_privs=True).status == status


def test_a_tool_that_is_missing_never_means_that_a_script_runs_without(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.script("a.cgi")
    monkeypatch.setattr(confinement, "DEFAULT_PATH", str(site.folder))
    error = site.refused("/cgi-bin/a.cgi", cgi_limit_core=0, cgi_no_new_privs=True)
    assert (error.status, error.remedy) == (500, "install util-linux: no prlimit and setpriv")
    assert site.asked("/cgi-bin/a.cgi").path.endswith(b"/a.cgi")


# ---- as its owner -------------------------------------------------------------------------------------------

NOBODY = pwd.getpwnam("nobody")


def give(user: pwd.struct_passwd, *files: Path) -> None:
    for file in files:
        os.chown(file, user.pw_uid, user.pw_gid)


@as_root
def test_cgi_run_as_owner(public: Site) -> None:
    """`cgi-run-as-owner`: the user that owns the script, with their groups and nobody else's."""
    give(NOBODY, public.script("sub/a.cgi", "id -u; id -g; id -G; grep CapEff /proc/self/status", 0o700).parent)
    give(NOBODY, public.folder / "cgi" / "sub" / "a.cgi")
    said = public.run("/cgi-bin/sub/a.cgi", "w", {"cgi_run_as_owner": True, "cgi_limit_core": 0}).split()
    groups = {str(group) for group in os.getgrouplist("nobody", NOBODY.pw_gid)}
    assert said[:2] == [str(NOBODY.pw_uid), str(NOBODY.pw_gid)]
    assert set(said[2:-2]) == groups
    assert said[-2:] == ["CapEff:", "0000000000000000"]


def behind_a_link(file: Path) -> None:
    file.parent.rename(file.parent.parent / "y")
    file.parent.symlink_to("y")


def a_link(file: Path) -> None:
    file.rename(file.parent / "x")
    file.symlink_to("x")


def of_nobody_known(file: Path) -> None:
    os.chown(file.parent, 0, 0)
    os.chown(file, 4000000, 4000000)


@as_root
@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda file: file.chmod(0o775), "written by others"),
        (lambda file: file.chmod(0o757), "written by others"),
        (lambda file: file.chmod(0o4755), "setuid"),
        (lambda file: file.chmod(0o2755), "setuid"),
        (lambda file: os.chown(file, 0, 0), "user of the system"),
        (of_nobody_known, "no user"),
        (lambda file: file.parent.chmod(0o775), "others may write"),
        (lambda file: file.parent.parent.chmod(0o777), "others may write"),
        (lambda file: os.chown(file.parent, 1234, 1234), "others may write"),
        (a_link, "is a link"),
        (behind_a_link, "the link"),
    ],
)
def test_what_suexec_refuses(public: Site, spoil: Any, word: str) -> None:
    file = public.script("sub/a.cgi")
    give(NOBODY, file, file.parent)
    spoil(file)
    error = public.refused("/cgi-bin/sub/a.cgi", cgi_run_as_owner=True)
    assert (error.status, word in error.remedy) == (403, True), error.remedy


@as_root
def test_the_owner_needs_the_right_to_execute_it(public: Site) -> None:
    file = public.script("a.cgi", mode=0o611)
    give(NOBODY, file)
    error = public.refused("/cgi-bin/a.cgi", cgi_run_as_owner=True)
    assert (error.status, error.remedy) == (403, f"chmod +x {file}")


# ---- warm ---------------------------------------------------------------------------------------------------


def test_cgi_warm(site: Site) -> None:
    """`cgi-warm` is for a mount or for all; what a helper or a tool starts is executed."""
    site.script("a.py")
    options: dict[str, Any] = {"cgi": ["/w=cgi", "/c=cgi"], "cgi_warm": "/w=python"}
    assert site.asked("/w/a.py", options=options).warm
    assert not site.asked("/c/a.py", options=options).warm
    assert not site.asked("/w/a.py", options=options | {"cgi_helper": ".py=/bin/sh"}).warm
    assert not site.asked("/w/a.py", options=options | {"cgi_limit_core": 0}).warm
    assert site.asked("/c/a.py", options=options | {"cgi_warm": "python"}).warm


def test_a_warm_mount_with_limits_is_warned_of() -> None:
    report = Report("app.toml", lambda _: 0)
    table = {"socket": "x.sock", "cgi": "cgi", "cgi-warm": "python", "cgi-limit-cpu": 3, "cgi-run-as-owner": True}
    vassal_from(table, report, name="v", base="/srv")
    (warning,) = report.warnings
    assert (warning.key, warning.remedy) == ("cgi-warm", "remove it, or cgi-limit-cpu, cgi-run-as-owner")


# ---- without effect -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("cgi-close-stdin-on-eof", True),
        ("cgi-path-info", True),
        ("cgi-optimize", True),
        ("cgi-optimized", True),
        ("cgi-async-max-attempts", 5),
    ],
)
def test_what_has_no_meaning_here_is_accepted_and_explained(option: str, value: object) -> None:
    report = Report("app.toml", lambda _: 0)
    vassal_from({"socket": "x.sock", "cgi": "cgi", option: value}, report, name="v", base="/srv")
    report.raise_problems()
    (warning,) = report.warnings
    assert (warning.key, warning.found) == (option, "accepted, has no effect")
    assert warning.remedy
