"""What goes wrong with a request, in words: a status and a sentence for its client, a remedy for the log."""

import errno
import tempfile
from signal import SIGKILL, SIGXCPU, SIGXFSZ, Signals

from pyemperor.protocol.errors import RequestError, ScriptError

#: What the kernel means by a signal of its own.
_WHY_KILLED: dict[int, str] = {
    SIGKILL: "out of memory? See dmesg",
    SIGXCPU: "see `cgi-limit-cpu`",
    SIGXFSZ: "see `cgi-limit-fsize`",
}


def signal_name(number: int) -> str:
    """The name of a signal; real-time signals but the first and last have none (signal(7))."""
    try:
        return Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - Signals.SIGRTMIN}" if number > Signals.SIGRTMIN else f"signal {number}"


# ---- the request ----------------------------------------------------------------------------------------


def not_handled(modifier1: int) -> RequestError:
    """Nobody here knows what to do with it."""
    return RequestError(
        f"this server does not handle uwsgi modifier1 {modifier1}; "
        "for CGI scripts, nginx needs `uwsgi_modifier1 9;` beside `uwsgi_pass`",
        status=501,
    )


def request_late() -> RequestError:
    """Its head, or the body that is kept first, did not come."""
    return RequestError("the request did not arrive in time", status=408, remedy="see `socket-timeout`")


def body_late(missing: int, silence: float) -> RequestError:
    """Of its body ``missing`` bytes did not come, and nothing did for ``silence`` seconds."""
    return RequestError(
        f"{missing} bytes of the request's body did not arrive: nothing came for {silence:g} s",
        status=408,
        remedy="the client is slow or gone; `cgi-timeout` is the limit",
    )


def no_room(error: OSError) -> RequestError:
    """Its body has to be kept, and cannot be."""
    return RequestError(
        f"no room for the body of the request: {error.strerror}",
        status=507,
        remedy=f"make room in {tempfile.gettempdir()}, or set TMPDIR",
    )


def no_locks(folder: str, error: OSError) -> RequestError:
    """Nobody can tell how many requests are served at a time: their locks, in ``folder``, cannot be had."""
    match error.errno:
        case errno.EMFILE | errno.ENFILE:
            advice = "raise the limit of open files"
        case errno.ENOSPC | errno.EDQUOT | errno.EROFS | errno.ENOLCK | errno.EIO:
            advice = "set TMPDIR to another folder"
        case _:
            advice = "remove it, or set TMPDIR to another folder"
    return RequestError(
        "this script cannot be run now",
        status=503,
        remedy=f"`cgi-concurrency` keeps its locks in {folder}: {error.strerror or error}; {advice}",
    )


# ---- the script -----------------------------------------------------------------------------------------


def cannot_run(name: str, file: str, error: OSError) -> RequestError:
    """The script ``name``, which is ``file``, could not be started."""
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return RequestError(
                f"{name} may not be executed",
                status=403,
                remedy=f"chmod +x {file}, and check its #! line",
            )
        case errno.ENOENT | errno.ENOTDIR:
            return RequestError(
                f"{name} cannot be started",
                status=500,
                remedy=f"{file}, or the interpreter in its #! line, is missing",
            )
        case errno.ENOEXEC:
            return RequestError(
                f"{name} is not a program",
                status=500,
                remedy=f"give {file} a #! line such as #!/bin/sh",
            )
        case errno.EAGAIN | errno.ENOMEM | errno.EMFILE | errno.ENFILE:
            return RequestError(
                f"{name} cannot be started now",
                status=503,
                remedy=f"{error.strerror}: raise the limit",
            )
    return RequestError(f"{name} cannot be started", status=500, remedy=f"{file}: {error.strerror}")


def script_killed(number: int) -> ScriptError:
    """It did not end by itself (0: who knows), so nobody knows whether it had said all."""
    if not number:
        return ScriptError(
            "nobody knows how the script ended: its warm interpreter died with it",
            remedy="out of memory? See dmesg",
        )
    return ScriptError(f"the script was killed by {signal_name(number)}", remedy=_WHY_KILLED.get(number, ""))


def script_silent(name: str, silence: float) -> ScriptError:
    """Nothing moved for ``silence`` seconds, and it was the script's turn."""
    return ScriptError(
        f"{name} was silent for {silence:g} s and was ended",
        status=504,
        remedy="raise `cgi-timeout` if it may take that long",
    )


def script_lingers(name: str, silence: float) -> ScriptError:
    """It has been answered for ``silence`` seconds, and goes on: silently, or talking to nobody."""
    return ScriptError(
        f"{name} still ran {silence:g} s after its answer and was ended",
        status=504,
        remedy="raise `cgi-timeout` if it may take that long",
    )


def begins_late(name: str, seconds: float) -> ScriptError:
    """Its response did not begin in time."""
    return ScriptError(
        f"{name} did not begin its response within {seconds:g} s and was ended",
        status=504,
        remedy="raise `cgi-first-byte-timeout`",
    )


def ends_late(name: str, seconds: float, redirects: int, doing: str = "") -> ScriptError:
    """It did not end in time, or those that led to it have left too little; ``doing`` what, for the log alone."""
    together = f", {redirects} local redirect{'s' * (redirects > 1)} included," if redirects else ""
    return ScriptError(
        f"{name} did not end within {seconds:g} s{together} and was ended",
        status=504,
        remedy="raise `cgi-total-timeout` or `harakiri`" + (f"; what it did: {doing}" if doing else ""),
    )
