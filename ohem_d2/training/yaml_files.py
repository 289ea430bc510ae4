"""What YAML files say, and those that they are based on, before anything is made of it."""

import codecs
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml
from fvcore.common.config import BASE_KEY

from ..data.other_files import what_it_is
from ..data.text_files import another_number
from ..errors import InputError, shown
from ..paths import wrong_file

_SUFFIXES = (".yaml", ".yml")
# How many files a config may be based on, in all and each on the next, and how many values its
# aliases may stand for beyond those that are written. Nothing useful comes near.
_MOST_FILES, _MOST_IN_A_CHAIN, _MOST_COPIES = 1000, 50, 100_000
_LONGEST_NUMBER = 300  # which a float can still be


class _TextLoader(yaml.SafeLoader):
    """Takes each value for a text, whatever its tag says, but merges keys (<<) as YAML does."""

    def construct_text(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return self.construct_sequence(node, deep=True)
        return node.value

    yaml_constructors: ClassVar[dict] = {None: construct_text}


def read_with_bases(path: str, *trusted: Path) -> dict[str, dict]:
    """
    Read a YAML config and those that it is based on.

    Args:
        path: the file.
        trusted: folders of which a base may be by its absolute path, beside that of the config.

    Returns:
        for each file its content, of texts alone, whatever its tags say.

    Raises:
        InputError: one of them is no YAML file, says something twice, or grows without end when it
            is loaded, or is based on what does not belong to it: a config of somebody else's must
            not have any file read, nor any address fetched. What is in a file is not told.
    """
    contents: dict[str, dict] = {}
    number = 0

    def visit(file: str, above: tuple[Path, ...]) -> None:
        nonlocal number
        number += 1
        resolved = Path(file).resolve()
        if resolved in above:
            raise _invalid(file, f"its {BASE_KEY} leads back to it, expected files that do not")
        if number > _MOST_FILES or len(above) > _MOST_IN_A_CHAIN:
            raise _invalid(
                path,
                f"its {BASE_KEY} leads to too many files, expected {_MOST_FILES} in all and "
                f"{_MOST_IN_A_CHAIN} that are each based on the next, at most",
            )
        if file not in contents:
            contents[file] = _read(file)
        for base in _bases(file, contents[file]):
            _check_base(file, base, trusted)
            visit(os.path.join(os.path.dirname(file), base), (*above, resolved))

    visit(path, ())
    return contents


def file_of(contents: dict[str, dict], key: str) -> str | None:
    """
    Tell which file a value is from.

    Args:
        contents: those of `read_with_bases`, the config itself first.
        key: of the value.

    Returns:
        its path, or None if the key is in none of them.
    """
    for file, content in contents.items():
        node: Any = content
        for name in key.split("."):
            node = node.get(name) if isinstance(node, dict) else None
        if node is not None:
            return file
    return None


def keys_with_points(content: dict, above: str = "") -> Iterator[str]:
    """The whole keys of values and nodes of which one name has a point in it."""
    for name, value in content.items():
        key = f"{above}{name}"
        if "." in str(name):
            yield key
        if isinstance(value, dict):
            yield from keys_with_points(value, f"{key}.")


def place(error: yaml.YAMLError) -> str:
    """What is wrong with a file and where, without the lines that are in it."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    context = getattr(error, "context", None)
    if problem == "but found another document":
        problem = "found another one, which '---' begins"
    elif isinstance(error, yaml.composer.ComposerError):
        problem = "it has an alias that it does not define, or defines twice"  # not its name
    where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    words = ": ".join(x for x in (context, problem) if x)
    return f"{words or 'its characters are not those of YAML'}{where}"


def _invalid(path: str, reason: str) -> InputError:
    return InputError(f"{path} is no valid config: {reason}")


def check_no_other_file(path: str, text: str) -> None:
    """
    Make sure that a config is none of the files that are told by how they begin.

    Args:
        path: its path.
        text: all that is in it.

    Raises:
        InputError: it is a web page, for example.
    """
    is_told_otherwise = not text.strip() or "<<<<<<< " in text
    if not is_told_otherwise and (other := what_it_is(text.encode())):
        raise _invalid(path, f"it is {other}, expected the YAML or Python file itself")


def _read(path: str) -> dict:
    try:
        text = Path(path).read_text(encoding="utf-8")
        check_no_other_file(path, text)
        if "_target_:" in text:
            raise InputError(
                f"{path} was saved from a Python config, and names functions to call: expected "
                "the .py file itself, with the same settings"
            )
        loader = _TextLoader(text)
        root = loader.get_single_node()
        for problem in _problems(root):
            raise _invalid(path, problem)
        content = loader.construct_document(root) if root is not None else None
    except OSError as e:
        raise _invalid(path, str(e.strerror)) from None
    except UnicodeDecodeError:
        with open(path, "rb") as f:
            is_utf_16 = f.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        found, advice = ("in UTF-16", "save it as UTF-8") if is_utf_16 else (
            "no text in UTF-8", "a checkpoint goes with MODEL.WEIGHTS"
        )  # fmt: skip
        reason = f"it is {found}, expected a YAML or Python file in UTF-8 ({advice})"
        raise _invalid(path, reason) from None
    except yaml.YAMLError as e:
        for number, line in enumerate(text.splitlines(), 1):
            if re.match(r"(<{7}|>{7})( |$)|={7}$", line):
                reason = f"line {number}, {line!r}, is the mark of a merge that has a conflict"
                raise _invalid(path, f"{reason}, expected one of both versions") from None
            if wide := re.search(r"^[^#]*?([\uff01-\uff5e\u2018-\u201d])", line):
                reason = f"line {number} has {wide[1]!r}, a sign of another keyboard"
                raise _invalid(path, f"{reason}, expected that of YAML") from None
        raise _invalid(path, place(e)) from None
    except RecursionError:
        reason = "its lists or keys are nested too deeply, expected less than a hundred levels"
        raise _invalid(path, reason) from None
    if not isinstance(content, dict):
        found = "has no keys" if content is None else f"is of {type(content).__name__}"
        raise _invalid(path, f"it {found}, expected keys, such as MODEL")
    return content


def _problems(root: yaml.Node | None) -> Iterator[str]:
    """What YAML allows, or PyYAML does not notice, but a config cannot mean."""
    sizes: dict[int, int] = {}  # of each node, by its identity: what it holds where it is repeated
    open_nodes: set[int] = set()

    def visit(node: yaml.Node, is_node_of_config: bool, above: str = "") -> Iterator[str]:
        if id(node) in sizes:
            return
        if id(node) in open_nodes:
            yield f"an alias stands for what it is a part of (line {_line(node)})"
            return
        open_nodes.add(id(node))
        children: list[tuple[yaml.Node, str]] = []
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = key.value if isinstance(key, yaml.ScalarNode) else ""
                children += [(key, name), (value, f"{above}.{name}" if above else name)]
            is_node_of_config &= node.tag.endswith(":map")  # and no set, for example
            yield from _problems_of_keys([key for key, _ in node.value], is_node_of_config)
        elif isinstance(node, yaml.SequenceNode):
            children = [(x, above) for x in node.value]
        elif node.tag.endswith(":int") and len(node.value) > _LONGEST_NUMBER:
            yield (
                f"it has a whole number of {len(node.value)} digits in line {_line(node)}, "
                f"expected {_LONGEST_NUMBER} at most"
            )
        elif words := another_number(node):
            yield f"{above} is {node.value} in line {_line(node)}, {words}"
        for child, key in children:
            yield from visit(child, is_node_of_config and node.tag.endswith(":map"), key)
        open_nodes.remove(id(node))
        sizes[id(node)] = 1 + sum(sizes[id(x)] for x, _ in children)

    if root is None:
        return
    yield from visit(root, True)
    if sizes[id(root)] > len(sizes) + _MOST_COPIES:
        yield f"its aliases stand for {sizes[id(root)]} values, expected {_MOST_COPIES} at most"


def _problems_of_keys(keys: list[yaml.Node], have_to_be_names: bool) -> Iterator[str]:
    lines: dict[str, int] = {}
    for key in keys:
        if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
            continue
        name, line = key.value, _line(key)
        if have_to_be_names and key.tag.rpartition(":")[2] in ("int", "float", "bool", "null"):
            yield f"it has the key {shown(name)} in line {line}, expected a name"
        if not name.isprintable():  # as a no-break space, which a web page may have had
            yield (
                f"it has the key {shown(name)} in line {line}, with characters that are not seen, "
                "expected none but spaces, in front of it"
            )
        if name in lines:
            yield (
                f"it has the key {shown(name)} in line {lines[name]} and again in line {line}, "
                "expected once"
            )
        lines[name] = line


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _bases(path: str, content: dict) -> list[str]:
    """What a config says it is based on."""
    bases = content.get(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) and base for base in bases):
        raise _invalid(path, f"its {BASE_KEY} is no path, expected that of a .yaml file")
    return bases


def _check_base(path: str, base: str, trusted: tuple[Path, ...]) -> None:
    folder = Path(path).parent
    target = Path(os.path.realpath(folder / base))  # which does not mind links in a circle
    belongs = not Path(base).is_absolute() or any(
        target.is_relative_to(x.resolve()) for x in (folder, *trusted)
    )
    if "://" in base or base.startswith("~") or not belongs or target.suffix not in _SUFFIXES:
        raise _invalid(
            path,
            f"its {BASE_KEY} is {base!r}, expected the path of a .yaml file relative to it, or a "
            "file of Detectron2's model zoo",
        )
    if reason := wrong_file(target):
        hint = ", expected / between folders" if "\\" in base else ""
        raise _invalid(path, f"its {BASE_KEY}, {target}, {reason}{hint}")
