"""Objects that are what they were made of: they travel (pickle, copy, other processes) and compare by that alone.

What was computed from it, cached properties with their compiled kernels and addresses, stays behind and is made again
where it is needed, to the same bits.
"""

from abc import ABCMeta
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from minidyn.common.locks import cached_property


class Named(ABCMeta):
    """Classes that offer at the keyboard (`dir`, tab completion, `help`) what they and their bases name in `_offers`,
    and what classes of the user's own add, abstract ones too; all that they have where nothing is named."""

    def __dir__(cls) -> list[str]:
        return cls._offered(super().__dir__())

    def _offered(cls, names: Iterable[str], own: Iterable[str] = ()) -> list[str]:
        """Those of the names that are public; `own` are an object's."""
        named = [vars(c)["_offers"] for c in cls.__mro__ if "_offers" in vars(c)]
        if not named:
            return list(names)
        foreign = [c for c in cls.__mro__ if c is not object and c.__module__.split(".")[0] != __name__.split(".")[0]]
        public = {*" ".join(named).split(), *(name for c in foreign for name in (*vars(c), *own))}
        return [name for name in names if name.startswith("_") or name in public]


class ByValue(metaclass=Named):
    """Equal where type and ingredients are, whatever was computed since; pickled and copied without what was computed.

    `_leaves_behind` names further attributes that are made again when they are missing.
    """

    _leaves_behind: tuple[str, ...] = ()

    def __dir__(self) -> list[str]:
        return type(self)._offered(super().__dir__(), vars(self))

    def __getstate__(self) -> dict[str, Any]:
        cls = type(self)
        return {
            name: value
            for name, value in vars(self).items()
            if name not in cls._leaves_behind and not isinstance(getattr(cls, name, None), cached_property)
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def _ingredients(self) -> dict[str, Any]:
        state = self.__getstate__()
        apart: set[str] = {f.name for f in fields(self) if not f.compare} if is_dataclass(self) else set()
        return {name: value for name, value in state.items() if name not in apart}

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, ByValue):
            return NotImplemented
        return self is other or same(self._ingredients(), other._ingredients())

    def __hash__(self) -> int:
        parts = self._ingredients().values()
        kept = [v for v in parts if isinstance(v, (str, int, ByValue)) or hasattr(type(v), "free_symbols")]
        return hash((type(self).__qualname__, *(v for v in kept if isinstance(v, Hashable))))


def ingredients(value: ByValue) -> dict[str, Any]:
    """By name, what an object is made of."""
    return value._ingredients()


def same(a: Any, b: Any) -> bool:
    """Whether two values are alike to the last bit: arrays entry by entry with their types, NaN like NaN."""
    if a is b:
        return True
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return _same_arrays(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if is_dataclass(a) and type(a) is type(b) and not isinstance(a, ByValue):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b)
    if isinstance(a, (bool, np.bool_)) != isinstance(b, (bool, np.bool_)):
        return False
    try:
        return bool(a == b)
    except Exception:  # whatever cannot be compared is not known to be the same
        return False


def _same_arrays(a: Any, b: Any) -> bool:
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)) or a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype == object:
        return all(map(same, a.flat, b.flat))
    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


class Remembering(ByValue):
    """Knows what it was made with beside its map, its first argument, so that it can be made of another one."""

    _made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """The object, before it is initialized."""
        made = super().__new__(cls)
        made._made_with = (args[1:], {name: v for name, v in options.items() if name != "system"})
        return made
