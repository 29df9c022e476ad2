"""Live recognition to a web server: ``recognise --webhook=URL`` posts each record as JSON.

Records come in their order, one request each, at least once each. What could not be delivered is
sent again with growing pauses, under the same Idempotency-Key, by which a receiver tells that it
has the record already. Redirects are not followed, and proxies of the environment are not used.
"""

import base64
import contextlib
import http.client
import uuid

from stormpsr_jax.live import addresses
from stormpsr_jax.live.addresses import Url
from stormpsr_jax.live.outbox import TIMEOUT, Away, Outbox, reason

_FORM = "--webhook: must be like https://HOST/PATH"
PASSWORD = "STORMPSR_WEBHOOK_PASSWORD"  # a password on the command line is seen by every user
_CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
_REFUSALS = (400, 413, 415, 422)  # of this very record: sending it again changes nothing


def parse(url: str) -> Url:
    """Reads http[s]://[USER[:PASSWORD]@]HOST[:PORT]/PATH; errors as of `addresses.parse`."""
    if not url.isascii() or " " in url:
        raise ValueError(f"{_FORM}; percent-encode special characters")
    return addresses.parse(url, _FORM, dict.fromkeys(_CONNECTIONS), PASSWORD)


class Webhook(Outbox):
    """Posts records, and posts them again where that failed, in a thread of its own."""

    def __init__(self, url: str):
        """Opens no connection yet; ValueError: the URL is none."""
        self._url, self._session = parse(url), uuid.uuid4()
        super().__init__(str(self._url))

    def _attempt(self, kind: str, text: bytes) -> bool:
        url = self._url
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": str(uuid.uuid5(self._session, text.decode())),
            "User-Agent": "stormpsr-jax",
        }
        if url.user is not None:
            word = base64.b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
            headers["Authorization"] = f"Basic {word}"
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection = _CONNECTIONS[url.scheme](url.host, url.port, timeout=TIMEOUT)
        try:
            with contextlib.closing(connection):
                connection.request("POST", path, text, headers)
                status = connection.getresponse().status  # nobody reads the text
        except OSError as error:
            raise Away(reason(error)) from error
        except http.client.HTTPException as error:  # whose text is the server's
            raise Away(f"answers what is no HTTP ({type(error).__name__})") from error
        if status in _REFUSALS:
            self.warn(f"refuses a record with status {status}")
            return False
        if not 200 <= status < 300:
            redirect = ", a redirect, which is not followed" if 300 <= status < 400 else ""
            raise Away(f"answers with status {status}{redirect}")
        return True
