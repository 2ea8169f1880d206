"""The table of options, the values it reads, and the structs it fills."""

import configparser

import msgspec
import pytest

from pyemperor.protocol.errors import ConfigError
from pyemperor.protocol.options import (
    LARGEST_ENVIRONMENT,
    OPTIONS,
    Address,
    Backoff,
    EmperorOptions,
    Helper,
    Mount,
    Option,
    Supervision,
    Vassal,
    emperor_from,
    seconds,
    supervision_from,
    supervision_under,
    vassal_from,
)
from pyemperor.protocol.quantities import flag, mode, size
from pyemperor.protocol.report import Report
from pyemperor.protocol.values import address, helper, mount

STRUCTS: dict[str, type[msgspec.Struct]] = {
    "emperor": EmperorOptions,
    "vassal": Vassal,
    "supervision": Supervision,
    "backoff": Backoff,
}
SERVES = {"socket": "/run/a.sock", "cgi": "/cgi-bin=/srv/cgi-bin"}
SEED = """
[uwsgi]
uid = www-data
gid = www-data
chdir = /usr/local/nginx/vhosts/testdomain/cgi-bin
plugins = cgi
cgi = /cgi-bin=/usr/local/nginx/vhosts/testdomain/cgi-bin
cgi-allowed-ext = .cgi
socket = /var/run/nginx/testdomain_cgi-bin_uwsgi.sock
master = true
heartbeat = 25
processes = 2
threads = 2
reload-mercy = 10
no-orphans = true
post-buffering = 4096
max-requests = 2048
vacuum = true
logto = /usr/local/nginx/logs/uwsgi_testdomain_cgi-bin.log
"""


def report() -> Report:
    return Report("app.toml", lambda path: 0)


def vassal(**options: object) -> Vassal:
    """Make a vassal from options in Python's spelling; it must have no problem."""
    given = {key.replace("_", "-"): value for key, value in options.items()}
    notes = report()
    result = vassal_from(SERVES | given, notes, name="app", base="/srv")
    notes.raise_problems()
    return result


def problems(**options: object) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        vassal(**options)
    return [(problem.key, problem.remedy) for problem in caught.value.problems]


# ---- the table ----


def test_each_name_stands_once_in_a_scope() -> None:
    names = [(row.scope, name) for row in OPTIONS for name in (row.name, *row.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("scope", STRUCTS)
def test_what_is_honoured_has_a_field_and_every_field_has_a_row(scope: str) -> None:
    struct = STRUCTS[scope]
    honoured = {row.field for row in OPTIONS if row.scope == scope and row.status == "honoured"}
    fields = {field.name for field in msgspec.structs.fields(struct)} - {"name"}
    assert fields - {"supervision", "owner", "places"} <= honoured
    assert all(hasattr(struct, field) for field in honoured)


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: f"{row.scope}.{row.name}")
def test_every_row_explains_itself(row: Option) -> None:
    assert row.meaning
    assert bool(row.why) or row.status in ("honoured", "planned")
    assert isinstance(row.default, tuple) == row.repeat


def test_one_value_has_one_default() -> None:
    default = {(row.scope, row.name): row.default for row in OPTIONS}
    assert default["vassal", "reload-mercy"] == default["supervision", "mercy"]
    assert default["vassal", "start-timeout"] == default["supervision", "start-timeout"]


def test_defaults_are_values_that_the_structs_accept() -> None:
    for value in (Vassal("app"), EmperorOptions(), Supervision()):
        assert msgspec.convert(msgspec.to_builtins(value), type(value)) == value


# ---- values ----


@pytest.mark.parametrize(
    ("raw", "result"),
    [(25, 25.0), (0.5, 0.5), ("25", 25.0), ("250ms", 0.25), ("1.5s", 1.5), ("2m", 120.0), ("1h", 3600.0)],
)
def test_seconds(raw: object, result: float) -> None:
    assert seconds(raw) == pytest.approx(result)


def test_a_duration_may_have_several_parts() -> None:
    assert seconds("1h 30m") == seconds("90m") == 5400.0


@pytest.mark.parametrize("raw", ["", "5 parrots", "ms", "inf", float("nan"), True, None, [1], 1e300, "s5"])
def test_what_is_no_duration_is_refused(raw: object) -> None:
    with pytest.raises(ValueError, match=r"write|at most"):
        seconds(raw)


@pytest.mark.parametrize("raw", [-1, -0.5, "-5", "-5s", "-1m30s"])
def test_no_duration_is_negative(raw: object) -> None:
    with pytest.raises(ValueError, match="negative"):
        seconds(raw)


@pytest.mark.parametrize(("raw", "result"), [("4k", 4096), ("1M", 1 << 20), ("2G", 2 << 30), ("7", 7)])
def test_sizes(raw: object, result: int) -> None:
    assert size(raw) == result


@pytest.mark.parametrize(
    ("raw", "result"),
    [
        ("/run/a.sock", Address("unix", "/run/a.sock")),
        ("run/a.sock", Address("unix", "/srv/run/a.sock")),
        ("a.sock", Address("unix", "/srv/a.sock")),
        ("unix:///run/a.sock", Address("unix", "/run/a.sock")),
        ("unix:/run/a.sock", Address("unix", "/run/a.sock")),
        ("@app", Address("unix", "@app")),
        ("127.0.0.1:8080", Address("tcp", host="127.0.0.1", port=8080)),
        (":8080", Address("tcp", host="", port=8080)),
        ("*:80", Address("tcp", host="", port=80)),
        ("[::1]:80", Address("tcp", host="::1", port=80)),
    ],
)
def test_addresses(raw: str, result: Address) -> None:
    assert address(raw, "/srv") == result


@pytest.mark.parametrize("raw", ["", "3031", "host:http", "host:99999", 3031, "/" + "x" * 107, "a\0b", "@\0"])
def test_what_is_no_address_is_refused(raw: object) -> None:
    with pytest.raises(ValueError, match=r"write|limit|at most"):
        address(raw, "/srv")


def test_a_path_of_107_bytes_still_fits_into_a_socket_address() -> None:
    assert len(address("/" + "x" * 106, "").path) == 107


@pytest.mark.parametrize(
    ("one", "other", "collide"),
    [
        ("/run/a", "/run/./a", True),
        ("/run/a", "/run/b", False),
        ("127.0.0.1:80", "*:80", True),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("127.0.0.1:80", "/run/a", False),
    ],
)
def test_addresses_that_cannot_both_be_bound_collide(one: str, other: str, collide: bool) -> None:
    assert address(one, "").collides(address(other, "")) is collide
    assert address(other, "").collides(address(one, "")) is collide


def test_mounts_and_helpers() -> None:
    assert mount("/cgi-bin/=scripts", "/srv") == Mount("/cgi-bin", "/srv/scripts")
    assert mount("scripts", "/srv") == Mount("", "/srv/scripts")
    assert mount("/a=/b=c", "/srv") == Mount("/a", "/b=c")
    assert helper(".py=python3 -u 'a b'", "/srv") == Helper(".py", ("python3", "-u", "a b"))
    assert helper(".x=bin/run", "/srv") == Helper(".x", ("/srv/bin/run",))


@pytest.mark.parametrize(("raw", "result"), [("660", 0o660), ("0600", 0o600), (True, 0o666), ("1", 0o666)])
def test_permission_bits(raw: object, result: int) -> None:
    assert mode(raw) == result


@pytest.mark.parametrize("raw", [660, 0o660, "888", "u+rw", False])
def test_permission_bits_must_be_octal_digits_in_quotes(raw: object) -> None:
    with pytest.raises(ValueError, match='"660"'):
        mode(raw)


@pytest.mark.parametrize("raw", ["maybe", 2, 1.0, None])
def test_flags_are_yes_or_no(raw: object) -> None:
    with pytest.raises(ValueError, match="true or false"):
        flag(raw)


# ---- a vassal ----


def test_a_vassal_takes_uwsgis_names_and_one_text_for_a_list() -> None:
    app = vassal(workers=2, threads="2", cgi_index="index.cgi", env=["A=1", "B=x=y"], chmod_socket="600")
    assert (app.processes, app.threads, app.cgi_index, app.chmod_socket) == (2, 2, ("index.cgi",), 0o600)
    assert app.env == (("A", "1"), ("B", "x=y"))
    assert app.socket == (Address("unix", "/run/a.sock"),)


def test_several_sockets_of_both_kinds() -> None:
    app = vassal(socket=["a.sock", ":3031"], http_socket="127.0.0.1:8080")
    assert [str(one) for one in app.addresses] == ["/srv/a.sock", ":3031", "127.0.0.1:8080"]


def test_the_vassals_supervision_is_its_own_then_the_outer_one() -> None:
    notes = report()
    outer = supervision_from({"intensity": 9, "mercy": "5s", "backoff": {"max": "10s"}}, notes)
    inner = supervision_from({"backoff": {"factor": 3}}, notes, outer=outer)
    app = vassal_from(SERVES | {"reload-mercy": 10}, notes, name="a", supervision=inner)
    assert not notes.problems
    assert app.supervision.intensity == 9
    assert app.supervision.backoff == Backoff(factor=3, max=10)
    assert app.reload_mercy == app.supervision.mercy == 10
    assert app.start_timeout == 60


def test_scale_stretches_given_times_and_defaults_alike() -> None:
    notes = report()
    app = vassal_from(SERVES | {"heartbeat": 10}, notes, name="a", scale=0.1)
    emperor = emperor_from({}, notes, scale=0.1)
    assert app.heartbeat == pytest.approx(1)
    assert app.cgi_timeout == pytest.approx(6)
    assert app.supervision.backoff.max == pytest.approx(6)
    assert app.supervision.backoff.factor == 2
    assert emperor.emperor_required_heartbeat == pytest.approx(3)


def test_a_vassal_crosses_to_another_process_unchanged() -> None:
    app = vassal(cgi_helper=".py=python3 -u", http_socket=":8080", env="A=1", uid=33, heartbeat=25)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(app), type=Vassal) == app


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"threads": 0}, "threads"),
        ({"processes": -1}, "processes"),
        ({"processes": True}, "processes"),
        ({"heartbeat": "-5s"}, "heartbeat"),
        ({"buffer_size": "64k"}, "buffer-size"),
        ({"cgi_helper": ".pl="}, "cgi-helper"),
        ({"cgi_helper": ".pl='perl"}, "cgi-helper"),
        ({"env": "A"}, "env"),
        ({"uid": "a b"}, "uid"),
        ({"cgi": "cgi-bin=x"}, "cgi"),
        ({"cgi": ["/a=x", "/a/=y"]}, "cgi"),
        ({"vacuum": "perhaps"}, "vacuum"),
        ({"cgi_loadlib": "perl.so"}, "cgi-loadlib"),
        ({"socket": []}, ""),
        ({"cgi": []}, ""),
        ({"processes": 1, "workers": 1}, "workers"),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, object], key: str) -> None:
    assert [name for name, _ in problems(**options)] == [key]


@pytest.mark.parametrize("number", ["99999999999", "4294967295", "²", "1" * 5000])
@pytest.mark.parametrize("option", ["uid", "gid", "chown-socket"])
def test_a_number_that_no_user_can_have_is_refused_where_it_stands(option: str, number: str) -> None:
    assert problems(**{option: number}) == [(option, "a number of a user or group is at most 4294967294")]


def test_a_misspelt_option_is_an_error_with_a_suggestion() -> None:
    assert problems(vaccum=True) == [("vaccum", "did you mean vacuum?")]
    assert problems(cgi_allow_ext=".cgi") == [("cgi-allow-ext", "did you mean cgi-allowed-ext?")]


def test_everything_wrong_is_told_at_once() -> None:
    wrong = problems(threads=0, heartbeat="soon", listen=-1)
    assert [key for key, _ in wrong] == ["threads", "heartbeat", "listen"]


def test_options_without_effect_are_warned_of_in_honest_words() -> None:
    notes = report()
    vassal_from(SERVES | {"no-orphans": True, "mules": 3}, notes, name="app")
    assert not notes.problems
    assert [(note.key, note.found) for note in notes.warnings] == [
        ("no-orphans", "accepted, has no effect"),
        ("mules", "not supported yet, has no effect"),
    ]


def test_the_published_vassal_file_is_understood_line_by_line() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(SEED)
    notes = report()
    app = vassal_from(dict(parser["uwsgi"]), notes, name="testdomain_cgi-bin")
    assert not notes.problems
    assert (app.heartbeat, app.processes, app.threads, app.reload_mercy) == (25, 2, 2, 10)
    assert app.max_requests == 2048
    assert app.cgi == (Mount("/cgi-bin", "/usr/local/nginx/vhosts/testdomain/cgi-bin"),)
    without_effect = {note.key for note in notes.warnings}
    ignored = {"plugins", "master", "no-orphans", "vacuum"}
    assert without_effect == ignored


def test_throttles_are_the_delays_of_whoever_asks_for_none() -> None:
    usual = supervision_under(EmperorOptions()).backoff
    assert (usual.initial, usual.max) == (0.1, 60.0)
    slow = supervision_under(EmperorOptions(emperor_throttle=90.0)).backoff
    assert (slow.initial, slow.max) == (90.0, 90.0)
    both = supervision_under(EmperorOptions(emperor_throttle=2.0, emperor_max_throttle=180.0), 0.5).backoff
    assert (both.initial, both.max) == (1.0, 90.0)


def test_more_environment_than_travels_is_refused() -> None:
    notes = report()
    emperor_from({"env": ["A=" + "x" * LARGEST_ENVIRONMENT]}, notes)
    assert [(problem.key, problem.found) for problem in notes.problems] == [("env", "32769 characters in all")]


def test_log_prefix_is_log_date_as_in_uwsgi() -> None:
    """uwsgi_opt_log_date: ``log-prefix = shop %Y`` begins every line with "shop 2026 - "."""
    assert vassal(log_prefix="shop %Y").log_date == "shop %Y"


def test_an_empty_env_of_the_emperor_is_a_problem_and_no_defect() -> None:
    report = Report("emperor.ini", lambda path: 0)
    emperor_from({"emperor": ["/v"], "env": [""]}, report)
    assert [problem.key for problem in report.problems] == ["env"]
