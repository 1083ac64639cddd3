"""Published numbers, and whether one of ours may be put beside them.

A value enters this table only with the place it was read from. It is shown in any case; it is
shown as comparable only if nothing that changes the number differs.
"""

from typing import Final

from pydantic import Field

from svd.types.artifact import MetricRecord
from svd.types.base import Record


class Reference(Record):
    """A number somebody published."""

    metric: str  # MetricRecord.name it would be compared with
    value: float
    system: str
    task: str  # what was measured on what, for a person
    num: int | None = Field(default=None, gt=0)  # examples; None if the source does not say
    variant: str | None = None  # variant id of its protocol; None if the source does not pin it
    dataset_fingerprint: str | None = None  # of its data; None if no published split exists
    differs: str  # what its protocol does that ours does not, as a clause
    source: str


REFERENCES: Final = (
    Reference(
        metric="FVD",
        value=242.02,
        system="SVD (base, text to video)",
        task="UCF-101, zero-shot text to video",
        num=13_320,
        variant="frechet/i3d-k400-torchscript/logits400/16f/s1/stretch224/from-320x240/n/N13320",
        differs="text-conditioned 320x576 samples of the full model against all of UCF-101",
        source="Blattmann et al. 2023, Table 2 and appendix E.4",
    ),
    Reference(
        metric="FVD",
        value=156.94,
        system="SVD (image to video, 25 steps)",
        task="OpenVid-1M, image to video",
        differs="OSV's own held-out clips and sampling, never published as a split",
        source="Mao et al. 2024 (OSV), version 2",
    ),
    Reference(
        metric="PSNR of frame 0",
        value=31.18,
        system="SVD's autoencoder",
        task="WebVid-10M validation, reconstruction",
        differs="33 frames at 256 px through the autoencoder alone, re-read from mp4v files",
        source="Li et al. 2024 (WF-VAE), Table 1",
    ),
    Reference(
        metric="SSIM of frame 0",
        value=0.8689,
        system="SVD's autoencoder",
        task="WebVid-10M validation, reconstruction",
        differs="33 frames at 256 px through the autoencoder alone, re-read from mp4v files",
        source="Li et al. 2024 (WF-VAE), Table 1",
    ),
    Reference(
        metric="LPIPS of frame 0",
        value=0.0546,
        system="SVD's autoencoder",
        task="WebVid-10M validation, reconstruction",
        differs="33 frames at 256 px through the autoencoder alone, spatial average",
        source="Li et al. 2024 (WF-VAE), Table 1",
    ),
)


def differences(record: MetricRecord, reference: Reference) -> tuple[str, ...]:
    """Return why a record may not be compared with a reference; empty if it may.

    What the reference does not state counts as different: an unknown protocol is no protocol.
    """
    reasons = []
    if record.name != reference.metric:
        reasons.append(f"{record.name} is not {reference.metric}")
    if record.extractor is not None and not record.extractor.get("publishable", False):
        reasons.append(f"measured with {record.extractor.get('name')}, a stand-in network")
    if reference.dataset_fingerprint is None or (
        record.dataset_fingerprint != reference.dataset_fingerprint
    ):
        reasons.append(f"other data ({reference.task})")
    if record.num != reference.num:
        theirs = "an unstated N" if reference.num is None else f"N = {reference.num:,}"
        reasons.append(f"{theirs}, ours {record.num:,}")
    if record.variant != reference.variant:
        reasons.append(f"other protocol: {reference.differs}")
    if record.comparability != "published-protocol":
        reasons.append("ours is an internal number")
    return tuple(reasons)
