"""git over HTTP: clone, fetch and push through git-http-backend."""

import base64
import gzip
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.installation import Installation
from tests.acceptance.repository import git, make_bare, picture_bytes
from tests.acceptance.servers import needs

BACKEND = "/usr/lib/git-core/git-http-backend"
pytestmark = needs(BACKEND)

RECIPE = "git"
APACHE = f"""
ScriptAlias /git {BACKEND}
SetEnv GIT_PROJECT_ROOT /srv/git
SetEnv GIT_HTTP_EXPORT_ALL 1
"""
PASSWORD = "pass word"
WHO = "ada:pass%20word"
FORGED = {"Authorization": f"Basic {base64.b64encode(b'ada:guessed').decode()}"}
MB = 1 << 20
#: What git need not do well here.
FAST = ("-c", "core.bigFileThreshold=512k", "-c", "core.compression=0", "-c", "pack.window=0")


def prepare(site: Installation) -> None:
    repositories = site.srv / "git"
    make_bare(repositories / "town.git")
    git(repositories / "town.git", "update-server-info")
    digest = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
    (repositories / "htpasswd").write_text(f"ada:{{SHA}}{digest}\n")
    site.own(site.srv / "git")


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder for hundreds of megabytes, which pytest would keep."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def clone(site: Installation, tmp_path: Path) -> Callable[[str], Path]:
    """Clones a repository of the site through nginx."""

    def clone(name: str) -> Path:
        git(tmp_path, "clone", "--quiet", f"{site.url}/git/{name}", "clone")
        return tmp_path / "clone"

    return clone


def sent(trace: Path) -> list[dict[str, str]]:
    """The header fields of every request in a trace of curl, and its first line as ``""``."""
    lines = re.findall(r"=> Send header: (.*)", trace.read_text(errors="replace"))
    heads: list[dict[str, str]] = []
    for line in lines:
        name, colon, value = line.partition(": ")
        if re.fullmatch(r"[A-Z]+ /\S* HTTP/1\.1", line):
            heads.append({"": line})
        elif colon:
            heads[-1][name.lower()] = value
    return heads


# ---- with git -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0", "2"])
def test_clone(site: Installation, tmp_path: Path, version: str) -> None:
    """A clone is whole, in the old protocol and in version 2, which needs `Git-Protocol` to reach the script."""
    url = f"{site.url}/git/town.git"
    git(tmp_path, "-c", f"protocol.version={version}", "clone", "--quiet", url, "clone",
        GIT_TRACE_PACKET=f"{tmp_path}/trace")
    clone = tmp_path / "clone"
    git(clone, "fsck", "--strict")
    assert (clone / "picture").read_bytes() == picture_bytes()
    assert git(clone, "rev-parse", "HEAD") == git(site.srv / "git/town.git", "rev-parse", "main")
    assert ("< version 2" in (tmp_path / "trace").read_text(errors="replace")) == (version == "2")


@pytest.mark.parametrize("way", ["gzip", "chunked"])
def test_fetch_after_a_long_negotiation(
    site: Installation, clone: Callable[[str], Path], tmp_path: Path, way: str
) -> None:
    """A client with much that the server has not says so at length: gzipped, or chunked when that is large too."""
    mine = clone("town.git")
    many, buffer = (300, "1m") if way == "gzip" else (4500, "65536")
    stream = "".join(
        f"commit refs/heads/mine\ncommitter Ada <ada@example.org> {2000000000 + number} +0000\ndata 0\n\n"
        for number in range(many)
    )
    git(mine, "fast-import", "--quiet", stdin=stream.encode())
    made = new_commit(site, way)
    git(mine, "-c", f"http.postBuffer={buffer}", "-c", "fetch.negotiationAlgorithm=consecutive",
        "-c", "protocol.version=0", "fetch", "--quiet", "origin", GIT_TRACE_CURL=f"{tmp_path}/trace")
    assert git(mine, "rev-parse", "origin/main") == made
    posts = [head for head in sent(tmp_path / "trace") if head[""].startswith("POST")]
    marks = {"gzip": ("content-encoding", "gzip"), "chunked": ("transfer-encoding", "chunked")}
    assert marks[way] in {pair for head in posts for pair in head.items()}


def new_commit(site: Installation, name: str) -> str:
    """Add a commit to the repository of the site; its name."""
    repository = site.srv / "git" / "town.git"
    commit = (
        "commit refs/heads/main\ncommitter Ada <ada@example.org> 981173999 +0000\ndata 0\n"
        f"from refs/heads/main^0\nM 644 inline {name}\ndata 4\nnew\n\n"
    )
    git(repository, "fast-import", "--quiet", stdin=commit.encode())
    site.own(repository)
    return git(repository, "rev-parse", "main")


@pytest.mark.parametrize(
    ("size", "buffer", "way"),
    [(1000, "1m", "length"), (3 * MB, "1m", "chunked"), (3 * MB, "8m", "length"), (100 * MB, "1m", "chunked")],
    ids=["1k", "3M-chunked", "3M-length", "100M-chunked"],
)
def test_push(site: Installation, scratch: Path, size: int, buffer: str, way: str) -> None:
    """What is pushed is there, byte by byte, for the next clone; above `http.postBuffer` in chunks."""
    there = site.srv / "git" / f"pushed-{size}-{way}.git"
    make_bare(there)
    # It keeps the pack as it comes, so that the time of this test is that of the way and not of unpacking.
    git(there, "config", "receive.unpackLimit", "1")
    site.own(there)
    url = f"{site.url}/git/{there.name}"
    mine = scratch / "mine"
    git(scratch, "clone", "--quiet", url, "mine")
    (mine / "large").write_bytes(os.urandom(size))
    git(mine, *FAST, "add", "large")
    git(mine, *FAST, "commit", "--quiet", "-m", "large")
    git(mine, *FAST, "-c", f"http.postBuffer={buffer}", "push", "--quiet", url.replace("//", f"//{WHO}@"),
        "HEAD:main", GIT_TRACE_CURL=f"{scratch}/trace", GIT_TRACE_CURL_NO_DATA="1")
    *_, push = (head for head in sent(scratch / "trace") if head[""].startswith("POST"))
    if way == "chunked":
        assert push["transfer-encoding"] == "chunked"
    else:
        assert int(push["content-length"]) > size
    git(scratch, "clone", "--quiet", url, "again")
    assert (scratch / "again" / "large").read_bytes() == (mine / "large").read_bytes()


def test_a_push_needs_the_password(site: Installation, clone: Callable[[str], Path]) -> None:
    """Whoever does not know it pushes nothing."""
    before = git(site.srv / "git/town.git", "rev-parse", "main")
    mine = clone("town.git")
    git(mine, "commit", "--quiet", "--allow-empty", "-m", "mine")
    url = f"{site.url.replace('//', '//ada:guessed@')}/git/town.git"
    with pytest.raises(AssertionError, match="Authentication failed"):
        git(mine, "push", "--quiet", url, "HEAD:main")
    assert git(site.srv / "git/town.git", "rev-parse", "main") == before


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/git/town.git/info/refs?service=git-receive-pack", 401),
        ("/git/town.git/git-receive-pack", 401),
        ("/git/town.git/git%2Dreceive-pack", 401),
        # Written so that nginx does not ask, the name stays outside, and git refuses.
        ("/git/town.git/info/refs?service=git%2Dreceive-pack", 403),
    ],
)
def test_no_way_of_writing_the_url_makes_a_name_of_a_claim(site: Installation, path: str, status: int) -> None:
    """What a client says it is reaches git as `REMOTE_USER` only when nginx has checked the password."""
    body = None if "info" in path else b"0000"
    kind = {"Content-Type": "application/x-git-receive-pack-request"}
    assert site.fetch(path, body, kind).status == status
    assert site.fetch(path, body, kind | FORGED).status == status


# ---- without git: against Apache ----------------------------------------------------------------------------


def packet(line: str) -> bytes:
    """A pkt-line."""
    return f"{len(line) + 4:04x}{line}".encode()


LS_REFS = packet("command=ls-refs\n") + b"0001" + packet("peel\n") + packet("symrefs\n") + b"0000"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/git/town.git/info/refs?service=git-upload-pack", 200),
        ("/git/town.git/HEAD", 200),
        ("/git/town.git/info/refs", 200),
        ("/git/town.git/objects/info/packs", 200),
        ("/git/town.git/objects/00/00000000000000000000000000000000000000", 404),
        ("/git/none.git/info/refs?service=git-upload-pack", 404),
        ("/git/", 404),
    ],
)
@pytest.mark.parametrize("protocol", ["version=0", "version=2"])
def test_an_answer_is_the_same_as_apaches(site: Installation, path: str, status: int, protocol: str) -> None:
    """References, files, errors: status, header fields and body are those that Apache gives."""
    ours, theirs = site.both(path, None, {"Git-Protocol": protocol})
    assert (ours.status, ours.timeless) == (status, theirs.timeless)
    assert ours.body == theirs.body


@pytest.mark.parametrize("way", ["plain", "gzip", "chunked", "chunked gzip"])
def test_a_request_of_version_2_is_answered_as_by_apache(site: Installation, way: str) -> None:
    """The list of references, asked for in a body that is plain, gzipped, in chunks, or both."""
    body = gzip.compress(LS_REFS) if "gzip" in way else LS_REFS
    headers = {"Git-Protocol": "version=2", "Content-Type": "application/x-git-upload-pack-request"}
    if "gzip" in way:
        headers["Content-Encoding"] = "gzip"
    request = (body[:9], body[9:]) if "chunked" in way else body
    found = site.same("/git/town.git/git-upload-pack", request, headers)
    assert found.status == 200
    assert " HEAD symref-target:refs/heads/main\n" in found.text
