"""uWSGI's magic variables: ``%n`` and the like, replaced while a file is read.

Lower-case letters tell of the file that is read, upper-case ones of the first file. Source: uWSGI,
"Configuring uWSGI", section "Magic variables".
"""

import posixpath
import re
from collections.abc import Mapping

from pyemperor.protocol.dialect.bounds import substitute
from pyemperor.protocol.dialect.settings import World

_REFERENCE = re.compile("%(.)")


def magic_table(name: str, section: str, world: World, first: tuple[str, str]) -> dict[str, str]:
    """Make the value of every letter for the file ``name``; ``first`` is the first file and its section."""
    folder = posixpath.dirname(_absolute(name, world))
    parts = [part for part in folder.split("/") if part][:10]
    own = _of_file(name, section, world)
    return {
        **own,
        **{letter.upper(): value for letter, value in _of_file(*first, world).items()},
        **{str(index): part for index, part in enumerate(parts)},
        "v": world.cwd,
        "V": world.version,
        "h": world.hostname,
        "t": str(world.started // 1_000_000),
        "T": str(world.started),
        "k": str(world.cpus),
        "u": str(world.uid),
        "U": world.user,
        "g": str(world.gid),
        "G": world.group,
        "b": world.binary,
        "[": "\x1b",
        "%": "%",
        "(": "%(",
    }


def _of_file(name: str, section: str, world: World) -> dict[str, str]:
    path = _absolute(name, world)
    folder, base = posixpath.split(path)
    stem, dot, extension = base.rpartition(".")
    return {
        "o": name,
        "p": path,
        "s": base,
        "d": folder.rstrip("/") + "/",
        "c": posixpath.basename(folder),
        "e": extension if dot else "",
        "n": stem if dot else base,
        "x": section,
        "i": str(world.inode(path)),
        "j": _djb33x(path).to_bytes(4, "little").hex().upper(),
    }


def expand_magic(text: str, table: Mapping[str, str]) -> tuple[str, list[str]]:
    """Replace the variables in one line; also give the letters that mean nothing, which vanish as in uWSGI.

    A percent sign at the end of the line stays. What becomes too long is cut where it does.
    """
    unknown = [letter for letter in _REFERENCE.findall(text) if letter not in table and not letter.isdigit()]
    return substitute(_REFERENCE, lambda match: table.get(match[1], ""), text), unknown


def _absolute(name: str, world: World) -> str:
    return posixpath.normpath(posixpath.join(world.cwd, name))


def _djb33x(text: str) -> int:
    """Bernstein's hash with xor, which uWSGI shows as %j."""
    result = 5381
    for byte in text.encode(errors="surrogateescape"):
        result = ((result << 5) + result & 0xFFFFFFFF) ^ byte
    return result
