import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svd.data.stream.order import StreamOrder
from svd.data.stream.permutation import Permutation
from svd.errors import ConfigError


@given(size=st.integers(1, 700), key=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_every_index_comes_exactly_once(size: int, key: int) -> None:
    permutation = Permutation(size, key)
    assert sorted(permutation(i) for i in range(size)) == list(range(size))


@given(size=st.integers(1, 3000), key=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_the_whole_order_is_that_of_the_positions_one_by_one(size: int, key: int) -> None:
    permutation = Permutation(size, key)
    assert permutation.whole().tolist() == [permutation(i) for i in range(size)]


def test_size_of_hundreds_of_millions_costs_no_table() -> None:
    permutation = Permutation(152_000_000, 3)
    found = {permutation(i) for i in range(1000)}
    assert len(found) == 1000
    assert all(0 <= index < 152_000_000 for index in found)


def test_neighbours_are_sent_far_apart() -> None:
    # Mean distance of two independent uniform draws from range(n) is n / 3.
    permutation = Permutation(100_000, 1)
    order = np.array([permutation(i) for i in range(5000)])
    assert abs(np.abs(np.diff(order)).mean() / 100_000 - 1 / 3) < 0.02


def test_first_element_is_uniform_over_keys() -> None:
    counts = np.bincount([Permutation(10, key)(0) for key in range(5000)], minlength=10)
    chi_square = ((counts - 500) ** 2 / 500).sum()
    assert chi_square < 27.9  # 99.9 % quantile of chi square with 9 degrees of freedom


@pytest.mark.parametrize("position", [-1, 5])
def test_position_outside_is_refused(position: int) -> None:
    with pytest.raises(IndexError, match=r"not in 0\.\.4"):
        Permutation(5, 0)(position)


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    shards_mixed=st.integers(1, 13),
    seed=st.integers(0, 1000),
    epoch=st.integers(0, 3),
)
@settings(max_examples=80, deadline=None)
def test_each_epoch_visits_every_example_once(
    counts: list[int], shards_mixed: int, seed: int, epoch: int
) -> None:
    order = StreamOrder(counts, seed=seed, shards_mixed=shards_mixed)
    total = sum(counts)
    found = [order.locate(epoch * total + i) for i in range(total)]
    assert {address.epoch for address in found} == {epoch}
    expected = [(shard, i) for shard, count in enumerate(counts) for i in range(count)]
    assert sorted((address.shard, address.example) for address in found) == expected


def test_epochs_differ_from_each_other() -> None:
    order = StreamOrder([20, 20], seed=0, shards_mixed=2)
    assert [order.locate(i)[1:] for i in range(40)] != [order.locate(40 + i)[1:] for i in range(40)]


def test_no_more_shards_are_in_use_at_a_time_than_are_mixed() -> None:
    order = StreamOrder([10] * 12, seed=5, shards_mixed=3)
    for group in range(4):
        window = {order.locate(group * 30 + i).shard for i in range(30)}
        assert len(window) == 3


def test_flat_index_runs_through_the_shards_in_order() -> None:
    order = StreamOrder([2, 0, 3], seed=5, shards_mixed=3)
    assert [order.flat(i)[1:] for i in range(5)] == [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]


def test_nothing_to_draw_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="no example to draw"):
        StreamOrder([0, 0], seed=0, shards_mixed=1)
