"""``${name}`` in the texts of a scenario: what a run may change from outside.

``[parameters]`` declares names with their defaults, numbers or texts; ``--set name=value`` overrides them.
Any text value may hold ``${name}``, or a product: ``${busy * scale}`` multiplies numbers and times, in
seconds. ``$${`` is a plain ``${``. The parameter ``scale`` always exists, 1 unless set.
"""

import re
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from pyemperor.protocol.quantities import number, seconds
from pyemperor.protocol.report import Report, show, suggest
from pyemperor.protocol.values import text

_REFERENCE = re.compile(r"\$(?:\$\{|\{(?P<product>[^{}]*)\})")
_NAME = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
SCALE = "scale"


def declared(table: Mapping[str, object], overrides: Mapping[str, str], report: Report) -> dict[str, str]:
    """Join the defaults in ``table`` and what was set from outside; the latter must be declared."""
    parameters = {SCALE: "1"}
    for name, default in table.items():
        try:
            parameters[name] = text(default)
        except ValueError:
            report.at(name).problem(show(default), "a number or text")
        if not _NAME.fullmatch(name):
            report.at(name).problem(show(name), "a name of letters, digits, '_' and '-'")
    for name in overrides:
        _check_known(name, parameters, report)
    return {**parameters, **overrides}


def scale_of(parameters: Mapping[str, str], report: Report) -> float:
    """Read the factor of all times, a number above 0; 1 when it is none, which ``report`` says."""
    raw = parameters[SCALE]
    try:
        scale = number(raw)
    except ValueError:
        scale = 0.0
    if scale > 0:
        return scale
    report.at(SCALE).problem(show(raw), "a number above 0", "0.1 makes everything ten times as fast")
    return 1.0


def fill(value: object, parameters: Mapping[str, str], report: Report) -> Any:
    """Replace the references in all texts below ``value``."""

    def replace(content: str, here: Report) -> str:
        return _REFERENCE.sub(lambda match: _resolve(match["product"], parameters, here), content)

    return each_text(value, report, replace)


def each_text(value: object, report: Report, change: Callable[[str, Report], str]) -> Any:
    """Copy ``value`` with every text below it changed; ``change`` gets the text and where it stands."""
    match value:
        case str():
            return change(value, report)
        case list():
            return [each_text(item, report.at(index), change) for index, item in enumerate(value)]
        case dict():
            return {key: each_text(item, report.at(key), change) for key, item in value.items()}
        case _:
            return value


def _check_known(name: str, parameters: Mapping[str, str], report: Report) -> None:
    if name not in parameters:
        remedy = suggest(name, parameters)
        report.problem(f"no parameter {name}", "a name declared in [parameters]", remedy)


def _resolve(product: str | None, parameters: Mapping[str, str], report: Report) -> str:
    if product is None:
        return "${"
    names = [factor.strip() for factor in product.split("*")]
    unknown = [name for name in names if _NAME.fullmatch(name) and name not in parameters]
    for name in unknown:
        _check_known(name, parameters, report)
    if unknown:
        return "0"  # valid nearly everywhere: it causes no second problem
    factors = [parameters.get(name, name) for name in names]
    if len(names) == 1 and names[0] in parameters:
        return factors[0]
    try:
        return f"{prod(map(seconds, factors)):.12g}"
    except ValueError:
        report.problem("${" + product + "}", "a name, or a product of numbers and times")
        return "0"
