"""A store that is a bucket, or a prefix of one, of any S3 server."""

import hashlib
import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from svd.errors import MissingInputError, StoreError
from svd.runtime.bucket_rules import BucketRules, apply_rules
from svd.runtime.fingerprint import file_sha256
from svd.runtime.store import StoredObject, check_key, check_sha256, sha256_in_key

logger = logging.getLogger(__name__)

PART_BYTES = 32 << 20  # of a multipart transfer; 10000 parts are S3's bound, so 312 GiB at most
_ATTEMPTS = 8  # of one request, with exponential backoff and jitter (botocore's standard mode)
_BODY_ATTEMPTS = 5  # of reading one body: a connection may break after the headers came
_BODY_BACKOFF_S = 0.2  # doubled after each broken body
_BROKEN_BODY = (IncompleteReadError, ResponseStreamingError, ReadTimeoutError)
_ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})
_LOST_RACE = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})


class S3Store:
    """Objects of a bucket below a prefix."""

    def __init__(self, *, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._client = s3_client()
        self._transfer = TransferConfig(
            multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4
        )

    @property
    def uri(self) -> str:
        """The address, s3://bucket/prefix."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def create_bucket(self) -> bool:
        """Make the bucket; False if it was there."""
        with self._explained("", "create bucket"):
            try:
                self._client.head_bucket(Bucket=self._bucket)
            except ClientError as err:
                if _code(err) not in {*_ABSENT, "NoSuchBucket"}:
                    raise
                where = _location(self._client.meta.region_name)
                self._client.create_bucket(Bucket=self._bucket, **where)
                return True
        return False

    def apply_rules(self, rules: BucketRules) -> list[str]:
        """Set the bucket's encryption, versioning and lifecycle; return what was refused."""
        with self._explained("", "set rules"):
            return apply_rules(self._client, self._bucket, self._prefix, rules)

    def put_file(self, path: Path, key: str) -> str:
        """Store a file, in parts where it is large; the server checks the hash of every part."""
        sha256, name = file_sha256(path), self._key(key)
        mark = {"sha256": sha256}
        extra = {"ChecksumAlgorithm": "SHA256", "Metadata": mark}
        with self._explained(key, "put"):
            try:
                self._client.upload_file(
                    str(path), self._bucket, name, ExtraArgs=extra, Config=self._transfer
                )
            except S3UploadFailedError:
                # If only the answer to the last request was lost, its repetition is refused.
                if not self._is_marked(name, mark):
                    raise
        return sha256

    def take_file(self, path: Path, key: str) -> str:
        """Send a file, then remove it here."""
        sha256 = self.put_file(path, key)
        path.unlink()
        return sha256

    def put_bytes(self, data: bytes, key: str) -> None:
        """Store bytes; the server checks their hash."""
        with self._explained(key, "put"):
            self._client.put_object(
                Bucket=self._bucket, Key=self._key(key), Body=data, ChecksumAlgorithm="SHA256"
            )

    def put_if_absent(self, data: bytes, key: str) -> bool:
        """Store bytes unless the key exists (If-None-Match)."""
        name, mark = self._key(key), {"writer": uuid.uuid4().hex}
        with self._explained(key, "put"):
            try:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=name,
                    Body=data,
                    ChecksumAlgorithm="SHA256",
                    Metadata=mark,
                    IfNoneMatch="*",
                )
            except ClientError as err:
                if _code(err) not in _LOST_RACE:
                    raise
                # Our own first attempt may be the winner, if only its answer was lost.
                return self._is_marked(name, mark)
        return True

    def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        """Download an object, in parts where it is large, and check its hash."""
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._explained(key, "get"):
                self._client.download_file(
                    self._bucket, self._key(key), str(partial), Config=self._transfer
                )
            promised = sha256 or sha256_in_key(key)
            check_sha256(f"{self.uri}/{key}", file_sha256(partial), promised)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def as_file(self, key: str, folder: Path, *, sha256: str) -> Path:
        """Download an object and check its hash."""
        path = folder / f"{uuid.uuid4().hex[:8]}-{key.rpartition('/')[2]}"
        self.get_file(key, path, sha256=sha256)
        return path

    def get_bytes(self, key: str) -> bytes:
        """Return an object's bytes."""
        data = self._read(key, {})
        check_sha256(f"{self.uri}/{key}", hashlib.sha256(data).hexdigest(), sha256_in_key(key))
        return data

    def read_range(self, key: str, offset: int, size: int) -> bytes:
        """Return bytes from the middle by a ranged GET."""
        if size == 0:
            return b""
        try:
            return self._read(key, {"Range": f"bytes={offset}-{offset + size - 1}"})
        except StoreError as err:
            cause = err.__cause__
            if isinstance(cause, ClientError) and _code(cause) in {"416", "InvalidRange"}:
                return b""  # the range begins where the object ends
            raise

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose key starts with a prefix, in the order of their keys."""
        below = f"{self._prefix}/" if self._prefix else ""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=below + prefix
        )
        with self._explained(prefix, "list"):
            for page in pages:
                for entry in page.get("Contents", []):
                    yield StoredObject(
                        entry["Key"].removeprefix(below),
                        entry["Size"],
                        entry["LastModified"].timestamp(),
                    )

    def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""
        try:
            with self._explained(key, "head"):
                self._client.head_object(Bucket=self._bucket, Key=self._key(key))
        except MissingInputError:
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove an object."""
        with self._explained(key, "delete"):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(key))

    def delete_tree(self, prefix: str) -> None:
        """Remove every object below a prefix, one by one: servers differ in deleting many."""
        for stored in list(self.list(prefix)):
            self.delete(stored.key)

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{check_key(key)}" if self._prefix else check_key(key)

    def _is_marked(self, name: str, mark: dict[str, str]) -> bool:
        """Whether the object of this full key carries this metadata."""
        try:
            found = self._client.head_object(Bucket=self._bucket, Key=name)
        except ClientError as err:
            if _code(err) in _ABSENT:
                return False
            raise
        kept: dict[str, str] = found.get("Metadata", {})
        return mark.items() <= kept.items()

    def _read(self, key: str, extra: dict[str, str]) -> bytes:
        attempt = 1
        with self._explained(key, "get"):
            while True:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._key(key), **extra)
                try:
                    data: bytes = answer["Body"].read()
                except _BROKEN_BODY as err:
                    if attempt == _BODY_ATTEMPTS:
                        raise
                    kind = type(err).__name__
                    logger.info("body broke off, reading again", extra={"error": kind})
                    time.sleep(_BODY_BACKOFF_S * 2**attempt)
                    attempt += 1
                else:
                    return data

    @contextmanager
    def _explained(self, key: str, act: str) -> Iterator[None]:
        """Turn boto3's errors into ours; what they say of requests and keys stays out."""
        place = f"{self.uri}/{key}"
        try:
            yield
        except ClientError as err:
            code = _code(err)
            if code in _ABSENT:
                raise MissingInputError(f"{place}: not in the store") from err
            raise StoreError(f"{place}: cannot {act}: the server says {code}") from err
        except NoCredentialsError as err:
            hint = "set AWS_PROFILE, or run `svd store env` for the local server"
            raise StoreError(f"{place}: cannot {act}: no AWS credentials; {hint}") from err
        except S3UploadFailedError as err:
            cause = err.__context__
            said = _code(cause) if isinstance(cause, ClientError) else type(cause).__name__
            raise StoreError(f"{place}: cannot {act}: {said}") from err
        except BotoCoreError as err:
            at = self._client.meta.endpoint_url
            raise StoreError(f"{place}: cannot {act} at {at}: {type(err).__name__}") from err
        except OSError as err:
            raise StoreError(f"{place}: cannot {act}: {err}") from err


def s3_client(
    *, endpoint: str | None = None, credentials_file: Path | None = None, attempts: int = _ATTEMPTS
) -> Any:
    """Return a client made from the usual AWS environment, with retries.

    Args:
        endpoint: Address of a server of one's own; default the environment's.
        credentials_file: Where its keys are; default the environment's.
        attempts: Of each request, with exponential backoff and jitter.
    """
    config = Config(
        retries={"total_max_attempts": attempts, "mode": "standard"},
        signature_version="s3v4",
        s3={"addressing_style": "path"},  # servers of one's own have no wildcard DNS
        connect_timeout=10,
        read_timeout=60,
    )
    core = botocore.session.Session()
    if credentials_file is not None:
        core.set_config_variable("credentials_file", str(credentials_file))
        core.set_config_variable("profile", "default")
    session = boto3.Session(botocore_session=core)
    region = session.region_name or "us-east-1"
    return session.client("s3", region_name=region, endpoint_url=endpoint, config=config)


def _location(region: str | None) -> dict[str, dict[str, str]]:
    if region in {None, "us-east-1", "aws-global"}:  # the default, which S3 refuses to be told
        return {}
    return {"CreateBucketConfiguration": {"LocationConstraint": region}}


def _code(err: ClientError) -> str:
    code: str = err.response.get("Error", {}).get("Code", "Unknown")
    return code
