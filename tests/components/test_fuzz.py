"""Thousands of damaged files through ingestion: no crash, nothing lost, bounded memory and time."""

import csv
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mutations import mutated_files
from pyarrow import parquet

PROJECT = Path(__file__).parents[2]

# In a process of its own, which a crash of a library would end, and whose memory is this work's alone.
_INGEST = """
import json, resource, sys, time
from tfx import v1 as tfx
from tfx.types import standard_artifacts
from components.image_example_gen import executor

data, output, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
examples = standard_artifacts.Examples()
examples.uri = output
context = executor.Executor.Context(beam_pipeline_args=["--runner=FnApiRunner"], tmp_dir=output + "-tmp", unique_id="1")
from google.protobuf import json_format
properties = {
    "input_base": data,
    "custom_config": json_format.MessageToJson(executor.pack_settings(settings)),
}
before = resource.getrusage(resource.RUSAGE_SELF)
executor.Executor(context).Do({}, {"examples": [examples]}, properties)
after = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    "kilobytes": after.ru_maxrss - before.ru_maxrss,
}))
"""


