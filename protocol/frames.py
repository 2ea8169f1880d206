"""Frames: how one message lies on a link between two processes.

A frame is ``magic`` (1 byte, 0xE7), ``version`` (1 byte), ``length`` (u32, big endian) and ``length`` bytes
of msgpack, at most :data:`MAX_FRAME`. The decoder keeps at most one frame's bytes and reads no length that it
would not accept, so a peer that sends garbage costs nothing and is named a :class:`LinkError`.
"""

import struct
from collections.abc import Iterator
from typing import Any

import msgpack
import msgspec

from pyemperor.protocol.errors import LinkError
from pyemperor.protocol.messages import LinkMessage, Message

MAGIC = 0xE7
VERSION = 1
#: Bytes of msgpack in one frame, at most.
MAX_FRAME = 256 * 1024
_HEADER = struct.Struct(">BBI")
HEADER_SIZE = _HEADER.size


def encode(message: msgspec.Struct) -> bytes:
    """The frame that carries ``message``; raises :class:`LinkError` when it is larger than a frame may be."""
    # Text from outside may hold lone surrogates, which UTF-8 cannot say.
    plain = msgspec.to_builtins(message)
    body: bytes = msgpack.packb(plain, use_bin_type=True, unicode_errors="backslashreplace")
    if len(body) > MAX_FRAME:
        raise LinkError(
            f"a {type(message).__name__} of {len(body)} bytes is larger than a frame ({MAX_FRAME})"
        )
    return _HEADER.pack(MAGIC, VERSION, len(body)) + body


def _message(body: bytes, union: Any) -> Any:
    try:
        return msgspec.convert(msgpack.unpackb(body, strict_map_key=True), union, strict=False)
    except msgspec.ValidationError as error:
        raise LinkError(f"an unknown or malformed message: {error}") from None
    except Exception as error:  # msgpack raises a dozen kinds for garbage
        raise LinkError(f"a frame that is not msgpack: {error!r}") from None


def _length(header: tuple[int, int, int]) -> int:
    magic, version, length = header
    if magic != MAGIC:
        raise LinkError(f"this is no frame of ours: it begins with byte 0x{magic:02x}")
    if version != VERSION:
        raise LinkError(f"the peer speaks version {version} of the frames, this process version {VERSION}")
    if length > MAX_FRAME:
        raise LinkError(f"a frame of {length} bytes announced; at most {MAX_FRAME} are accepted")
    return length


def decode(frame: bytes, union: Any) -> Any:
    """The message of exactly one ``frame`` (a datagram), of one of the types in ``union``."""
    if len(frame) < HEADER_SIZE:
        raise LinkError(f"a frame of {len(frame)} bytes is shorter than its header")
    length = _length(_HEADER.unpack_from(frame))
    if len(frame) != HEADER_SIZE + length:
        raise LinkError(f"a frame of {len(frame)} bytes announced {length} bytes")
    return _message(frame[HEADER_SIZE:], union)


class FrameDecoder:
    """Bytes in any portions in, messages out; after a :class:`LinkError` the link is of no more use."""

    __slots__ = ("_bytes", "_union")

    def __init__(self, union: Any = LinkMessage) -> None:
        self._union = union
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that ``data`` completes, in order."""
        buffer = self._bytes
        buffer += data
        while len(buffer) >= HEADER_SIZE:
            end = HEADER_SIZE + _length(_HEADER.unpack_from(buffer))
            if len(buffer) < end:
                return
            body = bytes(memoryview(buffer)[HEADER_SIZE:end])
            del buffer[:end]
            yield _message(body, self._union)
