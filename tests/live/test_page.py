"""The server of the page at the work station, by real HTTP on loopback."""

import contextlib
import os
import re
import signal
import socket
import time
import urllib.parse
from pathlib import Path

import pytest

from stormpsr_jax.pages import access

pytest.importorskip("sse_starlette", reason="needs the extra live")
pytest.importorskip("uvicorn", reason="needs the extra live")

from stormpsr_jax.live import serve
from tests.support.live_data import Events, ask, serving
from tests.support.processes import wait_until

TOKEN = "a-token-of-24-characters"
JPEG = b"\xff\xd8 no picture, but nobody here looks"
ROWS = [{"step_id": 0, "name": "Install <b>&pin", "status": "next", "time_s": None}]
VIEW = {"recording": "camera:0", "source": "live", "checklist": ROWS, "beliefs": []}
TITLE = "<script>evil</script>"


@pytest.fixture(scope="module")
def page(system):
    with serving(TITLE) as page:
        yield page


@pytest.fixture(scope="module")
def locked(system):
    """A page that needs a token, on all addresses, with a picture and a record."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(access.TOKEN, TOKEN)
        with serving(TITLE, "0.0.0.0", token=TOKEN) as page:
            page.frame(JPEG, VIEW)
            page.send({"type": "event", "step": "Install pin"})
            yield page


def test_page_self_contained_escaped_and_under_a_policy(page):
    status, headers, body = ask(page.port)
    text = body.decode()
    assert status == 200
    assert "&lt;script&gt;evil" in text
    assert "evil</script>" not in text
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    assert not re.search(r"\sstyle=|\son\w+=|<script>|<style", text), "the policy forbids these"
    script = ask(page.port, "/station.js")[2].decode()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)
    for part in (text, script, ask(page.port, "/station.css")[2].decode()):
        assert not re.search(r"(https?:)?//(?!www\.w3\.org/2000/svg)[a-z]+\.", part)
    assert ask(page.port, "/../../etc/passwd")[0] == 404
    origin = f"http://127.0.0.1:{page.port}"
    assert ask(page.port, "/picture", "POST", Origin=origin)[0] == 405


def test_reset_needs_this_origin(page):
    good = {"Origin": f"http://127.0.0.1:{page.port}"}
    bad = [
        {},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {**good, "Sec_Fetch_Site": "cross-site"},
        {**good, "Host": "evil.example", "Origin": "http://evil.example"},
    ]
    for headers in bad:
        assert ask(page.port, "/reset", "POST", **headers)[0] == 403, headers
        assert ask(page.port, "/confirm?step=27", "POST", **headers)[0] == 403, headers
    assert not page.resets.acquire(blocking=False)
    assert ask(page.port, "/reset", "POST", **good)[0] == 202
    assert page.resets.acquire(timeout=5)
    for step in ("", "x", "-3", "2" * 7):
        assert ask(page.port, f"/confirm?step={step}", "POST", **good)[0] == 400
    assert ask(page.port, "/confirm?step=27", "POST", **good)[0] == 202
    assert page.confirmed.get(timeout=5) == 27


def test_nothing_without_the_token(locked, capfd):
    status, _, body = ask(locked.port)
    assert status == 401
    assert b'type="password"' in body
    for path in ("/picture", "/events", "/past", "/snapshot", "/station.js", "/nowhere"):
        assert ask(locked.port, path)[0] == 401
        assert ask(locked.port, path, Authorization="Bearer wrong-token-of-24-letters")[0] == 401
    assert ask(locked.port, "/station.css")[0] == 200
    origin = f"http://127.0.0.1:{locked.port}"
    assert ask(locked.port, "/reset", "POST", Origin=origin)[0] == 401
    assert ask(locked.port, "/station.js", Authorization=f"Bearer {TOKEN}")[0] == 200

    form = urllib.parse.urlencode({"token": TOKEN})
    assert ask(locked.port, "/login", "POST", form)[0] == 403, "needs the origin"
    for wrong in ("token=wrong", "x" * 10**6):
        assert ask(locked.port, "/login", "POST", wrong, Origin=origin)[0] == 401
    status, headers, _ = ask(locked.port, "/login", "POST", form, Origin=origin)
    assert status == 303
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie
    assert TOKEN not in cookie
    https = {"Host": "station.example", "Origin": "https://station.example"}
    assert "Secure" in ask(locked.port, "/login", "POST", form, **https)[1]["set-cookie"]
    cookie = cookie.partition(";")[0]
    assert ask(locked.port, Cookie=cookie)[0] == 200
    name = cookie.partition("=")[0]
    assert name.endswith(f"-{locked.port}"), "cookies know no ports"
    for wrong in (f"{cookie}x", f"{name}={TOKEN}", f"{name}=\xfc"):
        assert ask(locked.port, Cookie=wrong)[0] == 401
    assert ask(locked.port, "/station.js", Authorization=f"Basic {TOKEN}")[0] == 401
    assert ask(locked.port, "/reset", "POST", Origin=origin, Cookie=cookie)[0] == 202
    assert capfd.readouterr() == ("", ""), "no request is logged"
    for file in ("cmdline", "environ"):
        said = Path(f"/proc/{locked._process.pid}/{file}").read_bytes()
        assert said
        assert TOKEN.encode() not in said, "everybody on the machine could read it"


def test_events_come_once_each_and_are_caught_up(system, capsys):
    with serving(TITLE) as page:
        with Events(page.port) as events:
            start = events.next("hello")[2]["start"]
            for i in range(3):
                page.send({"type": "event", "step": f"Pin\r\n{i}"})
            page.send({"type": "status", "fps": 9.5})
            heard = [events.next("record") for _ in range(3)]
            assert [record["step"] for *_, record in heard] == ["Pin\r\n0", "Pin\r\n1", "Pin\r\n2"]
            assert [number for _, number, _ in heard] == [f"{start}-{i}" for i in (1, 2, 3)]
            assert events.next("record")[1:] == (None, {"type": "status", "fps": 9.5})
        with Events(page.port, **{"Last-Event-ID": f"{start}-2"}) as by_itself:
            assert by_itself.next("record")[1] == f"{start}-3"
        for unknown in ("another-2", f"{start}-x", "%00", f"{start}-{'9' * 5000}"):
            with Events(page.port, after=unknown) as fresh:
                assert fresh.next("record")[1] == f"{start}-1"
        for i in range(serve.KEPT[serve.RECORD]):
            page.send({"type": "event", "step_id": i})
        with Events(page.port, after=f"{start}-3") as again:
            heard = [again.next("record") for _ in range(2)]
            assert {"type": "event", "step_id": 0} in [record for *_, record in heard]
    assert not capsys.readouterr().err


def test_a_page_whose_process_dies_comes_back_with_what_it_had(system, capfd):
    with serving(TITLE) as page:
        page.frame(JPEG, {"source": "live", "time_s": 1})
        page.send({"type": "event", "step": "Install pin"})
        first = page._process.pid
        os.kill(first, signal.SIGKILL)
        page.frame(None, {"source": "live", "time_s": 2})
        page.send({"type": "event", "step": "Install lid"})
        wait_until(lambda: page._process.pid != first)
        assert ask(page.port, "/picture")[2] == JPEG
        with Events(page.port) as events:
            steps = [events.next("record")[2]["step"] for _ in range(2)]
            assert steps == ["Install pin", "Install lid"]
            assert events.next("view")[2]["time_s"] == 2
    assert capfd.readouterr().err == (
        "warning: --serve: its process has ended with status -9; recognition goes on, and the page "
        "begins again in 1.0 s\n"
    )


def test_recognition_goes_on_and_the_page_comes_back_after_a_flood(system):
    """More connections than are served, which ask for nothing: 503 until they are gone."""
    with serving(TITLE) as page, contextlib.ExitStack() as stack:
        page.frame(JPEG, VIEW)
        assert ask(page.port, "/picture")[0] == 200
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(250):
            connection = socket.create_connection(("127.0.0.1", page.port), timeout=10)
            stack.enter_context(connection).sendall(b"GET / HTTP/1.1\r\n")
        assert len(os.listdir("/proc/self/fd")) == before + 250, "no others of this process"
        wait_until(lambda: ask(page.port)[0] == 503)
        start = time.thread_time()
        page.frame(JPEG, VIEW)
        assert time.thread_time() - start < 0.02
        stack.close()
        wait_until(lambda: ask(page.port)[0] == 200)
        assert ask(page.port, "/picture")[2] == JPEG


def test_errors_one_line(system, monkeypatch):
    def refused(port=0):
        with pytest.raises(ValueError) as error, serving(TITLE, port=port):
            pass
        return str(error.value)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refused(port).startswith(f"--serve=127.0.0.1:{port}: cannot be opened (Address")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert refused().startswith("--serve needs 'starlette': pip install '.[")


# --- Addresses and tokens -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address", "is_loopback"),
    [
        ("", ("127.0.0.1", 8765), True),
        ("80", ("127.0.0.1", 80), True),
        ("0", ("127.0.0.1", 0), True),
        ("localhost:99", ("127.0.0.1", 99), True),
        ("127.0.0.9:99", ("127.0.0.9", 99), True),
        ("[::1]:99", ("::1", 99), True),
        ("0.0.0.0:99", ("0.0.0.0", 99), False),
        ("[::]:99", ("::", 99), False),
        ("192.168.0.3:99", ("192.168.0.3", 99), False),
        ("station.local:99", ("station.local", 99), False),
    ],
)
def test_parse_port_or_host_and_port(text, address, is_loopback):
    assert access.parse(text) == address
    assert access.parse(text).is_loopback == is_loopback


@pytest.mark.parametrize(
    "text", ["x", ":80", "host:x", "99999", "::1:80", "[::1]", "a@host:80", "²", "host:80/x"]
)
def test_parse_errors_name_the_value(text):
    with pytest.raises(ValueError, match=r"--serve=.*: must be PORT, HOST:PORT or") as error:
        access.parse(text)
    assert text in str(error.value)


def test_read_token_file_before_variable(tmp_path):
    variables = {access.TOKEN: TOKEN}
    assert access.read_token(None, variables) == TOKEN
    assert access.read_token(None, {}) is None
    assert access.read_token(None, {access.TOKEN: ""}) is None
    file = tmp_path / "token"
    file.write_text("another-token-of-a-file\n")
    file.chmod(0o640)
    assert access.read_token(str(file), variables) == "another-token-of-a-file"
    for mode in (0o644, 0o602):
        file.chmod(mode)
        with pytest.raises(ValueError, match=f"everybody may open it .mode {mode:o}.; chmod 600 "):
            access.read_token(str(file))


@pytest.mark.parametrize(
    "text",
    ["short", "x" * 1001, "has a space in its middle", "ü" * 20, "passwordpassword",
     "1234567890123456", "abcdefghijklmnop", "aabbccddeeff0011"],
)  # fmt: skip
def test_a_token_that_can_be_guessed_is_refused_and_not_shown(text):
    said = r"\$STORMPSR_TOKEN: (a token has at least 16 visible|this token is too regular)"
    with pytest.raises(ValueError, match=said) as error:
        access.read_token(None, {access.TOKEN: text})
    assert text not in str(error.value)
