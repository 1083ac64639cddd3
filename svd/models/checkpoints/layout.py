"""What a layout writes: files by relative path, held as unread tensors or as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from svd.models.checkpoints.tensor_file import LazyTensor


@dataclass(frozen=True, slots=True)
class TensorFile:
    """One safetensors file to be written."""

    tensors: Mapping[str, LazyTensor]
    metadata: Mapping[str, str] = field(default_factory=dict)


JsonFile = Mapping[str, object]
Files = Mapping[str, TensorFile | JsonFile]
