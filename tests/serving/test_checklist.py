import pytest

from stormpsr_jax.psr import Event, Procedure
from stormpsr_jax.serving.frames import Frame
from stormpsr_jax.serving.online import Checklist
from tests.support import toy

CONTENT = toy.content("seal, cover, screw", name="pump", fps=10, variant="assembly")
IN_ORDER = [[0, 3], [3, 6]]
CONTENT["variants"]["assembly"] |= {"allowed": [5], "precedence": IN_ORDER}
for name, initial, expected, precedence in (
    ("jig", "000", [0, 2, 3], []),
    ("kit", "100", [3, 6], IN_ORDER),
    ("service", "111", [3, 5, 6, 8], [[8, 5], [5, 3], [3, 6]]),
):
    CONTENT["variants"][name] = {
        "initial_state": initial,
        "expected": expected,
        "recordings": [],
        "precedence": precedence,
    }
PROCEDURE = Procedure.from_json(CONTENT)


@pytest.mark.parametrize(
    ("variant", "steps", "expected"),
    [
        ("assembly", [], "next open open"),
        ("assembly", [0], "done next open"),
        ("assembly", [0, 3, 6], "done done done"),
        ("assembly", [3], "missing done next"),
        ("assembly", [3, 0], "done done next"),
        ("assembly", [3, 5], "next open open"),  # what went ahead was undone
        ("assembly", [0, 3, 5], "done next open"),  # taken off, which is allowed
        ("assembly", [0, 2], "next open open 2"),  # taken off, which is not
        ("assembly", [0, 2, 0], "done next open"),
        ("assembly", [1], "next open open 1"),
        ("assembly", [0, 1, 0], "done next open"),
        ("assembly", [0, 1], "next open open 1"),
        ("assembly", [1, 2], "next open open"),  # which corrects it
        ("jig", [0, 2], "done done next"),  # put on for a while
        ("kit", [], "next open"),  # the seal is on from the start
        ("kit", [3], "done next"),
        ("kit", [2], "open open 2"),  # which it has to be
        ("service", [], "open open open next"),  # 3 holds, and has to be done for 6 all the same
        ("service", [8], "open next open done"),
        ("service", [8, 5], "next done open done"),
        ("service", [8, 5, 3], "done done next done"),
    ],
)
def test_checklist_statuses(variant, steps, expected):
    checklist = Checklist(PROCEDURE, PROCEDURE.variants[variant], 0.5, 10)
    for frame, step in enumerate(steps):
        events = [Event(frame, step, 1.0, "storm", {}, "", 0.0)]
        checklist.update(Frame(frame, events=events))
    rows = checklist.rows()
    num = len(PROCEDURE.variants[variant].expected)
    assert [step for step, _ in rows[:num]] == list(PROCEDURE.variants[variant].expected)
    assert all(status == "wrong" for _, status in rows[num:])
    found = [status for _, status in rows[:num]] + [str(step) for step, _ in rows[num:]]
    assert " ".join(found) == expected
