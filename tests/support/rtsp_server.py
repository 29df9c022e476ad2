"""An RTSP server whose pictures are numbered by the clock: rtsp_server.py PORT FPS.

Run by Debian's Python, with its GStreamer (gir1.2-gst-rtsp-server-1.0). Picture n is taken n / FPS
seconds after the epoch; its lower 24 bits are drawn as 6 x 4 squares, white for 1.
"""

import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

SIDE, COLUMNS, ROWS = 32, 6, 4
PORT, FPS = sys.argv[1], int(sys.argv[2])


def drawn(number):
    """The picture of a number, RGB."""
    rows = []
    for r in range(ROWS):
        bits = [255 * (number >> (COLUMNS * r + c) & 1) for c in range(COLUMNS)]
        rows += [b"".join(bytes([bit]) * 3 * SIDE for bit in bits)] * SIDE
    return b"".join(rows)


class Factory(GstRtspServer.RTSPMediaFactory):
    def do_create_element(self, url):
        caps = f"video/x-raw,format=RGB,width={SIDE * COLUMNS},height={SIDE * ROWS}"
        return Gst.parse_launch(
            f"appsrc name=pictures is-live=true format=time "
            f"caps={caps},framerate={FPS}/1 ! videoconvert ! video/x-raw,format=I420 "
            f"! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={FPS} "
            "! rtph264pay name=pay0 pt=96"
        )

    def do_configure(self, media):
        source = media.get_element().get_by_name_recurse_up("pictures")
        number = first = int(time.time() * FPS) + 1

        def push():
            nonlocal number
            picture = Gst.Buffer.new_wrapped(drawn(number))
            # As of a camera: when it was taken, however late it is sent.
            picture.pts = (number - first) * Gst.SECOND // FPS
            picture.duration = Gst.SECOND // FPS
            ended = source.emit("push-buffer", picture)
            if ended != Gst.FlowReturn.OK:
                return False
            number += 1
            GLib.timeout_add(max(0, round(1000 * (number / FPS - time.time()))), push)
            return False

        GLib.timeout_add(max(0, round(1000 * (number / FPS - time.time()))), push)


Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(PORT)
server.get_mount_points().add_factory("/numbers", Factory())
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
