"""Reads scenario files."""

import os
from collections.abc import Mapping

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
    return load_scenario(text, file=file, base=os.path.dirname(os.path.abspath(file)), parameters=parameters)
