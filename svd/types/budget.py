"""What a device costs, and how much of it a run may use."""

from pydantic import Field

from svd.types.base import Record


class Budget(Record):
    """Money for one run, over all its attempts."""

    amount: float = Field(gt=0)  # in the currency of the price
    price_per_device_hour: float = Field(gt=0)

    @property
    def device_s(self) -> float:
        """Seconds times devices that it pays for."""
        return self.amount / self.price_per_device_hour * 3600
