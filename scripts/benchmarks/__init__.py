"""Benchmarks: `scripts/bench` prints figures, `schedule` replays workloads, `swap` compares.

`images` measures the image worker.

==============  ===============================================================================
`figures`       what Hotseat adds to a request, and what a swap costs
`traces`        the workloads: which models, and who asks what and when
`models`        the models of the traces, and configs of them for Hotseat and llama-swap
`client`        asks as a trace says, and notes how long each answer took
`serving`       a Hotseat of its own for a trace
`decisions`     the scheduler alone: microseconds per decision
`report`        figures into tables and JSON
`schedule`      the command line of all that
`swap`          the command line that compares Hotseat with llama-swap
`eyes`          how fast pictures are described, and what memory that takes
`looks`         what pictures in chats take of memory
`contest`       the programs that are compared, and the file that both are given
`measures`      the figures that are compared
`images`        the command line that measures the image worker
`talk`          a client that costs next to nothing
`responder`     a worker that is up at once
==============  ===============================================================================
"""
