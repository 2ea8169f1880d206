"""The requests about single children: OTP's functions, and what back-off and exile add to them. Pure."""

from pyemperor.actors.supervision.children import Child, Children, Fate
from pyemperor.actors.supervision.messages import (
    Absolve,
    ChangeSpec,
    DeleteChild,
    OfChild,
    Ok,
    Refused,
    Request,
    RestartChild,
    StartChild,
    TerminateChild,
    Why,
)
from pyemperor.actors.supervision.restart import ExitKind, ExitReason
from pyemperor.actors.supervision.spec import ChildSpec, Flags


class Administration:
    """Answers requests; ``template`` is the one spec of ``simple_one_for_one``."""

    def __init__(self, flags: Flags, children: Children, template: ChildSpec | None) -> None:
        self._flags = flags
        self._children = children
        self._template = template
        self._instances = 0

    def handle(self, request: Request) -> None:
        """Take in one request."""
        match request:
            case StartChild():
                self._start_child(request)
            case ChangeSpec(spec=ChildSpec(id=id)) | OfChild(id=id):
                child = self._children.get(id)
                if child is None:
                    self._refuse(request, Why.NOT_FOUND, id)
                elif self._flags.simple and not isinstance(request, TerminateChild | Absolve):
                    self._bad(request, id, "the children of simple_one_for_one share one spec")
                else:
                    self._about(child, request)

    def _about(self, child: Child, request: Request) -> None:
        id, phase = child.spec.id, child.phase
        match request:
            case TerminateChild():
                self._terminate_child(child, request)
            case RestartChild() | DeleteChild() if phase.live:
                self._refuse(request, Why.RUNNING, id, child.handle)
            case RestartChild() | DeleteChild() if phase.restarting:
                self._refuse(request, Why.RESTARTING, id)
            case RestartChild():
                child.callers.append(request)
                self._children.absolve(child)
                self._children.start(child)
            case DeleteChild():
                self._children.forget(child)
                self._children.reply(request, Ok(id))
            case Absolve():
                self._children.absolve(child)
                self._children.reply(request, Ok(id, child.handle))
            case ChangeSpec(spec=spec) if problem := self._flags.misfit(spec):
                self._bad(request, id, problem)
            case ChangeSpec(spec=spec):
                child.spec = spec
                self._children.absolve(child)
                self._children.reply(request, Ok(id, child.handle))

    def _start_child(self, request: StartChild) -> None:
        spec = request.spec
        if self._template is not None:
            if spec is not None:
                self._bad(request, spec.id, "simple_one_for_one has its spec; give args alone")
                return
            self._instances += 1
            spec = self._template.instance(self._instances, request.args)
        if spec is None:
            self._bad(request, "", "a spec is needed")
        elif present := self._children.get(spec.id):
            why = Why.ALREADY_STARTED if present.phase.live else Why.ALREADY_PRESENT
            self._refuse(request, why, spec.id, present.handle)
        elif problem := self._flags.misfit(spec):
            self._bad(request, spec.id, problem)
        elif len(self._children) >= self._flags.max_children:
            self._refuse(request, Why.MAX_CHILDREN, spec.id)
        else:
            self._children.add(spec).callers.append(request)

    def _terminate_child(self, child: Child, request: TerminateChild) -> None:
        if child.phase.live:
            child.fate = Fate.FORGET if self._children.drops(child) else Fate.KEEP
            child.callers.append(request)
            self._children.stop(child)
            return
        self._children.rest(child)
        if self._children.drops(child):
            self._children.forget(child)
        self._children.reply(request, Ok(child.spec.id))

    def _refuse(self, request: Request, why: Why, id: str, handle: object = None) -> None:
        self._children.reply(request, Refused(why, id, handle))

    def _bad(self, request: Request, id: str, problem: str) -> None:
        reason = ExitReason(ExitKind.CONFIG, problem)
        self._children.reply(request, Refused(Why.BAD_REQUEST, id, reason=reason))
