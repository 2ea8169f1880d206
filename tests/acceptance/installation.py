"""A recipe of docs/recipes.md, installed: PyEmperor behind nginx, and Apache's mod_cgid beside it to compare with.

The folders ``/srv`` and ``/run/pyemperor`` of the page lie in a folder of the test. All else is as written.
"""

import http.client
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path

from tests.acceptance.servers import HOST, ROOT, USER, apache, nginx
from tests.support import PATIENCE, Server, free_port, serving

_RECIPES = Path(__file__).parents[2] / "docs" / "recipes.md"

#: The body of a request; one of several parts goes out in chunks.
Body = bytes | tuple[bytes, ...] | None
Headers = Mapping[str, str]
_NO_HEADERS: Headers = {}
#: About a connection or a server, not about the answer.
_OF_THE_SERVER = ("connection", "content-length", "date", "keep-alive", "server", "transfer-encoding")
_DATE = re.compile(r"\w{3}, \d{1,2} \w{3} \d{4} [\d:]{8} (?:\+0000|GMT)")


@dataclass(frozen=True)
class Answer:
    """What a client gets. ``fields``: header fields, names in lower case."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes = field(repr=False)

    def all(self, name: str) -> list[str]:
        """The values of a header field."""
        return [value for found, value in self.fields if found == name]

    def one(self, name: str) -> str:
        """The value of a header field that is there once."""
        (value,) = self.all(name)
        return value

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def essence(self) -> tuple[int, dict[str, str]]:
        """Status and those header fields that say something about the answer.

        Two things that Apache rewrites count by their meaning: repeated fields, which it joins (RFC 9110 §5.2),
        and the dates that scripts write in the form of RFC 822.
        """
        said: dict[str, str] = {}
        for name, value in self.fields:
            if name not in _OF_THE_SERVER:
                said[name] = f"{said[name]}, {value}" if name in said else value
        return self.status, {name: _DATE.sub(_instant, value) for name, value in said.items()}

    @property
    def timeless(self) -> tuple[int, dict[str, str]]:
        """The essence without what says when the answer was made."""
        status, fields = self.essence
        return status, {n: value for n, value in fields.items() if n not in ("last-modified", "expires")}


def _instant(date: re.Match[str]) -> str:
    return str(parsedate_to_datetime(date[0]).timestamp())


def upload(name: str, content: bytes) -> tuple[bytes, Headers]:
    """A form with a title and a file: the body of its request, and the header field for it."""
    part = "--BB\r\nContent-Disposition: form-data; name="
    title = f'{part}"title"\r\n\r\nx\r\n'
    file = f'{part}"file"; filename="{name}"\r\nContent-Type: image/x\r\n\r\n'
    body = f"{title}{file}".encode() + content + b"\r\n--BB--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=BB"}


@dataclass(frozen=True)
class Installation:
    """A recipe at work. ``srv`` is the page's ``/srv``."""

    server: Server
    srv: Path
    nginx_port: int
    apache_port: int

    @property
    def url(self) -> str:
        """Of nginx."""
        return f"http://127.0.0.1:{self.nginx_port}"

    def fetch(
        self, path: str, body: Body = None, headers: Headers = _NO_HEADERS, *, method: str = "", port: int = 0
    ) -> Answer:
        """One request, to nginx unless ``port`` is another's."""
        chunked = isinstance(body, tuple)
        fields = {"Host": HOST, **headers, **({"Transfer-Encoding": "chunked"} if chunked else {})}
        verb = method or ("GET" if body is None else "POST")
        client = http.client.HTTPConnection("127.0.0.1", port or self.nginx_port, timeout=PATIENCE)
        try:
            client.request(verb, path, body, fields, encode_chunked=chunked)
            response = client.getresponse()
            found = [(name.lower(), value) for name, value in response.getheaders()]
            return Answer(response.status, found, response.read())
        finally:
            client.close()

    def both(
        self, path: str, body: Body = None, headers: Headers = _NO_HEADERS, *, method: str = ""
    ) -> tuple[Answer, Answer]:
        """The answers of nginx and of Apache."""
        ours = self.fetch(path, body, headers, method=method)
        return ours, self.fetch(path, body, headers, method=method, port=self.apache_port)

    def same(
        self, path: str, body: Body = None, headers: Headers = _NO_HEADERS, *, method: str = ""
    ) -> Answer:
        """The answer of nginx, which must be Apache's: status, header fields, and every byte of the body."""
        ours, theirs = self.both(path, body, headers, method=method)
        assert ours.essence == theirs.essence, f"{ours.essence}\nApache: {theirs.essence}"
        assert ours.body == theirs.body, f"{ours.body[:2000]!r}\nApache: {theirs.body[:2000]!r}"
        return ours

    def own(self, folder: Path) -> None:
        """Give a folder and all that is in it to the vassal's user."""
        if ROOT:
            for path in (folder, *folder.rglob("*")):
                shutil.chown(path, USER, USER)


# ---- installing ---------------------------------------------------------------------------------------------


def recipe(heading: str) -> dict[str, str]:
    """The blocks of a recipe by their language: toml, nginx, and that of a configuration file."""
    _, found, rest = _RECIPES.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    assert found, f"docs/recipes.md has no recipe {heading}"
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", rest.partition("\n## ")[0], re.DOTALL | re.MULTILINE)
    return dict(blocks)


def placed(text: str, folder: Path) -> str:
    """``text`` with the folders of the page where they are for this test."""
    return re.sub(r"(?<![\w/])/(?=srv/|run/pyemperor/)", f"{folder}/", text)


@contextmanager
def installed(heading: str, directives: str, files: Mapping[str, str]) -> Iterator[Installation]:
    """Install the recipe ``heading``, and Apache with ``directives`` for the same.

    ``files``: names below ``/srv``, and the language of the block that is to stand there.
    """
    # Not in pytest's folder, which nobody but its user may enter.
    with tempfile.TemporaryDirectory(prefix="pyemperor-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "srv").mkdir()
        (folder / "run" / "pyemperor").mkdir(parents=True)
        blocks = {language: placed(text, folder) for language, text in recipe(heading).items()}
        for file, language in files.items():
            target = folder / "srv" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(blocks[language])
        vassal = blocks["toml"]
        if not ROOT:
            vassal = re.sub(r"^(uid|gid|chown-socket) = .*\n", "", vassal, flags=re.MULTILINE)
        ports = free_port(), free_port()
        with serving(folder, vassal) as server:
            front = nginx(folder / "nginx", ports[0], blocks["nginx"])
            try:
                rival = apache(folder / "apache", ports[1], placed(directives, folder))
                try:
                    yield Installation(server, folder / "srv", *ports)
                finally:
                    rival.stop()
                    shutil.rmtree(folder / "apache")  # and its socket
            finally:
                front.stop()
        serious = re.compile(r"\[(error|crit|alert|emerg)\](?!.* password mismatch)")
        complaints = "\n".join(filter(serious.search, front.said))
        assert not complaints, f"nginx said:\n{complaints}"
