"""Web servers as children of the tests: nginx with the locations of a recipe, and Apache to compare with."""

import os
import pwd
import shutil
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from string import Template

import pytest

from pyemperor.actors.linux import living_descendants
from tests.support import PATIENCE, Server

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "/usr/sbin/nginx"
APACHE = "/usr/sbin/apache2"
ROOT = os.geteuid() == 0
#: Whose processes and files it is all about: the user of the recipes, unless that takes root.
USER = "www-data" if ROOT else pwd.getpwuid(os.geteuid()).pw_name
#: The name of the site, at whichever port it is asked.
HOST = "www.example.org"


def needs(*files: str) -> pytest.MarkDecorator:
    """Skip unless the web servers and these are there; `make test` installs them."""
    missing = [name for name in (NGINX, APACHE, *files) if not os.path.exists(name)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


class WebServer:
    """A running web server. It is ready once it says so; ``said`` is its error log."""

    def __init__(self, command: list[str], ready: str) -> None:
        self.said: list[str] = []
        self._known = threading.Event()
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        Server.running.add(self._process.pid)  # no left-over of a server that stops meanwhile
        self._reader = threading.Thread(target=self._read, args=(ready,), daemon=True)
        self._reader.start()
        if not (self._known.wait(PATIENCE) and any(ready in line for line in self.said)):
            self.stop()
            raise AssertionError("\n".join(self.said))

    def _read(self, ready: str) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self.said.append(line.rstrip())
                if ready in line:
                    self._known.set()
        self._known.set()

    def stop(self) -> None:
        """End it and everything that it runs; its log ends with the last of them."""
        pid = self._process.pid
        for one in (pid, *living_descendants([pid])):
            with suppress(ProcessLookupError):  # gone by itself
                os.kill(one, signal.SIGKILL)
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        Server.running.remove(pid)


_NGINX = Template("""\
daemon off;
user $user;
pid nginx.pid;
error_log stderr notice;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen 127.0.0.1:$port;
        server_name $host;
$locations
    }
}
""")


def nginx(home: Path, port: int, locations: str) -> WebServer:
    """Debian's nginx with its own ``uwsgi_params`` and these locations; ``home`` is made for its files."""
    home.mkdir()
    shutil.copy("/etc/nginx/uwsgi_params", home)
    file = home / "nginx.conf"
    file.write_text(_NGINX.substitute(user=USER, port=port, host=HOST, locations=locations))
    return WebServer([NGINX, "-p", str(home), "-c", str(file), "-e", "stderr"], "start worker process ")


_MODULES = ("mpm_event", "authz_core", "alias", "env", "mime", "dir", "actions", "cgid")
_APACHE = Template("""\
$modules
$identity
ServerRoot $home
ServerName $host
Listen 127.0.0.1:$port
PidFile apache.pid
ErrorLog /dev/stderr
DefaultRuntimeDir .
ScriptSock cgid.sock
TypesConfig /dev/null
ServerLimit 1
StartServers 1
ThreadsPerChild 8
MaxRequestWorkers 8
MinSpareThreads 1
MaxSpareThreads 8
<Directory />
    Require all granted
    Options ExecCGI FollowSymLinks
</Directory>
$directives
""")


def apache(home: Path, port: int, directives: str) -> WebServer:
    """Debian's Apache with mod_cgid and these directives; ``home`` is made for its files."""
    home.mkdir()
    file = home / "apache.conf"
    file.write_text(
        _APACHE.substitute(
            modules="\n".join(f"LoadModule {n}_module /usr/lib/apache2/modules/mod_{n}.so" for n in _MODULES),
            identity=f"User {USER}\nGroup {USER}" if ROOT else "",
            home=home,
            host=HOST,
            port=port,
            directives=directives,
        )
    )
    return WebServer([APACHE, "-f", str(file), "-DFOREGROUND"], "resuming normal operations")
