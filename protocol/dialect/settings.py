"""What a configuration file gives, and what it may ask of the machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pyemperor.protocol.errors import Problem
from pyemperor.protocol.report import MOST_TOLD


@dataclass(frozen=True, slots=True)
class Setting:
    """One ``key = value`` and where it stands; ``line`` counts from 1, 0 is a place without lines."""

    key: str
    value: str
    file: str
    line: int = 0


@dataclass(slots=True)
class Notes:
    """What is wrong in the files read so far (``problems``), and what their user should know (``warnings``)."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    @property
    def many(self) -> bool:
        """Whether there are more than anybody is told: then it is not worth looking for what was meant."""
        return len(self.problems) + len(self.warnings) > MOST_TOLD

    def problem(self, at: Setting, found: str, expected: str = "", remedy: str = "") -> None:
        """Note what makes the configuration unusable."""
        self.problems.append(Problem(at.file, at.line, at.key, found, expected, remedy))

    def warning(self, at: Setting, found: str, expected: str = "", remedy: str = "") -> None:
        """Note what the user should know, though the configuration can be used."""
        self.warnings.append(Problem(at.file, at.line, at.key, found, expected, remedy))


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings of a configuration in uWSGI's order, its directives carried out."""

    settings: tuple[Setting, ...]
    #: Names that are placeholders: used as ``%(name)``, or made by ``set-placeholder``.
    placeholders: frozenset[str]
    #: Every file that was read, the first one first: what a monitor has to watch.
    files: tuple[str, ...]
    notes: Notes


def _nothing(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class World:
    """The machine as a configuration sees it.

    ``read`` gives the text of a file; it raises OSError, or UnicodeDecodeError. Relative paths start from
    ``cwd``, and the callables get absolute ones.
    """

    read: Callable[[str], str]
    cwd: str = "/"
    environ: Mapping[str, str] = field(default_factory=dict)
    hostname: str = "localhost"
    uid: int = 0
    user: str = "root"
    gid: int = 0
    group: str = "root"
    cpus: int = 1
    version: str = ""
    binary: str = ""
    #: Start of the program, in microseconds since 1970.
    started: int = 0
    #: The configuration is read once more, by a program that runs already (``if-reload``).
    reloading: bool = False
    exists: Callable[[str], bool] = _nothing
    is_file: Callable[[str], bool] = _nothing
    is_dir: Callable[[str], bool] = _nothing
    inode: Callable[[str], int] = lambda _: 0
    #: The sorted paths that a shell pattern fits; () when it fits none.
    glob: Callable[[str], tuple[str, ...]] = lambda _: ()
