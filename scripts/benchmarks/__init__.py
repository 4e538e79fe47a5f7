"""Benchmarks: `scripts/bench` prints figures, `scripts/bench schedule` replays workloads.

==============  ===============================================================================
`figures`       what Hotseat adds to a request, and what a swap costs
`traces`        the workloads: which models, and who asks what and when
`models`        the models of the traces, and configs of them for Hotseat and llama-swap
`client`        asks as a trace says, and notes how long each answer took
`serving`       a Hotseat of its own for a trace
`decisions`     the scheduler alone: microseconds per decision
`report`        figures into tables and JSON
`schedule`      the command line of all that
==============  ===============================================================================
"""
