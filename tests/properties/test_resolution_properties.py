"""Whatever lies in a mount, and whatever a URL asks for: nothing outside is ever found, by either way to look."""

import ctypes
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemperor.actors.handlers.cgi import handler
from pyemperor.actors.resolution import Resolver
from pyemperor.actors.script import Script
from pyemperor.actors.wires import Request
from pyemperor.protocol.cgi import script_candidates
from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.options import Mount, Vassal
from pyemperor.protocol.variables import merge_vars

RESOLVERS = [pytest.param(True, id="openat2"), pytest.param(False, id="step by step")]

# ---- trees --------------------------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "c"])
targets = st.one_of(
    st.lists(st.sampled_from(["a", "b", "c", "..", "."]), min_size=1, max_size=4).map("/".join),
    st.lists(names, max_size=3).map(lambda parts: "/".join(["{root}", *parts])),
    st.sampled_from(["{outside}/a", "{outside}", "{safe}", "{safe}/a", "{safe}x/a", "/", "../mount", "a/", "b/."]),
)
nodes = st.one_of(st.just("dir"), st.just("file"), targets.map(lambda text: f"-> {text}"))
trees = st.dictionaries(st.lists(names, min_size=1, max_size=3).map(tuple), nodes, max_size=12)
paths = st.lists(st.sampled_from(["/a", "/b", "/c", "/"]), max_size=5).map("".join)


@contextmanager
def planted(tree: dict[tuple[str, ...], str]) -> Iterator[Path]:
    """A mount with this tree, and what is around it: an outside, a safe folder and its namesake."""
    base = Path(os.path.realpath(tempfile.mkdtemp()))
    root = base / "mount"
    root.mkdir()
    try:
        for folder in ("outside", "safe", "safex"):
            (base / folder).mkdir()
            (base / folder / "a").touch()
        for parts, node in sorted(tree.items()):
            with suppress(FileExistsError, NotADirectoryError, FileNotFoundError):
                file = root.joinpath(*parts)
                if any(parent.is_symlink() for parent in file.parents):
                    continue  # it would be planted elsewhere
                file.parent.mkdir(parents=True, exist_ok=True)
                if node == "dir":
                    file.mkdir()
                elif node == "file":
                    file.touch(exist_ok=False)
                else:
                    file.symlink_to(
                        node[3:].format(root=root, outside=base / "outside", safe=base / "safe")
                    )
        yield root
    finally:
        shutil.rmtree(base)


def said(resolver: Resolver, root: Path, path: str) -> object:
    try:
        place = resolver.find(os.fsencode(root), path.encode())
    except RequestError as error:
        return error.status
    return place and (place.script.decode(), place.rest.decode(), place.found.st_ino)


def naive(root: Path, path: str, symlinks: str, safe: list[Path]) -> object:
    """The same, said with realpath, by somebody to whom nothing ever changes."""
    answer: object = None
    for script, rest in script_candidates(path.encode()):
        file = Path(f"{root}{script.decode()}")
        try:
            if script and file.is_symlink():
                if symlinks == "deny":
                    return 403
                file.stat()
                real = file.resolve()
                if not any(real.is_relative_to(folder) for folder in (root, *safe)):
                    return 403
            found = file.stat()
        except OSError:  # there is nothing, or a loop of links
            return None
        answer = script.decode(), rest.decode(), found.st_ino
        if not stat.S_ISDIR(found.st_mode):
            break
    return answer


@pytest.mark.parametrize("openat2", RESOLVERS)
@settings(max_examples=100, deadline=None)
@given(tree=trees, asked=st.lists(paths, min_size=1, max_size=8))
def test_it_finds_what_a_naive_look_at_an_unchanging_tree_finds(
    openat2: bool, tree: dict[tuple[str, ...], str], asked: list[str]
) -> None:
    with planted(tree) as root:
        for symlinks, safe in product(("deny", "owner", "follow"), ([], [root.parent / "safe"])):
            folders = [os.fsencode(folder) for folder in safe]
            resolver = Resolver(symlinks, folders, openat2=openat2)  # type: ignore[arg-type]
            for path in asked:
                # Everything has the same owner here.
                assert said(resolver, root, path) == naive(root, path, symlinks, safe), (symlinks, safe, path)


# ---- URLs ---------------------------------------------------------------------------------------------------

segments = st.one_of(
    st.sampled_from([b"a.cgi", b"sub", b"out", b"up", b"loop", b"self", b"file", b"x", b"", b".", b".."]),
    st.sampled_from([b"..;", b"...", b".. ", b"\\..\\", b"a.cgi\0.txt", b"\xff\xfe", b"\r\n", b"n" * 256]),
    st.sampled_from([b"%2e%2e", b"%2f", b"%00"]),
    st.binary(max_size=6),
)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("nasty")
    root = base / "cgi"
    (root / "sub").mkdir(parents=True)
    (base / "secret").touch()
    for name in ("a.cgi", "sub/a.cgi", "file", os.fsdecode(b"\xff\xfe")):
        (root / name).touch()
    links = {"out": "/", "up": "..", "loop": "loop", "self": ".", "sub/up": "../..", "x": "a.cgi"}
    for name, target in links.items():
        (root / name).symlink_to(target)
    return root


@settings(max_examples=400, deadline=None)
@given(prefix=st.sampled_from([b"/cgi", b"/one", b"/cgi/out/../cgi", b""]), parts=st.lists(segments, max_size=6))
def test_a_url_leads_below_the_mount_or_to_an_error_of_the_client(
    nasty: Path, prefix: bytes, parts: list[bytes]
) -> None:
    mounts = (Mount("/cgi", str(nasty)), Mount("/one", f"{nasty}/sub/a.cgi"))
    serve = handler(Vassal(name="v", cgi=mounts, cgi_index=("a.cgi",)))
    url = prefix + b"".join(b"/" + part for part in parts)
    try:
        answer: Script | bytes | int
        answer = serve(Request(9, 0, merge_vars([(b"REQUEST_METHOD", b"GET"), (b"PATH_INFO", url)]), 0))
    except RequestError as error:
        answer = error.status
    if isinstance(answer, int):
        assert answer in (400, 403, 404, 414)
    elif isinstance(answer, Script):
        file = Path(os.fsdecode(answer.arguments[-1]))
        assert file.resolve().is_relative_to(nasty)
        assert file.is_file()
        environment = answer.environment
        assert environment[b"SCRIPT_NAME"] + environment.get(b"PATH_INFO", b"") in (url, url + b"a.cgi")
    else:
        assert answer.startswith(b"HTTP/1.1 301 ")
        assert b"\r\nLocation: /cgi" in answer


# ---- meanwhile ----------------------------------------------------------------------------------------------

_renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


class Swapper(threading.Thread):
    """Turns a folder into a link to the outside and back, as fast as it can."""

    def __init__(self, one: Path, other: Path) -> None:
        super().__init__()
        self._pair = os.fsencode(one), os.fsencode(other)
        self.done = threading.Event()
        self.swaps = 0

    def run(self) -> None:
        while not self.done.is_set():
            assert _renameat2(_AT_FDCWD, self._pair[0], _AT_FDCWD, self._pair[1], _RENAME_EXCHANGE) == 0
            self.swaps += 1


@pytest.mark.parametrize("openat2", RESOLVERS)
@pytest.mark.parametrize("path", ["/sub/x.cgi", "/sub/deep/x.cgi", "/linked/x.cgi"])
def test_what_is_swapped_for_a_link_meanwhile_leads_nowhere(tmp_path: Path, openat2: bool, path: str) -> None:
    root, outside = tmp_path / "cgi", tmp_path / "outside"
    for folder in (root / "sub" / "deep", outside / "deep"):
        folder.mkdir(parents=True)
        (folder / "x.cgi").touch()
        (folder.parent / "x.cgi").touch()
    (root / "other").symlink_to(outside)
    (root / "linked").symlink_to("sub")
    inside = {file.stat().st_ino for file in root.glob("sub/**/x.cgi")}
    answers: set[Any] = set()
    resolver = Resolver(openat2=openat2)
    swapper = Swapper(root / "sub", root / "other")
    swapper.start()
    deadline = time.monotonic() + 20
    try:
        for tries in count():
            answer = said(resolver, root, path)
            answers.add(answer[2] if isinstance(answer, tuple) else answer)
            if (tries > 2000 and 403 in answers and answers & inside) or time.monotonic() > deadline:
                break
    finally:
        swapper.done.set()
        swapper.join()
    assert swapper.swaps > 100
    assert 403 in answers
    assert answers & inside
    assert answers <= inside | {403}
