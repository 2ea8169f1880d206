"""Programs beside the workers and hooks, on real processes: who runs, who comes back, and that nothing is left."""

import os
import pwd
import re
import signal
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pyemperor.actors.linux import children, living_descendants
from pyemperor.protocol.control import AttendantReport
from tests.conformance.capital import capital
from tests.faults.rig import PATIENCE, Serve, Server, await_end, ended

QUICK = """
processes = 1
[vassal.supervision]
mercy = 3
backoff = { initial = "10ms", max = "10ms" }
"""
#: Goes to the background as daemon(3) does, and writes its pidfile; SIGTERM does not end it.
DAEMON = """\
#!/usr/bin/env python3
import os, signal, sys
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("daemon", os.getpid(), flush=True)
with open(sys.argv[1] + ".new", "w") as file:
    print(os.getpid(), file=file)
os.rename(sys.argv[1] + ".new", sys.argv[1])
while True:
    signal.pause()
"""


@pytest.fixture
def daemon(folder: Path) -> Path:
    file = folder / "daemon.py"
    file.write_text(textwrap.dedent(DAEMON))
    file.chmod(0o755)
    return file


def said(server: Server, actor: str, words: str) -> list[str]:
    """The words after ``words`` in the first line of its output that begins so."""
    entry = server.until(lambda e: e["message"].startswith(words), actor=actor, event="output")
    return str(entry["message"]).removeprefix(words).split()


def vassal(options: str) -> str:
    return options + QUICK


# ---- daemons ------------------------------------------------------------------------------------------------


def test_a_daemon_has_a_clean_slate_and_its_words_are_in_the_log(serve: Serve) -> None:
    command = "echo $A $$; ls /proc/self/fd; exec sleep 1000"
    server = serve({"app": vassal(f'env = ["A=b"]\nattach-daemon = "{command}"')})
    server.ready("master:app", "daemon:app/1")
    (pid,) = said(server, "daemon:app/1", "b ")
    assert os.getsid(int(pid)) == os.getpgid(int(pid)) == int(pid)
    assert int(pid) in [child for child, _ in children(server.pid("daemon:app/1"))]
    server.until(lambda entry: entry["message"] == "3", event="output")
    inherited = {line for entry in server.since(event="output") if (line := entry["message"]).isdigit()}
    assert inherited == {"0", "1", "2", "3"}, "3 is how ls looks"
    entry = server.until(actor="daemon:app/1", event="output")
    assert entry["vassal"] == "app"
    assert server.stop() == 0


def test_programs_beside_the_workers_have_the_limit_of_files_that_the_emperor_was_given(serve: Serve) -> None:
    """The Emperor and its fork server raise theirs."""
    say = "echo limit $(ulimit -n)"
    options = f"""
    exec-as-root = "{say}"
    hook-master-start = "exec:{say}"
    attach-daemon = "{say}; exec sleep 1000"
    """
    server = serve({"app": vassal(options)}, f'exec-as-vassal = "{say}"', files=64)
    assert said(server, "daemon:app/1", "limit ") == ["64"]
    hooks = [entry["actor"] for entry in server.since(event="output", message="limit 64")]
    assert sorted(hooks) == ["daemon:app/1", "hook:app/root", "hook:app/root", "hook:app/user"]
    assert server.stop() == 0


def test_the_status_of_a_vassal_lists_its_attendants(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    os.mkfifo(hook)
    options = f"""\
attach-daemon = exec sleep 1000
attach-daemon = exec false
hook-touch = {tmp_path}/touch print:touched
exec-as-user = echo $$ > {hook}
hook-accepting1-once = exec:cat {hook}
"""
    with capital(tmp_path) as emperor:

        def attendants(true: Callable[[dict[str, AttendantReport]], bool]) -> dict[str, AttendantReport]:
            """Ask again and again until it is so."""
            end = time.monotonic() + PATIENCE
            while True:
                found = {one.name: one for one in emperor.status("shop").attendants}
                if true(found):
                    return found
                assert time.monotonic() < end, found

        emperor.start("shop")
        assert emperor.status("shop").attendants == ()
        emperor.write("shop", options)
        starting = attendants(lambda found: "READY" in [one.state for one in found.values()])
        assert list(starting) == ["hook/user"]
        assert "hook: shop/user" in Path(f"/proc/{starting['hook/user'].pid}/cmdline").read_text()
        hook.read_text()
        found = attendants(lambda found: len(found) == 4 and found["daemon/2"].state == "BACKOFF")
        assert sorted(found) == ["daemon/1", "daemon/2", "hook/first-worker-once", "touch"]
        assert found["daemon/2"].pid == 0
        assert re.fullmatch(r"exec false: exit code 1; next start [\d.]+ s later", found["daemon/2"].reason)
        daemon = found["daemon/1"].pid
        assert daemon in living_descendants([emperor.status("shop").pids[0], emperor.emperor.pid])
        assert "daemon: shop/1" in Path(f"/proc/{daemon}/cmdline").read_text()
        hook.write_text("done")
        attendants(lambda found: "hook/first-worker-once" not in found)
        os.kill(daemon, signal.SIGKILL)
        again = attendants(lambda found: found["daemon/1"].pid not in (0, daemon))
        assert again["daemon/1"].restarts == 1
        os.kill(emperor.status("shop").pids[0], signal.SIGKILL)
        attendants(lambda found: list(found) == ["hook/user"])  # of its successor, which begins anew


def test_a_killed_daemon_is_started_again(serve: Serve) -> None:
    server = serve({"app": vassal('attach-daemon = "echo pid $$; exec sleep 1000"')})
    (first,) = said(server, "daemon:app/1", "pid ")
    server.mark()
    os.kill(int(first), signal.SIGKILL)
    gone = server.until(actor="daemon:app/1", event="exit")
    assert gone["reason"] == "echo pid $$; exec sleep 1000: killed by signal 9"
    (second,) = said(server, "daemon:app/1", "pid ")
    assert second != first
    assert server.stop() == 0


def test_a_daemon_that_keeps_failing_harms_nobody(serve: Serve) -> None:
    server = serve({"app": vassal('attach-daemon = ["exit 3", "echo pid $$; exec sleep 1000"]')})
    server.ready("master:app")
    (pid,) = said(server, "daemon:app/2", "pid ")
    cursed = server.until(actor="daemon:app/1", state="CURSED")
    assert "next start in" in cursed["reason"]
    assert server.get() == (200, "hello \n")
    assert not ended(int(pid))
    assert not server.since(actor="master:app", event="exit")
    assert server.stop() == 0


def test_a_program_that_goes_to_the_background_is_told_what_to_write(serve: Serve, daemon: Path) -> None:
    server = serve({"app": vassal(f'attach-daemon = "{daemon} {daemon}.pid"')})
    gone = server.until(actor="daemon:app/1", event="exit")
    assert "exit code 0; it went to the background" in gone["reason"]
    assert "smart-attach-daemon" in gone["reason"]
    assert server.stop() == 0


@pytest.mark.parametrize("how", ["stop", "kill master", "kill attendant", "kill emperor"])
def test_nothing_is_left_of_a_daemon_that_hides_and_ignores_sigterm(
    serve: Serve, daemon: Path, how: str
) -> None:
    server = serve({"app": vassal(f'smart-attach-daemon = "{daemon}.pid {daemon} {daemon}.pid"')})
    server.ready("master:app")
    (pid,) = said(server, "daemon:app/1", "daemon ")
    server.until(lambda e: "runs in the background" in e["message"], actor="daemon:app/1")
    assert int(pid) in living_descendants([server.pid("daemon:app/1")])
    if how == "stop":
        assert server.stop() == 0
        assert ended(int(pid))
        return
    victim = {"kill master": "master:app", "kill attendant": "daemon:app/1", "kill emperor": "emperor"}[how]
    server.signal(victim, signal.SIGKILL)
    await_end(int(pid), 10)
    if how == "kill emperor":
        server.over(10)
    else:
        (another,) = said(server, "daemon:app/1", "daemon ")
        assert another != pid
        assert server.stop() == 0


def test_a_smart_daemon_is_watched_by_its_pidfile(serve: Serve, daemon: Path) -> None:
    server = serve({"app": vassal(f'smart-attach-daemon = "{daemon}.pid {daemon} {daemon}.pid"')})
    (pid,) = said(server, "daemon:app/1", "daemon ")
    server.until(lambda e: f"runs in the background, pid {pid}" in e["message"], actor="daemon:app/1")
    server.mark()
    os.kill(int(pid), signal.SIGKILL)
    (another,) = said(server, "daemon:app/1", "daemon ")
    assert another != pid
    assert server.stop() == 0


def test_a_smart_daemon_never_runs_twice_not_in_a_reload_either(serve: Serve, folder: Path) -> None:
    server = serve({"app": vassal('smart-attach-daemon2 = "d.pid echo pid $$; exec sleep 1000"')})
    server.ready("master:app")
    (pid,) = said(server, "daemon:app/1", "pid ")
    server.until(lambda e: "started" in e["message"], actor="daemon:app/1")
    assert (folder / "d.pid").read_text() == f"{pid}\n"
    server.signal("emperor", signal.SIGHUP)
    server.until(lambda e: f"runs already, says {folder}/d.pid: pid {pid}" in e["message"])
    (another,) = said(server, "daemon:app/1", "pid ")
    assert ended(int(pid)), "the one started when the other had ended"
    assert another != pid
    assert server.stop() == 0


def test_attach_daemon2_has_its_signals_its_folder_and_files_to_touch(serve: Serve, folder: Path) -> None:
    (folder / "here").mkdir()
    (folder / "touched").touch()
    command = 'trap "echo got usr1; exit" USR1; echo in $PWD; while :; do sleep 0.05; done'
    options = f"attach-daemon2 = '''cmd={command},chdir=here,touch=touched,stopsignal=USR1'''"
    server = serve({"app": vassal(options)})
    server.ready("master:app")
    assert said(server, "daemon:app/1", "in ") == [str(folder / "here")]
    server.mark()
    os.utime(folder / "touched", (1, 1))
    server.until(lambda e: "was touched" in e["message"], actor="daemon:app/1")
    assert said(server, "daemon:app/1", "got ") == ["usr1"]
    assert said(server, "daemon:app/1", "in ") == [str(folder / "here")]
    server.mark()
    assert server.stop() == 0
    assert server.since(actor="daemon:app/1", message="got usr1")


def test_a_vassal_ends_with_its_control_daemon(serve: Serve) -> None:
    server = serve({"app": vassal('attach-control-daemon = "echo pid $$; exec sleep 1000"'), "other": QUICK})
    server.ready("master:app", "master:other")
    (pid,) = said(server, "daemon:app/1", "pid ")
    server.mark()
    os.kill(int(pid), signal.SIGKILL)
    gone = server.until(actor="master:app", event="exit")
    assert "its control daemon has ended" in gone["reason"]
    server.ready("master:app")
    assert not server.since(actor="master:other", event="state")
    assert server.stop() == 0


def test_requests_that_are_finished_still_find_the_daemon(serve: Serve) -> None:
    server = serve({"app": vassal('attach-daemon = "echo pid $$; exec sleep 1000"')})
    server.ready("master:app")
    (pid,) = said(server, "daemon:app/1", "pid ")
    held, _ = server.hold()
    server.signal("emperor", signal.SIGTERM)
    server.until(actor="worker:app/1", state="STOPPING")
    assert not ended(int(pid))
    server.release()
    assert held.answer()[0] == 200
    assert server.over() == 0


# ---- hooks of the start -------------------------------------------------------------------------------------


def test_phases_of_a_start_run_in_uwsgis_order_and_the_end_is_last(serve: Serve, folder: Path) -> None:
    options = """
    exec-post-app = "echo post-app >> order"
    exec-as-user = "echo as-user >> order"
    hook-as-user = "appendn:order hook-as-user"
    exec-asap = "echo asap >> order"
    exec-as-root = "echo as-root >> order"
    hook-master-start = "exec:test ! -e app.ran && echo master-start >> order"
    hook-accepting1 = "appendn:order accepting1"
    exec-as-user-atexit = "echo atexit >> order"
    """
    emperor = 'vassals-start-hook = "./hook"\nexec-as-vassal = "echo as-vassal >> order"'
    (folder / "hook").write_text('#!/bin/sh\necho "start-hook $1" >> order\nexit 5\n')
    (folder / "hook").chmod(0o755)
    server = serve({"app": vassal(textwrap.dedent(options))}, emperor)
    server.ready("master:app")
    server.until(actor="hook:app/first-worker", state="ABSENT")
    assert server.stop() == 0
    assert (folder / "order").read_text().splitlines() == [
        "start-hook app", "as-vassal", "asap", "as-root", "hook-as-user", "as-user", "post-app", "master-start",
        "accepting1", "atexit",
    ]  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_root_hooks_are_the_emperors_user_and_the_others_the_vassals(serve: Serve, folder: Path) -> None:
    folder.chmod(0o777)
    for parent in (folder.parent, folder.parent.parent):
        parent.chmod(0o755)
    options = """
    uid = "nobody"
    exec-as-root = "echo root $(id -u)"
    exec-as-user = "echo user $(id -un)"
    attach-daemon = "echo daemon $(id -un); exec sleep 1000"
    chmod-socket = "666"
    """
    server = serve({"app": vassal(textwrap.dedent(options))})
    assert said(server, "hook:app/root", "root ") == ["0"]
    assert said(server, "hook:app/user", "user ") == ["nobody"]
    assert said(server, "daemon:app/1", "daemon ") == ["nobody"]
    server.ready("master:app")
    assert server.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
@pytest.mark.parametrize("more", ["", "no-initgroups = true"])
def test_further_groups_and_the_umask_are_the_vassals(serve: Serve, more: str) -> None:
    user = pwd.getpwnam("www-data")
    groups = {1, 4, *([user.pw_gid] if more else os.getgrouplist(user.pw_name, user.pw_gid))}
    options = f'uid = "www-data"\nadd-gid = ["daemon", "4"]\numask = "027"\n{more}\n'
    server = serve({"app": vassal(options + 'attach-daemon = "echo pid $$; exec sleep 1000"')})
    server.ready("master:app", "worker:app/1")
    (daemon,) = said(server, "daemon:app/1", "pid ")
    for pid in (server.pid("master:app"), server.pid("worker:app/1"), daemon):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = {key: value.split() for key, value in (line.split(":", 1) for line in lines)}
        assert {int(group) for group in status["Groups"]} == groups
        assert status["Umask"] == ["0027"]
        assert status["Uid"] == [str(user.pw_uid)] * 4
    assert server.stop() == 0


def test_a_start_hook_that_fails_or_is_missing_is_only_logged(serve: Serve) -> None:
    server = serve({"app": vassal('hook-as-user = ["safeexec:exit 3", "print:still here"]')},
                   'vassals-start-hook = ["./missing", "/bin/false"]')  # fmt: skip
    server.until(lambda e: "/missing: No such file" in e["message"], actor="hook:app/root", level="WARNING")
    server.until(lambda e: "/bin/false: exit code 1" in e["message"], actor="hook:app/root", level="WARNING")
    server.until(lambda e: "safeexec:exit 3: exit code 3" in e["message"], level="WARNING")
    server.until(message="still here", actor="hook:app/user")
    server.ready("master:app")
    assert server.stop() == 0


def test_what_a_hook_does_without_a_program(serve: Serve, folder: Path) -> None:
    (folder / "old").touch()
    os.mkfifo(folder / "fifo")
    reader = os.open(folder / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    hooks = "mkdir:a/b", "create:a/empty", "write:a/x one", "appendn:a/x  two", "rm:old", "writefifo:fifo hello"
    options = f"hook-as-user = {[*hooks, 'unix_signal:15 gracefully_kill_them_all', 'unlink:missing']}"
    server = serve({"app": vassal(options)})
    gone = server.until(actor="hook:app/user", event="exit")
    assert gone["reason"] == f"hook-as-user = unlink:{folder}/missing: No such file or directory"
    assert (folder / "a/b").is_dir()
    assert (folder / "a/empty").read_bytes() == b""
    assert (folder / "a/x").read_text() == "one two\n"
    assert not (folder / "old").exists()
    assert os.read(reader, 10) == b"hello"
    os.close(reader)
    server.until(actor="master:app", state="BACKOFF")
    assert server.stop() == 0


@pytest.mark.parametrize("option", ["exec-as-root", "exec-as-user", "hook-pre-app", "hook-asap"])
def test_a_hook_that_fails_fails_the_start_and_says_how(serve: Serve, option: str) -> None:
    what = "exec:exit 7" if option.startswith("hook") else "exit 7"
    server = serve({"bad": vassal(f'{option} = "{what}"'), "app": QUICK})
    server.ready("master:app")
    gone = server.until(actor="master:bad", event="exit")
    assert gone["reason"] == f"{option} = {what}: exit code 7"
    server.until(actor="master:bad", state="BACKOFF")
    assert server.get() == (200, "hello \n")
    assert not server.since(actor="worker:bad/1")
    assert server.stop() == 0


def test_a_hook_that_hangs_ends_with_its_limit_and_nobody_waits(serve: Serve) -> None:
    options = 'exec-as-user = "echo pid $$; setsid sleep 1000 & sleep 1000"\nhook-timeout = "300ms"'
    server = serve({"bad": vassal(options), "app": QUICK}, 'emperor-required-heartbeat = "500ms"')
    (pid,) = said(server, "hook:bad/user", "pid ")
    server.ready("master:app")
    assert server.get() == (200, "hello \n")
    gone = server.until(actor="master:bad", event="exit")
    assert "exec-as-user = echo pid" in gone["reason"]
    assert "it did not end within 0.3 s" in gone["reason"]
    await_end(int(pid))
    assert not server.since(actor="master:app", event="probe.sent")
    assert server.stop() == 0


def test_a_vassal_that_hangs_in_its_start_can_be_stopped_at_once(serve: Serve) -> None:
    server = serve({"bad": 'exec-as-root = "echo pid $$; exec sleep 1000"\nreload-mercy = 100'})
    (pid,) = said(server, "hook:bad/root", "pid ")
    assert server.stop() == 0, "after its mercy, or the limit of its hook"
    assert ended(int(pid))


def test_a_reload_whose_hook_fails_leaves_the_old_one_serving(serve: Serve, folder: Path) -> None:
    server = serve({"app": vassal('exec-as-user = "test ! -e broken"')})
    server.ready("master:app")
    (folder / "broken").touch()
    server.signal("emperor", signal.SIGHUP)
    refused = server.until(event="refused")
    assert "exec-as-user = test ! -e broken: exit code 1" in refused["message"]
    assert "generation 1 serves on" in refused["message"]
    assert server.get() == (200, "hello \n")
    assert server.stop() == 0


def test_the_emperors_own_hook_comes_before_all_vassals(serve: Serve, folder: Path) -> None:
    (folder / "vassals").mkdir()
    (folder / "vassals" / "other.ini").write_text("[uwsgi]\nhttp-socket = ../other.http\ncgi = /cgi=../cgi\n")
    os.mkfifo(folder / "go")
    hook = 'emperor = "vassals"\nhook-emperor-start = ["exec:echo pid $$; read line < go", "appendn:order start"]'
    server = serve({"app": vassal('exec-as-user = "echo app >> order"')}, hook)
    said(server, "hook:emperor/start", "pid ")
    server.watch(0.3)  # in which the imperial monitor has found the other one
    assert not server.since(actor="master:app", event="state")
    assert not server.since(actor="master:other", event="state")
    with open(folder / "go", "w") as go:
        go.write("\n")
    server.ready("master:app", "master:other")
    assert (folder / "order").read_text().split() == ["start", "app"]
    assert server.stop() == 0


def test_an_emperor_whose_own_hook_fails_ends(serve: Serve) -> None:
    server = serve(emperor='hook-emperor-start = ["exec:exit 3", "print:never"]')
    assert server.over() == 1
    entry = server.until(lambda e: "hook-emperor-start = exec:exit 3: exit code 3" in e["message"], level="ERROR")
    assert entry["actor"] == "emperor"
    assert not server.since(actor="master:app", event="state")
    assert not server.since(message="never")


def test_an_emperor_whose_own_hook_hangs_can_be_stopped(serve: Serve) -> None:
    server = serve(emperor='hook-emperor-start = "exec:echo pid $$; exec sleep 1000"')
    (pid,) = said(server, "hook:emperor/start", "pid ")
    assert server.stop() == 0
    assert ended(int(pid))
    assert not server.since(actor="master:app", event="state")


def test_the_emperor_says_farewell_to_a_vassal_once_and_not_at_a_reload(serve: Serve, folder: Path) -> None:
    (folder / "stop").write_text("#!/bin/sh\necho stopped $1\nexit 3\n")
    (folder / "stop").chmod(0o755)
    server = serve({"app": QUICK, "other": QUICK}, 'vassals-stop-hook = "./stop"')
    server.ready("master:app", "master:other")
    server.signal("emperor", signal.SIGHUP)
    for name in ("app", "other"):
        server.until(actor=f"master:{name}", event="reloaded")
        server.until(actor=f"master:{name}", event="exit")
    assert not server.since(actor="hook:app/ended")
    server.mark()
    assert server.stop() == 0, "as uWSGI, whose Emperor forgets to stop its vassals then"
    for name in ("app", "other"):
        assert len(server.since(actor=f"hook:{name}/ended", message=f"stopped {name}")) == 1


def test_a_farewell_that_hangs_holds_up_nobody_else(serve: Serve) -> None:
    server = serve({"app": f'hook-timeout = "500ms"\n{QUICK}'}, 'vassals-stop-hook = "./hang"')
    (server.folder / "hang").write_text("#!/bin/sh\necho pid $$\nexec sleep 1000\n")
    (server.folder / "hang").chmod(0o755)
    server.ready("master:app")
    server.signal("emperor", signal.SIGTERM)
    (pid,) = said(server, "hook:app/ended", "pid ")
    assert server.over() == 0
    assert ended(int(pid))


@pytest.mark.parametrize(("number", "word"), [(signal.SIGTERM, "stop"), (signal.SIGKILL, "lost")])
def test_hooks_of_what_the_emperor_says(serve: Serve, folder: Path, number: int, word: str) -> None:
    options = 'hook-emperor-stop = "appendn:said stop"\nhook-emperor-lost = "appendn:said lost"'
    server = serve({"app": vassal(options)})
    server.ready("master:app")
    server.signal("emperor", number)
    server.over()
    assert (folder / "said").read_text() == f"{word}\n"


def test_a_reload_is_told_to_the_old_generation(serve: Serve, folder: Path) -> None:
    options = 'hook-emperor-reload = "appendn:said reload"\nhook-emperor-stop = "appendn:said stop"'
    server = serve({"app": vassal(options)})
    server.ready("master:app")
    server.signal("emperor", signal.SIGHUP)
    server.until(actor="master:app", event="reloaded")
    server.until(actor="master:app", event="exit")
    assert sorted((folder / "said").read_text().split()) == ["reload", "stop"], "each is a process of its own"
    assert server.stop() == 0
    assert (folder / "said").read_text().split()[2:] == ["stop"]


def test_attendants_outlive_the_fork_server(serve: Serve) -> None:
    server = serve({"app": vassal('attach-daemon = "echo pid $$; exec sleep 1000"')})
    server.ready("master:app")
    (pid,) = said(server, "daemon:app/1", "pid ")
    server.signal("fork-server", signal.SIGKILL)
    server.until(actor="fork-server", event="restart")
    assert not ended(int(pid))
    server.mark()
    os.kill(int(pid), signal.SIGKILL)
    (another,) = said(server, "daemon:app/1", "pid ")
    assert another != pid
    assert server.stop() == 0


def test_a_file_that_is_touched_runs_its_command(serve: Serve, folder: Path) -> None:
    (folder / "touched").touch()
    options = 'touch-exec = ["touched echo one; exit 1", "touched echo two"]\nhook-touch = "other print:new"'
    server = serve({"app": vassal(options)})
    server.ready("touch:app")
    os.utime(folder / "touched", (1, 1))
    assert said(server, "touch:app", "one") == []
    assert said(server, "touch:app", "two") == []
    server.until(lambda e: "exit code 1" in e["message"], actor="touch:app")
    (folder / "other").touch()
    server.until(lambda e: e["message"] == "new", actor="touch:app")
    assert server.stop() == 0


# ---- cron ---------------------------------------------------------------------------------------------------


#: Seconds until a minute begins; where a server takes longer to start, the next minute has to do.
_SOON = 6


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the clock on the wall of what is started to shortly before 12:30."""
    offset = (12 * 3600 + 30 * 60 - _SOON - int(time.time())) % 86400
    if offset >= 43200:
        offset -= 86400
    hours, rest = divmod(abs(offset), 3600)
    monkeypatch.setenv("TZ", f"XXX{'-' if offset >= 0 else '+'}{hours:02}:{rest // 60:02}:{rest % 60:02}")


@pytest.mark.timeout(150)
@pytest.mark.usefixtures("soon")
def test_cron_runs_what_is_due_and_ends_what_takes_too_long(serve: Serve) -> None:
    options = """
    cron = ["-1 12 -1 -1 -1 echo cron $(date +%H:%M:%S)", "-1 13 -1 -1 -1 echo never"]
    cron2 = ["minute=-1,harakiri=1 echo pid $$; exec sleep 1000"]
    unique-cron = "-1 -1 -1 -1 -1 exit 4"
    """
    server = serve({"app": vassal(textwrap.dedent(options))})
    server.ready("master:app")
    server.until(actor="cron:app/1", state="READY", seconds=75)
    assert said(server, "cron:app/1", "cron 12:3")[0][2:] < "10", "as the minute begins"
    (pid,) = said(server, "cron:app/3", "pid ")
    failed = server.until(actor="cron:app/4", event="exit")
    assert failed["reason"] == "cron = exit 4: exit code 4"
    late = server.until(actor="cron:app/3", event="exit", seconds=PATIENCE)
    assert "it did not end within 1 s" in late["reason"]
    assert ended(int(pid))
    assert not server.since(actor="cron:app/2")
    assert server.get() == (200, "hello \n")
    assert server.stop() == 0
