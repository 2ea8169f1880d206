"""Options of uWSGI outside of what PyEmperor is for: their names, and who does such work here.

They have no rows, and are no mistakes either: nobody is told that they are misspelt.
"""

from typing import Literal

Fate = tuple[Literal["planned", "refused"], str]

#: Whole families, by how their names begin.
_BEGINNINGS: dict[tuple[str, ...], Fate] = {
    ("route", "final-route", "error-route", "response-route"):
        ("refused", "rules of requests may guard something: write them into nginx's configuration"),
    ("static-", "check-static", "error-page-"): ("planned", "nginx serves files"),
    ("legion", "subscri", "fastrouter", "rawrouter", "sslrouter", "http-", "https-", "forkpty", "tuntap-",
     "multicast"): ("planned", "nginx distributes requests"),
    ("cache-", "queue", "websocket", "chunked-input-"): ("planned", "only for applications within uWSGI"),
    ("wsgi-", "python-", "webdav-", "php-", "perl-", "psgi", "rack", "ruby", "lua", "jvm", "mono"):
        ("planned", "only CGI programs are served so far"),
    ("sni", "ssl-"): ("planned", "nginx does TLS"),
    ("carbon", "rrdtool", "pty-", "cheaper-busyness-", "alarm-", "metric-", "metrics-"):
        ("planned", "nothing here does it"),
}  # fmt: skip
_NAMES: dict[str, Fate] = {
    """add-header rem-header del-header collect-header pull-header response-header-collect static-check
    mimefile mime-file offload-thread offload-threads file-serve-mode fileserve-mode
    response-headers-limit""":
        ("planned", "nginx serves files and sets headers"),
    """app callable catch-exceptions eval exception-handler file home import ini-paste ini-paste-logged
    module mount no-default-app no-site optimize paste paste-logger pecan php post-pymodule-alias pp
    pump py py-import pyargv pyhome pyimport pymodule-alias pyrun pyshell python pythonpath
    reload-os-env shared-import shared-pyimport spooler-import test vhost vhost-host virtualenv venv
    web3 worker-mount wsgi""":
        ("planned", "only CGI programs are served so far"),
    """add-cache-item after-request-call after-request-hook body-read-warning cache cache2 check-cache
    hook-as-gateway hook-as-mule load-file-in-cache load-file-in-cache-gzip rbtimer rpc-max
    sharedarea signal signal-bufsize signal-rbtimer signal-timer signals-bufsize spooler-external
    spooler-freq spooler-ordered spooler-quiet timer upload-progress fs-signal""":
        ("planned", "only for applications within uWSGI"),
    """auto-weight cron-legion propagate-touch st start-unsubscribed subscribe subscribe2 subscribe-to
    unique-cron-legion unique-legion-cron unsubscribe-on-graceful-reload weight zerg-pool httprouter
    https2""":
        ("planned", "nginx distributes requests"),
    """die-on-no-workers emperor-chdir-attr emperor-collect-attr emperor-fork-server-attr emperor-trigger-socket
    emperor-wait-for-command emperor-wait-for-command-ignore emperor-wrapper-attr
    hook-as-emperor-before-vassal hook-as-emperor-setns hook-as-on-config-vassal hook-as-on-demand-vassal
    hook-as-vassal-before-drop reload-on-pss reload-on-uss spooler-cheap vassal-fork-base zeus""":
        ("planned", "it is of uWSGI's development branch, 2.1, which was never released"),
    """alarms-list allowed-modifiers backlog-alarm backtrace-depth binary-append-data binary-path
    build-plugin cflags
    check-mount check-mountpoint clock clock-list clocks-list command-mode config-py
    connect-and-read dlopen dot-h dump-options exit extract fallback-config fd-safe force-gateway
    fs-brutal-reload ftok get help iprint listen-queue-alarm logger-list loggers-list loop-list
    loops-list lq-alarm max-apps mode mount-check mountpoint-check nagios no-fd-passing no-server
    not-alarm-log not-log-alarm pam pam-user pause pcre-jit persistent-ipcsem plugin-list
    plugins-list print print-sym print-symbol privileged-binary-patch privileged-binary-patch-arg
    profiler re-fork re-fork-as-root re-fork-post-jail refork refork-as-root refork-post-jail reload
    remap-modifier resume router-list routers-list safe-fd segfault-alarm show-config skip-atexit
    skip-atexit-teardown skip-zero snmp-community stop suspend tcp-fast-open-client
    tcp-fastopen-client unprivileged-binary-patch unprivileged-binary-patch-arg usage use-abort
    version worker-exec worker-exec2 cheaper-list cheaper-algo-list cheaper-algos-list
    fastcgi-modifier1 fastcgi-modifier2 scgi-modifier1 scgi-modifier2 raw-modifier1 raw-modifier2
    http-socket-modifier2 undeferred-shared-socket""":
        ("planned", "nothing here does it"),
}  # fmt: skip
_FATES = {name: fate for names, fate in _NAMES.items() for name in names.split()}


def elsewhere(name: str) -> Fate | None:
    """Say what becomes of an option of uWSGI that has no row, and why; None when uWSGI has no such option."""
    if fate := _FATES.get(name):
        return fate
    return next((fate for beginnings, fate in _BEGINNINGS.items() if name.startswith(beginnings)), None)
