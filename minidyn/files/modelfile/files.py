"""Model files: where they are, and the road from one to a `ModelSpec`."""

import os
import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from minidyn.common.errors import ModelFileError
from minidyn.common.intake import shown
from minidyn.common.shipped import shipped
from minidyn.files.modelfile import sections
from minidyn.files.modelfile.place import first_file
from minidyn.files.modelfile.spec import ModelSpec
from minidyn.files.modelfile.table import Table
from minidyn.files.modelfile.wording import did_you_mean

MAX_BYTES = 1_000_000
_KEYS = ("title", "description", "reference", "loss", "rule", "noise", "manifold", "experiment", "scaling")


def list_models() -> list[str]:
    """Names of the models that come with minidyn, sorted.

    >>> import minidyn as md
    >>> "valley" in md.list_models()
    True
    """
    return sorted(Path(found.name).stem for found in shipped("models").iterdir() if found.name.endswith(".toml"))


def find_model(name_or_path: str | Path) -> Path | Traversable:
    """The file of a model of the library (`"valley"`), or of a path (`"my/valley.toml"`).

    Raises `ModelFileError` with the known names where there is none.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise ModelFileError(f"A model is named by a text or a path, not by {shown(name_or_path)}.")
    name, path = str(name_or_path), Path(name_or_path)
    if name in list_models():
        return shipped("models").joinpath(f"{name}.toml")
    if found := first_file([Path()], name):
        return found
    if path.suffix or len(path.parts) != 1:
        raise ModelFileError(f"There is no model file {shown(name)}; give a TOML file or a name of the library.")
    names = list_models()
    near = did_you_mean(name, names)
    listed = f" The library has {', '.join(names)}." if near.endswith("?") else ""
    raise ModelFileError(f"There is no model called {shown(name)}{near}{listed}")


def read_model(name_or_path: str | Path) -> ModelSpec:
    """Everything that a model file says, checked. Raises `ModelFileError`: the file, the key, the cure."""
    path = find_model(name_or_path)
    try:
        if isinstance(path, Path) and path.stat().st_size > MAX_BYTES:
            raise ModelFileError(f"{path}: the file is above {MAX_BYTES} bytes; put its data in a CSV file.")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ModelFileError(f"{path}: this is not text in UTF-8; a model file is TOML.") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from None
    return _from_text(text, str(path), Path(path.name).stem, path if isinstance(path, Path) else None)


def read_model_text(text: str, name: str = "model") -> ModelSpec:
    """`read_model` for text at hand; CSV files named in it are looked for in the package only."""
    return _from_text(text, name, name, None)


def _from_text(text: str, source: str, name: str, path: Path | None) -> ModelSpec:
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ModelFileError(f"{source}: this is not TOML: {reason}.") from None
    _check_integers(content, source)
    root = Table(source, "", content, _KEYS)
    loss = sections.read_loss(root, path.parent if path is not None else None)
    return ModelSpec(
        name=name,
        title=root.get("title", str, name),
        description=root.get("description", str, "").strip(),
        reference=" ".join(root.get("reference", str, "").split()),
        text=text,
        path=path,
        loss=loss,
        rule=sections.read_rule(root),
        noise=sections.read_noise(root, loss),
        manifold=sections.read_manifold(root, loss),
        experiment=sections.read_experiment(root, loss),
        scaling=sections.read_scaling(root, loss),
    )


def _check_integers(content: Any, source: str) -> None:
    """Refuse integers beyond 64 bits, which TOML does not have: nobody could print some of them."""
    todo = [("", content)]
    while todo:
        key, value = todo.pop()
        if isinstance(value, dict):
            todo += [(f"{key}.{name}".lstrip("."), item) for name, item in value.items()]
        elif isinstance(value, list):
            todo += [(key, item) for item in value]
        elif isinstance(value, int) and value.bit_length() > 64:
            raise ModelFileError(f"{source}: `{key}` holds an integer of {value.bit_length()} bits; 64 is the most.")
