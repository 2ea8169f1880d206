"""Options of a vassal's sockets and of how requests come in. Source: uWSGI's options, "Sockets"."""

from pyemperor.protocol.tables import Option, accepted, planned, refused
from pyemperor.protocol.values import ADDRESS, COUNT, FLAG, MODE, OWNERS, SIZE, TEXT, TIME

_NGINX = "let nginx talk to the user, and uwsgi to us: socket"

SOCKETS: tuple[Option, ...] = (
    Option("vassal", "socket", ADDRESS, (), "listen for the uwsgi protocol (nginx's uwsgi_pass)", repeat=True,
           aliases=("uwsgi-socket",)),
    Option("vassal", "http-socket", ADDRESS, (), "listen for HTTP", repeat=True),
    Option("vassal", "chmod-socket", MODE, 0o660, "permission bits of the unix sockets", aliases=("chmod",)),
    Option("vassal", "chown-socket", OWNERS, "", "owner of the unix sockets"),
    Option("vassal", "listen", COUNT, 0, "how many connections may wait (0: as many as the system's limit, "
           "net.core.somaxconn, which clips it in any case)"),
    Option("vassal", "buffer-size", SIZE, 65535, "largest block of request variables", least=1, most=65535),
    Option("vassal", "socket-timeout", TIME, 4.0, "wait for the client's next bytes", least=0.01),
    Option("vassal", "post-buffering", SIZE, 0, "start a script when all of the request's body is here, "
           "whatever its size (in memory, then in a file); 0: bodies are streamed"),
    accepted("vassal", "post-buffering-bufsize", SIZE, "read request bodies in pieces of this size",
             "bodies are streamed to the script, of any size"),
    planned("vassal", "limit-post", SIZE, "refuse larger request bodies", why="nginx's client_max_body_size"),
    planned("vassal", "http11-socket", ADDRESS, "listen for HTTP, connections stay open", why=_NGINX, repeat=True),
    planned("vassal", "fastcgi-socket", ADDRESS, "listen for FastCGI", why=_NGINX, repeat=True),
    planned("vassal", "scgi-socket", ADDRESS, "listen for SCGI", why=_NGINX, repeat=True),
    planned("vassal", "http", ADDRESS, "serve HTTP by a router process", why="write http-socket", repeat=True),
    *(refused("vassal", name, TEXT, meaning, _NGINX, repeat=True)
      for name, meaning in (("https-socket", "listen for HTTPS"), ("https", "serve HTTPS by a router process"),
                            ("suwsgi-socket", "listen for uwsgi over TLS"), ("ssl-socket", "listen for TLS"),
                            ("raw-socket", "listen for raw connections"),
                            ("puwsgi-socket", "listen for persistent uwsgi connections"),
                            ("fastcgi-nph-socket", "listen for FastCGI of unparsed answers"),
                            ("scgi-nph-socket", "listen for SCGI of unparsed answers"),
                            ("shared-socket", "share a socket between processes"))),
    planned("vassal", "protocol", TEXT, "protocol of sockets that are inherited", "socket-protocol",
            why="socket speaks uwsgi, http-socket HTTP"),
    planned("vassal", "abstract-socket", FLAG, "make unix sockets abstract", why='write "@name" for the path'),
    planned("vassal", "so-keepalive", FLAG, "keep idle connections alive"),
    planned("vassal", "so-send-timeout", TIME, "time for one send", "so-write-timeout", "socket-send-timeout",
            "socket-write-timeout", why="socket-timeout"),
    planned("vassal", "socket-sndbuf", SIZE, "send buffer of the sockets"),
    planned("vassal", "socket-rcvbuf", SIZE, "receive buffer of the sockets"),
    planned("vassal", "freebind", FLAG, "bind addresses that the machine does not have yet"),
    planned("vassal", "tcp-fast-open", COUNT, "TCP fast open", "tcp-fastopen"),
    planned("vassal", "map-socket", TEXT, "workers that serve a socket", repeat=True),
    planned("vassal", "enable-proxy-protocol", FLAG, "understand the PROXY protocol in HTTP"),
    accepted("vassal", "tcp-nodelay", FLAG, "send small answers at once", "answers are sent in one piece"),
    accepted("vassal", "reuse-port", FLAG, "let several processes bind an address",
             "the Emperor binds, and hands the socket on"),
    accepted("vassal", "no-defer-accept", FLAG, "do not wait for the first bytes in the kernel",
             "it is always so"),
    accepted("vassal", "thunder-lock", FLAG, "one worker accepts at a time", "only idle runners wait at the "
             "socket, and one of them is woken"),
    accepted("vassal", "shutdown-sockets", FLAG, "shut sockets down when they are closed",
             "the Emperor keeps them"),
    accepted("vassal", "close-on-exec", FLAG, "close connections in scripts", "it is always so"),
    accepted("vassal", "close-on-exec2", FLAG, "close listening sockets in scripts", "it is always so"),
    accepted("vassal", "max-vars", COUNT, "how many variables a request may have", "as many as buffer-size holds"),
    accepted("vassal", "http-socket-modifier1", COUNT, "handler of requests by HTTP", "CGI serves them"),
    accepted("vassal", "manage-script-name", FLAG, "split SCRIPT_NAME from PATH_INFO", "it is always so"),
    accepted("vassal", "honour-stdin", FLAG, "keep the standard input", "scripts have the request's body there"),
    accepted("vassal", "honour-range", FLAG, "understand Range", "nginx does, and scripts may"),
    accepted("vassal", "disable-sendfile", FLAG, "do not use sendfile(2)", "it is never used"),
    accepted("vassal", "ignore-script-name", FLAG, "ignore SCRIPT_NAME", "it is always so for CGI"),
)  # fmt: skip
