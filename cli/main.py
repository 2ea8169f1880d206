"""The ``pyemperor`` command."""

import sys
from typing import TYPE_CHECKING

import click

from pyemperor import __version__
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.options import EmperorOptions
from pyemperor.protocol.scenario import Scenario

if TYPE_CHECKING:
    from pyemperor.protocol.control import Request

_FILE = click.argument("file", metavar="FILE")
_NAME = click.argument("name", metavar="[NAME]", required=False)
_SET = click.option(
    "--set", "parameters", metavar="NAME=VALUE", multiple=True, callback=lambda *args: _named(args[2]),
    help="Give a parameter of the file another value.",
)
_SOCKET = click.option("--socket", metavar="PATH", help="The Emperor's control socket, if several run here.")
_JSON = click.option("--json", is_flag=True, help="Answer with one JSON object.")


class _InOrder(click.Group):
    """The commands in the order in which they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pyemperor", message="%(prog)s %(version)s")
def app() -> None:
    """Run CGI programs behind nginx, supervised the Erlang way: an Emperor, its vassals, their workers."""


@app.command(short_help="Serve the vassals of FILE, or play its scenario.")
@click.argument("file", metavar="[FILE]", required=False)
@_SET
@click.option(
    "--emperor", "folders", metavar="DIR", multiple=True,
    help="Watch this folder of vassal files (dir://, glob://).",
)
@click.option("--simulate", is_flag=True, help="Play it in simulated time.")
@click.option("--seed", type=int, metavar="N", help="Start of all randomness in simulated time.")
@click.option("--json", is_flag=True, help="One JSON object a line; the last one is the verdict.")
def run(
    file: str | None,
    parameters: dict[str, str],
    folders: tuple[str, ...],
    *,
    simulate: bool,
    seed: int | None,
    json: bool,
) -> int:
    """Serve the vassals of FILE until Ctrl-C or SIGTERM; one with a timeline ends by itself, with a verdict.

    FILE is a scenario, such as scenarios/cgi.toml; or uWSGI's file for the Emperor or for a vassal: .ini, .yml,
    .json, .xml, .toml.

    Exit code: 0 stopped as asked, or every expectation met; 1 not met, or could not start; 2 the file is wrong.
    """
    scenario = _imperial(file, folders)
    if scenario is not None:
        return _serve(scenario)
    assert file is not None
    scenario = _scenario(file, parameters)
    if simulate:
        from pyemperor.cli.play import simulate as play_simulated

        return play_simulated(scenario, scenario.run.seed if seed is None else seed, json=json)
    if scenario.has_timeline:
        from pyemperor.cli.play import play

        return play(scenario, file, parameters, json=json)
    return _serve(scenario)


@app.command()
@_FILE
@_SET
@click.option("--emperor", metavar="FILE", help="Check a vassal as the Emperor in this file reads and starts it.")
def check(file: str, parameters: dict[str, str], emperor: str | None) -> int:
    """Say whether FILE is right, and what is wrong with it.

    It is one of a vassal, of the Emperor, or a scenario.
    """
    if said := _checked(file, emperor):
        click.echo(f"{file}: no problem found; {said}")
    else:
        vassals = ", ".join(vassal.name for vassal in _scenario(file, parameters).vassals)
        click.echo(f"{file}: no problem found; vassals: {vassals}")
    return 0


@app.command(short_help="Say how the vassals of a running Emperor are.")
@_NAME
@_SOCKET
@_JSON
def status(name: str | None, socket: str | None, *, json: bool) -> int:
    """Say how the vassals of a running Emperor are: state, generation, processes, and why."""
    from pyemperor.protocol import control

    return _control(control.Status(name=name), socket, json=json)


@app.command(short_help="Renew a vassal without losing a request.")
@_NAME
@click.option("--wait", is_flag=True, help="Until the new generation serves, or was refused.")
@_SOCKET
@_JSON
def reload(name: str | None, socket: str | None, *, wait: bool, json: bool) -> int:
    """Start a new generation of a vassal beside the old one, which serves until the new one is ready.

    Exit code: 0 done, or begun without --wait; 1 refused, and what served goes on; 2 no Emperor could be asked.
    """
    from pyemperor.protocol import control

    return _control(control.Reload(name=name, wait=wait), socket, json=json)


@app.command(short_help="Stop a vassal, or all of them and the Emperor.")
@_NAME
@_SOCKET
@_JSON
def stop(name: str | None, socket: str | None, *, json: bool) -> int:
    """Stop a vassal, or all of them and the Emperor; returns when the last process is gone."""
    from pyemperor.protocol import control

    return _control(control.Stop(name=name), socket, json=json)


@app.command(short_help="Forgive a vassal that failed: it starts at once.")
@click.argument("name", metavar="NAME")
@_SOCKET
@_JSON
def absolve(name: str, socket: str | None, *, json: bool) -> int:
    """Forgive a vassal that is cursed, exiled or waits after failures: it starts at once."""
    from pyemperor.protocol import control

    return _control(control.Absolve(name=name), socket, json=json)


@app.command()
@_NAME
@click.option("--json", is_flag=True, help="One JSON object a line.")
def options(name: str | None, *, json: bool) -> int:
    """Explain uWSGI's options, and what becomes of each here."""
    from pyemperor.cli.explain import explain

    return explain(name, json=json)


def _control(request: "Request", path: str | None, *, json: bool) -> int:
    from pyemperor.cli.light import import_loguru

    import_loguru()
    from pyemperor.cli.control import command

    return command(request, path, json=json)


def _imperial(file: str | None, folders: tuple[str, ...]) -> Scenario | None:
    """What uWSGI's file of an Emperor or of one vassal says, and ``--emperor``; None for a scenario."""
    import msgspec

    from pyemperor.cli.configuration import kind_of, run_by
    from pyemperor.cli.console import show_problems, show_warnings

    try:
        if file is None:
            if not folders:
                problem = Problem("command line", 0, "", "nothing to run", remedy="name a FILE, or --emperor DIR")
                raise ConfigError(problem)
            return Scenario("emperor", (), emperor=EmperorOptions(emperor=folders))
        if kind_of(file) == "scenario":
            if folders:
                found = "a scenario names its folders itself"
                remedy = '[emperor] emperor = "DIR"'
                raise ConfigError(Problem("command line", 0, "--emperor", found, remedy=remedy))
            return None
        scenario = run_by(file)
    except ConfigError as error:
        show_problems(error)
        raise SystemExit(2) from None
    show_warnings(scenario.warnings)
    more = (*scenario.emperor.emperor, *folders)
    return msgspec.structs.replace(scenario, emperor=msgspec.structs.replace(scenario.emperor, emperor=more))


def _checked(file: str, emperor: str | None) -> str:
    """What a file of a vassal, under the Emperor in the file ``emperor``, or of an Emperor holds; else ""."""
    from pyemperor.cli.check import checked
    from pyemperor.cli.console import show_problems, show_warnings

    try:
        said, warnings = checked(file, emperor)
    except ConfigError as error:
        show_problems(error)
        raise SystemExit(2) from None
    show_warnings(warnings)
    return said


def _named(pairs: tuple[str, ...]) -> dict[str, str]:
    """Parameters by name; raises BadParameter."""
    for pair in pairs:
        if "=" not in pair:
            raise click.BadParameter(f"{pair!r}: write it as NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def _scenario(file: str, parameters: dict[str, str]) -> Scenario:
    from pyemperor.cli.console import show_problems, show_warnings
    from pyemperor.cli.scenarios import read_scenario

    try:
        scenario = read_scenario(file, parameters)
    except ConfigError as error:
        show_problems(error)
        raise SystemExit(2) from None
    show_warnings(scenario.warnings)
    return scenario


def _serve(scenario: Scenario) -> int:
    from pyemperor.cli.console import banner, show_problems
    from pyemperor.cli.light import import_loguru

    import_loguru()
    from pyemperor.cli.reign import reign

    emperor = scenario.emperor
    silent = emperor.daemonize or emperor.daemonize2 or emperor.logto  # a banner has no place in a log file
    try:
        return reign(scenario, begun=lambda vault: None if silent else banner(scenario, vault.addresses))
    except ConfigError as error:
        show_problems(error)
        return 1


def main() -> int:
    """Run the command; the value is the exit code."""
    try:
        return int(app(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 1
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1


if __name__ == "__main__":
    sys.exit(main())
