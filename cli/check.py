"""``pyemperor check``: what a file of uWSGI's or of ours holds, and whether it is right."""

from dataclasses import replace

from pyemperor.actors.opened import Opened
from pyemperor.cli.configuration import (
    Warnings,
    address_on_demand,
    emperor_and_warnings,
    kind_of,
    vassal_and_warnings,
)
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.options import NO_SOCKET


def checked(path: str, emperor: str | None) -> tuple[str, Warnings]:
    """What the file ``path`` holds, "" for a scenario, and what its user should know.

    It is a vassal's if ``emperor`` is given: it is read as the Emperor in that file does. Raises ConfigError.
    """
    if emperor is not None:
        return _vassal_of(path, emperor)
    match kind_of(path):
        case "emperor":
            options, warnings = emperor_and_warnings(path)
            return f"the Emperor of {', '.join(options.emperor)}", warnings
        case "vassal":
            return _vassal(path)
    return "", ()


def _vassal(path: str) -> tuple[str, Warnings]:
    try:
        vassal, warnings = vassal_and_warnings(path)
    except ConfigError as error:
        raise ConfigError(*(_perhaps_on_demand(problem, path) for problem in error.problems)) from None
    return f"vassal: {vassal.name}", warnings


def _perhaps_on_demand(problem: Problem, path: str) -> Problem:
    """Without a socket it may still be right, but only an Emperor's file can tell."""
    if problem.found != NO_SOCKET:
        return problem
    remedy = f"{problem.remedy}; if an Emperor starts it on demand: pyemperor check --emperor EMPEROR.ini {path}"
    return replace(problem, remedy=remedy)


def _vassal_of(path: str, emperor: str) -> tuple[str, Warnings]:
    if kind_of(emperor) == "vassal":
        raise ConfigError(Problem(emperor, 0, "", "this is a vassal's file", "the file of its Emperor"))
    options, _ = emperor_and_warnings(emperor)
    vassal, warnings = vassal_and_warnings(path, options)
    said = f"vassal: {vassal.name}"
    if called_at := address_on_demand(path, options, Opened()):
        own = "" if set(vassal.addresses) - {called_at} else "without a socket of its own, "
        said += f", {own}started at the first connection to {called_at}"
    return said, warnings
