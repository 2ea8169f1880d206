"""The house itself: what is shipped, what the documents say, and that both are true."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from pyemperor import __version__
from pyemperor.protocol import expect, fault, load, options, scenario
from pyemperor.protocol.messages import EVENTS, Message, State

HOUSE = Path(__file__).parents[2]
LAYERS = ("actors", "cli", "protocol")
DOCUMENTS = sorted(file for folder in (HOUSE, HOUSE / "docs", HOUSE / "bench") for file in folder.glob("*.md"))
CODE = (*LAYERS, "pyemperor", "tests", "bench", "docs")
SCRIPTS = HOUSE / "bench" / "scripts"  # that are measured, not read
MODULES = sorted(file for folder in CODE for file in (HOUSE / folder).glob("**/*.py") if file.parent != SCRIPTS)
SCENARIOS = sorted((HOUSE / "scenarios").glob("*.toml"))
PROJECT: dict[str, Any] = tomllib.loads((HOUSE / "pyproject.toml").read_text(encoding="utf-8"))
#: The command, as it stands beside the interpreter: nothing has to be activated.
COMMAND = Path(sys.executable).with_name("pyemperor")


def text(name: str | Path) -> str:
    return (HOUSE / name).read_text(encoding="utf-8")


def run(*command: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=HOUSE,
        env={**os.environ, **environment},
    )


def blocks(language: str) -> list[Any]:
    """The code blocks of a language in all documents, each named by its document and number."""
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [
        pytest.param(block, id=f"{file.name}-{number}")
        for file in DOCUMENTS
        for number, block in enumerate(fence.findall(text(file)), 1)
    ]


# ---- what is shipped ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy: a build leaves things behind."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(HOUSE / name, source)
    for name in (*LAYERS, "pyemperor", "tests"):
        shutil.copytree(HOUSE / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    target = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-P", "-c", build, str(target)], cwd=source, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    (made,) = target.iterdir()
    return made


def test_a_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in names} == {"pyemperor", f"pyemperor-{__version__}.dist-info"}
    for layer in LAYERS:
        modules = {str(file.relative_to(HOUSE)) for file in (HOUSE / layer).glob("**/*.py")}
        assert modules
        assert {f"pyemperor/{module}" for module in modules} <= names
    assert "pyemperor/py.typed" in names


def test_an_application_may_have_modules_of_our_layers_names(wheel: Path, tmp_path: Path) -> None:
    """Workers of the future load users' modules: `cli`, `actors` and `protocol` are theirs."""
    ZipFile(wheel).extractall(tmp_path)
    code = "from importlib.util import find_spec; import sys; print([bool(find_spec(n)) for n in sys.argv[1:]])"
    ours = [f"pyemperor.{layer}" for layer in LAYERS]
    # -S: without this environment's own packages, among which the checkout may be.
    found = run(sys.executable, "-P", "-S", "-c", code, *LAYERS, *ours, PYTHONPATH=str(tmp_path))
    assert found.stdout.strip() == str([False] * 3 + [True] * 3), found.stderr


def test_the_command_says_its_version() -> None:
    said = run(COMMAND, "--version")
    assert (said.returncode, said.stdout) == (0, f"pyemperor {__version__}\n")
    assert PROJECT["project"]["version"] == __version__
    assert f"## {__version__}" in text("CHANGELOG.md")


def test_the_module_is_the_command() -> None:
    assert run(sys.executable, "-P", "-m", "pyemperor", "--version").stdout == f"pyemperor {__version__}\n"


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_check_has_nothing_to_say_about_the_scenarios_that_come_along(file: Path) -> None:
    said = run(COMMAND, "check", file.relative_to(HOUSE))
    assert (said.returncode, said.stderr) == (0, "")


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(HOUSE)))
def test_every_module_says_what_it_is(file: Path) -> None:
    assert ast.get_docstring(ast.parse(text(file)))


def test_no_function_is_written_twice() -> None:
    """One concept, one place: two functions of the same body, whatever they are called, are one too many."""
    warm = HOUSE / "actors/warm"
    alone = (warm / "program.py", warm / "sources.py")  # of a program of its own, which imports nothing of ours
    found: dict[str, list[str]] = {}
    for file in (file for file in MODULES if file.relative_to(HOUSE).parts[0] in LAYERS and file not in alone):
        for function in (node for node in ast.parse(text(file)).body if isinstance(node, ast.FunctionDef)):
            body = "\n".join(map(ast.unparse, function.body[ast.get_docstring(function) is not None :]))
            if len(body) > 40:
                found.setdefault(body, []).append(f"{file.relative_to(HOUSE)}: {function.name}")
    assert len(found) > 100
    assert [names for names in found.values() if len(names) > 1] == []


@pytest.mark.parametrize("message", Message.__subclasses__(), ids=lambda message: message.__name__)
def test_every_message_says_what_it_means(message: type[Message]) -> None:
    assert message.__doc__
    assert message.__doc__ != Message.__doc__


# ---- two commands -------------------------------------------------------------------------------------------


def recipe(target: str) -> list[str]:
    """What make would do when all is set up."""
    # The tests themselves run under make: then it would talk about directories as well.
    made = run("make", "--no-print-directory", "--dry-run", "--always-make", target)
    assert made.returncode == 0, made.stderr
    return made.stdout.splitlines()


def test_the_readme_gives_the_two_commands() -> None:
    commands = re.findall(r"^    (make \w+)$", text("README.md"), re.MULTILINE)
    assert commands == ["make run", "make test"]


def test_every_make_that_a_document_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))
    named = {name for file in DOCUMENTS for name in re.findall(r"(?:`|^    )make (\w+)", text(file), re.MULTILINE)}
    assert {"run", "test", "check", "bench", "docs"} <= named <= targets


def test_make_run_serves_the_cgi_scenario() -> None:
    assert recipe("run")[-1].endswith("/pyemperor run scenarios/cgi.toml")
    assert not [line for line in recipe("run") if "packaging/install" in line and "python3" not in line]


def test_make_test_is_the_static_checks_and_then_the_tests() -> None:
    tools = [match[1] for line in recipe("test") if (match := re.match(r"\.venv/bin/([a-z-]+)", line))]
    assert tools[-4:] == ["ruff", "mypy", "lint-imports", "pytest"]
    assert "pytest" in recipe("test")[-1]


def test_continuous_integration_runs_the_command_of_the_readme() -> None:
    assert os.access(HOUSE / ".ci" / "run", os.X_OK)
    commands = [line for line in text(".ci/run").splitlines() if line and not line.startswith("#")]
    assert commands[-1] == "exec make test"


# ---- what the documents say ---------------------------------------------------------------------------------


def test_the_tables_of_the_documents_are_those_of_the_code() -> None:
    said = run(sys.executable, "-P", "docs/tables.py", "--check")
    assert (said.returncode, said.stdout) == (0, "")


@pytest.mark.parametrize(
    ("document", "rows"),
    [
        ("configuration.md", [row for row in options.OPTIONS if row.status == "honoured"]),
        ("uwsgi-options.md", [row for chapter in options.CHAPTERS.values() for row in chapter]),
        ("scenarios.md", [row for row in scenario.KEYS if row.scope in ("file", "run")]),
        ("configuration.md", [row for row in scenario.KEYS if row.scope in ("head", "front")]),
        ("scenarios.md", (*load.KEYS, *fault.KEYS, *expect.KEYS)),
    ],
    ids=["honoured", "uwsgi", "run", "vassal", "timeline"],
)
def test_every_option_is_documented(document: str, rows: list[options.Option]) -> None:
    page = text(f"docs/{document}")
    assert [row.name for row in rows if f"| `{row.name}`" not in page or row.meaning not in page] == []


def test_every_state_and_event_is_documented() -> None:
    architecture, scenarios = text("docs/architecture.md"), text("docs/scenarios.md")
    assert [state for state in State if f"| `{state}` |" not in architecture] == []
    assert [event for event in EVENTS if f"| `{event}` |" not in scenarios] == []


def test_the_layers_in_contributing_are_those_of_the_contract() -> None:
    (layers,) = [c["layers"] for c in PROJECT["tool"]["importlinter"]["contracts"] if c.get("exhaustive")]
    _, _, page = text("CONTRIBUTING.md").partition("**actors/**")
    places = [page.find(f"\n    {layer}") for layer in layers]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize("block", blocks("toml"))
def test_a_toml_block_is_right(block: str) -> None:
    if "vassal" in tomllib.loads(block):
        assert scenario.load_scenario(block, file="document", base="/srv").vassals


@pytest.mark.parametrize("block", blocks("nginx"))
def test_nginx_likes_a_block_of_its_configuration(block: str, tmp_path: Path) -> None:
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert nginx, "make test installs it"
    if not block.startswith("location"):
        block = f"location / {{ {block} }}"
    (tmp_path / "uwsgi_params").touch()
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; server {{ listen unix:{tmp_path}/sock;\n{block}\n}} }}\n"
    )
    said = run(nginx, "-t", "-q", "-e", "stderr", "-p", tmp_path, "-c", tmp_path / "nginx.conf")
    assert said.returncode == 0, said.stderr


def anchors(file: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text(file), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_every_link_leads_somewhere(file: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text(file))
    for path, anchor in links:
        target = file.parent / path if path else file
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_the_systemd_unit_waits_longer_than_the_mercy() -> None:
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]  # the documented way to keep the case
    unit.read(HOUSE / "packaging" / "pyemperor.service")
    service = unit["Service"]
    assert service["ExecStart"].split()[0].endswith("/pyemperor")
    assert service["KillMode"] == "mixed"
    assert float(service["TimeoutStopSec"]) > options.Supervision().mercy
