"""Pictures of clip shards, read one at a time for a page."""

from pathlib import Path

import numpy as np
import simplejpeg
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2

from data_prep.checking.checked import Checked
from stormpsr_jax.data.clips import READER_OPTIONS


def decode(checked: Checked, shard: Path, index: int, at_least: int = 0) -> np.ndarray | None:
    """Returns frame `index` of a recording as (H, W, 3) uint8 RGB; None if it cannot be read.

    The decoder halves the size as long as `at_least` pixels are left of each side; 0: as stored.
    """
    record, within = divmod(index, checked.clip_length)
    try:
        reader = array_record_module.ArrayRecordReader(str(shard), READER_OPTIONS)
        data = reader.read([record])[0]
        reader.close()
        jpegs = tf_example_pb2.Example.FromString(data).features.feature["jpeg"].bytes_list.value
        return simplejpeg.decode_jpeg(jpegs[within], min_height=at_least, min_width=at_least)
    except Exception:  # damaged data, which the list of problems names; protobuf has its own errors
        return None
