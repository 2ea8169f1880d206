"""Options of a vassal's processes: how many, for how long, and when they are replaced or reloaded.

Source: uWSGI's options; "The uWSGI cheaper subsystem"; "Managing the uWSGI server".
"""

from pyemperor.protocol.tables import Option, accepted, planned
from pyemperor.protocol.values import COUNT, FLAG, INTEGER, MEGABYTES, PATH, SIZE, TEXT, TIME

_ALWAYS = "it is always so"

PROCESSES: tuple[Option, ...] = (
    Option("vassal", "processes", COUNT, 1, "worker processes", least=1, most=1024, aliases=("workers",)),
    Option("vassal", "threads", COUNT, 1, "requests that each worker serves at a time", least=1, most=1024),
    Option("vassal", "heartbeat", TIME, 0.0, "time between two beats to the Emperor; a third of "
           "emperor-required-heartbeat where that is shorter, or when 0"),
    Option("vassal", "worker-reload-mercy", TIME, 60.0, "time that a worker has to finish its requests"),
    Option("vassal", "reload-mercy", TIME, 60.0, "time that the whole vassal has to finish; clips "
           "worker-reload-mercy; the same as mercy in [vassal.supervision]"),
    Option("vassal", "start-timeout", TIME, 60.0, "time until ready; the same as start-timeout in "
           "[vassal.supervision]", least=0.1),
    accepted("vassal", "master", FLAG, "run a master process", "every vassal has a master"),
    accepted("vassal", "no-orphans", FLAG, "end the workers when their master is gone", _ALWAYS),
    accepted("vassal", "plugins", TEXT, "plugins to load", "everything is built in", "plugin", "need-plugins",
             "need-plugin", repeat=True),
    accepted("vassal", "plugins-dir", PATH, "folder of plugins", "everything is built in", "plugin-dir",
             repeat=True),
    accepted("vassal", "autoload", FLAG, "load plugins by the options that are used", "everything is built in"),
    accepted("vassal", "enable-threads", FLAG, "let applications run threads", "scripts are processes"),
    accepted("vassal", "no-threads-wait", FLAG, "do not wait for threads at the end", "worker-reload-mercy "
             "says how long they have"),
    accepted("vassal", "thread-stacksize", COUNT, "stack of a thread in kilobytes", "threads need little",
             "threads-stacksize", "thread-stack-size", "threads-stack-size"),
    accepted("vassal", "cgi-mode", FLAG, "force CGI", "it is always so"),
    accepted("vassal", "single-interpreter", FLAG, "one Python interpreter a process", _ALWAYS),
    accepted("vassal", "lazy-apps", FLAG, "load applications in the workers", "there is none to load"),
    accepted("vassal", "lazy", FLAG, "load applications in the workers", "there is none to load"),
    accepted("vassal", "need-app", FLAG, "end when no application can be loaded", "there is none to load"),
    accepted("vassal", "reaper", FLAG, "reap strange children after each request", _ALWAYS),
    accepted("vassal", "die-on-term", FLAG, "SIGTERM stops", _ALWAYS),
    accepted("vassal", "async", COUNT, "requests of a worker at a time, without threads", "write threads"),
    accepted("vassal", "loop", TEXT, "event loop of the workers", "each runner has one"),
    accepted("vassal", "gevent", COUNT, "requests of a worker at a time by gevent", "write threads"),
    accepted("vassal", "locks", COUNT, "shared locks", "for applications within uWSGI"),
    accepted("vassal", "lock-engine", TEXT, "kind of the locks", "there is none to choose"),
    accepted("vassal", "check-interval", TIME, "time between two looks of the master", "events are seen at once"),
    accepted("vassal", "forkbomb-delay", TIME, "pause when workers die at once", "[vassal.supervision] has the "
             "delays: backoff"),
    # replacing workers
    Option("vassal", "max-requests", COUNT, 0, "replace a worker after so many requests; 0: never"),
    Option("vassal", "max-requests-delta", COUNT, 0, "so many requests more for each further worker"),
    Option("vassal", "min-worker-lifetime", TIME, 10.0, "age before which a worker is not replaced for its "
           "requests or its memory"),
    Option("vassal", "max-worker-lifetime", TIME, 0.0, "replace a worker at this age; 0: never"),
    Option("vassal", "max-worker-lifetime-delta", TIME, 0.0, "so much more for each further worker"),
    Option("vassal", "reload-on-rss", MEGABYTES, 0, "replace a worker that has more resident memory"),
    Option("vassal", "reload-on-as", MEGABYTES, 0, "replace a worker that has more address space"),
    Option("vassal", "evil-reload-on-rss", MEGABYTES, 0, "kill and replace a worker that has more resident "
           "memory"),
    Option("vassal", "evil-reload-on-as", MEGABYTES, 0, "kill and replace a worker that has more address space"),
    Option("vassal", "mem-collector-freq", TIME, 3.0, "time between two looks at the memory of the workers",
           least=0.01),
    *(accepted("vassal", name, TEXT, "replace a worker at an exception of its application",
               "a script's exception ends the script", repeat=True)
      for name in ("reload-on-exception", "reload-on-exception-type", "reload-on-exception-value",
                   "reload-on-exception-repr")),
    # time limits of requests
    Option("vassal", "harakiri", TIME, 0.0, "end the script of a request that takes longer, and nothing else; "
           "0: never"),
    Option("vassal", "harakiri-verbose", FLAG, False, "log what the script and its children wait for then"),
    Option("vassal", "harakiri-graceful-timeout", TIME, 2.0, "time between the signal and SIGKILL"),
    Option("vassal", "harakiri-graceful-signal", COUNT, 15, "number of the signal before SIGKILL", least=1,
           most=64),
    planned("vassal", "harakiri-queue-threshold", COUNT, "end slow requests only when so many wait",
            why="harakiri is the same however many wait"),
    accepted("vassal", "harakiri-no-arh", FLAG, "no limit for what follows a request", "nothing does",
             "no-harakiri-arh", "no-harakiri-after-req-hook"),
    # fewer workers
    Option("vassal", "on-demand", FLAG, False, "start the vassal at its first connection"),
    Option("vassal", "cheap", FLAG, False, "start no worker before the first connection"),
    Option("vassal", "idle", TIME, 0.0, "end the workers after this time without a request, until the next "
           "connection; 0: never"),
    Option("vassal", "die-on-idle", FLAG, False, "with idle: end the whole vassal, until the next connection"),
    Option("vassal", "cheaper", COUNT, 0, "fewest workers, less than processes; 0: always all of them"),
    Option("vassal", "cheaper-initial", COUNT, 0, "workers at the start; 0: as many as cheaper says"),
    Option("vassal", "cheaper-step", COUNT, 1, "workers that are started at a time", least=1),
    Option("vassal", "cheaper-overload", COUNT, 3, "seconds that all workers are full, or that more than one is "
           "idle, until their number changes; backlog: connections that wait"),
    Option("vassal", "cheaper-algo", TEXT, "spare", "what decides the number of workers: spare, spare2 or "
           "backlog"),
    Option("vassal", "cheaper-idle", COUNT, 10, "spare2: seconds with too many idle workers until one ends"),
    Option("vassal", "cheaper-rss-limit-soft", SIZE, 0, "start no more workers when all have so much memory"),
    Option("vassal", "cheaper-rss-limit-hard", SIZE, 0, "end a worker when all have so much memory"),
    # reloading
    Option("vassal", "touch-reload", PATH, (), "reload the vassal when this file is touched", repeat=True),
    Option("vassal", "touch-chain-reload", PATH, (), "the same: the new workers start beside the old ones",
           repeat=True),
    Option("vassal", "touch-workers-reload", PATH, (), "replace the workers when this file is touched",
           repeat=True),
    planned("vassal", "fs-reload", PATH, "reload when this file or folder changes", repeat=True,
            why="touch the vassal's file, or pyemperor reload NAME"),
    planned("vassal", "touch-signal", TEXT, "raise a uwsgi signal when a file is touched", repeat=True,
            why="touch-exec runs a command"),
    planned("vassal", "reload-on-fd", TEXT, "reload when a descriptor can be read", "brutal-reload-on-fd",
            repeat=True, why="pyemperor reload NAME"),
    accepted("vassal", "exit-on-reload", FLAG, "end instead of reloading", "a reload starts the new generation "
             "beside the old one, which then ends"),
    accepted("vassal", "py-autoreload", TIME, "reload when Python modules change", "scripts are read anew for "
             "each request"),
    accepted("vassal", "py-auto-reload", TIME, "reload when Python modules change", "scripts are read anew for "
             "each request"),
    # titles, scheduling
    Option("vassal", "procname-prefix", TEXT, "", "put before the process titles"),
    Option("vassal", "procname-prefix-spaced", TEXT, "", "the same, with a space between"),
    Option("vassal", "procname-append", TEXT, "", "put behind the process titles"),
    Option("vassal", "procname", TEXT, "", "title of the processes"),
    Option("vassal", "procname-master", TEXT, "", "title of the master"),
    accepted("vassal", "auto-procname", FLAG, "set the process titles", _ALWAYS),
    Option("vassal", "cpu-affinity", COUNT, 0, "keep each worker and its scripts to so many processors, the first "
           "worker to the first ones and so on; 0: to all"),
    Option("vassal", "prio", INTEGER, 0, "nice value of the processes and their scripts, -20 to 19; below 0 takes "
           "root", least=-20, most=19),
)  # fmt: skip
