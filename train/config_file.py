"""Config files: the options of a training in flat TOML, its keys named as the command's options."""

from __future__ import annotations

import difflib
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_origin

from nst.config import ObjectiveConfig
from nst.errors import NstError, UsageError, needs_extra
from nst.io.files import replacing
from nst.options import OptionField, option_fields
from nst.train.config import TrainConfig

# Every key: the name of an option of the command.
KEYS: dict[str, OptionField] = {option.name: option for option in option_fields(TrainConfig)}
_ERRORS = sys.getfilesystemencodeerrors()  # a file's name need not be valid text
_HEAD = (
    "# Options of nst-train, for  nst-train --config FILE.  Paths start at this file's folder.\n"
)


def make_config(options: Mapping[str, Any]) -> TrainConfig:
    """Make a config of flat options; those not given keep their defaults.

    Raises:
        UsageError: a value makes no sense.
    """
    if options.get("style_weight") is not None and options.get("style_strength", 1) != 1:
        raise UsageError("style weight and style strength are both given: choose one")
    style = {"style": (), **options}
    chosen: dict[type, dict[str, Any]] = {TrainConfig: {}, ObjectiveConfig: {}}
    for name, value in style.items():
        chosen[KEYS[name].owner][KEYS[name].field] = value
    return TrainConfig(objective=ObjectiveConfig(**chosen[ObjectiveConfig]), **chosen[TrainConfig])


def flat_options(config: TrainConfig) -> dict[str, Any]:
    """Flatten a config: the inverse of `make_config`, complete."""
    values = {**vars(config), **vars(config.objective)}
    return {name: values[option.field] for name, option in KEYS.items()}


def save_config(path: Path, config: TrainConfig) -> None:
    """Write all options but those that are None; paths become relative to `path`.

    Raises:
        NstError: the file can't be written.
        MissingExtraError: tomli-w isn't installed.
    """
    with needs_extra("saving a config file"):
        import tomli_w

    options = _move_paths(flat_options(config), lambda value: _relative(value, path.parent))
    given = {key: _plain(value) for key, value in options.items() if value is not None}
    data = (_HEAD + tomli_w.dumps(given)).encode("utf-8", _ERRORS)
    with replacing(path) as beside:
        beside.write_bytes(data)


def load_config(path: Path) -> dict[str, Any]:
    """Load the options of a file, for `make_config`; relative paths start at its folder.

    Raises:
        NstError: the file can't be read.
        UsageError: it is no TOML, a key is unknown, or a value makes no sense; the message names
            file and key.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise NstError(f"{path} does not exist: name a config file") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise NstError(f"cannot read {path}: {error}") from error
    try:
        found = tomllib.loads(data.decode("utf-8-sig", _ERRORS))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML that can be read: {error}") from error
    try:
        options = {key: _value(key, value) for key, value in found.items()}
        # Check the values here, where the message can name the file.
        some = (Path(),) * max(1, len(options.get("style_weights", ())))
        make_config({"style": some, **options})
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    return _move_paths(options, lambda value: os.path.normpath(path.parent / value))


def merge_options(file: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the options `given` with those of a file, which they replace.

    Steps also replace seconds and the style's strength its weight, and the reverse; a style
    replaces the weights, title, artist and year of the file's style.
    """
    replaced: set[str] = set()
    for pair in (("steps", "seconds"), ("style_weight", "style_strength")):
        if not given.keys().isdisjoint(pair):
            replaced.update(pair)
    if "style" in given:
        replaced.update(("style", "style_weights", "title", "artist", "year"))
    return {**{key: value for key, value in file.items() if key not in replaced}, **given}


def _value(key: str, value: object) -> Any:
    """Check a value of the file against the type of its field."""
    if key not in KEYS:
        renamed = [option.name for option in KEYS.values() if option.field == key]
        near = renamed or difflib.get_close_matches(key, KEYS, 1)
        mend = f"did you mean {near[0]}?" if near else "see nst-train --help for the options"
        raise UsageError(f"there is no option {key}: {mend}")
    with needs_extra("a config file"):
        from pydantic import TypeAdapter, ValidationError
    kind = KEYS[key].type
    if get_origin(kind) is tuple:
        value = tuple(value) if isinstance(value, list) else (value,)  # one needs no brackets
    try:  # strict: pydantic else takes "3" for 3 and true for 1; a path is text in TOML
        return TypeAdapter(kind).validate_python(value, strict="Path" not in str(kind))
    except ValidationError as error:
        found = error.errors()[0]
        text = repr(found["input"])[:60]
        why = found["msg"].removeprefix("Input ")
        raise UsageError(f"{key} is {text}: it {why[0].lower()}{why[1:]}") from error


def _move_paths(options: Mapping[str, Any], move: Callable[[str], str]) -> dict[str, Any]:
    """Change every path among the options; words such as `coco` stay."""
    moved = dict(options)
    if "style" in options:
        moved["style"] = tuple(Path(move(str(path))) for path in options["style"])
    for key, word in (("content", "coco"), ("out", None), ("teacher", "optimizer")):
        value = options.get(key)
        if value is not None and str(value) != word:
            moved[key] = type(value)(move(str(value)))
    file, _, kind = options.get("vgg", "").rpartition(":")
    if file:
        moved["vgg"] = f"{move(file)}:{kind}"
    return moved


def _plain(value: Any) -> Any:
    """Convert a value to a type of TOML."""
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value.as_posix() if isinstance(value, Path) else value


def _relative(value: str, folder: Path) -> str:
    try:
        return os.path.relpath(value, folder)
    except ValueError:  # another drive
        return str(Path(value).absolute())
