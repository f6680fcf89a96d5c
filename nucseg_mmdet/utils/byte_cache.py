"""What was asked for last, kept up to a number of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np

Item = TypeVar('Item', bytes, np.ndarray)


class ByteCache(Generic[Item]):
    """The results that were asked for last, for several threads.

    Args:
        limit: bytes that they have together; the last one stays, however large.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._items: OrderedDict[Hashable, Item] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Item]) -> Item:
        """Return what is known by a key, made if there is nothing.

        Threads that ask for the same at once may each make it: making is not locked.
        """
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
        item = make()
        with self._lock:
            if key not in self._items:
                self._items[key] = item
                self._size += _num_bytes(item)
            while self._size > self._limit and len(self._items) > 1:
                self._size -= _num_bytes(self._items.popitem(last=False)[1])
        return item

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._items.clear()
            self._size = 0


def _num_bytes(item: bytes | np.ndarray) -> int:
    return item.nbytes if isinstance(item, np.ndarray) else len(item)
