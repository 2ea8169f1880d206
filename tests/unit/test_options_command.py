"""``pyemperor options`` and ``pyemperor check``."""

import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyemperor.cli.explain import explain
from pyemperor.cli.main import app
from pyemperor.protocol.options import OPTIONS

SEED = Path(__file__).parents[1] / "seed"


def run(*arguments: str) -> tuple[int, str, str]:
    said = CliRunner().invoke(app, arguments, standalone_mode=False)
    return said.exit_code or said.return_value, said.stdout, said.stderr


def test_one_option_is_explained() -> None:
    code, said, _ = run("options", "workers")
    assert code == 0
    assert said == (
        "processes (of a vassal): worker processes\n"
        "  here      honoured\n"
        "  value     a whole number, at least 1, at most 1024\n"
        "  default   1\n"
        "  also      workers\n"
    )


def test_an_option_of_both_is_explained_for_both() -> None:
    _, said, _ = run("options", "uid")
    assert said.count("uid (of the Emperor)") == said.count("uid (of a vassal)") == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no-orphans", "accepted: needs no effect here (it is always so)"),
        ("mules", "known, has no effect yet"),
        ("chroot", "refused: an error (a vassal without its jail"),
        ("zeus", "known, has no effect yet (it is of uWSGI's development branch"),
        ("legion", "known, has no effect yet (nginx distributes requests)"),
        ("route-if", "refused: an error (rules of requests may guard something"),
        ("for-readline", "a word of the configuration dialect: docs/ini.md"),
        ("include", "a word of the configuration dialect: docs/ini.md"),
    ],
)
def test_it_says_what_becomes_of_an_option(name: str, words: str) -> None:
    code, said, _ = run("options", name)
    assert code == 0
    assert words in said


@pytest.mark.skipif(shutil.which("uwsgi") is None, reason="uWSGI is not installed")
def test_every_option_that_uwsgi_has_is_explained() -> None:
    """All that its ``--help`` names, aliases too, whatever becomes of them here."""
    listed = subprocess.run(["uwsgi", "--help"], capture_output=True, text=True, timeout=20, check=False).stdout
    names = set(re.findall(r"^ +(?:-.\|)?--([\w-]+) {2,}", listed, re.MULTILINE))
    assert len(names) > 700
    assert {"emperor", "socket", "reload-mercy"} <= names
    assert [name for name in sorted(names) if explain(name, json=False, out=io.StringIO())] == []


def test_a_misspelt_name_gets_a_suggestion() -> None:
    assert run("options", "heartbaet") == (
        2, "", "pyemperor: no option heartbaet; did you mean heartbeat, heartbeat-probe?\n"
    )  # fmt: skip


def test_a_pipe_gets_one_line_for_each_option() -> None:
    code, said, _ = run("options")
    rows = [line.split("\t") for line in said.splitlines()]
    assert code == 0
    assert [(name, scope, status) for name, scope, status, _ in rows] == [
        (row.name, row.scope, row.status) for row in OPTIONS
    ]


def test_programs_get_json() -> None:
    code, said, _ = run("options", "--json")
    objects = [json.loads(line) for line in said.splitlines()]
    assert code == 0
    assert [one["name"] for one in objects] == [row.name for row in OPTIONS]
    assert json.loads(run("options", "listen", "--json")[1])["default"] == "0"


def test_a_terminal_gets_a_table() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    assert explain(None, json=False, out=out) == 0
    assert "heartbeat" in out.getvalue()
    assert "\t" not in out.getvalue()


def test_check_takes_files_of_uwsgis() -> None:
    code, said, _ = run("check", str(SEED / "emperor.ini"))
    assert (code, said) == (0, f"{SEED}/emperor.ini: no problem found; the Emperor of /etc/uwsgi/vassals\n")
    code, said, warnings = run("check", str(SEED / "testdomain_cgi-bin.ini"))
    assert (code, said) == (0, f"{SEED}/testdomain_cgi-bin.ini: no problem found; vassal: testdomain_cgi-bin\n")
    assert f"{SEED}/testdomain_cgi-bin.ini:14: no-orphans: accepted, has no effect (it is always so)" in warnings


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The file of a vassal without a socket."""
    file = tmp_path / "shop.ini"
    file.write_text("[uwsgi]\ncgi = /srv/cgi-bin\n", encoding="utf-8")
    return file


def emperor(folder: Path, options: str) -> Path:
    file = folder / "emperor.ini"
    file.write_text(f"[uwsgi]\nemperor = {folder}\n{options}", encoding="utf-8")
    return file


def test_a_vassal_without_a_socket_is_right_where_its_emperor_gives_it_one(shop: Path, tmp_path: Path) -> None:
    file = emperor(tmp_path, "emperor-on-demand-directory = sockets\n")
    code, said, problems = run("check", str(shop), "--emperor", str(file))
    assert (code, problems) == (0, "")
    where = f"started at the first connection to {tmp_path}/sockets/shop.socket"
    assert said == f"{shop}: no problem found; vassal: shop, without a socket of its own, {where}\n"
    with shop.open("a") as text:
        text.write("socket = :3031\n")
    code, said, _ = run("check", str(shop), "--emperor", str(file))
    assert (code, said) == (0, f"{shop}: no problem found; vassal: shop, {where}\n")


def test_a_vassal_without_a_socket_is_wrong_where_its_emperor_gives_it_none(shop: Path, tmp_path: Path) -> None:
    file = emperor(tmp_path, "emperor-on-demand-extension = .at\n")
    code, said, problems = run("check", str(shop), "--emperor", str(file))
    assert (code, said) == (2, "")
    assert problems == f"{shop}: no socket; expected socket or http-socket (write http-socket = 127.0.0.1:8080)\n"
    (tmp_path / "shop.ini.at").write_text("127.0.0.1:3031\n")
    code, said, _ = run("check", str(shop), "--emperor", str(file))
    assert code == 0
    assert said.endswith("started at the first connection to 127.0.0.1:3031\n")


def test_who_checks_a_vassal_alone_is_told_how_to_check_it_under_its_emperor(shop: Path) -> None:
    code, said, problems = run("check", str(shop))
    assert (code, said) == (2, "")
    assert "no socket; expected socket or http-socket" in problems
    assert problems.endswith(f"if an Emperor starts it on demand: pyemperor check --emperor EMPEROR.ini {shop})\n")


def test_a_vassal_is_checked_with_what_its_emperor_gives_to_all(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "all.ini").write_text("[uwsgi]\nsocket = :3031\nprocesses = some\n", encoding="utf-8")
    file = emperor(tmp_path, f"vassals-include = {tmp_path}/all.ini\n")
    code, _, problems = run("check", str(shop), "--emperor", str(file))
    assert (code, f"{tmp_path}/all.ini:3: processes" in problems) == (2, True)


def test_an_emperors_file_is_wanted_where_one_is_named(shop: Path, tmp_path: Path) -> None:
    code, _, problems = run("check", str(shop), "--emperor", str(shop))
    assert (code, problems) == (2, f"{shop}: this is a vassal's file; expected the file of its Emperor\n")
    code, _, problems = run("check", str(shop), "--emperor", str(tmp_path / "none.ini"))
    assert (code, "none.ini" in problems) == (2, True)


def test_check_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.ini").write_text("[uwsgi]\nsocket = 3031\n", encoding="utf-8")
    code, said, problems = run("check", str(tmp_path / "a.ini"))
    assert (code, said) == (2, "")
    assert f"{tmp_path}/a.ini:2: socket: " in problems
    assert "write :3031 for a port" in problems
