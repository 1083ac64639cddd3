"""A bucket's own rules, set on a real S3 server and read back from it."""

import uuid
from dataclasses import replace

import pytest

from svd.runtime.bucket_rules import BucketRules
from svd.runtime.storage import open_store
from svd.runtime.storage_s3 import S3Store, s3_client


@pytest.fixture
def bucket(s3_environment: dict[str, str]) -> str:
    return f"bucket-{uuid.uuid4().hex[:12]}"


def store_in(bucket: str, prefix: str) -> S3Store:
    store = open_store(f"s3://{bucket}/{prefix}")
    assert isinstance(store, S3Store)
    store.create_bucket()
    return store


def lifecycle(bucket: str) -> dict[str, dict[str, object]]:
    rules = s3_client().get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    return {rule["ID"]: rule for rule in rules}


def test_objects_are_encrypted_without_being_asked_for(bucket: str) -> None:
    store = store_in(bucket, "team")
    assert store.apply_rules(BucketRules()) == []
    store.put_bytes(b"secret", "k")
    kept = s3_client().head_object(Bucket=bucket, Key="team/k")
    assert kept["ServerSideEncryption"] == "AES256"
    assert store.get_bytes("k") == b"secret"


def test_a_deleted_object_can_be_brought_back(bucket: str) -> None:
    store = store_in(bucket, "team")
    store.apply_rules(BucketRules())
    store.put_bytes(b"precious", "k")
    store.delete("k")
    assert not store.exists("k")
    versions = s3_client().list_object_versions(Bucket=bucket, Prefix="team/k")["Versions"]
    old = s3_client().get_object(Bucket=bucket, Key="team/k", VersionId=versions[0]["VersionId"])
    assert old["Body"].read() == b"precious"


def test_rules_hold_below_the_stores_prefix_only_and_leave_those_of_others(bucket: str) -> None:
    store_in(bucket, "a").apply_rules(BucketRules(keep_replaced_days=3))
    store_in(bucket, "b").apply_rules(BucketRules(abort_uploads_days=2))
    rules = lifecycle(bucket)
    assert len(rules) == 4
    assert rules["svd/a/replaced-objects"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 3}
    assert rules["svd/b/aborted-uploads"]["AbortIncompleteMultipartUpload"] == {
        "DaysAfterInitiation": 2
    }
    assert {str(rule["Filter"]) for rule in rules.values()} == {
        str({"Prefix": "a/"}),
        str({"Prefix": "b/"}),
    }


def test_setting_rules_again_replaces_our_own(bucket: str) -> None:
    store, rules = store_in(bucket, ""), BucketRules(keep_replaced_days=9)
    store.apply_rules(rules)
    store.apply_rules(replace(rules, keep_replaced_days=4))
    found = lifecycle(bucket)
    assert len(found) == 2
    assert found["svd/replaced-objects"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 4}
