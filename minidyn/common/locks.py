"""What threads share: properties that are made once, without a lock, and locks that a fork waits for."""

import functools
import os
import threading
from typing import TYPE_CHECKING, Any


def fork_safe_lock() -> Any:
    """A lock that no child finds taken: `fork` waits for it. A child would wait for ever for a thread of its parent."""
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


if TYPE_CHECKING:
    from functools import cached_property as cached_property
else:

    class cached_property(functools.cached_property):
        """That of Python 3.12 and later: the older one has a lock for all objects, which the child of a process whose
        threads compute finds taken. Two threads may compute a value; both get the first one."""

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            kept, name = vars(instance), self.attrname
            return kept[name] if name in kept else kept.setdefault(name, self.func(instance))
