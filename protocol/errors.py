"""Every error that bytes or text from outside can cause, and whose fault it is.

All derive from :class:`PyEmperorError`. :class:`RequestError` carries the HTTP status that the client
gets (RFC 9110 §15); :class:`ScriptError` is a request error whose cause is the CGI script's output;
:class:`LinkError` is what garbage, an unknown message or a newer version on a link between processes
raises; :class:`ConfigError` names file, line, key, what was found, what was expected and the remedy.
"""

from dataclasses import dataclass


class PyEmperorError(Exception):
    """Base of all errors that PyEmperor raises on purpose."""


class RequestError(PyEmperorError):
    """A request that cannot be served: ``status`` goes to the client, ``remedy`` to the log.

    ``str(error)`` says what is wrong in words for the client: no path of the server, no secret.
    """

    status: int = 400

    def __init__(self, problem: str, *, remedy: str = "", status: int | None = None) -> None:
        super().__init__(problem)
        self.remedy = remedy
        if status is not None:
            self.status = status


class ScriptError(RequestError):
    """The script answered with something that is not a CGI response (RFC 3875 §6)."""

    status = 502


class LinkError(PyEmperorError):
    """The peer on a link between two of our processes broke the protocol of frames."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a configuration: where it is, what was found, what to do.

    ``line`` counts from 1; 0 means that the problem has no one line. ``key`` is dotted
    (``vassal.supervision.intensity``) and may be empty.
    """

    file: str
    line: int
    key: str
    found: str
    expected: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        text = f"{where}: {self.key}: {self.found}" if self.key else f"{where}: {self.found}"
        if self.expected:
            text += f"; expected {self.expected}"
        if self.remedy:
            text += f" ({self.remedy})"
        return text


class ConfigError(PyEmperorError):
    """A configuration that cannot be used; ``problems`` has at least one entry, in file order."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class Disowned(ConfigError):
    """A vassal's configuration that is not, or not any more, of somebody in whose name it may run."""
