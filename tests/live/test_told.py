from stormpsr_jax.live.told import Told


def event(step_id, kind="event"):
    return {"type": kind, "step_id": step_id}


def test_told_states_are_those_of_the_unit_at_hand():
    told = Told((0, 1), states=(1, 0))
    assert told.take(event(4))
    assert told.states == [1, -1]
    assert told.take(event(2))
    assert told.states == [0, -1]
    assert told.take({"type": "unit"})
    assert told.states == [0, 1]


def test_told_what_is_uncertain_or_of_no_part_changes_nothing():
    told = Told((0, 1))
    for record in (event(0, "uncertain"), {"type": "alert", "step_id": 0}, {"type": "status"}):
        assert not told.take(record)
    for record in (event(6), event(-1), event(None), {"type": "event"}):
        told.take(record)
    assert told.states == [0, 1]
