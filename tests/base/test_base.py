"""Lines for people, whole files, folders of a user's, progress, the end of a process."""

import io
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stormpsr_jax.base import errors, files, folders, progress
from stormpsr_jax.psr.cli import fail
from tests.support.processes import finish, start

# --- Errors: what is in a line may come from anybody ----------------------------------------------

HOSTILE = "a\x1b[2J\x9b\u202e\ud800\0\x07 b"
SHOWN = r"a\x1b[2J\x9b\u202e\ud800\x00\x07 b"


def test_no_text_forges_a_line_of_a_command(capsys):
    assert errors.visible("Prüfstand – 日本 😀  x") == "Prüfstand – 日本 😀  x"
    with pytest.raises(SystemExit):
        fail(f"x: {HOSTILE}\rerror: forged\x85error: forged")
    errors.tell("warning", f"x: {HOSTILE}\nerror: forged")
    with pytest.raises(errors.Errors) as error:
        errors.raise_all([f"x: {HOSTILE}\r\x0bforged", "y: z"])
    assert capsys.readouterr().err.splitlines() == [
        f"error: x: {SHOWN} error: forged error: forged",
        f"warning: x: {SHOWN} error: forged",
    ]
    assert str(error.value) == f"x: {SHOWN} forged\ny: z"


def test_raise_all_errors_that_are_only_counted_are_not_lost():
    many = [str(i) for i in range(25)]
    with pytest.raises(ValueError, match=r"0\n1\n(?s:.*)and 5 more errors$") as caught:
        errors.raise_all(many)
    assert errors.lines_of(pickle.loads(pickle.dumps(caught.value))) == many
    assert errors.first_of(caught.value, "f") == [*"01234", "f: 20 more errors"]
    assert errors.first_of(ValueError("one"), "f") == ["one"]


@pytest.mark.system
def test_who_tells_goes_on_where_stderr_is_gone():
    """As where the program that kept the lines of a station has died."""
    code = """
from stormpsr_jax.base.errors import tell
for _ in range(3):
    tell("warning", "lost")
print("goes on")
"""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=gone)
    assert done.stdout == b"goes on\n"


@pytest.mark.system
def test_an_output_that_nobody_reads_any_more_is_no_error():
    """As of `… | head -1`; 9 MB fit into no pipe."""
    code = """
from stormpsr_jax.psr.cli import fail_for
try:
    for _ in range(90_000):
        print("x" * 99)
except OSError as error:
    fail_for(error)
"""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **streams) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


# --- Files ----------------------------------------------------------------------------------------


def test_open_locked_one_has_it_and_links_are_refused(tmp_path):
    path = tmp_path / "lock"
    path.write_text("kept")
    with files.open_locked(path) as held:
        held.seek(0)
        assert held.read() == b"kept"
        assert files.open_locked(path) is None
    os.symlink(path, tmp_path / "link")
    with pytest.raises(OSError, match="link") as caught:
        files.open_locked(tmp_path / "link")
    assert caught.value.filename == str(tmp_path / "link")


def test_read_text_errors_what_may_never_end_is_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero", "/dev/null"):
        with pytest.raises(ValueError, match="is not a regular file"):
            files.read_text(path)
    monkeypatch.setattr(files, "MAX_TEXT", 10)
    (tmp_path / "a").write_text("0123456789x")
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        files.read_text(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("", "is empty"),
        (".hidden", "begins with a dot"),
        ("a/b", "has a / or"),
        ("a\\b", "has a / or"),
        ("a\nb", "has control characters"),
        ("a\udcffb", "has control characters in it, or is not UTF-8"),
        ("a\u3000", "has white space in front or behind"),
        ("a\u202egpj.exe", "has control characters"),
        ("ü" * 101, "has 202 bytes, more than 200"),
    ],
)
def test_check_name_errors_say_what_is_wrong_on_one_line(name, what):
    with pytest.raises(ValueError, match=rf"^splits.csv: line 2: name '.*': {what}.*; rename it$"):
        files.check_name(name, "splits.csv: line 2")


# --- Folders --------------------------------------------------------------------------------------


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_walk_is_in_order_and_leaves_out_what_is_hidden_or_of_macos(tmp_path):
    names = ("b/2.jpg", "b/1.jpg", "a/x", "depth/1.jpg", "__MACOSX/b/._1.jpg", ".label/a.csv")
    top = write(tmp_path, *names, ".hidden", "c.csv")
    (top / "link").symlink_to(top / "b")
    assert list(folders.walk(top, ("depth",))) == [
        (top, ["a", "b", "link"], ["c.csv"]),
        (top / "a", [], ["x"]),
        (top / "b", [], ["1.jpg", "2.jpg"]),
        (top / "link", [], ["1.jpg", "2.jpg"]),
    ]
    assert list(folders.walk(top / "c.csv")) == [(top, [], ["c.csv"])]


@pytest.mark.parametrize("loop", ["itself", "above"])
def test_walk_symlink_loops_are_errors(tmp_path, loop):
    write(tmp_path / "data/0001", "1.jpg")
    if loop == "above":
        (tmp_path / "data/0001/again").symlink_to(tmp_path / "data")
    else:
        (tmp_path / "data/self").symlink_to(tmp_path / "data/self")
    with pytest.raises(ValueError, match=r"cannot be listed .*symbolic links"):
        list(folders.walk(tmp_path / "data"))


def test_entries_that_are_no_files_are_named_all_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe\n")
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(ValueError, match="link: is a link to nothing, a pipe or a dev") as raised:
        folders.entries(tmp_path)
    lines = str(raised.value).splitlines()
    assert lines[0] == f"'{tmp_path}/pipe\\n': is a link to nothing, a pipe or a device; remove it"
    assert len(lines) == 2


@pytest.mark.parametrize("name", ["a.zip", "a.ZIP", "a.zip.001", "a.tar.gz", "a.tgz", "a.7z"])
def test_an_archive_in_place_of_a_folder_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK")
    for also in ("", "or a label file"):
        with pytest.raises(ValueError) as raised:
            folders.require(tmp_path / name, "--data", also)
        what = "archives are not read; unpack it, and give the folder"
        assert str(raised.value) == f"--data={tmp_path / name}: {what}"
    (tmp_path / "folder" / name).mkdir(parents=True)
    assert folders.require(tmp_path / "folder" / name, "--data").is_dir()


# --- Progress and the end -------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_progress_whole_lines_off_a_terminal_and_a_moving_bar_on_one(kind, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.2)
    monkeypatch.setattr(progress, "_BAR_SECONDS", 0.0)
    stream = kind()
    monkeypatch.setattr(sys, "stderr", stream)
    begun = time.monotonic()
    above = progress.Bar(total=1, desc="another bar", unit="frame")
    with progress.Bar(total=100, desc="work", unit="frame") as bar:
        for _ in range(100):
            time.sleep(0.005)
            bar.update()
    above.close()
    text = stream.getvalue()
    assert "100/100" in text
    if kind is Terminal:
        assert text.count("\r") > 50
        return
    assert "\r" not in text
    assert "\x1b" not in text, "no moving of a cursor, whatever other bars there are"
    lines = [line for line in text.splitlines() if line.startswith("work: ")]
    assert 3 <= len(lines) <= 3 + (time.monotonic() - begun) / 0.2, "start, end, every 0.2 s"


@pytest.mark.system
def test_main_ctrl_c_while_it_imports_is_one_line(tmp_path):
    words = [sys.executable, "-X", "importtime", "-m", "stormpsr_jax.main"]
    process = start([*words, "--config=synthetic", f"--workdir={tmp_path}"])
    for line in process.stdout:
        if line.split("|")[-1].strip() == "jax":
            break
    process.send_signal(signal.SIGINT)
    output = finish(process, code=130)[0]
    said = [line for line in output.splitlines() if not line.startswith("import time:")]
    assert said == ["Ctrl-C: stopped; run the same command again to go on"]
