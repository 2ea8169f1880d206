"""Options of processes beside the workers, and of hooks. Source: uWSGI, "Managing external daemons", "Hooks"."""

from pyemperor.protocol.cron import CRON, CRON2, UNIQUE_CRON
from pyemperor.protocol.daemons import ATTACHED, CONTROLLING, DESCRIBED, SMART, SMART_FOREGROUND
from pyemperor.protocol.hooks import COMMAND, HOOK, TOUCH_COMMAND, TOUCH_HOOK
from pyemperor.protocol.tables import Option, planned, refused
from pyemperor.protocol.values import COUNT, PATH, TEXT, TIME

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
    "post-fork": "when a worker has started",
    "master-start": "when the master starts",
    "accepting": "when a worker is ready",
    "accepting1": "when the first worker is ready",
    "accepting-once": "when a worker is ready, not again for one that replaces it",
    "accepting1-once": "when the first worker is ready, not again for one that replaces it",
    "emperor-stop": "when the Emperor says stop, also to the old one after a reload",
    "emperor-reload": "in the old one, when the Emperor starts a new one beside it",
    "emperor-lost": "when the Emperor is gone",
}

ANCILLARY: tuple[Option, ...] = (
    *(Option("vassal", name, kind, (), meaning, repeat=True)
      for name, kind, meaning in (
          ("attach-daemon", ATTACHED, "run this beside the workers"),
          ("attach-control-daemon", CONTROLLING, "run this beside the workers; its end is the vassal's"),
          ("smart-attach-daemon", SMART, "run this, which writes the pidfile and goes to the background, unless "
           "the pidfile's process lives"),
          ("smart-attach-daemon2", SMART_FOREGROUND, "run this, and write its pidfile, unless the pidfile's "
           "process lives"),
          ("attach-daemon2", DESCRIBED, "run this: cmd=..., and any of pidfile, daemonize, control, touch, "
           "stopsignal, reloadsignal, chdir"))),
    *(Option("vassal", name, kind, (), meaning, repeat=True)
      for name, kind, meaning in (
          ("cron", CRON, "run this at these times: minute hour day month weekday command"),
          ("cron2", CRON2, "run this at these times: minute=...,hour=...,unique=...,harakiri=... command"),
          ("unique-cron", UNIQUE_CRON, "as cron, and never twice at a time"))),
    Option("vassal", "cron-harakiri", TIME, 0.0, "longest time of a command of cron; 0: no limit"),
    Option("vassal", "hook-timeout", TIME, 60.0, "longest time of one step of a hook", least=0.05),
    *(Option("vassal", f"exec-{phase}", COMMAND, (), f"run a command {when}", repeat=True)
      for phase, when in _PHASES.items()),
    *(Option("vassal", f"hook-{phase}", HOOK, (), f"carry out a hook {when}", repeat=True)
      for phase, when in _HOOKS.items()),
    Option("vassal", "hook-touch", TOUCH_HOOK, (), "carry out a hook when a file is touched", repeat=True),
    Option("vassal", "touch-exec", TOUCH_COMMAND, (), "run a command when a file is touched", repeat=True),
    *(refused("vassal", f"{verb}-{phase}", TEXT, f"{verb} a file system {when}", "systemd's mount units",
              repeat=True)
      for verb in ("mount", "umount") for phase, when in list(_PHASES.items())[:5]),
    *(refused("vassal", f"call-{phase}", TEXT, f"call a function of a C library {when}",
              f"run a program: exec-{phase}", repeat=True)
      for phase, when in _PHASES.items()),
    planned("vassal", "daemons-honour-stdin", TEXT, "let daemons keep the standard input",
            why="daemons read /dev/null: write COMMAND < FILE"),
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
