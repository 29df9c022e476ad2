"""`stormpsr label` in a process of its own, and requests to it."""

import http.client
import json
import sys
import urllib.parse
from pathlib import Path

from tests.support.processes import environment, start

TOKEN = "a-token-of-24-characters"  # so that a tab finds the next server


PROGRAM = ("-m", "stormpsr_jax", "label")


def command(folder: Path, procedure: str | Path, *flags: str, program=PROGRAM) -> list:
    words = [sys.executable, *program, folder / "videos"]
    return [*words, f"--procedure={procedure}", f"--labels={folder / 'labels'}", *flags]


class LabelPage:
    """Labels the videos of folder/videos in folder/labels; a context that ends it."""

    def __init__(
        self, folder: Path, procedure: str | Path = "synthetic", *flags: str, program=PROGRAM
    ):
        env = environment(STORMPSR_TOKEN=TOKEN)
        self.folder = folder
        self.process = start(command(folder, procedure, *flags, program=program), env=env)
        self.url = self.process.stdout.readline().split()[-1]  # with the token
        self.port = urllib.parse.urlsplit(self.url).port

    def __enter__(self) -> "LabelPage":
        return self

    def __exit__(self, *_) -> None:
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def ask(self, path: str = "/api/project", method: str = "GET", body=None, **headers):
        """Returns status, headers and body, of JSON what it says; headers None are not sent."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        origin = f"http://127.0.0.1:{self.port}"
        headers = {"authorization": f"Bearer {TOKEN}", "origin": origin} | headers
        headers = {name: value for name, value in headers.items() if value is not None}
        connection.request(method, path, body and json.dumps(body), headers)
        answer = connection.getresponse()
        found, content = dict(answer.getheaders()), answer.read()
        connection.close()
        is_json = "json" in found.get("content-type", "")
        return answer.status, found, json.loads(content) if is_json else content
