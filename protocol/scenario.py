"""Scenario files: what to run, how it is supervised, what happens to it and what must come of it. Pure.

A file has ``[emperor]`` and ``[[vassal]]`` (uWSGI's option names), ``[supervision]`` and
``[vassal.supervision]`` (OTP's), ``[front]``, and, where it is a test, ``[run]``, ``[[load]]``, ``[[fault]]``
and ``[[expect]]``.

The same file passes in real and in simulated time. ``[parameters]`` holds what may differ from run to run:
``"${name}"`` in any text stands for it, ``--set name=value`` changes it. One parameter is always there:
``scale`` stretches every time in the file and every default, so that ``--set scale=0.1`` plays it ten times
as fast with all proportions kept. It leaves alone what the machine sets: rates, and the ``slack`` of an
expectation. Where a time stands inside a text it is a product: ``"/slow.cgi?sleep=${busy * scale}"``.

Relative paths start from the file's folder. ``%n`` in a vassal's texts is its name, as in uWSGI.
"""

import posixpath
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from pyemperor.protocol.errors import Problem
from pyemperor.protocol.expect import Expect, expect_from
from pyemperor.protocol.fault import After, Fault, fault_from
from pyemperor.protocol.load import Load, load_from
from pyemperor.protocol.options import (
    Address,
    EmperorOptions,
    Supervision,
    Vassal,
    emperor_from,
    supervision_from,
    supervision_under,
    vassal_from,
)
from pyemperor.protocol.parameters import declared, each_text, fill, scale_of
from pyemperor.protocol.references import check_addresses, check_references
from pyemperor.protocol.report import Report, in_file_order, show
from pyemperor.protocol.tables import Option, check_kind, defaults, read, rows
from pyemperor.protocol.toml_lines import parse_toml
from pyemperor.protocol.values import ADDRESS, COUNT, TABLE, TEXT, TIME, WORD, Kind, choice

__all__ = ["After", "Expect", "Fault", "Front", "Load", "Run", "Scenario", "load_scenario"]


def _tables(value: object, _base: str) -> list[dict[str, object]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("write the header in double brackets: [[...]]")
    return value


TABLES = Kind("tables", "a list of tables", _tables)
KEYS: tuple[Option, ...] = (
    Option("file", "name", TEXT, "", "name in reports; default: the file's"),
    Option("file", "description", TEXT, "", "what it shows"),
    Option("file", "parameters", TABLE, {}, "what a run may change, with defaults"),
    Option("file", "run", TABLE, {}, "how to run it as a test"),
    Option("file", "emperor", TABLE, {}, "options of the Emperor"),
    Option("file", "supervision", TABLE, {}, "supervision of every vassal"),
    Option("file", "vassal", TABLES, [], "the vassals"),
    Option("file", "front", TABLE, {}, "web server in front"),
    Option("file", "load", TABLES, [], "requests"),
    Option("file", "fault", TABLES, [], "what breaks"),
    Option("file", "expect", TABLES, [], "what must come of it"),
    Option("run", "mode", choice("both", "real", "sim"), "both", "in which time it can run"),
    Option("run", "seed", COUNT, 1, "start of all randomness"),
    Option("run", "for", TIME, 0.0, "length of the timeline; 0: until loads and faults are over",
           field_name="duration"),
    Option("run", "timeout", TIME, 3600.0, "it has failed when it is not over by then", least=0.1),
    Option("front", "kind", choice("none", "nginx"), "none", "web server to start in front of the vassals"),
    Option("front", "listen", ADDRESS, Address("tcp", host="127.0.0.1", port=8088), "where it listens"),
    Option("head", "name", WORD, None, "name of the vassal", needed=True),
    Option("head", "copies", COUNT, None, "make so many of it, NAME-1, NAME-2, ...", least=1, most=1000),
    Option("head", "supervision", TABLE, {}, "supervision of this vassal"),
)
_FILE, _RUN, _FRONT, _HEAD = (rows(KEYS, scope) for scope in ("file", "run", "front", "head"))


class Run(msgspec.Struct, frozen=True):
    """How to run a scenario as a test; times are seconds."""

    mode: Literal["both", "real", "sim"] = _RUN["mode"].default
    seed: int = _RUN["seed"].default
    #: Length of the timeline; 0: until loads and faults are over.
    duration: float = _RUN["for"].default
    timeout: float = _RUN["timeout"].default


class Front(msgspec.Struct, frozen=True):
    """The web server in front of the vassals."""

    kind: Literal["none", "nginx"] = _FRONT["kind"].default
    listen: Address = _FRONT["listen"].default


class Scenario(msgspec.Struct, frozen=True):
    """A whole scenario file, typed, its references resolved and its times stretched by ``scale``."""

    name: str
    vassals: tuple[Vassal, ...]
    description: str = ""
    emperor: EmperorOptions = EmperorOptions()
    front: Front = Front()
    run: Run = Run()
    loads: tuple[Load, ...] = ()
    faults: tuple[Fault, ...] = ()
    expects: tuple[Expect, ...] = ()
    scale: float = 1.0
    #: Valid, but the user should know: options without effect.
    warnings: tuple[Problem, ...] = ()

    @property
    def has_timeline(self) -> bool:
        """Say whether it is a test that ends by itself; else it serves until it is stopped."""
        return bool(self.loads or self.faults or self.expects or self.run.duration)


def load_scenario(
    text: str, *, file: str, base: str, parameters: Mapping[str, str] | None = None
) -> Scenario:
    """Read the ``text`` of a scenario ``file``; relative paths start from the folder ``base``.

    ``parameters`` override those that the file declares. Raises :class:`ConfigError` with everything that is
    wrong, in file order.
    """
    raw, report = parse_toml(text, file)
    declarations = raw.pop("parameters", {})
    if not isinstance(declarations, dict):
        report.at("parameters").problem(show(declarations), TABLE.expected)
        declarations = {}
    values = declared(declarations, parameters or {}, report.at("parameters"))
    scale = scale_of(values, report.at("parameters"))
    table = fill(raw, values, report)
    parts = defaults(_FILE) | read(_FILE, table, report)
    if table.get("vassal", []) == [] and not parts["emperor"].get("emperor"):
        report.problem("no vassal", "[[vassal]]")
    emperor = emperor_from(parts["emperor"], report.at("emperor"), base=base, scale=scale)
    outer = supervision_under(emperor, scale)
    supervision = supervision_from(parts["supervision"], report.at("supervision"), outer=outer, scale=scale)
    vassals = list(_vassals(parts["vassal"], report, base, scale, supervision))
    only = vassals[0][1].name if len(vassals) == 1 else ""
    loads = [
        load_from(entry, report.at("load", index), ordinal=index + 1, only=only, scale=scale)
        for index, entry in enumerate(parts["load"])
    ]
    faults = [
        fault_from(entry, report.at("fault", index), ordinal=index + 1, scale=scale)
        for index, entry in enumerate(parts["fault"])
    ]
    expects = [
        expect_from(entry, report.at("expect", index), scale=scale)
        for index, entry in enumerate(parts["expect"])
    ]
    front = Front(**defaults(_FRONT) | read(_FRONT, parts["front"], report.at("front"), base=base))
    run = Run(**defaults(_RUN, scale) | read(_RUN, parts["run"], report.at("run"), scale=scale))
    check_addresses(vassals, front.listen if front.kind == "nginx" else None, report)
    check_references([vassal for _, vassal in vassals], loads, faults, expects, report)
    report.raise_problems()
    return Scenario(
        name=parts["name"] or posixpath.splitext(posixpath.basename(file))[0],
        description=parts["description"],
        emperor=emperor,
        vassals=tuple(vassal for _, vassal in vassals),
        front=front,
        run=run,
        loads=tuple(load for load in loads if load),
        faults=tuple(fault for fault in faults if fault),
        expects=tuple(expect for expect in expects if expect),
        scale=scale,
        warnings=in_file_order(report.warnings),
    )


def _vassals(
    tables: list[dict[str, object]], report: Report, base: str, scale: float, outer: Supervision
) -> Iterator[tuple[int, Vassal]]:
    """Yield the vassals of all ``[[vassal]]`` tables, each with the number of its table."""
    for index, table in enumerate(tables):
        here = report.at("vassal", index)
        own = {key: value for key, value in table.items() if key in _HEAD}
        check_kind(_HEAD, "", own, here)
        head = defaults(_HEAD) | read(_HEAD, own, here)
        supervision = supervision_from(head["supervision"], here.at("supervision"), outer=outer, scale=scale)
        name, copies = head["name"] or "", head["copies"]
        for label in [name] if copies is None else [f"{name}-{n}" for n in range(1, copies + 1)]:
            yield index, vassal_from(
                _named(table, label, here),
                here,
                name=label,
                base=base,
                scale=scale,
                supervision=supervision,
                besides=_HEAD,
            )


def _named(table: dict[str, object], name: str, report: Report) -> dict[str, object]:
    """Replace ``%n``, uWSGI's magic variable for the name of the vassal."""
    named: dict[str, object] = each_text(table, report, lambda text, _: text.replace("%n", name))
    return named
