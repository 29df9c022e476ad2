"""Who may watch the page of a work station, and who may reset it.

On a loopback address everybody of this machine may watch. On any other one a token is needed,
which a browser asks for once (it then has a cookie) and a program sends as
``Authorization: Bearer``. A page of another origin can neither read nor reset anything, also where
its name leads here (DNS rebinding).
"""

import errno
import hmac
import ipaddress
import itertools
import os
import re
import socket
import stat
import time
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

from stormpsr_jax.base import files

LIBRARIES = ("starlette", "uvicorn", "sse_starlette")  # of the extra `live`, for any page
_TAKEN = 2.0  # seconds for which the page of a process that was just killed may have the address
TOKEN = "STORMPSR_TOKEN"
DEFAULT_PORT = 8765
# Characters, and different ones among them; where these are random, guessing is hopeless.
MIN_TOKEN, _MIN_DIFFERENT = 16, 6
_MAX_TOKEN = 1000
_MADE_BY = "one is made by: python -c 'import secrets; print(secrets.token_urlsafe())'"
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", re.ASCII)  # a header
_FORM = "must be PORT, HOST:PORT or [IPv6]:PORT"
# What a page may do: show what comes from here, and nothing else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # without a referrer, a form would say "Origin: null"
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class Address(NamedTuple):
    """Where to listen; port 0 is any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name, whatever it leads to
            return False

    def __str__(self) -> str:
        """As in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Address:
    """Reads the value of --serve: nothing, PORT or HOST:PORT.

    Raises:
        ValueError: it is neither.
    """
    whole = text if text and not text.isdecimal() else f"127.0.0.1:{text or DEFAULT_PORT}"
    try:
        parts = urllib.parse.urlsplit(f"//{whole}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or parts.netloc != whole or parts.username is not None:
        raise ValueError(f"--serve={files.shorten(text)}: {_FORM}")
    return Address("127.0.0.1" if host == "localhost" else host, port)


def read_token(path: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Returns the token that watchers need, or None if none is set.

    Args:
        path: of a file with the token as its only line, which not everybody may open; else it is
            that of STORMPSR_TOKEN.

    Raises:
        ValueError: it is too short, can be guessed, holds more than visible ASCII characters, or
            cannot be read, or everybody can read it.
    """
    place = f"${TOKEN}" if path is None else str(path)
    if path is None:
        text = environment.get(TOKEN)
    else:
        text = files.read_text(path).strip()
        if (mode := stat.S_IMODE(os.stat(path).st_mode)) & stat.S_IRWXO:
            raise ValueError(f"{path}: everybody may open it (mode {mode:o}); chmod 600 {path}")
    if text is None or (path is None and not text):
        return None
    visible = text.isascii() and text.isprintable() and " " not in text
    if not (visible and MIN_TOKEN <= len(text) <= _MAX_TOKEN):
        raise ValueError(
            f"{place}: a token has at least {MIN_TOKEN} visible ASCII characters; {_MADE_BY}"
        )
    if _can_be_guessed(text):
        raise ValueError(f"{place}: this token is too regular to be secret; {_MADE_BY}")
    return text


def _can_be_guessed(text: str) -> bool:
    """Whether it has few different characters, repeats itself, or counts up or down.

    Of a million random ones of 16 hexadecimal digits, fewer than a thousand are taken for such.
    """
    steps = [abs(ord(b) - ord(a)) <= 1 for a, b in itertools.pairwise(text)]
    repeats = text in (text + text)[1:-1]
    return len(set(text)) < _MIN_DIFFERENT or repeats or 3 * sum(steps) >= 2 * len(steps)


class Access:
    """The rules of one page."""

    def __init__(self, address: Address, token: str | None, *, local: bool = False):
        """Takes where it listens, and the token that watchers need, or None.

        If it is `local`, no name but this machine's leads to it, not even with the token.

        Raises:
            ValueError: an address that others can reach, without a token.
        """
        if token is None and not address.is_loopback:
            raise ValueError(
                f"--serve={address}: others can reach this address, so that it needs a token: set "
                f"{TOKEN}, or give --token-file"
            )
        self._token, self._local = token, local or token is None
        # Cookies know no ports, so that their names have to.
        self.cookie_name = f"stormpsr-{address.port}"

    @property
    def cookie(self) -> str:
        """What a browser has that was given the token; does not tell the token."""
        return hmac.new(
            (self._token or "").encode(), b"page of a work station", "sha256"
        ).hexdigest()

    def is_token(self, text: str) -> bool:
        """Whether it is the token; takes the same time whatever is wrong with it."""
        return self._token is not None and hmac.compare_digest(text.encode(), self._token.encode())

    def may_watch(self, headers: Mapping[str, str], cookies: Mapping[str, str]) -> bool:
        """Whether the request has the token, or needs none."""
        if self._token is None:
            return True
        kind, _, word = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.is_token(word.strip()):
            return True
        return hmac.compare_digest(cookies.get(self.cookie_name, "").encode(), self.cookie.encode())

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:
        """Says why a request is refused that a page of somebody else may have caused, or None."""
        host = headers.get("host", "")
        if not _HOST.fullmatch(host):
            return "needs a header Host that is a name or an address"
        # A browser sends a cookie only to the name that it has it from, so that where there is a
        # token, other names lead to the question for it, and a proxy may have one of its own.
        if self._local and not _is_loopback_name(host):
            return "this page has no such name; open it as localhost"
        site = headers.get("sec-fetch-site", "none")
        opened = method == "GET" and path == "/" and headers.get("sec-fetch-mode") == "navigate"
        if site not in ("none", "same-origin") and not opened:
            return "not for pages of another origin"
        if method not in ("GET", "HEAD") and headers.get("origin", "").partition("://")[2] != host:
            return "needs the header Origin of this page"
        return None


def _is_loopback_name(host: str) -> bool:
    """Whether a header Host names this machine; its port may be that of a tunnel."""
    try:
        name = urllib.parse.urlsplit(f"//{host}").hostname
        return name == "localhost" or ipaddress.ip_address(name or "").is_loopback
    except ValueError:
        return False


def listening(address: Address, given: str) -> socket.socket:
    """Opens an address; ValueError, which begins with what was `given`, if it cannot be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    end = time.monotonic() + _TAKEN
    while True:
        try:
            return socket.create_server(address, family=family)
        except OSError as error:
            # The page of a process that was killed just now ends by itself.
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                why = error.strerror or error
                raise ValueError(f"{given}: cannot be opened ({why})") from error
        time.sleep(0.05)
