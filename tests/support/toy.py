from collections.abc import Sequence
from typing import Any

from stormpsr_jax.recordings.procedure import Procedure


def content(
    components: str = "base, wheel, lid",
    states: str = "100 110 111",
    *,
    name: str = "toy",
    fps: float = 5,
    variant: str = "all",
    expected: Sequence[int] | None = None,
) -> dict[str, Any]:
    """That of a procedure file with one variant, which installs all unless `expected` differs."""
    names = components.split(", ")
    steps = range(0, 3 * len(names), 3) if expected is None else expected
    only = {"initial_state": "0" * len(names), "expected": list(steps), "recordings": ["*"]}
    return {
        "name": name,
        "fps": fps,
        "components": names,
        "states": states.split(),
        "variants": {variant: only},
    }


def procedure(*words: str, **options: Any) -> Procedure:
    return Procedure.from_json(content(*words, **options))
