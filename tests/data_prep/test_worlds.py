"""Recordings of the worlds: orders of steps, what is seen of wrong parts, pinned pictures."""

import dataclasses
import functools
import hashlib
import itertools

import numpy as np
import pytest
import simplejpeg
import trimesh
from scipy.spatial import KDTree

from data_prep.products import wrong_poses
from data_prep.products.product import toy_product
from data_prep.rendering.mesh import affine
from data_prep.worlds import motion, orders, rendered, timelines, worlds
from data_prep.worlds.timelines import Timeline
from stormpsr_jax.recordings.procedure import Procedure, load_procedure
from tests.support import lantern, toy
from tests.support.boxes import product
from tests.support.recipes import SYNTHETIC, recipe


def recording(world, name="train_000", **options):
    split = "cad" if name.startswith(("cad", "wrong")) else "train"
    return recipe(**{"size": 24, "world": world} | options).make(split, name)


# Figures of results.md are of such recordings.
GOLDEN = {
    "toy": "fb2b53796abf7a094a772ad0cb7a3769cb738d5be19ec14427c0f6e772a4e0ae",
    "bench": "5e0183a0d9fdf729dfe51375af500cfdf03a3f4bf3c3cb361d337f08725e3321",
    "anywhere": "0bde9928973b355e57270082c4bcb0f3b4bb0b9807b433ace8323698ec1a106c",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_pictures_and_states(name, monkeypatch):
    """The pixels that are encoded, and with which quality, but for the last look."""
    monkeypatch.setattr(timelines, "LAST_LOOK", (0.0, 0.0))
    digest = hashlib.sha256()

    def keep(pixels, *options, **more):
        digest.update(pixels.tobytes() + repr((options, more)).encode())
        return b""

    monkeypatch.setattr(simplejpeg, "encode_jpeg", keep)
    for recorded in ("train_000", "rehearsal_001", "wrong_12"):
        data = recording(worlds.WORLDS[name], recorded, size=32)
        list(itertools.islice(data.jpegs, 60))
        digest.update(data.states.tobytes() + data.visible.tobytes() + data.boxes.tobytes())
    assert digest.hexdigest() == GOLDEN[name]


@pytest.mark.parametrize(("name", "count"), [("toy", 4), ("bench", 1)])
def test_the_finished_product_is_looked_at_last_and_nothing_else_is_other_than_without(
    name, count, monkeypatch
):
    slow = dataclasses.replace(SYNTHETIC, fps=2.0)
    seconds = []
    for number in range(count):
        told = recording(worlds.WORLDS[name], f"train_{number:03d}", size=16, procedure=slow)
        with monkeypatch.context() as patch:
            patch.setattr(timelines, "LAST_LOOK", (0.0, 0.0))
            before = recording(worlds.WORLDS[name], f"train_{number:03d}", size=16, procedure=slow)
        shown, pictures = list(told.jpegs), list(before.jpegs)
        end = len(pictures)
        assert shown[:end] == pictures
        assert (told.states[:end] == before.states).all()
        assert (told.states[end:] == told.states[end - 1]).all()
        assert (told.visible[end + 2 :] > 0.9).all()  # hands and head take a second
        seconds.append((len(shown) - end) / slow.fps)
    assert all(2 <= s <= 30 for s in seconds)
    assert count == 1 or np.ptp(seconds) > 5
    assert recipe().timeline("train", "rehearsal_001").last_look == 0


LANTERN = Procedure.from_json(lantern.CONTENT)


def test_nothing_changes_under_a_part_that_stays_on():
    """Steps may be done together, wrong, undone and forgotten."""
    (variant,) = LANTERN.variants.values()
    for seed in range(240):
        rng = np.random.default_rng(seed)
        timeline = timelines.draw_timeline(LANTERN, rng, wrong=0.3, covers=True)
        for old, new in itertools.pairwise(timeline.states):
            for a, b in variant.precedence:
                stays = old[b // 3] and new[b // 3]
                assert not stays or old[a // 3] == new[a // 3], seed


def test_recordings_are_of_all_variants_in_turn_as_their_globs_tell():
    content = toy.content()
    only = content["variants"].pop("all")
    for name, globs in (("on", ["*_assy"]), ("off", ["[xy]?-*", "never"])):
        content["variants"][name] = only | {"recordings": globs}
    procedure = Procedure.from_json(content)
    found = rendered.split_names(procedure, {"train": 4, "val": 2}, 2)
    assert len({name for of_split in found.values() for name in of_split}) == 8
    for of_split in found.values():
        variants = [procedure.variant_for(name).name for name in of_split]
        assert variants == ["on", "off"] * (len(of_split) // 2)
    assert found["train"][-1] == "x0-rehearsal_001"
    assert [rendered.is_rehearsal(name) for name in found["train"]] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("name", ["meccano", "industreal", "impact", "synthetic"])
def test_draw_timeline_every_event_is_a_possible_change(name):
    procedure, seen = load_procedure(name), set()
    orders.check(procedure)
    for variant, seed in itertools.product(procedure.variants.values(), range(40)):
        rng = np.random.default_rng(seed)
        timeline = timelines.draw_timeline(procedure, rng, variant=variant, covers=True)
        assert (np.diff(timeline.frames) > 0).all()
        assert timeline.frames[0] == timeline.first_frame == 0
        assert timeline.frames[-1] < timeline.num_frames
        assert tuple(timeline.states[0]) == variant.initial_state
        for _, changed in timelines.changes(timeline):
            assert len(changed) >= 1
            seen |= set(changed.values())
        assert len(timelines.changes(timeline)) == len(timeline.frames) - 1
    assert seen == {(0, 1), (0, -1), (-1, 0), (-1, 1), (1, 0)}


LADDER = SYNTHETIC.components.index("ladder")


def _timeline(k):
    """A part is incorrect for ten seconds in the complete product, and is put right."""
    states = np.ones((3, SYNTHETIC.num_components), np.int8)
    states[1, k] = -1
    return Timeline(0, 150, np.array([0, 50, 100]), states)


def _planned(monkeypatch, name, change):
    """Changes what a function of `motion` returns."""
    plan = getattr(motion, name)

    def planned(*given, **more):
        found = plan(*given, **more)
        return dataclasses.replace(found, **change(found))

    monkeypatch.setattr(f"data_prep.synthetic.{name}", planned)


def _elsewhere(found):
    return {"target": np.full_like(found.target, 40.0)}


@pytest.mark.parametrize("unseen", [False, True])
def test_what_no_picture_shows_until_it_is_right_is_right(unseen, monkeypatch):
    made = recipe()
    monkeypatch.setattr(type(made), "timeline", lambda *_: _timeline(LADDER))
    bare = lambda found: {"reach": 0 * found.reach}  # noqa: E731
    _planned(monkeypatch, "plan_recording", _elsewhere if unseen else bare)
    wrong = (made.make("train", "train_000").states < 0).sum(axis=0)
    expected = np.zeros(11, int)
    expected[LADDER] = 0 if unseen else 50
    np.testing.assert_array_equal(wrong, expected)


@pytest.mark.parametrize(
    ("name", "hidden", "expected"), [("beacon", 0, 50), ("beacon", 20, 70), ("chassis", 0, None)]
)
def test_an_installation_is_visible_once_the_hands_are_off_it(name, hidden, expected, monkeypatch):
    """The chassis, which lies under the others, is never seen to be a little off its place."""
    k, made = SYNTHETIC.components.index(name), recipe()
    timeline = _timeline(k)
    timeline.states[:, k] = 0, 1, 0
    monkeypatch.setattr(type(made), "timeline", lambda *_: timeline)
    right = made.product.parts[k].right
    beside = affine(translation=(0.12, 0, 0)) @ right
    made = dataclasses.replace(made, product=made.product.changed(k, wrong=beside))

    def hiding(found):
        reach, aim = 0 * found.reach, found.aim.copy()
        reach[50 : 50 + hidden] = 1
        aim[50 : 50 + hidden] = right[:2, 3] - [0, 0.2]
        return {"reach": reach, "aim": aim}

    _planned(monkeypatch, "plan_recording", hiding)
    assert made.make("train", "train_000").visible_from == {(50, 3 * k): expected}


def test_renders_tell_of_every_part_that_is_labelled_wrong(monkeypatch):
    made = recipe()
    data = made.make("cad", "wrong_21")
    assert (data.states < 0).any(axis=1).all()
    list(data.jpegs)
    assert (data.states < 0).any(axis=1).all()
    _planned(monkeypatch, "plan_views", _elsewhere)
    data = made.make("cad", "wrong_21")
    list(data.jpegs)
    assert (data.states == 1).all()


TOY = toy_product(np.random.default_rng(0))


def part(mesh, place=(0.8, 0.5, 0.3)):
    return product(mesh.copy().apply_translation(place - mesh.bounds.mean(0))).parts[0]


def fine(mesh, times):
    for _ in range(times):
        mesh = mesh.subdivide()
    return mesh


PARTS = {
    **{f"toy, {k}": p for k, p in enumerate(TOY.parts)},
    # On another face, or turned about its axis, each looks as it did.
    "box": part(trimesh.creation.box()),
    "fine box": part(fine(trimesh.creation.box(), 4)),
    "fine cylinder": part(fine(trimesh.creation.cylinder(0.5, 1.0, sections=64), 2)),
    "sphere": part(trimesh.creation.icosphere(subdivisions=2)),
    "thin rod": part(trimesh.creation.box((1.0, 0.05, 0.05))),
    "ground plate": part(fine(trimesh.creation.box((3.2, 3.2, 0.2)), 4), (0, 0, 0.1)),
    "thin plate": part(trimesh.creation.box((1.0, 1.0, 0.02))),
}


@functools.cache
def surface(name, seed):
    """Points all over the part's surface, wherever it has vertices."""
    mesh = trimesh.Trimesh(PARTS[name].mesh.vertices, PARTS[name].mesh.faces, process=False)
    return np.asarray(trimesh.sample.sample_surface(mesh, 1500, seed=seed)[0])


def apart(name, pose):
    """Mean distance of the surfaces of the part in a pose and where it belongs, in its size."""
    right = PARTS[name].right
    a = surface(name, 0) @ right[:3, :3].T + right[:3, 3]
    b = surface(name, 1) @ pose[:3, :3].T + pose[:3, 3]
    size = np.linalg.norm(np.ptp(PARTS[name].mesh.vertices, axis=0)) / np.sqrt(3)
    return max(KDTree(a).query(b)[0].mean(), KDTree(b).query(a)[0].mean()) / size


@pytest.mark.parametrize("name", PARTS)
def test_wrong_pose_the_surface_is_visibly_elsewhere(name):
    """An independent measure: not of vertices, as those of a coarse mesh are far apart."""
    assert apart(name, PARTS[name].right) < 0.035  # what points that were drawn anew can tell
    rng = np.random.default_rng(1)
    distances = [apart(name, wrong_poses.wrong_pose(PARTS[name], rng)) for _ in range(9)]
    assert min(distances) > 0.04
    assert np.median(distances) > 0.1
