"""Values that threads share are made once, and failures are not remembered."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from svd.data.stream.shared_cache import SharedCache
from svd.errors import IntegrityError


def test_threads_that_ask_at_once_get_what_one_of_them_makes() -> None:
    began, may_end, made = threading.Event(), threading.Event(), []

    def make(key: str) -> object:
        began.set()
        assert may_end.wait(60)
        made.append(key)
        return object()

    cache = SharedCache(make, max_size=2)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(cache, "a") for _ in range(4)]
        assert began.wait(60)
        may_end.set()
        found = {id(one.result()) for one in asked}
    assert made == ["a"]
    assert len(found) == 1


def test_the_value_used_longest_ago_goes_first() -> None:
    made: list[int] = []
    cache = SharedCache(lambda key: made.append(key) or key, max_size=2)
    for key in (1, 2, 1, 3, 1, 2):
        assert cache(key) == key
    assert made == [1, 2, 3, 2]


def test_what_fails_is_tried_again() -> None:
    fails = [True]

    def make(key: int) -> int:
        if fails.pop() if fails else False:
            raise IntegrityError("torn")
        return key

    cache = SharedCache(make, max_size=2)
    with pytest.raises(IntegrityError, match="torn"):
        cache(1)
    assert cache(1) == 1
