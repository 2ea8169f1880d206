"""uWSGI's configuration dialect, rule by rule, and against uWSGI itself where it is installed.

Each test opens with the rule. ``ORACLE`` are files that both read; what PyEmperor makes different on purpose
is in tests/unit/test_ini.py and docs/ini.md.
"""

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyemperor.cli.configuration import world
from pyemperor.protocol.dialect import World, load
from pyemperor.protocol.dialect.logic import WORDS

UWSGI = shutil.which("uwsgi")


def settings(text: str, *, section: str = "uwsgi", **about: Any) -> list[str]:
    """The settings of ``/etc/vassals/app.ini`` as ``key=value``; nothing may be wrong in it."""
    given = World(read=lambda path: text, cwd="/etc/vassals", **about)
    result = load("app.ini", given, section=section)
    assert result.notes.problems == []
    return [f"{one.key}={one.value}" for one in result.settings]


def body(text: str, **about: Any) -> list[str]:
    return settings(f"[uwsgi]\n{text}", **about)


def value(text: str, **about: Any) -> str:
    """The value of the last setting."""
    return body(text, **about)[-1].partition("=")[2]


# ---- lines ----


def test_the_first_equals_sign_splits_and_space_is_cut() -> None:
    """uWSGI core/ini.c: key and value are parted at the first =, blanks, tabs and CR around both are cut."""
    assert body("  a  =  b = c  \r\n\tenv=X=y\n") == ["a=b = c", "env=X=y"]


def test_a_key_alone_has_an_empty_value() -> None:
    """uWSGI core/ini.c: a line without = is a key with an empty value."""
    assert body("master\nvacuum =\n") == ["master=", "vacuum="]


def test_comments_stand_on_lines_of_their_own() -> None:
    """uWSGI core/ini.c: ; and # begin a comment as the first character of a line, and nowhere else."""
    assert body("; a = 1\n  # b = 2\nc = 3 ; no comment\nd = \"#4\"\n") == ["c=3 ; no comment", 'd="#4"']


def test_only_the_section_asked_for_is_read_and_may_come_back() -> None:
    """uWSGI core/ini.c: the section is uwsgi, or what follows the colon; one that is repeated goes on."""
    text = "[uwsgi]\na = 1\n[other]\nb = 2\n[uwsgi]\nc = 3\n"
    assert settings(text) == ["a=1", "c=3"]
    assert settings(text, section="other") == ["b=2"]


def test_repeated_keys_keep_their_order() -> None:
    """Configuring uWSGI: an option may be given several times, and order is kept."""
    assert body("env = A=1\nx = 0\nenv = B=2\n") == ["env=A=1", "x=0", "env=B=2"]


# ---- magic variables ----


@pytest.mark.parametrize(
    ("letter", "expected"),
    [
        ("v", "/etc/vassals"), ("h", "web1"), ("o", "app.ini"), ("p", "/etc/vassals/app.ini"), ("s", "app.ini"),
        ("d", "/etc/vassals/"), ("e", "ini"), ("n", "app"), ("c", "vassals"), ("x", ""), ("k", "8"), ("u", "33"),
        ("U", "www-data"), ("g", "34"), ("G", "web"), ("V", "9.9"), ("b", "/usr/bin/p"), ("t", "7"),
        ("T", "7000001"), ("i", "42"), ("0", "etc"), ("1", "vassals"), ("2", ""), ("%", "%"), ("[", "\x1b"),
        ("j", "B019F23A"),
    ],
)  # fmt: skip
def test_magic_variables(letter: str, expected: str) -> None:
    """Configuring uWSGI, Magic variables: %n is the file's name without its extension, %d its folder, ..."""
    about = {"hostname": "web1", "cpus": 8, "uid": 33, "user": "www-data", "gid": 34, "group": "web",
             "version": "9.9", "binary": "/usr/bin/p", "started": 7_000_001, "inode": lambda path: 42}  # fmt: skip
    assert value(f"a = <%{letter}>\n", **about) == f"<{expected}>"


def test_capitals_tell_of_the_first_file() -> None:
    """Configuring uWSGI, Magic variables: upper case refers to the first non-template file."""
    files = {"/e/app.ini": "[uwsgi]\ninclude = base.ini:web\n", "/e/base.ini": "[web]\na = %n %N %x %X %s %S\n"}
    result = load("app.ini", World(read=files.__getitem__, cwd="/e"))
    assert result.settings[-1].value == "base app web  base.ini app.ini"


def test_magic_variables_stand_in_keys_too() -> None:
    """uWSGI core/utils.c magic_sub: the whole text of the file is replaced before it is parsed."""
    assert body("key-%n = 1\n[%n]\n") == ["key-app=1"]


# ---- environment, files, placeholders ----


def test_environment_variables() -> None:
    """Configuring uWSGI, Placeholders: $(NAME) is the environment's; one that is not there stays."""
    assert value("a = $(HOME)/$(NOPE)\n", environ={"HOME": "/root"}) == "/root/$(NOPE)"


def test_a_files_content() -> None:
    """Configuring uWSGI, Placeholders: @(file) is what is in the file, without its last newline."""
    files = {"/e/app.ini": "[uwsgi]\na = <@(secret)>\n", "/e/secret": "s3cret\n"}
    result = load("app.ini", World(read=files.__getitem__, cwd="/e"))
    assert result.settings[0].value == "<s3cret>"


def test_a_placeholder_is_the_first_definition_wherever_it_stands() -> None:
    """uWSGI core/config.c uwsgi_get_exported_opt: the first option of the name; it may be defined later."""
    assert body("a = %(b)\nb = 1\nb = 2\n")[0] == "a=1"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a b", "36"), ("a + 1", "4"), ("a + b * 2", "18"), ("a - b", "-3"), ("b / 4", "1"), ("b / 0", "0"),
        ("a - 10 / 4", "-1"), ("a ++", "4"), ("a --", "2"), ("a 7 ++", "38"), ("word a", "x3"), ("word + 1", "1"),
        ("nope + 1", "1"), (" a + 1 ", "4"),
    ],
)  # fmt: skip
def test_arithmetic_is_a_pipeline_from_left_to_right(expression: str, expected: str) -> None:
    """uWSGI core/config.c uwsgi_manage_placeholder: "this works as a pipeline", joining unless told otherwise."""
    assert value(f"a = 3\nb = 6\nword = x\nresult = %({expression})\n") == expected


def test_an_undefined_placeholder_stays() -> None:
    """uWSGI core/config.c: what no option defines is left as it is written."""
    assert value("a = %(nope)/%()\n") == "%(nope)/%()"


def test_set_makes_options_and_placeholders() -> None:
    """uWSGI options set, set-ph, set-placeholder: key=value, at once."""
    assert body("set = a=1\nset-ph = b=2\nset-placeholder = c=3\nd = %(a b c)\n")[-1] == "d=123"


def test_custom_options() -> None:
    """uWSGI, Defining new options: declare-option NAME=option=$1;option=$2, used with words."""
    text = "declare-option = pair=socket=/run/$1.sock;processes=$2\npair = shop 4\n"
    assert body(text)[1:] == ["socket=/run/shop.sock", "processes=4"]


# ---- logic ----


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("for = a b\nk = %(_)\nl = <%(_)>\nendfor =", ["k=a", "k=b", "l=<a>", "l=<b>"]),
        ("for-times = 3\nk = %(_)\nend-for =", ["k=1", "k=2", "k=3"]),
        ("for-glob = *.txt\nk = %(_)\nendfor =", ["k=1.txt", "k=2.txt"]),
        ("for-glob = *.none\nk = %(_)\nendfor =", ["k=*.none"]),
        ("if-env = X\nk = %(_)\nendif =", ["k=1"]),
        ("if-env = X=2\nk = %(_)\nendif =", []),
        ("if-not-env = X=2\nk = 1\nend-if =", ["k=1"]),
        ("ifenv = Y\nk = 1\nend =", []),
        ("if-exists = here\nk = %(_)\nendif =", ["k=here"]),
        ("if-not-file = here\nk = %(_)\nendif =", []),
        ("if-dir = there\nk = %(_)\nendif =", ["k=there"]),
        ("if-directory = here\nk = %(_)\nendif =", []),
        ("if-hostname = web1\nk = %(_)\nendif =", ["k=web1"]),
        ("if-hostname-match = ^web[0-9]$\nk = 1\nendif =", ["k=1"]),
        ("if-not-hostname-match = ^db\nk = 1\nendif =", ["k=1"]),
        ("if-plugin = cgi\nk = 1\nendif =", ["k=1"]),
        ("if-not-plugin = rack\nk = 1\nendif =", ["k=1"]),
        ("if-reload =\nk = 1\nendif =", []),
        ("if-not-reload =\nk = 1\nendif =", ["k=1"]),
    ],
)
def test_logic(block: str, expected: list[str]) -> None:
    """Configuration logic: each option between an opening word and its end is taken for each value of %(_)."""
    about = {"environ": {"X": "1"}, "hostname": "web1", "exists": lambda path: path == "/etc/vassals/here",
             "is_file": lambda path: path == "/etc/vassals/here",
             "is_dir": lambda path: path == "/etc/vassals/there",
             "glob": lambda pattern: ("/etc/vassals/1.txt", "/etc/vassals/2.txt") * pattern.endswith("/*.txt")}
    assert body(block + "\n", **about) == expected


def test_if_opt_looks_at_what_was_read_so_far() -> None:
    """Configuration logic, if-opt: the value of an option, or option=value; %(_) is the value."""
    text = "a = 1\nif-opt = a=1\nk = %(_)\nendif =\nif-not-opt = b\nb = 2\nendif =\n"
    assert body(text) == ["a=1", "k=1", "b=2"]


def test_for_readline() -> None:
    """Configuration logic, for-readline: each line of a file, empty ones too."""
    files = {"/e/app.ini": "[uwsgi]\nfor-readline = list\nk = %(_)\nendfor =\n", "/e/list": "a\n\nb"}
    result = load("app.ini", World(read=files.__getitem__, cwd="/e"))
    assert [one.value for one in result.settings] == ["a", "", "b"]


# ---- other files ----


def test_included_options_stand_where_the_include_stands_and_inherited_ones_at_the_end() -> None:
    """Configuring uWSGI: include is immediate, inherit is applied last; ini = :section is of the same file."""
    files = {
        "/e/app.ini": "[uwsgi]\na = 1\ninherit = late.ini\ninclude = now.yml\nb = 2\nini = :web\n[web]\nc = 3\n",
        "/e/now.yml": "uwsgi:\n  now: yes\n",
        "/e/late.ini": "[uwsgi]\nlate = 1\n",
    }
    # :section is of the INI file that was read last.
    result = load("app.ini", World(read=files.__getitem__, cwd="/e"))
    assert [one.key for one in result.settings] == ["a", "inherit", "include", "now", "b", "ini", "c", "late"]


# ---- against uWSGI ----

ORACLE = {
    "lines.ini": "[uwsgi]\n a = b = c \nd\ne =\n;f = 1\n# g\n[x]\nh = 1\n[uwsgi]\ni = \"q\" ; r\ni = 2\n",
    "magic.ini": "[uwsgi]\na = %n %e %s %d %o %p %c %x %h %v %k %u %U %g %G %i %j %0 %1 %%x\n"
    "c = %N %S %D\nb-%n = %zz\n",
    "magic.ini:part": "[part]\na = %x %X %n\n[uwsgi]\nb = 1\n",
    "holders.ini": "[uwsgi]\na = 3\nb = $(HOME)$(NOPE)\nc = %(a)%(late)\nlate = 1\nlate = 2\nd = %(a + 1 * 2)\n"
    "e = %(a late)\nf = %(a / 2 ++)\ng = %(nope)\nh = <@(word)>\ni = (a) $a @b\nj = %(a - 9 / 2)\nk = %(%(a))\n"
    "set = l=%(a)\nm = %(l)\n",
    "logic.ini": "[uwsgi]\nfor = x y\nk = %(_)\nl = %(_)\nendfor =\nfor-times = 2\nm = %(_)\nendfor =\n"
    "for-readline = text\nn = %(_)\nendfor =\nfor-glob = *.yml\no = %(_)\nendfor =\nif-env = HOME\np = %(_)\n"
    "endif =\nif-not-env = NOPE\nq = 1\nendif =\nif-opt = k=x\nr = %(_)\nendif =\nif-exists = text\ns = %(_)\n"
    "end-if =\nif-dir = .\nt = %(_)\nendif =\nif-not-file = .\nu = 1\nendif =\nif-reload =\nv = 1\nendif =\n"
    "w = 1\n",
    "files.ini": "[uwsgi]\na = 1\ninherit = inherited.ini\nini = :more\ninclude = data.yml\nini = lines.ini:x\n"
    "b = 2\n[more]\nc = %n %N\n",
    "inherited.ini": "[uwsgi]\nlate = %n %N\n",
    "data.yml": "# c\nother:\n  a: 1\nuwsgi:\n  a: x\n  list:\n    - one\n    - two\n  flow: [x, y]\n"
    "  q: \"a # b\"\n  s: 'c'\n  t: true # c\n  a: again\n  nothing:\n  name: e%n\n",
    "data.json": '{"uwsgi": {"a": ["1", 2, true, null], "b": false, "c": 1.5, "n": "%n", "a": "x"}, "o": {}}',
    "data.xml": '<s><uwsgi id="one"><a>1</a></uwsgi><uwsgi id="two"><a>2 </a><b/><!-- c --><n>%n</n></uwsgi></s>',
    "data.xml:two": "",
    "tail.ini": "[uwsgi]\na = 1\nlast = no newline",
}  # fmt: skip


def shown_by_uwsgi(file: str, folder: Path) -> list[str]:
    """What uWSGI's --show-config says of a file, without what it says of the command line and of logic."""
    ending = file.partition(":")[0].rpartition(".")[2].replace("yml", "yaml")
    assert UWSGI
    said = subprocess.run(
        [UWSGI, "--show-config", f"--{ending}", file, "--no-server"],
        cwd=folder, text=True, timeout=20, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ).stdout  # fmt: skip
    shown = said.partition("[uwsgi]\nshow-config = true\n")[2].partition(";end of")[0].splitlines()[1:]
    own = {*WORDS, "no-server"}
    return [line for line in shown if line.partition(" =")[0] not in own]


@pytest.mark.skipif(UWSGI is None, reason="uWSGI is not installed")
@pytest.mark.parametrize("file", ORACLE)
def test_both_read_the_same(file: str, tmp_path: Path) -> None:
    """uWSGI 2.0, --show-config: the list of all options once the configuration is read."""
    for name, text in ORACLE.items():
        if text:
            (tmp_path / name.partition(":")[0]).write_text(text, encoding="utf-8")
    if ORACLE[file]:
        (tmp_path / file.partition(":")[0]).write_text(ORACLE[file], encoding="utf-8")
    (tmp_path / "word").write_text("w\n", encoding="utf-8")
    (tmp_path / "text").write_text("one\n\ntwo\n", encoding="utf-8")
    name, _, section = file.partition(":")
    result = load(name, world(str(tmp_path)), section=section or "uwsgi")
    assert [f"{one.key} = {one.value}" for one in result.settings] == shown_by_uwsgi(file, tmp_path)


def test_this_machine_is_what_a_configuration_sees(tmp_path: Path) -> None:
    """Configuring uWSGI, Magic variables: %h, %k, %u and the environment are those of the machine."""
    (tmp_path / "a.ini").write_text("[uwsgi]\na = %h %u $(PATH)\n", encoding="utf-8")
    (only,) = load("a.ini", world(str(tmp_path))).settings
    assert only.value == f"{socket.gethostname()} {os.getuid()} {os.environ['PATH']}"
