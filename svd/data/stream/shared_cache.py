"""What several threads ask for at once is made once."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SharedCache(Generic[K, V]):
    """The values used last, each made by the first thread that asks; others wait for it.

    functools.lru_cache holds no lock while it computes: every thread that asks meanwhile would
    parse the same index, or order the same epoch, again. What fails is not kept.
    """

    def __init__(self, make: Callable[[K], V], *, max_size: int) -> None:
        """Begin empty.

        Args:
            make: Returns the value of a key.
            max_size: Values kept.
        """
        self._make = make
        self._max_size = max_size
        self._values: OrderedDict[K, Future[V]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, key: K) -> V:
        """Return the value of a key; what `make` raises is raised for all who wait."""
        with self._lock:
            is_first = key not in self._values
            value = self._values.setdefault(key, Future())
            self._values.move_to_end(key)
            if len(self._values) > self._max_size:
                self._values.popitem(last=False)
        if is_first:
            self._fill(key, value)
        return value.result()

    def _fill(self, key: K, value: "Future[V]") -> None:
        try:
            value.set_result(self._make(key))
        except BaseException as err:  # noqa: BLE001 (whoever waits must hear of it)
            with self._lock:
                if self._values.get(key) is value:
                    del self._values[key]
            value.set_exception(err)
