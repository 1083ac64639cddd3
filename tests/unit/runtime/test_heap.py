import platform
import subprocess
import sys

import pytest

# Allocates, writes and frees 128 MiB again and again; prints the page faults of the last rounds.
# (Blocks up to 32 MiB glibc learns to keep by itself.)
STEPS = """
import resource, sys
import torch
from svd.runtime.heap import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for step in range(12):
    if step == 8:
        before = faults()
    tensors = [torch.ones(2**24) for _ in range(2)]
    del tensors
print(faults() - before)
"""


def num_faults(how: str) -> int:
    command = [sys.executable, "-c", STEPS, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is a setting of glibc")
def test_the_next_steps_tensors_take_the_memory_of_the_last_steps() -> None:
    assert num_faults("keep") < 0.1 * num_faults("leave")
