"""Telling people that a run has failed: a message to the address in SVD_NOTIFY_URL."""

from typing import Any, Final
from uuid import UUID

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.events.schemas.automations import AutomationCore

BLOCK: Final = "svd-failure-notice"
SUBJECT: Final = "svd: {{ flow.name }} {{ flow_run.state.name }}"
BODY: Final = (
    "Run {{ flow_run.name }} of {{ flow.name }}: {{ flow_run.state.name }}.\n"
    "{{ flow_run.state.message }}\n{{ flow_run|ui_url }}"
)


async def save_webhook(url: str) -> UUID:
    """Keep an address on the server; return the id of the block that has it.

    The message is JSON with the key "text", which Slack, Mattermost and Teams' relays read.

    Args:
        url: Where to POST. It may hold a token, so it is kept as a secret: encrypted, and masked
            wherever it is shown.
    """
    block = CustomWebhookNotificationBlock(
        name="svd",
        url="{{address}}",
        method="POST",
        json_data={"text": "{{subject}}\n{{body}}"},
        secrets={"address": url},
    )
    # Prefect's method runs here or there depending on its caller, which no type can say.
    saved: Any = block.save(BLOCK, overwrite=True)
    return UUID(str(await saved))


def failure_notice(block_id: UUID) -> AutomationCore:
    """Return the automation: a run with the tag svd that fails or crashes sends a message."""
    return AutomationCore.model_validate(
        {
            "name": "svd-failure-notice",
            "description": "A failed or crashed run of svd is told to SVD_NOTIFY_URL",
            "trigger": {
                "type": "event",
                "posture": "Reactive",
                "expect": ["prefect.flow-run.Failed", "prefect.flow-run.Crashed"],
                "match": {"prefect.resource.id": "prefect.flow-run.*"},
                "match_related": {"prefect.resource.id": "prefect.tag.svd"},
                "for_each": ["prefect.resource.id"],
                "threshold": 1,
                "within": 0,
            },
            "actions": [
                {
                    "type": "send-notification",
                    "block_document_id": str(block_id),
                    "subject": SUBJECT,
                    "body": BODY,
                }
            ],
        }
    )
