"""Names of made-up recordings, each of which one variant of the procedure matches."""

import re
from collections.abc import Mapping

from stormpsr_jax.base.files import check_name
from stormpsr_jax.recordings.procedure import Procedure, Variant

REHEARSAL = "rehearsal_"
_CHARACTERS = re.compile(r"\[([^]!])[^]]*\]|\?")


def split_names(
    procedure: Procedure, recordings: Mapping[str, int], error_recordings: int
) -> dict[str, tuple[str, ...]]:
    """The names of recordings in each split, of all variants in turn.

    `recordings` are how many each split has, `error_recordings` further ones in split "train", of
    which `is_rehearsal` tells. ValueError: there is no name that a variant alone matches.
    """
    plain = {split: [f"{split}_{i:03d}" for i in range(n)] for split, n in recordings.items() if n}
    if error_recordings:
        plain.setdefault("train", []).extend(f"{REHEARSAL}{i:03d}" for i in range(error_recordings))
    variants = list(procedure.variants.values())
    return {
        split: tuple(
            _matched(procedure, variants[i % len(variants)], name) for i, name in enumerate(names)
        )
        for split, names in plain.items()
    }


def is_rehearsal(name: str) -> bool:
    """Whether a recording is one of the rehearsals."""
    return REHEARSAL in name


def _matched(procedure: Procedure, variant: Variant, name: str) -> str:
    """The name itself if it is of the variant, else the globs' first that is with it filled in."""
    for found in (name, *(_filled(glob, name) for glob in variant.recordings)):
        try:
            if procedure.variant_for(check_name(found, "")) is variant and name in found:
                return found
        except ValueError:
            continue  # no variant, or several, or no name of a file
    raise ValueError(
        f"procedure {procedure.name!r}: variants.{variant.name}.recordings: a recording that is "
        f"made up needs a name that they match and no other variant does; add a glob such as "
        f"'{variant.name}_*'"
    )


def _filled(glob: str, name: str) -> str:
    """A name that a glob matches: `name` for its first *."""
    plain = _CHARACTERS.sub(lambda match: match[1] or "0", glob)
    return plain.replace("*", name, 1).replace("*", "")
