"""What threads share: properties that are made once, without a lock, and locks that a fork waits for.

What follows from the form of an object alone, whatever its numbers (`derived`), is made once for all of that form.
"""

import functools
import os
import threading
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any


def fork_safe_lock() -> Any:
    """A lock that no child finds taken: `fork` waits for it. A child would wait for ever for a thread of its parent."""
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


class Form:
    """What an object is but for its numbers: a key, hashed once, that equals those with equal parts."""

    __slots__ = ("hashed", "parts")

    def __init__(self, *parts: Any):
        self.parts, self.hashed = parts, hash(parts)

    def __hash__(self) -> int:
        return self.hashed

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Form) and self.hashed == other.hashed and self.parts == other.parts


_MOST = 1024  # results that are kept
_shared: dict[Any, Any] = {}


def shared(key: Any, make: Callable[[], Any]) -> Any:
    """What `make` returned when it was first asked for under this key; what is longest known goes when there is more
    than a process needs."""
    try:
        return _shared[key]
    except KeyError:
        pass
    made = _shared.setdefault(key, make())
    if len(_shared) > _MOST:
        for old in list(islice(_shared, _MOST // 4)):
            _shared.pop(old, None)
    return made


def form(*parts: Any) -> Form:
    """The form with these parts: the same object for equal ones, so that a comparison is a look."""
    made: Form = Form(*parts)
    made = shared(made, lambda: made)
    return made


if TYPE_CHECKING:
    from functools import cached_property as cached_property
    from functools import cached_property as derived
else:

    class cached_property(functools.cached_property):
        """That of Python 3.12 and later: the older one has a lock for all objects, which the child of a process whose
        threads compute finds taken. Two threads may compute a value; both get the first one."""

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            kept, name = vars(instance), self.attrname
            return kept[name] if name in kept else kept.setdefault(name, self.func(instance))

    class derived(cached_property):
        """A cached property that follows from the object's `form`: made once for all objects of that form."""

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            kept, name = vars(instance), self.attrname
            if name in kept:
                return kept[name]
            return kept.setdefault(name, shared((self.func, instance.form), lambda: self.func(instance)))
