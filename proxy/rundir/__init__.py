"""Where the workers' sockets lie, and the sweeping up of what a killed proxy has left."""

from proxy.rundir.folder import RunDir, run_dir
from proxy.rundir.processes import alive_after, escaped, held, is_in_group
from proxy.rundir.sweep import sweep

__all__ = [
    "RunDir",
    "alive_after",
    "escaped",
    "held",
    "is_in_group",
    "run_dir",
    "sweep",
]
