"""Hooks: what is carried out, and when. Source: uWSGI, "Hooks", and its core/hooks.c. Pure.

A *step* is one thing to do, a *phase* a list of steps, carried out one after the other by an attendant.
"""

import posixpath
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec

from pyemperor.protocol.report import suggest
from pyemperor.protocol.values import Kind, text

_C_LIBRARY = "a function of a C library cannot be called: exec:PROGRAM"
_WAIT = "exec:while ! test -e FILE; do sleep 1; done"
#: Verbs that a program does better, or that could only change the process of the hook itself.
_REMEDIES = {
    "cd": "the option chdir, or exec:cd FOLDER && ...",
    "chdir": "the option chdir, or exec:cd FOLDER && ...",
    "putenv": "the option env, or exec:NAME=value ...",
    "chown": "exec:chown USER:GROUP FILE",
    "chown2": "exec:chown USER:GROUP FILE",
    "chmod": "exec:chmod MODE FILE",
    "sticky": "exec:chmod +t FILE",
    "mount": "systemd's mount units",
    "umount": "systemd's mount units",
    "call": _C_LIBRARY,
    "callret": _C_LIBRARY,
    "callint": _C_LIBRARY,
    "callintret": _C_LIBRARY,
    "hostname": "set the host's name outside",
    "alarm": "exec:PROGRAM",
    "rpc": "exec:PROGRAM",
    "retryrpc": "exec:PROGRAM",
    "wait_for_fs": _WAIT,
    "wait_for_file": _WAIT,
    "wait_for_dir": _WAIT,
    "wait_for_socket": "exec:while ! test -S FILE; do sleep 1; done",
    "spinningfifo": "writefifo:FILE TEXT",
}
#: Verbs whose argument is a file, and whether a text follows behind a space.
_FILES = {
    "mkdir": False,
    "create": False,
    "unlink": False,
    "write": True,
    "writen": True,
    "append": True,
    "appendn": True,
    "writefifo": True,
}
_ALIASES = {"creat": "create", "rm": "unlink", "log": "print"}
_VERBS = ("exec", "safeexec", "print", "exit", "unix_signal", *_FILES)
#: What containers write so that SIGTERM stops: here it does.
_GRACEFUL = "15 gracefully_kill_them_all"


class Step(msgspec.Struct, frozen=True):
    """One thing to do; ``option`` is where it was written.

    ``program`` stands for a command that is run without a shell, with the vassal's name as its argument.
    """

    verb: Literal[
        "exec", "safeexec", "program", "print", "exit", "unix_signal",
        "mkdir", "create", "unlink", "write", "writen", "append", "appendn", "writefifo",
    ]  # fmt: skip
    argument: str
    option: str = ""
    #: For the log not to show the argument (uWSGI's ``!verb:argument``).
    secret: bool = False

    def __str__(self) -> str:
        what = "***" if self.secret else self.argument
        if self.option.startswith("hook-"):
            what = f"{self.verb}:{what}"
        return f"{self.option} = {what}" if self.option else what

    @property
    def file_and_text(self) -> tuple[str, str]:
        """The file, and the text behind it."""
        file, _, content = self.argument.partition(" ")
        return file, content


# ---- what a user writes -----------------------------------------------------------------------------------


def command(value: object, _base: str = "") -> Step:
    """Read a command for ``/bin/sh -c``."""
    return Step("exec", _words(value))


def program(value: object, base: str = "") -> Step:
    """Read a program that is run with the name of the vassal; one without a slash comes from PATH."""
    name = _words(value)
    return Step("program", posixpath.join(base, name) if "/" in name else name)


def hook(value: object, base: str = "") -> Step:
    """Read ``verb:argument``; ``!verb:argument`` keeps the argument out of the log."""
    word, _, argument = text(value).partition(":")
    secret, word = word.startswith("!"), word.removeprefix("!").strip()
    verb: Any = _ALIASES.get(word, word)
    if word in _REMEDIES:
        raise ValueError(f"no {word} in a hook: {_REMEDIES[word]}")
    if verb not in _VERBS:
        remedy = suggest(word, [*_VERBS, *_ALIASES]) or f"known: {', '.join(sorted(_VERBS))}"
        raise ValueError(f"no verb {word!r}: {remedy}")
    if verb == "exit" and argument and not argument.isdigit():
        raise ValueError("write exit:CODE")
    if verb == "unix_signal" and argument != _GRACEFUL:
        raise ValueError("signals are not bound to functions here: SIGTERM is graceful, SIGHUP reloads")
    if verb in _FILES:
        file, space, content = argument.partition(" ")
        if not file or (_FILES[verb] and not space):
            raise ValueError(f"write {word}:FILE{' TEXT' if _FILES[verb] else ''}")
        argument = posixpath.join(base, file) + space + content
    elif not argument and verb != "exit":
        raise ValueError(f"write {word}:{'TEXT' if verb == 'print' else 'COMMAND'}")
    return Step(verb, argument, secret=secret)


class Touch(msgspec.Struct, frozen=True):
    """What is to be done when ``file`` was touched."""

    file: str
    step: Step


def touch_command(value: object, base: str = "") -> Touch:
    """Read ``file command``."""
    file, rest = _file_and_rest(value)
    return Touch(posixpath.join(base, file), command(rest))


def touch_hook(value: object, base: str = "") -> Touch:
    """Read ``file verb:argument``."""
    file, rest = _file_and_rest(value)
    return Touch(posixpath.join(base, file), hook(rest, base))


def _file_and_rest(value: object) -> tuple[str, str]:
    file, _, rest = _words(value).partition(" ")
    if not rest.strip():
        raise ValueError("write the file, a space, and what is to be done")
    return file, rest.strip()


def _words(value: object) -> str:
    words = text(value).strip()
    if not words:
        raise ValueError("write a command")
    return words


COMMAND = Kind("command", "a command of the shell", command)
PROGRAM = Kind("program", "a program", program)
HOOK = Kind("hook", "verb:argument", hook)
TOUCH_COMMAND = Kind("command", '"file command"', touch_command)
TOUCH_HOOK = Kind("hook", '"file verb:argument"', touch_hook)


# ---- phases -----------------------------------------------------------------------------------------------

#: uWSGI's phases of a start, in order: before privileges are dropped, and once they are.
AS_ROOT = ("asap", "pre-jail", "post-jail", "in-jail", "as-root")
AS_USER = ("as-user", "pre-app", "post-app", "master-start")
#: Our phases: lists of uWSGI's that follow each other under one identity.
PHASES: dict[str, tuple[str, ...]] = {
    "root": AS_ROOT,
    "user": AS_USER,
    "worker": ("post-fork", "accepting"),
    "worker-once": ("accepting-once",),
    "first-worker": ("accepting1",),
    "first-worker-once": ("accepting1-once",),
    "emperor-stop": ("emperor-stop",),
    "emperor-reload": ("emperor-reload",),
    "emperor-lost": ("emperor-lost",),
    "end": ("as-user-atexit",),
}


def steps(hooked: object, phase: str) -> tuple[Step, ...]:
    """Return what ``hooked`` does in one of :data:`PHASES`: of each of uWSGI's, its hooks, then its commands.

    ``hooked`` has fields ``hook_PHASE`` and ``exec_PHASE``.
    """
    return tuple(_steps(hooked, phase))


def _steps(hooked: object, phase: str) -> Iterator[Step]:
    for one in PHASES.get(phase, ()):
        for way in ("hook", "exec"):
            found: tuple[Step, ...] = getattr(hooked, f"{way}_{one.replace('-', '_')}", ())
            yield from named(f"{way}-{one}", found)


def named(option: str, found: Iterable[Step]) -> tuple[Step, ...]:
    """Return the steps with the option that they were written in."""
    return tuple(msgspec.structs.replace(step, option=option) for step in found)
