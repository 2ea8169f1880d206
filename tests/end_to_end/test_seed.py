"""The user's three files that started it all, unchanged and at their paths.

They name paths of the system and a user of its own. So this runs as root in a mount namespace, where /etc, /run,
/usr/local and /var/log are the test's alone.
"""

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2]
SEED = HOUSE / "tests" / "seed"
TOOLS = ("unshare", "nginx", "curl", "ip")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run it as www-data"),
    pytest.mark.skipif(any(shutil.which(tool) is None for tool in TOOLS), reason=f"needs {', '.join(TOOLS)}"),
]

#: Arguments: a folder for the changed files, the seed's folder, then the command that runs PyEmperor.
INSIDE = r"""
set -eu
trap 'code=$?; [ $code = 0 ] || cat /var/log/uwsgi_emperor.log >&2; exit $code' EXIT
own=$1 seed=$2; shift 2
for folder in /etc /usr/local; do
    mkdir -p "$own$folder/upper" "$own$folder/work"
    mount -t overlay overlay -o "lowerdir=$folder,upperdir=$own$folder/upper,workdir=$own$folder/work" $folder
done
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
scripts=/usr/local/nginx/vhosts/testdomain/cgi-bin
mkdir -p /etc/uwsgi/vassals $scripts /usr/local/nginx/logs /run/nginx
chown www-data /usr/local/nginx/logs /run/nginx
cp "$seed/emperor.ini" /etc/uwsgi/
cp "$seed/testdomain_cgi-bin.ini" /etc/uwsgi/vassals/
cat >$scripts/who.cgi <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\n\n%s serves %s in %s\n' "$(id -un)" "$SCRIPT_NAME" "$PWD"
END
chmod 755 $scripts/who.cgi
cat >/run/nginx.conf <<END
user root;
error_log /run/error.log;
pid /run/nginx.pid;
events {}
http { access_log off; server { listen 127.0.0.1:8000; include $seed/nginx-location.conf; } }
END
ip link set lo up
cp /etc/nginx/uwsgi_params /run/
"$@" run /etc/uwsgi/emperor.ini
timeout 20 tail -n +1 -F /var/log/uwsgi_emperor.log | grep -m 1 'ready to accept requests'
nginx -c /run/nginx.conf
curl -sS -m 10 http://127.0.0.1:8000/cgi-bin/who.cgi
curl -sS -m 10 -o /dev/null -w '%{http_code}\n' http://127.0.0.1:8000/cgi-bin/missing.cgi
"$@" status
echo "users $(ps -o user= -p "$(cat /var/run/uwsgi/emperor.pid)")"
grep -c loyal /var/log/uwsgi_emperor.log
grep -c 'GET /cgi-bin/who.cgi => generated' /usr/local/nginx/logs/uwsgi_testdomain_cgi-bin.log
"$@" stop
ls /run/nginx /var/run/uwsgi
nginx -c /run/nginx.conf -s quit
"""


def commands() -> list[list[str]]:
    """How www-data could run PyEmperor: its Python may be in a folder that only root may enter."""
    path = ":".join([str(HOUSE), *site.getsitepackages()])
    return [
        [sys.executable, "-m", "pyemperor.cli.main"],
        ["/usr/bin/env", f"PYTHONPATH={path}", "/usr/bin/python3", "-m", "pyemperor.cli.main"],
    ]


def of_www_data() -> list[str]:
    """The first of them that works; skips the test when none does."""
    for command in commands():
        asked = [*command, "--version"]
        try:
            subprocess.run(asked, capture_output=True, cwd="/", check=True, user="www-data", group="www-data")
        except (OSError, subprocess.CalledProcessError):
            continue
        return command
    pytest.skip("www-data may not read this checkout, or no Python that it may run")


def test_the_seed_runs_unchanged(tmp_path: Path) -> None:
    """Identity, pidfile, daemon, vassal, nginx's location, loyalty, logs, and nothing left behind."""
    tmp_path.chmod(0o755)
    namespace = ["unshare", "--mount", "--net", "--propagation", "private", "/bin/sh", "-c", INSIDE, "seed"]
    result = subprocess.run(
        [*namespace, str(tmp_path), str(SEED), *of_www_data()],
        capture_output=True, text=True, timeout=50, check=False, cwd="/",
    )  # fmt: skip
    if "overlay" in result.stderr and "mount" in result.stderr:
        pytest.skip(f"no overlay here: {result.stderr.strip()}")
    assert result.returncode == 0, result.stdout + result.stderr
    said = result.stdout.splitlines()
    scripts = "/usr/local/nginx/vhosts/testdomain/cgi-bin"
    assert f"www-data serves /cgi-bin/who.cgi in {scripts}" in said
    assert "404" in said
    assert any(line.startswith("testdomain_cgi-bin") and " READY " in line for line in said)
    assert "users www-data" in said
    assert said.count("1") == 2, said
    assert said[-1].endswith("with it") or "gone" in "".join(said)
