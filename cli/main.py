"""The ``pyemperor`` command."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pyemperor import __version__
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.options import EmperorOptions
from pyemperor.protocol.scenario import Scenario

if TYPE_CHECKING:
    from pyemperor.protocol.control import Request

_HELP = "Runs CGI programs behind nginx, supervised the Erlang way: an Emperor, its vassals, their workers."

app = typer.Typer(add_completion=False, no_args_is_help=True, help=_HELP, pretty_exceptions_enable=False)

File = Annotated[str, typer.Argument(metavar="FILE", help="A scenario file, such as scenarios/cgi.toml.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Give a parameter of the file another value."),
]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"pyemperor {__version__}")
        raise typer.Exit


@app.callback()
def _pyemperor(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE]", help="A scenario, such as scenarios/cgi.toml; or uWSGI's file for the"
                       " Emperor or for a vassal: .ini, .yml, .json, .xml, .toml."),
    ] = None,
    set_: Set = None,
    emperor: Annotated[
        list[str] | None,
        typer.Option("--emperor", metavar="DIR", help="Watch this folder of vassal files (dir://, glob://)."),
    ] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="Play it in simulated time.")] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Start of all randomness in simulated time.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line; the last one is the verdict.")
    ] = False,
) -> None:
    """Serve the vassals of FILE until Ctrl-C or SIGTERM; one with a timeline ends by itself, with a verdict.

    Exit code: 0 stopped as asked, or every expectation met; 1 not met, or could not start; 2 the file is wrong.
    """
    parameters = _parameters(set_ or [])
    scenario = _imperial(file, emperor or [])
    if scenario is not None:
        raise typer.Exit(_serve(scenario))
    assert file is not None
    scenario = _scenario(file, parameters)
    if simulate:
        from pyemperor.cli.play import simulate as play_simulated

        raise typer.Exit(play_simulated(scenario, scenario.run.seed if seed is None else seed, json=json))
    if scenario.has_timeline:
        from pyemperor.cli.play import play

        raise typer.Exit(play(scenario, file, parameters, json=json))
    raise typer.Exit(_serve(scenario))


@app.command()
def check(file: File, set_: Set = None) -> None:
    """Say whether FILE is right, and what is wrong with it: of a vassal, of the Emperor, or a scenario."""
    if said := _checked(file):
        typer.echo(f"{file}: no problem found; {said}")
        return
    scenario = _scenario(file, _parameters(set_ or []))
    vassals = ", ".join(vassal.name for vassal in scenario.vassals)
    typer.echo(f"{file}: no problem found; vassals: {vassals}")


Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="A vassal; without it all of them.")]
Socket = Annotated[
    str | None, typer.Option("--socket", metavar="PATH", help="The Emperor's control socket, if several run here.")
]
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")]


@app.command()
def status(name: Name = None, socket: Socket = None, json: Json = False) -> None:
    """Say how the vassals of a running Emperor are: state, generation, processes, and why."""
    from pyemperor.protocol import control

    _control(control.Status(name=name), socket, json=json)


@app.command()
def reload(
    name: Name = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until the new generation serves, or was refused.")] = False,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Start a new generation of a vassal beside the old one, which serves until the new one is ready.

    Exit code: 0 done, or begun without --wait; 1 refused, and what served goes on; 2 no Emperor could be asked.
    """
    from pyemperor.protocol import control

    _control(control.Reload(name=name, wait=wait), socket, json=json)


@app.command()
def stop(name: Name = None, socket: Socket = None, json: Json = False) -> None:
    """Stop a vassal, or all of them and the Emperor; returns when the last process is gone."""
    from pyemperor.protocol import control

    _control(control.Stop(name=name), socket, json=json)


@app.command()
def absolve(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A vassal.")],
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Forgive a vassal that is cursed, exiled or waits after failures: it starts at once."""
    from pyemperor.protocol import control

    _control(control.Absolve(name=name), socket, json=json)


def _control(request: "Request", path: str | None, *, json: bool) -> None:
    from pyemperor.cli.light import import_loguru

    import_loguru()
    from pyemperor.cli.control import command

    raise typer.Exit(command(request, path, json=json))


@app.command()
def options(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="An option; without it all.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Explain uWSGI's options, and what becomes of each here."""
    from pyemperor.cli.explain import explain

    raise typer.Exit(explain(name, json=json))


def _imperial(file: str | None, folders: list[str]) -> Scenario | None:
    """What uWSGI's file of an Emperor or of one vassal says, and ``--emperor``; None for a scenario."""
    import msgspec

    from pyemperor.cli.configuration import kind_of, run_by
    from pyemperor.cli.console import show_problems, show_warnings

    try:
        if file is None:
            if not folders:
                problem = Problem("command line", 0, "", "nothing to run", remedy="name a FILE, or --emperor DIR")
                raise ConfigError(problem)
            return Scenario("emperor", (), emperor=EmperorOptions(emperor=tuple(folders)))
        if kind_of(file) == "scenario":
            if folders:
                found = "a scenario names its folders itself"
                remedy = '[emperor] emperor = "DIR"'
                raise ConfigError(Problem("command line", 0, "--emperor", found, remedy=remedy))
            return None
        scenario = run_by(file)
    except ConfigError as error:
        show_problems(error)
        raise typer.Exit(2) from None
    show_warnings(scenario.warnings)
    more = (*scenario.emperor.emperor, *folders)
    return msgspec.structs.replace(scenario, emperor=msgspec.structs.replace(scenario.emperor, emperor=more))


def _checked(file: str) -> str:
    """What a file of a vassal or of the Emperor holds; "" for a scenario."""
    from pyemperor.cli.configuration import emperor_and_warnings, kind_of, vassal_and_warnings
    from pyemperor.cli.console import show_problems, show_warnings

    try:
        match kind_of(file):
            case "emperor":
                emperor, warnings = emperor_and_warnings(file)
                said = f"the Emperor of {', '.join(emperor.emperor)}"
            case "vassal":
                vassal, warnings = vassal_and_warnings(file)
                said = f"vassal: {vassal.name}"
            case _:
                return ""
    except ConfigError as error:
        show_problems(error)
        raise typer.Exit(2) from None
    show_warnings(warnings)
    return said


def _parameters(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            typer.echo(f"pyemperor: --set {pair}: write it as NAME=VALUE", err=True)
            raise typer.Exit(2)
    return dict(pair.split("=", 1) for pair in pairs)


def _scenario(file: str, parameters: dict[str, str]) -> Scenario:
    from pyemperor.cli.console import show_problems, show_warnings
    from pyemperor.cli.scenarios import read_scenario

    try:
        scenario = read_scenario(file, parameters)
    except ConfigError as error:
        show_problems(error)
        raise typer.Exit(2) from None
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
        app(standalone_mode=True)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
