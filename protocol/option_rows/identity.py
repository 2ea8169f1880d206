"""Options of who processes are, what they may, and the files that they need. Source: uWSGI's options."""

from pyemperor.protocol.tables import Option, accepted, everywhere, planned, refused
from pyemperor.protocol.values import COUNT, FLAG, MEGABYTES, OWNER, PATH, TEXT, TIME, UMASK, VARIABLE

_SYSTEMD = "write it into the systemd unit"
_JAIL = "a vassal without its jail would see more than it should; " + _SYSTEMD
_AT_ONCE = "a vassal's identity is fixed when its process is made"
_WAIT = "systemd's After= orders the start"

IDENTITY: tuple[Option, ...] = (
    *everywhere(
        Option("", "uid", OWNER, "", "user to run as"),
        Option("", "gid", OWNER, "", "group to run as"),
        Option("", "chdir", PATH, "", "working folder of the processes"),
        Option("", "add-gid", OWNER, (), "further group", repeat=True),
        Option("", "no-initgroups", FLAG, False, "take no further group of the user"),
        Option("", "umask", UMASK, None, "permission bits that new files do not get"),
        Option("", "unenv", TEXT, (), "environment variable that is not handed down", repeat=True),
    ),
    Option("emperor", "pidfile", PATH, "", "file for the process id, written before privileges are dropped"),
    Option("emperor", "pidfile2", PATH, "", "file for the process id, written after privileges are dropped"),
    Option("emperor", "safe-pidfile", PATH, "", "file for the process id, written once everything is up"),
    Option("emperor", "safe-pidfile2", PATH, "", "the same"),
    Option("emperor", "daemonize", PATH, "", "go to the background and log to this file"),
    Option("emperor", "daemonize2", PATH, "", "the same, as root no longer"),
    Option("emperor", "env", VARIABLE, (), "environment variable for the scripts of all vassals, NAME=value; a "
           "vassal's own env comes before it", repeat=True),
    Option("vassal", "env", VARIABLE, (), "environment variable for the scripts, NAME=value", repeat=True),
    planned("vassal", "envdir", PATH, "folder whose files are environment variables", "early-envdir", repeat=True,
            why="write env"),
    planned("vassal", "chdir2", PATH, "working folder once applications are loaded", why="write chdir"),
    planned("vassal", "force-cwd", PATH, "working folder at the start", why="write chdir"),
    Option("vassal", "pidfile", PATH, "", "file for the process id of the master that serves, written as the "
           "Emperor's user"),
    Option("vassal", "pidfile2", PATH, "", "the same, written as the vassal's user"),
    Option("vassal", "safe-pidfile", PATH, "", "the same as pidfile2, written once the vassal is ready"),
    Option("vassal", "safe-pidfile2", PATH, "", "the same"),
    accepted("vassal", "vacuum", FLAG, "remove the files at the end", "it is always so"),
    accepted("emperor", "vacuum", FLAG, "remove the files at the end", "it is always so"),
    accepted("emperor", "master", FLAG, "run a master process", "the Emperor needs none"),
    accepted("emperor", "die-on-term", FLAG, "SIGTERM stops", "it is always so"),
    accepted("emperor", "no-orphans", FLAG, "leave no process behind", "it is always so"),
    accepted("emperor", "autoload", FLAG, "load plugins by the options that are used", "everything is built in"),
    accepted("emperor", "plugins", TEXT, "plugins to load", "everything is built in", "plugin", "need-plugins",
             "need-plugin", repeat=True),
    planned("emperor", "reload-mercy", TIME, "time that all vassals have to end", why="each vassal's own counts"),
    *everywhere(
        *(accepted("", name, OWNER, "who to run as, at once", _AT_ONCE + ": uid and gid")
          for name in ("immediate-uid", "immediate-gid")),
        accepted("", "master-as-root", FLAG, "keep the master root", "masters run as their vassal's user"),
        accepted("", "drop-after-init", FLAG, "drop privileges later", _AT_ONCE),
        accepted("", "drop-after-apps", FLAG, "drop privileges later", _AT_ONCE),
        refused("", "cap", TEXT, "capabilities to keep", _SYSTEMD + ": AmbientCapabilities="),
        refused("", "chroot", PATH, "new root folder", _JAIL),
        refused("", "pivot-root", TEXT, "new root folder", _JAIL, "pivot_root"),
        refused("", "namespace", TEXT, "run in a namespace", _JAIL, "ns"),
        refused("", "namespace-net", TEXT, "run in a network namespace", _JAIL, "ns-net"),
        refused("", "namespace-keep-mount", TEXT, "mount to keep in the namespace", _JAIL, repeat=True),
        refused("", "unshare", TEXT, "namespaces to leave", _JAIL, "unshare2"),
        refused("", "setns", TEXT, "namespace to join", _JAIL, "setns-socket", "setns-socket-skip", "setns-skip"),
        accepted("", "setns-preopen", FLAG, "open namespaces before", "setns is refused"),
        accepted("", "jailed", FLAG, "run the hooks of a jail", "there is none"),
        planned("", "cgroup", PATH, "control group", why=_SYSTEMD, repeat=True),
        planned("", "cgroup-opt", TEXT, "option of the control group", why=_SYSTEMD, repeat=True),
        planned("", "cgroup-dir-mode", TEXT, "permission bits of its folder"),
        planned("", "limit-as", MEGABYTES, "address space of a process", why="cgi-limit-as limits a script"),
        planned("", "limit-nproc", COUNT, "processes of the user", why="cgi-limit-nproc limits a script"),
        planned("", "max-fd", COUNT, "open descriptors", why="systemd's LimitNOFILE=; cgi-limit-nofile limits a "
                "script"),
        *(planned("", name, PATH, "do not start while this file is locked", repeat=True)
          for name in ("flock", "flock-wait", "flock2", "flock-wait2")),
        planned("", "file-write", VARIABLE, "write a file at the start: file=content", repeat=True,
                why="a hook writes it: write:FILE TEXT"),
        *(planned("", name, TEXT, meaning, why=_WAIT, repeat=True)
          for name, meaning in (("wait-for-fs", "wait until this exists"),
                                ("wait-for-file", "wait until this file exists"),
                                ("wait-for-dir", "wait until this folder exists"),
                                ("wait-for-mountpoint", "wait until this is mounted"),
                                ("wait-for-socket", "wait until something listens here"))),
        planned("", "wait-for-interface", TEXT, "wait for this network interface", "wait-interface",
                "wait-for-iface", "wait-iface", why=_WAIT, repeat=True),
        planned("", "wait-for-fs-timeout", TIME, "longest wait for a file"),
        planned("", "wait-for-socket-timeout", TIME, "longest wait for a socket"),
        planned("", "wait-for-interface-timeout", TIME, "longest wait for an interface", "wait-interface-timeout",
                "wait-for-iface-timeout", "wait-iface-timeout"),
        accepted("", "never-swap", FLAG, "lock all memory", _SYSTEMD + ": MemorySwapMax=0"),
        accepted("", "ksm", COUNT, "merge equal memory", "forked processes share theirs"),
        accepted("", "binsh", PATH, "shell of commands", "no shell is run", repeat=True),
    ),
)  # fmt: skip
