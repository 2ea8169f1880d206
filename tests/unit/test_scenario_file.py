"""Scenario files: what is read, and that everything wrong is told with its line and a remedy."""

from pathlib import Path
from textwrap import dedent

import pytest

from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.messages import Trace
from pyemperor.protocol.options import Address, Mount
from pyemperor.protocol.patterns import Pattern, parse_target
from pyemperor.protocol.scenario import After, Scenario, load_scenario
from pyemperor.protocol.toml_lines import key_lines, line_of

SCENARIOS = sorted((Path(__file__).parents[2] / "scenarios").glob("*.toml"))
VASSAL = """\
[[vassal]]
name = "app"
socket = "app.sock"
cgi = "/cgi-bin=cgi-bin"
processes = 2
"""
NEXT = VASSAL.count("\n") + 1
NGINX = "[front]\nkind = 'nginx'\n"


def load(text: str, **parameters: str) -> Scenario:
    return load_scenario(text, file="test.toml", base="/srv", parameters=parameters)


def problems(text: str, **parameters: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        load(text, **parameters)
    return caught.value.problems


def only_problem(text: str, **parameters: str) -> Problem:
    found = problems(text, **parameters)
    assert len(found) == 1, found
    return found[0]


# ---- what is read ----


def test_the_smallest_file() -> None:
    scenario = load(VASSAL)
    (app,) = scenario.vassals
    assert scenario.name == "test"
    assert app.socket == (Address("unix", "/srv/app.sock"),)
    assert app.cgi == (Mount("/cgi-bin", "/srv/cgi-bin"),)
    assert scenario.emperor.emperor_required_heartbeat == 30
    assert scenario.front.kind == "none"
    assert not scenario.has_timeline


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
@pytest.mark.parametrize("scale", ["1", "0.2"])
def test_the_scenarios_that_come_along_are_valid(path: Path, scale: str) -> None:
    parameters = {"scale": scale, "run": "/tmp/run"}
    scenario = load_scenario(path.read_text(), file=path.name, base=str(path.parent), parameters=parameters)
    assert scenario.vassals
    assert not scenario.warnings
    assert scenario.has_timeline == (path.stem not in ("cgi", "nginx"))


def test_the_seeds_scenario_holds_what_was_published() -> None:
    (path,) = [path for path in SCENARIOS if path.stem == "heartbeat_idle"]
    scenario = load_scenario(path.read_text(), file=path.name, base="/srv", parameters={"scale": "0.2"})
    log, busy = scenario.loads
    assert len(log.at) == 13
    assert log.at[0] == pytest.approx(7 * 0.2)
    assert log.at[-1] == pytest.approx(147 * 0.2)
    assert busy.takes == pytest.approx(9)
    assert busy.path == "/cgi-bin/slow.cgi?sleep=9"
    assert busy.clients == scenario.vassals[0].processes * scenario.vassals[0].threads
    assert scenario.vassals[0].heartbeat == pytest.approx(25 * 0.2)


def test_copies_have_names_and_sockets_of_their_own() -> None:
    scenario = load(VASSAL.replace('"app.sock"', '"%n.sock"') + "copies = 3\n")
    assert [vassal.name for vassal in scenario.vassals] == ["app-1", "app-2", "app-3"]
    assert scenario.vassals[2].socket == (Address("unix", "/srv/app-3.sock"),)


def test_supervision_of_all_and_of_one() -> None:
    scenario = load(
        "[supervision]\nintensity = 3\nstable-after = '20s'\n"
        + VASSAL
        + "[vassal.supervision]\nperiod = '30s'\nbackoff = { initial = '1s' }\n"
    )
    supervision = scenario.vassals[0].supervision
    assert (supervision.intensity, supervision.period, supervision.stable_after) == (3, 30, 20)
    assert (supervision.backoff.initial, supervision.backoff.factor) == (1, 2)


def test_loads_faults_and_expectations() -> None:
    scenario = load(
        VASSAL
        + dedent("""
            [[load]]
            kind = "closed"
            clients = 4
            for = "10s"
            think = "50ms"
            path = "/cgi-bin/hello.cgi"
            [[fault]]
            id = "lossy"
            on = "state(master:app)=READY"
            kind = "drop"
            target = "link:master:app>emperor"
            match = "beat"
            probability = 0.5
            [[fault]]
            after = "lossy+2s"
            kind = "kill"
            signal = "SIGTERM"
            target = "worker:app/*"
            every = "1s"
            times = 3
            [[expect]]
            what = "time(fault:lossy, request~/^50[0-9], x/)"
            max = "2s"
            [[expect]]
            what = "http"
            ratio = { "200" = 0.9, error = 0.1 }
            tolerance = 0.05
            between = ["1s", "5s"]
        """),
        scale="0.5",
    )
    (load_,), (lossy, kill), (time, http) = scenario.loads, scenario.faults, scenario.expects
    assert (load_.id, load_.vassal, load_.duration, load_.think) == ("load-1", "app", 5.0, 0.025)
    assert lossy.on == Pattern.parse("state(master:app)=READY")
    assert [end.text for end in lossy.target.ends] == ["master:app", "emperor"]
    assert kill.after == After("lossy", 1.0)
    assert (kill.id, kill.signal, kill.every, kill.times) == ("kill-2", 15, 0.5, 3)
    assert (time.kind, time.max) == ("time", 1.0)
    assert time.second is not None
    assert time.second.regex == "^50[0-9], x"
    assert http.ratio == (("200", 0.9), ("error", 0.1))
    assert http.between == (0.5, 2.5)


def test_scale_leaves_alone_what_the_machine_sets() -> None:
    text = VASSAL + dedent("""
        [[load]]
        kind = "constant"
        rate = 10
        for = "10s"
        [[expect]]
        what = "time(fault:*, state(master:app)=READY)"
        max = "10s"
        slack = "500ms"
        [[fault]]
        at = "10s"
        kind = "hang"
        target = "master:app"
    """)
    for scale, expected in (("1", 10.0), ("0.1", 1.0)):
        scenario = load(text, scale=scale)
        assert scenario.loads[0].rate == 10
        assert scenario.expects[0].slack == 0.5
        assert scenario.expects[0].max == scenario.loads[0].duration == scenario.faults[0].at == expected


# ---- parameters ----


def test_parameters_stand_in_any_text_and_are_set_from_outside() -> None:
    text = '[parameters]\nrun = "run"\nworkers = 2\n' + VASSAL.replace("app.sock", "${run}/app.sock").replace(
        "processes = 2", 'processes = "${workers}"\ncgi-index = "$${run}"'
    )
    assert load(text).vassals[0].processes == 2
    scenario = load(text, run="/tmp", workers="4")
    assert scenario.vassals[0].socket == (Address("unix", "/tmp/app.sock"),)
    assert scenario.vassals[0].processes == 4
    assert scenario.vassals[0].cgi_index == ("${run}",)


def test_a_product_multiplies_numbers_and_times() -> None:
    text = '[parameters]\nbusy = "1m"\n' + VASSAL + 'env = "BUSY=${2 * busy * scale}"\n'
    assert load(text).vassals[0].env == (("BUSY", "120"),)
    assert load(text, scale="0.1").vassals[0].env == (("BUSY", "12"),)


def test_an_unknown_parameter_is_named_where_it_stands() -> None:
    problem = only_problem('[parameters]\nbusy = "1m"\n' + VASSAL + 'env = "A=${bussy}"\n')
    assert (problem.line, problem.key, problem.remedy) == (NEXT + 2, "vassal.env", "did you mean busy?")
    assert only_problem(VASSAL, scaale="2").remedy == "did you mean scale?"


@pytest.mark.parametrize("scale", ["0", "-1", "fast", "nan"])
def test_scale_is_a_positive_number(scale: str) -> None:
    assert only_problem(VASSAL, scale=scale).key == "parameters.scale"


# ---- what is wrong ----


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("a = ", 1, "not TOML: Invalid value at end of file"),
        ("[vassal\n", 1, "not TOML"),
        ('\n\nname = "x" y', 3, "at column 12"),
        ("a = " + "[" * 5000, 0, "nested too deeply"),
        ("a = " + "9" * 5000, 0, "not TOML"),
    ],
)
def test_syntax_errors_have_line_and_column(text: str, line: int, found: str) -> None:
    problem = only_problem(text)
    assert problem.line == line
    assert found in problem.found


@pytest.mark.parametrize(
    ("text", "line", "key", "told"),
    [
        ("", 0, "", "no vassal"),
        ('[vassal]\nname = "app"\n', 1, "vassal", "double brackets"),
        ("vassals = 1\n" + VASSAL, 1, "vassals", "did you mean vassal?"),
        (VASSAL + "proceses = 2\n", NEXT, "vassal.proceses", "did you mean processes?"),
        (VASSAL + "threads = 0\n", NEXT, "vassal.threads", "at least 1"),
        (VASSAL + "threads = '2'\nlisten = 1.5\n", NEXT + 1, "vassal.listen", "whole number"),
        (VASSAL + "heartbeat = '-5s'\n", NEXT, "vassal.heartbeat", "cannot be negative"),
        (VASSAL + "copies = 0\n", NEXT, "vassal.copies", "at least 1"),
        (VASSAL + "supervision = 1\n", NEXT, "vassal.supervision", "a table"),
        (VASSAL + "[vassal.supervision]\nmery = 1", NEXT + 1, "vassal.supervision.mery", "mercy?"),
        (VASSAL.replace('name = "app"\n', ""), 1, "vassal", "no name"),
        (VASSAL.replace('"app"', '"a/b"'), 2, "vassal.name", "a name"),
        (VASSAL.replace("socket", "#"), 1, "vassal", "no socket"),
        (VASSAL.replace("cgi =", "# ="), 1, "vassal", "nothing to serve"),
        (VASSAL.replace("app.sock", "x" * 120), 3, "vassal.socket", "limit is 107"),
        (VASSAL + VASSAL.replace("app.sock", "b.sock"), NEXT + 1, "vassal.name", "is taken"),
        (VASSAL + VASSAL.replace('"app"', '"b"'), NEXT + 2, "vassal.socket", "taken by vassal app"),
        (VASSAL + "http-socket = ['127.0.0.1:80', ':80']", NEXT, "vassal.http-socket", "taken by vassal app"),
        (VASSAL + "http-socket = ':80'\n" + NGINX + "listen = ':80'", NEXT + 3, "front.listen", "taken"),
        (VASSAL.replace("socket", "http-socket") + NGINX, 1, "vassal", "no socket"),
        (VASSAL + "[front]\nkind = 'ngnix'", NEXT + 1, "front.kind", "did you mean nginx?"),
        (VASSAL + "[run]\nseed = -1", NEXT + 1, "run.seed", "whole number"),
        (VASSAL + "[emperor]\nlog-style = 'xml'", NEXT + 1, "emperor.log-style", "json"),
        (VASSAL + "[parameters]\na = []", NEXT + 1, "parameters.a", "number or text"),
    ],
)
def test_a_problem_has_line_key_and_remedy(text: str, line: int, key: str, told: str) -> None:
    problem = only_problem(text)
    assert (problem.file, problem.line, problem.key) == ("test.toml", line, key)
    assert told in str(problem)


LOAD = "[[load]]\nkind = 'burst'\nclients = 1\n"
FAULT = "[[fault]]\nid = 'f'\nat = '1s'\nkind = 'kill'\ntarget = 'master:app'\n"
EXPECT = "[[expect]]\nwhat = 'kills(master:app)'\nmax = 0\n"


@pytest.mark.parametrize(
    ("text", "key", "told"),
    [
        (LOAD.replace("kind", "# "), "load", "no kind"),
        (LOAD.replace("burst", "bust"), "load.kind", "did you mean burst?"),
        (LOAD.replace("clients = 1", ""), "load", "no clients"),
        (LOAD + "rate = 3", "load.rate", "does not go with burst"),
        (LOAD + "path = 'x'", "load.path", "slash"),
        (LOAD + "method = 'get'", "load.method", "GET"),
        (LOAD + "vassal = 'ap'", "load.vassal", "did you mean app?"),
        (LOAD + "id = 'a'\n" + LOAD + "id = 'a'", "load.id", "taken"),
        (FAULT.replace("at =", "# ="), "fault", "one of at, on, after"),
        (FAULT + "on = 'credit'", "fault", "one of at, on, after"),
        (FAULT.replace("master:app", "app"), "fault.target", "write emperor"),
        (FAULT.replace("master:app", "master:ap"), "fault.target", "did you mean app?"),
        (FAULT.replace("master:app", "worker:app/3"), "fault.target", "1 to 2"),
        (FAULT.replace("master:app", "link:emperor>master:app"), "fault.target", "what kill can hit"),
        (FAULT.replace("kill", "hang").replace("master:app", "fork-server"), "fault.target", "what hang can"),
        (FAULT + "delay = '1s'", "fault.delay", "does not go with kill"),
        (FAULT + "signal = 'SIGFOO'", "fault.signal", "TERM"),
        (FAULT + "times = 2", "fault.times", "times without every"),
        (FAULT + "every = '1s'", "fault.every", "every without times"),
        (FAULT + FAULT, "fault.id", "taken"),
        (FAULT.replace("at = '1s'", "after = 'g+1s'"), "fault.after", "no fault g"),
        (FAULT.replace("at = '1s'", "after = 'f+1s'"), "fault.after", "wait for each other"),
        (FAULT.replace("at = '1s'", "on = 'stat(master:app)=READY'"), "fault.on", "did you mean state?"),
        (FAULT.replace("at = '1s'", "on = 'state(master:app)=REDY'"), "fault.on", "did you mean READY?"),
        (FAULT.replace("at = '1s'", "on = 'log~/(/'"), "fault.on", "regular expression"),
        (EXPECT.replace("kills", "kils"), "expect.what", "restarts(TARGET)"),
        (EXPECT.replace("app", "ap"), "expect.what", "did you mean app?"),
        (EXPECT.replace("max = 0", ""), "expect", "min or max"),
        (EXPECT.replace("max = 0", "max = '1s'"), "expect.max", "whole number"),
        (EXPECT + "min = 1", "expect.min", "more than max"),
        (EXPECT + "ratio = {}", "expect.ratio", "does not go with count"),
        (EXPECT + "between = ['2s', '1s']", "expect.between", "earlier first"),
        (EXPECT + "until = 'fault:x'", "expect.until", "no fault x"),
        ("[[expect]]\nmax = 0", "expect", "no what"),
        ("[[expect]]\nwhat = 'order'", "expect", "no events"),
        ("[[expect]]\nwhat = 'order'\nevents = ['credit', 'fault:x']", "expect.events", "no fault x"),
        ("[[expect]]\nwhat = 'http'\nratio = { '600' = 1 }", "expect.ratio.600", "a status"),
        ("[[expect]]\nwhat = 'http'\nratio = { '200' = 2 }", "expect.ratio.200", "0 to 1"),
        ("[[expect]]\nwhat = 'http'\nratio = { '200' = 1 }\nload = 'x'", "expect.load", "no load x"),
        ("[[expect]]\nwhat = 'log'", "expect", "no match and no never"),
        ("[[expect]]\nwhat = 'log'\nmatch = '('", "expect.match", "regular expression"),
        ("[[expect]]\nwhat = 'time(fault:f)'\nmax = '1s'", "expect.what", "time(PATTERN, PATTERN)"),
    ],
)
def test_a_problem_of_the_timeline_is_told(text: str, key: str, told: str) -> None:
    problem = only_problem(VASSAL + text)
    assert problem.key == key
    assert problem.line >= NEXT
    assert told in str(problem)


def test_with_two_vassals_a_load_says_whom_it_asks() -> None:
    two = VASSAL + VASSAL.replace('"app', '"b')
    assert only_problem(two + LOAD).found == "no vassal"
    assert load(two + LOAD + "vassal = 'b'").loads[0].vassal == "b"


def test_everything_wrong_is_told_at_once_in_file_order() -> None:
    fault = FAULT.replace("app", "b")
    found = problems("nam = 1\n" + VASSAL + "threads = 0\nlisten = 'x'\n" + fault + "[run]\nx = 1")
    assert [problem.line for problem in found] == sorted(problem.line for problem in found)
    keys = [problem.key for problem in found]
    assert keys == ["nam", "vassal.threads", "vassal.listen", "fault.target", "run.x"]


def test_copies_tell_their_problems_once() -> None:
    found = problems(VASSAL.replace("app.sock", "%n.sock") + "copies = 50\nthreads = 0\nprocesss = 1\n")
    assert [problem.key for problem in found] == ["vassal.threads", "vassal.processs"]


def test_copies_of_one_socket_are_told_of_the_name_variable() -> None:
    assert "%n" in only_problem(VASSAL + "copies = 2\n").remedy


def test_a_problem_reads_as_one_line() -> None:
    assert str(only_problem(VASSAL + "cgi-loadlib = 'perl.so'\n")) == (
        f"test.toml:{NEXT}: vassal.cgi-loadlib: refused "
        "(run the script by a program instead: cgi-helper, or keep Python warm: cgi-warm)"
    )


def test_warnings_have_lines() -> None:
    (warning,) = load(VASSAL + "no-orphans = true\n").warnings
    assert (warning.line, warning.key) == (NEXT, "vassal.no-orphans")


# ---- targets and patterns ----


@pytest.mark.parametrize(
    ("pattern", "trace", "matches"),
    [
        ("state(master:app)=READY", Trace(1, "master:app", "state", "READY"), True),
        ("state(master:app)=READY", Trace(1, "master:app", "state", "STABLE"), False),
        ("state(master:*)=READY", Trace(1, "master:app-7", "state", "READY"), True),
        ("state(master:app)=*", Trace(1, "master:app-7", "state", "READY"), False),
        ("exit(worker:app/*)", Trace(1, "worker:app/12", "exit"), True),
        ("exit(worker:app/1)", Trace(1, "worker:app/12", "exit"), False),
        ("probe.*(master:app)", Trace(1, "master:app", "probe.cleared"), True),
        ("probe.sent", Trace(1, "master:app", "probe.sent"), True),
        ("fault:hang", Trace(1, "fault:hang", "fault"), True),
        ("fault:hang", Trace(1, "fault:hang", "heal"), False),
        ("heal(fault:hang)", Trace(1, "fault:hang", "heal"), True),
        ("request(load:a)=[!2]*", Trace(1, "load:a", "request", "504"), True),
        ("request(load:a)=[!2]*", Trace(1, "load:a", "request", "200"), False),
        ("request~/^50. .*cgi$/", Trace(1, "load:a", "request", "502", reason="/x.cgi"), True),
        ("log~/no heart/", Trace(1, "emperor", "log", reason="app sent no heartbeat"), True),
        ("log~/^sent/", Trace(1, "emperor", "log", reason="app sent no heartbeat"), False),
        ("kill(master:app) ", Trace(1, "master:app", "kill", reason="stall"), True),
        ("state(*)=CONVICTED reason=*spin*", Trace(1, "emperor", "state", "CONVICTED", 0, "it spins"), True),
        ("state(master:app)=CONVICTED reason=blocked", Trace(1, "master:app", "state", "CONVICTED"), False),
        ("beat(link:emperor<>master:app)", Trace(1, "link:emperor<>master:app", "beat"), True),
    ],
)
def test_patterns_choose_entries_of_the_timeline(pattern: str, trace: Trace, matches: bool) -> None:
    assert Pattern.parse(pattern).matches(trace) is matches


def test_a_link_has_ends_and_a_direction() -> None:
    there, back = parse_target("link:emperor>master:app"), parse_target("link:emperor<master:app")
    assert [end.text for end in there.ends] == ["emperor", "master:app"]
    assert [end.text for end in back.ends] == ["master:app", "emperor"]
    assert not there.both
    assert parse_target("link:emperor<>master:app").both


@pytest.mark.parametrize(
    "text",
    [
        *("", "master", "master:", "worker:app", "worker:app/x", "emperor:x", "machine"),
        *("link:emperor", "link:emperor>load:x", "link:emperor>link:emperor>master:a"),
    ],
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write emperor|between processes"):
        parse_target(text)


# ---- lines ----


def test_lines_of_keys_in_all_forms_of_toml() -> None:
    text = dedent('''\
        a.b = 1  # [[no]]
        "c d".'e' = """
        [not.a.table]
        x = 1\\""" """""
        f = [
            1, { g = "]" }, # ]

            [\'\'\'
        ]\'\'\'],
        ]
        [t]
        h = 1979-05-27 07:32:00
        [[v]]
        [v.s]
        i = {j = {k = 1}, l.m = 2}
        [[v]]
        n = 1
        [[v.w]]
        o = 1
    ''')
    lines = key_lines(text)
    assert lines[("a",)] == lines[("a", "b")] == 1
    assert lines[("c d", "e")] == 2
    assert ("x",) not in lines
    assert lines[("f", 1, "g")] == 6
    assert lines[("f", 2, 0)] == 8
    assert lines[("t",)] == 11
    assert lines[("t", "h")] == 12
    assert lines[("v", 0)] == 13
    assert lines[("v", 0, "s", "i", "j", "k")] == lines[("v", 0, "s", "i", "l", "m")] == 15
    assert lines[("v", 1, "n")] == 17
    assert lines[("v", 1, "w", 0, "o")] == 19
    assert line_of(lines, ("v", 1, "missing", "deep")) == 16
    assert line_of(lines, ("missing",)) == 0
