"""What the addresses of receivers have in common: none of their mistakes repeats a password."""

import os
import urllib.parse


def split(url: str, form: str) -> urllib.parse.SplitResult:
    """Splits an address, whose host and port are such as connecting takes.

    Args:
        url: of the command line.
        form: what it must be like, for messages.

    Raises:
        ValueError: it is no address. The message does not repeat it, as it may hold a password.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # as connecting does
    except ValueError:  # whose text may hold a part of the password
        raise ValueError(f"{form}; percent-encode special characters") from None
    if not parts.hostname or port == 0:
        raise ValueError(form)
    return parts


def login(
    parts: urllib.parse.SplitResult, form: str, variable: str
) -> tuple[str | None, str | None]:
    """Returns user and password; that of an environment variable where the user has none.

    Raises:
        ValueError: a password without a user.
    """
    user, password = parts.username or None, parts.password
    if user is None:
        if password:
            raise ValueError(f"{form}; there is a password without a user")
        return None, None
    known = urllib.parse.unquote(password) if password else os.environ.get(variable)
    return urllib.parse.unquote(user), known
