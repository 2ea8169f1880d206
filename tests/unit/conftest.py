"""What many parts are tested on: a real inbox, and two ends of a connection."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from pyemperor.actors.actor import EpollInbox


@pytest.fixture
def inbox() -> Iterator[EpollInbox]:
    with closing(EpollInbox()) as inbox:
        yield inbox


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs
