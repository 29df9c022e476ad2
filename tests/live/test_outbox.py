import json
import threading
import time

from stormpsr_jax.live.outbox import SIZE, Outbox


def event(number):
    return {"type": "event", "step_id": number}


class Receiver(Outbox):
    """What is handed over goes to a function."""

    def __init__(self, attempt, size=SIZE):
        self._attempt = attempt
        super().__init__("receiver", size)


def test_outbox_order_is_kept_and_the_oldest_is_dropped(capsys):
    arrived, taken, away = [], threading.Event(), threading.Event()

    def deliver(kind, text):
        taken.set()
        away.wait(5)
        arrived.append((kind, json.loads(text).get("step_id")))
        return True

    outbox = Receiver(deliver, size=3)
    outbox.send(event(0))
    assert taken.wait(5)  # it is with the receiver, and no longer in the queue
    start = time.perf_counter()
    for i in range(1, 8):
        outbox.send(event(i))
        outbox.send({"type": "status", "step_id": i})  # never pushes out an event
    assert time.perf_counter() - start < 0.5, "put waits for nobody"
    away.set()
    outbox.close(5)
    events = [("event", i) for i in (0, 5, 6, 7)]
    assert arrived == [*events, ("status", 7)], "of the statuses the newest one"
    assert outbox.dropped == 4
    assert capsys.readouterr().err == "warning: receiver: 4 records did not arrive\n"
    outbox.send(event(9))
    assert outbox.dropped == 5, "counted after the end too"
