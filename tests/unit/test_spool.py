"""The spool: whatever goes in comes out, in order, and little of it is in memory meanwhile."""

import os
import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemperor.actors.spool import CHUNK, Spool


@given(steps=st.lists(st.one_of(st.binary(max_size=9), st.integers(1, 12)), max_size=40))
@settings(deadline=None, max_examples=200)
def test_first_in_first_out(steps: list[bytes | int]) -> None:
    spool, put, taken = Spool(), b"", b""
    for step in steps:
        if isinstance(step, bytes):
            spool.put(step)
            put += step
        else:
            piece = spool.next[:step]
            spool.taken(len(piece))
            taken += piece
        assert bool(spool.next) == (len(taken) < len(put))
    while spool.next:
        taken += spool.next
        spool.taken(len(spool.next))
    assert taken == put
    spool.clear()


def descriptors() -> set[str]:
    return {fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}


def test_what_waits_is_in_a_file_without_a_name() -> None:
    spool = Spool()
    before = descriptors()
    spool.put(bytes(CHUNK))
    assert descriptors() == before  # a chunk needs no file
    body = os.urandom(3 * CHUNK)
    spool.put(body)
    (fd,) = descriptors() - before
    assert os.readlink(f"/proc/self/fd/{fd}").endswith("(deleted)")
    assert not os.get_inheritable(int(fd))
    spool.taken(CHUNK)
    assert spool.next == body[:CHUNK]
    spool.clear()
    assert descriptors() == before
    assert spool.next == b""


def test_it_can_be_used_again() -> None:
    spool = Spool()
    for text in (b"one", b"two"):
        spool.put(text[:1])
        spool.put(text[1:])
        spool.clear()
        assert spool.next == b""
        spool.put(text)
        assert spool.next == text
        spool.taken(3)
        assert spool.next == b""


def test_no_room() -> None:
    spool = Spool()
    spool.put(b"x")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            spool.put(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        spool.clear()
