"""The addresses of receivers: none of their mistakes repeats a password."""

import os
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple


class Url(NamedTuple):
    """SCHEME://[USER[:PASSWORD]@]HOST[:PORT][PATH][?QUERY], as `parse` reads it.

    User and password are decoded, what comes after the port is as it was written. The port is that
    of the scheme where none was given.
    """

    scheme: str
    host: str
    port: int | None
    user: str | None
    password: str | None
    path: str
    query: str

    def __repr__(self) -> str:
        """The server alone: user and password are secret, and the path of a webhook often is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}{f':{self.port}' if self.port else ''}"


def parse(text: str, form: str, ports: Mapping[str, int | None], variable: str) -> Url:
    """Reads an address whose host and port are such as connecting takes.

    Args:
        form: what it must be like, for messages.
        ports: of the schemes that it may have.
        variable: of the environment, with the password where a user is given without one.

    Raises:
        ValueError: it is no such address. The message does not repeat it, as it may hold a
            password.
    """
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
        (parts.hostname or "").encode("idna")  # as connecting does
    except ValueError:  # whose text may hold a part of the password
        parts, port = urllib.parse.urlsplit(""), None
    if not text.isprintable() or " " in parts.netloc or not parts.netloc:
        raise ValueError(f"{form}; percent-encode special characters")
    if parts.scheme not in ports or not parts.hostname or port == 0:
        raise ValueError(form)
    user, password = parts.username, parts.password
    if password and not user and not parts.scheme.startswith("http"):
        raise ValueError(f"{form}; there is a password without a user")
    known = urllib.parse.unquote(password) if password else os.environ.get(variable)
    return Url(
        parts.scheme,
        parts.hostname,
        port or ports[parts.scheme],
        None if user is None else urllib.parse.unquote(user),
        None if user is None else known,
        parts.path,
        parts.query,
    )
