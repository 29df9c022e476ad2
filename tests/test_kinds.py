"""Which tests are plain follows from what they use, and a plain one is held to it."""

import importlib

import pytest

from tests.support import kinds
from tests.support.processes import finish, start


def helper():
    return [finish(start(["true"])) for _ in range(1)]


def test_a_test_that_starts_a_process_by_a_helper_is_of_the_system(request):
    helper()
    assert kinds.is_system(request.node)
    assert request.node.get_closest_marker("system")


def test_a_test_whose_fixture_is_of_the_system_is_too(request, system):
    assert kinds.is_system(request.node)


def test_another_test_is_plain(request):
    assert not kinds.is_system(request.node)
    assert not request.node.get_closest_marker("system")


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("subprocess", lambda module: module.run(["true"], check=True)),
        ("socket", lambda module: module.create_server(("127.0.0.1", 0)).close()),
        ("os", lambda module: module.system("true")),
    ],
)
def test_a_plain_test_that_does_what_only_system_tests_do_fails(request, name, call):
    kinds.check(request.node)
    call(importlib.import_module(name))  # by a way that its code does not show
    with pytest.raises(pytest.fail.Exception, match="ask for fixture `system`"):
        kinds.check(request.node)
    kinds.begin()
    kinds.check(request.node)
