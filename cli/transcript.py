"""What a scenario's run says on stdout: its timeline, as it goes, and its verdict."""

import json
import math
import os
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from pyemperor.cli.verdict import NO_ANSWER, Course, Finding
from pyemperor.protocol.messages import Trace


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a scenario. ``loads`` has status and seconds of every request of each load."""

    scenario: str
    problems: Sequence[str]
    findings: Sequence[Finding]
    loads: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    seed: int | None = None

    @property
    def met(self) -> bool:
        """Whether all went as expected."""
        return not self.problems and all(finding.met for finding in self.findings)


class Form(Protocol):
    """How entries and the verdict are written."""

    def entry(self, trace: Trace, at: float) -> str: ...
    def verdict(self, verdict: Verdict) -> str: ...


class Transcript:
    """Writes every entry of ``course`` once; times are relative to the steady state, so it waits for that."""

    def __init__(self, course: Course, form: Form) -> None:
        self._course = course
        self._form = form
        self._waiting: list[Trace] = []

    def show(self, trace: Trace) -> None:
        """Write an entry."""
        self._waiting.append(trace)
        if self._course.begun_at < math.inf:
            self._write(self._course.begun_at)

    def close(self, verdict: Verdict) -> None:
        """Write what still waits, relative to its start if there was no steady state, and the verdict."""
        if self._waiting:
            self._write(self._waiting[0].at)
        self._print([self._form.verdict(verdict)])

    def _write(self, zero: float) -> None:
        lines = [self._form.entry(trace, trace.at - zero) for trace in self._waiting]
        self._waiting.clear()
        self._print(lines)

    def _print(self, lines: Iterable[str]) -> None:
        try:
            sys.stdout.writelines(f"{line}\n" for line in lines if line)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read it has seen enough (`| head`); the run goes on to its end, and its exit code counts.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Json:
    """One object a line, keys sorted; the last has the type "verdict"."""

    def entry(self, trace: Trace, at: float) -> str:
        return _line({**msgspec.to_builtins(trace), "at": _rounded(at)})

    def verdict(self, verdict: Verdict) -> str:
        loads = [_load(name, answers) for name, answers in verdict.loads.items()]
        return _line(
            {
                "type": "verdict",
                "scenario": verdict.scenario,
                "met": verdict.met,
                "problems": list(verdict.problems),
                "expectations": [_finding(finding) for finding in verdict.findings],
                "loads": loads,
            }
            | ({} if verdict.seed is None else {"seed": verdict.seed})
        )


class Plain:
    """For people; what is too frequent to be read, beats and successful requests, is left out."""

    def entry(self, trace: Trace, at: float) -> str:
        if trace.event == "beat" or (trace.event == "request" and not _remarkable(trace)):
            return ""
        what = trace.state if trace.event == "state" else f"{trace.event} {trace.state}".rstrip()
        return f"{at:10.3f}  {trace.actor:<20} {what:<14} {trace.reason}".rstrip()

    def verdict(self, verdict: Verdict) -> str:
        lines = [f"PROBLEM  {problem}" for problem in verdict.problems]
        for finding in verdict.findings:
            lines.append(f"{'met    ' if finding.met else 'NOT MET'}  {finding.id}: {finding.found}")
            if not finding.met and finding.expected:
                lines.append(f"         expected: {finding.expected}")
        for name, answers in verdict.loads.items():
            load = _load(name, answers)
            statuses = ", ".join(f"{number} x {status}" for status, number in load["statuses"].items())
            times = f", p50 {load['p50']} s, p99 {load['p99']} s" if answers else ""
            lines.append(f"load     {name}: {statuses or 'no requests'}{times}")
        lines.append(f"{verdict.scenario}: {'every expectation is met' if verdict.met else 'FAILED'}")
        return "\n".join(lines)


def _finding(finding: Finding) -> dict[str, Any]:
    return {"id": finding.id, "met": finding.met, "found": finding.found, "expected": finding.expected}


def _remarkable(trace: Trace) -> bool:
    return trace.actor.startswith("load:") and not trace.state.startswith(("2", "3"))


def _load(name: str, answers: Sequence[tuple[str, float]]) -> dict[str, Any]:
    statuses = Counter("error" if status == NO_ANSWER else status for status, _ in answers)
    times = [seconds for _, seconds in answers]
    percentiles = statistics.quantiles(times, n=100, method="inclusive") if len(times) > 1 else times * 99
    figures = {f"p{percent}": _rounded(percentiles[percent - 1]) for percent in (50, 99)} if times else {}
    return {"id": name, "requests": len(answers), "statuses": dict(sorted(statuses.items())), **figures}


def _rounded(seconds: float) -> float:
    return round(seconds, 6)


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True, ensure_ascii=False)
