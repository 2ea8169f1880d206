"""Frames: what lies on a link, byte by byte, and what a peer gets that breaks the rules."""

import struct

import msgpack
import msgspec
import pytest

from pyemperor.protocol.errors import LinkError
from pyemperor.protocol.frames import HEADER_SIZE, MAGIC, MAX_FRAME, VERSION, FrameDecoder, decode, encode
from pyemperor.protocol.messages import (
    Adopt,
    Beat,
    Birth,
    Core,
    Exited,
    Fork,
    Forked,
    LinkMessage,
    Office,
    OfficeMessage,
    Probe,
    Ready,
    State,
    Stop,
    Trace,
)
from pyemperor.protocol.options import Vassal


def frame(body: object, *, magic: int = MAGIC, version: int = VERSION) -> bytes:
    """A frame made by hand."""
    packed: bytes = msgpack.packb(body)
    return struct.pack(">BBI", magic, version, len(packed)) + packed


def test_a_frame_byte_by_byte() -> None:
    # magic, version, four bytes of length, then {"type": "probe", "nonce": 7} in msgpack
    assert encode(Probe(7)) == b"\xe7\x01\x00\x00\x00\x13\x82\xa4type\xa5probe\xa5nonce\x07"
    assert decode(encode(Probe(7)), LinkMessage) == Probe(7)


@pytest.mark.parametrize(
    ("message", "union"),
    [
        (Ready(), LinkMessage),
        (Office(), LinkMessage),
        (Stop(1.5), LinkMessage),
        (Beat(3, 12.5, 2, 40, (Core(True, 0.25, 7, 1234), Core(False, 0.0, 8))), LinkMessage),
        (Trace(1.0, "worker:app/1", "state", State.READY, 7, "wörds\n"), LinkMessage),
        (Fork(1, Birth("master", Vassal("app", env=(("A", "1"),)), 10.0)), OfficeMessage),
        (Adopt(4, Birth("master", Vassal("app"), 10.0)), OfficeMessage),
        (Forked(1, 4321), OfficeMessage),
        (Exited(1, -1, 9, 3, (7, 8)), OfficeMessage),
    ],
)
def test_what_is_sent_arrives(message: msgspec.Struct, union: object) -> None:
    assert decode(encode(message), union) == message
    assert list(FrameDecoder(union).feed(encode(message) * 3)) == [message] * 3


def test_a_whole_number_may_stand_for_seconds() -> None:
    assert decode(frame({"type": "stop", "mercy": 3}), LinkMessage) == Stop(3.0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\n", "no frame of ours: it begins with byte 0x47"),
        (frame({"type": "ready"}, version=2), "the peer speaks version 2 of the frames, this process version 1"),
        (struct.pack(">BBI", MAGIC, VERSION, MAX_FRAME + 1), f"at most {MAX_FRAME} are accepted"),
        (frame({"type": "surprise"}), "an unknown or malformed message: Invalid value 'surprise'"),
        (frame({"type": "probe"}), "missing required field `nonce`"),
        (frame({"type": "probe", "nonce": "x"}), "an unknown or malformed message"),
        (frame({"type": "ready", "extra": 1}), "unknown field `extra`"),
        (frame([1, 2]), "an unknown or malformed message"),
        (frame({1: 2}), "a frame that is not msgpack"),
        (struct.pack(">BBI", MAGIC, VERSION, 1) + b"\xc1", "a frame that is not msgpack"),
        (struct.pack(">BBI", MAGIC, VERSION, 2) + b"\x01\x01", "a frame that is not msgpack"),
        (struct.pack(">BBI", MAGIC, VERSION, 0), "a frame that is not msgpack"),
        (frame({"type": "fork", "id": 1}), "an unknown or malformed message"),
    ],
)
def test_a_peer_that_breaks_the_rules_is_named(data: bytes, words: str) -> None:
    with pytest.raises(LinkError) as error:
        list(FrameDecoder().feed(data))
    assert words in str(error.value)


def test_messages_before_the_fault_arrive() -> None:
    stream = FrameDecoder().feed(encode(Ready()) + b"nonsense")
    assert next(stream) == Ready()
    with pytest.raises(LinkError):
        next(stream)


def test_a_frame_is_refused_where_it_is_too_large() -> None:
    with pytest.raises(LinkError, match=r"a Trace of .* bytes is larger than a frame"):
        encode(Trace(0.0, "a", "log", reason="x" * MAX_FRAME))
    largest = Trace(0.0, "a", "log", reason="x" * (MAX_FRAME - 100))
    assert decode(encode(largest), LinkMessage) == largest


def test_a_name_that_is_no_text_travels_all_the_same() -> None:
    """What os.fsdecode makes of a file name that is not UTF-8 has no place in msgpack."""
    assert decode(encode(Trace(0.0, "a", "log", reason="caf\udce9")), LinkMessage).reason == r"caf\udce9"


def test_a_datagram_is_exactly_one_frame() -> None:
    whole = encode(Ready())
    for wrong in (b"", whole[: HEADER_SIZE - 1], whole[:-1], whole + b"\x00"):
        with pytest.raises(LinkError):
            decode(wrong, LinkMessage)
