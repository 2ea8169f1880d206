"""Whatever happens to workers in whatever order, there are neither too few nor too many of them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pyemperor.actors.cheaper import Cheaper, View
from pyemperor.actors.workforce import Command, Dismiss, Hire, Kill, Workforce
from pyemperor.protocol.options import Vassal


class Yard:
    """Workers as a supervisor runs them: what is hired comes up or cannot start, and ends when it is told to."""

    def __init__(self, first: int, least: int, most: int) -> None:
        self.least, self.most = least, most
        ids = [str(index) for index in range(1, first + 1)]
        self.workforce = Workforce(ids, least, most)
        #: By id, whether it is up.
        self.running = dict.fromkeys(ids, False)
        self.first = set(ids)
        self.asked: set[str] = set()
        self.killed: set[str] = set()
        self.missing = False

    def do(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Hire(id=id, index=index):
                    assert id not in self.running
                    assert 1 <= index <= self.most
                    self.running[id] = False
                case Dismiss(id=id):
                    assert id in self.running.keys() - self.asked, "once"
                    self.asked.add(id)
                case Kill(id=id):
                    assert id not in self.killed
                    self.asked.add(id)
                    self.killed.add(id)

    def step(self, what: str, which: int, change: int) -> None:
        ids = sorted(self.running)
        id = ids[which % len(ids)]
        serving = set(self.workforce.serving)
        match what:
            case "up" if id not in self.asked and not self.running[id]:
                self.running[id] = True
                self.do(self.workforce.up(id))
                assert len(self.workforce.serving) >= len(serving), "nobody goes before somebody comes"
            case "down" if self.running[id] and id not in self.asked:
                self.running[id] = False
                self.workforce.down(id)
            case "gone" if id in self.asked:
                del self.running[id]
                self.asked.discard(id)
                self.killed.discard(id)
                self.do(self.workforce.gone(id))
            case "refused" if not self.running[id] and id not in self.asked | self.first and "." in id:
                del self.running[id]
                self.workforce.refused(id)
                self.missing = True
            case "retire":
                self.do(self.workforce.retire(id))
                assert set(self.workforce.serving) == serving
            case "evict" if self.running[id]:
                self.do(self.workforce.evict(id))
            case "resize":
                self.do(self.workforce.resize(change, ids[: which % 3]))
            case "mend":
                self.do(self.workforce.mend())
                self.missing = self.workforce.size < self.least

    def check(self) -> None:
        assert self.workforce.processes == len(self.running)
        assert self.workforce.size <= self.most
        assert self.missing or self.workforce.size >= self.least
        assert len(self.running.keys() - self.killed) <= self.most + 1, "one may be between"
        assert set(self.workforce.serving) == {id for id, up in self.running.items() if up} - self.asked


STEPS = st.sampled_from(["up", "up", "up", "down", "gone", "gone", "refused", "retire", "evict", "resize", "mend"])


@settings(max_examples=300)
@given(
    st.integers(1, 4),
    st.integers(0, 3),
    st.lists(st.tuples(STEPS, st.integers(0, 50), st.integers(-1, 3)), max_size=80),
)
def test_never_too_few_and_never_too_many(least: int, more: int, steps: list[tuple[str, int, int]]) -> None:
    yard = Yard(least, least, least + more)
    for what, which, change in steps:
        if yard.running:
            yard.step(what, which, change)
            yard.check()
        else:
            yard.do(yard.workforce.mend())


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 4))
def test_all_that_are_worn_are_replaced_in_the_end(order: list[int], count: int) -> None:
    yard = Yard(count, count, count)
    for id in list(yard.running):
        yard.step("up", sorted(yard.running).index(id), 0)
    worn = set(yard.running)
    for which in order:
        yard.step("retire", which % count, 0)
    for id in worn:
        yard.do(yard.workforce.retire(id))
    for _ in range(count * 2):
        for id in sorted(yard.running):
            for what in ("up", "gone"):
                if id in yard.running:
                    yard.step(what, sorted(yard.running).index(id), 0)
                    yard.check()
    assert not worn & yard.running.keys()
    assert len(yard.workforce.serving) == count


@given(
    st.sampled_from(["spare", "spare2", "backlog"]),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(0, 5),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 300)), max_size=60),
)
def test_cheaper_keeps_its_bounds(
    algorithm: str, least: int, more: int, step: int, overload: int, looks: list[tuple[int, int, int, int]]
) -> None:
    vassal = Vassal(
        "app", processes=least + more, cheaper=least, cheaper_step=step, cheaper_overload=overload,
        cheaper_algo=algorithm, cheaper_idle=2, cheaper_rss_limit_soft=100, cheaper_rss_limit_hard=200,
    )  # fmt: skip
    cheaper, workers = Cheaper(vassal), least
    for some_full, some_idle, waiting, rss in looks:
        full = min(some_full, workers)
        change = cheaper.decide(View(workers, full, min(some_idle, workers - full), waiting, rss))
        assert -1 <= change <= step
        workers += change
        assert least <= workers <= least + more
