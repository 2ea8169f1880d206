"""What the reader gets: a table, the notes, a JSON file and a picture."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.result import FCGIWRAP, OURS, PEERS, UWSGI, Plan, Result, Row, Target

_TITLES = {OURS: "PyEmperor", UWSGI: "uWSGI", FCGIWRAP: "fcgiwrap"}


def conditions(plan: Plan) -> dict[str, Any]:
    """Describe the machine, the versions and the plan: figures mean nothing without them."""
    return {
        "plan": asdict(plan),
        "cores": os.cpu_count(),
        "load before": os.getloadavg()[0],
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "uwsgi": _first_line("uwsgi", "--version"),
        "fcgiwrap": _first_line("dpkg-query", "-W", "-f", "${Version}", "fcgiwrap"),
        "nginx": _first_line("nginx", "-v"),
        "wrk": _first_line("wrk", "-v"),
    }


def _first_line(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "unknown"
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.strip().partition("\n")[0]


def show(console: Console, results: Mapping[str, Result], about: Mapping[str, Any]) -> None:
    """Print the table of all rows, the notes, and how it was measured."""
    table = Table(title="Medians; ratios are PyEmperor's figure over the peer's")
    table.add_column("what")
    for heading in (*_TITLES.values(), "/ uWSGI", "/ fcgiwrap"):
        table.add_column(heading, justify="right")
    table.add_column("target")
    for result in results.values():
        for row in result.rows:
            table.add_row(*_cells(row))
        table.add_section()
    console.print(table)
    for name, result in results.items():
        for note in result.notes:
            console.print(f"{name}: {note}", highlight=False, markup=False)
    console.print(how(about), highlight=False, markup=False)
    if about["load before"] > 0.25 * about["cores"]:
        console.print("The machine was not idle before the run: only a rehearsal.", style="yellow")


def how(about: Mapping[str, Any]) -> str:
    """Say in words how it was measured."""
    plan = about["plan"]
    return (
        f"{about['cores']} cores, {about['kernel']}, load {about['load before']:.2f} before; "
        f"Python {about['python']}, uWSGI {about['uwsgi']}, fcgiwrap {about['fcgiwrap']}, {about['nginx']}.\n"
        f"One nginx (1 worker) in front of all, 4 slots each, heartbeats every 10 s; wrk -t1 -c8. "
        "Request logs are off everywhere. "
        f"{plan['rounds']} rounds, the peers in turn inside each, ratios taken inside a round; "
        f"{plan['kills']} kills; {plan['idle']:g} s idle.\n"
        "PyEmperor ran with stable-after = 1s, so that every kill hit a child of good standing, "
        "whose first restart is immediate."
    )


def _cells(row: Row) -> list[str]:
    medians = [_figure(row, peer) for peer in PEERS]
    ratios = [_ratio(row, peer) for peer in (UWSGI, FCGIWRAP)]
    return [row.name, *medians, *ratios, "\n".join(_target(row, target) for target in row.targets)]


def _figure(row: Row, peer: str) -> str:
    """Return the median, and the largest of samples that may lie far apart: those of kills."""
    middle = row.median(peer)
    if middle is None:
        return "-"
    samples = row.samples[peer]
    worst = f" (max {_number(max(samples))})" if len(samples) > 1 and not row.in_turn else ""
    return f"{_number(middle)} {row.unit}{worst}".strip()


def _number(value: float) -> str:
    return f"{value:.{0 if value >= 100 else 2}f}"


def _ratio(row: Row, peer: str) -> str:
    ratios = row.ratios(peer)
    if not ratios:
        return ""
    spread = f" [{min(ratios):.2f}..{max(ratios):.2f}]" if len(ratios) > 1 else ""
    return f"{row.ratio(peer):.2f}{spread}".replace("[", "\\[")


def _target(row: Row, target: Target) -> str:
    bound = f"{'≥' if target.at_least else '≤'} {target.limit:g}"
    bound += f" x {_TITLES[target.against]}" if target.against else f" {row.unit}"
    verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: "not measured"}[row.verdict(target)]
    return f"{bound.strip()}  {verdict}"


def write(folder: Path, results: Mapping[str, Result], about: Mapping[str, Any]) -> str:
    """Write ``result.json`` and ``ratios.png``; the value says which, and why there is no picture."""
    folder.mkdir(exist_ok=True)
    _write_json(folder / "result.json", results, about)
    picture = folder / "ratios.png"
    picture.unlink(missing_ok=True)  # another run's would pass for this one's
    try:
        drawn = _draw(picture, results)
    except ModuleNotFoundError as error:
        return f"result.json; no picture, {error.name} is not installed: `make bench` installs it"
    return "result.json and ratios.png" if drawn else "result.json"


def _write_json(path: Path, results: Mapping[str, Result], about: Mapping[str, Any]) -> None:
    """Write everything, samples included."""
    data = {
        "conditions": about,
        "results": {
            name: {"rows": [row.as_json() for row in result.rows], "notes": list(result.notes)}
            for name, result in results.items()
        },
    }
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def _draw(path: Path, results: Mapping[str, Result]) -> bool:
    """Draw each row's gain over the peers; ``False`` when there is nothing to compare.

    A gain is the ratio where more is better and its inverse where less is: right of 1 PyEmperor is ahead.
    """
    rows = [row for result in results.values() for row in result.rows if _gains(row)]
    if not rows:
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 1.5 + 0.55 * len(rows)), layout="constrained")
    for shift, peer, colour in ((-0.18, UWSGI, "#4477aa"), (0.18, FCGIWRAP, "#ccbb44")):
        gains = [(at + shift, _gains(row)[peer]) for at, row in enumerate(rows) if peer in _gains(row)]
        bars = axes.barh([at for at, _ in gains], [gain - 1 for _, gain in gains], 0.34, 1, color=colour)
        axes.bar_label(bars, [f"{gain:.2f} x" for _, gain in gains], padding=3, fontsize=8)
        bars.set_label(f"over {_TITLES[peer]}")
    for at, row in enumerate(rows):
        _mark_targets(axes, at, row.targets)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("times better than the peer, log scale; a red stroke is a target")
    axes.set_title("PyEmperor beside uWSGI and fcgiwrap")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True


def _mark_targets(axes: Any, at: int, targets: Sequence[Target]) -> None:
    for target in targets:
        if target.against:
            middle = at + (-0.18 if target.against == UWSGI else 0.18)
            axes.plot([target.limit] * 2, [middle - 0.17, middle + 0.17], color="#cc3311", linewidth=2)


def _gains(row: Row) -> dict[str, float]:
    """Return the positive gains by peer; a figure of 0 has no ratio to draw."""
    ratios = {peer: ratio for peer in (UWSGI, FCGIWRAP) if (ratio := row.ratio(peer))}
    return {peer: ratio if row.more_is_better else 1 / ratio for peer, ratio in ratios.items()}
