"""Moving in: a llama-swap file into a swap.yaml that uses the bundled workers.

==============  ===============================================================================
`words`         a command's words, as written and with its macros expanded
`flags`         what may become of a flag, and how a command is read by a table of them
`llama`, `sd`   the tables of llama-server and sd-server
`wrapped`       servers that another program starts
`entry`         one model: translated, or kept and why
`written`       where things stand in the YAML text, and edits that leave the rest alone
`rewriting`     an outcome as edits
`move`          all of that for a file
==============  ===============================================================================
"""

from proxy.moving.move import Moved, move

__all__ = ["Moved", "move"]
