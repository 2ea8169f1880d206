"""A real nginx in front of a scenario: generated configuration, started and stopped with it."""

import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from string import Template

from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.options import Vassal

#: Open files of nginx, two for each request.
_FILES = 8192

_CONFIGURATION = Template("""\
# Generated for one run of a scenario.
daemon off;
user $user;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
worker_rlimit_nofile $files;
events { worker_connections $connections; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen $listen;
        client_max_body_size 0;
$locations
    }
}
""")
_LOCATION = Template("""\
        location $prefix {
$params
            uwsgi_modifier1 9;
            uwsgi_pass $upstream;
        }
""")
#: nginx's stock uwsgi_params (Debian's file), so that no file outside is needed.
_PARAMS = {
    "QUERY_STRING": "$query_string",
    "REQUEST_METHOD": "$request_method",
    "CONTENT_TYPE": "$content_type",
    "CONTENT_LENGTH": "$content_length",
    "REQUEST_URI": "$request_uri",
    "PATH_INFO": "$document_uri",
    "DOCUMENT_ROOT": "$document_root",
    "SERVER_PROTOCOL": "$server_protocol",
    "REQUEST_SCHEME": "$scheme",
    "HTTPS": "$https if_not_empty",
    "REMOTE_ADDR": "$remote_addr",
    "REMOTE_PORT": "$remote_port",
    "SERVER_PORT": "$server_port",
    "SERVER_NAME": "$server_name",
    "REQUEST_ID": "$request_id",
}


def configuration(vassals: Iterable[Vassal], listen: str) -> str:
    """The configuration of an nginx that serves every mount of ``vassals`` at ``listen``."""
    params = "\n".join(f"            uwsgi_param {name} {value};" for name, value in _PARAMS.items())
    locations = [
        _LOCATION.substitute(prefix=mount.prefix or "/", params=params, upstream=upstream(vassal))
        for vassal in vassals
        if vassal.socket
        for mount in vassal.cgi
    ]
    user = "root" if os.geteuid() == 0 else "nobody"
    files = min(_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    return _CONFIGURATION.substitute(
        user=user, listen=listen, files=files, connections=files // 2, locations="\n".join(locations)
    )


def upstream(vassal: Vassal) -> str:
    """What ``uwsgi_pass`` says for the first socket of ``vassal``."""
    address = vassal.socket[0]
    return (
        f"unix:{address.path}" if address.kind == "unix" else f"{address.host or '127.0.0.1'}:{address.port}"
    )


class Nginx:
    """nginx as a child process, with a folder of its own."""

    def __init__(self, vassals: Iterable[Vassal], listen: str) -> None:
        """Start it; raises ConfigError when it is not installed or does not like what it is to do."""
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if program is None:
            problem = Problem(
                "front", 0, "kind", "nginx is not installed", remedy="apt-get install nginx-light"
            )
            raise ConfigError(problem)
        self._folder = tempfile.TemporaryDirectory(prefix="pyemperor-nginx-")
        file = Path(self._folder.name, "nginx.conf")
        file.write_text(configuration(vassals, listen), encoding="utf-8")
        # If we are killed, it ends as well: it would keep the port.
        leash = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
        command = [program, "-p", self._folder.name, "-c", str(file), "-e", "stderr"]
        tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        if tested.returncode:
            self._folder.cleanup()
            raise ConfigError(Problem("front", 0, "listen", f"nginx refuses: {tested.stderr.strip()}"))
        self._process = subprocess.Popen([*leash, *command], start_new_session=True)

    @property
    def pid(self) -> int:
        """Of nginx's master process."""
        return self._process.pid

    def stop(self) -> None:
        """End it, gracefully for two seconds."""
        for number, patience in ((signal.SIGQUIT, 2), (signal.SIGTERM, 2), (signal.SIGKILL, 5)):
            self._process.send_signal(number)
            try:
                self._process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                continue
        self._folder.cleanup()
