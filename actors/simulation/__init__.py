"""Simulated time: the same actors on a virtual clock, with simulated processes, links, sockets and scripts.

``machine`` (the clock and the loop), ``processes`` and their inboxes, ``links``, ``fork_server``, ``host``,
``sockets`` (and requests), ``world`` (a scenario's whole installation). Seeded and deterministic;
an hour takes milliseconds.
"""

from pyemperor.actors.simulation.machine import Simulation
from pyemperor.actors.simulation.processes import SimulatedInbox, SimulatedProcess
from pyemperor.actors.simulation.sockets import Connection
from pyemperor.actors.simulation.world import World

__all__ = ["Connection", "SimulatedInbox", "SimulatedProcess", "Simulation", "World"]
