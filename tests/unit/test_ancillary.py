"""What users write for daemons, cron and hooks: how it is read, and what is refused with a remedy."""

import pytest

from pyemperor.protocol.cron import Cron, Crontab, cron, cron2, unique_cron
from pyemperor.protocol.daemons import Daemon, attached, controlling, described, smart, smart_foreground
from pyemperor.protocol.hooks import Step, Touch, command, hook, program, steps, touch_command, touch_hook
from pyemperor.protocol.options import EmperorOptions, Vassal

# ---- daemons ------------------------------------------------------------------------------------------------


def test_daemons_as_users_write_them() -> None:
    assert attached(" memcached -u nobody ", "/v") == Daemon("memcached -u nobody")
    assert controlling("x", "/v") == Daemon("x", control=True)
    assert smart("x.pid x -d", "/v") == Daemon("x -d", pidfile="/v/x.pid", foreground=False)
    assert smart_foreground("/run/x.pid x", "/v") == Daemon("x", pidfile="/run/x.pid")


def test_a_daemon_described_by_keys() -> None:
    text = r"exec=celery -Q a\,b,touch=one;/two,stopsignal=15,reloadsignal=hup,chdir=app,freq=3,control"
    assert described(text, "/v") == Daemon(
        "celery -Q a,b", touch=("/v/one", "/two"), reload_signal=1, chdir="/v/app", control=True
    )
    assert described("cmd=x,pidfile=p", "/v") == Daemon("x", pidfile="/v/p", foreground=False)
    assert described("cmd=x,pidfile=p,daemonize=1", "/v").foreground


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("pidfile=x", "no command"),
        ("cmd=x,uid=root", "uid and gid"),
        ("cmd=x,ns_pid=1", "systemd"),
        ("cmd=x,tuch=y", "touch"),
        ("cmd=x,stopsignal=SIGFOO", "SIGTERM"),
        ("cmd=x,stopsignal=65", "a number"),
        ("cmd=x,cmd=y", "twice"),
        ("cmd=x,exec=y", "twice"),
    ],
)
def test_keys_of_a_daemon_that_are_refused(text: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        described(text, "/v")


# ---- hooks --------------------------------------------------------------------------------------------------


def test_hooks_as_users_write_them() -> None:
    assert hook("exec:echo a:b", "/v") == Step("exec", "echo a:b")
    assert hook("!exec:login secret", "/v") == Step("exec", "login secret", secret=True)
    assert hook("log:hello", "/v") == hook("print:hello", "/v") == Step("print", "hello")
    assert hook("creat:file", "/v") == hook("create:file", "/v") == Step("create", "/v/file")
    assert hook("write:/tmp/x a b", "/v").file_and_text == ("/tmp/x", "a b")
    assert hook("exit:", "/v") == hook("exit", "/v") == Step("exit", "")
    assert hook("unix_signal:15 gracefully_kill_them_all", "/v").verb == "unix_signal"
    assert command(" a  b ") == Step("exec", "a  b")
    assert program("bin/x", "/v") == Step("program", "/v/bin/x")
    assert program("x", "/v") == Step("program", "x")
    assert touch_command("f echo x", "/v") == Touch("/v/f", Step("exec", "echo x"))
    assert touch_hook("f mkdir:d", "/v") == Touch("/v/f", Step("mkdir", "/v/d"))


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("chdir:/x", "the option chdir"),
        ("putenv:A=b", "the option env"),
        ("mount:tmpfs none /x", "systemd"),
        ("call:function", "exec:PROGRAM"),
        ("exce:x", "did you mean exec"),
        ("exec:", "write exec:COMMAND"),
        ("write:file", "write:FILE TEXT"),
        ("mkdir:", "mkdir:FILE"),
        ("exit:now", "exit:CODE"),
        ("unix_signal:10 something", "SIGHUP reloads"),
    ],
)
def test_hooks_that_are_refused(text: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        hook(text, "/v")


def test_a_secret_is_not_shown() -> None:
    hooks = hook("!exec:login secret"), hook("exec:true")
    vassal = Vassal("v", hook_as_user=hooks, exec_as_user=(command("x"),))
    assert list(map(str, steps(vassal, "user"))) == [
        "hook-as-user = exec:***", "hook-as-user = exec:true", "exec-as-user = x",
    ]  # fmt: skip


def test_what_the_emperor_does_before_a_vassal_has_uwsgis_order() -> None:
    options = EmperorOptions(
        exec_as_vassal=(command("a"),), hook_as_vassal=(hook("exec:b"),), vassals_start_hook=(program("c"),)
    )
    assert [step.argument for step in options.before_vassals] == ["c", "b", "a"]


# ---- cron ---------------------------------------------------------------------------------------------------


def test_crons_as_users_write_them() -> None:
    assert cron("59 2 -1 -1 -1 /usr/bin/backup  --all") == Cron("/usr/bin/backup  --all", 59, 2)
    assert unique_cron("-3 -1 -1 -1 -1 x") == Cron("x", -3, unique=True)
    assert cron2("minute=39,hour=23,month=-1,week=5,unique=1,harakiri=2m x y") == Cron(
        "x y", 39, 23, week=5, unique=True, harakiri=120
    )
    assert cron2("x --key=value") == Cron("x --key=value")


@pytest.mark.parametrize(
    "text", ["* * * * * x", "1 2 3 4 5", "60 0 -1 -1 -1 x", "0 24 -1 -1 -1 x", "0 0 -1 -1 8 x", "x"]
)
def test_schedules_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|goes to"):
        cron(text)


def test_keys_of_cron2_that_are_refused() -> None:
    cases = {"hour=3": "command", "legion=x y": "legion", "min=3 x": "minute", "day=40 x": "31"}
    for text, remedy in cases.items():
        with pytest.raises(ValueError, match=remedy):
            cron2(text)


def test_an_appointment_is_kept_once_when_the_clock_jumps() -> None:
    """Spring: 02:00 becomes 03:00. Autumn: 03:00 becomes 02:00."""
    at, every = cron("30 2 -1 -1 -1 x"), cron("-10 -1 -1 -1 -1 x")
    spring = Crontab([at, every], 2 * 60 - 1)
    assert spring.due(3 * 60) == [0, 1]
    assert spring.due(3 * 60 + 30) == [1]
    autumn = Crontab([at, every], 2 * 60 + 29)
    assert autumn.due(2 * 60 + 30) == [0, 1]
    assert autumn.due(2 * 60 + 59) == []
    assert autumn.due(2 * 60) == [1]
    assert autumn.due(2 * 60 + 30) == [1]


def test_a_clock_that_was_set_by_hours_goes_on_from_there() -> None:
    at = cron("30 2 -1 -1 -1 x")
    table = Crontab([at], 0)
    assert table.due(12 * 60) == []
    assert table.due(2 * 60 + 30) == [0], "the clock was put back by half a day"


def test_a_machine_that_is_busy_misses_nothing() -> None:
    table = Crontab([cron("-2 -1 -1 -1 -1 x")], 9)
    assert table.due(11) == [0], "minute 10, a little late"
    assert table.due(11) == []
