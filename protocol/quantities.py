"""Readers of numbers, times, sizes, flags and permission bits: raw value in, Python's value out.

A reader raises ``ValueError``, whose text tells the user what to write instead. Numbers may come as text
(``"25"``), because a parameter or an INI file can give nothing else.
"""

import math
import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME = re.compile(r"(?P<sign>-?)(?:\d+(?:\.\d+)?\s*(?:ms|s|m|h|d)\s*)+")
_TIME_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+)\s*([kmg]?)(?:i?b)?", re.IGNORECASE)
_FLAGS = dict.fromkeys(("true", "on", "yes", "1"), True) | dict.fromkeys(("false", "off", "no", "0"), False)
_LONGEST = 1e9
_BIGGEST = 2**62


def seconds(value: object) -> float:
    """Read a duration in seconds: ``25``, ``1.5``, ``"25"``, ``"250ms"``, ``"2m"``, ``"1h30m"``."""
    if isinstance(value, str) and (match := _TIME.fullmatch(value.strip())):
        result = sum(float(part) * _UNITS[unit] for part, unit in _TIME_PART.findall(match[0]))
        result *= -1 if match["sign"] else 1
    else:
        result = number(value, 'write 25, "250ms", "25s", "2m" or "1h"')
    if result < 0:
        raise ValueError("a time cannot be negative")
    if result > _LONGEST:
        raise ValueError("at most 10^9 seconds")
    return result


def number(value: object, remedy: str = "write a number, such as 0.5") -> float:
    """Read a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(remedy)
    try:
        result = float(value)
    except (ValueError, OverflowError):
        raise ValueError(remedy) from None
    if not math.isfinite(result):
        raise ValueError(remedy)
    return result


def fraction(value: object) -> float:
    """Read a share from 0 to 1."""
    result = number(value)
    if not 0 <= result <= 1:
        raise ValueError("0.5 is every second one")
    return result


def count(value: object) -> int:
    """Read a whole number, 0 or more."""
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    if isinstance(text, bool) or not isinstance(text, int) or text < 0 or text > _BIGGEST:
        raise ValueError("write a whole number without a unit")
    return text


def integer(value: object) -> int:
    """Read a whole number, which may be below 0."""
    below = isinstance(value, str) and value.strip().startswith("-")
    if isinstance(value, int) and not isinstance(value, bool) and value < 0:
        return -count(-value)
    return -count(str(value).strip()[1:]) if below else count(value)


def size(value: object) -> int:
    """Read a number of bytes: ``65535``, ``"4k"``, ``"1M"``, ``"2G"``; a k is 1024."""
    if isinstance(value, str) and len(value) < 19 and (match := _SIZE.fullmatch(value.strip())):
        return int(match[1]) << 10 * " kmg".index(match[2].lower() or " ")
    try:
        return count(value)
    except ValueError:
        raise ValueError('write 65535, "64k" or "1M"') from None


def flag(value: object) -> bool:
    """Read a yes or no, also uWSGI's words for it."""
    word = str(value).lower() if isinstance(value, bool | int | str) else ""
    if word not in _FLAGS:
        raise ValueError("write true or false")
    return _FLAGS[word]


def is_flag(word: str) -> bool:
    """Say whether a word means yes or no."""
    return word.lower() in _FLAGS


def mode(value: object) -> int:
    """Read permission bits from three octal digits; a bare switch (true, "1") is 666, as in uWSGI."""
    if value is True or value in ("1", "true"):
        return 0o666
    if isinstance(value, str) and re.fullmatch("0?[0-7]{3}", value):
        return int(value, 8)
    raise ValueError('write the three octal digits in quotes: "660"')


def umask(value: object) -> int:
    """Read the bits that new files do not get: octal digits."""
    if isinstance(value, str) and re.fullmatch("0?[0-7]{1,3}", value):
        return int(value, 8)
    raise ValueError('write octal digits in quotes: "022"')


def megabytes(value: object) -> int:
    """Read a number of megabytes, uWSGI's unit for memory, as bytes; ``"512M"`` says its own unit."""
    number = size(value)
    return number << 20 if isinstance(value, int) or str(value).strip().isdigit() else number


def milliseconds(value: object) -> float:
    """Read a number of milliseconds, as seconds; ``"2s"`` says its own unit."""
    if isinstance(value, str) and not value.strip().isdigit():
        return seconds(value)
    return count(value) / 1000
