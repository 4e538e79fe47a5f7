"""Florence-2: captions, tags, boxes and text of a picture, on transformers' native model.

`options`, `checks`, `estimate`, `tasks` (which prompt) and `answers` (tokens → regions) know no
torch; `loading`, `engine`, `rows` (questions that are answered together), `turns` (whose turn it
is) and `eyes` (pictures made ready) do; `chat` faces HTTP, `describer` serves
`workers.descriptions`.
"""
