"""Text from outside, made fit to be told: names of files and what clients say may hold anything."""


def encodable(text: str) -> str:
    """``text`` as UTF-8 can carry it: bytes of a file name that are no UTF-8, lone surrogates, are escaped.

    >>> print(encodable("caf\\udce9"), encodable("café"))
    caf\\udce9 café
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """``text`` with all escaped that is no plain character: control, invisible and bidi characters.

    >>> print(printable("a\\nb"), printable("café"))
    a\\nb café
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
