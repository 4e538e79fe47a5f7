"""The workers of one server: the scheduler's commands carried out, and leases handed out.

`pool` is the door. `crew` begins the workers' lives, `life` is one of them, `maker` makes their
processes; `books` keeps the numbers of memory true, with `watch` for its eyes; `pins` wishes for
what the config wants loaded; `ticket` is a request's place, `standing` what can be seen of it all.
"""

from proxy.pool.maker import Maker
from proxy.pool.pool import Pool
from proxy.pool.ticket import Ticket

__all__ = [
    "Maker",
    "Pool",
    "Ticket",
]
