"""Options of the Emperor itself. Source: uWSGI, "The uWSGI Emperor", and its core/emperor.c."""

from pyemperor.protocol.hooks import COMMAND, HOOK, PROGRAM
from pyemperor.protocol.tables import Option, accepted, planned, refused
from pyemperor.protocol.values import (
    ADDRESS,
    COUNT,
    FLAG,
    MILLISECONDS,
    PATH,
    SOURCE,
    TEXT,
    TIME,
    VARIABLE,
    choice,
)

_HOOK = "hook-accepting1 in the vassals' files, or vassals-start-hook"
_CLONE = "use systemd's PrivateTmp=, ProtectSystem= and the like for the service"

EMPEROR: tuple[Option, ...] = (
    Option("emperor", "emperor", SOURCE, (), "where vassal files are: a folder, a pattern, dir:// or glob://",
           repeat=True),
    Option("emperor", "emperor-freq", TIME, 3.0, "time between two scans for vassal files; events of the file "
           "system are seen at once", least=0.1),
    Option("emperor", "emperor-required-heartbeat", TIME, 30.0,
           "silence after which a vassal is suspect and is asked whether it lives", least=0.1),
    Option("emperor", "heartbeat-probe", TIME, 5.0,
           "time that a suspect has to answer before it is convicted", least=0.05),
    Option("emperor", "emperor-pidfile", PATH, "", "file for the Emperor's process id, written as its user"),
    Option("emperor", "control-socket", PATH, "", "unix socket of status, reload, stop and absolve"),
    Option("emperor", "log-style", choice("pretty", "uwsgi", "json"), "pretty", "how log lines look"),
    Option("emperor", "vassals-include", PATH, (), "read this file behind each vassal's own, over which it wins",
           repeat=True),
    Option("emperor", "vassals-include-before", PATH, (), "read this file before each vassal's own, as defaults",
           repeat=True),
    Option("emperor", "vassals-inherit", PATH, (), "as vassals-include, read last of all", repeat=True),
    Option("emperor", "vassals-inherit-before", PATH, (), "as vassals-inherit, read before the other inherited "
           "files", repeat=True),
    Option("emperor", "vassal-set", VARIABLE, (), "set this option of each vassal, before its own file: "
           "name=value", repeat=True, aliases=("vassals-set",)),
    Option("emperor", "emperor-nofollow", FLAG, False, "look at symbolic links themselves, not at what they lead "
           "to: touch -h reloads, a changed target does not"),
    Option("emperor", "emperor-extra-extension", TEXT, (), "further ending of vassal files, which are read as INI",
           repeat=True, aliases=("emperor-extra-ext",)),
    Option("emperor", "emperor-tyrant", FLAG, False, "run each vassal as the user and group that its file belongs "
           "to, never as root"),
    Option("emperor", "emperor-tyrant-nofollow", FLAG, False, "in tyrant mode, as the owner of a link itself"),
    Option("emperor", "emperor-tyrant-initgroups", FLAG, False, "in tyrant mode, with the owner's further groups"),
    Option("emperor", "emperor-stats", ADDRESS, None, "serve uWSGI's statistics of the vassals as JSON, one "
           "document a connection", aliases=("emperor-stats-server",)),
    Option("emperor", "emperor-procname", TEXT, "", "title of the Emperor's process"),
    Option("emperor", "emperor-on-demand-extension", TEXT, "", "start a vassal at its first connection, where "
           "a file of its name and this ending gives an address", aliases=("emperor-on-demand-ext",)),
    Option("emperor", "emperor-on-demand-directory", PATH, "", "start each vassal at its first connection to "
           "DIRECTORY/NAME.socket", aliases=("emperor-on-demand-dir",)),
    Option("emperor", "hook-emperor-start", HOOK, (), "hook that is carried out before any vassal starts; when it "
           "fails the Emperor ends", repeat=True),
    Option("emperor", "vassals-start-hook", PROGRAM, (), "program that is run with a vassal's name before the "
           "vassal starts; its failure is only logged", repeat=True),
    Option("emperor", "vassals-stop-hook", PROGRAM, (), "program that is run with a vassal's name when the vassal "
           "has ended for good", repeat=True),
    Option("emperor", "exec-as-vassal", COMMAND, (), "command that is run before a vassal starts, as the "
           "Emperor's user", repeat=True),
    Option("emperor", "hook-as-vassal", HOOK, (), "hook that is carried out before a vassal starts, as the "
           "Emperor's user", repeat=True),
    Option("emperor", "emperor-throttle", MILLISECONDS, None, "first delay before a bad vassal starts again; "
           "the next ones double: initial of [supervision] backoff, where a vassal has none of its own"),
    Option("emperor", "emperor-max-throttle", MILLISECONDS, None, "longest delay before a bad vassal starts: "
           "max of [supervision] backoff, where a vassal has none of its own"),
    accepted("emperor", "emperor-curse-tolerance", TIME, "time after which a vassal that was asked to stop is "
             "killed", "each vassal's reload-mercy is that time; a shorter one would cut off its requests"),
    accepted("emperor", "emperor-no-blacklist", FLAG, "start a bad vassal again and again without delay",
             "that would only keep the machine busy: a changed file, or pyemperor absolve, ends every delay"),
    accepted("emperor", "emperor-graceful-shutdown", FLAG, "let vassals finish their requests at the end",
             "it is always so"),
    accepted("emperor", "early-emperor", FLAG, "start the Emperor before privileges are dropped",
             "addresses are bound before them in any case"),
    accepted("emperor", "emperor-subreaper", FLAG, "inherit what dead vassals leave behind", "it is always so"),
    accepted("emperor", "emperor-use-fork-server", TEXT, "fork vassals from a warm process", "it is always so"),
    accepted("emperor", "imperial-monitor-list", FLAG, "list the monitors", "they are dir:// and glob://",
             "imperial-monitors-list"),
    refused("emperor", "emperor-magic-exec", FLAG, "run vassal files that are executable, and read their output",
            "no program is run to read a configuration: write its output to a file"),
    refused("emperor", "emperor-on-demand-exec", TEXT, "a command that says a vassal's address",
            "no program is run to read a configuration"),
    refused("emperor", "emperor-wrapper", PATH, "program that vassals are run by",
            "vassals are forked, no program is run", "emperor-wrapper-override", "emperor-wrapper-fallback"),
    refused("emperor", "emperor-use-clone", TEXT, "namespaces for vassals", _CLONE),
    refused("emperor", "emperor-cap", TEXT, "capabilities of vassals", "use systemd's CapabilityBoundingSet=",
            "vassals-cap", "vassal-cap"),
    refused("emperor", "emperor-broodlord", COUNT, "start further instances of busy vassals",
            "give the vassal more processes"),
    *(refused("emperor", name, TEXT, "run this in the Emperor when a vassal has started", _HOOK, repeat=True)
      for name in ("hook-as-emperor", "exec-as-emperor", "call-as-emperor", "call-as-emperor1",
                   "call-as-emperor2", "call-as-emperor4", "mount-as-emperor", "umount-as-emperor")),
    *(planned("emperor", name, TEXT, "run this before a vassal's process starts", why="exec-as-vassal",
              repeat=True)
      for name in ("call-as-vassal", "call-as-vassal1", "call-as-vassal3",
                   "mount-as-vassal", "umount-as-vassal")),
    planned("emperor", "emperor-command-socket", PATH, "take commands at this socket", why="control-socket",
            repeat=True),
    # in a vassal
    planned("vassal", "vassal-sos", TIME, "ask the Emperor for help when all workers are busy",
            why="give the vassal more processes"),
    planned("vassal", "vassal-sos-backlog", COUNT, "ask for help when so many connections wait",
            why="cheaper-algo = backlog starts more workers then"),
    refused("vassal", "emperor-proxy-socket", PATH, "pass the link to the Emperor on",
            "only the Emperor's own children are vassals"),
    refused("vassal", "zerg", PATH, "take sockets from another instance", "the Emperor owns the sockets: one "
            "vassal with more processes", "zerg-server", "zerg-fallback", "zergpool", repeat=True),
)  # fmt: skip
