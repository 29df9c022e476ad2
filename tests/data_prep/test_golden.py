"""Records of shards as they are pinned in tests/golden/shards.json, whatever files hold them.

A change that is meant to alter them remakes the file with `UPDATE_GOLDEN=1 pytest` on this test.
"""

import hashlib
import json
import os
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader

from stormpsr_jax.data.clips import ClipSource
from tests.support import meccano_data, own_data

GOLDEN = Path(__file__).parents[1] / "golden/shards.json"


def records_of(folder: Path, procedure, split: str, name: str) -> list[str]:
    reader = ArrayRecordReader(str(ClipSource(folder, split, procedure).path(name)))
    digests = [hashlib.sha256(record).hexdigest() for record in reader.read_all()]
    reader.close()
    return digests


def test_records_are_the_pinned_ones(own_pictures, meccano_shards):
    split = own_data.opened(own_pictures / "out")["bench1"][1].split
    records = {
        "own": records_of(own_pictures / "out", own_data.PROCEDURE, split, "bench1"),
        "meccano": records_of(meccano_shards, meccano_data.PROCEDURE, "train", "0001"),
    }
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    assert records == json.loads(GOLDEN.read_text(encoding="utf-8"))
