"""Makes the tables of the STORM-PSR paper, over seeds, beside the published figures.

    python -m stormpsr_jax.paper TABLE [TABLE …] --config=industreal --config.data.dir=DATA …
        --workdir=runs/paper [--seeds=3] [--from=WORKDIR] [--plan]
        [--asd=DETECTIONS] [--devices_per_run=1] [--join]

TABLE is all, or one of main (both streams, B1 to B3, recordings with and without errors), sampling
(KFS and KCAS switched off), clips (uniform, Gaussian, KCAS), t_f, window, backbones, finetune,
detector (AP@50 on test), speed (frames a second on this machine) and embeddings (a figure).

With --asd, prediction files of a detector on the test split, such as IndustReal's authors publish,
each row that needs detections is there a second time with these, by the settings of the papers; the
config then needs no stage 'detector'.

The config is that of a single run, which is the row of the whole method; the other rows differ from
it as the paper's do. A stage is trained once for all rows and tables that share it, and not at all
where a work folder of --from has the very same. The seeds are --config.seed and those after it.
As many runs go on at once as have devices of their own; --join helps from another machine
(docs/scale.md). What is finished is not run again: the same command goes on where it was. Results
are in WORKDIR/tables/TABLE.md and .json, runs in WORKDIR/seed_N/VARIANT, and what they print in
VARIANT.log beside. The plan of what is left, with the time as far as it was measured, is printed
first; with --plan it is all.
"""

from __future__ import annotations

import importlib.util

from stormpsr_jax.base import files
from stormpsr_jax.experiments import command


def make_tables(request: command.Request) -> None:
    """Runs what is missing for the tables that are named, and writes them.

    Raises:
        ValueError: an unknown table, or one that the config cannot give; runs that failed.
    """
    # JAX takes a second to import: flags are read before.
    from stormpsr_jax.experiments import embedding_map, execute, paper_plan, paper_results
    from stormpsr_jax.experiments.result_tables import markdown

    known = list(paper_plan.TABLES)
    words = request.words
    tables = known if words == ("all",) else list(dict.fromkeys(words))
    unknown = [table for table in tables if table not in known]
    if unknown or not tables:
        what = f"{unknown[0]!r} is no table" if unknown else "TABLE is missing"
        raise ValueError(f"{what}; known are all, {', '.join(known)}")
    for table in tables:
        given = request.asd is not None
        if missing := paper_plan.missing_stages(paper_plan.TABLES[table], request.config, given):
            raise ValueError(
                f"table {table} needs {', '.join(missing)}, which --config.stages leaves out"
            )
    if "embeddings" in tables and importlib.util.find_spec("sklearn") is None:
        raise ValueError(embedding_map.HINT)
    runs = paper_plan.runs_of(tables, request.config, request.root, request.seeds)
    if request.asd is not None:
        paper_results.check_given(request.asd, next(iter(runs.values())))
    with execute.executed(list(dict.fromkeys(runs.values())), request) as done:
        folder = request.root / "tables"
        for table in tables:
            made = {key: run for key, run in runs.items() if run in done}
            if not any(variant in paper_plan.TABLES[table].variants for variant, _ in made):
                continue
            folder.mkdir(exist_ok=True)
            content = paper_results.content(table, made, request.seeds, folder, request.asd)
            text = markdown(content)
            files.write_json(folder / f"{table}.json", content)
            files.write_text(folder / f"{table}.md", text)
            print(f"\n{text}\n{folder / f'{table}.md'}", flush=True)


if __name__ == "__main__":
    command.run(make_tables, "paper", __doc__, "TABLE", takes_asd=True)
