"""The stable-diffusion.cpp worker, `python -m workers.sd`: pictures from text, and edits.

=====================  ========================================================================
`options` `checks`     what swap.yaml may say; what is wrong with it, without the engine
`families`             PURE: which architecture a file of weights is
`samplers`             PURE: sample methods and schedulers by their names
`bodies`               the shapes of the requests, JSON and multipart
`plan` `job`           a request into pictures to paint; one picture, every number decided
`loras`                LoRA files: by name, inside their folder, held against the model
`stop` `stop.cpp`      makes the engine stoppable
`engine` `painter`     the engine by its C functions; its thread and its queue
`answers` `face`       pictures into an answer; the HTTP face
=====================  ========================================================================
"""
