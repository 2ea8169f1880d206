"""Start a pykka actor such that its supervisor hears of its start and of its end, however it ends.

pykka has neither links nor monitors: an error in ``on_start`` is told to nobody, one in a message only to
the actor itself, and ``sys.exit()`` in one actor stops every actor of the process. So the actor that is
started is of a subclass, made for this one start, of the class that was asked for. The class itself is left
as it is.
"""

import contextlib
import functools
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pykka

from pyemperor.actors.supervision import NORMAL, Exited, ExitReason, Ignored, Started


class Ignore(Exception):
    """Raise it in ``__init__`` or ``on_start`` to say: not today (OTP's ``ignore``). That is no failure."""


class StartsLater:
    """Mixin of an actor that is not ready yet when its ``on_start`` returns."""

    def report_started(self) -> None:
        """Say that the actor is ready; without a supervisor nobody hears it."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Which incarnation of which child, and who wants to know."""

    id: str
    generation: int
    supervisor: pykka.ActorRef[Any]

    def tell(self, event: Started | Ignored | Exited) -> None:
        """Report to the supervisor; when that is gone there is nobody left to report to."""
        with contextlib.suppress(pykka.ActorDeadError):
            self.supervisor.tell(event)


def observed(start: object, watch: Watch) -> Callable[..., pykka.ActorRef[Any]] | None:
    """Return what starts the same actor, watched; None when ``start`` does not name an actor class.

    ``start`` is an actor class, a class method of one that starts it (``Counter.start``), or a
    ``functools.partial`` of either. The class is needed: once the actor runs it is too late.
    """
    if isinstance(start, functools.partial):
        inner = observed(start.func, watch)
        return inner and functools.partial(inner, *start.args, **start.keywords)
    cls, method = (start.__self__, start.__func__.__name__) if inspect.ismethod(start) else (start, "start")
    if not (isinstance(cls, type) and issubclass(cls, pykka.Actor)):
        return None
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "_watch": watch}
    subclass = types.new_class(cls.__name__, (_Observed, cls), exec_body=lambda body: body.update(names))
    starter: Callable[..., pykka.ActorRef[Any]] = getattr(subclass, method)
    return starter


class _Observed(pykka.Actor):
    """What the subclass adds. It comes before the actor's own class in the order of method resolution."""

    _watch: ClassVar[Watch]
    _error: BaseException | None = None
    _ignored: bool = False

    def on_start(self) -> None:
        try:
            super().on_start()
        except Ignore:
            self._ignored = True
            self._stop()
            return
        if not isinstance(self, StartsLater):
            self.report_started()

    def report_started(self) -> None:
        self._watch.tell(Started(self._watch.id, self._watch.generation, self.actor_ref))

    def _handle_receive(self, message: Any) -> Any:
        try:
            return super()._handle_receive(message)
        except Exception:
            raise
        except BaseException as error:
            self._error = error
            self._stop()
            return None

    def _handle_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        # Every error that ends an actor comes by here. The first is the cause.
        self._error = self._error or exception_value
        super()._handle_failure(exception_type, exception_value, traceback)

    def _actor_loop(self) -> None:
        try:
            super()._actor_loop()
        except BaseException as error:
            self._handle_failure(type(error), error, error.__traceback__)
            self._actor_loop_teardown()
        finally:
            self._watch.tell(self._last_word())

    def _last_word(self) -> Ignored | Exited:
        id, generation = self._watch.id, self._watch.generation
        if self._ignored:
            return Ignored(id, generation)
        if self._error:
            return Exited(id, generation, ExitReason.of(self._error))
        # An actor may say itself why it stops.
        reason = getattr(self, "exit_reason", None)
        return Exited(id, generation, reason if isinstance(reason, ExitReason) else NORMAL)
