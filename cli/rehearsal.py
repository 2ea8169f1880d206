"""Plays a scenario in simulated time: what ``cli/player`` does on the machine, done in a simulated world."""

import math
from collections.abc import Callable

from pyemperor.actors.simulation import World
from pyemperor.cli.havoc import Send, Signal
from pyemperor.cli.timeline import (
    Abandon,
    Ask,
    Command,
    Ended,
    Event,
    Heard,
    Over,
    Quit,
    Show,
    Start,
    Timeline,
    Wake,
)
from pyemperor.cli.traffic import Answered
from pyemperor.cli.verdict import NO_ANSWER, Course
from pyemperor.protocol.messages import Trace
from pyemperor.protocol.scenario import Scenario


class Rehearsal:
    """One simulated run of ``scenario``; the same ``seed`` gives the same run, entry for entry."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.timeline = Timeline(scenario, lambda worker: self._world.scripts(worker))
        self._world = World(scenario, seed, lambda trace: self._event(Heard(trace)))
        self._mercy = max(vassal.reload_mercy for vassal in scenario.vassals)
        self._show: Callable[[Trace], None] = lambda _: None
        self._over = False

    def run(self, show: Callable[[Trace], None]) -> Course:
        """Play it to its end; ``show`` gets every entry of the timeline."""
        self._show = show
        with self._world as world:
            self._event(Start(world.pid))
            world.run_until(math.inf, lambda: world.exit_code is not None)
            assert world.exit_code is not None
            self._event(Ended(world.exit_code))
            world.run_until(math.inf, lambda: self._over)
            course = self.timeline.course
            # Without an Emperor the others finish what they have, and end.
            world.run_until(world.now + self._mercy if world.exit_code else world.now)
            course.left_over = tuple(sorted(world.left_over()))
        return course

    def _event(self, event: Event) -> None:
        for command in self.timeline.handle(event, self._world.now):
            self._do(command)

    def _do(self, command: Command) -> None:
        world = self._world
        match command:
            case Show(trace=trace):
                self._show(trace)
            case Wake(at=at, event=event):
                world.at(at, lambda: self._event(event))
            case Ask():
                self._ask(command)
            case Signal(actor=actor, number=number):
                world.signal(actor, number)
            case Send(inject=inject):
                world.inject(inject)
            case Quit():
                world.quit()
            case Abandon():
                world.close()
            case Over():
                self._over = True

    def _ask(self, ask: Ask) -> None:
        world, load, began = self._world, ask.load, self._world.now

        def answered(status: int, at: float) -> None:
            self._event(Answered(ask.turn, str(status), at - began))

        def give_up() -> None:
            if not connection.over:
                connection.abandon()
                self._event(Answered(ask.turn, NO_ANSWER, load.timeout))

        connection = world.connect(load.vassal, load.path, load.takes, answered)
        world.at(began + load.timeout, give_up)
