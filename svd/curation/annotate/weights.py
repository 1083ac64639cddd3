"""Which weights the annotators of a recipe need, where they lie, and what they hash to.

Everything is looked up before any work begins, so a missing file costs a sentence and no hours.
"""

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from svd.config.annotation_models import CaptionConfig, ClipModelConfig, HeadName
from svd.config.curation import AnnotateConfig, ModelsConfig
from svd.curation.annotate.heads import PUBLISHED, PublishedHead
from svd.errors import IntegrityError, MissingInputError
from svd.runtime.fingerprint import file_sha256

OPEN_CLIP_CONFIG = "open_clip_config.json"
_WITHOUT = "all other annotations go on without it"


class Weights(NamedTuple):
    """A file or a folder of weights."""

    path: Path
    version: str  # "sha256:" and 16 hex digits, of the bytes


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """What a recipe's networks are read from; None where the recipe names none."""

    clip: Weights | None = None
    heads: tuple[tuple[HeadName, Weights], ...] = ()
    craft: Weights | None = None
    image_captioner: Weights | None = None
    video_captioner: Weights | None = None
    merger: Weights | None = None
    raft: Weights | None = None

    @property
    def fingerprint(self) -> str:
        """A short name that changes with any of the bytes."""
        singles = (self.clip, self.craft, self.image_captioner, self.video_captioner)
        found = [*singles, self.merger, self.raft, *(weights for _, weights in self.heads)]
        text = json.dumps([weights.version if weights else None for weights in found])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def find_weights(config: AnnotateConfig, root: Path) -> ModelWeights:
    """Look up everything that a recipe names.

    Args:
        config: The stage's section.
        root: The project's; paths of the recipe are below it.

    Raises:
        MissingInputError: Something is not there; the message says how to get it and what can
            go on without it.
        IntegrityError: A head is asked to read the embedding of another CLIP.
    """
    models = config.models
    raft = None
    if config.raft is not None:
        raft = _file(
            root / config.raft.file,
            key="annotate.raft",
            source="torchvision's raft_large or raft_small (download.pytorch.org/models)",
        )
    if models is None:
        return ModelWeights(raft=raft)
    craft = None
    if models.craft is not None:
        craft = _file(
            root / models.craft.file,
            key="annotate.models.craft",
            source="craft_mlt_25k.pth, linked from github.com/clovaai/CRAFT-pytorch",
        )
    captions = models.captions
    _require_transformers(captions)
    return ModelWeights(
        clip=_clip(models.clip, root) if models.clip is not None else None,
        heads=_heads(models, root),
        craft=craft,
        image_captioner=_image_captioner(captions, root),
        video_captioner=_video_captioner(captions, root),
        merger=_merger(captions, root),
        raft=raft,
    )


def _clip(config: ClipModelConfig, root: Path) -> Weights:
    return _folder(
        root / config.folder,
        OPEN_CLIP_CONFIG,
        key="annotate.models.clip",
        source="an open_clip repository, e.g. timm/vit_large_patch14_clip_224.openai",
    )


def _require_transformers(config: CaptionConfig) -> None:
    is_local = config.merge is not None and config.merge.kind == "transformers"
    needed = config.video is not None or is_local
    if needed and importlib.util.find_spec("transformers") is None:
        raise MissingInputError(
            "annotate.models.captions names models of transformers, which is not installed: "
            f"pip install 'svd[captions]', or set video and merge to null; {_WITHOUT}"
        )


def _image_captioner(config: CaptionConfig, root: Path) -> Weights | None:
    if config.image is None:
        return None
    return _folder(
        root / config.image.folder,
        OPEN_CLIP_CONFIG,
        key="annotate.models.captions.image",
        source="laion/mscoco_finetuned_CoCa-ViT-L-14-laion2B-s13B-b90k",
    )


def _video_captioner(config: CaptionConfig, root: Path) -> Weights | None:
    if config.video is None:
        return None
    return _folder(
        root / config.video.folder,
        "config.json",
        key="annotate.models.captions.video",
        source="a vision-language model of transformers, e.g. Qwen/Qwen2.5-VL-3B-Instruct",
    )


def _merger(config: CaptionConfig, root: Path) -> Weights | None:
    if config.merge is None or config.merge.kind == "openai":
        return None
    return _folder(
        root / config.merge.model,
        config.merge.gguf_file or "config.json",
        key="annotate.models.captions.merge",
        source="a causal language model of transformers, e.g. HuggingFaceTB/SmolLM2-1.7B-Instruct",
    )


def _file(path: Path, *, key: str, source: str) -> Weights:
    if not path.is_file():
        raise MissingInputError(
            f"{path} is not there: get {source}, or set {key} to null; {_WITHOUT}"
        )
    return Weights(path, f"sha256:{file_sha256(path)[:16]}")


def _folder(folder: Path, main_file: str, *, key: str, source: str) -> Weights:
    if not (folder / main_file).is_file():
        raise MissingInputError(
            f"{folder}/{main_file} is not there: put the files of {source} into that folder, "
            f"or set {key} to null; {_WITHOUT}"
        )
    files = sorted(path for path in folder.iterdir() if path.is_file())
    sums = "".join(f"{path.name} {file_sha256(path)}\n" for path in files)
    return Weights(folder, f"sha256:{hashlib.sha256(sums.encode()).hexdigest()[:16]}")


def _heads(models: ModelsConfig, root: Path) -> tuple[tuple[HeadName, Weights], ...]:
    if models.clip is None or not models.clip.heads:
        return ()
    published = [PUBLISHED[name] for name in models.clip.heads]
    for head in published:
        _require_tower(head, root / models.clip.folder)
    folder = root / models.weights
    return tuple((head.name, _require_head(head, folder)) for head in published)


def find_head(head: PublishedHead, folder: Path) -> Weights | None:
    """Find a head by its hash, below a folder and under any name."""
    for path in sorted(folder.rglob("*")):
        has_size = path.is_file() and path.stat().st_size == head.size_bytes
        if has_size and file_sha256(path) == head.sha256:
            return Weights(path, f"sha256:{head.sha256[:16]}")
    return None


def _require_head(head: PublishedHead, folder: Path) -> Weights:
    found = find_head(head, folder)
    if found is not None:
        return found
    raise MissingInputError(
        f"{head.name} is nowhere below {folder}: download {head.url} ({head.licence}) into it, or "
        f"take it out of annotate.models.clip.heads; {_WITHOUT}"
    )


def _require_tower(head: PublishedHead, folder: Path) -> None:
    """Check by its sizes that a folder's CLIP is the one whose embeddings a head reads."""
    config = json.loads((folder / OPEN_CLIP_CONFIG).read_text(encoding="utf-8"))["model_cfg"]
    vision = config["vision_cfg"]
    found = (
        config["embed_dim"],
        vision.get("width"),
        vision.get("layers"),
        vision.get("patch_size"),
    )
    if found != head.tower[1:]:
        raise IntegrityError(
            f"{head.name} reads embeddings of {head.tower.name}, but annotate.models.clip names "
            f"{folder}, whose (embed_dim, width, layers, patch_size) are {found}, "
            f"not {head.tower[1:]}"
        )
