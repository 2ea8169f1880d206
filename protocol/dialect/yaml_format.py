"""YAML as uWSGI reads it: one section, whose values are text or lists of text.

A module of its own, because who has no YAML files need not load the library that reads them.
"""

from collections.abc import Iterator

import yaml

from pyemperor.protocol.dialect.formats import PLAIN, TABLE, Expand
from pyemperor.protocol.dialect.settings import Notes, Setting


def yaml_settings(text: str, file: str, section: str, expand: Expand, notes: Notes) -> list[Setting] | None:
    """Read ``section: { key: value }``, in block style or in braces; None when the section is not there."""
    lines = text.split("\n")
    magical = [expand(line, Setting("", "", file, number)) if "%" in line and not line.lstrip().startswith("#")
               else line for number, line in enumerate(lines, 1)]
    try:
        # The nodes, not the values: keys may stand twice, and each knows its line.
        root = yaml.compose("\n".join(magical), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        notes.problem(Setting("", "", file, line), f"not YAML: {error.problem or error.context}")
        return []
    except RecursionError:
        notes.problem(Setting("", "", file), "nested too deeply")
        return []
    except (yaml.YAMLError, ValueError) as error:
        notes.problem(Setting("", "", file), f"not YAML: {str(error).splitlines()[0]}")
        return []
    if not isinstance(root, yaml.MappingNode):
        return None
    bodies = [body for name, body in root.value if name.value == section]
    return [one for body in bodies for one in _yaml_body(body, file, notes)] if bodies else None


def _yaml_body(body: yaml.Node, file: str, notes: Notes) -> Iterator[Setting]:
    if not isinstance(body, yaml.MappingNode):
        notes.problem(Setting("", "", file, body.start_mark.line + 1), "a section without keys", "key: value")
        return
    for name, node in body.value:
        key = name.value if isinstance(name, yaml.ScalarNode) else ""
        for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            place = Setting(key, "", file, item.start_mark.line + 1)
            if isinstance(item, yaml.ScalarNode) and not item.value and not item.style:
                notes.warning(place, "no value, is ignored", remedy=f"write {key}: true")
            elif isinstance(item, yaml.ScalarNode) and key:
                yield Setting(key, item.value, file, place.line)
            else:
                notes.problem(place, TABLE, PLAIN)
