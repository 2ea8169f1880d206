"""The supervisor for pykka actors, on real actors of plain classes and real threads."""

import doctest
import errno
import functools
import heapq
import itertools
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pykka
import pytest

import pyemperor.actors.supervision
import pyemperor.actors.supervision.restart
import pyemperor.actors.supervisor
from pyemperor.actors.scheduler import ThreadScheduler
from pyemperor.actors.supervision import (
    SHUTDOWN,
    Absolve,
    Backoff,
    ChildSpec,
    ExitKind,
    ExitReason,
    Flags,
    Ok,
    Phase,
    Refused,
    Report,
    ReportKind,
    Restart,
    RestartChild,
    Shutdown,
    StartChild,
    Strategy,
    TerminateChild,
    Waiting,
    Why,
)
from pyemperor.actors.supervisor import (
    BootFailed,
    CountChildren,
    Ignore,
    StartsLater,
    SupervisorActor,
    WhereIs,
    WhichChildren,
)

PATIENCE = 10
IMMEDIATE = Backoff(initial=0)
PROGRESS, CHILD_TERMINATED = ReportKind.PROGRESS, ReportKind.CHILD_TERMINATED


class Plain(pykka.ThreadingActor):
    """A plain pykka actor: callables told or asked are called with it."""

    def __init__(self, name: str = "", log: "queue.Queue[str] | None" = None) -> None:
        super().__init__()
        self.name = name
        self.log = log

    def on_receive(self, message: Any) -> Any:
        return message(self) if callable(message) else message

    def on_stop(self) -> None:
        if self.log:
            self.log.put(self.name)


def fail(actor: Plain) -> None:
    raise ValueError("broken")


class ManualScheduler:
    """A clock whose hands the test moves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._cancelled: set[int] = set()

    def now(self) -> float:
        return self._now

    def at(self, when: float, call: Callable[[], None]) -> Callable[[], None]:
        with self._lock:
            number = next(self._order)
            heapq.heappush(self._heap, (when, number, call))
        return lambda: self._cancelled.add(number)

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds
            while self._heap and self._heap[0][0] <= self._now:
                _, number, call = heapq.heappop(self._heap)
                if number not in self._cancelled:
                    call()


class Tree:
    """One supervisor under test, with its clock and its reports."""

    def __init__(self, flags: Flags, *children: ChildSpec) -> None:
        self.scheduler = ManualScheduler()
        self.reports: queue.Queue[Report | Waiting] = queue.Queue()
        self.ref = SupervisorActor.boot(
            flags,
            children,
            report=self.reports.put,
            scheduler=self.scheduler,
            random=lambda: 0.5,
            timeout=PATIENCE,
        )

    def ask(self, request: object) -> Any:
        answer = self.ref.ask(request, timeout=PATIENCE)
        return answer.get(timeout=PATIENCE) if isinstance(answer, pykka.Future) else answer

    def where(self, id: str) -> pykka.ActorRef[Any]:
        ref = self.ask(WhereIs(id))
        assert isinstance(ref, pykka.ActorRef)
        return ref

    def until(self, kind: ReportKind | type[Waiting], id: str) -> Report | Waiting:
        """Wait for a report, skipping others."""
        while True:
            report = self.reports.get(timeout=PATIENCE)
            found = Waiting if isinstance(report, Waiting) else report.kind
            if report.id == id and found is kind:
                return report

    def gone(self) -> bool:
        return self.ref.actor_stopped.wait(PATIENCE)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    pykka.ActorRegistry.stop_all(timeout=PATIENCE)
    for thread in set(threading.enumerate()) - before:
        if not thread.daemon:
            thread.join(PATIENCE)
            assert not thread.is_alive(), thread
    assert pykka.ActorRegistry.get_all() == []


@pytest.mark.parametrize(
    "module",
    [pyemperor.actors.supervision, pyemperor.actors.supervision.restart, pyemperor.actors.supervisor],
)
def test_examples(module: ModuleType) -> None:
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


# ---- starting ---------------------------------------------------------------------------------------


class Made(Plain):
    @classmethod
    def make(cls, name: str) -> "pykka.ActorRef[Made]":
        return cls.start(f"made {name}")


@pytest.mark.parametrize(
    ("start", "args", "name"),
    [
        (Plain, ("a",), "a"),
        (Plain.start, ("a",), "a"),
        (functools.partial(Plain, name="a"), (), "a"),
        (functools.partial(Plain.start, "a"), (), "a"),
        (functools.partial(functools.partial(Plain, "a"), log=None), (), "a"),
        (Made.make, ("a",), "made a"),
    ],
)
def test_ways_to_name_an_actor(start: object, args: tuple[object, ...], name: str) -> None:
    tree = Tree(Flags(), ChildSpec("child", start, args))
    assert tree.where("child").ask(lambda actor: actor.name) == name


def test_the_class_is_left_as_it_is() -> None:
    """The started actor is one of the class in every way that pykka knows."""
    tree = Tree(Flags(), ChildSpec("child", Plain))
    ref = tree.where("child")
    assert issubclass(ref.actor_class, Plain)
    assert ref.actor_class.__name__ == "Plain"
    assert pykka.ActorRegistry.get_by_class(Plain) == [ref]
    assert ref.proxy().name.get(timeout=PATIENCE) == ""


@pytest.mark.parametrize("start", [None, "Plain", lambda: Plain.start(), int])
def test_start_without_a_class(start: object) -> None:
    with pytest.raises(BootFailed, match="actor class") as failed:
        Tree(Flags(), ChildSpec("child", start))
    assert failed.value.reason is not None
    assert failed.value.reason.kind is ExitKind.CONFIG


class FailsToStart(Plain):
    """Fails as often as its list says, in the way that it says."""

    def __init__(self, failures: list[tuple[str, BaseException]]) -> None:
        super().__init__()
        self.failures = failures
        self.fail("__init__")

    def on_start(self) -> None:
        self.fail("on_start")

    def fail(self, where: str) -> None:
        if self.failures and self.failures[0][0] == where:
            raise self.failures.pop(0)[1]


FAILURES = [
    (where, error)
    for where in ("__init__", "on_start")
    for error in (ValueError("broken"), SystemExit(3), KeyboardInterrupt())
]


@pytest.mark.parametrize(("where", "error"), FAILURES)
def test_failed_start_is_reported(where: str, error: BaseException) -> None:
    """A18 a start that raises, in three ways and at two places: an error, and nobody else is harmed."""
    tree = Tree(Flags(), ChildSpec("bystander", Plain))
    spec = ChildSpec("child", FailsToStart, ([(where, error)],))
    refused = tree.ask(StartChild(spec))
    assert (refused.why, refused.reason.kind) == (Why.FAILED, ExitKind.ABNORMAL)
    assert tree.where("bystander").is_alive()
    assert isinstance(tree.ask(StartChild(spec)), Ok)


@pytest.mark.parametrize(("where", "error"), FAILURES)
def test_failed_restart_is_tried_again(where: str, error: BaseException) -> None:
    failures: list[tuple[str, BaseException]] = []
    tree = Tree(Flags(intensity=5, backoff=IMMEDIATE), ChildSpec("child", FailsToStart, (failures,)))
    old = tree.where("child")
    tree.until(PROGRESS, "child")
    failures += [(where, error), (where, error)]
    old.tell(fail)
    tree.until(CHILD_TERMINATED, "child")
    tree.until(ReportKind.START_ERROR, "child")
    tree.until(ReportKind.START_ERROR, "child")
    tree.until(PROGRESS, "child")
    assert tree.where("child") is not old


def test_boot_failure_stops_what_was_started() -> None:
    """A10 faulty_application_shutdown, with actors."""
    log: queue.Queue[str] = queue.Queue()
    failures = [("on_start", OSError(errno.ENOENT, "no such file"))]
    a, b = ChildSpec("a", Plain, ("a", log)), ChildSpec("b", FailsToStart, (failures,))
    with pytest.raises(BootFailed, match="no such file") as failed:
        Tree(Flags(), a, b, ChildSpec("c", Made))
    assert failed.value.id == "b"
    assert log.get_nowait() == "a"
    assert pykka.ActorRegistry.get_by_class(Made) == []


def test_boot_takes_too_long() -> None:
    with pytest.raises(pykka.Timeout):
        SupervisorActor.boot(Flags(), [ChildSpec("later", Later)], timeout=0.01)


class Ignores(Plain):
    def __init__(self, where: str) -> None:
        super().__init__()
        if where == "__init__":
            raise Ignore

    def on_start(self) -> None:
        raise Ignore


@pytest.mark.parametrize("where", ["__init__", "on_start"])
def test_ignore(where: str) -> None:
    """A03 sup_start_ignore_child, with actors."""
    tree = Tree(Flags(), ChildSpec("child", Ignores, (where,)), ChildSpec("sibling", Plain))
    assert tree.ask(WhereIs("child")) is None
    assert [info.phase for info in tree.ask(WhichChildren())] == [Phase.DOWN, Phase.UP]


class Later(StartsLater, Plain):
    pass


def test_an_actor_that_is_ready_later() -> None:
    tree = Tree(Flags())
    starting = tree.ref.ask(StartChild(ChildSpec("child", Later)))
    (info,) = tree.ask(WhichChildren())
    assert info.phase is Phase.STARTING
    (ref,) = pykka.ActorRegistry.get_by_class(Later)
    ref.tell(lambda actor: actor.report_started())
    assert starting.get(timeout=PATIENCE) == Ok("child", ref)
    unsupervised = Later.start()
    assert unsupervised.ask(lambda actor: actor.report_started(), timeout=PATIENCE) is None


# ---- ends -------------------------------------------------------------------------------------------


def test_crash_is_followed_by_a_new_actor() -> None:
    tree = Tree(Flags(), ChildSpec("child", Plain, ("x",)))
    old = tree.where("child")
    tree.until(PROGRESS, "child")
    tree.scheduler.advance(10)
    old.tell(fail)
    report = tree.until(CHILD_TERMINATED, "child")
    assert report == Report(CHILD_TERMINATED, "child", ExitReason(ExitKind.ABNORMAL, "ValueError: broken"))
    tree.until(PROGRESS, "child")
    assert tree.where("child") is not old
    assert tree.where("child").ask(lambda actor: actor.name) == "x"


def test_backoff_runs_on_the_schedulers_clock() -> None:
    tree = Tree(Flags(on_exceed="curse"), ChildSpec("child", Plain))
    for wait in (0.1, 0.2, 0.4):
        tree.where("child").tell(fail)
        assert tree.until(Waiting, "child") == Waiting("child", tree.scheduler.now() + wait, False)
        assert tree.ask(WhereIs("child")) is None
        tree.scheduler.advance(wait)
        tree.until(PROGRESS, "child")
    tree.where("child").tell(fail)
    tree.until(Waiting, "child")
    assert tree.ask(Absolve("child")) == Ok("child")
    tree.until(PROGRESS, "child")


def test_error_of_an_asked_message_goes_to_the_asker() -> None:
    tree = Tree(Flags(), ChildSpec("child", Plain))
    ref = tree.where("child")
    with pytest.raises(ValueError, match="broken"):
        ref.ask(fail, timeout=PATIENCE)
    assert tree.where("child") is ref


@pytest.mark.parametrize(("code", "restarted"), [(0, False), (3, True)])
@pytest.mark.parametrize("way", ["tell", "ask"])
def test_sys_exit_ends_one_actor(code: int, restarted: bool, way: str) -> None:
    """pykka would stop all actors of the process."""
    child = ChildSpec("child", Plain, restart=Restart.TRANSIENT)
    tree = Tree(Flags(backoff=IMMEDIATE), child, ChildSpec("bystander", Plain))
    bystander = tree.where("bystander")
    ref = tree.where("child")
    getattr(ref, way)(lambda actor: sys.exit(code))
    report = tree.until(CHILD_TERMINATED, "child")
    assert isinstance(report, Report)
    assert report.reason is not None
    assert report.reason.detail == f"exit {code}"
    assert tree.where("bystander") is bystander
    assert tree.ask(CountChildren()).active == (2 if restarted else 1)


@pytest.mark.parametrize("restart", list(Restart))
def test_an_actor_that_stops_by_itself(restart: Restart) -> None:
    """C01, C04, C07 with actors: ``normal``."""
    tree = Tree(Flags(backoff=IMMEDIATE), ChildSpec("child", Plain, restart=restart))
    tree.where("child").tell(lambda actor: actor.stop())
    report = tree.until(CHILD_TERMINATED, "child")
    assert isinstance(report, Report)
    assert report.reason == ExitReason(ExitKind.NORMAL)
    if restart is Restart.PERMANENT:
        tree.until(PROGRESS, "child")
    counts = {Restart.PERMANENT: (1, 1), Restart.TRANSIENT: (1, 0), Restart.TEMPORARY: (0, 0)}[restart]
    found = tree.ask(CountChildren())
    assert (found.specs, found.active) == counts


class SaysWhy(Plain):
    def on_stop(self) -> None:
        self.exit_reason = ExitReason(ExitKind.EXILE, "licence expired")


def test_an_actor_says_why_it_stops() -> None:
    tree = Tree(Flags(), ChildSpec("child", SaysWhy))
    tree.where("child").stop()
    assert tree.until(ReportKind.EXILED, "child") == Report(
        ReportKind.EXILED, "child", ExitReason(ExitKind.EXILE, "licence expired")
    )
    assert isinstance(tree.ask(RestartChild("child")), Ok)


class FailsToStop(Plain):
    def on_stop(self) -> None:
        raise ValueError("cannot stop")


def test_error_in_on_stop() -> None:
    """F11: another reason than asked is accepted and reported."""
    tree = Tree(Flags(), ChildSpec("child", FailsToStop))
    assert tree.ask(TerminateChild("child")) == Ok("child")
    reason = ExitReason(ExitKind.ABNORMAL, "ValueError: cannot stop")
    kind = ReportKind.SHUTDOWN_ERROR
    assert tree.until(kind, "child") == Report(kind, "child", reason)


class FailsTwice(Plain):
    def on_failure(self, *error: object) -> None:
        raise SystemExit("once more")


def test_exit_while_failing() -> None:
    tree = Tree(Flags(backoff=IMMEDIATE), ChildSpec("child", FailsTwice))
    tree.where("child").tell(fail)
    report = tree.until(CHILD_TERMINATED, "child")
    assert isinstance(report, Report)
    assert report.reason == ExitReason(ExitKind.ABNORMAL, "ValueError: broken")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EMFILE, "Too many open files"), ExitKind.ENV),
        (OSError(errno.ENOENT, "No such file"), ExitKind.ABNORMAL),
        (MemoryError(), ExitKind.ENV),
        (RuntimeError("can't start new thread"), ExitKind.ENV),
        (SystemExit(), ExitKind.NORMAL),
        (SystemExit("message"), ExitKind.ABNORMAL),
        (ValueError(), ExitKind.ABNORMAL),
    ],
)
def test_reason_of_an_error(error: BaseException, kind: ExitKind) -> None:
    assert ExitReason.of(error).kind is kind


# ---- stopping ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["stop", "shutdown", "stop_all"])
def test_stop_right_to_left(way: str) -> None:
    """D07 order_of_children: the final stop, by each of the ways to end a supervisor."""
    log: queue.Queue[str] = queue.Queue()
    tree = Tree(Flags(), *(ChildSpec(id, Plain, (id, log)) for id in "cab"))
    match way:
        case "stop":
            assert tree.ref.stop(timeout=PATIENCE)
        case "shutdown":
            assert tree.ask(Shutdown()) == Ok()
        case "stop_all":
            pykka.ActorRegistry.stop_all(timeout=PATIENCE)
    assert tree.gone()
    assert [log.get_nowait() for _ in range(3)] == ["b", "a", "c"]
    with pytest.raises(pykka.ActorDeadError):
        tree.ref.ask(CountChildren())


def test_one_for_all() -> None:
    """D02 one_for_all, with actors: all stopped right to left before any is started."""
    log: queue.Queue[str] = queue.Queue()
    flags = Flags(Strategy.ONE_FOR_ALL, backoff=IMMEDIATE)
    tree = Tree(flags, *(ChildSpec(id, Plain, (id, log)) for id in "abc"))
    old = {tree.where(id) for id in "abc"}
    for id in "abc":
        tree.until(PROGRESS, id)
    tree.where("b").tell(fail)
    for id in "abc":
        tree.until(PROGRESS, id)
    assert not old & {tree.where(id) for id in "abc"}
    assert [log.get_nowait() for _ in range(2)] == ["c", "a"]


def test_escalation() -> None:
    """E02 the budget is exceeded: all are stopped, the supervisor ends with ``shutdown``."""
    tree = Tree(Flags(intensity=1, backoff=IMMEDIATE), ChildSpec("a", Plain), ChildSpec("b", Plain))
    sibling = tree.where("b")
    for _ in range(2):
        tree.until(PROGRESS, "a")
        tree.where("a").tell(fail)
    tree.until(ReportKind.REACHED_MAX_RESTART_INTENSITY, "a")
    assert tree.gone()
    assert not sibling.is_alive()


def stuck(entered: threading.Event, release: threading.Event) -> Callable[[Plain], None]:
    def handle(actor: Plain) -> None:
        entered.set()
        release.wait(PATIENCE)

    return handle


@pytest.mark.parametrize("shutdown", [0, 3.0])
def test_an_actor_that_is_stuck(shutdown: float) -> None:
    """F02, F04 with actors: a thread cannot be killed, so it is abandoned, and life goes on."""
    tree = Tree(Flags(), ChildSpec("child", Plain, shutdown=shutdown))
    old = tree.where("child")
    entered, release, touched = threading.Event(), threading.Event(), threading.Event()
    old.tell(stuck(entered, release))
    old.tell(lambda actor: touched.set())
    assert entered.wait(PATIENCE)
    terminated = tree.ref.ask(TerminateChild("child"))
    if shutdown:
        tree.ask(CountChildren())
        tree.scheduler.advance(2.9)
        assert [info.phase for info in tree.ask(WhichChildren())] == [Phase.STOPPING]
        tree.scheduler.advance(0.2)
        report = tree.until(ReportKind.ABANDONED, "child")
        assert "cannot be killed" in str(report)
    assert terminated.get(timeout=PATIENCE) == Ok("child")
    assert isinstance(tree.ask(RestartChild("child")), Ok)
    new = tree.where("child")
    release.set()
    assert new is not old
    assert old.actor_stopped.is_set()
    assert tree.where("child") is new
    assert tree.ref.stop(timeout=PATIENCE)
    assert not touched.is_set(), "an abandoned actor handles no further message"


def test_stop_during_a_slow_start() -> None:
    """N14 the supervisor is not blocked by a child whose ``on_start`` takes long."""
    entered, release = threading.Event(), threading.Event()

    class Slow(Plain):
        def on_start(self) -> None:
            entered.set()
            release.wait(PATIENCE)

    tree = Tree(Flags(), ChildSpec("bystander", Plain))
    starting = tree.ref.ask(StartChild(ChildSpec("slow", Slow)))
    assert entered.wait(PATIENCE)
    assert tree.where("bystander").is_alive()
    terminated = tree.ref.ask(TerminateChild("slow"))
    release.set()
    assert terminated.get(timeout=PATIENCE) == Ok("slow")
    assert starting.get(timeout=PATIENCE) == Refused(Why.TERMINATED, "slow")


# ---- trees ------------------------------------------------------------------------------------------


def subtree(
    id: str,
    flags: Flags,
    *children: ChildSpec,
    report: Callable[[Report | Waiting], None] = lambda report: None,
    **fields: Any,
) -> ChildSpec:
    start = functools.partial(SupervisorActor, flags, children, report=report)
    return ChildSpec(id, start, type="supervisor", **fields)


def leaf(tree: Tree, *path: str) -> Any:
    ref: Any = tree.ref
    for id in path:
        ref = ref.ask(WhereIs(id), timeout=PATIENCE)
    return ref


def test_tree() -> None:
    """D08 tree: only the dead leaf restarts; when a sub-supervisor gives up, the whole tree does.

    Static children return, dynamic ones do not.
    """
    once = Flags(intensity=1, backoff=IMMEDIATE)
    top = Flags(Strategy.ONE_FOR_ALL, backoff=IMMEDIATE)
    below: queue.Queue[Any] = queue.Queue()
    s1_spec = subtree("s1", once, ChildSpec("a", Plain), report=below.put)
    tree = Tree(top, s1_spec, subtree("s2", once, ChildSpec("b", Plain)))
    s1, s2, b = leaf(tree, "s1"), leaf(tree, "s2"), leaf(tree, "s2", "b")
    tree.until(PROGRESS, "s1")
    tree.until(PROGRESS, "s2")
    dynamic = s2.ask(StartChild(ChildSpec("dynamic", Plain))).get(timeout=PATIENCE).handle
    leaf(tree, "s1", "a").tell(fail)
    assert [below.get(timeout=PATIENCE).kind for _ in range(3)] == [PROGRESS, CHILD_TERMINATED, PROGRESS]
    assert (leaf(tree, "s1"), leaf(tree, "s2", "b")) == (s1, b)
    leaf(tree, "s1", "a").tell(fail)
    tree.until(CHILD_TERMINATED, "s1")
    tree.until(PROGRESS, "s1")
    tree.until(PROGRESS, "s2")
    assert leaf(tree, "s1") is not s1
    assert leaf(tree, "s1", "a").is_alive()
    assert leaf(tree, "s2", "b") is not b
    assert not b.is_alive()
    assert not dynamic.is_alive()
    assert leaf(tree, "s2", "dynamic") is None


@pytest.mark.parametrize("significant", [True, False])
def test_significant_supervisor(significant: bool) -> None:
    """G07 significant_escalation: its end ends the parent when it is significant."""
    inner = Flags(auto_shutdown="any_significant")
    child = ChildSpec("a", Plain, restart=Restart.TRANSIENT, significant=True)
    middle = subtree("s", inner, child, restart=Restart.TRANSIENT, significant=significant)
    tree = Tree(Flags(auto_shutdown="any_significant"), middle)
    leaf(tree, "s", "a").stop()
    report = tree.until(CHILD_TERMINATED, "s")
    assert isinstance(report, Report)
    assert report.reason == SHUTDOWN
    if significant:
        assert tree.gone()
    else:
        assert tree.ask(CountChildren()).active == 0


def test_a_subtree_is_up_when_its_children_are() -> None:
    """The parent's boot waits for the whole subtree, and hears why it failed."""
    failures = [("on_start", ValueError("broken"))]
    with pytest.raises(BootFailed, match=r"s: .*failed_to_start_child a: .*broken"):
        Tree(Flags(), subtree("s", Flags(), ChildSpec("a", FailsToStart, (failures,))))


def test_brutal_kill_of_a_supervisor() -> None:
    """H01: the children of a supervisor that is killed do not outlive it."""
    tree = Tree(Flags(), subtree("s", Flags(), ChildSpec("a", Plain), shutdown=0))
    child = leaf(tree, "s", "a")
    assert tree.ask(TerminateChild("s")) == Ok("s")
    assert child.actor_stopped.wait(PATIENCE)


def test_crash_of_the_supervisor_itself() -> None:
    """None of its children outlives it, and nobody waits for it in vain."""
    armed = threading.Event()

    def report(report: Report | Waiting) -> None:
        if armed.is_set():
            raise RuntimeError("no space left for logs")

    supervisor = SupervisorActor.boot(Flags(), [ChildSpec("a", Plain)], report=report)
    child: Any = supervisor.ask(WhereIs("a"))
    later: Any = supervisor.ask(StartChild(ChildSpec("later", Later)))
    armed.set()
    supervisor.tell(StartChild(ChildSpec("b", Plain)))
    assert child.actor_stopped.wait(PATIENCE)
    with pytest.raises(pykka.ActorDeadError):
        later.get(timeout=PATIENCE)


def test_faulty_children() -> None:
    with pytest.raises(ValueError, match="duplicate child id: a"):
        SupervisorActor.start(Flags(), [ChildSpec("a", Plain), ChildSpec("a", Plain)])


def test_other_messages() -> None:
    """What is no message of a supervisor is treated as pykka treats it."""
    tree = Tree(Flags())
    assert tree.ask("hello") is None
    assert tree.ask(CountChildren()).specs == 0


# ---- the scheduler ----------------------------------------------------------------------------------


def test_scheduler_calls_in_order() -> None:
    scheduler = ThreadScheduler()
    called: queue.Queue[str] = queue.Queue()
    now = scheduler.now()
    cancel = scheduler.at(now + 0.02, lambda: called.put("cancelled"))
    scheduler.at(now + 0.03, lambda: called.put("third"))
    scheduler.at(now + 0.01, lambda: called.put("second"))
    scheduler.at(now - 1, lambda: called.put("first"))
    cancel()
    assert [called.get(timeout=PATIENCE) for _ in range(3)] == ["first", "second", "third"]
    assert scheduler.now() >= now + 0.03
    cancel()
