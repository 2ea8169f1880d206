"""The ``pyemperor`` command."""

import sys
from typing import Annotated

import typer

from pyemperor import __version__
from pyemperor.protocol.errors import ConfigError
from pyemperor.protocol.scenario import Scenario

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
    file: File,
    set_: Set = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="Play it in simulated time.")] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Start of all randomness in simulated time.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line; the last one is the verdict.")
    ] = False,
) -> None:
    """Serve the vassals of FILE until Ctrl-C or SIGTERM; a file with a timeline ends by itself, with a verdict.

    Exit code: 0 stopped as asked, or every expectation met; 1 not met, or could not start; 2 the file is wrong.
    """
    parameters = _parameters(set_ or [])
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
    """Say whether FILE is right, and what is wrong with it."""
    scenario = _scenario(file, _parameters(set_ or []))
    vassals = ", ".join(vassal.name for vassal in scenario.vassals)
    typer.echo(f"{file}: no problem found; vassals: {vassals}")


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

    try:
        return reign(scenario, begun=lambda vault: banner(scenario, vault.addresses))
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
