"""Worker processes: how they start, say that they are ready, and end.

`process` is what all share, `bundled` and `foreign` are the two ways to get there. Under them
stand `child` (one process group), `guard` (ends a command when the proxy is gone), `ports`,
`named_files` (what a command needs on the disk) and `diagnosis` (why one did not come up).
"""

from proxy.process.bundled import Bundled, Estimate, Part, check_options
from proxy.process.foreign import Foreign
from proxy.process.ports import Ports
from proxy.process.process import HEADER_BYTES, Process, Way

__all__ = [
    "HEADER_BYTES",
    "Bundled",
    "Estimate",
    "Foreign",
    "Part",
    "Ports",
    "Process",
    "Way",
    "check_options",
]
