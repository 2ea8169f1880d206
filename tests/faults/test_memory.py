"""What a process of the tree costs in memory that it shares with nobody."""

from pathlib import Path

from tests.faults.rig import Serve

#: MB (10^6 bytes). Measured are 4.5 for masters and 5.6 for workers that have served (5.3 and 6.0 by a cold fork
#: server). A library that each of them imports anew, asyncio for one, is several MB more.
BOUND = 6.8


def private(pid: int) -> float:
    """Memory of a process that is its own: what it has written to since it was forked."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError("no Private_Dirty in smaps_rollup")


def test_masters_and_workers_share_what_they_do_not_write_to(serve: Serve) -> None:
    server = serve({"app": "processes = 2\nthreads = 2"})
    server.ready("master:app")
    for _ in range(20):
        assert server.get("hello.cgi")[0] == 200
    sizes = {name: private(server.pid(name)) for name in ("master:app", "worker:app/1", "worker:app/2")}
    assert max(sizes.values()) < BOUND, sizes
    assert server.stop() == 0
