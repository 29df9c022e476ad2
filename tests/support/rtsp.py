"""An RTSP server in a few lines that says whatever a test tells it to."""

import contextlib
import io
import re
import socket
import threading
import time

import av
import numpy as np

LOGIN = b'RTSP/1.0 401 Unauthorized\r\nCSeq: %d\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n'
SDP = (
    "v=0\r\no=- 1 1 IN IP4 {at}\r\ns=x\r\nc=IN IP4 {at}\r\nt=0 0\r\na=control:*\r\n"
    "m=video {port} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    "a=fmtp:96 packetization-mode=1\r\na=control:{control}\r\n"
)


class Server:
    """One that gives its pictures, unless `say` has another answer.

    Use it as a context. `say(method, head, number)` gets the head of a request and its CSeq, and
    returns bytes, or None for what a server says.
    """

    def __init__(self, say=lambda method, head, number: None, sdp=None, media=None):
        self.say, self.media = say, media or packets
        self.sdp = sdp or SDP.format(at="127.0.0.1", port=0, control="track1")
        self.heads = []

    def __enter__(self):
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self.url = f"rtsp://me:secret@127.0.0.1:{self.port}/x"
        self._over = False
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._over = True
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._door.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        heard = b""
        with connection, contextlib.suppress(OSError):
            while True:
                while b"\r\n\r\n" not in heard:
                    piece = connection.recv(4096)
                    if not piece:
                        return
                    heard += piece
                head, _, heard = heard.partition(b"\r\n\r\n")
                if head.startswith((b"$", b"RTSP/")):
                    continue  # what the receiver reports, or answers
                self.heads.append(head.decode())
                method = head.partition(b" ")[0].decode()
                number = int(re.search(rb"CSeq: (\d+)", head)[1])
                said = self.say(method, head.decode(), number)
                connection.sendall(self._usual(method, number) if said is None else said)
                if method == "PLAY":
                    threading.Thread(target=self._play, args=(connection,), daemon=True).start()

    def _usual(self, method, number):
        more, body = "", ""
        if method == "OPTIONS":
            more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == "DESCRIBE":
            more, body = "Content-Type: application/sdp\r\n", self.sdp
        elif method == "SETUP":
            more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
        more += f"Content-Length: {len(body)}\r\n" if body else ""
        return f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{more}\r\n{body}".encode()

    def _play(self, connection):
        with contextlib.suppress(OSError, ValueError):
            for packet in self.media():
                if self._over:
                    return
                connection.sendall(packet)


def interleaved(payload: bytes, number: int, ticks: int, last: bool = True) -> bytes:
    """An RTP packet, as it comes over the connection of the server."""
    head = bytes([0x80, 96 | 128 * last]) + number.to_bytes(2, "big") + ticks.to_bytes(4, "big")
    packet = head + b"same" + payload
    return b"$\0" + len(packet).to_bytes(2, "big") + packet


def encoded(count: int) -> list[list[bytes]]:
    """The NAL units of so many pictures of 64 x 48; picture i is of one grey, 8 · i."""
    file = io.BytesIO()
    with av.open(file, "w", format="h264") as container:
        options = {"tune": "zerolatency", "g": "5", "preset": "ultrafast"}
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        found = []
        for i in range(count):
            grey = np.full((48, 64, 3), 8 * i % 256, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")):
                units = re.split(rb"\0\0\0?\x01", bytes(packet))
                found.append([unit for unit in units if unit])
        stream.encode()
    return found


def packets(fps=50):
    """The media of the usual server: pictures at their pace, for some seconds."""
    pictures, number = encoded(32), 0
    for i in range(10 * fps):
        for unit in pictures[i % 32]:
            last = unit is pictures[i % 32][-1]
            yield interleaved(unit, number % 2**16, 90_000 // fps * i, last)
            number += 1
        time.sleep(1 / fps)
