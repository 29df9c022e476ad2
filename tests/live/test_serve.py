"""The server of the page at the work station, by real HTTP on loopback."""

import http.client
import json
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse

import pytest

pytest.importorskip("starlette", reason="needs the extra live")
pytest.importorskip("uvicorn", reason="needs the extra live")

from stormpsr_jax.live import access, serve

TOKEN = "a-token-of-24-characters"
JPEG = b"\xff\xd8 no picture, but nobody here looks"
ROWS = [{"step_id": 0, "name": "Install <b>&pin", "status": "next", "time_s": None}]
VIEW = {"recording": "camera:0", "source": "live", "checklist": ROWS, "beliefs": []}


@pytest.fixture
def page(system):
    resets = threading.Semaphore(0)
    address = access.Address("127.0.0.1", 0)
    page = serve.Page(address, title="<script>evil</script>", on_reset=resets.release)
    page.resets = resets
    yield page
    page.close()


@pytest.fixture
def locked(system):
    """A page that needs a token, on all addresses."""
    address = access.Address("0.0.0.0", 0)
    page = serve.Page(address, title="pump", on_reset=lambda: None, token=TOKEN)
    yield page
    page.close()


def port_of(page):
    return urllib.parse.urlsplit(page.url).port


def ask(page, path="/", method="GET", body=None, **headers):
    """Returns status, headers and body; a header Host given is the one that is sent."""
    connection = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=10)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return found


class Events:
    """Server-sent events as they come: (name, id, data)."""

    def __init__(self, page, after="", **headers):
        self._connection = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=10)
        self._connection.request("GET", f"/events?after={after}", headers=headers)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200
        assert self._answer.getheader("Content-Type").startswith("text/event-stream")

    def next(self, wanted=None):
        while True:
            fields = {}
            while line := self._answer.readline().decode().rstrip("\n"):
                name, _, value = line.partition(": ")
                fields[name] = value
            found = fields["event"], fields.get("id"), json.loads(fields["data"])
            if wanted in (None, found[0]):
                return found

    def close(self):
        self._connection.close()


def numbers(events, count):
    """The IDs of the next records; a status has none and comes at any time."""
    found = []
    while len(found) < count:
        if (number := events.next("record")[1]) is not None:
            found.append(number)
    return found


def reset_headers(page):
    events = Events(page)
    token = events.next("hello")[2]["reset_token"]
    events.close()
    return {"Origin": f"http://127.0.0.1:{port_of(page)}", "Reset_Token": token}


def test_page_self_contained_escaped_and_under_a_policy(page):
    status, headers, body = ask(page)
    text = body.decode()
    assert status == 200
    assert "&lt;script&gt;evil" in text
    assert "evil</script>" not in text
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    assert not re.search(r"\sstyle=|\son\w+=|<script>|<style", text), "the policy forbids these"
    script = ask(page, "/station.js")[2].decode()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)
    for part in (text, script, ask(page, "/station.css")[2].decode()):
        assert not re.search(r"(https?:)?//(?!www\.w3\.org/2000/svg)[a-z]+\.", part)


def test_page_only_reset_and_login_take_a_post(page):
    for path in ("/", "/picture", "/events", "/station.js"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            origin = f"http://127.0.0.1:{port_of(page)}"
            assert ask(page, path, method, Origin=origin)[0] == 405
    assert ask(page, "/../../etc/passwd")[0] == 404
    assert ask(page, "/reset")[0] == 405


def test_page_other_names_and_origins_are_refused_on_loopback(page):
    page.frame(JPEG, VIEW)
    for path in ("/", "/picture", "/events", "/station.js", "/reset"):
        status, headers, body = ask(page, path, Host="evil.example")
        assert status == 403
        assert b"open it as localhost" in body
        assert "content-security-policy" in headers
    assert ask(page, "/picture", Sec_Fetch_Site="cross-site")[0] == 403
    assert ask(page, "/picture", Sec_Fetch_Site="same-origin")[0] == 200
    assert "access-control-allow-origin" not in ask(page, "/picture", Origin="http://evil")[1]


def test_reset_needs_its_token_and_this_origin(page):
    good = reset_headers(page)
    bad = [
        {},
        {"Origin": good["Origin"]},
        {"Reset_Token": good["Reset_Token"]},
        {**good, "Reset_Token": "x"},
        {**good, "Reset_Token": "ü".encode()},
        {**good, "Origin": "http://evil.example"},
        {**good, "Origin": f"http://localhost:{port_of(page)}"},
        {**good, "Sec_Fetch_Site": "cross-site"},
        {**good, "Host": "evil.example", "Origin": "http://evil.example"},
    ]
    for headers in bad:
        assert ask(page, "/reset", "POST", **headers)[0] == 403, headers
    assert not page.resets.acquire(blocking=False)
    assert ask(page, "/reset", "POST", **good)[0] == 202
    assert page.resets.acquire(timeout=5)


def test_token_nothing_without_it(locked, capfd):
    status, _, body = ask(locked)
    assert status == 401
    assert b'type="password"' in body
    for path in ("/picture", "/events", "/station.js", "/nowhere"):
        assert ask(locked, path)[0] == 401
        assert ask(locked, path, Authorization="Bearer wrong-token-of-24-letters")[0] == 401
    assert ask(locked, "/station.css")[0] == 200
    origin = f"http://127.0.0.1:{port_of(locked)}"
    assert ask(locked, "/reset", "POST", Origin=origin)[0] == 401
    assert ask(locked, "/station.js", Authorization=f"Bearer {TOKEN}")[0] == 200

    form = urllib.parse.urlencode({"token": TOKEN})
    assert ask(locked, "/login", "POST", form)[0] == 403, "needs the origin"
    assert ask(locked, "/login", "POST", "token=wrong", Origin=origin)[0] == 401
    assert ask(locked, "/login", "POST", "x" * 10**6, Origin=origin)[0] == 401
    assert ask(locked, "/login", "POST", "&" * 4000, Origin=origin)[0] == 401
    status, headers, _ = ask(locked, "/login", "POST", form, Origin=origin)
    assert status == 303
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert TOKEN not in cookie
    cookie = cookie.partition(";")[0]
    assert ask(locked, Cookie=cookie)[0] == 200
    assert ask(locked, Cookie=cookie + "x")[0] == 401
    events = Events(locked, Cookie=cookie)
    token = events.next("hello")[2]["reset_token"]
    events.close()
    assert ask(locked, "/reset", "POST", Origin=origin, Reset_Token=token)[0] == 401
    with_all = {"Origin": origin, "Reset_Token": token, "Cookie": cookie}
    assert ask(locked, "/reset", "POST", **with_all)[0] == 202
    out = "".join(capfd.readouterr())
    assert TOKEN not in out
    assert cookie not in out
    assert out == "", "no request is logged"


def test_events_come_once_each_and_are_caught_up(page):
    events = Events(page)
    start = events.next("hello")[2]["start"]
    for i in range(3):
        page.send({"type": "event", "step": f"Pin\r\n{i}"})
    page.send({"type": "status", "fps": 9.5})
    heard = [events.next("record") for _ in range(3)]
    assert [record["step"] for _, _, record in heard] == ["Pin\r\n0", "Pin\r\n1", "Pin\r\n2"]
    assert [number for _, number, _ in heard] == [f"{start}-{i}" for i in (1, 2, 3)]
    assert events.next("record")[1:] == (None, {"type": "status", "fps": 9.5})
    events.close()
    page.send({"type": "alert", "message": "missing"})
    again = Events(page, after=f"{start}-2")
    assert numbers(again, 2) == [f"{start}-3", f"{start}-4"]
    again.close()
    by_itself = Events(page, **{"Last-Event-ID": f"{start}-3"})
    assert numbers(by_itself, 1) == [f"{start}-4"]
    by_itself.close()
    for unknown in ("another-2", f"{start}-x", "-", "%00", f"{start}-{'9' * 5000}"):
        fresh = Events(page, after=unknown)
        assert numbers(fresh, 1) == [f"{start}-1"]
        fresh.close()


def test_events_records_that_are_kept_are_bounded(page):
    for i in range(serve._KEPT + 7):
        page.send({"type": "event", "step_id": i})
    events = Events(page)
    assert events.next("record")[2]["step_id"] == 7
    events.close()


def test_view_the_newest_is_shown_without_its_box(page):
    events = Events(page)
    events.next("hello")
    view = {**VIEW, "box": {"label": "1100"}}
    page.frame(None, view)
    assert events.next("view")[2] == VIEW
    for i in range(50):
        page.frame(None, {**view, "time_s": i})
    seen = []
    while not seen or seen[-1] < 49:
        seen.append(events.next("view")[2]["time_s"])
    assert len(seen) < 10, "no more than ten a second"
    events.close()


def test_picture_a_watcher_gets_the_next_one_with_its_box(page):
    box = {"x0": 0.1, "y0": 0.2, "x1": 0.5, "y1": 0.6, "label": "Gehäuse\r\nX: y", "error": False}
    page.frame(JPEG, {**VIEW, "box": box})
    status, headers, body = ask(page, "/picture?after=")
    assert (status, body, headers["content-type"]) == (200, JPEG, "image/jpeg")
    assert json.loads(headers["box"]) == box
    got = []
    waiting = threading.Thread(
        target=lambda: got.append(ask(page, f"/picture?after={headers['picture']}"))
    )
    waiting.start()
    time.sleep(0.2)
    assert not got, "there is no new one yet"
    page.frame(None, VIEW)
    page.frame(JPEG + b"2", {**VIEW, "box": {"label": "x" * 5000}})
    waiting.join(5)
    assert got[0][2] == JPEG + b"2"
    assert got[0][1]["box"] == "null"
    assert ask(page, "/picture?after=01234567-99")[0] == 200, "of a server before a restart"


def test_wants_picture_while_somebody_waits_and_else_at_times(page, monkeypatch):
    assert page.wants_picture, "so that who comes later sees something at once"
    page.frame(JPEG, VIEW)
    monkeypatch.setattr(serve, "_UNSEEN", 1e9)
    assert not page.wants_picture
    last = ask(page, "/picture")[1]["picture"]
    assert not page.wants_picture, "who has come has the last one"
    waiting = threading.Thread(target=ask, args=(page, f"/picture?after={last}"))
    waiting.start()
    deadline = time.monotonic() + 20
    while not page.wants_picture:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for _ in range(2):
        page.frame(JPEG + b"2", VIEW)
        page.frame(None, {**VIEW, "time_s": 1})  # takes the picture's place nowhere
    waiting.join(5)
    assert not waiting.is_alive()
    assert ask(page, "/picture")[2] == JPEG + b"2"
    assert not page.wants_picture
    monkeypatch.setattr(serve, "_UNSEEN", 0)
    assert page.wants_picture


def test_page_what_json_has_not_is_left_out(page, capsys):
    page.send({"type": "event", "time_s": float("nan")})
    page.frame(JPEG, {**VIEW, "box": {"x0": float("inf")}})
    page.frame(JPEG, {"checklist": object()})
    page.send({"type": "event", "step_id": 1})
    events = Events(page)
    assert events.next("record")[2]["step_id"] == 1
    events.close()
    assert ask(page, "/picture")[1]["box"] == "null"
    assert capsys.readouterr().err.startswith("warning: --serve: a record holds what JSON has not")


def test_close_tells_watchers_the_last_news_first(system):
    page = serve.Page(access.Address("127.0.0.1", 0), title="x", on_reset=lambda: None)
    events = Events(page)
    events.next("hello")
    page.send({"type": "unit", "ended": "end"})
    page.frame(None, VIEW | {"source": "ended"})
    page.close()
    assert events.next("record")[2]["ended"] == "end"
    assert events.next("view")[2]["source"] == "ended"
    events.close()


def test_close_ends_at_once_with_watchers(system, capfd):
    page = serve.Page(access.Address("127.0.0.1", 0), title="x", on_reset=lambda: None)
    events = [Events(page) for _ in range(3)]
    threads = [threading.Thread(target=ask, args=(page, "/picture")) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    start = time.monotonic()
    page.close()
    assert time.monotonic() - start < 2.5
    for thread in threads:
        thread.join(5)
    for one in events:
        one.close()
    page.send({"type": "event"})
    page.frame(JPEG, VIEW)
    page.close()
    with pytest.raises(ConnectionRefusedError):
        ask(page)
    assert capfd.readouterr().err == ""


def test_page_errors_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = access.Address(*taken.getsockname())
        with pytest.raises(ValueError, match=r"--serve=127.0.0.1:\d+: cannot be opened \(Address"):
            serve.Page(address, title="x", on_reset=lambda: None)
    with pytest.raises(ValueError, match="needs a token"):
        serve.Page(access.Address("0.0.0.0", 0), title="x", on_reset=lambda: None)


def test_page_errors_names_the_extra(monkeypatch):
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--serve needs starlette: pip install '\.\["):
        serve.Page(access.Address("127.0.0.1", 0), title="x", on_reset=lambda: None)


WATCHERS = """
import http.client, sys, threading, time
port, number, seconds = map(int, sys.argv[1:])
end = time.monotonic() + seconds
def watch(counts, i):
    events = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    events.request("GET", "/events")
    events.getresponse()  # and reads nothing of it: as slow as can be
    pictures = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    after = ""
    while time.monotonic() < end:
        pictures.request("GET", "/picture?after=" + after)
        answer = pictures.getresponse()
        after = answer.getheader("Picture")
        counts[i] += len(answer.read()) == 60000
counts = [0] * number
threads = [threading.Thread(target=watch, args=(counts, i)) for i in range(number)]
[t.start() for t in threads]
[t.join() for t in threads]
print(min(counts))
"""


def test_frame_20_watchers_cost_the_caller_less_than_a_millisecond(page):
    """By the time that the caller's thread works, as this machine may be busy with other things."""
    words = [sys.executable, "-c", WATCHERS, str(port_of(page)), "20", "3"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as watchers:
        spent, passed = [], []
        while watchers.poll() is None:
            view = {**VIEW, "checklist": ROWS * 20, "time_s": len(spent) / 10}
            jpeg = bytes(60_000)
            start, clock = time.thread_time(), time.perf_counter()
            page.frame(jpeg, view)
            spent.append(time.thread_time() - start)
            passed.append(time.perf_counter() - clock)
            time.sleep(0.05)
        fewest = int(watchers.stdout.read())
    assert len(spent) > 30
    assert fewest >= 3, "every watcher sees pictures"
    assert max(spent) < 1e-3
    assert statistics.median(passed) < 1e-3
