"""Options of processes beside the workers, and of hooks. Source: uWSGI, "Managing external daemons", "Hooks"."""

from pyemperor.protocol.tables import Option, planned, refused
from pyemperor.protocol.values import COUNT, PATH, TEXT, TIME

_UNIT = "a systemd unit of its own"
_INSIDE = "only for applications within uWSGI"
_PHASES = {
    "asap": "at once",
    "pre-jail": "before a jail is entered",
    "post-jail": "once the jail is made",
    "in-jail": "in the jail",
    "as-root": "before privileges are dropped",
    "as-user": "once privileges are dropped",
    "as-user-atexit": "at the end",
    "pre-app": "before applications are loaded",
    "post-app": "once applications are loaded",
}
_HOOKS = {
    **_PHASES,
    "post-fork": "in each new process",
    "master-start": "when the master starts",
    "accepting": "when a worker is ready",
    "accepting1": "when the first worker is ready",
    "accepting-once": "when a worker is ready, not again after a reload",
    "accepting1-once": "when the first worker is ready, not again after a reload",
    "touch": "when a file is touched: file hook",
}

ANCILLARY: tuple[Option, ...] = (
    *(planned("vassal", name, TEXT, meaning, why=_UNIT, repeat=True)
      for name, meaning in (
          ("attach-daemon", "run this beside the workers"),
          ("attach-control-daemon", "run this beside the workers, and end with it"),
          ("smart-attach-daemon", "run this, which goes to the background: pidfile command"),
          ("smart-attach-daemon2", "run this, which has a pidfile: pidfile command"),
          ("attach-daemon2", "run this: cmd=...,freq=...,touch=..."))),
    *(planned("vassal", name, TEXT, meaning, why="cron(8), or a systemd timer", repeat=True)
      for name, meaning in (("cron", "run this at these times: minute hour day month weekday command"),
                            ("cron2", "run this at these times: minute=...,hour=... command"),
                            ("unique-cron", "the same, and never twice at a time"))),
    planned("vassal", "cron-harakiri", TIME, "longest time of a command"),
    *(planned("vassal", f"exec-{phase}", TEXT, f"run a command {when}", repeat=True)
      for phase, when in _PHASES.items()),
    *(planned("vassal", f"hook-{phase}", TEXT, f"carry out a hook {when}", repeat=True)
      for phase, when in _HOOKS.items()),
    *(refused("vassal", f"{verb}-{phase}", TEXT, f"{verb} a file system {when}", "systemd's mount units",
              repeat=True)
      for verb in ("mount", "umount") for phase, when in list(_PHASES.items())[:5]),
    *(refused("vassal", f"call-{phase}", TEXT, f"call a function of a C library {when}",
              f"run a program: exec-{phase}", repeat=True)
      for phase, when in _PHASES.items()),
    planned("vassal", "daemons-honour-stdin", TEXT, "let daemons keep the standard input"),
    *(planned("vassal", name, kind, meaning, why=_INSIDE, repeat=True)
      for name, kind, meaning in (("mule", TEXT, "a process for other work"),
                                  ("farm", TEXT, "a group of mules"),
                                  ("spooler", PATH, "a queue of tasks in this folder"))),
    *(planned("vassal", name, kind, meaning, why=_INSIDE)
      for name, kind, meaning in (("mules", COUNT, "processes for other work"),
                                  ("mule-reload-mercy", TIME, "time that a mule has to end"),
                                  ("mule-harakiri", TIME, "longest time of a mule's task"),
                                  ("mule-msg-size", COUNT, "longest message to a mule"),
                                  ("spooler-processes", COUNT, "processes for a queue"),
                                  ("spooler-frequency", TIME, "time between two looks at the queue"),
                                  ("spooler-max-tasks", COUNT, "tasks before a process is replaced"),
                                  ("spooler-harakiri", TIME, "longest time of a task"),
                                  ("spooler-chdir", PATH, "working folder of tasks"),
                                  ("spooler-cheap", TEXT, "start no process for an empty queue"))),
    planned("vassal", "touch-mules-reload", PATH, "replace the mules when this file is touched", repeat=True),
    planned("vassal", "touch-spoolers-reload", PATH, "replace the spoolers when this file is touched",
            repeat=True),
)  # fmt: skip
