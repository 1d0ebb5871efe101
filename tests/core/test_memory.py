"""What goes to a device together comes out of one block as it was."""

import platform
import subprocess
import sys

import pytest
import torch

from sslcollapse.core.memory import LARGEST_KEPT, _packed, _unpacked, onto_together


def test_values_of_all_types_and_shapes_come_out_of_one_block_as_they_went_in():
    values = [
        torch.arange(7),
        torch.randn(3, 5),
        torch.tensor([True, False, True]),
        torch.empty(0, dtype=torch.long),
        torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8),
        torch.randn(4, 6).t(),
        torch.tensor(2.5, dtype=torch.float64),
    ]
    block = _packed(values, pinned=False)
    assert (block.dtype, block.dim()) == (torch.uint8, 1)
    found = _unpacked(block, values)
    for value, copy in zip(values, found, strict=True):
        assert (copy.dtype, copy.shape) == (value.dtype, value.shape)
        assert torch.equal(copy, value)
        assert not value.numel() or copy.untyped_storage().data_ptr() == block.untyped_storage().data_ptr()


def test_on_the_host_values_stay_themselves_and_elsewhere_they_share_one_block():
    values = [torch.arange(4), torch.randn(2, 2)]
    assert all(there is value for there, value in zip(onto_together(torch.device("cpu"), values), values, strict=True))
    moved = onto_together(torch.device("meta"), values)
    assert [(each.device.type, each.dtype, each.shape) for each in moved] == [
        ("meta", value.dtype, value.shape) for value in values
    ]
    assert onto_together(torch.device("meta"), []) == []


FREES = """
import torch
from sslcollapse.core.memory import keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

assert keep_freed_memory()
for size in (SIZE // 4, SIZE + (1 << 20)):
    before = resident()
    block = torch.ones(size, dtype=torch.uint8)
    held = resident() - before
    del block
    print(int(held > size // 2), int(resident() - before > size // 2))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
def test_freed_memory_is_kept_up_to_a_size_of_block_and_larger_blocks_go_back():
    run = subprocess.run(
        [sys.executable, "-c", FREES.replace("SIZE", str(LARGEST_KEPT))], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["1", "1", "1", "0"]
