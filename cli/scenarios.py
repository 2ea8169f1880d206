"""Reads scenario files."""

import os
from collections.abc import Mapping

from pyemperor.actors.confinement import missing_tools
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.scenario import Scenario, load_scenario


def read_scenario(file: str, parameters: Mapping[str, str]) -> Scenario:
    """The scenario in ``file``; raises ConfigError for whatever is wrong with it, or with reading it."""
    try:
        with open(file, encoding="utf-8") as opened:
            text = opened.read()
    except UnicodeDecodeError as error:
        raise ConfigError(Problem(file, 0, "", f"this is not UTF-8 text ({error})")) from None
    except OSError as error:
        problem = Problem(
            file,
            0,
            "",
            f"cannot be read: {error.strerror}",
            remedy="name a scenario file, such as scenarios/cgi.toml",
        )
        raise ConfigError(problem) from None
    scenario = load_scenario(text, file=file, base=os.path.dirname(os.path.abspath(file)), parameters=parameters)
    missing = {tool for vassal in scenario.vassals for tool in missing_tools(vassal)}
    if missing:
        found = f"{' and '.join(sorted(missing))} not found: the limits and rights of scripts need it"
        raise ConfigError(Problem(file, 0, "", found, remedy="apt-get install util-linux"))
    return scenario
