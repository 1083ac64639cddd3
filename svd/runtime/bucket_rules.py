"""What a bucket does by itself: encrypt what it keeps, and clear away what nobody can reach."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

_RULE_ID: Final = "svd"  # prefix of our lifecycle rules; rules of others are left as they are


@dataclass(frozen=True, slots=True)
class BucketRules:
    """The rules of a store's bucket.

    Attributes:
        kms_key: Key id, alias or ARN for SSE-KMS; None is SSE-S3 (AES-256 with the bucket's key).
        keep_replaced_days: How long a replaced or deleted object can be brought back.
        abort_uploads_days: After how long parts of an upload that never ended are cleared away.
    """

    kms_key: str | None = None
    keep_replaced_days: int = 30
    abort_uploads_days: int = 7


def apply_rules(client: Any, bucket: str, prefix: str, rules: BucketRules) -> list[str]:
    """Set encryption, versioning and lifecycle; return what the server refused, as sentences.

    Not every S3 server knows all three, and a role may be allowed to write objects only: what is
    refused is said, and the store can be used all the same.

    Args:
        client: Of boto3.
        bucket: Name.
        prefix: Of the store's keys; lifecycle rules hold below it only.
        rules: What to set.
    """
    steps: dict[str, Callable[[], object]] = {
        "default encryption": lambda: client.put_bucket_encryption(
            Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [_encryption(rules)]}
        ),
        "versioning": lambda: client.put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
        ),
        "lifecycle rules": lambda: client.put_bucket_lifecycle_configuration(
            Bucket=bucket,
            LifecycleConfiguration={
                "Rules": [*_rules_of_others(client, bucket, prefix), *_lifecycle(prefix, rules)]
            },
        ),
    }
    return [sentence for what, step in steps.items() if (sentence := _refusal(what, step))]


def _encryption(rules: BucketRules) -> dict[str, Any]:
    if rules.kms_key is None:
        return {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    # A bucket key spares one call to KMS per object.
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": rules.kms_key}
    return {"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": True}


def _lifecycle(prefix: str, rules: BucketRules) -> Iterator[dict[str, Any]]:
    common = {"Status": "Enabled", "Filter": {"Prefix": f"{prefix}/" if prefix else ""}}
    yield {
        "ID": _rule_id(prefix, "aborted-uploads"),
        **common,
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": rules.abort_uploads_days},
    }
    yield {
        "ID": _rule_id(prefix, "replaced-objects"),
        **common,
        "NoncurrentVersionExpiration": {"NoncurrentDays": rules.keep_replaced_days},
    }


def _rules_of_others(client: Any, bucket: str, prefix: str) -> list[dict[str, Any]]:
    try:
        found = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    except ClientError as err:
        if err.response["Error"]["Code"] != "NoSuchLifecycleConfiguration":
            raise
        return []
    own = {_rule_id(prefix, "aborted-uploads"), _rule_id(prefix, "replaced-objects")}
    return [rule for rule in found if rule.get("ID") not in own]


def _rule_id(prefix: str, what: str) -> str:
    """Name a rule after the store it is of: several stores may share a bucket."""
    return "/".join(part for part in (_RULE_ID, prefix, what) if part)


def _refusal(what: str, step: Callable[[], object]) -> str | None:
    try:
        step()
    except ClientError as err:
        return f"the server does not set {what} ({err.response['Error']['Code']})"
    return None
