"""What must not be asked for: the rules of `config.safety` held against a text.

==========  =======================================================================
`reading`   a text as it may be meant, however it is written
`rules`     which rule refuses it, or which person is named in it
`question`  the question to a model that judges, and what its answer says
`verdicts`  what such a model has said before
`painted`   the pictures in an answer, and the command that judges them
==========  =======================================================================

Tricks with letters that look alike in two scripts (Cyrillic and Latin), with digits for letters,
with spaces between letters, and with other languages are not seen through: rules are a first line,
and a model that judges is a second one.
"""

from proxy.safety.painted import OutputFailed, judged, pictures_in
from proxy.safety.question import Unclear, asked, verdict_in
from proxy.safety.rules import refused_by
from proxy.safety.verdicts import Verdicts

__all__ = [
    "OutputFailed",
    "Unclear",
    "Verdicts",
    "asked",
    "judged",
    "pictures_in",
    "refused_by",
    "verdict_in",
]
