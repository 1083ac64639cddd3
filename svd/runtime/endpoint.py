"""JSON questions to an HTTP service, with patience: failures that may pass are asked again."""

import json
import os
import time
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from svd.errors import ConfigError, StoreError

_FIRST_WAIT_S = 0.5  # doubled after each failure
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})  # HTTP states worth another try


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask.

    Attributes:
        url: An http or https address.
        key_variable: Environment variable with the bearer token; None: none is sent.
        timeout_s: Per attempt.
        max_attempts: Per question.
    """

    url: str
    key_variable: str | None
    timeout_s: float
    max_attempts: int

    def post(self, body: dict[str, Any]) -> Any:
        """Return the answer's JSON.

        Raises:
            ConfigError: The token's variable is not set, or the address is none of http.
            StoreError: No usable answer after all attempts.
        """
        request = self._request(body)
        for attempt in range(1, self.max_attempts + 1):
            try:
                with urlopen(request, timeout=self.timeout_s) as answer:  # noqa: S310  # checked
                    return json.load(answer)
            except HTTPError as err:
                problem, may_pass = f"HTTP {err.code} {err.reason}", err.code in _PASSING
                err.close()
            except (URLError, TimeoutError, ConnectionError) as err:
                problem, may_pass = str(getattr(err, "reason", err)), True
            except ValueError as err:
                problem, may_pass = f"no JSON: {err}", False
            if not may_pass or attempt == self.max_attempts:
                break
            time.sleep(_FIRST_WAIT_S * 2 ** (attempt - 1))
        raise StoreError(f"{self.url} gave no answer: {problem} (attempt {attempt})")

    def _request(self, body: dict[str, Any]) -> Request:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"{self.url} is no http or https address")
        headers = {"Content-Type": "application/json"}
        if self.key_variable is not None:
            if self.key_variable not in os.environ:
                raise ConfigError(
                    f"environment variable {self.key_variable} is not set: {self.url} needs it"
                )
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        return Request(self.url, json.dumps(body).encode(), headers)  # noqa: S310  # checked above
