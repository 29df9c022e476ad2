"""The templates of tools/cluster/ for Slurm and Kubernetes, as far as they can be tried here."""

import os
import signal
import subprocess
import sys
import time
import tomllib

import pytest
import yaml

from data_prep import synthetic
from stormpsr_jax import main, recognise
from stormpsr_jax.base import memory
from stormpsr_jax.stages import config_flag
from tests.support.commands import refused
from tests.support.processes import ROOT

FOLDER = ROOT / "tools/cluster"


def test_a_task_of_slurm_saves_after_sigterm_and_is_begun_again(system, tmp_path):
    """With a command in place of Python's that ends as `main` does, and one of Slurm's."""
    told, begun = tmp_path / "told", tmp_path / "begun"
    (tmp_path / "python").write_text(
        f"#!{sys.executable}\nimport signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(.3), sys.exit(75)))\n"
        f"open({str(begun)!r}, 'w').write(' '.join(sys.argv[1:]))\ntime.sleep(60)\n"
    )
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {told}\n')
    for name in ("python", "scontrol"):
        (tmp_path / name).chmod(0o755)
    (tmp_path / "commands").write_text("python one\npython -m main '--config.stages=(1, 2)'\n")
    ids = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    env = {**os.environ, **ids, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = ["bash", FOLDER / "runs.sbatch", tmp_path / "commands"]
    process = subprocess.Popen(words, env=env)
    while not (begun.exists() and begun.read_text()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75
    assert begun.read_text() == "-m main --config.stages=(1, 2)"
    assert told.read_text() == "requeue 7_2\n"
    subprocess.run(["bash", "-n", FOLDER / "train.sbatch"], check=True)


def test_the_job_of_kubernetes_has_a_command_that_main_takes_and_rights_to_find_its_pods():
    parts = {p["kind"]: p for p in yaml.safe_load_all((FOLDER / "jobset.yaml").read_text())}
    (job,) = parts["JobSet"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    words = [*container["command"], *container["args"]]
    args = config_flag.parse(main._parser(), words[3:])
    assert (words[:3], args.distributed) == (["python", "-m", "stormpsr_jax.main"], True)
    assert job["template"]["spec"]["completionMode"] == "Indexed", "JAX numbers processes by it"
    assert pod["serviceAccountName"] == parts["RoleBinding"]["subjects"][0]["name"]
    # What jax._src.clusters.k8s_cluster asks the API for.
    granted = {r: rule["verbs"] for rule in parts["Role"]["rules"] for r in rule["resources"]}
    assert "list" in granted["pods"]
    assert "list" in granted["services"]
    assert "get" in granted["jobs"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cuda", "k8s"} <= extras["optional-dependencies"].keys()


def test_batches_that_do_not_fit_into_shared_memory_are_refused(tmp_path):
    memory.check_shared(1, "handing batches over")
    with pytest.raises(MemoryError, match="start the container with --shm-size"):
        memory.check_shared(2**60, "handing batches over")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (main.main, ["--config=meccano", "--workdir=gs://bucket/run"]),
        (main.main, ["--config=meccano", "--workdir=w", "--config.data.dir=s3://bucket/data"]),
        (recognise.main, ["--model=demo", "demo", "--out=gs://bucket/out"]),
        (synthetic.main, ["--out", "gs://bucket/data"]),
    ],
)
def test_a_path_in_an_object_store_is_no_folder_of_this_machine(
    command, words, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert f"{words[-1]}: object stores have neither" in refused(capsys, command, words)
    assert not list(tmp_path.iterdir())
