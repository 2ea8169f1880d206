"""Properties of the configuration: only a ConfigError leaves the reader, lines are right, times scale."""

import json
import string
import tomllib
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemperor.protocol.errors import ConfigError
from pyemperor.protocol.messages import EVENTS, State, Trace
from pyemperor.protocol.patterns import Pattern
from pyemperor.protocol.quantities import seconds, size
from pyemperor.protocol.report import Path
from pyemperor.protocol.scenario import Scenario, load_scenario
from pyemperor.protocol.toml_lines import key_lines

quick = settings(max_examples=150, deadline=None)

# ---- lines: a writer of TOML that knows where it writes is the oracle ----

bare = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=4)
odd = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=4)
keys = bare | odd
texts = st.sampled_from(["", "#", "]", "[x]", "a\nb", 'q"', "'", '"""', "\\", "}", "k = 1", ","])
values = st.recursive(
    st.integers(-9, 9) | st.booleans() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
tables = st.dictionaries(keys, values, max_size=4)


class Writer:
    """Writes TOML with blank lines, comments and all kinds of strings, and notes the lines of keys."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.text = ""
        self.lines: dict[Path, int] = {}

    def draw(self, *choices: str) -> str:
        return self.data.draw(st.sampled_from(choices))

    def put(self, text: str) -> None:
        self.text += text

    def note(self, path: Path) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def key(self, key: str) -> None:
        plain = key and set(key) <= set(string.ascii_letters + string.digits + "_-")
        escaped = "".join(f"\\U{ord(letter):08x}" for letter in key)
        forms = [json.dumps(key, ensure_ascii=False), f'"{escaped}"']
        if plain:
            forms.append(key)
        if "'" not in key:
            forms.append(f"'{key}'")
        self.put(self.draw(*forms))

    def value(self, value: object, path: Path) -> None:
        match value:
            case str():
                forms = [json.dumps(value)]
                if "\\" not in value and '"' not in value:
                    forms += [f'"""{value}"""', f'"""\n{value}"""']
                if "'" not in value:
                    forms += [f"'''{value}'''"] + ([] if "\n" in value else [f"'{value}'"])
                self.put(self.draw(*forms))
            case list():
                self.put("[")
                for index, item in enumerate(value):
                    self.put(self.draw("", " ", "\n", " # ] }\n\t"))
                    self.note((*path, index))
                    self.value(item, (*path, index))
                    self.put(self.draw(",", " ,", "\n,"))
                self.put(self.draw("", "\n", "# x\n") + "]")
            case dict():
                self.put("{")
                for number, (key, item) in enumerate(value.items()):
                    self.put(", " if number else " ")
                    self.pair(key, item, path)
                self.put("}")
            case _:
                self.put(json.dumps(value))

    def pair(self, key: str, value: object, table: Path) -> None:
        self.note((*table, key))
        self.key(key)
        self.put(self.draw("=", " = ", "\t="))
        self.value(value, (*table, key))

    def body(self, table: dict[str, Any], path: Path) -> None:
        for key, value in table.items():
            self.put(self.draw("", "\n", "  # [c] = 1\n"))
            self.pair(key, value, path)
            self.put(self.draw("\n", " # end\n", "\r\n"))


@quick
@given(st.data(), tables, st.lists(tables, max_size=3))
def test_every_key_is_found_on_the_line_where_it_was_written(
    data: st.DataObject, top: dict[str, Any], elements: list[dict[str, Any]]
) -> None:
    writer = Writer(data)
    writer.body({key: value for key, value in top.items() if key != "an array"}, ())
    for index, element in enumerate(elements):
        writer.note(("an array",))
        writer.note(("an array", index))
        writer.put(writer.draw('[["an array"]]\n', "[[ 'an array' ]] # [x]\n"))
        writer.body(element, ("an array", index))
        if "sub" not in element:
            writer.note(("an array", index, "sub"))
            writer.put('["an array".sub]\n')
    tomllib.loads(writer.text)  # the writer writes TOML
    assert key_lines(writer.text) == writer.lines


# ---- whatever is written, the answer is a scenario or a list of problems ----

VALID: dict[str, Any] = {
    "run": {"seed": 1, "for": "10s"},
    "parameters": {"p": "1s"},
    "emperor": {"heartbeat-probe": 5},
    "supervision": {"intensity": 5, "backoff": {"initial": "100ms"}},
    "vassal": [
        {"name": "app", "socket": "a.sock", "cgi": "/c=c", "processes": 2, "supervision": {"mercy": 1}},
    ],
    "front": {"kind": "nginx", "listen": ":8088"},
    "load": [{"id": "l", "kind": "burst", "clients": 4, "at": ["1s", "2s"], "path": "/c/x"}],
    "fault": [
        {"id": "f", "kind": "kill", "target": "worker:app/1", "at": "1s"},
        {"kind": "drop", "target": "link:emperor<>master:app", "after": "f+1s", "for": "1s"},
    ],
    "expect": [
        {"what": "time(fault:f, state(worker:app/1)=READY)", "max": "1s"},
        {"what": "http", "ratio": {"200": 1.0}},
        {"what": "order", "events": ["fault:f", "exit(worker:*/*)"]},
        {"what": "kills(master:app)", "max": 0, "between": ["1s", "2s"]},
    ],
}
WORDS = st.sampled_from(
    (
        *("", "app", "f", "l", "f+1s", "1s", "-1s", "2", "${p}", "${q}", "${2 * p}", "${", "host:1"),
        *(":99999", "/x=y", "=", "kill", "drop", "burst", "master:app", "link:a>b", "kills(master:*)"),
        *("time(a,b)", "log~/(/", "nan", "\0", "%n"),
    )
)
RAW = st.recursive(
    WORDS | st.integers() | st.floats() | st.booleans() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)


def places(value: Any, path: Path = ()) -> list[Path]:
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        items = list(value.items() if isinstance(value, dict) else enumerate(value))
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


def to_toml(value: Any) -> str:
    """Write a document of inline tables, one top-level key a line."""

    def inline(value: Any) -> str:
        match value:
            case dict():
                return "{" + ", ".join(f"{inline(key)} = {inline(item)}" for key, item in value.items()) + "}"
            case list():
                return "[" + ", ".join(map(inline, value)) + "]"
            case float():
                return repr(value)
            case str():
                return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
            case _:
                return json.dumps(value)

    return "".join(f"{json.dumps(key)} = {inline(item)}\n" for key, item in value.items())


def outcome(text: str) -> Scenario | ConfigError:
    try:
        return load_scenario(text, file="f.toml", base="/srv")
    except ConfigError as error:
        return error


def check(result: Scenario | ConfigError, text: str) -> None:
    if isinstance(result, ConfigError):
        assert result.problems
        lines = [problem.line for problem in result.problems]
        assert lines == sorted(lines)
        assert all(0 <= line <= text.count("\n") + 1 for line in lines)
        assert all(problem.file == "f.toml" and problem.found for problem in result.problems)


def test_the_document_that_is_changed_is_valid() -> None:
    assert isinstance(outcome(to_toml(VALID)), Scenario)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_a_changed_document_is_a_scenario_or_a_list_of_problems(data: st.DataObject) -> None:
    document = json.loads(json.dumps(VALID))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(document)[1:]))
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        action = data.draw(st.sampled_from(["replace", "replace", "delete", "add"]))
        if action == "replace":
            parent[path[-1]] = data.draw(RAW)
        elif action == "delete":
            del parent[path[-1]]
        elif isinstance(parent, dict):
            parent[data.draw(st.text(string.ascii_lowercase + "-", max_size=8))] = data.draw(RAW)
        if not document:
            return
    text = to_toml(document)
    check(outcome(text), text)


@quick
@given(st.text() | st.text("[]{}=\"'#\n.,a1", max_size=30))
def test_no_text_at_all_breaks_the_reader(text: str) -> None:
    check(outcome(text), text)


# ---- numbers ----

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


@quick
@given(st.lists(st.tuples(st.decimals(0, 99, places=3), st.sampled_from([*UNITS])), min_size=1, max_size=3))
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[Any, str]]) -> None:
    text = " ".join(f"{number}{unit}" for number, unit in parts)
    assert seconds(text) == pytest.approx(sum(float(number) * UNITS[unit] for number, unit in parts))


@quick
@given(st.integers(0, 10**6), st.sampled_from(["", "k", "m", "g"]), st.sampled_from(["", "b", "ib"]))
def test_a_size_is_a_number_of_powers_of_1024(number: int, unit: str, tail: str) -> None:
    for text in (f"{number}{unit}{tail}", f"{number} {unit.upper()}{tail}"):
        assert size(text) == number * 1024 ** ["", "k", "m", "g"].index(unit)


@quick
@given(st.floats(0.01, 100), st.floats(0, 1e5), st.floats(0, 1e5))
def test_every_time_of_a_scenario_scales(scale: float, at: float, heartbeat: float) -> None:
    document = json.loads(json.dumps(VALID))
    document["fault"][0]["at"] = at
    document["vassal"][0]["heartbeat"] = heartbeat
    text = to_toml(document)
    one = load_scenario(text, file="f.toml", base="/srv")
    other = load_scenario(text, file="f.toml", base="/srv", parameters={"scale": repr(scale)})
    assert one.faults[0].at == at
    assert other.faults[0].at == pytest.approx(at * scale)
    for before, after in zip(times(one), times(other), strict=True):
        assert after == pytest.approx(before * scale)
    assert other.vassals[0].supervision.backoff.factor == one.vassals[0].supervision.backoff.factor
    assert [load.clients for load in other.loads] == [load.clients for load in one.loads]


def times(scenario: Scenario) -> list[float]:
    (vassal,), emperor = scenario.vassals, scenario.emperor
    supervision = vassal.supervision
    return [
        *(vassal.heartbeat, vassal.cgi_timeout, vassal.socket_timeout, vassal.worker_reload_mercy),
        *(supervision.period, supervision.stable_after, supervision.start_timeout, supervision.mercy),
        *(supervision.backoff.initial, supervision.backoff.max),
        *(emperor.emperor_required_heartbeat, emperor.heartbeat_probe),
        *(scenario.run.duration, scenario.run.timeout),
        *(time for load in scenario.loads for time in (*load.at, load.duration, load.timeout, load.takes)),
        *(fault.duration for fault in scenario.faults),
        *(fault.after.offset for fault in scenario.faults if fault.after),
        *(expect.max for expect in scenario.expects if expect.kind == "time" and expect.max is not None),
        *(time for expect in scenario.expects for time in expect.between or ()),
    ]


# ---- addresses ----


listening = st.tuples(st.sampled_from(["", "127.0.0.1", "127.0.0.2"]), st.integers(0, 4))


@quick
@given(st.lists(listening, min_size=1, max_size=5))
def test_two_vassals_never_share_an_address(places: list[tuple[str, int]]) -> None:
    vassals = [
        {"name": f"v{index}", "socket": f"{host}:{port}", "cgi": "c"}
        for index, (host, port) in enumerate(places)
    ]
    shared = any(
        port == other_port != 0 and (host == other_host or "" in (host, other_host))
        for index, (host, port) in enumerate(places)
        for other_host, other_port in places[:index]
    )
    assert isinstance(outcome(to_toml({"vassal": vassals})), ConfigError) is shared


# ---- patterns ----

names = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=8)
actors = (
    st.sampled_from(["emperor", "fork-server"])
    | st.builds("{}:{}".format, st.sampled_from(["master", "load", "fault"]), names)
    | st.builds("worker:{}/{}".format, names, st.integers(1, 20))
)
events, states = st.sampled_from(sorted(EVENTS)), st.sampled_from(sorted(State))
traces = st.builds(Trace, at=st.floats(0, 1e6), actor=actors, event=events, state=states, reason=names)


@quick
@given(traces, traces)
def test_a_pattern_written_from_an_entry_matches_the_entries_like_it(one: Trace, other: Trace) -> None:
    exact = Pattern.parse(f"{one.event}({one.actor})={one.state} reason={one.reason}")
    assert exact.matches(one)
    same = [(entry.event, entry.actor, entry.state, entry.reason) for entry in (one, other)]
    assert exact.matches(other) is (same[0] == same[1])
    assert Pattern.parse(one.event).matches(other) is (one.event == other.event)
    assert Pattern.parse(f"*({one.actor})").matches(other) is (one.actor == other.actor)


@quick
@given(st.text(max_size=20) | st.text("state(mr:a)=READY~/* reason.", max_size=30), traces)
def test_any_text_is_a_pattern_or_a_value_error(text: str, trace: Trace) -> None:
    try:
        pattern = Pattern.parse(text)
    except ValueError:
        return
    assert pattern.text == text.strip()
    assert any(fnmatchcase(event, pattern.event) for event in EVENTS)
    assert not pattern.matches(trace) or fnmatchcase(trace.event, pattern.event)
