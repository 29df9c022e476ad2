import pytest

from stormpsr_jax.psr import Event, Procedure, learned_events
from stormpsr_jax.serving.frames import Frame
from stormpsr_jax.serving.online import Checklist
from tests.support import live_data, toy
from tests.support.live_data import COVER, SEAL, Screen, frames, ids, play, scripted, steps_of

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


# --- What is not sure -----------------------------------------------------------------------------


# With a bar that no belief reaches; the cover's picture shows the seal too.
SHOWN = frames((live_data.NOTHING, 5), (SEAL, 60), (COVER, 60), (SEAL, 20))
CONFIRMED_AT = 100


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(learned_events, "PATIENCE", 2.0)


def played(shown, path, taps=(), screen=None, reset="key", remove=-2.0, **options):
    """The lines, and what the page shows at last before the unit ends."""
    live, screen = scripted("learned", sure=30.0, remove=remove), screen or Screen()

    def before(script, number):
        for step in taps if number == CONFIRMED_AT else ():
            live.confirm(step)

    told = play(shown, reset, live=live, before=before, screen=screen, state=path, **options)
    return [line for line in told if line["type"] != "status"], screen.views[-3]


def test_what_is_not_sure_is_asked_for_and_listed_at_the_end_of_the_unit(tmp_path):
    path = tmp_path / "s.json"
    told, _ = played(SHOWN, path, stop_at=CONFIRMED_AT)
    again, shown = played(SHOWN[CONFIRMED_AT + 1 :], path)
    told += again
    assert (steps_of(told, "unsure"), steps_of(told, "event")) == ([0, 3], [])
    unsure = [line for line in told if line["type"] == "unsure"]
    assert {line["state"] for line in unsure} == {"unsure"}
    assert all(line["confidence"] == line["evidence"]["own"] < 0.99 for line in unsure)
    assert (ids(told[-1]["unsure"]), ids(told[-1]["missing"])) == ([0, 3], [6])
    assert (told[-1]["done"], told[-1]["num_steps"]) == ([], 0)
    assert [row["status"] for row in shown["checklist"]] == ["unsure", "unsure", "next"]
    assert shown["unsure"][0] == {"step_id": 0, "component": "seal", "like": None}


def test_a_tap_settles_what_is_asked_for_and_nothing_else(tmp_path):
    told, shown = played(SHOWN, tmp_path / "s.json", taps=(0, 6))  # nobody has asked for the screw
    (line,) = (line for line in told if line["type"] == "confirmed")
    assert (line["step_id"], line["state"], line["stream"]) == (0, "right", "person")
    assert (line["confidence"], line["calibrated"]) == (1.0, False)
    assert [row["status"] for row in shown["checklist"]][:2] == ["done", "unsure"]
    assert ids(shown["unsure"]) == ids(told[-1]["unsure"]) == [3]
    assert ids(told[-1]["done"]) == ids(told[-1]["steps"]) == [0]
    assert steps_of(told, "unsure") == [0, 3], "it is not asked for again"


def test_a_tap_says_that_a_part_is_incorrect_and_another_one_that_it_is_right():
    live, taps, told = scripted("learned", sure=30.0), {100: [1, 7], 130: [1, 0, 0]}, []
    for i, (at, picture) in enumerate(SHOWN):
        if i == 130:
            assert (live.unsure, live.decoder.assembly) == ([3], (-1, 0, 0))
        for step in taps.get(i, ()):
            live.confirm(step)
        events = live.update(picture, at)
        told += [(i, event.step_id) for event in events if event.stream == "person"]
    assert told == [(100, 1), (130, 0)]


def test_what_was_seen_ends_no_unit_and_has_no_alert_and_a_tap_does_end_it(tmp_path):
    shown = [*SHOWN[:60], *frames((live_data.SCREW, 60), start=60)]
    told, _ = played(shown, tmp_path / "s.json", reset="complete")
    assert (steps_of(told, "seen"), steps_of(told, "event"), steps_of(told, "alert")) == (
        [0, 3, 6],
        [],
        [],
    )
    assert {line["state"] for line in told if line["type"] == "seen"} == {"seen"}
    assert told[-1]["ended"] == "end"
    told, _ = played(shown, tmp_path / "t.json", reset="complete", taps=(0, 3, 6))
    (unit,) = (line for line in told if line["type"] == "unit")
    assert (unit["ended"], ids(unit["done"])) == ("complete", [0, 3, 6])
    assert all(step["confirmed"] and step["wall_time"] for step in unit["steps"])


def test_a_part_that_was_not_sure_and_is_taken_off_is_no_longer_not_sure(tmp_path):
    shown = frames((SEAL, 60), (live_data.ONLY_COVER, 60))
    told, shown = played(shown, tmp_path / "s.json", remove=-1.0)
    assert steps_of(told, "gone") == [2]
    assert ids(shown["unsure"]) == ids(told[-1]["unsure"]) == [3]


def test_what_was_never_right_is_asked_for_with_the_picture_in_the_model(tmp_path):
    screen, parts = Screen(), (b"seal", None, b"screw")
    _, shown = played(SHOWN, tmp_path / "s.json", part_pictures=parts, screen=screen)
    assert [step["like"] for step in shown["unsure"]] == [-1, None]
    assert [picture for picture in screen.snapshots if picture[0] < 0] == [(-1, b"seal")], (
        "sent once"
    )
