"""Targets and event patterns: how a scenario names processes, links and entries of the timeline.

A *target* is an address as in :class:`~pyemperor.protocol.messages.Trace`: ``emperor``, ``fork-server``,
``master:NAME``, ``worker:NAME/N``, ``cgi:NAME/N``, ``link:A>B``, ``link:A<B``, ``link:A<>B``, ``load:ID``,
``fault:ID``; names and numbers may hold ``*`` and ``?``. A *pattern* chooses entries of the timeline::

    EVENT                        every entry of that event (``credit``, ``probe.*``)
    EVENT(TARGET)                ... of that actor (``exit(worker:app/*)``)
    EVENT(TARGET)=STATE          ... that reached this state (``state(master:app)=READY``, ``request=50?``)
    EVENT(TARGET)=STATE reason=R ... for that reason, with ``*``
    EVENT~/REGEX/                ... whose "STATE REASON" the regular expression finds (``log~/mercy/``)
    fault:ID                     the injection of that fault; short for ``fault(fault:ID)``
"""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Literal, cast

import msgspec

from pyemperor.protocol.messages import EVENTS, State, Trace
from pyemperor.protocol.report import show, suggest
from pyemperor.protocol.values import Kind

TargetKind = Literal["emperor", "fork-server", "master", "worker", "cgi", "link", "load", "fault"]
_SINGLE = ("emperor", "fork-server")
_NAMED = ("master", "load", "fault")
_NUMBERED = ("worker", "cgi")
_NAME = r"[\w.*?-]+"
_TARGET = re.compile(
    rf"(?P<single>{'|'.join(_SINGLE)})"
    rf"|(?P<named>{'|'.join(_NAMED)}):(?P<name>{_NAME})"
    rf"|(?P<numbered>{'|'.join(_NUMBERED)}):(?P<owner>{_NAME})/(?P<index>\d+|[*])",
    re.ASCII,
)
_LINK = re.compile(r"link:(?P<one>[^<>]+)(?P<arrow><>|<|>)(?P<other>[^<>]+)")
_PATTERN = re.compile(
    r"(?P<event>[a-z.*?]+)(?:\((?P<actor>[^()]*)\))?"
    r"(?:=(?P<state>[^\s~]+)(?:\s+reason=(?P<reason>.+))?|~/(?P<regex>.+)/)?"
)


class Target(msgspec.Struct, frozen=True):
    """A process, a link, or a load or fault of the scenario; ``name`` and ``index`` may be globs."""

    text: str
    kind: TargetKind
    name: str = ""
    index: str = ""
    #: Both ends of a link; its messages go from the first to the second, ``both`` ways for ``<>``.
    ends: tuple["Target", ...] = ()
    both: bool = False

    def matches(self, actor: str) -> bool:
        """Say whether ``actor``, as a trace has it, is (one of) this target."""
        return fnmatchcase(actor, self.text)

    def walk(self) -> Iterator["Target"]:
        """Yield the target and, for a link, its ends."""
        yield self
        yield from self.ends


class Pattern(msgspec.Struct, frozen=True):
    """A choice of entries of the timeline; an empty field takes every value."""

    text: str
    event: str
    actor: Target | None = None
    state: str = ""
    reason: str = ""
    regex: str = ""

    @staticmethod
    def parse(text: str) -> "Pattern":
        """Read a pattern; ``ValueError`` tells what to write instead."""
        text = text.strip()
        if text.startswith("fault:"):
            return Pattern(text, "fault", parse_target(text))
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError('write "EVENT(TARGET)=STATE", "state(master:app)=READY", or "EVENT~/regex/"')
        event, actor, state, reason, regex = match.group("event", "actor", "state", "reason", "regex")
        if not any(fnmatchcase(known, event) for known in EVENTS):
            raise ValueError(f"no event {event}; {suggest(event, EVENTS)}".rstrip("; "))
        if event == "state" and state and not any(fnmatchcase(known, state) for known in State):
            raise ValueError(f"no state {state}; {suggest(state, State)}".rstrip("; "))
        target = None if actor is None or actor == "*" else parse_target(actor)
        try:
            re.compile(regex or "")
        except re.error as error:
            raise ValueError(f"the regular expression is wrong: {error}") from None
        return Pattern(text, event, target, state or "", reason or "", regex or "")

    def matches(self, trace: Trace) -> bool:
        """Say whether an entry of the timeline is one of those chosen."""
        return (
            fnmatchcase(trace.event, self.event)
            and (self.actor is None or self.actor.matches(trace.actor))
            and (not self.state or fnmatchcase(trace.state, self.state))
            and (not self.reason or fnmatchcase(trace.reason, self.reason))
            and (not self.regex or re.search(self.regex, f"{trace.state} {trace.reason}".strip()) is not None)
        )


def parse_target(text: str) -> Target:
    """Read a target; ``ValueError`` tells what to write instead."""
    text = text.strip()
    if match := _LINK.fullmatch(text):
        one, other = parse_target(match["one"]), parse_target(match["other"])
        for end in (one, other):
            if end.kind not in ("emperor", "fork-server", "master", "worker"):
                raise ValueError(f"a link is between processes, {end.text} is none")
        ends = (other, one) if match["arrow"] == "<" else (one, other)
        return Target(text, "link", ends=ends, both=match["arrow"] == "<>")
    match = _TARGET.fullmatch(text)
    if match is None:
        raise ValueError(
            f"no target {show(text)}: write emperor, fork-server, master:NAME, worker:NAME/N, cgi:NAME/*, "
            "link:emperor<>master:NAME, load:ID or fault:ID"
        )
    kind = match["single"] or match["named"] or match["numbered"]
    name = match["name"] or match["owner"] or ""
    return Target(text, cast(TargetKind, kind), name, match["index"] or "")


def _read_pattern(value: object, _base: str) -> Pattern:
    if not isinstance(value, str):
        raise ValueError('write "EVENT(TARGET)=STATE" in quotes')
    return Pattern.parse(value)


def _read_target(value: object, _base: str) -> Target:
    if not isinstance(value, str):
        raise ValueError('write "master:NAME" in quotes')
    return parse_target(value)


PATTERN = Kind("pattern", "an event pattern", _read_pattern)
TARGET = Kind("target", "a target", _read_target)
