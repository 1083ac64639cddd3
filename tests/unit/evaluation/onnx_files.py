"""ONNX graphs by hand: the mean of each channel, in the few protobuf fields that it takes."""


def _varint(value: int) -> bytes:
    out = b""
    while True:
        low, value = value & 0x7F, value >> 7
        out += bytes([low | (0x80 if value else 0)])
        if not value:
            return out


def _field(number: int, content: bytes | str | int) -> bytes:
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    content = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _value_info(name: str, dims: list[str | int]) -> bytes:
    shape = b"".join(_field(1, _field(2 if isinstance(dim, str) else 1, dim)) for dim in dims)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, shape)))


def channel_means(num_axes: int) -> bytes:
    """Return a graph from "n 3 ..." of so many axes to the means "n 3"."""
    axes = b"".join(_field(8, axis) for axis in range(2, num_axes))
    attributes = _field(5, _field(1, "axes") + axes + _field(20, 7))
    attributes += _field(5, _field(1, "keepdims") + _field(3, 0) + _field(20, 2))
    node = _field(1, "x") + _field(2, "y") + _field(4, "ReduceMean") + attributes
    inner: list[str | int] = [f"d{axis}" for axis in range(2, num_axes)]
    graph = _field(1, node) + _field(2, "means")
    graph += _field(11, _value_info("x", ["n", 3, *inner])) + _field(12, _value_info("y", ["n", 3]))
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13))
