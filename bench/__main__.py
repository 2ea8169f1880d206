"""Compare PyEmperor with uWSGI and fcgiwrap: ``python -m bench`` in the root of a checkout."""

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console

from bench.cost import memory, start
from bench.crowd import crowd
from bench.peers import PeerError
from bench.process import Late
from bench.recovery import master, worker
from bench.reload import reloads
from bench.report import conditions, show, write
from bench.result import Plan, Result
from bench.site import OUT, Site
from bench.speed import bodies, latency, throughput, warm

MEASUREMENTS: dict[str, Callable[[Site, Plan], Result]] = {
    "throughput": throughput,
    "latency": latency,
    "warm": warm,
    "worker": worker,
    "master": master,
    "reload": reloads,
    "memory": memory,
    "start": start,
    "bodies": bodies,
    "crowd": crowd,
}
#: What takes long.
ONLY_FULL = ("bodies", "crowd")
QUICK = Plan(rounds=2, wrk_hello=1, wrk_script=1, kills=2, rare_kills=1, idle=5, reloading=8)
PACKAGES = {"nginx": "nginx-light", "uwsgi": "uwsgi-core", "fcgiwrap": "fcgiwrap", "wrk": "wrk", "gcc": "gcc"}


def main() -> int:
    """Run the measurements that were asked for; 1 when PyEmperor or a measurement failed.

    A missed target is shown and not an error: the machine decides about that as well.
    """
    options = parse_arguments()
    console = Console()
    if not console.is_terminal:
        console.width = 150
    if missing := [package for program, package in PACKAGES.items() if shutil.which(program) is None]:
        console.print(f"Missing programs. Please run: apt-get install {' '.join(missing)}")
        return 1
    plan = replace(QUICK if options.quick else Plan(), full=options.full)
    if options.rounds:
        plan = replace(plan, rounds=options.rounds)
    about, began = conditions(plan), time.monotonic()
    with Site() as site:
        complete = try_ours(site, console)
        results: dict[str, Result] = {}
        for name in options.only:
            console.print(f"measuring {name} ...", highlight=False)
            try:
                results[name] = MEASUREMENTS[name](site, plan)
            except (PeerError, Late) as error:
                console.print(f"{name} failed: {error}", style="red", markup=False)
                complete = False
    show(console, results, about)
    written = write(OUT, results, about)
    console.print(f"{time.monotonic() - began:.0f} s; written to bench/out: {written}", highlight=False)
    return 0 if complete else 1


def try_ours(site: Site, console: Console) -> bool:
    """Start PyEmperor once; when it fails say so and leave it out, the peers are measured all the same."""
    try:
        site.pyemperor.start()
        code = site.pyemperor.stop()
    except PeerError as error:
        console.print("PyEmperor is left out of everything below, because:", style="bold red")
        console.print(str(error), style="red", markup=False)
        site.leave_out(site.pyemperor)
        return False
    if code != 0:
        console.print(f"PyEmperor stopped with exit status {code} instead of 0", style="bold red")
    return code == 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=0, metavar="N", help="rounds of each measurement (5)")
    parser.add_argument("--quick", action="store_true", help="a fifth of the time, to see that it works")
    parser.add_argument("--full", action="store_true", help="also 1 GB bodies, 1000 vassals, cold Python")
    parser.add_argument("--only", metavar="NAME,...", help=f"some of: {', '.join(MEASUREMENTS)}")
    options = parser.parse_args()
    default = [name for name in MEASUREMENTS if name not in ONLY_FULL or options.full]
    options.only = options.only.split(",") if options.only else default
    if unknown := set(options.only) - set(MEASUREMENTS):
        parser.error(f"unknown measurement {', '.join(sorted(unknown))}; there are {', '.join(MEASUREMENTS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
