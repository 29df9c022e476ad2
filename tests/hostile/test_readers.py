"""Good files of every kind are changed, and their readers say so in a line or read them right.

`pytest -m slow tests/hostile` makes thousands of attempts.
"""

import multiprocessing

import pytest

from tests.hostile import readers

ATTEMPTS, MANY = 50, 1000
SECONDS = 20  # of an attempt, before it counts as a hang


class Child:
    """The process that makes attempts, and another one where it hangs or crashes."""

    def __init__(self, folder):
        self._folder, self._process, self._count = folder, None, 0

    def make(self, name, seed):
        if self._process is None:
            context, self._count = multiprocessing.get_context("spawn"), self._count + 1
            self._connection, theirs = context.Pipe()
            arguments = (theirs, self._folder / str(self._count))
            self._process = context.Process(target=readers.serve, args=arguments)
            self._process.start()
            theirs.close()
            self._connection.send((name, seed))
            self._connection.poll(120)  # until it has imported all
        else:
            self._connection.send((name, seed))
        try:
            if self._connection.poll(SECONDS):
                return self._connection.recv()
            wrong = "hang"
        except EOFError:
            wrong = "crash"
        self.close()
        return {"what": "", "error": "", "wrong": wrong, "seconds": SECONDS}

    def close(self):
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


@pytest.fixture(scope="module")
def child(system, tmp_path_factory):
    child = Child(tmp_path_factory.mktemp("hostile"))
    yield child
    child.close()


def check(child, name, seeds):
    found = {}
    for seed in seeds:
        found[seed] = child.make(name, seed)
        assert found[seed]["wrong"] not in ("crash", "hang"), (seed, found[seed])
    assert {s: o for s, o in found.items() if o["wrong"]} == {}
    assert any(o["error"] for o in found.values())
    assert not all(o["error"] for o in found.values())


@pytest.mark.parametrize("name", readers.READERS)
def test_changed_files_are_an_error_of_lines_or_read_right(child, name):
    check(child, name, range(ATTEMPTS))


@pytest.mark.slow
@pytest.mark.parametrize("name", readers.READERS)
def test_thousands_of_changed_files(child, name):
    check(child, name, range(ATTEMPTS, MANY))
