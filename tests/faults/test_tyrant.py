"""emperor-tyrant: each vassal is its file's owner, and may nothing that its owner may not."""

import os
import pwd
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyemperor.actors.linux import become_subreaper
from tests.faults.rig import PATIENCE, Server, await_end
from tests.support import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs vassals as others")

Rule = Callable[..., Server]

WHO = """\
#!/bin/sh
printf 'Content-Type: text/plain\\n\\n'
grep -E '^(Uid|Gid|Groups):' /proc/self/status
"""
TEXT = """\
[uwsgi]
http-socket = ../{name}.http
cgi = /cgi=../cgi
"""


class Tenant:
    """A user that every Debian has."""

    def __init__(self, name: str) -> None:
        found = pwd.getpwnam(name)
        self.name, self.uid, self.gid = name, found.pw_uid, found.pw_gid

    def owns(self, path: Path) -> Path:
        os.chown(path, self.uid, self.gid, follow_symlinks=False)
        return path


WWW, NOBODY = Tenant("www-data"), Tenant("nobody")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter and write to, with a script and a folder of vassals that only root may."""
    path = Path(tempfile.mkdtemp(prefix="pyemperor-tyrant-"))
    for name in ("cgi", "vassals"):
        (path / name).mkdir(mode=0o755)
    (path / "cgi" / "who.cgi").write_text(WHO)
    (path / "cgi" / "who.cgi").chmod(0o755)
    path.chmod(0o1777)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def rule(folder: Path) -> Iterator[Rule]:
    """Start a tyrant over ``folder/vassals``, with more options of the Emperor."""
    become_subreaper()
    servers: list[Server] = []

    def start(more: str = "") -> Server:
        options = 'log-style = "json"\ncontrol-socket = "none"\nemperor = ["vassals"]\nemperor-tyrant = true\n'
        (folder / "s.toml").write_text(f"[emperor]\n{options}{more}")
        servers.append(Server(folder))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def vassal(folder: Path, tenant: Tenant, name: str = "app", more: str = "") -> Path:
    """Put a vassal file of ``tenant`` into the folder in one step."""
    new = folder / f"{name}.new"
    new.write_text(TEXT.format(name=name) + more)
    new.chmod(0o600)
    return tenant.owns(new).rename(folder / "vassals" / f"{name}.ini")


def credentials(pid: int | str) -> dict[str, list[int]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = (line.split(":", 1) for line in lines)
    return {key: list(map(int, value.split())) for key, value in fields if key in ("Uid", "Gid", "Groups")}


def expected(tenant: Tenant, *groups: int) -> dict[str, list[int]]:
    return {"Uid": [tenant.uid] * 4, "Gid": [tenant.gid] * 4, "Groups": list(groups)}


def served_as(server: Server, name: str = "app") -> dict[str, list[int]]:
    """Whom a script of the vassal runs as."""
    status, body = server.get("who.cgi", name)
    assert status == 200
    fields = (line.split(":", 1) for line in body.splitlines())
    return {key: list(map(int, value.split())) for key, value in fields}


# ---- who they are -------------------------------------------------------------------------------------------


def test_each_vassal_is_the_owner_and_group_of_its_file(folder: Path, rule: Rule) -> None:
    vassal(folder, WWW, "app")
    vassal(folder, NOBODY, "other")
    vassal(folder, NOBODY, "logs", f"logto = {folder}/logs.log\n")
    server = rule()
    server.ready("master:app", "master:other")
    for tenant, name in ((WWW, "app"), (NOBODY, "other")):
        for actor in (f"master:{name}", f"worker:{name}/1"):
            server.ready(actor)
            assert credentials(server.pid(actor)) == expected(tenant), actor
        assert served_as(server, name) == expected(tenant)
        found = (folder / f"{name}.http").stat()
        assert (found.st_uid, found.st_gid) == (tenant.uid, tenant.gid)
    server.ready("master:logs")
    assert served_as(server, "logs") == expected(NOBODY)
    assert (folder / "logs.log").stat().st_uid == NOBODY.uid
    os.kill(server.pid("emperor"), signal.SIGUSR1)  # which makes log files anew
    server.until(actor="master:logs", event="status")
    assert credentials(server.pid("emperor"))["Uid"] == [0] * 4, "it was nobody for a moment only"
    assert server.stop() == 0
    assert not (folder / "app.http").exists()


def test_supplementary_groups_are_the_users_where_they_are_wanted(folder: Path, rule: Rule) -> None:
    tenant = next(
        (Tenant(one.pw_name) for one in pwd.getpwall()
         if one.pw_uid and one.pw_gid and len(set(os.getgrouplist(one.pw_name, one.pw_gid))) > 1),
        WWW,
    )  # fmt: skip
    vassal(folder, tenant)
    server = rule("emperor-tyrant-initgroups = true\n")
    server.ready("master:app", "worker:app/1")
    groups = sorted(set(os.getgrouplist(tenant.name, tenant.gid)))
    assert credentials(server.pid("worker:app/1")) == expected(tenant, *groups)
    assert served_as(server) == expected(tenant, *groups)
    assert server.stop() == 0


def test_a_file_that_changes_hands_stops_its_vassal_and_starts_it_as_the_other(folder: Path, rule: Rule) -> None:
    file = vassal(folder, WWW)
    server = rule()
    server.ready("master:app")
    before = server.pid("master:app")
    server.mark()
    NOBODY.owns(file)
    server.until(actor="master:app", event="owner")
    server.until(actor="master:app", event="exit")
    server.ready("master:app")
    assert server.pid("master:app") != before
    assert credentials(server.pid("master:app")) == expected(NOBODY)
    assert served_as(server) == expected(NOBODY)
    assert (folder / "app.http").stat().st_uid == NOBODY.uid
    assert not server.since(level="ERROR")
    assert server.stop() == 0


def test_one_that_sleeps_changes_hands_as_well(folder: Path, rule: Rule) -> None:
    file = vassal(folder, WWW, more="on-demand = true\n")
    server = rule()
    server.until(actor="master:app", state="SLEEPING")
    assert (folder / "app.http").stat().st_uid == WWW.uid
    server.mark()
    NOBODY.owns(file)
    server.until(actor="master:app", state="SLEEPING")
    assert (folder / "app.http").stat().st_uid == NOBODY.uid
    assert served_as(server) == expected(NOBODY)
    assert server.stop() == 0


def test_what_a_vassal_wants_done_as_root_is_done_as_its_owner(folder: Path, rule: Rule) -> None:
    word = f"id -u > {folder}/{{}}.id"
    options = {
        "exec-asap": word.format("asap"),
        "exec-as-root": word.format("root"),
        "exec-as-user": word.format("user"),
        "attach-daemon": word.format("daemon") + "; exec sleep 1000",
    }
    vassal(folder, WWW, more="".join(f"{key} = {value}\n" for key, value in options.items()))
    server = rule(f'exec-as-vassal = "{word.format("emperor")}"\n')
    server.ready("master:app", "daemon:app/1")
    assert served_as(server) == expected(WWW)
    until(folder, lambda: (folder / "daemon.id").exists() and (folder / "daemon.id").read_text() != "")
    said = {name: (folder / f"{name}.id").read_text() for name in ("asap", "root", "user", "daemon", "emperor")}
    theirs = f"{WWW.uid}\n"
    assert said == {"asap": theirs, "root": theirs, "user": theirs, "daemon": theirs, "emperor": "0\n"}
    assert server.stop() == 0


# ---- who they are not ---------------------------------------------------------------------------------------


def test_nothing_runs_as_root(folder: Path, rule: Rule) -> None:
    file = vassal(folder, WWW)
    os.chown(file, 0, 0)
    server = rule()
    words = server.until(actor="master:app", event="refused")["message"]
    assert "belongs to the user root, and emperor-tyrant runs no vassal as root (chown USER:GROUP" in words
    os.chown(file, WWW.uid, 0)
    server.until(lambda entry: "the group root" in entry["message"], actor="master:app", event="refused")
    server.mark()
    WWW.owns(file)
    server.ready("master:app")
    pid = server.pid("master:app")
    os.chown(file, 0, 0)
    server.until(actor="master:app", event="refused")
    await_end(pid, PATIENCE)
    until(folder, lambda: not list(folder.glob("*.http")))
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("more", "refused"),
    [
        ("uid = nobody\n", "uid: nobody is not whom the file belongs to, number 33"),
        ("uid = 0\n", "uid: 0 is not whom the file belongs to"),
        ("gid = root\n", "gid: root is not whom the file belongs to"),
        ("add-gid = root\n", "add-gid: emperor-tyrant gives nobody further groups but the owner's own"),
        ("uid = www-data\ngid = www-data\n", ""),
    ],
)
def test_who_says_otherwise_is_refused(folder: Path, rule: Rule, more: str, refused: str) -> None:
    vassal(folder, WWW, more=more)
    server = rule()
    if refused:
        assert refused in server.until(actor="master:app", event="refused")["message"]
    else:
        server.ready("master:app")
        assert served_as(server) == expected(WWW)
    assert server.stop() == 0


def test_what_everybody_may_write_is_refused(folder: Path, rule: Rule) -> None:
    vassal(folder, WWW).chmod(0o666)
    server = rule()
    assert "(chmod o-w " in server.until(actor="master:app", event="refused")["message"]
    assert server.stop() == 0


# ---- what they may not --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "refused"),
    [
        ("include = {secret}\n", "cannot be read: Permission denied"),
        ("env = SECRET=@({secret})\n", "Permission denied"),
        ("http-socket = {closed}/a.sock\n", "Permission denied"),
        ("http-socket = 127.0.0.1:{port}\n", "Permission denied"),
        ("chown-socket = nobody\n", "Operation not permitted"),
        ("chown-socket = www-data:daemon\n", "Operation not permitted"),
    ],
)
def test_what_its_owner_may_not_the_emperor_does_not_do_for_it(
    folder: Path, rule: Rule, more: str, refused: str
) -> None:
    (folder / "closed").mkdir(mode=0o700)
    secret = folder / "closed" / "secret.ini"
    secret.write_text("[uwsgi]\nenv = WORD=hidden\n")
    vassal(folder, WWW, more=more.format(closed=folder / "closed", secret=secret, port=_privileged_port()))
    server = rule()
    message = server.until(actor="master:app", event="refused")["message"]
    assert refused in message
    assert "hidden" not in message
    assert not list(folder.rglob("*.sock"))
    assert server.stop() == 0


def _privileged_port() -> int:
    least = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if least < 2:
        pytest.skip("here everybody may listen at every port")
    return least - 1


def test_a_folder_that_its_owner_may_not_enter_is_no_place_to_work(folder: Path, rule: Rule) -> None:
    (folder / "closed").mkdir(mode=0o700)
    vassal(folder, WWW, more=f"chdir = {folder}/closed\n")
    server = rule()
    server.until(lambda entry: "closed: Permission denied" in entry["message"], actor="master:app")
    assert server.stop() == 0


def test_a_priority_that_its_owner_may_not_have_is_none(folder: Path, rule: Rule) -> None:
    vassal(folder, WWW, more="prio = -5\n")
    server = rule()
    server.until(lambda entry: "prio: -5: Permission denied" in entry["message"], actor="master:app")
    server.until(actor="master:app", state="EXILED")
    socket = folder / "app.http"
    until(folder, lambda: not socket.exists())
    vassal(folder, WWW)
    server.ready("master:app")
    assert served_as(server) == expected(WWW)
    assert (socket.stat().st_uid, socket.stat().st_gid) == (WWW.uid, WWW.gid)
    assert server.stop() == 0


def test_a_log_file_is_opened_as_its_owner(folder: Path, rule: Rule) -> None:
    precious = folder / "precious"
    precious.write_text("root's\n")
    vassal(folder, WWW, more=f"logto = {precious}\nlogfile-chmod = 666\n")
    server = rule()
    server.ready("master:app")
    assert server.get("who.cgi")[0] == 200
    server.until(lambda entry: "Permission denied; logging goes on here" in entry["message"])
    assert precious.read_text() == "root's\n"
    assert stat.S_IMODE(precious.stat().st_mode) == 0o644
    assert server.stop() == 0


def test_a_file_that_its_owner_may_not_see_is_not_looked_at_for_them(folder: Path, rule: Rule) -> None:
    """Or a reload would tell what is there, and when it changes."""
    (folder / "closed").mkdir(mode=0o700)
    secret, open_to_all = folder / "closed" / "secret", folder / "open"
    for file in (secret, open_to_all):
        file.touch()
    vassal(folder, WWW, more=f"touch-reload = {secret}\n")
    vassal(folder, NOBODY, "other", more=f"touch-reload = {open_to_all}\n")
    server = rule()
    server.ready("master:app", "master:other")
    server.mark()
    heard = f"{open_to_all} was touched, for vassal other"
    for moment in range(100):
        for file in (secret, open_to_all):
            os.utime(file, (moment, moment))
        server.watch(0.1)
        if server.since(message=heard):
            break
    server.ready("master:other")  # anew
    assert not [entry for entry in server.since() if str(secret) in entry["message"]]
    assert server.stop() == 0


# ---- links --------------------------------------------------------------------------------------------------


def test_a_link_is_its_targets_owner_or_with_nofollow_its_own(folder: Path, rule: Rule) -> None:
    target = folder / "target"
    target.write_text(TEXT.format(name="app").replace("../", f"{folder}/"))
    WWW.owns(target)
    link = folder / "vassals" / "app.ini"
    link.symlink_to(target)
    NOBODY.owns(link)
    server = rule()
    server.ready("master:app")
    assert served_as(server) == expected(WWW)
    assert server.stop() == 0
    server = rule("emperor-tyrant-nofollow = true\n")
    server.ready("master:app")
    assert served_as(server) == expected(NOBODY)
    server.mark()
    WWW.owns(link)
    server.until(actor="master:app", event="owner")
    server.ready("master:app")
    assert served_as(server) == expected(WWW)
    server.mark()
    target.chmod(0o600)
    NOBODY.owns(link)  # who may not read it
    assert "Permission denied" in server.until(actor="master:app", event="refused")["message"]
    assert server.stop() == 0


# ---- who may rule so ----------------------------------------------------------------------------------------


def test_a_tyrant_must_be_root(folder: Path, rule: Rule) -> None:
    server = rule('uid = "nobody"\n')
    server.until(lambda entry: "emperor-tyrant: only root can run each vassal" in entry["message"])
    assert server.over() != 0
