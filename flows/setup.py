"""What a fresh Prefect server needs before it can run our deployments: `python -m flows.setup`.

It may be started before the server answers, so that both load Prefect at the same time.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

import yaml
from prefect.cli import app
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events.schemas.automations import AutomationCore

from flows.notices import failure_notice, save_webhook
from flows.policies import GPU, GPU_JOBS
from svd.errors import LaunchError
from svd.runtime.workspace import Workspace

POOL: Final = "local-process"
AUTOMATIONS: Final = Path("infra") / "prefect"  # below the root, one YAML file each
_WAIT_S: Final = 120.0  # a first start makes the server's database


async def set_up(root: Path) -> None:
    """Create the work pool and the automations that the server does not have yet."""
    async with get_client() as client:
        await _wait_for_server(client)
        pool = WorkPoolCreate(name=POOL, type="process")
        await client.create_work_pool(pool, overwrite=True)
        await client.upsert_global_concurrency_limit_by_name(GPU, GPU_JOBS)
        for file in sorted((root / AUTOMATIONS).glob("*.yaml")):
            text = file.read_text(encoding="utf-8")
            await _ensure_automation(client, AutomationCore.model_validate(yaml.safe_load(text)))
        if url := os.environ.get("SVD_NOTIFY_URL"):
            await _ensure_automation(client, failure_notice(await save_webhook(url)))


async def _wait_for_server(client: PrefectClient) -> None:
    try:
        async with asyncio.timeout(_WAIT_S):
            while fault := await client.api_healthcheck():
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise LaunchError(f"{client.api_url} does not answer: {fault}") from None


async def _ensure_automation(client: PrefectClient, wanted: AutomationCore) -> None:
    for existing in await client.read_automations_by_name(wanted.name):
        await client.delete_automation(existing.id)
    await client.create_automation(wanted)


def main() -> None:
    """Set the server up and register every deployment of prefect.yaml."""
    root = Workspace.find().root
    asyncio.run(set_up(root))
    os.chdir(root)  # where prefect.yaml is looked for
    # The program itself, in this process: a second one would load Prefect once more.
    sys.argv[:] = ["prefect", "--no-prompt", "deploy", "--all"]
    app()


if __name__ == "__main__":
    main()
