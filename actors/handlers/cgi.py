"""``modifier1`` 9: finds the CGI script that a request means (RFC 3875 §3), and says how to run it."""

import os
import shutil
import stat
import string
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

import msgspec

from pyemperor import __version__
from pyemperor.actors.confinement import Confinement
from pyemperor.actors.refusals import no_locks
from pyemperor.actors.resolution import Place, Resolver
from pyemperor.actors.script import Script, Terms
from pyemperor.actors.slots import Slot, Slots
from pyemperor.actors.wires import Request
from pyemperor.protocol.cgi import (
    base_environment,
    match_mount,
    request_path,
    script_environment,
    search_words,
)
from pyemperor.protocol.cgi_response import error_response
from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.options import Helper, Vassal


def handler(vassal: Vassal) -> Callable[[Request], Script | bytes]:
    """What the mounts of ``vassal`` make of a request."""
    return _Cgi(vassal)


class _Mounted(msgspec.Struct, frozen=True):
    """A mount, served: ``slots`` bound the requests at a time, if anything does."""

    root: bytes
    slots: Slots | None
    warm: bool


class _Cgi:
    def __init__(self, vassal: Vassal) -> None:
        self._options = vassal
        self._from_docroot = vassal.cgi_from_docroot
        self._mounts = {
            mount.prefix.rstrip("/").encode(): _mounted(vassal, mount.prefix, os.fsencode(mount.path))
            for mount in vassal.cgi
        }
        self._resolver = Resolver(
            vassal.cgi_symlinks, tuple(map(os.fsencode, vassal.cgi_safe)), examine=not vassal.cgi_dontresolve
        )
        self._index = [os.fsencode(name) for name in vassal.cgi_index]
        self._extensions = tuple(map(os.fsencode, vassal.cgi_allowed_ext))
        self._allowed = frozenset(name.encode() for name in vassal.cgi_allowed_env)
        self._unset = tuple(name.encode() for name in vassal.cgi_unset)
        self._base = base_environment(dict(vassal.env), server_software=f"PyEmperor/{__version__}")
        path = os.fsdecode(self._base[b"PATH"])
        self._helpers = [(helper.ext.encode(), _command(helper, path)) for helper in vassal.cgi_helper]
        self._confinement = Confinement(vassal)
        self._terms = _terms(vassal)

    def __call__(self, request: Request) -> Script | bytes:
        path = request_path(request.variables)
        prefix, mount = self._mount(path, request)
        place = self._find(mount.root, path[len(prefix) :])
        script_name = prefix + place.script
        file = mount.root + place.script
        if len(script_name) > len(path) and script_name == path + file[file.rindex(b"/") :]:
            return _with_slash(path, request.variables.get(b"QUERY_STRING", b""))
        self._check_extension(file)
        return self._run(request, mount, place, script_name, file)

    # ---- where it is ------------------------------------------------------------------------------------

    def _mount(self, path: bytes, request: Request) -> tuple[bytes, _Mounted]:
        """The mount that ``path`` lies under, and its prefix."""
        if self._from_docroot:
            root = request.variables.get(b"DOCUMENT_ROOT", b"")
            if not root.startswith(b"/"):
                remedy = "`cgi-from-docroot` needs nginx's `uwsgi_param DOCUMENT_ROOT $document_root;`"
                raise RequestError("no script here", status=404, remedy=remedy)
            return b"", _mounted(self._options, "", root)
        prefix = match_mount(path, self._mounts)
        if prefix is None:
            known = ", ".join(m.decode() or "/" for m in self._mounts)
            raise RequestError(
                "no script here", status=404, remedy=f"the vassal's `cgi` option mounts {known}"
            )
        return prefix, self._mounts[prefix]

    def _find(self, root: bytes, path: bytes) -> Place:
        """The script; for a folder, its index."""
        place = self._resolver.find(root, path)
        if place is not None and stat.S_ISREG(place.found.st_mode):
            return place
        if place is not None and stat.S_ISDIR(place.found.st_mode) and place.rest in (b"", b"/"):
            for name in self._index:
                index = self._resolver.find(root, place.script + b"/" + name)
                if index is not None and stat.S_ISREG(index.found.st_mode) and not index.rest:
                    return index
        raise RequestError("no such script", status=404, remedy=f"looked for {os.fsdecode(root + path)}")

    def _check_extension(self, file: bytes) -> None:
        if self._extensions and not file.endswith(self._extensions):
            allowed = ", ".join(map(os.fsdecode, self._extensions))
            remedy = f"the vassal's `cgi-allowed-ext` allows {allowed}"
            raise RequestError("scripts with this ending are not run", status=403, remedy=remedy)

    # ---- how it runs ------------------------------------------------------------------------------------

    def _run(self, request: Request, mount: _Mounted, place: Place, script_name: bytes, file: bytes) -> Script:
        options = self._options
        environment = script_environment(
            request.variables,
            self._base,
            script_name=script_name,
            path_info=place.rest,
            script_filename=file,
            document_root=mount.root or b"/",
            pass_auth=options.cgi_pass_auth,
            allowed=self._allowed,
            unset=self._unset,
        )
        helper = next((argv for ext, argv in self._helpers if file.endswith(ext)), ())
        words = search_words(request.variables) if options.cgi_search_words and not helper else ()
        before = self._confinement.before(mount.root, place, helped=bool(helper))
        arguments = (*before, *helper, file, *words)
        return Script(
            arguments[0],
            arguments,
            environment,
            file[: file.rindex(b"/")].rstrip(b"/") or b"/",
            script_name.decode("utf-8", "backslashreplace"),
            self._terms,
            mount.warm and not before and not helper,
            _taken(mount.slots),
        )


def _terms(vassal: Vassal) -> Terms:
    return Terms(
        vassal.cgi_timeout,
        first_byte=vassal.cgi_first_byte_timeout,
        total=min(filter(None, (vassal.cgi_total_timeout, vassal.harakiri)), default=0.0),
        head_limit=vassal.cgi_buffer_size,
        redirect=vassal.cgi_local_redirect,
        persistent=vassal.cgi_do_not_kill_on_error,
        session=vassal.cgi_new_session or vassal.cgi_run_as_owner,
        farewell=vassal.harakiri_graceful_signal,
        grace=vassal.harakiri_graceful_timeout,
        explain=vassal.harakiri_verbose,
    )


def _mounted(vassal: Vassal, prefix: str, root: bytes) -> _Mounted:
    root = root.rstrip(b"/")
    most = _for_mount(vassal.cgi_concurrency, prefix)
    key = b"\0".join((vassal.name.encode(), prefix.encode(), root))
    return _Mounted(root, Slots(key, most) if most else None, bool(_for_mount(vassal.cgi_warm, prefix)))


def _for_mount(values: Iterable[tuple[str | None, Any]], prefix: str) -> Any:
    """The value for this mount, else the one for every mount; of several the last."""
    given = dict(values)
    return given.get(prefix, given.get(None))


def _command(helper: Helper, path: str) -> tuple[bytes, ...]:
    """The command of ``helper``; a name without a slash is looked up where the scripts would find it."""
    program = shutil.which(helper.argv[0], path=path) or helper.argv[0]
    return tuple(map(os.fsencode, (program, *helper.argv[1:])))


def _taken(slots: Slots | None) -> Slot | None:
    """A slot for this request; the runner gives it back."""
    if slots is None:
        return None
    try:
        slot = slots.take()
    except OSError as error:
        raise no_locks(slots.folder, error) from None
    if slot is None:
        remedy = "as many requests as `cgi-concurrency` allows are being served"
        raise RequestError("too many requests at a time", status=503, remedy=remedy)
    return slot


def _with_slash(path: bytes, query: bytes) -> bytes:
    """The answer that sends the client to a folder's URL: relative links in the index start from there."""
    # One slash at the start: two would lead to another host. Nothing in the query can end the header field.
    location = quote(b"/" + path.lstrip(b"/") + b"/", safe="/:@!$&'()*+,;=~")
    if query:
        location += "?" + quote(query, safe=string.punctuation)
    return error_response(301, f"see {location}", headers=((b"Location", location.encode()),))
