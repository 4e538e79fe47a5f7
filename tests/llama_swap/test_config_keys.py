"""Keys that say how a model is started and asked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.llama_swap.house import checked, house, until_state
from tests.proxy.served import Gate, Hotseat, served

EVERY_KEY = """
healthCheckTimeout: 500
unloadTimeout: 10
globalTTL: 0
startPort: 5800
logLevel: info
logTimeFormat: rfc3339
logToStdout: proxy
logRequests: true
metricsMaxInMemory: 1000
captureBuffer: 5
store: {path: /tmp/activity.db}
ui: {activity: {session_id: [X-Session-ID]}}
performance: {disabled: false, every: 15s}
sendLoadingState: true
includeAliasesInList: false
apiKeys: [sk-1]
macros: {latest: "llama-server --port ${PORT}", n: 4}
upstream: {ignorePaths: ['.*[.]ico$']}
hooks: {on_startup: {preload: [llama]}}
models:
  llama:
    macros: {ctx: 4096}
    cmd: |
      # the usual
      ${latest} -c ${ctx} \\
      --threads ${n}
    cmdStop: docker stop --time 5 ${MODEL_ID} ${PID}
    proxy: http://127.0.0.1:${PORT}
    checkEndpoint: /custom
    ttl: 60
    unloadTimeout: 5
    healthCheckTimeout: 30
    aliases: [gpt-4o, gpt-3.5]
    name: Llama
    description: talks
    env: ["CUDA_VISIBLE_DEVICES=0,1"]
    unlisted: false
    useModelName: org/llama
    concurrencyLimit: 0
    filters:
      stripParams: "temperature, top_p"
      setParams: {min_p: 0.1, chat_template_kwargs: {enable_thinking: false}}
      setParamsByID: {"${MODEL_ID}:high": {reasoning_effort: high}}
    metadata: {anything: [1, {goes: here}]}
    sendLoadingState: false
    timeouts:
      {connect: 5, keepalive: 9, responseHeader: 60, tlsHandshake: 5, expectContinue: 1}
    compat: {ignoreWebsockets: true}
    capabilities: {in: [text], out: [text], tools: true, reranker: false, context: 4096}
  old: {cmd: "old --port ${PORT}", filters: {strip_params: "top_k"}}
  far: {cmd: "far", proxy: "http://127.0.0.1:9999"}
profiles: {cheap: {description: d, pins: {gpt-4: llama, gpt-5: ""}}}
selectors: {any: {strategy: warm, targets: [llama, old], settings: {spillover: 1}}}
peers:
  cloud:
    proxy: https://example.com/api
    models: [big, org/bigger]
    apiKey: sk-far
    filters: {stripParams: "top_k", setParams: {provider: {data_collection: deny}}}
    timeouts: {responseHeader: 60}
routing:
  router:
    use: group
    settings:
      groups: {g: {members: [llama, old], swap: false, exclusive: false, persistent: true}}
  scheduler: {use: fifo, settings: {fifo: {priority: {llama: 10, old: 5}}}}
"""

CONFIG = """
groups:
  all: {swap: false, members: [told, checked, fixed]}
models:
  told: {cmd: "ECHO", env: [GREETING=hello, "EMPTY=", "SIGNS=a=b"]}
  checked: {cmd: "ECHO --reply checked --health-hangs", checkEndpoint: /v1/models}
  fixed: {cmd: "FIXED --reply fixed", proxy: "http://127.0.0.1:OWN"}
"""

pytestmark = pytest.mark.asyncio(loop_scope="module")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve models that are started and asked in different ways."""
    port = str(free_port())
    config = house(CONFIG.replace("FIXED", "ECHO").replace("OWN", port))
    config = config.replace("${PORT} --reply fixed", f"{port} --reply fixed")
    async with served(config, tmp_path_factory.mktemp("keys")) as one:
        yield one


async def test_a_file_with_every_key_is_understood(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever llama-swap has in its file has a meaning here, or a note that it has none."""
    told = await asyncio.to_thread(checked, EVERY_KEY, tmp_path, capsys)

    assert told.status == 0, told.text
    for name in ("llama", "old", "far"):
        assert name in told.text
    for unused in ("captureBuffer", "store"):
        assert unused in told.text


@pytest.mark.parametrize(
    ("name", "value"), [("GREETING", "hello"), ("EMPTY", ""), ("SIGNS", "a=b")]
)
async def test_env_reaches_the_worker(hotseat: Hotseat, name: str, value: str) -> None:
    """Beside what the proxy itself was started with."""
    await hotseat.get("/upstream/told/")

    assert (await hotseat.get(f"/upstream/told/environment/{name}")).body == value
    assert (await hotseat.get("/upstream/told/environment/PATH")).body


async def test_check_endpoint_tells_when_it_is_ready(hotseat: Hotseat) -> None:
    """That path alone is asked: /health of this one would never answer."""
    assert (await hotseat.chat("checked")).text == "checked"


@pytest.mark.parametrize("endpoint", ["/health", "none"])
async def test_a_port_that_opens_late_is_waited_for(
    tmp_path: Path, gate: Callable[[], Gate], endpoint: str
) -> None:
    """Also with checkEndpoint none, which asks nothing: the first request does not fail."""
    door = gate()
    command = f"ECHO --reply a --listen-gate {door.path}"
    config = house(f"models: {{a: {{cmd: '{command}', checkEndpoint: {endpoint}}}}}")
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(hotseat.chat("a"))
        await door.pass_one()

        assert (await answer).text == "a"


async def test_a_worker_that_does_not_begin_to_answer_is_given_up(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """With timeouts.responseHeader; by itself a worker may take its time."""
    held = gate()
    config = house("models: {a: {cmd: 'ECHO', timeouts: {responseHeader: 0.3}}}")
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("a")
        answer = await hotseat.chat("a", gate=str(held.path))

        assert answer.status == 504
        assert "0.3 s" in answer.error["message"]


async def test_proxy_may_name_any_port(hotseat: Hotseat) -> None:
    """A command that has a port of its own is found there."""
    assert (await hotseat.chat("fixed")).text == "fixed"


@pytest.mark.parametrize("status", [204, 503])
async def test_ready_is_200_and_nothing_else(tmp_path: Path, status: int) -> None:
    """No other status will do, however kind it is."""
    config = house("healthCheckTimeout: 0.8\n", a=f"--health-status {status}")
    async with served(config, tmp_path) as hotseat:
        answer = await hotseat.chat("a")

        assert (answer.status, answer.error["code"]) == (504, "worker_start_timeout")


async def test_above_its_limit_a_model_lets_wait(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """ConcurrencyLimit is what the worker gets at once; nobody is sent away for it."""
    held = gate()
    config = house("models: {a: {cmd: 'ECHO', concurrencyLimit: 1}}")
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        rest = [tasks.create_task(hotseat.chat("a")) for _ in range(12)]
        while len((await hotseat.get("/api/queue")).body["waiting"]) < 12:
            pass
        counts = (await hotseat.get("/running")).body
        held.open()

        assert {(await task).status for task in (first, *rest)} == {200}
        assert counts["running"][0]["state"] == "ready"


async def test_a_port_that_is_taken_is_not_used(tmp_path: Path) -> None:
    """StartPort is the first choice; what another program holds is left to it."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        async with served(house(f"startPort: {taken}\n", a=""), tmp_path) as hotseat:
            answer = await hotseat.chat("a")
            entry = (await hotseat.running())["a"]

            assert answer.text == "a"
            assert not entry["proxy"].endswith(f":{taken}")


async def test_a_loading_model_shows_in_the_chat(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """SendLoadingState tells as reasoning, then the answer follows in the same stream."""
    load = gate()
    config = house("sendLoadingState: true\n", a=f"--load-gate {load.path}")
    async with served(config, tmp_path) as hotseat, hotseat.stream("a") as stream:
        first = await stream.content.readuntil(b"reasoning_content")
        await until_state(hotseat, "a", "starting")
        await load.pass_one()
        rest = await stream.content.read()

        assert stream.content_type == "text/event-stream"
        assert stream.headers["X-Accel-Buffering"] == "no"
        assert first.count(b"data: ") == 1
        assert b'"content": "a"' in rest or b'"content":"a"' in rest
        assert rest.rstrip().endswith(b"[DONE]")
