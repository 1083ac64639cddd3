"""What a run costs: device-hours, and their price where the recipe or the environment says one."""

import os
from typing import Final

from svd.errors import ConfigError

VARIABLE: Final = "SVD_PRICE_PER_DEVICE_HOUR"
# Tracked under these keys, cumulative over the attempts of a run.
DEVICE_HOURS: Final = "spent/device_hours"
COST: Final = "spent/cost"


def price_per_device_hour(from_recipe: float | None = None) -> float | None:
    """Return the price, in whatever currency it was said; None if nobody said one.

    Args:
        from_recipe: What the recipe says; it counts before the environment.

    Raises:
        ConfigError: The variable is no number of 0 or more.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if from_recipe is not None or not text:
        return from_recipe
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < float("inf"):
        raise ConfigError(f"{VARIABLE}={text!r}: allowed is a number of 0 or more")
    return price


def spent_scalars(device_s: float, price: float | None) -> dict[str, float]:
    """Return what a tracker is told of so many device-seconds; no cost without a price."""
    hours = device_s / 3600
    return {DEVICE_HOURS: hours} | ({} if price is None else {COST: hours * price})
