"""What each model demands of the budget: the memory policy, in one place.

Without memory accounting the budget is one seat: unpinned models demand it, pinned ones none.
"""

from __future__ import annotations

from proxy.config import Config
from proxy.scheduler import Model, ModelName

ONE_SEAT = 1


def models(config: Config) -> list[Model]:
    """Tell the scheduler what it needs to know of each model."""
    return [
        Model(
            ModelName(name),
            demand=0 if model.pin else ONE_SEAT,
            concurrency=config.concurrency(model),
            ttl_s=config.ttl_s(model),
            patience_s=config.patience_s(model),
            queue_limit=model.queue_limit,
            pinned=model.pin,
        )
        for name, model in config.models.items()
    ]
