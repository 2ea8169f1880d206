"""Frames under any bytes and any portions: messages, or a LinkError, never anything else."""

import math
from typing import Any

import msgpack
import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyemperor.protocol.errors import LinkError
from pyemperor.protocol.frames import HEADER_SIZE, MAGIC, MAX_FRAME, VERSION, FrameDecoder, decode, encode
from pyemperor.protocol.messages import (
    Accepting,
    Alive,
    Beat,
    Core,
    Exited,
    Extend,
    ForkFailed,
    Inject,
    Kill,
    LinkMessage,
    Message,
    NotReady,
    OfficeMessage,
    Probe,
    Ready,
    Stop,
    Trace,
)

many = settings(max_examples=150, deadline=None)

numbers = st.integers(-(2**63), 2**64 - 1)
counts = st.integers(0, 2**31)
seconds = st.floats(allow_nan=False)
texts = st.text(max_size=40)
cores = st.builds(Core, st.booleans(), seconds, counts, counts)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Ready),
    st.builds(NotReady, texts, st.booleans()),
    st.builds(Extend, seconds),
    st.builds(Beat, counts, seconds, counts, counts, st.lists(cores, max_size=4).map(tuple)),
    st.builds(Alive, numbers),
    st.builds(Accepting),
    st.builds(Probe, numbers),
    st.builds(Stop, seconds),
    st.builds(Trace, seconds, texts, texts, texts, counts, texts),
    st.builds(Inject, texts, st.sampled_from(["hang", "drop", "delay", "heal"]), texts, seconds, seconds, texts),
)
office_messages = st.one_of(
    st.builds(Kill, counts, st.booleans()),
    st.builds(ForkFailed, counts, counts, texts),
    st.builds(Exited, counts, st.integers(-1, 255), counts, counts, st.lists(counts).map(tuple)),
)
#: What msgpack can say, most of it no message.
values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats() | texts | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


def portions(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` in pieces that end at ``cuts``."""
    ends = [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def feed(decoder: FrameDecoder, parts: list[bytes]) -> tuple[list[Message], str]:
    """What comes out, and the error that ended it."""
    out: list[Message] = []
    try:
        for part in parts:
            out.extend(decoder.feed(part))
    except LinkError as error:
        return out, str(error)
    return out, ""


@many
@given(st.lists(messages, max_size=8), st.lists(st.integers(0), max_size=12))
def test_any_messages_in_any_portions_arrive_in_order(sent: list[Message], cuts: list[int]) -> None:
    data = b"".join(map(encode, sent))
    assert feed(FrameDecoder(), portions(data, cuts)) == (sent, "")


@many
@given(office_messages)
def test_a_datagram_carries_its_message(message: Message) -> None:
    assert decode(encode(message), OfficeMessage) == message


@many
@given(st.lists(messages, max_size=3), st.binary(max_size=200), st.lists(st.integers(0), max_size=6))
def test_garbage_after_messages_never_harms_them(sent: list[Message], garbage: bytes, cuts: list[int]) -> None:
    data = b"".join(map(encode, sent)) + garbage
    out, error = feed(FrameDecoder(), portions(data, cuts))
    assert out[: len(sent)] == sent
    assert error or len(garbage) < HEADER_SIZE or garbage[:2] == bytes([MAGIC, VERSION])


@many
@given(st.binary(max_size=64))
@example(b"")
@example(b"\xc1")
@example(msgpack.packb(float("nan")))
@example(b"\xdd\xff\xff\xff\xff")  # an array of four thousand million elements
@example(b"\xc7\x01\xff\x00")  # a timestamp of one byte
@example(b"\xd6\xff\x00\x00\x00\x00")  # a timestamp
@example(b"\xa1\xff")  # text that is not UTF-8
@example(b"\x91" * 60 + b"\x00")
def test_any_body_is_a_message_or_a_link_error(body: bytes) -> None:
    frame = bytes([MAGIC, VERSION]) + len(body).to_bytes(4, "big") + body
    out, error = feed(FrameDecoder(), [frame])
    assert bool(error) != bool(out)


@many
@given(values)
def test_any_value_is_a_message_or_a_link_error(value: Any) -> None:
    body = msgpack.packb(value)
    frame = bytes([MAGIC, VERSION]) + len(body).to_bytes(4, "big") + body
    out, error = feed(FrameDecoder(), [frame])
    assert bool(error) != bool(out)


@many
@given(messages, st.integers(0), st.integers(0, 255))
def test_one_wrong_byte_is_a_message_or_a_link_error(message: Message, place: int, byte: int) -> None:
    data = bytearray(encode(message))
    data[place % len(data)] = byte
    out, error = feed(FrameDecoder(), [bytes(data)])
    assert len(out) <= 1
    assert out or error or data[:2] == bytes([MAGIC, VERSION])


@many
@given(st.integers(MAX_FRAME + 1, 2**32 - 1), st.binary(max_size=40))
def test_an_announced_length_is_not_believed(length: int, body: bytes) -> None:
    _, error = feed(FrameDecoder(), [bytes([MAGIC, VERSION]) + length.to_bytes(4, "big") + body])
    assert "announced" in error


@many
@given(messages)
def test_a_message_is_what_it_was_to_the_last_bit(message: Message) -> None:
    arrived = decode(encode(message), LinkMessage)
    assert type(arrived) is type(message)
    for name, value in msgspec.structs.asdict(message).items():
        same = getattr(arrived, name)
        assert same == value
        if isinstance(value, float):
            assert math.copysign(1, same) == math.copysign(1, value)
