"""All weights that `svd weights` knows, by name."""

from typing import Final

from svd.evaluation.extractors.i3d import I3D_K400
from svd.evaluation.extractors.inception import INCEPTION_2015
from svd.models.critics.lpips import LPIPS_WEIGHTS
from svd.models.critics.published import WeightFile

CATALOGUE: Final[dict[str, WeightFile]] = {
    weights.name: weights for weights in (I3D_K400, *LPIPS_WEIGHTS.values(), INCEPTION_2015)
}
