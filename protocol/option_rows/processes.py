"""Options of a vassal's processes: how many, for how long, and when they are replaced or reloaded.

Source: uWSGI's options; "The uWSGI cheaper subsystem"; "Managing the uWSGI server".
"""

from pyemperor.protocol.tables import Option, accepted, planned
from pyemperor.protocol.values import COUNT, FLAG, MEGABYTES, PATH, TEXT, TIME

_ALWAYS = "it is always so"
_NO_GROWTH = "scripts are processes of their own, so workers do not grow"
_LIMIT = "cgi-limit-as limits a script"

PROCESSES: tuple[Option, ...] = (
    Option("vassal", "processes", COUNT, 1, "worker processes", least=1, aliases=("workers",)),
    Option("vassal", "threads", COUNT, 1, "requests that each worker serves at a time", least=1),
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
    accepted("vassal", "max-requests", COUNT, "replace a worker after so many requests", _NO_GROWTH),
    accepted("vassal", "max-requests-delta", COUNT, "more requests for each further worker", _NO_GROWTH),
    accepted("vassal", "min-worker-lifetime", TIME, "time before which no worker is replaced", _NO_GROWTH),
    accepted("vassal", "max-worker-lifetime", TIME, "replace a worker after this time", _NO_GROWTH),
    accepted("vassal", "max-worker-lifetime-delta", TIME, "more time for each further worker", _NO_GROWTH),
    *(accepted("vassal", name, MEGABYTES, meaning, _NO_GROWTH + "; " + _LIMIT)
      for name, meaning in (("reload-on-rss", "replace a worker that has more resident memory"),
                            ("reload-on-as", "replace a worker that has more address space"),
                            ("evil-reload-on-rss", "kill a worker that has more resident memory"),
                            ("evil-reload-on-as", "kill a worker that has more address space"))),
    accepted("vassal", "mem-collector-freq", TIME, "time between two looks at the memory", _NO_GROWTH),
    *(accepted("vassal", name, TEXT, "replace a worker at an exception of its application",
               "a script's exception ends the script", repeat=True)
      for name in ("reload-on-exception", "reload-on-exception-type", "reload-on-exception-value",
                   "reload-on-exception-repr")),
    # time limits of requests
    Option("vassal", "harakiri", TIME, 0.0, "end the script of a request that takes longer, and nothing else; "
           "0: never"),
    planned("vassal", "harakiri-verbose", FLAG, "log more when a request is ended"),
    planned("vassal", "harakiri-graceful-timeout", TIME, "time between the signal and SIGKILL"),
    planned("vassal", "harakiri-graceful-signal", COUNT, "signal before SIGKILL"),
    planned("vassal", "harakiri-queue-threshold", COUNT, "end slow requests only when so many wait"),
    accepted("vassal", "harakiri-no-arh", FLAG, "no limit for what follows a request", "nothing does",
             "no-harakiri-arh", "no-harakiri-after-req-hook"),
    # fewer workers
    planned("vassal", "cheap", FLAG, "start no worker before the first connection"),
    planned("vassal", "idle", TIME, "end the workers after this time without a request"),
    planned("vassal", "die-on-idle", FLAG, "end the vassal when it is idle, until the next connection"),
    planned("vassal", "cheaper", COUNT, "fewest workers", why="processes is the number of workers"),
    *(planned("vassal", name, kind, meaning)
      for name, kind, meaning in (("cheaper-initial", COUNT, "workers at the start"),
                                  ("cheaper-step", COUNT, "workers that are started at a time"),
                                  ("cheaper-overload", COUNT, "looks before their number changes"),
                                  ("cheaper-algo", TEXT, "what decides their number"),
                                  ("cheaper-idle", TIME, "time after which an idle worker ends"),
                                  ("cheaper-rss-limit-soft", MEGABYTES, "start no more above this memory"),
                                  ("cheaper-rss-limit-hard", MEGABYTES, "end workers above this memory"))),
    # reloading
    Option("vassal", "touch-reload", PATH, (), "reload the vassal when this file is touched", repeat=True),
    Option("vassal", "touch-chain-reload", PATH, (), "the same: the new workers start beside the old ones",
           repeat=True),
    *(planned("vassal", name, PATH, meaning, repeat=True, why="touch the vassal's file, or pyemperor reload NAME")
      for name, meaning in (("touch-workers-reload", "replace the workers when this file is touched"),
                            ("fs-reload", "reload when this file or folder changes"))),
    planned("vassal", "touch-signal", TEXT, "raise a uwsgi signal when a file is touched", repeat=True),
    planned("vassal", "reload-on-fd", TEXT, "reload when a descriptor can be read", "brutal-reload-on-fd",
            repeat=True),
    accepted("vassal", "exit-on-reload", FLAG, "end instead of reloading", "a reload starts the new generation "
             "beside the old one, which then ends"),
    accepted("vassal", "py-autoreload", TIME, "reload when Python modules change", "scripts are read anew for "
             "each request"),
    accepted("vassal", "py-auto-reload", TIME, "reload when Python modules change", "scripts are read anew for "
             "each request"),
    # titles, scheduling
    planned("vassal", "procname-prefix", TEXT, "put before the process titles", "procname-prefix-spaced"),
    planned("vassal", "procname-append", TEXT, "put behind the process titles"),
    planned("vassal", "procname", TEXT, "title of the processes"),
    planned("vassal", "procname-master", TEXT, "title of the master"),
    accepted("vassal", "auto-procname", FLAG, "set the process titles", _ALWAYS),
    planned("vassal", "cpu-affinity", COUNT, "processors for each worker"),
    planned("vassal", "prio", COUNT, "scheduling priority"),
)  # fmt: skip
