"""Florence-2: captions, tags, boxes and text of a picture, on transformers' native model.

`options`, `checks`, `tasks` (which prompt) and `answers` (tokens → regions) know no torch;
`loading`, `engine` and `turns` (whose turn it is) do; `chat` and `descriptions` face HTTP.
"""
