"""For all tests: most of their time would be XLA optimising code that runs for milliseconds."""

import os

FASTER = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FASTER}".strip()
