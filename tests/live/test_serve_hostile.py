"""The page at the work station, attacked by who reaches its port."""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs the extra live")
pytest.importorskip("uvicorn", reason="needs the extra live")

from stormpsr_jax.live import access, serve

pytestmark = pytest.mark.usefixtures("system")
TOKEN = "a-token-of-24-characters"
JPEG = b"\xff\xd8 no picture, but nobody here looks"


@contextlib.contextmanager
def serving():
    """A page that needs a token, with a picture and a record."""
    resets = []
    address = access.Address("127.0.0.1", 0)
    page = serve.Page(address, title="pump", on_reset=lambda: resets.append(1), token=TOKEN)
    page.frame(JPEG, {"source": "live"})
    page.send({"type": "event", "step": "Install pin"})
    page.resets = resets
    wait_until(lambda: ask(page, "/picture")[0] == 200)
    yield page
    page.close()


@pytest.fixture(scope="module")
def locked():
    with serving() as page:
        yield page


def wait_until(holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def port_of(page):
    return urllib.parse.urlsplit(page.url).port


def ask(page, path="/", method="GET", body=None, **headers):
    """Asks with the token; returns status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=10)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    headers.setdefault("Authorization", f"Bearer {TOKEN}")
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return found


def say(page, text, seconds=5):
    """What comes back for raw bytes until the other end closes, or says nothing more."""
    with socket.create_connection(("127.0.0.1", port_of(page)), timeout=seconds) as connection:
        connection.sendall(text.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        told = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while part := connection.recv(65536):
                told += part
    return told


HOSTS = [
    "x/login?", "localhost/login?", "127.0.0.1/station.css?", "x/login#", "x/station.css;",
    "/login", "/login?", "localhost/login", "x@localhost", "localhost\t/login?", "localhost.", "",
    "[::1]/login",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_no_header_host_stands_in_for_the_token(locked, host, version):
    for request in ("GET /picture", "GET /events", "GET /station.js", "POST /reset", "GET /"):
        head = f"{request} HTTP/{version}\r\nHost: {host}\r\nOrigin: http://{host}\r\n"
        told = say(locked, f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n")
        assert re.match(rb"HTTP/1\.1 40[013] ", told), (request, told[:200])
        assert JPEG not in told
        assert b"event:" not in told
    assert locked.resets == []


TARGETS = [
    "http://x/login", "http://127.0.0.1/picture", "http://localhost/login/../picture", "//picture",
    "//login/../picture", "/login/../picture", "/picture/", "/login/", "/picture.", "/picture%2f",
    "/%70icture", "/picture%00", "/login%2f..%2fpicture", "/login%3f/../picture", "/./picture",
    "/picture?/login", "/picture#/login", "/picture;/login", "/LOGIN", "/station.css/../picture",
    "/station.css/", "*", "x:80", "login", "?/login",
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "CONNECT", "TRACE"])
@pytest.mark.parametrize("target", TARGETS)
def test_no_way_to_write_a_path_stands_in_for_the_token(locked, target, method):
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
    told = say(locked, f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n")
    assert re.match(rb"HTTP/1\.1 4\d\d ", told), told[:200]
    assert JPEG not in told
    assert b"\r\nlocation:" not in told.lower(), "a redirect would lead where Host says"


def test_a_path_that_does_not_exist_leads_nowhere_with_the_token_too(locked):
    for path in ("/picture/", "/events/", "//evil.example/", "/login/"):
        status, headers, _ = ask(locked, path, Host="evil.example")
        assert status == 404
        assert "location" not in headers


@pytest.mark.parametrize(
    "head",
    [
        "GET /picture HTTP/1.1\r\nHost: localhost\r\nHost: x/login?\r\n",
        "GET /picture HTTP/1.1\r\n",
        "GET /picture HTTP/9.9\r\nHost: localhost\r\n",
        "GET /picture\r\n",
        f"GET /picture HTTP/1.1\r\nHost: localhost\r\nX: {'x' * 70_000}\r\n",
        "POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
        "POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n",
        "GET /picture HTTP/1.1\r\nHost: a\r\nHost : b\r\n",
        "GET /picture HTTP/1.1\r\nHost: a\r\n continued\r\n",
    ],
)
def test_a_damaged_request_is_refused(locked, head):
    told = say(locked, f"{head}\r\n")
    assert re.match(rb"HTTP/1\.1 4\d\d ", told), told[:200]
    assert JPEG not in told


def test_a_picture_needs_an_id_as_the_page_gives_it(locked):
    for after in ("x", "0-", "-1", "g1234567-1", "01234567-x", "01234567-" + "9" * 5000, "%00"):
        assert ask(locked, f"/picture?after={after}")[0] == 400


def test_made_up_ids_do_not_give_more_pictures_than_there_are_for_all(locked):
    connection = http.client.HTTPConnection("127.0.0.1", port_of(locked), timeout=10)
    start, count = time.monotonic(), 320
    for i in range(count):
        after = f"/picture?after=01234567-{i}"
        connection.request("GET", after, headers={"Authorization": f"Bearer {TOKEN}"})
        assert connection.getresponse().read() == JPEG
    connection.close()
    passed = time.monotonic() - start
    assert count <= 200 + 100 * passed + 1, "a burst of 200, then a hundred a second"


def test_the_cookie_is_for_https_alone_where_the_browser_has_the_page_by_https(locked):
    form = urllib.parse.urlencode({"token": TOKEN})
    for scheme in ("http", "https"):
        origin = f"{scheme}://station.example"
        headers = {"Host": "station.example", "Origin": origin, "Authorization": "none"}
        status, headers, _ = ask(locked, "/login", "POST", form, **headers)
        assert status == 303
        assert ("Secure" in headers["set-cookie"]) == (scheme == "https")


def process_of(page):
    return page._process.pid


def test_the_token_is_in_no_word_and_no_variable_of_the_process(monkeypatch):
    monkeypatch.setenv(access.TOKEN, TOKEN)
    monkeypatch.setenv("STORMPSR_MQTT_PASSWORD", "another-secret")
    page = serve.Page(access.Address("127.0.0.1", 0), title="x", on_reset=lambda: None, token=TOKEN)
    try:
        for file in ("cmdline", "environ"):
            said = Path(f"/proc/{process_of(page)}/{file}").read_bytes()
            assert said
            assert TOKEN.encode() not in said
            assert b"another-secret" not in said
    finally:
        page.close()


def test_a_page_whose_process_dies_comes_back_with_what_it_had(capfd):
    page = serve.Page(access.Address("127.0.0.1", 0), title="x", on_reset=lambda: None)
    try:
        page.frame(JPEG, {"source": "live", "time_s": 1})
        page.send({"type": "event", "step": "Install pin"})
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(process_of(page), number)
        assert ask(page)[0] == 200, "signals that mean recognition do not end its page"
        first = process_of(page)
        os.kill(first, signal.SIGKILL)
        page.frame(None, {"source": "live", "time_s": 2})
        page.send({"type": "event", "step": "Install lid"})
        wait_until(lambda: process_of(page) != first)
        wait_until(lambda: ask(page, "/picture")[2] == JPEG)
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=10)
        ) as connection:
            connection.request("GET", "/events")
            answer, told = connection.getresponse(), b""
            while b'"time_s": 2' not in told:
                told += answer.readline()
        assert told.index(b"Install pin") < told.index(b"Install lid")
    finally:
        page.close()
    (line,) = capfd.readouterr().err.splitlines()
    assert line == (
        "warning: --serve: its process has ended with status -9; recognition goes on, and the page "
        "begins again in 0.5 s"
    )


def test_a_page_whose_process_dies_writes_nothing_where_its_channel_was(monkeypatch):
    closed = []

    class Slow(serve.Connection):
        def send_bytes(self, message):
            try:
                super().send_bytes(message)
                time.sleep(0.3)
            finally:
                closed.append(self.closed)

    monkeypatch.setattr(serve, "Connection", Slow)
    page = serve.Page(access.Address("127.0.0.1", 0), title="x", on_reset=lambda: None)
    try:
        first = process_of(page)
        page.send({"type": "event", "step": "Install pin"})
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: process_of(page) != first)
    finally:
        page.close()
    assert closed
    assert not any(closed), "another file may have its number by now"


def test_a_page_that_hears_nothing_any_more_costs_recognition_nothing():
    page = serve.Page(access.Address("127.0.0.1", 0), title="x", on_reset=lambda: None)
    os.kill(process_of(page), signal.SIGSTOP)
    longest = 0.0
    for i in range(3000):
        start = time.thread_time()
        page.frame(bytes(100_000), {"time_s": i})
        page.send({"type": "event", "step": "x" * 1000})
        longest = max(longest, time.thread_time() - start)
    assert longest < 0.02
    assert len(page._records) == serve._KEPT
    start = time.monotonic()
    page.close(0.5)
    assert time.monotonic() - start < 3
    assert not Path(f"/proc/{process_of(page)}").exists()


def test_a_library_that_cannot_be_imported_is_named_at_once(tmp_path, monkeypatch, capfd):
    (tmp_path / "uvicorn.py").write_text("raise ImportError('of another Python')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"--serve=127.0.0.1:\d+: the page cannot be started \(it"):
        serve.Page(access.Address("127.0.0.1", 0), title="x", on_reset=lambda: None)
    assert capfd.readouterr().err == "warning: --serve: ImportError: of another Python\n"


OWNER = """
import time
from stormpsr_jax.live import access, serve
page = serve.Page(access.Address("127.0.0.1", 0), title="x", on_reset=lambda: None)
print(page.url, page._process.pid, flush=True)
time.sleep(60)
"""


def test_a_page_ends_with_the_process_that_has_it_and_its_address_is_free():
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE) as owner:
        url, process = owner.stdout.readline().decode().split()
        owner.kill()
    port = urllib.parse.urlsplit(url).port
    page = serve.Page(access.Address("127.0.0.1", port), title="x", on_reset=lambda: None)
    page.close()
    wait_until(lambda: not Path(f"/proc/{process}").exists())


def is_closed(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def check_connections(page):
    """Half a head, a dripped head, a dripped body, silence; more than there may be."""
    watching = socket.create_connection(("127.0.0.1", port_of(page)))
    watching.sendall(
        f"GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    )
    begins = [
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"",
        b"POST /login HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nContent-Length: 4000\r\n\r\nt=",
    ]
    opened, before = [], len(os.listdir("/proc/self/fd"))
    with contextlib.ExitStack() as stack:
        for i in range(450):
            connection = socket.create_connection(("127.0.0.1", port_of(page)), timeout=10)
            opened.append(stack.enter_context(connection))
            connection.sendall(begins[i % 3])
        assert len(os.listdir("/proc/self/fd")) == before + len(opened), "no others of this process"
        start = time.monotonic()
        assert ask(page, "/picture")[2] == JPEG
        assert time.monotonic() - start < 2, "one that asks takes the place of one that does not"
        wait_until(lambda: sum(map(is_closed, opened)) >= 250, 2)
        while not all(map(is_closed, opened)):
            assert time.monotonic() < start + 8
            for connection in opened:
                with contextlib.suppress(OSError):
                    connection.send(b"x")
            time.sleep(0.2)
    assert not is_closed(watching), "who watches stays"
    watching.close()
    assert ask(page, "/picture")[2] == JPEG


def test_connections_that_do_not_ask_are_closed_and_named_while_others_watch(capfd):
    with serving() as page:
        check_connections(page)
    lines = capfd.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 2
    for line in lines:
        assert re.fullmatch(
            r"warning: --serve: closed \d+ connections of 127\.0\.0\.1: more than 200 at once, or "
            r"no whole request within 5 s",
            line,
        )


def test_a_page_with_few_descriptors_serves_and_says_no_more_than_a_line():
    """A limit below what it wants, which it may not raise."""
    words = ["bash", "-c", f'ulimit -n 200; exec {sys.executable} -c "$0"', OWNER]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as owner:
        url, _ = owner.stdout.readline().decode().split()
        port = urllib.parse.urlsplit(url).port
        with contextlib.ExitStack() as stack:
            for _ in range(400):
                connection = socket.create_connection(("127.0.0.1", port), timeout=10)
                stack.enter_context(connection).sendall(b"GET")
            asked = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            asked.request("GET", "/")
            assert asked.getresponse().status == 200
            asked.close()
            time.sleep(0.6)
        owner.kill()
        lines = owner.stderr.read().decode().splitlines()
    assert len(lines) == 1, lines
    assert "connections of 127.0.0.1: more than 40 at once" in lines[0]


def test_requests_that_nobody_reads_take_no_memory(locked):
    """Pictures asked for by the thousand over connections whose answers are never read."""
    page = serve.Page(access.Address("127.0.0.1", 0), title="x", on_reset=lambda: None)
    try:
        page.frame(bytes(500_000), {})
        wait_until(lambda: len(ask(page, "/picture")[2]) == 500_000)
        with contextlib.ExitStack() as stack:

            def flood():
                connection = socket.create_connection(("127.0.0.1", port_of(page)), timeout=10)
                stack.enter_context(connection).settimeout(1)
                with contextlib.suppress(OSError):
                    connection.sendall(b"GET /picture HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5000)

            threads = [threading.Thread(target=flood) for _ in range(100)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            status = Path(f"/proc/{process_of(page)}/status").read_text()
            peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
            assert peak < 400_000
            assert ask(page, "/")[0] == 200
    finally:
        page.close()
