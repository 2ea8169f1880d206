"""What holds for all configuration files: what is written is read, and nothing but ConfigError leaves."""

import json
from collections.abc import Callable
from xml.sax.saxutils import escape

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyemperor.protocol.dialect import Loaded, World, load
from pyemperor.protocol.dialect.loader import DIRECTIVES
from pyemperor.protocol.dialect.logic import LOGIC, WORDS
from pyemperor.protocol.dialect_options import emperor_of, vassal_of
from pyemperor.protocol.errors import ConfigError
from pyemperor.protocol.options import OPTIONS

fast = settings(deadline=None, max_examples=80)

FORMATS = [".ini", ".yml", ".json", ".xml"]

NAMES = sorted({row.name for row in OPTIONS})
keys = st.one_of(st.sampled_from(NAMES), st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)).filter(
    lambda key: key not in WORDS and key not in DIRECTIVES
)
plain = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"], exclude_characters="%$@\ufeff\ufffe\uffff"),
    max_size=12,
).map(lambda text: text.strip())
pairs = st.lists(st.tuples(keys, plain), max_size=12)
words = st.one_of(
    st.sampled_from([*sorted(LOGIC), *sorted(WORDS), *sorted(DIRECTIVES), "socket", "cgi", "env", "a", "b"]),
    keys,
)
pieces = st.one_of(
    st.sampled_from(["%(a)", "%(b + 1)", "%(_)", "$(HOME)", "@(b.ini)", "%n", "%", "%%", "b.ini", "a.ini:x"]),
    st.sampled_from(["a=1", "b=%(a)", "3", "1.5s", "true", "/x=/y", "a b", "99999999999999999999", "*"]),
    st.text(max_size=6),
)
lines = st.one_of(
    st.tuples(words, st.lists(pieces, max_size=3).map("".join)).map(" = ".join),
    st.sampled_from(["[uwsgi]", "[x]", "[", "]", "=", "; c", "endif", "endfor", "else", ""]),
    st.text(max_size=10),
)


def read(text: str, suffix: str = ".ini") -> Loaded:
    def give(path: str) -> str:
        if path.endswith(("none", ".txt")):
            raise FileNotFoundError(2, "No such file or directory")
        return text

    return load(f"a{suffix}", World(read=give, cwd="/e", environ={"HOME": "/r%(a)"}))


def typed(loaded: Loaded) -> None:
    """Make a vassal and an Emperor of it: values, or ConfigError with problems."""
    makers: list[Callable[[], object]] = [
        lambda: vassal_of(loaded, "a.ini", name="a", base="/e"),
        lambda: emperor_of(loaded, "a.ini", base="/e"),
    ]
    for make in makers:
        said = "values"
        try:
            make()
        except ConfigError as error:
            said = str(error)
        assert said


def written(pairs: list[tuple[str, str]], suffix: str) -> str:
    match suffix:
        case ".ini":
            return "[uwsgi]\n" + "".join(f"{key} = {value}\n" for key, value in pairs)
        case ".yml":
            return "uwsgi:\n" + "".join(
                f"  {key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in pairs
            )
        case ".json":
            members = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs)
            return f'{{"uwsgi": {{{members}}}}}'
        case _:
            return f"<uwsgi>{''.join(f'<{key}>{escape(value)}</{key}>' for key, value in pairs)}</uwsgi>"


@fast
@pytest.mark.parametrize("suffix", FORMATS)
@given(pairs=pairs)
def test_what_is_written_is_read(suffix: str, pairs: list[tuple[str, str]]) -> None:
    if suffix in (".yml", ".xml"):  # an empty section is a scalar, an empty element is true
        pairs = [*((key, value or "1") for key, value in pairs), ("x", "1")]
    loaded = read(written(pairs, suffix), suffix)
    assert loaded.notes.problems == []
    assert [(one.key, one.value) for one in loaded.settings] == pairs


@fast
@given(lines=st.lists(lines, max_size=25))
@example(lines=["for-times = 10000", "for-times = 10000", "a = 1"])
@example(lines=["a = %(b + 1)", "b = %(a * 99999999999999999999)"])
@example(lines=["include = a.ini", "inherit = b.ini", "ini = :uwsgi"])
@example(lines=["if-hostname-match = (", "a = 1"])
def test_no_lines_of_ini_do_anything_but_configure_or_say_why_not(lines: list[str]) -> None:
    typed(read("[uwsgi]\n" + "\n".join(lines)))


@fast
@pytest.mark.parametrize("suffix", FORMATS)
@given(text=st.text(max_size=200))
@example(text="[" * 1200)
@example(text="uwsgi:\n  a: " + "{" * 1200)
@example(text="uwsgi: &a\n  b: *a\n")
@example(text="uwsgi:\n  ? [a]\n  : b\n  ? {c: d}\n")
@example(text="? [x]\n: 1\nuwsgi: {a: 1}\n")
@example(text="<uwsgi>" + "<a>" * 3000)
@example(text='{"uwsgi": {"a": 1' + "0" * 5000 + "}}")
@example(text='{"uwsgi": {"a": 1e999}}')
def test_no_text_does_anything_but_configure_or_say_why_not(suffix: str, text: str) -> None:
    typed(read(text, suffix))


@fast
@given(a=st.integers(-(2**63), 2**63 - 1), b=st.integers(-(2**63), 2**63 - 1))
def test_arithmetic_is_that_of_64_bits(a: int, b: int) -> None:
    loaded = read(f"[uwsgi]\na = {a}\nb = {b}\nplus = %(a + b)\ntimes = %(a * b)\nback = %(a + b - b)\n")
    plus, times, back = (int(one.value) for one in loaded.settings[2:])
    assert (plus - (a + b)) % 2**64 == (times - a * b) % 2**64 == 0
    assert all(-(2**63) <= number < 2**63 for number in (plus, times))
    assert back == a
