"""A whole worker with no engine: it says back what it heard, and misbehaves when told to.

For tests, demos and load tests, and the one to copy for a new worker. With ``--port N`` (and
``--options JSON``) it is a plain HTTP server instead, like any `cmd:` of a user's.

Gates make tests free of sleeps: a gate is the path of a FIFO. Who opens it for writing knows that
the worker stands there, and lets it pass by closing it. Seconds (`load_s`, `serve_s` …) are for
benchmarks: they stand for work that an engine would do.

==============  ===============================================================================
`options`       the switches of a whole process
`bodies`        the switches of one request, and what is read of it beside
`held`          what the process holds: host memory, and bytes of a card that is a folder
`conduct`       the pace of an answer, and the process's death in the middle of it
`loading`       coming up and going down
`face`          the HTTP face and its answers
`foreign`       the same face at a port
==============  ===============================================================================
"""
