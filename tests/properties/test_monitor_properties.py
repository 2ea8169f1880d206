"""Whatever happens to files in whatever order, a monitor ends up with what is there, and takes nothing half."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pyemperor.actors.monitor_diff import Appeared, Change, Changed, Renamed, Vanished, Watchlist

SETTLE, PATIENCE = 0.05, 2.0

names = st.sampled_from(["a", "b", "c"])
#: What is there at one look: versions by name.
scenes = st.dictionaries(names, st.integers(1, 4), max_size=3)
#: Looks: seconds since the one before, what is there, what is being written.
History = list[tuple[float, dict[str, int], set[str]]]
looks = st.lists(st.tuples(st.floats(0.001, 0.2), scenes, st.sets(names, max_size=2)), max_size=20)


def apply(model: dict[str, int], changes: list[Change[str]], seen: dict[str, int]) -> None:
    """Follow the changes as the Emperor does; each must make sense."""
    for change in changes:
        match change:
            case Appeared(key=key):
                assert key not in model
                model[key] = seen[key]
            case Changed(key=key):
                assert model[key] != seen[key]
                model[key] = seen[key]
            case Vanished(key=key):
                assert key not in seen
                del model[key]
            case Renamed(key=key, formerly=former):
                assert key not in model
                assert former not in seen
                model[key] = model.pop(former)
                assert model[key] == seen[key]


@settings(deadline=None, max_examples=300)
@given(looks, scenes)
def test_it_ends_up_with_what_is_there(before: History, last: dict[str, int]) -> None:
    watched: Watchlist[str] = Watchlist(SETTLE, PATIENCE)
    model: dict[str, int] = {}
    now = 0.0
    for seconds, seen, writing in before:
        now += seconds
        apply(model, watched.look(seen, now, writing), seen)
        assert model == watched.known
    apply(model, watched.look(last, now + 1), last)
    apply(model, watched.look(last, now + 1 + SETTLE + 0.001), last)
    assert model == last
    assert watched.next_at is None
    assert watched.look(last, now + 100) == []


@settings(deadline=None, max_examples=300)
@given(looks)
def test_what_is_taken_was_seen_unchanged_for_long_enough(history: History) -> None:
    watched: Watchlist[str] = Watchlist(SETTLE, PATIENCE)
    since: dict[str, tuple[int | None, float]] = {}
    now = 0.0
    for seconds, seen, writing in history:
        now += seconds
        for name in "abc":
            if name not in since or since[name][0] != seen.get(name):
                since[name] = seen.get(name), now
        for change in watched.look(seen, now, writing):
            for name in [change.key, *([change.formerly] if isinstance(change, Renamed) else [])]:
                rest = now - since[name][1]
                assert rest >= (PATIENCE if name in writing else SETTLE) - 1e-9


@settings(deadline=None, max_examples=300)
@given(looks)
def test_it_says_when_to_look_again_as_long_as_something_differs(history: History) -> None:
    watched: Watchlist[str] = Watchlist(SETTLE, PATIENCE)
    now = 0.0
    for seconds, seen, writing in history:
        now += seconds
        watched.look(seen, now, writing)
        if watched.known == seen:
            assert watched.next_at is None
        else:
            assert watched.next_at is not None
            assert now < watched.next_at <= now + PATIENCE


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=60))
def test_a_storm_of_edits_is_one_change(versions: list[int]) -> None:
    watched: Watchlist[str] = Watchlist(SETTLE, PATIENCE)
    watched.look({"a": 0}, 0.0)
    assert watched.look({"a": 0}, 1.0) == [Appeared("a")]
    now = 2.0
    for previous, version in zip([0, *versions], versions, strict=False):
        now += 0.02
        found = watched.look({"a": version}, now)
        if previous != version:
            assert found == []
    assert watched.look({"a": 5}, now + 0.02) == []
    assert watched.look({"a": 5}, now + 0.08) == [Changed("a")]
