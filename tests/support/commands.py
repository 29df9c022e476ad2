from collections.abc import Callable

import pytest


def refused(capsys, command: Callable, *arguments, lines: int | None = 1, **options) -> str:
    """What a command that ends with status 2 says on stderr, in so many lines (None for any)."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        command(*arguments, **options)
    said = capsys.readouterr().err.rstrip("\n")
    assert ended.value.code == 2, said
    assert said.rpartition("\n")[2].startswith("error: "), said
    assert lines in (None, said.count("\n") + 1), said
    return said
