"""Against asyncua's own server on loopback."""

import contextlib
import datetime
import json
import shutil
import threading
import time

import pytest

from stormpsr_jax.live import opcua
from stormpsr_jax.live.told import Told
from tests.support.opcua_server import Plant
from tests.support.receivers import make_keys

NODE = "#ns=2;s=Line7"
WALL = "2026-03-04T05:06:07.890+00:00"
STATUS = {"type": "status", "connected": True, "wall_time": WALL}
pytestmark = pytest.mark.usefixtures("system")


def event(step_id, **more):
    words = {"type": "event", "step_id": step_id, "step": f"Step {step_id}", "confidence": 0.5}
    return {**words, "wall_time": WALL, **more}


@pytest.fixture(scope="module")
def shared():
    """A server that takes a second to start."""
    with contextlib.closing(Plant()) as plant:
        yield plant


@pytest.fixture
def server(shared):
    shared.written.clear()
    return shared


@contextlib.contextmanager
def ended(output, seconds=5.0):
    try:
        yield output
    finally:
        output.close(seconds)


def test_records_are_values_of_nodes_in_their_order(server):
    with ended(opcua.OpcUa(server.url + NODE, told=Told((0, 1, 0)))) as ours:
        for record in (
            event(0),
            event(4),
            event(7, type="uncertain"),
            event(6, type="unsure"),
            event(6, type="confirmed"),
            {"type": "alert", "message": "Cover is missing", "wall_time": WALL},
            {"type": "unit", "unit": 3, "missing": [{"step_id": 6, "step": "Install screw"}]},
        ):
            start = time.perf_counter()
            ours.send(record)
            assert time.perf_counter() - start < 0.1, "send waits for nobody"
        server.wait(7)
        ours.send(STATUS)
        server.wait(1, "Line7.Connected")
    assert [json.loads(text)["type"] for text in server.of("Line7.Event")] == [
        "event",
        "event",
        "uncertain",
        "unsure",
        "confirmed",
        "alert",
        "unit",
    ]
    assert server.of("Line7.StepId") == [0, 4, 7, 6], "what is not sure is no step"
    assert server.of("Line7.Step") == ["Step 0", "Step 4", "Step 7", "Step 6"]
    assert server.of("Line7.Confidence") == [0.5, 0.5, 0.5, 0.5]
    states = [[1, 1, 0], [1, -1, 0], [1, -1, 0], [1, -1, 1], [0, 1, 0]]
    assert server.of("Line7.States") == states
    assert server.of("Line7.Unsure") == [[], [], ["Step 6"], [], []]
    assert server.of("Line7.Alert") == ["Cover is missing"]
    assert (server.of("Line7.Unit"), server.of("Line7.Missing")) == ([3], [["Install screw"]])
    assert json.loads(server.of("Line7.Status")[0]) == STATUS
    assert server.of("Line7.Connected") == [True]
    moment = next(time for node, _, time in server.written if node == "Line7.Step")
    assert moment.replace(tzinfo=datetime.UTC) == datetime.datetime.fromisoformat(WALL)
    assert ours.dropped == 0


def test_states_are_those_of_every_record_before_also_of_dropped_ones(server, monkeypatch):
    """Of a unit and an event that the queue has no room for, while the server is away."""
    write, away, tried = opcua.OpcUa._written, threading.Event(), threading.Event()

    async def unless_away(self, *values):
        if away.is_set():
            tried.set()
            raise ConnectionError("away")
        return await write(self, *values)

    monkeypatch.setattr(opcua.OpcUa, "_written", unless_away)
    alert = {"type": "alert", "message": "careful"}
    url = server.url + NODE
    with ended(opcua.OpcUa(url, told=Told((0, 0)), size=3, first_pause=0.05)) as ours:
        ours.send(event(0))
        server.wait(1)
        away.set()
        ours.send(alert)
        assert tried.wait(5)  # it is under way, and no longer in the queue
        for record in ({"type": "unit", "unit": 1}, event(3), alert, alert, event(1)):
            ours.send(record)
            ours.send({**STATUS, "connected": False})
        ours.send(STATUS)
        away.clear()
        server.wait(5)
    assert ours.dropped == 2
    assert server.of("Line7.States") == [[1, 0], [-1, 1]]
    assert server.of("Line7.Connected") == [True], "of the statuses the newest one"
    ours.send(alert)
    assert ours.dropped == 3, "counted after the end too"


def test_a_node_that_is_missing_is_named_once_and_costs_no_other_one(server, capsys):
    with ended(opcua.OpcUa(server.url + "#ns=2;s=Line9", told=Told((0,)))) as ours:
        for _ in range(3):
            ours.send(event(0))
        server.wait(3, "Line9.Event")
    assert ours.dropped == 0
    error = capsys.readouterr().err
    assert error.count("does not take ns=2;s=Line9.Step (Bad") == 1
    assert error.count("\n") == 1
    with ended(opcua.OpcUa(server.url + "#ns=2;s=Line8")) as ours:  # which has not even the event
        ours.send(event(0))
        ours.send(STATUS)
    assert ours.dropped == 2
    assert "2 records did not arrive" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates")
def test_a_user_and_the_server_that_the_keys_are_of_are_needed(tmp_path, monkeypatch, capsys):
    ours, theirs, others = (make_keys(tmp_path / name, name) for name in ("we", "plant", "other"))
    keys = theirs / "certificate.pem", theirs / "key.pem"
    monkeypatch.setattr(opcua, "TIMEOUT", 2)
    dropped = []
    with contextlib.closing(Plant(user=("worker", "p@ss word"), keys=keys)) as server:
        address = server.url.removeprefix("opc.tcp://") + NODE
        for password, known in (("p%40ss%20word", theirs), ("s3cret", theirs), ("p", others)):
            shutil.copy(known / "certificate.pem", ours / "server.pem")
            url = f"opc.tcp://worker:{password}@{address}"
            with ended(opcua.OpcUa(url, ours, first_pause=0.05), 1) as out:
                out.send(event(0))
            dropped.append(out.dropped)
    assert dropped == [0, 1, 1]
    assert server.steps() == [0]
    error = capsys.readouterr().err
    assert error.count(f"warning: opc.tcp://{address}: ") == error.count("\n") >= 2
    assert "s3cret" not in error
    assert "worker" not in error
