"""The receivers of the lines of live recognition: a row for each."""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

from stormpsr_jax.base.errors import gathering
from stormpsr_jax.live import mqtt, webhook
from stormpsr_jax.live.outbox import Outbox


class Receiver(NamedTuple):
    """A kind of receiver: what its flag says, and what reads and opens an address."""

    help: str
    check: Callable[[str], Any]
    open: Callable[[str], Outbox]


RECEIVERS = {
    "mqtt": Receiver("sends the lines to mqtt[s]://[USER@]HOST/PREFIX", mqtt.parse, mqtt.Mqtt),
    "webhook": Receiver(
        "posts each line to http[s]://[USER@]HOST/PATH", webhook.parse, webhook.Webhook
    ),
}


def add_flags(add: Callable[..., Any]) -> None:
    """Adds the flags of all receivers to a parser."""
    for name, receiver in RECEIVERS.items():
        # Without a type: argparse would print a wrong value, which may hold a password.
        add(f"--{name}", help=receiver.help, metavar="URL")


def check(args: argparse.Namespace) -> list[str]:
    """The errors of addresses."""
    errors: list[str] = []
    for receiver, url in given(args):
        with gathering(errors):
            receiver.check(url)
    return errors


def given(args: argparse.Namespace) -> list[tuple[Receiver, str]]:
    """The receivers of a command line, each with its address."""
    found = ((receiver, getattr(args, name)) for name, receiver in RECEIVERS.items())
    return [(receiver, url) for receiver, url in found if url is not None]
