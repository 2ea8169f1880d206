"""docs/edge-cases.md: every case has its row, and every test that it names is there."""

import re
from pathlib import Path

HOUSE = Path(__file__).parents[2]
PAGE = (HOUSE / "docs" / "edge-cases.md").read_text(encoding="utf-8")
#: uWSGI's edge cases have these numbers.
NUMBERS = set(range(1, 61))


def test_every_case_stands_there_once() -> None:
    rows = [int(number) for number in re.findall(r"^\| (\d+)(?: ▲)? \|", PAGE, re.MULTILINE)]
    assert sorted(rows) == sorted(NUMBERS)


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)?::(test_\w+)`", PAGE)
    assert len(named) > 55
    file, missing = "", []
    for path, name in named:
        file = path or file
        if f"\ndef {name}(" not in (HOUSE / file).read_text(encoding="utf-8"):
            missing.append(f"{file}::{name}")
    assert missing == []


def test_every_row_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if re.match(r"\| (\d+|▲)( ▲)? \|", line)]
    assert [row for row in rows if "::test_" not in row.split("|")[4]] == []
