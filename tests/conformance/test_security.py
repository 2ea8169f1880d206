"""docs/security.md claims much: every row names the tests that show it, and they are there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| what can go wrong")]


def test_there_are_rows() -> None:
    assert len(ROWS) > 30


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"\W+", "-", row[2:50]))
def test_a_row_names_tests_that_there_are(row: str) -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row.rsplit("|", 2)[1])
    assert named
    for file, name in named:
        (found,) = TESTS.glob(f"*/{file}")
        assert f"\ndef {name}(" in found.read_text(encoding="utf-8"), name
