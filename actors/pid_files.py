"""The files with the process ids of masters: a vassal's ``pidfile`` and its kin.

They are the Emperor's to write, since it alone knows which generation of a vassal serves. As in uWSGI, ``pidfile``
is written as whoever the Emperor is, the others as the vassal's user; in tyrant mode all are as the owner. A file
is there as long as its master.
"""

from collections.abc import Iterator

from pyemperor.actors.credentials import acting_as, identity_of
from pyemperor.actors.socket_file import OurFile, replace_file
from pyemperor.protocol.options import Owner, Vassal

#: Written when there is a master; and when it is ready.
_AT_ONCE, _SAFE = ("pidfile", "pidfile2"), ("safe-pidfile", "safe-pidfile2")


class PidFiles:
    """The files of all vassals. What the next generation has written is no more the former one's."""

    def __init__(self) -> None:
        #: By path: vassal, claim, the file, and in whose name it was made.
        self._holders: dict[str, tuple[str, str, OurFile, Owner | None]] = {}
        #: By claim and option, for which master it was tried: what failed is said once.
        self._tried: dict[tuple[str, str], int] = {}

    def write(self, claim: str, vassal: Vassal, pid: int, *, ready: bool) -> list[str]:
        """Write what is not written yet for the master ``pid``; the value says in words what could not be."""
        problems = []
        for option in (*_AT_ONCE, *(_SAFE if ready else ())):
            path: str = getattr(vassal, option.replace("-", "_"))
            if not path or self._tried.get((claim, option)) == pid:
                continue
            self._tried[claim, option] = pid
            try:
                self._write(claim, vassal, option, path, pid)
            except (OSError, LookupError) as error:
                why = error.strerror if isinstance(error, OSError) else str(error)
                problems.append(f"{option} = {path}: {why}")
        return problems

    def _write(self, claim: str, vassal: Vassal, option: str, path: str, pid: int) -> None:
        holder = self._holders.get(path)
        if holder is not None:
            name = holder[0]
            if name != vassal.name:
                raise LookupError(f"it is the file of vassal {name}; %n in the path is the name of each")
        owner = vassal.owner if option == "pidfile" else identity_of(vassal)
        with acting_as(owner):
            file = replace_file(path, f"{pid}\n")
        self._holders[path] = vassal.name, claim, file, owner

    def remove(self, claim: str) -> Iterator[str]:
        """Remove the files of ``claim``, whose master is gone; yields in words what could not be."""
        self._tried = {key: pid for key, pid in self._tried.items() if key[0] != claim}
        for path, (_, its_claim, file, owner) in list(self._holders.items()):
            if its_claim == claim:
                del self._holders[path]
                try:
                    with acting_as(owner):
                        file.remove()
                except OSError as error:
                    yield f"{path} stays behind: {error.strerror}"
