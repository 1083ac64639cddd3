"""Arrays in shards: read as NumPy reads them, without its parser."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svd.data.stream.examples import _from_npy, _npy
from svd.errors import IntegrityError


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_an_array_comes_back_as_numpy_would_read_it(shape: list[int]) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype(np.float16)
    content = _npy(array)
    assert np.array_equal(_from_npy(content), np.load(io.BytesIO(content)))
    assert _from_npy(content).shape == tuple(shape)


@pytest.mark.parametrize(
    "array", [np.zeros(3), np.zeros((2, 2), np.float16, order="F"), np.zeros(2, ">f2")]
)
def test_another_kind_of_array_is_refused(array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    with pytest.raises(IntegrityError, match="are not an array of half-precision numbers"):
        _from_npy(buffer.getvalue())
