"""The stable-diffusion.cpp worker, `python -m workers.sd`: pictures from text, and edits.

=====================  ========================================================================
`options` `checks`     what swap.yaml may say; what is wrong with it, without the engine
`families`             PURE: which architecture a file of weights is
`samplers`             PURE: sample methods and schedulers by their names
`bodies` `extras`      the shapes of the requests, JSON and multipart, and JSON inside a prompt
`a1111`                the shapes of AUTOMATIC1111's requests and answers
`plan` `job`           a request into pictures to paint; one picture, every number decided
`loras`                LoRA files: by name, inside their folder, held against the model
`stop` `stop.cpp`      makes the engine stoppable
`engine` `painter`     the engine by its C functions; its thread and its queue
`pixels` `device`      pictures to C and back; what the engine's device can still give
`room`                 what decoding may take, of what the proxy could give
`turns`                the requests under way: how far, and how to end one
`answers` `events`     pictures into an answer, or into a stream of events
`face`                 the HTTP face
=====================  ========================================================================
"""
