"""A whole worker with no engine: it says back what it heard, and misbehaves when told to.

For tests, demos and load tests, and the one to copy for a new worker. With ``--port N`` it is a
plain HTTP server instead, like any `cmd:` of a user's; its switches are then flags, such as
``--reply hi --ignore-sigterm``, or all in one ``--options JSON``.

====================================================  =========================================
comes up late                                         `load_gate`, `load_s`, `listen_gate`
is never ready                                        `hang_at_load`, `health_hangs`,
                                                      `health_status`
fails to start, with its last words                   `exit_at_load` and `detail`
does not go                                           `ignore_sigterm`, `grandchild`, `stop_s`
talks                                                 `says`, `noise_lines`
tells what arrived instead of serving it              `tells`
dies, hangs or refuses in the middle of one request   the body's `echo`: see `bodies`
====================================================  =========================================

What has no answer of its own is told back, a websocket too; `/process` and `/environment/NAME`
tell how the process was started.

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
`mirror`        what arrived, told back
`foreign`       the same face at a port
==============  ===============================================================================
"""
