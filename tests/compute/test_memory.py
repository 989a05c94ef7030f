"""What the C library does with freed memory, which PyTorch leaves to it on a CPU."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from fedrobust.compute.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
faults = []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    some = [torch.ones(2**18) for _ in range(8)]
    del some
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[2:]))
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", SCRIPT, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc")
def test_what_was_freed_is_used_again_without_page_faults() -> None:
    assert faults("kept") < faults("left") / 8
