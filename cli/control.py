"""``pyemperor status``, ``reload``, ``stop`` and ``absolve``: what an Emperor is asked at its control socket.

Exit codes: 0 done, 1 not done, 2 no Emperor could be asked.
"""

import contextlib
import socket
import sys
from typing import TextIO

import msgspec

from pyemperor.cli.control_socket import running
from pyemperor.protocol import control
from pyemperor.protocol.errors import LinkError, PyEmperorError
from pyemperor.protocol.escapes import printable

#: Seconds in which an Emperor must take a connection, and answer what takes no time.
_PATIENCE = 5.0
_NAME_IT = "name it with --socket"


class Unreachable(PyEmperorError):
    """No Emperor could be asked; the words say which socket was tried and what to do."""


def command(request: control.Request, path: str | None, *, json: bool, out: TextIO | None = None) -> int:
    """Ask the Emperor at the socket ``path``, or the one that runs here, and say its answer; the exit code."""
    out = out or sys.stdout
    try:
        path = path or _the_one()
        answer = ask(request, path)
    except Unreachable as error:
        _complain(str(error), json=json, out=out)
        return 2
    if isinstance(answer, control.Refusal):
        remedy = f" ({answer.remedy})" if answer.remedy else ""
        _complain(f"{answer.problem}{remedy}", json=json, out=out)
        return 1
    if json:
        out.write(_json(answer) + "\n")
    else:
        out.write(_words(request, answer))
    return 1 if isinstance(answer, control.Outcomes) and not all(one.ok for one in answer.outcomes) else 0


def _complain(text: str, *, json: bool, out: TextIO) -> None:
    if json:
        out.write(msgspec.json.encode({"answer": "error", "problem": text}).decode() + "\n")
    else:
        sys.stderr.write(f"pyemperor: {printable(text)}\n")


def _the_one() -> str:
    found = running()
    if not found:
        raise Unreachable(f"no Emperor with a control socket runs here; if one does elsewhere, {_NAME_IT}")
    if len(found) > 1:
        raise Unreachable(f"there are several Emperors here; {_NAME_IT}: {', '.join(found)}")
    return found[0]


def ask(request: control.Request, path: str) -> control.Answer:
    """The answer of the Emperor that listens at ``path``; raises :class:`Unreachable`.

    To a ``Stop`` of everything it returns when the Emperor is gone.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_PATIENCE)
        try:
            sock.connect(path)
            with contextlib.suppress(BrokenPipeError):  # it has refused already, and its answer says why
                sock.sendall(control.encode(request))
        except PermissionError:
            raise Unreachable(f"{path}: permission denied; be root, or the user who the Emperor runs as") from None
        except OSError as error:
            raise Unreachable(f"{path}: {_reason(error)}; if it is another, {_NAME_IT}") from None
        except ValueError as error:  # a NUL byte
            raise Unreachable(f"{path}: {error}") from None
        if not isinstance(request, control.Status):
            sock.settimeout(None)  # it takes the time that it takes
        return _answer(sock, path)


def _reason(error: OSError) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such socket, so no Emperor"
        case ConnectionRefusedError():
            return "nobody listens there: the Emperor is gone"
        case TimeoutError():
            return f"the Emperor did not take the connection within {_PATIENCE:g} s"
    return error.strerror or str(error)


def _answer(sock: socket.socket, path: str) -> control.Answer:
    data = b""
    try:
        while part := sock.recv(1 << 16):
            data += part
    except ConnectionResetError:
        pass  # what it had said before counts
    except TimeoutError:
        raise Unreachable(f"{path}: the Emperor does not answer: is it stopped?") from None
    if not data.endswith(b"\n"):
        raise Unreachable(f"{path}: the Emperor broke off the connection; its log may say why")
    try:
        return control.decode_answer(data)
    except LinkError as error:
        raise Unreachable(f"{path}: {error}: is it another version of PyEmperor?") from None


# ---- what people read ---------------------------------------------------------------------------------------


def _json(answer: control.Answer) -> str:
    return msgspec.json.encode(answer).decode()


def _words(request: control.Request, answer: control.Answer) -> str:
    match answer:
        case control.Statuses():
            return _table(answer)
        case control.Begun(names=names):
            return "".join(f"{printable(name)}: reloading; its log says how it went\n" for name in names)
        case control.Outcomes(outcomes=outcomes):
            lines = [_line(one, _DONE[type(request)]) for one in outcomes]
            if request == control.Stop():
                count = f"{len(outcomes)} vassal{'' if len(outcomes) == 1 else 's'}"
                lines = [f"the Emperor is gone, and {count} with it"]
            return "".join(f"{printable(line)}\n" for line in lines)
    raise AssertionError(answer)


_DONE: dict[type, str] = {control.Reload: "reloaded", control.Stop: "stopped", control.Absolve: "absolved"}


def _line(one: control.Done, done: str) -> str:
    return f"{one.name}: {'' if one.ok else 'not '}{done}" + (f": {one.reason}" if one.reason else "")


_HEAD = ("VASSAL", "STATE", "GEN", "PID", "WORKERS", "REQUESTS", "RESTARTS", "")


def _table(answer: control.Statuses) -> str:
    rows: list[tuple[str, ...]] = [_HEAD]
    for one in answer.vassals:
        state = one.state + ("+" if one.reloading else "")
        why = one.reason + (f" [newest configuration refused: {one.refused}]" if one.refused else "")
        pid = " ".join(map(str, one.pids)) or "-"
        figures = (one.generation, one.ready, one.requests, one.restarts)
        generation, ready, requests, restarts = map(str, figures)
        rows.append((one.name, state, generation, pid, ready, requests, restarts, why.strip()))
        rows += (_attendant(one.name, attendant) for attendant in one.attendants)
    plain = [tuple(map(printable, row)) for row in rows]
    widths = [max(len(row[column]) for row in plain) for column in range(len(_HEAD))]
    padded = ([f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)] for row in plain)
    return f"Emperor {answer.pid}\n" + "".join(f"{'  '.join(row).rstrip()}\n" for row in padded)


def _attendant(vassal: str, one: control.AttendantReport) -> tuple[str, ...]:
    """Below its vassal's, the row of a process beside the workers, called as in the log."""
    pid = str(one.pid or "-")
    return f"{vassal}/{one.name}", one.state, "-", pid, "-", "-", str(one.restarts), one.reason
