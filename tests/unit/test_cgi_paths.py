"""Mounts and the split of a path into script and PATH_INFO."""

import pytest

from pyemperor.protocol.cgi import MAX_PATH, match_mount, request_path, script_candidates
from pyemperor.protocol.errors import RequestError


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        (b"/cgi-bin", b"/cgi-bin"),
        (b"/cgi-bin/", b"/cgi-bin"),
        (b"/cgi-bin/x", b"/cgi-bin"),
        (b"/cgi-bin/admin", b"/cgi-bin/admin"),
        (b"/cgi-bin/admin/y", b"/cgi-bin/admin"),
        (b"/cgi-bin/adminX", b"/cgi-bin"),
        (b"/cgi-binX/env.cgi", None),
        (b"/cgi", None),
        (b"/", None),
        (b"//cgi-bin/x", None),
        (b"/CGI-BIN/x", None),
    ],
)
def test_mounts(path: bytes, mount: bytes | None) -> None:
    mounts = [b"/cgi-bin", b"/cgi-bin/admin", b"/git"]
    assert match_mount(path, mounts) == mount
    assert match_mount(path, mounts[::-1]) == mount
    assert match_mount(path, [*mounts, b""]) == (b"" if mount is None else mount)


def test_no_mounts_match_nothing() -> None:
    assert match_mount(b"/x", []) is None


@pytest.mark.parametrize(
    ("path", "splits"),
    [
        (b"", [(b"", b"")]),
        (b"/", [(b"", b"/")]),
        (b"/a", [(b"", b"/a"), (b"/a", b"")]),
        (b"/a/", [(b"", b"/a/"), (b"/a", b"/")]),
        (b"/a/b/c", [(b"", b"/a/b/c"), (b"/a", b"/b/c"), (b"/a/b", b"/c"), (b"/a/b/c", b"")]),
        (b"/a//b", [(b"", b"/a//b"), (b"/a", b"//b"), (b"/a//b", b"")]),
        (b"//a", [(b"", b"//a"), (b"//a", b"")]),
        (b"/a\nb/c d", [(b"", b"/a\nb/c d"), (b"/a\nb", b"/c d"), (b"/a\nb/c d", b"")]),
    ],
)
def test_candidates(path: bytes, splits: list[tuple[bytes, bytes]]) -> None:
    assert list(script_candidates(path)) == splits


def test_a_long_component_is_refused_only_when_it_would_be_looked_up() -> None:
    splits = script_candidates(b"/x.cgi/" + b"t" * 256)
    assert next(splits) == (b"", b"/x.cgi/" + b"t" * 256)
    assert next(splits) == (b"/x.cgi", b"/" + b"t" * 256)
    with pytest.raises(RequestError, match="longer than 255") as caught:
        next(splits)
    assert caught.value.status == 414


def test_the_longest_component_that_a_file_can_have() -> None:
    assert list(script_candidates(b"/" + b"t" * 255))[-1] == (b"/" + b"t" * 255, b"")


def test_the_longest_path() -> None:
    path = b"/" + b"p" * (MAX_PATH - 1)
    assert request_path({b"PATH_INFO": path}) == path
    with pytest.raises(RequestError, match="4097 bytes, 4096 are allowed") as caught:
        request_path({b"PATH_INFO": path + b"p"})
    assert caught.value.status == 414


@pytest.mark.parametrize(
    "path", [b"/..", b"/../", b"/a/../b", b"/.", b"/./a", b"/a/.", b"/a/..", b"/a/../../etc/passwd"]
)
def test_dot_segments_are_refused(path: bytes) -> None:
    with pytest.raises(RequestError, match="segment") as caught:
        request_path({b"PATH_INFO": path})
    assert caught.value.status == 400


@pytest.mark.parametrize("path", [b"/", b"/...", b"/.git", b"/a..", b"/a../b", b"/a/..b", b"/.a./", b"//"])
def test_dots_inside_a_name_are_no_dot_segment(path: bytes) -> None:
    assert request_path({b"PATH_INFO": path}) == path


@pytest.mark.parametrize("variables", [{}, {b"PATH_INFO": b""}, {b"PATH_INFO": b"cgi-bin/x"}])
def test_no_path_is_a_400_that_names_the_include(variables: dict[bytes, bytes]) -> None:
    with pytest.raises(RequestError, match="PATH_INFO") as caught:
        request_path(variables)
    assert caught.value.status == 400
    assert "include uwsgi_params" in caught.value.remedy
