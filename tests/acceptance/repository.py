"""A git repository to serve: the same commits, names and dates every time."""

import os
import random
import subprocess
from pathlib import Path

#: git without the settings of whoever runs the tests, with a fixed author and time.
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    # The repositories of a site are its vassal's user's; the tests look into them as whoever they are.
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    **{f"GIT_{who}_{what}": value
       for who in ("AUTHOR", "COMMITTER")
       for what, value in (("NAME", "Ada"), ("EMAIL", "ada@example.org"), ("DATE", "2001-02-03T04:05:06Z"))},
}


def git(folder: Path, *arguments: str, stdin: bytes | None = None, **environment: str) -> str:
    """Run git; what it prints."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        env=ENVIRONMENT | environment,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr.decode(errors='replace')[-2000:]}"
    return done.stdout.decode().strip()


def picture_bytes() -> bytes:
    """What the file ``picture`` has in it: 300 kB that do not compress."""
    return random.Random(1).randbytes(300_000)


def make_bare(folder: Path) -> None:
    """A bare repository with a few commits on ``main``, a tag, and a large file ``picture``."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main")
    (folder / "description").write_text("The town of Ada")
    picture = picture_bytes()
    author = b"Ada <ada@example.org> 981173106 +0000"
    stream = b"".join(
        b"commit refs/heads/main\ncommitter %s\ndata %d\n%s" % (author, len(message), message) + changes
        for message, changes in (
            (b"the first\n", b"M 644 inline README\ndata 6\nhello\n\n"),
            (b"a picture\n", b"M 644 inline picture\ndata %d\n%s\n" % (len(picture), picture)),
            (b"caf\xc3\xa9\n", "M 644 inline folder/café.txt\ndata 8\n<caf\u00e9>\n\n".encode()),
        )
    )
    git(folder, "fast-import", "--quiet", stdin=stream)
    git(folder, "tag", "v1", "main")
