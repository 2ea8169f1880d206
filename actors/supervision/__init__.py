"""OTP's supervisor as a machine that only decides: events and the time in, commands out. Pure.

The rules are those of Erlang/OTP's ``supervisor`` (strategies, restart types, the closed window of the
intensity in which every attempt counts, starting left to right, stopping right to left), and
``tests/conformance/test_otp_supervisor.py`` restates OTP's own test cases. It differs in six named places:

1. A start takes time: ``Launch`` is answered by ``Started``, ``Ignored`` or ``StartFailed``, and meanwhile
   the supervisor serves everything else. Strangers do not wait for each other.
2. An attempt waits its back-off first (``Flags.backoff``). Whoever depends on the child waits with it.
3. With ``on_exceed="curse"`` the budget is per child, and who exceeds it is quarantined instead of escalated.
   Then a failed first start is retried as well: the spec is kept, also at boot.
4. Failures of the environment (``env``) are not charged; they wait 1, 2, 4 … 30 s. They never fail a boot.
5. ``config`` and ``exile`` exile the child: no restart until ``Absolve``, ``RestartChild`` or ``ChangeSpec``.
6. ``parallel`` children start and stop at once (Elixir's ``DynamicSupervisor``).

A child that cannot start, with the defaults:

>>> supervisor = Supervisor(Flags(on_exceed="curse"), [ChildSpec("web")], random=lambda: 0.5)
>>> supervisor.handle(Boot(), now=0.0)
[Launch(id='web', generation=1, spec=ChildSpec(id='web', ...))]
>>> for command in supervisor.handle(StartFailed("web", 1, ExitReason(ExitKind.ABNORMAL, "exit 1")), now=0.0):
...     print(command)
Report(kind=<ReportKind.START_ERROR: 'start_error'>, id='web', reason=ExitReason(...'exit 1'))
Wake(at=0.1, due=Due(id='web', number=2))
Waiting(id='web', until=0.1, cursed=False)
Reply(event=Boot(sender=None), result=Ok(id='', handle=None))
>>> supervisor.handle(Due("web", 2), now=0.1)
[Launch(id='web', generation=3, spec=ChildSpec(id='web', ...))]

It is up, and the supervisor is told to end. The shell asks the child to stop, and reports how that went:

>>> supervisor.handle(Started("web", 3), now=0.2)
[Report(kind=<ReportKind.PROGRESS: 'progress'>, id='web', reason=None)]
>>> supervisor.handle(Shutdown(), now=5.0)
[Terminate(id='web', generation=3, shutdown=5.0)]
>>> supervisor.handle(Exited("web", 3, SHUTDOWN), now=5.1)[-1]
Gone(reason=ExitReason(kind=<ExitKind.SHUTDOWN: 'shutdown'>, detail=''))

``actors/supervisor`` performs the commands for pykka actors, ``actors/overseer`` for processes.
"""

from pyemperor.actors.supervision.machine import Supervisor
from pyemperor.actors.supervision.messages import (
    Absolve,
    Boot,
    CancelWake,
    ChangeSpec,
    ChildInfo,
    Command,
    Counts,
    DeleteChild,
    Due,
    Event,
    Exited,
    Gone,
    Ignored,
    Launch,
    Ok,
    Phase,
    Refused,
    Reply,
    Report,
    ReportKind,
    Request,
    RestartChild,
    Result,
    Shutdown,
    StartChild,
    Started,
    StartFailed,
    Terminate,
    TerminateChild,
    Waiting,
    Wake,
    Why,
)
from pyemperor.actors.supervision.restart import NORMAL, SHUTDOWN, Backoff, ExitKind, ExitReason
from pyemperor.actors.supervision.spec import (
    AutoShutdown,
    ChildSpec,
    ChildType,
    Flags,
    OnExceed,
    Restart,
    Strategy,
)

__all__ = [
    "NORMAL", "SHUTDOWN", "Absolve", "AutoShutdown", "Backoff", "Boot", "CancelWake", "ChangeSpec",
    "ChildInfo", "ChildSpec", "ChildType", "Command", "Counts", "DeleteChild", "Due", "Event", "ExitKind",
    "ExitReason", "Exited", "Flags", "Gone", "Ignored", "Launch", "Ok", "OnExceed", "Phase", "Refused",
    "Reply", "Report", "ReportKind", "Request", "Restart", "RestartChild", "Result", "Shutdown", "StartChild",
    "StartFailed", "Started", "Strategy", "Supervisor", "Terminate", "TerminateChild", "Waiting", "Wake",
    "Why",
]
