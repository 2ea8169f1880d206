"""What the parts of a scenario say of each other: names that must exist, addresses that must differ."""

import posixpath
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from pyemperor.protocol.expect import Expect
from pyemperor.protocol.fault import Fault
from pyemperor.protocol.load import Load
from pyemperor.protocol.options import Address, Vassal
from pyemperor.protocol.patterns import Pattern, Target
from pyemperor.protocol.report import Path, Report, show, suggest

#: By port or path: the addresses there, who listens on each, and where the file says so.
_Taken = dict[str | int, list[tuple[Address, str, Path]]]


def check_addresses(vassals: Iterable[tuple[int, Vassal]], front: Address | None, report: Report) -> None:
    """Report names and addresses that are taken twice, and vassals that the web server cannot reach.

    ``vassals`` come with the number of their table; ``front`` is where the web server listens, if any does.
    """
    taken: _Taken = defaultdict(list)
    names: set[str] = set()
    for index, vassal in vassals:
        here = report.at("vassal", index)
        if vassal.name and vassal.name in names:
            here.at("name").problem(f"{show(vassal.name)} is taken", "a name for each vassal")
        names.add(vassal.name)
        if front and not vassal.socket:
            here.problem(f"{show(vassal.name)} has no socket", "socket, for the web server in front")
        for key, addresses in (("socket", vassal.socket), ("http-socket", vassal.http_socket)):
            for address in filter(None, addresses):
                _take(address, f"vassal {vassal.name}", taken, here.at(key))
    if front:
        _take(front, "the front", taken, report.at("front", "listen"))


def _take(address: Address, owner: str, taken: _Taken, report: Report) -> None:
    others = taken[address.port if address.kind == "tcp" else posixpath.normpath(address.path)]
    for other, holder, place in others:
        if address.collides(other):
            copies = address.kind == "unix" and place == report.path and holder != owner
            remedy = "copies need %n, which is their name, in the path" if copies else ""
            report.problem(f"{show(str(address))} is taken by {holder}", "an address of its own", remedy)
            break
    others.append((address, owner, report.path))


def check_references(
    vassals: Sequence[Vassal],
    loads: Sequence[Load | None],
    faults: Sequence[Fault | None],
    expects: Sequence[Expect | None],
    report: Report,
) -> None:
    """Report names that loads, faults and expectations use and that do not exist, and ids taken twice.

    The position of each in its sequence is the number of its table; None is one that could not be read.
    """
    processes = {vassal.name: vassal.processes for vassal in vassals if vassal.name}
    load_ids = [load.id for load in loads if load]
    fault_ids = [fault.id for fault in faults if fault]
    for kind, sequence in (("load", loads), ("fault", faults)):
        for index in _repeated(sequence):
            report.at(kind, index, "id").problem("this id is taken", f"an id for each {kind}")
    for index, load in enumerate(loads):
        if load and load.vassal:
            _exists("vassal", load.vassal, processes, report.at("load", index, "vassal"))
    after = {fault.id: fault.after.fault for fault in faults if fault and fault.after}
    for index, fault in enumerate(faults):
        if fault and fault.after:
            here = report.at("fault", index, "after")
            _exists("fault", fault.after.fault, fault_ids, here)
            if _waits_for_itself(fault.id, after):
                here.problem("faults wait for each other", "one that begins at a time")
    for index, expect in enumerate(expects):
        if expect and expect.load:
            _exists("load", expect.load, load_ids, report.at("expect", index, "load"))
    for target, here in _targets(faults, expects, report):
        if target.kind == "load":
            _exists("load", target.name, load_ids, here)
        elif target.kind == "fault":
            _exists("fault", target.name, fault_ids, here)
        elif target.name and _exists("vassal", target.name, processes, here):
            _check_worker(target, processes, here)


def _exists(what: str, name: str, known: Collection[str], report: Report) -> bool:
    """Report a name, or a glob, that fits none of ``known``."""
    if any(fnmatchcase(one, name) for one in known):
        return True
    report.problem(f"no {what} {name}", remedy=suggest(name, known))
    return False


def _check_worker(target: Target, processes: Mapping[str, int], report: Report) -> None:
    most = max(number for name, number in processes.items() if fnmatchcase(name, target.name))
    if target.kind == "worker" and target.index.isdigit() and not 1 <= int(target.index) <= most:
        report.problem(f"no worker {target.index} of {target.name}", f"1 to {most}, or *")


def _repeated(sequence: Sequence[Load | Fault | None]) -> Iterator[int]:
    seen: Counter[str] = Counter()
    for index, entry in enumerate(sequence):
        if entry:
            seen[entry.id] += 1
            if seen[entry.id] > 1:
                yield index


def _waits_for_itself(fault: str, after: dict[str, str]) -> bool:
    seen: set[str] = set()
    while fault in after and fault not in seen:
        seen.add(fault)
        fault = after[fault]
    return fault in seen


def _targets(
    faults: Sequence[Fault | None], expects: Sequence[Expect | None], report: Report
) -> Iterator[tuple[Target, Report]]:
    """Yield every target with the place where it is written."""
    patterns: list[tuple[Pattern | None, Report]] = []
    for index, fault in enumerate(faults):
        if fault:
            here = report.at("fault", index)
            yield from ((target, here.at("target")) for target in fault.target.walk())
            patterns.append((fault.on, here.at("on")))
    for index, expect in enumerate(expects):
        if expect:
            here = report.at("expect", index)
            patterns += [(expect.first, here.at("what")), (expect.second, here.at("what"))]
            patterns += [(expect.after, here.at("after")), (expect.until, here.at("until"))]
            patterns += [(event, here.at("events", number)) for number, event in enumerate(expect.events)]
    for pattern, here in patterns:
        if pattern and pattern.actor:
            yield from ((target, here) for target in pattern.actor.walk())
