"""Fixtures that more than one file needs."""

from collections.abc import Iterator

import pytest

from tests.support import Site, serving

_SITE = """
[[vassal]]
name = "site"
socket = "site.sock"
http-socket = "127.0.0.1:${port}"
cgi = "/cgi-bin=cgi"
threads = 2
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A vassal with one worker and two runners, shared by the tests of a file."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "cgi").mkdir()
    with serving(folder, _SITE, CANARY="of the server") as server:
        yield Site(server, folder / "cgi", folder / "site.sock")
