"""What `hotseat check --memory` tells: what models need, what fits alone, and what together."""

from proxy.report.look import homes_of, look
from proxy.report.outlook import Entry, Outlook, Room
from proxy.report.text import text
from proxy.report.trials import trials, with_savers

__all__ = ["Entry", "Outlook", "Room", "homes_of", "look", "text", "trials", "with_savers"]
