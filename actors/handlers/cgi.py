"""``modifier1`` 9: finds the CGI script that a request means (RFC 3875 §3), and says how to run it."""

import errno
import os
import shutil
import stat
import string
from collections.abc import Callable
from urllib.parse import quote

from pyemperor import __version__
from pyemperor.actors.script import Script
from pyemperor.actors.wires import Request
from pyemperor.protocol.cgi import (
    base_environment,
    match_mount,
    request_path,
    script_candidates,
    script_environment,
)
from pyemperor.protocol.cgi_response import error_response
from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.options import Helper, Vassal


def handler(vassal: Vassal) -> Callable[[Request], Script | bytes]:
    """What the mounts of ``vassal`` make of a request."""
    return _Cgi(vassal)


class _Cgi:
    def __init__(self, vassal: Vassal) -> None:
        self._mounts = {mount.prefix.rstrip("/").encode(): os.fsencode(mount.path) for mount in vassal.cgi}
        self._index = [name.encode() for name in vassal.cgi_index]
        self._extensions = tuple(ext.encode() for ext in vassal.cgi_allowed_ext)
        self._timeout = vassal.cgi_timeout
        self._pass_auth = vassal.cgi_pass_auth
        self._base = base_environment(dict(vassal.env), server_software=f"PyEmperor/{__version__}")
        self._helpers = [(helper.ext.encode(), self._program(helper)) for helper in vassal.cgi_helper]

    def _program(self, helper: Helper) -> tuple[bytes, ...]:
        """The command of ``helper``; a name without a slash is looked up where the scripts would find it."""
        program = shutil.which(helper.argv[0], path=os.fsdecode(self._base[b"PATH"])) or helper.argv[0]
        return tuple(map(os.fsencode, (program, *helper.argv[1:])))

    def __call__(self, request: Request) -> Script | bytes:
        path = request_path(request.variables)
        mount = match_mount(path, self._mounts)
        if mount is None:
            known = ", ".join(m.decode() or "/" for m in self._mounts)
            raise RequestError(
                "no script here", status=404, remedy=f"the vassal's `cgi` option mounts {known}"
            )
        root = self._mounts[mount]
        file, script_name, path_info = self._find(root, mount, path[len(mount) :])
        if script_name == path + b"/" + os.path.basename(file):
            return _with_slash(path, request.variables.get(b"QUERY_STRING", b""))
        self._check_extension(file)
        environment = script_environment(
            request.variables,
            self._base,
            script_name=script_name,
            path_info=path_info,
            script_filename=file,
            document_root=root,
            pass_auth=self._pass_auth,
        )
        program = next((argv for ext, argv in self._helpers if file.endswith(ext)), ())
        arguments = (*program, file)
        name = script_name.decode("utf-8", "backslashreplace")
        return Script(arguments[0], arguments, environment, os.path.dirname(file), name, self._timeout)

    def _find(self, root: bytes, mount: bytes, path: bytes) -> tuple[bytes, bytes, bytes]:
        """The script's file, its SCRIPT_NAME, and the PATH_INFO behind it: the first that is no directory."""
        for script, rest in script_candidates(path):
            file = root + script
            try:
                # The mount itself may be a link; what is in it may not lead out of it.
                found = os.lstat(file) if script else os.stat(file)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
                    break
                raise RequestError("no access to this script", status=403, remedy=_said(file, error)) from None
            if stat.S_ISLNK(found.st_mode):
                found = self._followed(root, file)
            if stat.S_ISREG(found.st_mode):
                return file, mount + script, rest
            if rest in (b"", b"/") and (index := self._index_of(root, file)):
                return index, mount + script + b"/" + os.path.basename(index), b""
        raise RequestError("no such script", status=404, remedy=f"looked for {os.fsdecode(root + path)}")

    def _followed(self, root: bytes, file: bytes) -> os.stat_result:
        """What a link leads to; one that leaves the mount is refused (a mount may itself be a link)."""
        target = os.path.realpath(file)
        real_root = os.path.realpath(root)
        if target != real_root and not target.startswith(real_root.rstrip(b"/") + b"/"):
            raise RequestError(
                "this script is a link out of its folder",
                status=403,
                remedy=f"{os.fsdecode(file)} leads to {os.fsdecode(target)}: mount that file, or copy it",
            )
        try:
            return os.stat(target)
        except OSError as error:
            raise RequestError("no such script", status=404, remedy=_said(target, error)) from None

    def _index_of(self, root: bytes, directory: bytes) -> bytes | None:
        for name in self._index:
            file = directory.rstrip(b"/") + b"/" + name
            if os.path.isfile(file):
                self._followed(root, file)
                return file
        return None

    def _check_extension(self, file: bytes) -> None:
        if self._extensions and not file.endswith(self._extensions):
            allowed = ", ".join(ext.decode() for ext in self._extensions)
            remedy = f"the vassal's `cgi-allowed-ext` allows {allowed}"
            raise RequestError("scripts with this ending are not run", status=403, remedy=remedy)


def _said(file: bytes, error: OSError) -> str:
    return f"{os.fsdecode(file)}: {error.strerror}"


def _with_slash(path: bytes, query: bytes) -> bytes:
    """The answer that sends the client to a folder's URL: relative links in the index start from there."""
    # One slash at the start: two would lead to another host. Nothing in the query can end the header field.
    location = quote(b"/" + path.lstrip(b"/") + b"/", safe="/:@!$&'()*+,;=~")
    if query:
        location += "?" + quote(query, safe=string.punctuation)
    return error_response(301, f"see {location}", headers=((b"Location", location.encode()),))
