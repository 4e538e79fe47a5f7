"""What each model was seen to need, kept from run to run in a small file.

A footprint belongs to a model with these very options (`digest`) and to a class of requests: a
big picture needs more than a small one. Peaks only grow. How long loads and requests took is kept
beside them, so that waiting can be foretold after a restart. `now` is wall-clock seconds.
"""

from proxy.footprints.file import default_path
from proxy.footprints.kept import Footprints
from proxy.footprints.values import Digest, options_digest

__all__ = ["Digest", "Footprints", "default_path", "options_digest"]
