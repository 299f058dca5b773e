"""Python programs in processes of their own, which import the code that stands beside these tests."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PATIENCE = 900.0  # seconds: tens of times what the longest takes alone, for machines that do much besides
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
    "OMP_NUM_THREADS": "1",
}


def program(*words: str, check: bool = False, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python with these words after its name, and return what it said and how it ended."""
    command, streams = [sys.executable, *words], {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = subprocess.run(
        command, env=ENVIRONMENT, text=True, timeout=PATIENCE, check=False, **streams | options
    )
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done
