"""gitweb, through Debian's link out of its folder."""

import io
import re
import tarfile
from pathlib import Path

import pytest

from tests.acceptance.installation import Installation
from tests.acceptance.repository import make_bare, picture_bytes
from tests.acceptance.servers import needs
from tests.support import serving

pytestmark = needs("/usr/lib/cgi-bin/gitweb.cgi")

RECIPE = "gitweb"
FILES = {"git/gitweb.conf": "perl"}
APACHE = """
ScriptAlias /gitweb /usr/lib/cgi-bin/gitweb.cgi
SetEnv GITWEB_CONFIG /srv/git/gitweb.conf
"""
LINK = Path("/usr/lib/cgi-bin/gitweb.cgi")


def prepare(site: Installation) -> None:
    make_bare(site.srv / "git" / "town.git")
    site.own(site.srv / "git")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/gitweb", 200),
        ("/gitweb/", 200),
        ("/gitweb?a=opml", 200),
        ("/gitweb/town.git", 200),
        ("/gitweb?p=town.git;a=summary", 200),
        ("/gitweb/town.git/shortlog/refs/heads/main", 200),
        ("/gitweb/town.git/blob/refs/heads/main:/folder/caf%C3%A9.txt", 200),
        ("/gitweb/town.git/blob_plain/refs/heads/main:/picture", 200),
        ("/gitweb?p=town.git;a=rss", 200),
        ("/gitweb?p=town.git&a=search&s=first&st=commit", 200),
        ("/gitweb?p=none.git;a=summary", 404),
        ("/gitweb?p=town.git;a=blob;f=none", 404),
        ("/gitweb?p=../../etc;a=summary", 404),
        ("/gitweb?p=town.git;a=nonsense", 400),
    ],
)
def test_a_page_is_the_same_as_apaches(site: Installation, path: str, status: int) -> None:
    """Lists, pages by PATH_INFO and by `;` in the query, plain blobs, and errors: as in Apache."""
    ours, theirs = site.both(path)
    assert (ours.status, ours.essence) == (status, theirs.essence)
    assert untimed(ours.body) == untimed(theirs.body)


def untimed(page: bytes) -> bytes:
    """Without what the clock and Apache's version make of it."""
    return re.sub(rb'content="gitweb/\S+ git/\S+ [^"]*"', b"", page)


def test_a_snapshot_streams(site: Installation) -> None:
    """A snapshot, which git and gzip write while it is sent, is a whole archive, and the same as Apache's."""
    ours = site.same("/gitweb/town.git/snapshot/refs/heads/main.tar.gz")
    assert ours.one("content-type").startswith("application/x-gzip")
    assert 'filename="town-' in ours.one("content-disposition")
    with tarfile.open(fileobj=io.BytesIO(ours.body)) as archive:
        (picture,) = (member for member in archive if member.name.endswith("/picture"))
        content = archive.extractfile(picture)
        assert content is not None
        assert content.read() == picture_bytes()


def test_the_style_sheet_comes_from_nginx(site: Installation) -> None:
    """The page names a style sheet that is there."""
    (sheet,) = re.findall(r'<link rel="stylesheet" [^>]*href="([^"]+)"', site.fetch("/gitweb").text)
    assert site.fetch(sheet).body == Path("/usr/share/gitweb/static/gitweb.css").read_bytes()


_FOLDER = """
[[vassal]]
name = "folder"
http-socket = "127.0.0.1:${port}"
cgi = "/cgi-bin=/usr/lib/cgi-bin"
env = "GITWEB_CONFIG=%s"
"""
PAGE = "/cgi-bin/gitweb.cgi"


def test_the_link_in_a_mounted_folder_is_refused_with_a_remedy(site: Installation, tmp_path: Path) -> None:
    """Debian's whole folder mounted: its link leads out, so it is 403, and the log says what to write instead."""
    assert LINK.is_symlink()
    with serving(tmp_path, _FOLDER % (site.srv / "git/gitweb.conf")) as server:
        assert site.fetch(PAGE, port=server.port).status == 403
        record = server.wait_for(event="request", uri=PAGE)
        assert f"{LINK} leads to {LINK.resolve()}" in record["remedy"]
        assert "mount" in record["remedy"]


@pytest.mark.parametrize("option", ['cgi-safe = "/usr/share/gitweb"', 'cgi-dontresolve = true'])
def test_the_link_in_a_mounted_folder_is_followed_on_request(
    site: Installation, tmp_path: Path, option: str
) -> None:
    """With the folder that it leads to declared safe, or with uWSGI's option to ask nothing, it is the program."""
    with serving(tmp_path, _FOLDER % (site.srv / "git/gitweb.conf") + option) as server:
        found = site.fetch(f"{PAGE}/town.git", port=server.port)
        assert found.status == 200
        assert "The town of Ada" in found.text
