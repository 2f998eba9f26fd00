"""A study file (TOML) to a :class:`~delphi_jax.definition.Definition`; whatever is wrong with it is an InputError.

With ``extends = NAME`` at its top a file says only in what it differs from a study that the package carries. Its tables
(``[sweep]``) are laid over that study's key by key; all else stands in for what that study says as a whole: lists,
such as ``[[suites]]`` and ``targets``, and what is nested in a table.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delphi_jax.definition import Definition
from delphi_jax.status import InputError
from delphi_jax.text import shown

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = [
    "STUDY_FILE",
    "is_shipped",
    "key_lines",
    "parse_definition",
    "read_definition",
    "read_shipped",
    "shipped_studies",
    "study_bytes",
]

STUDY_FILE = "study.toml"
"""Name of the study file of a data folder."""

_SHIPPED = Path(__file__).resolve().parents[1] / "studies"
_EXTENDS = "extends"
_MOST_BYTES = 1_000_000
_MAX_FAULTS = 5

Key = tuple[str | int, ...]


@dataclass(frozen=True)
class _Layer:
    """One study file as it was read."""

    source: str
    """What errors call it."""
    text: str
    document: Mapping[str, Any]


def shipped_studies() -> list[str]:
    """Names of the studies that the package carries."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def is_shipped(study: str | Path) -> bool:
    """Whether ``study`` names a study that the package carries; a file of that name comes first."""
    return str(study) in shipped_studies() and not Path(study).is_file()


def read_shipped(name: str) -> Definition:
    """A study that the package carries."""
    return parse_definition(*_shipped(name))


def study_bytes(study: Path) -> bytes:
    """The content of a study file, or of the study that the package carries under that name.

    Raises InputError where there is neither, or it cannot be read.
    """
    path = _SHIPPED / f"{study}.toml" if is_shipped(study) else study
    try:
        return path.read_bytes()
    except IsADirectoryError:
        raise InputError(f"{path}: is a directory, expected a study file (TOML)") from None
    except FileNotFoundError as error:
        names = ", ".join(shipped_studies())
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give a study file, or the name of a shipped study: {names}"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _shipped(name: str) -> tuple[str, str]:
    """Text of a study that the package carries, and what errors call it."""
    path = _SHIPPED / f"{name}.toml"
    return path.read_text(encoding="utf-8"), f"{path.name} (shipped)"


def read_definition(path: Path) -> Definition:
    """Read one study file, or the study of that name that the package carries.

    Raises InputError, with the line, where it cannot be read or says what does not fit.

    Examples:

    >>> import tempfile
    >>> from pathlib import Path
    >>> import delphi_jax as dj
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "study.toml"
    ...     _ = path.write_text('name = "pilot"')
    ...     definition = dj.read_definition(path)
    >>> definition.name, definition.metric.name
    ('pilot', 'loss')
    """
    if is_shipped(path):
        return read_shipped(str(path))
    content = study_bytes(path)
    if len(content) > _MOST_BYTES:
        raise InputError(f"{path}: holds {len(content)} bytes, a study file at most {_MOST_BYTES}: give the TOML file")
    try:
        text = content.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line} is not UTF-8 text ({error.reason}); save the file as UTF-8") from None
    return parse_definition(text, str(path))


def parse_definition(text: str, source: str) -> Definition:
    """The definition that a study file's ``text`` holds; ``source`` is what errors call the file."""
    from pydantic import ValidationError

    layers = _layers(text, source)
    document = _merged([layer.document for layer in layers])
    if "source" in document:
        raise _refuse(layers, document, [{"type": "unexpected_keyword_argument", "loc": ("source",)}])
    try:
        # By way of JSON, whose lists and objects are tuples and dataclasses even where types are taken strictly.
        found = _adapter().validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        raise _refuse(layers, document, error.errors(include_url=False)) from None
    return dataclasses.replace(found, source=source)


def _layers(text: str, source: str) -> list[_Layer]:
    """The study file, the one that it extends, and so on."""
    layers: list[_Layer] = []
    passed: list[str] = []
    while True:
        document = _document(text, source)
        name = document.pop(_EXTENDS, None)
        layers.append(_Layer(source, text, document))
        if name is None:
            return layers
        studies = shipped_studies()
        fault = ""
        if not isinstance(name, str) or name not in studies:
            fault = f"found {shown(name)}, expected the name of a shipped study: {', '.join(studies)}"
        elif name in passed:
            fault = f"{name!r} comes back to itself ({' -> '.join([*passed, name])}); leave it out"
        if fault:
            line = key_lines(text).get((_EXTENDS,), 0)
            raise InputError(f"{source}: 1 key cannot be used\n  line {line}, {_EXTENDS}: {fault}")
        passed.append(name)
        text, source = _shipped(name)


def _merged(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The first of ``documents`` over the second and so on: tables key by key, all else as a whole."""
    merged: dict[str, Any] = {}
    for document in reversed(documents):
        for key, value in document.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = merged[key] | value if both else value
    return merged


def _document(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source}: is not valid TOML: {_lower(str(error))}; correct that line") from None
    except RecursionError:
        raise InputError(f"{source}: is nested too deeply; a study file needs 4 levels at most") from None
    except ValueError:
        # Python converts integers of up to 4300 digits.
        raise InputError(f"{source}: holds a number with too many digits; write it as 1e21") from None


@functools.cache
def _adapter() -> TypeAdapter[Definition]:
    from pydantic import TypeAdapter

    return TypeAdapter(Definition)


def _refuse(layers: Sequence[_Layer], document: Mapping[str, Any], errors: list[Any]) -> InputError:
    """The error that says of the first few faults where they are, what was found and what was expected."""
    lines = [key_lines(layer.text) for layer in layers]
    faults: dict[Key, list[Any]] = {}
    for error in errors:
        faults.setdefault(_key(document, error), []).append(error)
    # A list of which an item is wrong is also too short without it.
    faults = {key: some for key, some in faults.items() if not any(k != key and k[: len(key)] == key for k in faults)}
    told = []
    for key, some in faults.items():
        place = _layer_of(layers, key)
        told.append((place, _line(lines[place], key), f"{_words(key)}: {_fault(document, key, some)}"))
    out = [f"{layers[0].source}: {len(told)} key{'s' * (len(told) != 1)} cannot be used"]
    for place, line, words in sorted(told)[:_MAX_FAULTS]:
        where = f"line {line}{f' of {layers[place].source}' if place else ''}, " if line else ""
        out.append(f"  {where}{words}")
    if len(told) > _MAX_FAULTS:
        out.append(f"  and {len(told) - _MAX_FAULTS} more")
    return InputError("\n".join(out))


def _layer_of(layers: Sequence[_Layer], key: Key) -> int:
    """The file that says what stands at ``key`` of the merged document, or in the table around it."""
    said = [place for place, layer in enumerate(layers) if key and key[0] in layer.document]
    for place in said:
        value = layers[place].document[key[0]]  # type: ignore[index]
        if len(key) == 1 or not isinstance(value, dict) or key[1] in value:
            return place
    return said[0] if said else 0


def _key(document: Any, error: Any) -> Key:
    """Where an error lies in the document, without pydantic's own steps (members of unions, keys of mappings)."""
    path = [*error["loc"], *getattr(error.get("ctx", {}).get("error"), "path", ())]
    key: list[str | int] = []
    for step in path:
        inside = isinstance(document, Mapping) and step in document
        if not inside and not (isinstance(document, list) and isinstance(step, int) and step < len(document)):
            if error["type"] in ("missing", "value_error") and isinstance(step, str):
                key.append(step)
            break
        key.append(step)
        document = document[step]
    return tuple(key)


def _fault(document: Any, key: Key, errors: list[Any]) -> str:
    """What is wrong with one key."""
    kind = errors[0]["type"]
    if kind == "value_error":
        return str(errors[0]["ctx"]["error"])
    if kind == "missing":
        return "is missing; add it"
    if kind == "unexpected_keyword_argument" or "[key]" in errors[0]["loc"]:
        return _unknown(key)
    value = document
    for step in key:
        value = value[step]
    if kind == "tuple_type" and isinstance(value, dict):
        return f"is one table, expected a list of them; write [[{_words(key)}]]"
    expected = dict.fromkeys(_EXPECTED.get(e["type"], _lower(e["msg"])).format(**e.get("ctx", {})) for e in errors)
    return f"found {shown(value)}, expected {' or '.join(expected)}"


_EXPECTED = {
    "string_type": "text",
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dataclass_type": "a table",
    "dict_type": "a table",
    "mapping_type": "a table",
    "literal_error": "{expected}",
    "finite_number": "a finite number",
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number less than {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "string_too_short": "text of at least {min_length} character",
    "string_too_long": "text of at most {max_length} characters",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
}
"""What was expected, by kind of pydantic's error."""


def _unknown(key: Key) -> str:
    known = _known_keys(key[:-1])
    near = difflib.get_close_matches(str(key[-1]), known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"the keys here are {', '.join(known)}"
    return f"is not a key that is known; {hint}"


def _known_keys(key: Key) -> list[str]:
    """The keys that may stand in the table at ``key``."""
    kind: Any = Definition
    for step in key:
        if isinstance(step, str):
            hint = typing.get_type_hints(kind)[step]
            kind = next((part for part in _parts(hint) if dataclasses.is_dataclass(part)), hint)
    if dataclasses.is_dataclass(kind):
        names = [each.name for each in dataclasses.fields(kind) if (kind, each.name) != (Definition, "source")]
        return [*names, _EXTENDS] if kind is Definition else names
    return [
        name for part in _parts(kind) if typing.get_origin(part) is typing.Literal for name in typing.get_args(part)
    ]


def _parts(hint: Any) -> Iterator[Any]:
    """A type and all that it is made of."""
    yield hint
    for part in typing.get_args(hint) if typing.get_origin(hint) is not typing.Literal else ():
        yield from _parts(part)


def _words(key: Key) -> str:
    """A key as a reader says it: "suites[2].label", counted from 1."""
    words = ""
    for step in key:
        words += f"[{step + 1}]" if isinstance(step, int) else f"{'.' * bool(words)}{_plain(step)}"
    return words or "the file"


def _plain(step: str) -> str:
    return step if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", step) else shown(step)


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _line(lines: Mapping[Key, int], key: Key) -> int:
    """The line of ``key``, or of the nearest table around it that has one; 0 without any."""
    return next((lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in lines), 0)


_NAME = r"""(?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*')"""
_STATEMENT = re.compile(rf"[ \t]*(?P<open>\[{{0,2}})[ \t]*(?P<key>{_NAME}(?:[ \t]*\.[ \t]*{_NAME})*)")
_PART = re.compile(_NAME)
_TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"""+|\'\'\'.*?\'\'\'+|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|#[^\n]*|[\[\]{}\n]''', re.DOTALL
)


def key_lines(text: str) -> dict[Key, int]:
    """The line, from 1, at which each table and key of a valid TOML ``text`` begins.

    Keys of inline tables, and items of lists, stand where the key that holds them does.
    """
    lines: dict[Key, int] = {}
    counts: dict[Key, int] = {}
    table: Key = ()
    place, line = 0, 1
    while place < len(text):
        if found := _STATEMENT.match(text, place):
            names = tuple(_unquoted(part) for part in _PART.findall(found["key"]))
            if found["open"]:
                table = _indexed((), names, counts)
                if found["open"] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    lines.setdefault(table, line)
                    table = (*table, counts[table])
                key = table
            else:
                key = (*table, *names)
            for n in range(len(key), 0, -1):
                lines.setdefault(key[:n], line)
            place = found.end()
        depth = -len(found["open"]) if found and found["open"] else 0
        if depth:
            depth = 0
            place = text.find("]", place) + len(found["open"])
        while token := _TOKEN.search(text, place):
            place = token.end()
            line += token[0].count("\n")
            depth += (token[0] in ("[", "{")) - (token[0] in ("]", "}"))
            if token[0] == "\n" and depth <= 0:
                break
        else:
            break
    return lines


def _indexed(start: Key, names: tuple[str, ...], counts: Mapping[Key, int]) -> Key:
    """A header's key with the index of the latest item wherever it passes through an array of tables."""
    key = start
    for i, name in enumerate(names):
        key = (*key, name)
        if key in counts and i < len(names) - 1:
            key = (*key, counts[key])
    return key


def _unquoted(name: str) -> str:
    return next(iter(tomllib.loads(f"{name} = 0")))
