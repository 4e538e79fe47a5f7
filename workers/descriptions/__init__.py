"""POST /v1/images/descriptions for any engine: what is asked of pictures, and what is told back.

A request is JSON or a form: one picture as `image`, or several as `images` (`image[]`, a list),
and one task or more. Each task fills the field of its own name (`ocr` fills `ocr_text`); the
others are null. Several pictures are answered as ``{"data": [{"index": 0, …}, …]}``, by `stream`
one by one as they are ready; a bad one among them has an `error` of its own there.

`asked` is the request, `told` the answer, `face` the way between. An engine brings a `Describer`.
"""

from workers.descriptions.asked import ALIASES, Asked, Box, Sent, Task
from workers.descriptions.face import Describer, Face
from workers.descriptions.told import Answer, Description, Place

__all__ = [
    "ALIASES",
    "Answer",
    "Asked",
    "Box",
    "Describer",
    "Description",
    "Face",
    "Place",
    "Sent",
    "Task",
]
