"""From a URL to a script: the handler of modifier 9 on real folders, with every way to lead it astray."""

import os
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
    assert script.timeout == 7.5
