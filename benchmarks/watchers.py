"""What handing a frame to the page at the work station takes, while many watch it or attack it.

    python benchmarks/watchers.py --watchers=20 --attackers=4 --seconds=30

Hands over pictures at the rate of a camera: with nobody watching; with watchers in a process of
their own (one connection for events, one for pictures each); and with as many that do not ask: each
attacker opens connections as fast as it can, holds 250 of them, and sends half a head. Prints a
table: pictures a second that each watcher got, how long `Page.frame` took, and how much of a core
the page's process used. With --port, only attacks a page that is there.
"""

import argparse
import collections
import contextlib
import http.client
import multiprocessing
import resource
import socket
import threading
import time

import numpy as np
import simplejpeg

from stormpsr_jax.live import access, serve

FPS = 10
ROWS = [{"step_id": 3 * i, "name": f"Install part {i}", "status": "open"} for i in range(20)]
BELIEFS = [{"component": f"part {i}", "right": 0.5, "wrong": 0.1} for i in range(20)]


def watch(port: int, number: int, seconds: float, results) -> None:
    """Puts into `results` the pictures that each of so many watchers got."""
    results.put("started")
    counts = [0] * number

    def follow(i: int) -> None:
        events = http.client.HTTPConnection("127.0.0.1", port)
        events.request("GET", "/events")
        heard = events.getresponse()
        threading.Thread(target=lambda: [None for _ in heard], daemon=True).start()
        pictures = http.client.HTTPConnection("127.0.0.1", port)
        after, end = "", time.monotonic() + seconds
        while time.monotonic() < end:
            pictures.request("GET", f"/picture?after={after}")
            answer = pictures.getresponse()
            after = answer.getheader("Picture") or after
            counts[i] += len(answer.read()) > 0

    threads = [threading.Thread(target=follow, args=(i,), daemon=True) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(counts)


def attack(port: int, number: int, seconds: float) -> None:
    """Holds connections that never ask."""
    end = time.monotonic() + seconds

    def follow() -> None:
        held: collections.deque[socket.socket] = collections.deque()
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                one = socket.create_connection(("127.0.0.1", port), timeout=1)
                held.append(one)
                one.sendall(b"GET /picture HTTP/1.1\r\n")
            if len(held) > 250:
                held.popleft().close()

    threads = [threading.Thread(target=follow, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def used_by_children() -> float:
    """Seconds of processors of those that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def measure(watchers: int, attackers: int, seconds: float) -> str:
    """Returns a row of the table."""
    page = serve.Page(access.Address("127.0.0.1", 0), title="benchmark", on_reset=lambda: None)
    picture = np.random.default_rng(0).integers(0, 60, (480, 640, 3), np.uint8)
    jpeg = simplejpeg.encode_jpeg(picture, quality=80)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    port = int(page.url.rstrip("/").rpartition(":")[2])
    process = context.Process(target=watch, args=(port, watchers, seconds, results), daemon=True)
    process.start()
    results.get(timeout=60)  # it has started
    hostile = context.Process(target=attack, args=(port, attackers, seconds), daemon=True)
    hostile.start()
    spent, start = [], time.monotonic()
    while time.monotonic() < start + seconds:
        view = {"source": "live", "checklist": ROWS, "beliefs": BELIEFS, "time_s": len(spent) / FPS}
        before = time.perf_counter()
        page.frame(jpeg, view)
        spent.append(time.perf_counter() - before)
        time.sleep(max(0, start + len(spent) / FPS - time.monotonic()))
    counts = results.get(timeout=30)
    process.join()
    hostile.join()
    before = used_by_children()
    page.close()
    core = (used_by_children() - before) / (time.monotonic() - start)
    each = f"{min(counts) / seconds:.1f}" if counts else "–"
    p50, p99, most = (1e3 * np.quantile(spent, q) for q in (0.5, 0.99, 1))
    cells = watchers, attackers, each, *(f"{one:.3f}" for one in (p50, p99, most))
    return f"| {' | '.join(map(str, cells))} | {100 * core:.0f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--watchers", type=int, default=20)
    parser.add_argument("--attackers", type=int, default=4)
    parser.add_argument("--port", type=int)
    parser.add_argument("--seconds", type=float, default=30)
    args = parser.parse_args()
    if args.port is not None:
        attack(args.port, args.attackers, args.seconds)
        return
    print("| watchers | attackers | pictures/s of each | frame() ms p50 | p99 | most | of a core |")
    print("|---|---|---|---|---|---|---|")
    for numbers in ((0, 0), (args.watchers, 0), (args.watchers, args.attackers)):
        print(measure(*numbers, args.seconds), flush=True)


if __name__ == "__main__":
    main()
