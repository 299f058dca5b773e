"""Timings against peers. Threads that wait must not spin here: ours and the peer share the cores in turn."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")
