"""The fuzzer of benchmarks/fuzz_evaluate.py, in small."""

import importlib.util
import pathlib

import pytest

PATH = pathlib.Path(__file__).parents[2] / "benchmarks" / "fuzz_evaluate.py"


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz_evaluate", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_evaluate_broken_files_give_a_result_or_clear_lines(fuzz, tmp_path):
    valid = tmp_path / "valid"
    fuzz.make_input(valid)
    outcomes = [fuzz.run_case(valid, seed)[1] for seed in range(120)]
    results = outcomes.count("result")
    # Both ends occur often, or the fuzzer does not test what it should.
    assert 25 < results < 95
    lined = sum("line " in outcome for outcome in outcomes)
    assert lined > 25
