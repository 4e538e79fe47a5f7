"""The llama.cpp worker, `python -m workers.llama`: chat, vision, completions, vectors.

======================  =======================================================================
`options` `checks`      what swap.yaml may say; what is wrong with it, without the engine
`memory`                what a context will need, and what the host has
`enginelog` `loading`   the engine's own lines; files and options into a model and a context
`vocabulary`            text to tokens and back
`sampling` `vision`     logits to a token; pictures to what the model reads
`eyes` `album`          pictures as clients send them; what they became, kept
`generator` `rows`      the inference thread of a chat model; what it knows of each sequence
`timings`               how long that thread took for an answer
`embedder`              the inference thread of an embedding model
`grammar` `tools`       pure: JSON schemas to grammars; tool calls in text
`template` `text`       pure: messages to a prompt; token bytes to text, up to a stop string
`formats`               pure: templates for files that bring none
`bodies`                the shapes of the requests
`answers`               from the inference thread to the event loop, and cancelling back
`chat` `completions`    the HTTP face, endpoint by endpoint
`vectors` `describing`
`face`
======================  =======================================================================
"""
