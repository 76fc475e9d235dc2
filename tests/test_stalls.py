"""The clock stands while its process does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STOPPED = """
import time
from stalls import running_s
began, ran = time.monotonic(), running_s()
print("ready", flush=True)
while time.monotonic() - began < 1.5:
    time.sleep(0.01)
print(running_s() - ran)
"""


def test_it_stands_while_the_process_is_stopped() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED], cwd=Path(__file__).parent, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(1)
        os.kill(process.pid, signal.SIGCONT)
        assert float(process.stdout.read()) < 1
