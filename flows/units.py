"""What a part of the chain hands to Prefect, and in which order."""

from collections.abc import Mapping
from graphlib import TopologicalSorter

from flows.run import PipelineRun
from svd.runtime.graph import Node
from svd.types.stage import StageName

Unit = tuple[StageName, ...]  # one stage, or all that the recipe does not plan


def order_units(
    run: PipelineRun, stages: tuple[StageName, ...], graph: Mapping[str, Node]
) -> dict[Unit, set[Unit]]:
    """Return the units of the wanted stages, each with those that it waits for, in such an order.

    Raises:
        graphlib.CycleError: Two units wait for each other.
    """
    wanted = [stage for stage in stages if stage in run.stages]
    unplanned = tuple(stage for stage in wanted if stage in run.unplanned)
    units: list[Unit] = [(stage,) for stage in wanted if stage not in unplanned]
    unit_of = {stage: unit for unit in (*units, unplanned) for stage in unit}
    before = {
        unit: {unit_of[name] for stage in unit for name in graph[stage].after if name in unit_of}
        - {unit}
        for unit in unit_of.values()
    }
    return {unit: before[unit] for unit in TopologicalSorter(before).static_order()}
