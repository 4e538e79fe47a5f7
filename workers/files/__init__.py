"""The heads of files of weights, read before any engine sees the files. Standard library only.

Engines trust these heads: some end the process over a damaged one, or load noise where the data
end too early. So a head is read wholly, its data are made sure to lie inside the file, and what
cannot be a model at all is named for what it is:

======================  =======================================================================
`read`                  safetensors or GGUF, as the file itself says
`read_gguf`             GGUF only; passes types of tensors that are not known here
`read_safetensors`      safetensors only; likewise
`impostor`              what is often saved under the name of any file, by its first bytes
======================  =======================================================================

They raise `BadFile`, MemoryError where the host has none, and nothing else. The message of
`BadFile` goes on after the name of the file: "is empty; download it again".
"""

from workers.files.header import BadFile, Header, Shape, count
from workers.files.reading import impostor, read, read_gguf, read_safetensors

__all__ = [
    "BadFile",
    "Header",
    "Shape",
    "count",
    "impostor",
    "read",
    "read_gguf",
    "read_safetensors",
]
