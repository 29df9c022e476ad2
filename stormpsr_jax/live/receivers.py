"""The receivers of the lines of live recognition: a row for each."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from stormpsr_jax.base.errors import gathering
from stormpsr_jax.live import mqtt, webhook
from stormpsr_jax.live.outbox import Outbox


class Flag(NamedTuple):
    """A flag of the command; without a `metavar` it is a switch, and `check` reads its value."""

    help: str
    metavar: str | None = None
    check: Callable[[str], Any] | None = None


class Receiver(NamedTuple):
    """A kind of receiver.

    Attributes:
        flags: by name; the first one takes the address, and the others need it.
        open: makes it, of the command line and a title for people.
    """

    flags: Mapping[str, Flag]
    open: Callable[[argparse.Namespace, str], Outbox]


RECEIVERS = (
    Receiver(
        {
            "mqtt": Flag("sends the lines to mqtt[s]://[USER@]HOST/PREFIX", "URL", mqtt.parse),
            "home_assistant": Flag("for --mqtt: Home Assistant there finds the station by itself"),
        },
        lambda args, title: mqtt.Mqtt(args.mqtt, title if args.home_assistant else None),
    ),
    Receiver(
        {"webhook": Flag("posts each line to http[s]://[USER@]HOST/PATH", "URL", webhook.parse)},
        lambda args, _: webhook.Webhook(args.webhook),
    ),
)
FLAGS = {name: flag for receiver in RECEIVERS for name, flag in receiver.flags.items()}
_ADDRESSES = [next(iter(receiver.flags)) for receiver in RECEIVERS]


def add_flags(add: Callable[..., Any]) -> None:
    """Adds the flags of all receivers to a parser."""
    for name, flag in FLAGS.items():
        # Without a type: argparse would print a wrong value, which may hold a password.
        how = {"metavar": flag.metavar} if flag.metavar else {"action": "store_true"}
        add(_shown(name), help=flag.help, **how)
    what = f"the lines of events and alerts have a picture, for {_all(_ADDRESSES)}"
    add("--snapshots", action="store_true", help=what)


def misplaced(args: argparse.Namespace) -> list[str]:
    """The errors of flags without the address that they are for."""
    errors = [
        f"{_shown(name)} is for {_shown(address)}"
        for address, *others in (receiver.flags for receiver in RECEIVERS)
        for name in others
        if getattr(args, address) is None and getattr(args, name)
    ]
    if args.snapshots and all(getattr(args, address) is None for address in _ADDRESSES):
        errors.append(f"--snapshots is for {_all(_ADDRESSES)}")
    return errors


def check(args: argparse.Namespace) -> list[str]:
    """The errors of addresses, and of what goes with them."""
    errors: list[str] = []
    for name, flag in FLAGS.items():
        if flag.check is not None and (value := getattr(args, name)) is not None:
            with gathering(errors):
                flag.check(value)
    return errors


def given(args: argparse.Namespace) -> list[Receiver]:
    """The receivers of a command line."""
    return [one for one in RECEIVERS if getattr(args, next(iter(one.flags))) is not None]


def _shown(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _all(names: list[str]) -> str:
    return " and ".join(map(_shown, names))
