"""The workers of one server: the scheduler's commands carried out, and leases handed out.

`pool` is the door. `workers` begins their lives, `life` is one of them, `launcher` makes their
processes; `charges` keeps the numbers of memory true, with `watch` for its eyes; `pins` wishes for
what the config wants loaded; `ticket` is a request's place, `standing` what can be seen of it all.
"""

from proxy.pool.launcher import Launcher
from proxy.pool.pool import Pool
from proxy.pool.ticket import Ticket

__all__ = [
    "Launcher",
    "Pool",
    "Ticket",
]
