"""Real programs: what all files here have in common."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.installation import Installation, installed

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "acceptance: real programs behind a real nginx, compared with Apache")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.acceptance)


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Iterator[Installation]:
    """The recipe that the module names: ``RECIPE``, its ``FILES``, and ``APACHE``'s directives for the same."""
    module = request.module
    with installed(module.RECIPE, module.APACHE, getattr(module, "FILES", {})) as installation:
        module.prepare(installation)
        yield installation
