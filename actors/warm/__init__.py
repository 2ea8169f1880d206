"""Warm Python scripts: a fork of an interpreter that is up, in place of a cold start for each request.

``templates`` is what a worker calls. ``shebang`` says which interpreter a script names; ``interpreter`` and
``child`` are a template and a script of it as the worker sees them; ``program``, ``sources`` and ``rebirth`` are
what runs in the interpreter itself.
"""

from pyemperor.actors.warm.child import Child, Exit, awaited
from pyemperor.actors.warm.templates import COMMON, Templates

__all__ = ["COMMON", "Child", "Exit", "Templates", "awaited"]
