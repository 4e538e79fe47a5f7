"""Workers: each is a program that serves one model over HTTP, and a process we can lose.

The contract between the proxy and a worker, `python -m workers.NAME`:

========  =====================================================================================
start     ``--socket PATH --status-fd N``. The socket is bound before anything else happens, so
          there is no port to pick, to steal or to poll; `GET /health` answers from then on.
stdin     Line 1: the model's options, one JSON object; paths in it are relative to the working
          directory. Line 2: ``load``. The process holds no device memory before line 2, so a
          proxy may start it early; one that waits for line 1 is a standby. EOF at any time means
          that the proxy is gone: exit at once.
status    JSON lines on descriptor N:
          ``{"state": "checked"}``  the options and the heads of the files are sound,
          ``{"state": "imported"}``  the engine's code is in memory,
          ``{"state": "read", "seconds": 1.2}``  so long it took to have the files read ahead,
          ``{"state": "loading", "progress": 0.42}``,
          ``{"state": "ready", "facts": {…}}``  measured facts of the model,
          ``{"state": "failed", "reason": …, "detail": …}`` with a reason of `serve.Reason`.
          EOF without ``ready`` is a failed start.
errors    OpenAI error bodies (`wire.ApiError`). Where memory runs out during a request, and the
          process lives on, 503 with the header ``X-Hotseat-Reason: out_of_memory``
          (`wire.OutOfMemory`); at load it is the reason of ``failed``. An engine may also abort.
cancel    A client that leaves cancels its request: tokens stop; an image stops at the next step,
          or the process exits if the engine cannot stop.
stop      SIGTERM: cut what still runs and exit 0. The proxy drains before it asks.
check     ``--check``: reads lines of options, answers each with one line
          ``{"problems": [{"option": …, "message": …}], "memory": …}``; imports no engine.
memory    What the worker would hold, null where there are problems or it cannot tell: ``{"parts":
          [{"what": "weights", "place": …, "bytes": N}, …],`` ``"requests": [{"up_to_pixels":
          262144, "bytes": N}, …], "plain_pixels": 1048576}``. A place is ``device``, the GPU where
          there is one; ``host``, memory of the host whatever happens; ``context``, the GPU's too,
          but not there at all without one. Without a GPU the worker holds ``device`` and ``host``
          together. ``requests`` is what one request needs on top, on the device, while it paints a
          picture of so many pixels: a ladder, ascending, up to the largest that the worker paints;
          empty where requests need nothing more. ``least_bytes`` beside ``bytes`` is what it makes
          do with, at a price, where a budget can never give as much. ``plain_pixels`` is the size
          of a picture whose request does not say one.
room      Where memory has a budget, a request comes with ``X-Hotseat-Memory``: the bytes that the
          worker may come to hold where its model lives, weights and all, were it alone there.
========  =====================================================================================

`serve.run` keeps this contract; a worker brings what `serve.Worker` names. `echo` is a whole
worker without an engine, and the one to copy.
"""
