"""Which sources can change a result: what a function comes to, without what only tells."""

import textwrap

import pytest

from stormpsr_jax.base import sources

BEFORE = {
    "stage": """
        from stormpsr_jax import losses
        from stormpsr_jax.report import page

        def run(values):
            '''Trains.'''
            if not values:
                raise ValueError("no values")
            print("trains")
            page.write(values)
            return Network().fit(values)

        def check(values):
            return losses.unused(values)

        class Network:
            def fit(self, values):
                return losses.error(values)
        """,
    "losses": """
        SCALE = 1.0

        def error(values):
            return SCALE * sum(values)  # of all

        def unused(values):
            return values
        """,
    "report/page": "def write(values):\n    return values\n",
}
EDITS = [
    ("losses", "SCALE = 1.0", "SCALE = 10.0", True),
    ("losses", "SCALE * sum", "10 * SCALE * sum", True),
    ("losses", "    return values", "    return None", False),
    ("losses", "  # of all", "", False),
    ("stage", "losses.error(values)", "losses.error(values) + 1", True),
    ("stage", "'''Trains.'''", "'''Learns.'''", False),
    ("stage", '"no values"', '"give values"', False),
    ("stage", 'print("trains")', 'print("learns")', False),
    ("stage", "losses.unused(values)", "[]", False),
    ("report/page", "return values", "return [values]", False),
]


def run():
    """The function of `BEFORE`."""


run.__module__ = "stormpsr_jax.stage"


def forget():
    for cached in (sources.of, sources._path, sources._read, sources._stamp):
        cached.cache_clear()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """The package of a clone, without sources."""
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    (tmp_path / "stormpsr_jax/report").mkdir(parents=True)
    for folder in ("stormpsr_jax", "stormpsr_jax/report"):
        (tmp_path / folder / "__init__.py").touch()
    yield tmp_path / "stormpsr_jax"
    forget()


@pytest.mark.parametrize(("module", "old", "new", "seen"), EDITS)
def test_an_edit_counts_if_it_can_change_the_result(clone, module, old, new, seen):
    def made_by(texts):
        forget()
        for name, text in texts.items():
            (clone / f"{name}.py").write_text(textwrap.dedent(text))
        return sources.of(run)

    before = made_by(BEFORE)
    assert before.keys() == {"stormpsr_jax/stage.py", "stormpsr_jax/losses.py"}
    assert old in BEFORE[module]
    after = made_by(BEFORE | {module: BEFORE[module].replace(old, new)})
    changed = {name for name in before if after[name] != before[name]}
    assert changed == ({f"stormpsr_jax/{module}.py"} if seen else set())
