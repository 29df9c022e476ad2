"""An RTSP server as FFmpeg gets to hear it: through a relay that reads what the server says.

FFmpeg goes wherever an answer of the server sends it, also after login, and no option forbids that.
So it is given an address of this machine instead. Behind it a `Relay` passes on what FFmpeg says to
the one server, and what that answers message by message, written anew in a form that leaves nothing
to interpret. A message that sends elsewhere, or that is none, ends the connection.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import urllib.parse

MAX_HEAD, MAX_BODY = 2**14, 2**16  # bytes of a message; a description of a stream has some hundred
_PIECE = 2**16  # bytes read at once
_MEDIA = ord("$")  # before a channel, two bytes of length, and a packet of so many
_ANSWER = re.compile(rb"RTSP/[0-9]\.[0-9] ([0-9]{3})(?: .*)?")
_REQUEST = re.compile(rb"[A-Z_]{1,32} [!-~]+ RTSP/[0-9]\.[0-9]")
_FIELD = re.compile(rb"([A-Za-z][A-Za-z0-9._-]*)[ \t]*:[ \t]*(.*)")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BLANK = re.compile(rb"\r?\n\r?\n")


class Refused(ValueError):
    """What a server says is not passed on."""


class Reader:
    """Reads what a server says, in pieces as they come."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self._kept = b""

    def feed(self, piece: bytes) -> bytes:
        """Takes the next piece and returns what of all that came may be passed on now.

        Raises:
            Refused: it sends elsewhere, or is nothing that a server says.
        """
        kept, passed = self._kept + piece, b""
        while kept:
            if kept[0] == _MEDIA:
                head, start = b"", 0
                end = 4 + int.from_bytes(kept[2:4], "big") if len(kept) >= 4 else 4
            elif kept[0] in b"\r\n":  # some servers say so between messages
                head, start, end = b"", 1, 1
            elif (blank := _BLANK.search(kept, 0, MAX_HEAD)) is not None:
                head, length = _read_head(kept[: blank.start()])
                start, end = blank.end(), blank.end() + length
            elif len(kept) >= MAX_HEAD:
                raise Refused(f"the server sends a head of more than {MAX_HEAD} bytes")
            else:
                break
            if len(kept) < end:
                break
            passed += head + kept[start:end]
            kept = kept[end:]
        self._kept = kept
        return passed


def _read_head(head: bytes) -> tuple[bytes, int]:
    """The head of a message, written anew, and the length of the body after it."""
    first, *lines = (line.removesuffix(b"\r") for line in head.split(b"\n"))
    if _CONTROL.search(first) or not (_ANSWER.fullmatch(first) or _REQUEST.fullmatch(first)):
        raise Refused("the server says what is no RTSP")
    answer = _ANSWER.fullmatch(first)
    if answer and answer[1].startswith(b"3"):
        raise Refused(
            "the server sends to another address, which is not followed; give that address"
        )
    written, length = [first], None
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None or _CONTROL.search(line):
            raise Refused("the server says what is no RTSP (a field of a head)")
        name, value = field[1], field[2].rstrip()
        if name.lower() == b"content-length":
            good = re.fullmatch(rb"[0-9]{1,9}", value) and length in (None, int(value))
            if not good or int(value) > MAX_BODY:
                raise Refused(
                    f"the server says a length that is none, or of more than {MAX_BODY} bytes"
                )
            length = int(value)
        written.append(name + b": " + value)
    return b"\r\n".join(written) + b"\r\n\r\n", length or 0


class Relay:
    """An address of this machine behind which there is a server, for one connection.

    Attributes:
        refused: why what the server said was not passed on; '' if all was.
        url: what to open instead of the server's; the same but for host and port.
    """

    def __init__(self, url: str, patience: float):
        """Connects to the server.

        Args:
            url: rtsp://[USER[:PASSWORD]@]HOST[:PORT]/…
            patience: seconds to connect, and to be connected to.

        Raises:
            OSError: there is no server.
        """
        parts = urllib.parse.urlsplit(url)
        self._server = socket.create_connection((parts.hostname, parts.port or 554), patience)
        self._server.settimeout(None)
        self._door = socket.create_server(("127.0.0.1", 0), backlog=1)
        self._door.settimeout(patience)
        user, at, _ = parts.netloc.rpartition("@")
        here = f"{user}{at}127.0.0.1:{self._door.getsockname()[1]}"
        self.url = url.replace(parts.netloc, here, 1)
        self.refused = ""
        self._client: socket.socket | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends both connections."""
        self._closed = True
        self._hang_up()
        self._thread.join()

    def _work(self) -> None:
        copying = None
        try:
            self._client, _ = self._door.accept()
            self._door.close()
            if self._closed:
                return
            self._client.settimeout(None)
            copying = threading.Thread(target=self._copy, args=(self._client,), daemon=True)
            copying.start()
            reader = Reader()
            while piece := self._server.recv(_PIECE):
                self._client.sendall(reader.feed(piece))
        except Refused as error:
            self.refused = str(error)
        except OSError:
            pass  # one of the two has hung up
        finally:
            self._hang_up()
            if copying is not None:
                copying.join()
            for one in (self._door, self._server, self._client):
                if one is not None:
                    one.close()

    def _copy(self, client: socket.socket) -> None:
        """What FFmpeg says goes to the server as it is."""
        with contextlib.suppress(OSError):
            while piece := client.recv(_PIECE):
                self._server.sendall(piece)
        self._hang_up()

    def _hang_up(self) -> None:
        for one in (self._door, self._server, self._client):
            if one is not None:
                with contextlib.suppress(OSError):  # was never connected, or is closed
                    one.shutdown(socket.SHUT_RDWR)
