"""Configuration files of nobody's friend: each is refused in a line, in little time and memory."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from pyemperor.protocol.dialect import World, load
from pyemperor.protocol.dialect.bounds import LARGEST, MOST_TEXT, backtracks
from pyemperor.protocol.options import LARGEST_VASSAL, MOST_ADDRESSES
from pyemperor.protocol.report import MOST_TOLD

#: Bytes that the reader of all these files may have, beside what Python needs; and seconds of CPU.
MEMORY, SECONDS = 256 << 20, 15

SERVES = "[uwsgi]\nsocket = /run/a.sock\ncgi = /srv/cgi-bin\n"
#: Lines of the section ``[uwsgi]``, and what is said of them.
LINES = {
    "values-that-fill-others": (
        "a = " + "x" * 60000 + "\nb = " + "%(a)" * 9000,
        "once its placeholders are filled in",
    ),
    "a-context-that-fills": (
        "for = " + "z" * 60000 + "\nenv = A=" + "%(_)" * 9000 + "\nendfor =",
        "once %(_) is filled in",
    ),
    "a-custom-option-that-fills": (
        "declare-option = q=env=" + "$1" * 9000 + "\nq = " + "z" * 60000,
        "once $1 is filled in",
    ),
    "a-custom-option-of-thousands": (
        "declare-option = q=" + "b=$1;" * 9000 + "\nq = 1\nq = 2\nq = 3",
        "20000 settings",
    ),
    "a-path-that-fills": ("a = " + "%p" * 30000, "a line of more than 65536 characters"),
    "set-that-sets-set": ("set = " + "set=" * 5000 + "x=y", "nested too deeply"),
    "blocks-within-blocks": ("if-not-env = NO\n" * 5000 + "a = 1", "nested too deeply"),
    "a-pipe": ("env = A=@(pipe)", "it is no regular file"),
    "a-device-without-an-end": ("env = A=@(/dev/zero)", "it is no regular file"),
    "an-included-device": ("include = zero.ini", "it is no regular file"),
    "the-same-file-again-and-again": ("env = A=@(large)@(large)\n" * 20, f"{MOST_TEXT} characters"),
    "every-file-there-is": ("for-glob = /*/*/*/*/*/*\nenv = A=%(_)\nendfor =", "more than 20000 files"),
    "a-search-for-ever": ("if-hostname-match = (([a-z0-9.-]+)+)+!\na = 1\nendif =", "could search for ever"),
    "more-sockets-than-fit": (
        "\n".join(f"socket = /run/{i}.sock" for i in range(MOST_ADDRESSES + 1)),
        f"at most {MOST_ADDRESSES}",
    ),
    "more-variables-than-fit": (
        "\n".join(f"env = A{i}=" + "y" * 60000 for i in range(3)),
        f"at most {LARGEST_VASSAL}",
    ),
    "thousands-of-slips": ("strict = 1\n" + "".join(f"procesess{i} = 1\n" for i in range(9000)), "and 8950 more"),
}
#: Whole files.
FILES: Mapping[str, tuple[str | bytes, str]] = {
    "long.ini": ("x" * (LARGEST + 1), f"larger than {LARGEST >> 10} KiB"),
    "binary.ini": (bytes(range(128, 256)), "not UTF-8"),
    "empty.ini": ("", "no section uwsgi"),
    "deep.json": ('{"uwsgi": ' + "[" * 50000, "nested too deeply"),
    "deep.yml": ("uwsgi: " + "[" * 50000, "nested too deeply"),
    "deep.toml": ("a = " + "[" * 50000, "nested too deeply"),
    "dotted.toml": ("a" + ".a" * 50000 + " = 1", "nested too deeply"),
    "deep.xml": ("<uwsgi>" + "<a>" * 50000, "an element within an option"),
    "slips.toml": ("".join(f"procesess{i} = 1\n" for i in range(9000)), "and 8952 more"),
    "no-encoding.xml": ('<?xml version="1.0" encoding="nonsense"?><uwsgi/>', "no socket"),
    "laughs.xml": (
        '<!DOCTYPE l [<!ENTITY l0 "lol">'
        + "".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(9))
        + "]><uwsgi><env>A=&l9;</env></uwsgi>",
        "a DOCTYPE",
    ),
    "laughs.yml": (
        "a0: &a0 [x, x]\n"
        + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(20))
        + "uwsgi:\n  env: *a20\n",
        "a table within the section",
    ),
    "lists.yml": ("uwsgi:\n  env:\n" + "  - [a]\n" * 20000, " more"),
}
CASES = {f"{name}.ini": (SERVES + lines, words) for name, (lines, words) in LINES.items()} | dict(FILES)

#: Reads the files that are named, with the memory and the time that the first two arguments say.
READER = """
import json, resource, sys
from pyemperor.cli.configuration import vassal_and_warnings
from pyemperor.protocol.errors import ConfigError
vassal_and_warnings(sys.argv[3])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]),) * 2)
for file in sys.argv[4:]:
    try:
        vassal_and_warnings(file)
        print("[]", flush=True)
    except ConfigError as error:
        print(json.dumps([str(problem) for problem in error.problems]), flush=True)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a reader with little memory and time says of each case, by its name."""
    folder = tmp_path_factory.mktemp("bombs")
    os.mkfifo(folder / "pipe")
    (folder / "zero.ini").symlink_to("/dev/zero")
    (folder / "large").write_text("x" * (LARGEST - 1))
    (folder / "good.ini").write_text(SERVES)
    for name, (text, _) in CASES.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    files = [str(folder / name) for name in ("good.ini", *CASES)]
    command = [sys.executable, "-P", "-c", READER, str(MEMORY), str(SECONDS), *files]
    read = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert read.returncode == 0, read.stderr
    return dict(zip(CASES, map(json.loads, read.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_in_few_words_that_name_the_file(said: dict[str, list[str]], name: str) -> None:
    problems = said[name]
    assert any(CASES[name][1] in problem for problem in problems), problems
    assert any(name in problem or "zero.ini" in problem for problem in problems)
    assert len(problems) <= MOST_TOLD + 1
    assert all(len(problem) < 500 for problem in problems)


@pytest.mark.parametrize(
    ("pattern", "endless"),
    [
        (r"^web\d+\.example\.(com|org)$", False),
        (r"(www|app).*-.*\.eu", False),
        (r"[*+]\(\)\+x{2}", False),
        (r"(a+)+$", True),
        (r"(a|a)(a|a)(a|a)(a|a)(a|a)!", True),
        (r".*.*.*.*!", True),
        (r"(?:a{1,9}){1,9}!", True),
    ],
)
def test_an_expression_that_could_search_for_ever_is_known_before(pattern: str, endless: bool) -> None:
    assert backtracks(pattern) is endless


@pytest.mark.parametrize("pattern", ["(" * 4 + ".*-.*-.*" + ")" * 4 + "!", "a?|b?|c?|d|e", "(?=.*a).*b.*!"])
def test_what_passes_is_searched_in_a_moment(pattern: str) -> None:
    assert not backtracks(pattern)
    began = time.process_time()
    text = f"[uwsgi]\nif-hostname-match = {pattern}\nendif =\n"
    load("a.ini", World(read=lambda _: text, hostname="-" * 63 + "a"))
    assert time.process_time() - began < 1


def test_a_glob_finds_what_pythons_finds(tmp_path: Path) -> None:
    """The reader has a bounded one of its own."""
    import glob

    from pyemperor.cli.configuration import world

    for name in ("a/x.ini", "a/.hidden.ini", "b/y.ini", "b/y.txt", "c.ini", ".d/z.ini", "a/deep/x.ini"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    ours = world(str(tmp_path)).glob
    for pattern in (
        "*.ini",
        "*/*.ini",
        "*/deep/x.ini",
        "a/x.ini",
        "none/*.ini",
        ".*/*.ini",
        "[ab]/?.*",
        "*/nothing",
        "c.ini/*",
    ):
        assert ours(f"{tmp_path}/{pattern}") == tuple(sorted(glob.glob(f"{tmp_path}/{pattern}")))
