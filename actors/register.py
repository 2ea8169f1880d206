"""What an imperial monitor has told the Emperor: which vassals there are, by which names, read from what.

It outlives the monitor, as a table with an heir does in OTP (ets(3), ``heir``): the next one goes on from it, and
finds what has changed meanwhile by comparing. An entry is made once the Emperor has been told, never before: what
a monitor has failed at is new to the next one.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, count

from pyemperor.actors.opened import Opened, OwnersFile
from pyemperor.protocol.escapes import printable

#: Makes what the Emperor is told from a vassal's name.
Told = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Ward:
    """One vassal, as the Emperor was told of it."""

    name: str
    #: The name that it runs under, if it was renamed and could not be used since.
    formerly: str = ""
    #: Of its source.
    uri: str = ""
    version: Hashable = None
    #: What its last reading opened.
    opened: Opened = field(default_factory=Opened)
    #: What follows when a file is touched; None: it could never be used.
    touch: Mapping[OwnersFile, Told] | None = None

    @property
    def runs_as(self) -> str:
        """The name by which the Emperor knows it."""
        return self.formerly or self.name


class Register:
    """The vassals by key, and their names, of which each belongs to one."""

    def __init__(self) -> None:
        self.wards: dict[str, Ward] = {}
        #: When each file that may be touched was touched last; None: it is not there.
        self.stamps: Mapping[OwnersFile, Hashable | None] = {}
        #: By name, the key of the vassal that has it, or has had it and still runs under it.
        self._holders: dict[str, str | None] = {}
        #: By the name that a number follows, the first number that may be free.
        self._numbers: dict[str, int] = {}
        #: What the Emperor wants read again, and was not told of since.
        self._asked: set[str] = set()
        self._listener: Callable[[str], object] = lambda _: None

    def reserve(self, names: Iterable[str]) -> None:
        """These are nobody's here."""
        self._holders |= dict.fromkeys(names)

    def name_for(self, key: str, plain: str, place: str, *, instead_of: str = "") -> str:
        """A name for a vassal: ``plain`` where it is free, else told from the other by its place.

        From another one in its folder (``shop.ini``) it is told by its file (``shop.json``).
        Those of ``instead_of``, whose place it takes, are free.
        """
        placed = f"{place}.{plain}"
        folder, _, file = key.rpartition("/")
        file = printable(file)
        names = [plain]
        names += [file] if self._is_in(folder, plain) else []
        names += [placed]
        names += [f"{place}.{file}"] if self._is_in(folder, placed) else []
        first = 2 if instead_of else self._numbers.get(placed, 2)
        for number, name in chain(((0, name) for name in names), _numbered(placed, first)):
            if self._holders.get(name, key) in (key, instead_of):
                if number:
                    self._numbers[placed] = number + 1
                return name
        raise AssertionError  # numbers do not end

    def _is_in(self, folder: str, name: str) -> bool:
        """Whether the vassal that has the name has its file in the folder."""
        holder = self._holders.get(name)
        return bool(folder) and holder is not None and holder.rpartition("/")[0] == folder

    def note(self, key: str, ward: Ward, *, instead_of: str = "") -> None:
        """The Emperor was told that the vassal is so."""
        for gone in (instead_of, key):
            self._free(gone)
        self.wards[key] = ward
        self._holders |= {ward.name: key, ward.runs_as: key}

    def strike(self, key: str) -> None:
        """The Emperor was told that there is no such vassal."""
        self._free(key)
        self._numbers.clear()

    def _free(self, key: str) -> None:
        self._asked.discard(key)
        if ward := self.wards.pop(key, None):
            for name in {ward.name, ward.runs_as}:
                del self._holders[name]

    # ---- what the Emperor wants ---------------------------------------------------------------------------

    def remind(self, key: str) -> None:
        """Have a vassal read again: by who attends, or else by who comes next. The Emperor calls it."""
        self._asked.add(key)
        self._listener(key)

    def attend(self, listener: Callable[[str], object]) -> list[str]:
        """Tell ``listener`` from now on; return what nobody has read since the Emperor asked for it."""
        self._listener = listener
        return sorted(list(self._asked))  # noqa: C414  # the Emperor's thread may add to it: copied at one go


def _numbered(name: str, first: int) -> Iterator[tuple[int, str]]:
    return ((number, f"{name}-{number}") for number in count(first))
