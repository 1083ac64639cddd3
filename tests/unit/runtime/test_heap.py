import os
import platform
import subprocess
import sys

import pytest

from svd.runtime.heap import heap_environment

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


# Frees two large pieces with a small one between them; says whether one piece came of the three.
NEIGHBOURS = """
import ctypes
from svd.runtime.heap import keep_freed_memory

assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
first = libc.malloc(2**26)
small = next(piece for piece in iter(lambda: libc.malloc(1000), None) if piece > first)
second, _ = libc.malloc(2**26), libc.malloc(1000)
for piece in (first, small, second):
    libc.free(piece)
print(libc.malloc(2**27) == first)
"""


def is_joined(environment: dict[str, str]) -> bool:
    command = [sys.executable, "-c", NEIGHBOURS]
    inherited = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, check=True
    )
    return {"True\n": True, "False\n": False}[done.stdout]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is a setting of glibc")
def test_a_small_freed_piece_does_not_split_the_heap_for_good() -> None:
    assert is_joined(heap_environment())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is a setting of glibc")
def test_what_the_user_says_of_the_same_setting_counts() -> None:
    both = heap_environment("glibc.malloc.tcache_count=7:glibc.malloc.arena_max=2")
    assert "arena_max=2" in both["GLIBC_TUNABLES"]
    assert is_joined(both) == is_joined({"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"})
