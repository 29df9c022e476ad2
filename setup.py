"""What pyproject.toml cannot say: in a wheel, links of pages lead to what lies in it.

Pages link to each other as they lie in a clone. A link to what is in no wheel becomes its text, and
the place in the repository.
"""

import os
import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
LINK = re.compile(r"!?\[([^\]]*)\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")
MOVED = ("configs/", "docs/")  # in a clone; a wheel has them in stormpsr_jax


class BuildPages(build_py):
    """Copies the packages, and then the pages with other links."""

    def run(self) -> None:
        """Does it."""
        super().run()
        if self.editable_mode:
            return
        built = Path(self.build_lib)
        for copy in built.rglob("*.md"):
            page = copy.relative_to(built).as_posix()
            source = page.removeprefix("stormpsr_jax/")

            def lead(link: re.Match, source: str = source, folder: Path = copy.parent) -> str:
                text, target, _ = link.groups()
                place = os.path.normpath(os.path.join(os.path.dirname(source), target))
                there = built / ("stormpsr_jax" if place.startswith(MOVED) else "") / place
                if not there.exists():
                    return f"{text} (`{place}` in the repository)"
                return link[0].replace(target, os.path.relpath(there, folder), 1)

            copy.write_text(LINK.sub(lead, (ROOT / source).read_text("utf-8")), "utf-8")


setup(cmdclass={"build_py": BuildPages})
