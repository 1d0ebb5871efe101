"""Run in a mount namespace of its own: what a streamed feed says while /dev/shm is small, read-only, large enough."""

import subprocess
import time

import torch

from sslcollapse.core.errors import RunError
from sslcollapse.core.types import Context
from sslcollapse.domains.base import Order
from sslcollapse.domains.vision.data import MemoryImages
from sslcollapse.domains.vision.feed import streamed

for options in ("size=64k", "size=1m", "ro", "rw,size=64m"):
    until = time.monotonic() + 60
    while subprocess.run(["mount", "-o", f"remount,{options}", "/dev/shm"], capture_output=True).returncode:
        assert time.monotonic() < until  # workers that are ending still hold a file open for a moment
        time.sleep(0.05)
    order = Order(torch.arange(512), 64, Context(0))
    feed = streamed(MemoryImages(torch.ones(512, 3, 64, 64, dtype=torch.uint8)), order, 0, 2)
    try:
        print(options, sum(int(next(feed)[1][0].sum()) for _ in range(4)), flush=True)
    except RunError as error:
        print(options, error, flush=True)
    feed.close()
