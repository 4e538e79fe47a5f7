"""What the devices have, and what processes hold of them.

A `Meter` looks at one device. A look at a GPU blocks for about a millisecond, and longer when its
driver does, so the loop's thread leaves it to another; a look at the host reads a few files of the
kernel's. Meters may be used from any thread. NVML never opens a CUDA context: looking takes no
device memory.
"""

from proxy.memory.freed import Held, hold, seen_free
from proxy.memory.gpu import GpuMeter, Gpus, open_gpus
from proxy.memory.host import HOST, HostMeter
from proxy.memory.meter import DeviceLost, Meter
from proxy.memory.nvml import Sensors
from proxy.memory.tree import tree

__all__ = [
    "HOST",
    "DeviceLost",
    "GpuMeter",
    "Gpus",
    "Held",
    "HostMeter",
    "Meter",
    "Sensors",
    "hold",
    "open_gpus",
    "seen_free",
    "tree",
]
