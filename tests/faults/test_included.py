"""Files that a vassal's configuration includes: a change of one is a change of every vassal that reads it."""

import os
from pathlib import Path

import pytest

from tests.faults.rig import Serve, Server

FOLDER = 'emperor = ["vassals"]\nemperor-freq = "1000s"\n'
TEXT = """\
[uwsgi]
http-socket = ../{name}.http
cgi = /cgi=../cgi
disable-logging = true
{more}
"""
ENV = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s' \"$WORD\"\n"


@pytest.fixture
def vassals(folder: Path) -> Path:
    """The folder of vassal files."""
    (folder / "vassals").mkdir()
    (folder / "shared").mkdir()
    (folder / "cgi" / "env.cgi").write_text(ENV)
    (folder / "cgi" / "env.cgi").chmod(0o755)
    return folder / "vassals"


def write(vassals: Path, more: str, name: str = "app") -> Path:
    file = vassals / f"{name}.ini"
    file.write_text(TEXT.format(name=name, more=more))
    return file


def include(vassals: Path, word: str, name: str = "base.ini") -> Path:
    """Put the included file into its folder, which nobody watches, in one step."""
    new = vassals.parent / "shared" / "new"
    new.write_text(f"[uwsgi]\nenv = WORD={word}\n")
    return new.rename(new.with_name(name))


def says(server: Server, vassal: str = "app") -> str:
    status, body = server.get("env.cgi", vassal)
    assert status == 200
    return body


def start(serve: Serve, *names: str, more: str = "") -> Server:
    server = serve({"still": ""}, FOLDER + more)
    server.ready("master:still", *(f"master:{name}" for name in names))
    return server


def reloaded(server: Server, vassal: str = "app") -> None:
    """Wait until the new generation serves alone."""
    server.until(actor=f"master:{vassal}", event="reloaded")
    server.until(actor=f"master:{vassal}", event="exit")


def test_an_edit_reloads_who_reads_it_and_nobody_else(serve: Serve, vassals: Path) -> None:
    include(vassals, "one")
    for name in ("app", "other"):
        write(vassals, "include = ../shared/base.ini", name)
    write(vassals, "env = WORD=own", "alone")
    server = start(serve, "app", "other", "alone")
    alone = server.pid("master:alone")
    assert says(server) == says(server, "other") == "one"
    server.mark()
    include(vassals, "two")
    for name in ("app", "other"):
        reloaded(server, name)
        assert says(server, name) == "two"
    assert not server.since(actor="master:alone")
    assert server.pid("master:alone") == alone
    server.mark()
    server.watch(2.5)
    assert not server.since(event="reload"), "it is read once"
    assert server.stop() == 0


def test_an_edit_that_only_its_content_shows_counts(serve: Serve, vassals: Path) -> None:
    file = include(vassals, "one")
    write(vassals, "inherit = ../shared/base.ini")
    server = start(serve, "app")
    found = file.stat()
    with file.open("r+") as same:
        same.write(file.read_text().replace("one", "two"))
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    reloaded(server)
    assert says(server) == "two"
    assert server.stop() == 0


def test_one_within_another_that_was_missing_is_found_when_it_appears(serve: Serve, vassals: Path) -> None:
    (vassals.parent / "shared" / "outer.ini").write_text("[uwsgi]\ninclude = ../shared/inner.ini\n")
    write(vassals, "include = ../shared/outer.ini")
    server = start(serve)
    server.until(lambda entry: "inner.ini cannot be read" in entry["message"], event="refused")
    include(vassals, "found", "inner.ini")
    server.ready("master:app")
    assert says(server) == "found"
    server.mark()
    (vassals.parent / "shared" / "inner.ini").unlink()
    server.until(lambda entry: "keeps its old configuration" in entry["message"], event="refused")
    assert says(server) == "found"
    server.mark()
    include(vassals, "again", "inner.ini")
    reloaded(server)
    assert says(server) == "again"
    assert server.stop() == 0


def test_what_the_emperor_includes_is_watched_too(serve: Serve, vassals: Path) -> None:
    include(vassals, "one")
    write(vassals, "")
    server = start(serve, "app", more='vassals-include = ["shared/base.ini"]\n')
    include(vassals, "two")
    reloaded(server)
    assert says(server) == "two"
    assert server.stop() == 0


def test_one_that_is_not_included_any_more_is_let_alone(serve: Serve, vassals: Path) -> None:
    include(vassals, "one")
    write(vassals, "include = ../shared/base.ini")
    server = start(serve, "app")
    write(vassals, "env = WORD=own")
    reloaded(server)
    server.mark()
    include(vassals, "two")
    server.watch(2.5)
    assert not server.since(event="reload")
    assert says(server) == "own"
    assert server.stop() == 0


def test_what_never_ends_or_is_too_long_is_refused_and_hangs_nobody(serve: Serve, vassals: Path) -> None:
    os.mkfifo(vassals.parent / "shared" / "fifo.ini")
    with (vassals.parent / "shared" / "long.ini").open("wb") as file:
        file.truncate(1 << 40)
    for name in ("fifo", "long"):
        write(vassals, f"include = ../shared/{name}.ini", name)
    server = start(serve)
    server.until(lambda entry: "it is no regular file" in entry["message"], actor="master:fifo")
    server.until(lambda entry: "it is larger than 256 KiB" in entry["message"], actor="master:long")
    write(vassals, "env = WORD=own")
    server.ready("master:app")
    assert says(server) == "own"
    assert server.stop() == 0
