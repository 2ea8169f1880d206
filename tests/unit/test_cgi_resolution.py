"""From a URL to a script: the handler of modifier 9 on real folders, with every way to lead it astray."""

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyemperor.actors.handlers.cgi import handler
from pyemperor.actors.script import Script
from pyemperor.actors.wires import Request
from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.options import Helper, Mount, Vassal


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "cgi"
    for name in ("a.cgi", "sub/b.cgi", "sub/index.cgi", ".hidden.cgi", "c d.cgi", "plain"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("#!/bin/sh\n")
    return folder


def answer(root: Path, path: str, *, query: str = "", **options: Any) -> Script | bytes:
    mounts = options.pop("cgi", (Mount("/cgi-bin", str(root)),))
    variables = {b"REQUEST_METHOD": b"GET", b"PATH_INFO": os.fsencode(path), b"QUERY_STRING": query.encode()}
    return handler(Vassal(name="v", cgi=mounts, **options))(Request(9, 0, variables, 0))


def found(root: Path, path: str, **options: Any) -> tuple[str, str, str]:
    """File, SCRIPT_NAME and PATH_INFO."""
    script = answer(root, path, **options)
    assert isinstance(script, Script)
    environment = script.environment
    assert environment[b"SCRIPT_FILENAME"] == script.arguments[-1]
    assert script.directory == os.path.dirname(script.arguments[-1])
    assert script.name.encode() == environment[b"SCRIPT_NAME"]
    file = os.path.relpath(os.fsdecode(script.arguments[-1]), root)
    return file, environment[b"SCRIPT_NAME"].decode(), environment.get(b"PATH_INFO", b"").decode()


def refused(root: Path, path: str, **options: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        answer(root, path, **options)
    assert str(root) not in str(caught.value)  # the client learns nothing of our folders
    return caught.value


# ---- where a script is ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "file", "name", "info"),
    [
        ("/cgi-bin/a.cgi", "a.cgi", "/cgi-bin/a.cgi", ""),
        ("/cgi-bin/a.cgi/", "a.cgi", "/cgi-bin/a.cgi", "/"),
        ("/cgi-bin/a.cgi/x/y", "a.cgi", "/cgi-bin/a.cgi", "/x/y"),
        ("/cgi-bin/a.cgi/b.cgi", "a.cgi", "/cgi-bin/a.cgi", "/b.cgi"),
        ("/cgi-bin/sub/b.cgi/x", "sub/b.cgi", "/cgi-bin/sub/b.cgi", "/x"),
        ("/cgi-bin//a.cgi", "a.cgi", "/cgi-bin//a.cgi", ""),
        ("/cgi-bin/c d.cgi", "c d.cgi", "/cgi-bin/c d.cgi", ""),
        ("/cgi-bin/.hidden.cgi", ".hidden.cgi", "/cgi-bin/.hidden.cgi", ""),
        ("/cgi-bin/plain", "plain", "/cgi-bin/plain", ""),
    ],
)
def test_scripts(root: Path, path: str, file: str, name: str, info: str) -> None:
    assert found(root, path) == (file, name, info)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/cgi-bin/missing", 404),
        ("/cgi-bin/missing/a.cgi", 404),
        ("/cgi-bin", 404),
        ("/cgi-bin/", 404),
        ("/cgi-bin/sub", 404),
        ("/cgi-bin/sub/", 404),
        ("/cgi-binX/a.cgi", 404),
        ("/elsewhere", 404),
        ("/cgi-bin/../cgi/a.cgi", 400),
        ("/cgi-bin/sub/../a.cgi", 400),
        ("/cgi-bin/" + "x" * 300, 414),
        ("/cgi-bin/" + "y/" * 2100, 414),
    ],
)
def test_no_script(root: Path, path: str, status: int) -> None:
    assert refused(root, path).status == status


def test_a_path_too_long_for_the_system_is_missing(root: Path) -> None:
    deep = "/" + "/".join(["d" * 250] * 16 + ["d" * 50])
    assert len(f"/cgi-bin{deep}") < os.pathconf("/", "PC_PATH_MAX") < len(f"{root}{deep}")
    assert refused(root, f"/cgi-bin{deep}").status == 404


def test_a_path_that_is_no_text(root: Path) -> None:
    (root / os.fsdecode(b"\xff.cgi")).write_text("")
    script = answer(root, os.fsdecode(b"/cgi-bin/\xff.cgi"))
    assert isinstance(script, Script)
    assert script.environment[b"SCRIPT_NAME"] == b"/cgi-bin/\xff.cgi"
    assert script.name == "/cgi-bin/\\xff.cgi"


def test_a_missing_mount_is_a_404_that_says_where_it_looked(root: Path) -> None:
    gone = root / "gone"
    assert str(gone) in refused(root, "/cgi-bin/x", cgi=(Mount("/cgi-bin", str(gone)),)).remedy


def test_no_mount_names_those_there_are(root: Path) -> None:
    error = refused(root, "/x", cgi=(Mount("/cgi-bin", str(root)), Mount("/git", str(root))))
    assert "/cgi-bin, /git" in error.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_a_folder_without_access(root: Path) -> None:
    (root / "sub").chmod(0)
    try:
        error = refused(root, "/cgi-bin/sub/b.cgi")
    finally:
        (root / "sub").chmod(0o755)
    assert (error.status, "Permission denied" in error.remedy) == (403, True)


def test_a_fifo_is_no_script(root: Path) -> None:
    os.mkfifo(root / "fifo")
    assert refused(root, "/cgi-bin/fifo").status == 404


# ---- mounts -----------------------------------------------------------------------------------------------


def test_the_default_mount(root: Path) -> None:
    assert found(root, "/a.cgi/x", cgi=(Mount("", str(root)),)) == ("a.cgi", "/a.cgi", "/x")


@pytest.mark.parametrize(("path", "info"), [("/one", ""), ("/one/", "/"), ("/one/a/b", "/a/b")])
def test_a_file_mount(root: Path, path: str, info: str) -> None:
    assert found(root, path, cgi=(Mount("/one", f"{root}/a.cgi"),)) == ("a.cgi", "/one", info)


def test_a_mount_may_end_with_a_slash(root: Path) -> None:
    script = answer(root, "/cgi-bin/a.cgi", cgi=(Mount("/cgi-bin", f"{root}/"),))
    assert isinstance(script, Script)
    assert script.path == os.fsencode(root / "a.cgi")
    assert script.environment[b"DOCUMENT_ROOT"] == os.fsencode(root)


def test_everything_may_be_mounted(root: Path) -> None:
    (root / "away").symlink_to("/bin")
    everything = (Mount("/all", "/"),)
    for path, name in ((f"{root}/sub/b.cgi", "sub/b.cgi"), (f"{root}/away/sh", "away/sh")):
        assert found(root, f"/all{path}/i", cgi=everything) == (name, f"/all{path}", "/i")
    assert refused(root, "/all/", cgi=everything, cgi_index=("none.cgi",)).status == 404


def test_the_longest_mount_wins(root: Path) -> None:
    mounts = (Mount("/cgi-bin", str(root)), Mount("/cgi-bin/deep", str(root / "sub")))
    assert found(root, "/cgi-bin/deep/b.cgi", cgi=mounts)[0] == "sub/b.cgi"


# ---- links ------------------------------------------------------------------------------------------------


def test_a_link_inside_keeps_the_name_of_the_url(root: Path) -> None:
    (root / "link.cgi").symlink_to("sub/b.cgi")
    (root / "linked").symlink_to("sub")
    assert found(root, "/cgi-bin/link.cgi/x") == ("link.cgi", "/cgi-bin/link.cgi", "/x")
    assert found(root, "/cgi-bin/linked/b.cgi") == ("linked/b.cgi", "/cgi-bin/linked/b.cgi", "")


@pytest.mark.parametrize("target", ["/bin/sh", "../cgi-evil/x.cgi", "../secret.cgi"])
def test_a_link_out_is_refused(root: Path, target: str) -> None:
    evil = root.parent / "cgi-evil"
    evil.mkdir()
    (evil / "x.cgi").write_text("")
    (root.parent / "secret.cgi").write_text("")
    (root / "out.cgi").symlink_to(target)
    error = refused(root, "/cgi-bin/out.cgi")
    assert error.status == 403
    assert "leads to" in error.remedy


def test_a_linked_folder_that_leads_out_is_refused(root: Path) -> None:
    (root / "bin").symlink_to("/bin")
    assert refused(root, "/cgi-bin/bin/sh").status == 403


def test_an_index_that_leads_out_is_refused(root: Path) -> None:
    (root / "index.cgi").symlink_to("/bin/sh")
    assert refused(root, "/cgi-bin/", cgi_index=("index.cgi",)).status == 403


@pytest.mark.parametrize("target", ["nowhere", "loop.cgi"])
def test_a_link_to_nothing(root: Path, target: str) -> None:
    (root / "loop.cgi").symlink_to(target)
    assert refused(root, "/cgi-bin/loop.cgi").status == 404


def test_the_mount_itself_may_be_a_link_and_be_turned(root: Path) -> None:
    current = root.parent / "current"
    current.symlink_to(root)
    (root / "link.cgi").symlink_to("a.cgi")
    serve = handler(Vassal(name="v", cgi=(Mount("/cgi-bin", str(current)),)))
    request = Request(9, 0, {b"REQUEST_METHOD": b"GET", b"PATH_INFO": b"/cgi-bin/link.cgi"}, 0)
    assert isinstance(serve(request), Script)
    release = root.parent / "release-2"
    root.rename(release)
    current.unlink()
    current.symlink_to(release)
    assert isinstance(serve(request), Script)


@pytest.mark.parametrize("target", ["sub/b.cgi", "/bin/sh", "nowhere", "sub"])
def test_a_mount_without_links(root: Path, target: str) -> None:
    """cgi-symlinks = deny: what a link leads to plays no part, so that nothing is learnt of it."""
    (root / "link").symlink_to(target)
    error = refused(root, "/cgi-bin/link/b.cgi", cgi_symlinks="deny")
    assert (error.status, "cgi-symlinks = deny" in error.remedy) == (403, True)


def owned_by_another(root: Path, name: str) -> Path:
    """A folder with a link of ours and what it leads to, which is somebody else's."""
    target = root / "sub"
    link = root / name
    link.symlink_to(target)
    if os.geteuid() == 0:
        os.lchown(link, 65534, 65534)
        return target
    link.unlink()
    link.symlink_to("/bin")
    return Path(os.path.realpath("/bin"))


def test_a_link_whose_target_is_somebody_elses(root: Path) -> None:
    """cgi-symlinks = owner, as Apache's SymLinksIfOwnerMatch."""
    safe = owned_by_another(root, "link")
    (root / "ours.cgi").symlink_to("sub/b.cgi")
    (root / "chained").symlink_to("link")
    script = "b.cgi" if safe == root / "sub" else "sh"
    options = {"cgi_safe": (str(safe),), "cgi_symlinks": "owner"}
    assert found(root, "/cgi-bin/ours.cgi", **options)[0] == "ours.cgi"
    for name in ("link", "chained"):
        error = refused(root, f"/cgi-bin/{name}/{script}", **options)
        assert (error.status, "another owner" in error.remedy) == (403, True)
        assert found(root, f"/cgi-bin/{name}/{script}", cgi_safe=(str(safe),))[0] == f"{name}/{script}"


def test_links_to_safe_folders(root: Path) -> None:
    """cgi-safe: with a boundary, unlike uWSGI's, and also for a link within the folder."""
    safe, namesake = root.parent / "safe", root.parent / "safe-not"
    for folder in (safe, namesake):
        folder.mkdir()
        (folder / "x.cgi").touch()
    (safe / "back.cgi").symlink_to(root / "a.cgi")
    (safe / "out.cgi").symlink_to(namesake / "x.cgi")
    (root / "share").symlink_to(safe)
    (root / "x.cgi").symlink_to(safe / "x.cgi")
    (root / "not.cgi").symlink_to(namesake / "x.cgi")
    options = {"cgi_safe": (str(safe),)}
    assert found(root, "/cgi-bin/x.cgi/i", **options) == ("x.cgi", "/cgi-bin/x.cgi", "/i")
    assert found(root, "/cgi-bin/share/x.cgi", **options)[1] == "/cgi-bin/share/x.cgi"
    assert found(root, "/cgi-bin/share/back.cgi", **options)[1] == "/cgi-bin/share/back.cgi"
    for path in ("/cgi-bin/not.cgi", "/cgi-bin/share/out.cgi"):
        error = refused(root, path, **options)
        assert (error.status, "cgi-safe" in error.remedy) == (403, True)


def test_links_that_are_not_looked_at(root: Path) -> None:
    """cgi-dontresolve: they lead anywhere, and every part of the path may be one."""
    (root / "sh").symlink_to("/bin/sh")
    (root / "bin").symlink_to("/bin")
    assert found(root, "/cgi-bin/sh/x", cgi_dontresolve=True) == ("sh", "/cgi-bin/sh", "/x")
    assert found(root, "/cgi-bin/bin/sh", cgi_dontresolve=True) == ("bin/sh", "/cgi-bin/bin/sh", "")
    assert refused(root, "/cgi-bin/bin/none", cgi_dontresolve=True).status == 404
    one = (Mount("/one", str(root / "sh")),)
    assert found(root, "/one/x", cgi=one, cgi_dontresolve=True) == ("sh", "/one", "/x")


def test_what_a_mount_is_may_change(root: Path) -> None:
    """A file becomes a folder of that name, and back: nothing of it is remembered as true."""
    place = root / "thing"
    serve = handler(Vassal(name="v", cgi=(Mount("/t", str(place)),)))
    request = Request(9, 0, {b"REQUEST_METHOD": b"GET", b"PATH_INFO": b"/t/x.cgi"}, 0)
    for _ in range(2):
        place.write_text("")
        script = serve(request)
        assert isinstance(script, Script)
        assert script.environment[b"PATH_INFO"] == b"/x.cgi"
        place.unlink()
        place.mkdir()
        (place / "x.cgi").touch()
        script = serve(request)
        assert isinstance(script, Script)
        assert b"PATH_INFO" not in script.environment
        shutil.rmtree(place)


def test_no_descriptor_is_left_behind(root: Path) -> None:
    for name, target in {"in": "sub", "out": "/bin", "loop": "loop", "gone": "x/y"}.items():
        (root / name).symlink_to(target)
    before = os.listdir("/proc/self/fd")
    for name in ("in/b.cgi", "out/sh", "loop", "gone", "sub/b.cgi", "sub/none", "sub/b.cgi/x"):
        for policy in ("deny", "owner", "follow"):
            with contextlib.suppress(RequestError):
                answer(root, f"/cgi-bin/{name}", cgi_symlinks=policy)
    assert os.listdir("/proc/self/fd") == before


def test_without_a_descriptor_to_spare(root: Path) -> None:
    """That is no reason to say that a script is missing: it is there in a moment."""
    (root / "link").symlink_to("sub")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        assert refused(root, "/cgi-bin/sub/b.cgi").status == 503
        os.close(taken.pop())
        assert refused(root, "/cgi-bin/link/b.cgi").status == 503
        assert found(root, "/cgi-bin/a.cgi")[0] == "a.cgi"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
    assert found(root, "/cgi-bin/link/b.cgi")[0] == "link/b.cgi"


_WITHOUT_OPENAT2 = """
import ctypes, os, struct, sys
from pyemperor.actors.resolution import Resolver
libc = ctypes.CDLL(None, use_errno=True)
# Load the number of the system call; for openat2 the answer is EPERM (or what is asked for), else all is allowed.
code = b"".join(struct.pack("HBBI", *line) for line in (
    (0x20, 0, 0, 0), (0x15, 0, 1, 437), (0x06, 0, 0, 0x50000 | int(sys.argv[1])), (0x06, 0, 0, 0x7FFF0000)))
program = struct.pack("HxxxxxxP", 4, ctypes.addressof(keep := ctypes.create_string_buffer(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
resolver = Resolver("deny")
for path in sys.argv[3:]:
    place = resolver.find(os.fsencode(sys.argv[2]), os.fsencode(path))
    print(place and place.script.decode())
assert libc.syscall(437, -1, b".", b"", 0) == -1 and ctypes.get_errno() == int(sys.argv[1])
"""


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_a_system_without_openat2(root: Path, error: int) -> None:
    """A seccomp filter (a container's, systemd's) or an old kernel does not know it: nothing changes."""
    asked = ["/sub/b.cgi/x", "/sub/none", "/sub/b.cgi"]
    command = [sys.executable, "-P", "-c", _WITHOUT_OPENAT2, str(error), str(root), *asked]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.stdout.split() == ["/sub/b.cgi", "None", "/sub/b.cgi"], said.stderr


# ---- options ----------------------------------------------------------------------------------------------


def test_an_index(root: Path) -> None:
    assert found(root, "/cgi-bin/sub/", cgi_index=("index.pl", "index.cgi")) == (
        "sub/index.cgi",
        "/cgi-bin/sub/index.cgi",
        "",
    )
    assert refused(root, "/cgi-bin/", cgi_index=("index.pl",)).status == 404
    assert refused(root, "/cgi-bin/sub/none", cgi_index=("index.cgi",)).status == 404


@pytest.mark.parametrize(
    ("path", "query", "location"),
    [
        ("/cgi-bin/sub", "", b"/cgi-bin/sub/"),
        ("/cgi-bin/sub", "a=b%20&c", b"/cgi-bin/sub/?a=b%20&c"),
        ("/cgi-bin/sub", "a\r\nSet-Cookie: x", b"/cgi-bin/sub/?a%0D%0ASet-Cookie:%20x"),
        ("/cgi-bin/ümlaut x", "", b"/cgi-bin/%C3%BCmlaut%20x/"),
    ],
)
def test_a_folder_without_its_slash_is_sent_there(root: Path, path: str, query: str, location: bytes) -> None:
    (root / "ümlaut x").mkdir()
    (root / "ümlaut x" / "index.cgi").write_text("")
    response = answer(root, path, query=query, cgi_index=("index.cgi",))
    assert isinstance(response, bytes)
    assert response.startswith(b"HTTP/1.1 301 Moved Permanently\r\n")
    assert b"\r\nLocation: " + location + b"\r\n" in response
    assert b"\r\nSet-Cookie" not in response


def test_the_way_to_a_folder_does_not_lead_to_another_host(root: Path) -> None:
    response = answer(root, "//sub", cgi=(Mount("", str(root)),), cgi_index=("index.cgi",))
    assert isinstance(response, bytes)
    assert b"\r\nLocation: /sub/\r\n" in response


def test_allowed_endings(root: Path) -> None:
    assert found(root, "/cgi-bin/a.cgi", cgi_allowed_ext=(".pl", ".cgi"))[0] == "a.cgi"
    error = refused(root, "/cgi-bin/plain", cgi_allowed_ext=(".pl", ".cgi"))
    assert (error.status, ".pl, .cgi" in error.remedy) == (403, True)
    one = (Mount("/one", f"{root}/plain"),)
    assert refused(root, "/one", cgi=one, cgi_allowed_ext=(".cgi",)).status == 403


def test_helpers_are_found_in_the_path_of_the_scripts(root: Path, tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    helpers = (Helper(".cgi", ("tool", "-x", "y z")), Helper("n", ("/usr/bin/other",)))
    env = (("PATH", f"/nowhere:{tool.parent}"),)
    script = answer(root, "/cgi-bin/a.cgi", cgi_helper=helpers, env=env)
    assert isinstance(script, Script)
    file = os.fsencode(root / "a.cgi")
    assert script.path == os.fsencode(tool)
    assert script.arguments == (os.fsencode(tool), b"-x", b"y z", file)
    assert script.environment[b"SCRIPT_FILENAME"] == file
    other = answer(root, "/cgi-bin/plain", cgi_helper=helpers, env=env)
    assert isinstance(other, Script)
    assert other.path == b"/usr/bin/other"


def test_credentials(root: Path) -> None:
    variables = {b"REQUEST_METHOD": b"GET", b"PATH_INFO": b"/cgi-bin/a.cgi", b"HTTP_AUTHORIZATION": b"x"}
    for pass_auth in (False, True):
        serve = handler(Vassal(name="v", cgi=(Mount("/cgi-bin", str(root)),), cgi_pass_auth=pass_auth))
        script = serve(Request(9, 0, variables, 0))
        assert isinstance(script, Script)
        assert (b"HTTP_AUTHORIZATION" in script.environment) == pass_auth


def test_the_time_limit(root: Path) -> None:
    script = answer(root, "/cgi-bin/a.cgi", cgi_timeout=7.5)
    assert isinstance(script, Script)
    assert script.terms.timeout == 7.5
