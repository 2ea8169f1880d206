"""Configuration files: what a reader makes of them, and what it says of mistakes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from pyemperor.cli.configuration import (
    emperor_and_warnings,
    kind_of,
    read_emperor,
    read_vassal,
    vassal_and_warnings,
)
from pyemperor.protocol.dialect import Loaded, World, load
from pyemperor.protocol.errors import ConfigError
from pyemperor.protocol.options import Address, EmperorOptions, Mount

SEED = Path(__file__).parents[1] / "seed"
SERVES = "socket = /run/a.sock\ncgi = /srv/cgi-bin\n"


def loaded(files: Mapping[str, str], name: str = "app.ini", section: str = "uwsgi", **world: Any) -> Loaded:
    """Load ``name`` of files in ``/etc``."""

    def read(path: str) -> str:
        try:
            return files[path.removeprefix("/etc/")]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory") from None

    return load(name, World(read=read, cwd="/etc", **world), section=section)


def values(text: str, **world: Any) -> list[tuple[str, str]]:
    """The settings of the section uwsgi; it must have no problem."""
    result = loaded({"app.ini": "[uwsgi]\n" + text}, **world)
    assert result.notes.problems == []
    return [(one.key, one.value) for one in result.settings]


def vassal_file(folder: Path, text: str, name: str = "app.ini") -> str:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return str(file)


def problems(path: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_vassal(path)
    return [f"{problem.line} {problem.key}: {problem.found}" for problem in caught.value.problems]


# ---- the seed ----


def test_the_published_emperor_file() -> None:
    options, warnings = emperor_and_warnings(str(SEED / "emperor.ini"))
    assert warnings == ()
    assert options == EmperorOptions(
        emperor=("/etc/uwsgi/vassals",),
        uid="www-data",
        gid="www-data",
        emperor_pidfile="/var/run/uwsgi/emperor.pid",
        daemonize="/var/log/uwsgi_emperor.log",
        places=options.places,
    )
    assert ("daemonize", str(SEED / "emperor.ini"), 6) in options.places


def test_the_published_vassal_file() -> None:
    vassal, warnings = vassal_and_warnings(str(SEED / "testdomain_cgi-bin.ini"))
    folder = "/usr/local/nginx/vhosts/testdomain/cgi-bin"
    assert vassal.name == "testdomain_cgi-bin"
    assert vassal.socket == (Address("unix", "/var/run/nginx/testdomain_cgi-bin_uwsgi.sock"),)
    assert (vassal.cgi, vassal.chdir) == ((Mount("/cgi-bin", folder),), folder)
    assert (vassal.processes, vassal.threads, vassal.heartbeat, vassal.reload_mercy) == (2, 2, 25, 10)
    assert (vassal.uid, vassal.gid, vassal.cgi_allowed_ext) == ("www-data", "www-data", (".cgi",))
    assert vassal.logto == "/usr/local/nginx/logs/uwsgi_testdomain_cgi-bin.log"
    assert {note.found for note in warnings} == {"accepted, has no effect"}


def test_a_file_says_what_it_is_for(tmp_path: Path) -> None:
    assert kind_of(str(SEED / "emperor.ini")) == "emperor"
    assert kind_of(str(SEED / "testdomain_cgi-bin.ini")) == "vassal"
    assert kind_of(vassal_file(tmp_path, '[vassal]\nsocket = "x"', "a.toml")) == "vassal"
    assert kind_of(vassal_file(tmp_path, '[emperor]\nemperor = "x"', "b.toml")) == "emperor"
    assert kind_of(vassal_file(tmp_path, '[[vassal]]\nname = "x"', "c.toml")) == "scenario"


# ---- all formats ----


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("app.ini", "[uwsgi]\nsocket = %n.sock\nsocket = :3031\ncgi = /c=cgi-bin\nthreads = 2\nmaster = true\n"),
        ("app.yml", "uwsgi:\n  socket: %n.sock\n  socket: ':3031'\n  cgi: /c=cgi-bin\n  threads: 2\n"),
        ("app.yaml", "uwsgi:\n  socket:\n    - %n.sock\n    - ':3031'\n  cgi: [/c=cgi-bin]\n  threads: 2\n"),
        ("app.json", '{"uwsgi": {"socket": ["%n.sock", ":3031"], "cgi": "/c=cgi-bin", "threads": 2}}'),
        ("app.js", '{"uwsgi": {"socket": "%n.sock", "socket": ":3031", "cgi": "/c=cgi-bin", "threads": "2"}}'),
        ("app.xml", "<uwsgi><socket>%n.sock</socket><socket>:3031</socket><cgi>/c=cgi-bin</cgi>"
         "<threads>2</threads><master/></uwsgi>"),
        ("app.toml", 'socket = ["%n.sock", ":3031"]\ncgi = "/c=cgi-bin"\nthreads = 2\n'),
        ("app.toml", '[vassal]\nsocket = ["%n.sock", ":3031"]\ncgi = "/c=cgi-bin"\nthreads = 2\n'
         "[vassal.supervision]\nintensity = 5\n"),
    ],
)  # fmt: skip
def test_one_vassal_in_every_format(tmp_path: Path, name: str, text: str) -> None:
    vassal = read_vassal(vassal_file(tmp_path, text, name))
    assert vassal.name == "app"
    assert [str(one) for one in vassal.socket] == [f"{tmp_path}/app.sock", ":3031"]
    assert (vassal.cgi, vassal.threads) == ((Mount("/c", f"{tmp_path}/cgi-bin"),), 2)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("app.yml", "uwsgi:\n  a: {b: 1}\n", "2 a: a table within the section"),
        ("app.yml", "uwsgi:\n  - a\n", "2 : a section without keys"),
        ("app.yml", "uwsgi:\n a: 'x\n", "3 : not YAML: found unexpected end of stream"),
        ("app.yml", "a: 1\n", "0 : no section uwsgi"),
        ("app.json", '{"uwsgi":\n {"a": [[1]]}}', "2 a: a table within the section"),
        ("app.json", '{"uwsgi":\n {"a"}}', "2 : not JSON: Expecting ':' delimiter at column 6"),
        ("app.json", '{"uwsgi": {"a": NaN}}', "0 : not JSON: NaN is no number"),
        ("app.json", "[]", "0 : no section uwsgi"),
        ("app.xml", "<uwsgi>\n<a>", "2 : not XML: no element found"),
        ("app.xml", '<!DOCTYPE a [<!ENTITY e SYSTEM "/etc/passwd">]>\n<uwsgi><a>&e;</a></uwsgi>',
         "1 : a DOCTYPE, whose entities could read any file"),
        ("app.xml", "<uwsgi><a><b>1</b></a></uwsgi>", "1 b: an element within an option"),
        ("app.xml", "<other/>", "0 : no section uwsgi"),
        ("app.toml", 'vassal = "x"', "1 vassal: \"x\""),
        ("app.toml", "a = ", "1 : not TOML: Invalid value at end of file"),
        ("app.txt", "", "0 : the ending of its name tells no format"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_format_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    file = vassal_file(tmp_path, text, name)
    assert said.format(file) in problems(file)


def test_a_file_that_cannot_be_read_says_why_and_nothing_else(tmp_path: Path) -> None:
    (said,) = problems(str(tmp_path / "none.ini"))
    assert said == f"0 : {tmp_path}/none.ini cannot be read: No such file or directory"
    (tmp_path / "latin.ini").write_bytes(b"[uwsgi]\nchdir = /caf\xe9\n")
    (said,) = problems(str(tmp_path / "latin.ini"))
    assert "it is not UTF-8 text" in said


def test_a_path_that_does_not_end_as_a_configuration_is_told_what_it_is(tmp_path: Path) -> None:
    assert problems(str(tmp_path / "none")) == ["0 : there is no such file"]
    (folder := tmp_path / "vassals").mkdir()
    with pytest.raises(ConfigError, match=f"this is a folder; expected a file .*--emperor {folder}"):
        read_vassal(str(folder))
    (text := tmp_path / "text").write_text("hello")
    with pytest.raises(ConfigError, match=r"tells no format; expected \.ini .* \(name it \.ini if its options"):
        read_vassal(str(text))


@pytest.mark.parametrize("include", ["zero.ini", "fifo.ini", "huge.ini"])
def test_what_is_included_is_read_within_bounds(tmp_path: Path, include: str) -> None:
    os.mkfifo(tmp_path / "fifo.ini")
    (tmp_path / "zero.ini").symlink_to("/dev/zero")
    (tmp_path / "huge.ini").touch()
    os.truncate(tmp_path / "huge.ini", 1 << 40)
    said = problems(vassal_file(tmp_path, f"[uwsgi]\nini = {include}\n", "app.ini"))
    assert any("cannot be read" in one for one in said)


def test_a_section_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    file = vassal_file(tmp_path, "[uswgi]\nsocket = x\n")
    with pytest.raises(ConfigError) as caught:
        read_vassal(file)
    (problem,) = caught.value.problems
    assert (problem.found, problem.remedy) == ("no section uwsgi", "did you mean uswgi?")


# ---- values ----


def test_a_bare_name_and_uwsgis_words_for_true(tmp_path: Path) -> None:
    bare = "disable-logging\nchmod-socket\nlog-date\n"
    file = vassal_file(tmp_path, f"[uwsgi]\n{SERVES}{bare}log-4xx = yes\nlog-5xx = off\nlog-zero = x\n")
    vassal, warnings = vassal_and_warnings(file)
    assert (vassal.disable_logging, vassal.chmod_socket, vassal.log_date) == (True, 0o666, "true")
    assert (vassal.log_4xx, vassal.log_5xx, vassal.log_zero) == (True, False, True)
    assert [(note.line, note.found) for note in warnings] == [(9, '"x" is taken as true')]


def test_a_number_ends_where_its_digits_end_and_the_user_hears_of_it(tmp_path: Path) -> None:
    file = vassal_file(tmp_path, f"[uwsgi]\n{SERVES}processes = 4 # of them\ncgi-timeout = 90s\n")
    vassal, warnings = vassal_and_warnings(file)
    assert (vassal.processes, vassal.cgi_timeout) == (4, 90)
    assert [(note.line, note.found) for note in warnings] == [(4, '"4 # of them" is taken as 4')]


def test_the_last_value_counts_and_the_user_hears_of_the_others(tmp_path: Path) -> None:
    file = vassal_file(tmp_path, f"[uwsgi]\n{SERVES}workers = 2\nprocesses = 3\nenv = A=1\nenv = B=2\n")
    vassal, warnings = vassal_and_warnings(file)
    assert (vassal.processes, vassal.env) == (3, (("A", "1"), ("B", "2")))
    assert [(note.line, note.found) for note in warnings] == [
        (4, "has no effect: line 5 gives processes another value")
    ]


def test_everything_wrong_is_told_at_once_with_its_own_file_and_no_quotes(tmp_path: Path) -> None:
    vassal_file(tmp_path, "[uwsgi]\nthreads = lots\n", "base.ini")
    file = vassal_file(tmp_path, f"[uwsgi]\n{SERVES}include = base.ini\nchmod-socket = rw\n")
    with pytest.raises(ConfigError) as caught:
        read_vassal(file)
    first, second = caught.value.problems
    assert (first.file, first.line, first.key) == (str(tmp_path / "base.ini"), 2, "threads")
    assert (second.file, second.line, second.key) == (file, 5, "chmod-socket")
    assert second.remedy == "write the three octal digits: 660"


def test_what_is_no_option_of_this_file_is_warned_of(tmp_path: Path) -> None:
    text = f"[uwsgi]\n{SERVES}vaccum = true\nemperor-freq = 5\nstatic-map = /a=/b\nmine = 1\nthreads = %(mine)\n"
    _, warnings = vassal_and_warnings(vassal_file(tmp_path, text))
    assert [(note.key, note.found, note.remedy) for note in warnings] == [
        ("vaccum", "unknown option, has no effect", "did you mean vacuum?"),
        ("emperor-freq", "an option of the Emperor, without effect on a vassal", ""),
        ("static-map", "not supported, has no effect", "nginx serves files"),
    ]


def test_a_misspelt_option_is_told_with_what_is_missing_for_it(tmp_path: Path) -> None:
    file = vassal_file(tmp_path, "[uwsgi]\nsocket = /run/a.sock\ncig = /srv/cgi-bin\n")
    assert problems(file) == ["0 : nothing to serve", "3 cig: unknown option, has no effect"]


def test_strict_makes_an_unknown_option_an_error(tmp_path: Path) -> None:
    file = vassal_file(tmp_path, f"[uwsgi]\n{SERVES}strict = true\nset-ph = mine=1\nvaccum = true\n")
    assert problems(file) == ["6 vaccum: unknown option, and the file says strict"]
    lenient = vassal_file(tmp_path, f"[uwsgi]\n{SERVES}strict = false\nvaccum = true\n")
    assert read_vassal(lenient).name == "app"


def test_rules_that_may_guard_something_are_an_error(tmp_path: Path) -> None:
    file = vassal_file(tmp_path, f"[uwsgi]\n{SERVES}route = ^/admin break:403\nchroot = /jail\n")
    assert problems(file) == ["4 route: refused", "5 chroot: refused"]


def test_what_the_emperor_includes_stands_around_the_vassals_file(tmp_path: Path) -> None:
    before = vassal_file(tmp_path, "[uwsgi]\nthreads = 7\nprocesses = 7\nchdir = /%N\n", "before.inc.ini")
    after = vassal_file(tmp_path, "[uwsgi]\nlisten = 9\n", "after.inc.ini")
    file = vassal_file(tmp_path, f"[uwsgi]\n{SERVES}processes = 2\nlisten = 1\nchmod-socket = %(bits)\n")
    emperor = EmperorOptions(
        vassals_include_before=(before,), vassals_include=(after,), vassal_set=(("bits", "600"),)
    )
    vassal = read_vassal(file, emperor)
    assert (vassal.threads, vassal.processes, vassal.listen) == (7, 2, 9)
    assert (vassal.chdir, vassal.chmod_socket) == ("/app", 0o600)


def test_the_log_has_what_does_not_do_what_was_meant(tmp_path: Path) -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    try:
        read_vassal(vassal_file(tmp_path, f"[uwsgi]\n{SERVES}master = true\nvaccum = true\n"))
    finally:
        logger.remove(sink)
    assert lines == [
        f"{tmp_path}/app.ini:5: vaccum: unknown option, has no effect (did you mean vacuum?)"
    ]


def test_an_emperor_in_toml(tmp_path: Path) -> None:
    file = vassal_file(tmp_path, '[emperor]\nemperor = ["vassals", "glob://b/*.ini"]\numask = "022"\n', "e.toml")
    options = read_emperor(file)
    assert options.emperor == (f"{tmp_path}/vassals", f"glob://{tmp_path}/b/*.ini")
    assert options.umask == 0o022


# ---- what cannot hang or grow ----


def test_placeholders_that_refer_to_themselves_are_an_error() -> None:
    notes = loaded({"app.ini": "[uwsgi]\na = %(b)\nb = %(c)\nc = %(b)\n"}).notes
    assert [problem.found for problem in notes.problems] == ["%(b) refers to itself: b -> c -> b"]


def test_a_value_that_doubles_itself_is_an_error() -> None:
    text = "".join(f"a{number} = %(a{number + 1})%(a{number + 1})\n" for number in range(40)) + "a40 = xx\n"
    notes = loaded({"app.ini": "[uwsgi]\n" + text}).notes
    assert {problem.found for problem in notes.problems} == {
        "more than 65536 characters once its placeholders are filled in"
    }


def test_files_that_include_each_other_are_an_error() -> None:
    files = {"app.ini": "[uwsgi]\ninclude = b.ini\n", "b.ini": "[uwsgi]\nini = app.ini\n"}
    assert [problem.found for problem in loaded(files).notes.problems] == ["app.ini includes itself"]


def test_files_that_inherit_each_other_end() -> None:
    files = {"app.ini": "[uwsgi]\na = 1\ninherit = b.ini\n", "b.ini": "[uwsgi]\nb = 1\ninherit = b.ini\n"}
    assert [one.key for one in loaded(files).settings] == ["a", "inherit", "b", "inherit"]


def test_cycles_have_a_bound() -> None:
    nested = "for-times = 9999\n" * 3 + "a = %(_)\n" + "endfor =\n" * 3
    notes = loaded({"app.ini": "[uwsgi]\n" + nested}).notes
    assert [problem.found for problem in notes.problems] == ["more than 20000 settings"]
    notes = loaded({"app.ini": "[uwsgi]\nfor-times = 99999999999\na = 1\nendfor =\n"}).notes
    assert [problem.expected for problem in notes.problems] == ["a whole number, at most 10000"]


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("include = http://x/y.ini", "only files are read: copy it to one"),
        ("ini = exec:///bin/x", "no program is run to read a configuration: write its output to a file before"),
        ("a = @(exec://hostname)", "no program is run to read a configuration: write its output to a file before"),
        ("resolve = a=localhost", "no name is looked up to read a configuration: write the address"),
        ("include = x.txt", ""),
        ("set = x", ""),
        ("blacklist = a\na = 1", "by blacklist or whitelist"),
        ("declare-option = x=include=$1\nx = y.ini", ""),
    ],
)
def test_what_is_refused(line: str, remedy: str) -> None:
    (problem,) = loaded({"app.ini": f"[uwsgi]\n{line}\n"}).notes.problems
    assert problem.remedy == remedy


# ---- beyond uWSGI ----


def test_blocks_may_stand_in_blocks_and_have_an_else() -> None:
    text = "for = a b\nif-env = X\nk = %(_)\nelse =\nn = %(_)\nendif =\nendfor =\n"
    assert values(text, environ={"X": "1"}) == [("k", "1"), ("k", "1")]
    assert values(text) == [("n", "a"), ("n", "b")]


def test_a_percent_sign_at_the_end_of_a_line_stays() -> None:
    assert values("a = 50%\nb = 1\n") == [("a", "50%"), ("b", "1")]


def test_an_unknown_magic_variable_is_warned_of() -> None:
    result = loaded({"app.ini": "[uwsgi]\nlog-date = %Y-%%m\n; %Q\n[other]\na = %Q\n"})
    assert [one.value for one in result.settings] == ["-%m"]
    assert [note.remedy for note in result.notes.warnings] == ["write %%Y for a percent sign"]


def test_a_byte_order_mark_is_no_character() -> None:
    assert len(loaded({"app.ini": "\ufeff[uwsgi]\na = 1\n"}).settings) == 1


def test_what_was_read_is_known() -> None:
    files = {"app.ini": "[uwsgi]\ninclude = b.yml\n", "b.yml": "uwsgi:\n  a: 1\n"}
    assert loaded(files).files == ("/etc/app.ini", "/etc/b.yml")


def test_a_comment_behind_a_section_is_told_with_what_to_write(tmp_path: Path) -> None:
    """uWSGI takes it for a section of another name, in which nothing is looked for."""
    file = tmp_path / "app.ini"
    file.write_text("[uwsgi] ; ours\nsocket = a\ncgi = b\n[uwsgi]\nsocket = a\ncgi = b\n")
    with pytest.raises(ConfigError) as caught:
        read_vassal(str(file))
    (problem,) = caught.value.problems
    assert (problem.line, problem.found) == (1, "[uwsgi] ; ours has no closing bracket")
    assert problem.remedy == "write [uwsgi]"


def test_a_verb_that_is_none_is_told_with_those_that_are(tmp_path: Path) -> None:
    file = tmp_path / "app.ini"
    file.write_text("[uwsgi]\nsocket = a\ncgi = b\nhook-as-user = frobnicate:x\n")
    with pytest.raises(ConfigError) as caught:
        read_vassal(str(file))
    (problem,) = caught.value.problems
    assert "no verb 'frobnicate': known: append, " in problem.remedy
