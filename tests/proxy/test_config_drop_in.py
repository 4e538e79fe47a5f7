"""A llama-swap file: every key of it, what its values mean, and what it lets pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import Modalities, understood
from proxy.config.model import NO_KIND
from proxy.config.schema import Config
from tests.proxy.configs import load, loaded, mistakes, told

EVERY_KEY = r"""
healthCheckTimeout: 60
unloadTimeout: 5
globalTTL: 300
startPort: ${first_port}
logLevel: warn
logTimeFormat: rfc3339
logToStdout: both
logRequests: true
metricsMaxInMemory: 500
captureBuffer: 5
store:
  path: /var/lib/swap/activity.db
ui:
  activity:
    session_id: [X-Session-ID]
performance:
  disabled: false
  every: 15s
sendLoadingState: true
includeAliasesInList: true
apiKeys:
  - "${env.TOKEN}"
macros:
  first_port: 10001
  server: /opt/llama/llama-server --port ${PORT} --host 127.0.0.1
  temperature: 0.6
upstream:
  ignorePaths: ['\.(js|css)$', '^/favicon']
hooks:
  on_startup:
    preload: [coder, gpt-4o]
models:
  coder:
    cmd: |
      # a comment
      ${server} \
        -m /models/${MODEL_ID}.gguf -c ${context}
    cmdStop: docker stop ${MODEL_ID}
    proxy: http://127.0.0.1:${PORT}
    checkEndpoint: /health
    ttl: 60
    unloadTimeout: 3
    healthCheckTimeout: 500
    aliases: [gpt-4o, "${MODEL_ID}-latest"]
    name: Coder
    description: writes programs
    env: [CUDA_VISIBLE_DEVICES=0, "KEY=${env.TOKEN}"]
    unlisted: true
    useModelName: qwen/coder
    concurrencyLimit: 20
    filters:
      stripParams: "top_k, temperature, top_k"
      setParams: {temperature: "${temperature}", chat_template_kwargs.thinking: false}
      setParamsByID: {"${MODEL_ID}:high": {reasoning_effort: high}}
    macros: {context: 16384}
    metadata: {port: "${first_port}", note: "${context} tokens"}
    sendLoadingState: false
    timeouts:
      connect: 60
      keepalive: 0
      responseHeader: 600
      tlsHandshake: 20
      expectContinue: 2
      idleConn: 45
    compat:
      ignoreWebsockets: true
    capabilities: {in: [text, image], out: [text], tools: true, reranker: false, context: 16384}
  painter: {cmd: "sd-server --listen-port ${PORT}", filters: {strip_params: "seed"}}
groups:
  both: {members: [coder, painter], swap: false, exclusive: true, persistent: false}
routing:
  scheduler: {use: fifo, settings: {fifo: {priority: {coder: 5, painter: 1}}}}
profiles:
  work: {description: at work, pins: {gpt-4o: painter, gone: }}
selectors:
  any:
    strategy: warm
    targets: [coder, painter]
    settings: {spillover: 2}
    name: whichever
    description: the one that is loaded
    unlisted: false
    metadata: {a: 1}
peers:
  far:
    proxy: https://example.com/api
    models: [big]
    apiKey: "${env.TOKEN}"
    filters: {stripParams: seed, setParams: {user: me}}
    timeouts: {responseHeader: 120}
"""

MATRIX = """
models: {a: {cmd: "a ${PORT}"}, b: {cmd: "b ${PORT}"}, c/d: {cmd: "c ${PORT}"}}
matrix:
  vars: {cd: c/d}
  evict_costs: {a: 10, cd: 2}
  sets: {one: a & b, two: "+one | cd"}
"""

ROUTER = """
models: {a: {cmd: "a ${PORT}"}, b: {cmd: "b ${PORT}"}}
routing:
  router:
    use: %s
    settings:
      groups: {one: {members: [a, b]}}
      matrix: {sets: {one: a & b}}
"""


@pytest.fixture
def every(tmp_path: Path) -> Config:
    return load(EVERY_KEY, tmp_path)


def test_every_key_is_accepted(tmp_path: Path) -> None:
    """Some of them change nothing here, which is noted with their lines."""
    found = loaded(EVERY_KEY, tmp_path)

    assert found.warnings == ()
    assert told(found.notes) == [
        "7: logTimeFormat: changes nothing: the log has times of its own",
        "9: logRequests: changes nothing: each request has its line in the log",
        "11: captureBuffer: changes nothing: requests and answers are not kept",
        "12: store: changes nothing: there is no database",
        "61: models.coder.timeouts.keepalive: changes nothing: the system looks after connections",
        "64: models.coder.timeouts.expectContinue: changes nothing: a body is sent unasked",
        "65: models.coder.timeouts.idleConn: changes nothing: idle connections have a fixed time",
        "75: profiles.work.pins.gone: is nobody's name, so nothing is taken away",
    ]


@pytest.mark.parametrize("text", [MATRIX, ROUTER % "group", ROUTER % "matrix"])
def test_every_key_of_company_is_accepted(tmp_path: Path, text: str) -> None:
    """In its old place, and in its new one."""
    assert loaded(text, tmp_path).warnings == ()


def test_values_above_the_models(every: Config) -> None:
    """They are what the file says."""
    assert (every.health_check_timeout, every.unload_timeout, every.global_ttl) == (60, 5, 300)
    assert (every.start_port, every.log_level, every.log_time_format) == (10001, "warn", "rfc3339")
    assert (every.log_to_stdout, every.metrics_max_in_memory) == ("both", 500)
    assert every.ui.activity.session_id == ("X-Session-ID",)
    assert (every.performance.disabled, every.performance.every) == (False, 15.0)
    assert (every.send_loading_state, every.include_aliases_in_list) == (True, True)
    assert every.preload == ("coder",)
    paths = ("/a.js", "/a.json", "/favicon.ico", "/x/favicon")
    assert [every.ignored_at_upstream(path) for path in paths] == [True, False, True, False]


def test_values_of_a_model(every: Config) -> None:
    """They count before the file's."""
    one = every.models["coder"]

    assert one.argv == (
        *("/opt/llama/llama-server", "--port", "${PORT}", "--host", "127.0.0.1"),
        *("-m", "/models/coder.gguf", "-c", "16384"),
    )
    assert one.stop_argv == ("docker", "stop", "coder")
    assert (every.ttl_s(one), every.grace_s(one), every.start_timeout_s(one)) == (60, 3, 500)
    assert one.aliases == ("gpt-4o", "coder-latest")
    assert one.env == {"CUDA_VISIBLE_DEVICES": "0", "KEY": "hush-hush"}
    assert (one.use_model_name, every.concurrency(one), one.unlisted) == ("qwen/coder", 20, True)
    assert one.filters.strip_params == ("temperature", "top_k")
    assert one.filters.set_params == {"temperature": 0.6, "chat_template_kwargs.thinking": False}
    assert one.filters.set_params_by_id == {"coder:high": {"reasoning_effort": "high"}}
    assert one.metadata == {"port": 10001, "note": "16384 tokens"}
    assert not every.sends_loading_state(one)
    assert (one.timeouts.connect, one.timeouts.keepalive) == (60, 0)
    assert (one.timeouts.response_header, one.timeouts.tls_handshake) == (600, 20)
    assert (one.timeouts.expect_continue, one.timeouts.idle_conn) == (2, 45)
    assert one.compat.ignore_websockets
    assert every.models["painter"].filters.strip_params == ("seed",)


def test_what_goes_in_and_comes_out_refuses_nothing(every: Config) -> None:
    """It is for listings; a `cmd` may still be asked anything."""
    one = every.models["coder"]

    assert one.words is None
    assert one.modalities == Modalities.model_validate(
        {"in": ["text", "image"], "out": ["text"], "tools": True, "context": 16384}
    )
    assert every.models["painter"].modalities is None


def test_a_model_is_found_by_all_its_names(every: Config) -> None:
    """Its id, its aliases, and the ids that have parameters of their own."""
    names = ("coder", "gpt-4o", "coder-latest", "coder:high", "coder:low")

    assert [every.resolve(name) for name in names] == [*["coder"] * 4, None]


def test_a_changed_copy_finds_its_own_models(every: Config) -> None:
    """What was looked up in the one before does not count in it."""
    before = every.resolve("gpt-4o")
    copy = every.model_copy(update={"models": {"new": every.models["coder"]}})

    assert (before, every.resolve("gpt-4o"), copy.resolve("gpt-4o")) == ("coder", "coder", "new")


STANDARD = "models: {m: {cmd: 'serve ${PORT}', %s}}\n"


def test_what_is_not_said(tmp_path: Path) -> None:
    """A key with nothing behind it is not there; 0 and -1 may mean the file's value."""
    config = load(
        """\
healthCheckTimeout: 0
unloadTimeout: 0
metricsMaxInMemory: 0
globalTTL: 7
apiKeys:
upstream: {ignorePaths: []}
models:
  m:
    cmd: serve ${PORT}
    ttl: -1
    unloadTimeout: 0
    healthCheckTimeout: 0
    concurrencyLimit: 0
    aliases:
    filters:
    capabilities:
    proxy:
    env: []
  n: {cmd: "serve ${PORT}", ttl: 0}
""",
        tmp_path,
    )
    one = config.models["m"]

    assert (config.start_timeout_s(one), config.grace_s(one), config.ttl_s(one)) == (120, 10, 7)
    assert (config.metrics_max_in_memory, config.start_port) == (1000, None)
    assert (config.concurrency(one), one.proxy) == (10, "http://127.0.0.1:${PORT}")
    assert config.ttl_s(config.models["n"]) == 0
    assert [config.ignored_at_upstream(p) for p in ("/ui/a.css", "/v1/models")] == [True, False]


def test_seconds_may_be_durations(tmp_path: Path) -> None:
    """Where seconds are meant, Go's way of writing them will do."""
    config = load("globalTTL: 1h30m\nunloadTimeout: 500ms\n" + STANDARD % "ttl: 5m", tmp_path)

    assert (config.global_ttl, config.unload_timeout) == (5400, 0.5)
    assert config.ttl_s(config.models["m"]) == 300


def test_short_starts_are_taken_as_written(tmp_path: Path) -> None:
    """There is no least time; who knows llama-swap's is told."""
    found = loaded("healthCheckTimeout: 2\n" + STANDARD % "name: x", tmp_path)

    assert found.config.health_check_timeout == 2
    assert told(found.notes) == [
        "1: healthCheckTimeout: counts as it is written; llama-swap would make it 15"
    ]


def test_comfyui_is_let_ask_for_much(tmp_path: Path) -> None:
    """Its page loads many files at once, and its websocket does not keep it loaded."""
    found = loaded("models: {comfyui_auto: {cmd: 'serve ${PORT}', concurrencyLimit: 3}}", tmp_path)
    more = load("models: {comfyui_auto: {cmd: 'serve ${PORT}', concurrencyLimit: 99}}", tmp_path)
    one = found.config.models["comfyui_auto"]

    assert (found.config.concurrency(one), one.compat.ignore_websockets) == (50, True)
    assert more.concurrency(more.models["comfyui_auto"]) == 99
    assert told(found.notes) == [
        "1: models.comfyui_auto: gets 50 requests at once or more, and ignoreWebsockets"
    ]


def test_the_name_of_the_model_is_protected(tmp_path: Path) -> None:
    """Filters leave `model` alone, which is noted."""
    text = "filters: {stripParams: 'model, a', setParams: {model: x, b: 1}}"
    found = loaded(STANDARD % text, tmp_path)
    filters = found.config.models["m"].filters

    assert (filters.strip_params, filters.set_params) == (("a",), {"b": 1})
    assert told(found.notes) == [
        f"1: models.m.filters.{key}: leaves 'model' as it is: no filter changes it"
        for key in ("setParams", "stripParams")
    ]


def test_for_an_id_and_for_a_peer_it_is_protected_too(tmp_path: Path) -> None:
    """Wherever parameters are set."""
    by_id = "filters: {setParamsByID: {x: {model: y}}}"
    peer = "peers: {p: {proxy: 'http://h', models: [a], filters: {stripParams: model}}}\n"
    found = loaded(f"{peer}{STANDARD % by_id}", tmp_path)

    assert [line.partition(": leaves")[0] for line in told(found.notes)] == [
        "1: peers.p.filters.stripParams",
        "2: models.m.filters.setParamsByID.x",
    ]


def test_an_empty_text_says_nothing(tmp_path: Path) -> None:
    """llama-swap's own defaults may be written."""
    peer = "peers: {p: {proxy: 'http://h', models: [a], apiKey: ''}}\n"
    model = STANDARD % "cmdStop: ''"
    config = load(f"logLevel: WARN\n{peer}{model}", tmp_path)

    assert (config.models["m"].stop_argv, config.peers["p"].api_key) == ((), None)
    assert config.log_level == "warn"


def test_keys_of_ones_own_may_hold_anchors(tmp_path: Path) -> None:
    """Above the models, what begins with x- means nothing, and nor do macros in it."""
    config = load(
        'x-common: &common {ttl: 5, env: ["A=${PORT}"], name: "${nobody}"}\n'
        "models: {m: {<<: *common, cmd: 'serve ${PORT}', name: M}}\n",
        tmp_path,
    )

    assert (config.models["m"].ttl, config.models["m"].env) == (5, {"A": "${PORT}"})


def test_there_are_no_macros_in_ids(tmp_path: Path) -> None:
    """Which is noted."""
    found = loaded("macros: {a: b}\nmodels: {'${a}': {cmd: 'serve ${PORT}'}}\n", tmp_path)

    assert told(found.notes) == ["2: models.${a}: is the id as it stands: keys hold no macros"]


def test_parameters_for_its_own_names_are_no_clash(tmp_path: Path) -> None:
    """An id or an alias of the model may have parameters of its own."""
    config = load(
        STANDARD % "aliases: [high], filters: {setParamsByID: {m: {t: 1}, high: {t: 2}}}", tmp_path
    )

    assert config.names == {"high": "m", "m": "m"}


TOP = "models: {m: {cmd: 'serve ${PORT}'}}\n"
ONE_OF = "must be"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("unloadTimeout: -1", "unloadTimeout: must be greater than or equal to 0"),
        ("globalTTL: -1", "globalTTL: must be greater than or equal to 0"),
        ("globalTTL: -1s", "globalTTL: must be seconds, or read like 30s, 5m or 1h30m"),
        ("globalTTL: true", "globalTTL: must be a valid number"),
        ("startPort: 0", "startPort: must be greater than or equal to 1"),
        ("startPort: 65536", "startPort: must be less than 65536"),
        ("logLevel: loud", f"logLevel: {ONE_OF} 'debug', 'info', 'warn' or 'error'"),
        ("logTimeFormat: iso", f"logTimeFormat: {ONE_OF} '', 'ansic', 'unixdate'"),
        ("logToStdout: all", f"logToStdout: {ONE_OF} 'proxy', 'upstream', 'both' or 'none'"),
        ("store: {path: ''}", "store.path: is empty"),
        ("captureBuffer: -1", "captureBuffer: must be greater than or equal to 0"),
        ("performance: {every: 1s}", "performance.every: every must be at least 5s"),
        (
            "upstream: {ignorePaths: ['a', '(']}",
            "upstream.ignorePaths.1: is no regular expression",
        ),
        ("upstream: {ignorePaths: ['\\z']}", "upstream.ignorePaths.0: is no regular expression"),
        ("upstream: {ignorePaths: ['[[:a:]]']}", "upstream.ignorePaths.0: is no regular"),
        ("upstream: {ignorePaths: [7]}", "upstream.ignorePaths.0: must be a regular expression"),
        (
            "hooks: {on_startup: {preload: [n]}}",
            "hooks.on_startup.preload.0: 'n' is no model",
        ),
        ("hooks: {onStartup: {}}", "hooks.onStartup: unknown key; did you mean on_startup?"),
        ("apiKeys: ['a b']", "apiKeys.0.key: the key holds a space"),
        ("apiKeys: [aa, bb, aa]", "apiKeys.2: is the same key as entry 0"),
        ("routes: [v2]", "routes.0: must begin with a slash, such as /v2"),
        ("timeouts: {}", "timeouts: unknown key; it is a key of a model, not of the whole file"),
        ("Models: {}", "Models: unknown key; did you mean models?"),
        ("frobnicate: 1", "frobnicate: unknown key; known are: models, macros, "),
    ],
)
def test_mistakes_above_the_models(tmp_path: Path, head: str, message: str) -> None:
    """Each at its own line."""
    found = mistakes(TOP + head, tmp_path)

    assert len(found) == 1
    assert found[0].startswith(f"swap.yaml:2: {message}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("ttl: -2", "ttl: invalid TTL value -2"),
        ("unloadTimeout: -1", "unloadTimeout: must be greater than or equal to 0"),
        ("concurrencyLimit: -1", "concurrencyLimit: must be greater than 0"),
        ("proxy: '127.0.0.1:${PORT}'", "proxy: must be a URL such as http://127.0.0.1:${PORT}"),
        ("proxy: 'http://[${PORT}'", "proxy: must be a URL such as http://127.0.0.1:${PORT}"),
        ('cmdStop: "\'"', "cmdStop: No closing quotation"),
        ("env: [KEY]", "env: each entry must read KEY=VALUE"),
        ("capabilities: {in: [video]}", f"capabilities.in.0: {ONE_OF} 'text', 'audio' or 'image'"),
        ("capabilities: {out: [smell]}", f"capabilities.out.0: {ONE_OF} 'text', 'audio' or"),
        ("capabilities: {context: -1}", "capabilities.context: must be greater than or"),
        ("capabilities: {tool: true}", "capabilities.tool: unknown key; did you mean tools?"),
        (
            "timeouts: {connect: -1}",
            "timeouts.connect: must be greater than or equal to 0",
        ),
        ("timeouts: {conect: 1}", "timeouts.conect: unknown key; did you mean connect?"),
        ("compat: {ignoreWebSockets: true}", "compat.ignoreWebSockets: unknown key; did you mean"),
        (
            "filters: {stripParams: a, strip_params: b}",
            "filters: says strip_params and stripParams",
        ),
        ("filters: {setParams: [a]}", "filters.setParams: must be a mapping"),
        (
            "filters: {setParamsById: {}}",
            "filters.setParamsById: unknown key; did you mean setParam",
        ),
        ("globalTTL: 1", "globalTTL: unknown key; it is a key of the whole file, not of a model"),
        ("aliases: ['']", "aliases.0: is empty"),
        ("env: {'A=B': c}", "env: a name is empty or holds a =, or something holds a NUL"),
        ('env: ["A=b\\0"]', "env: a name is empty or holds a =, or something holds a NUL"),
        ('cmdStop: "x \\0"', "cmdStop: the command holds a NUL"),
        ("env: {A: true}", "env.A: must be one text; true and false need quotes"),
        ("TTL: 1", "TTL: unknown key; did you mean ttl?"),
    ],
)
def test_mistakes_of_models(tmp_path: Path, body: str, message: str) -> None:
    """Each at its own line."""
    found = mistakes(f"models:\n  m:\n    cmd: serve ${{PORT}}\n    {body}\n", tmp_path)

    assert len(found) == 1
    assert found[0].startswith(f"swap.yaml:4: models.m.{message}")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("aliases: [n]", "", "3: models.m.aliases.0: 'n' is a model's id"),
        ("aliases: [m]", "", "3: models.m.aliases.0: 'm' is a model's id"),
        ("aliases: [x]", "aliases: [x]", "4: models.n.aliases.0: 'x' is an alias of 'm' already"),
        ("aliases: [x, x]", "", "3: models.m.aliases.1: 'x' is an alias of 'm' already"),
        (
            "filters: {setParamsByID: {n: {}}}",
            "",
            (
                "3: models.m.filters.setParamsByID.n: is another model's id; "
                "parameters are for names of this model"
            ),
        ),
        (
            "filters: {setParamsByID: {x: {}}}",
            "aliases: [x]",
            "3: models.m.filters.setParamsByID.x: is an alias of 'n' already",
        ),
        (
            "filters: {setParamsByID: {'${one}': {}}}",
            "filters: {setParamsByID: {x: {}}}",
            "4: models.n.filters.setParamsByID.x: is an alias of 'm' already",
        ),
    ],
)
def test_clashes_of_names(tmp_path: Path, first: str, second: str, message: str) -> None:
    """One name means one model."""
    found = mistakes(
        "macros: {one: x}\n"
        f"models:\n  m: {{echo: {{}}, {first}}}\n  n: {{echo: {{}}, {second}}}\n",
        tmp_path,
    )

    assert found == [f"swap.yaml:{message}"]


NO_TTL = "invalid TTL value -2; 0: never unloaded, -1: as globalTTL says"
PASSING = """\
logLevel: chatty
logTimeFormat: iso
futureKey: {a: [1, 2]}
apiKeys: [aa, aa, bb]
hooks: {on_startup: {preload: [a, nobody, b]}}
models:
  a:
    cmd: serve ${PORT}
    aliases: [x, b, y, a, z]
    env: ["PATH=/opt:${PATH}"]
    TTL: 5
  b: {cmd: "serve ${PORT}", timeouts: {conect: 1, connect: 2}}
  c: {name: nothing}
  d:
"""


def test_what_llama_swap_lets_pass_is_an_error(tmp_path: Path) -> None:
    """All of it at once, with its lines."""
    found = mistakes(PASSING.partition("  c:")[0], tmp_path)

    assert [line.split(":")[1] for line in found] == [*"12345", "9", "9", "10", "11", "12"]


def test_what_names_a_model_that_is_none_is_not_told_as_well(tmp_path: Path) -> None:
    """A model with nothing to run is the mistake, not who names it."""
    found = mistakes(
        "hooks: {on_startup: {preload: [c]}}\nmodels:\n  c: {name: x}\n  a: {echo: {}}\n", tmp_path
    )

    assert found == [f"swap.yaml:3: models.c: names nothing to run; {NO_KIND}"]


def test_a_model_with_nothing_to_run_is_told_whatever_else_is_wrong(tmp_path: Path) -> None:
    """Neither a slip in its keys nor in what names others hides it, and ${PORT} is no riddle."""
    found = mistakes(
        "hooks: {on_startup: {preload: [bee, nobody]}}\n"
        "models:\n"
        "  b: {comand: 'x ${PORT}', proxy: 'http://127.0.0.1:${PORT}', aliases: [bee]}\n"
        "  c: {name: x, ttl: -2}\n",
        tmp_path,
    )

    assert found == [
        "swap.yaml:3: models.b: names nothing to run; " + NO_KIND,
        "swap.yaml:3: models.b.comand: unknown key; did you mean cmd?",
        "swap.yaml:4: models.c: names nothing to run; " + NO_KIND,
        f"swap.yaml:4: models.c.ttl: {NO_TTL}",
    ]


def test_what_is_wrong_in_a_model_that_could_be_left_out_is_told_with_compat(
    tmp_path: Path,
) -> None:
    """llama-swap refuses it there too."""
    found = mistakes("models:\n  a: {echo: {}}\n  b: {ttl: -2}\n", tmp_path, compat=True)

    assert len(found) == 1
    assert found[0].startswith("swap.yaml:3: models.b.ttl: invalid TTL value -2")


def test_a_model_that_was_left_out_is_named_so(tmp_path: Path) -> None:
    """By whatever still refers to it, with --compat."""
    found = loaded(
        "models: {a: {echo: {}}, b: {aliases: [bee]}}\nhooks: {on_startup: {preload: [bee]}}\n",
        tmp_path,
        compat=True,
    )

    gone = "is no model any more: its entry was left out"
    assert told(found.warnings) == [
        f"1: models.b: names nothing to run; {NO_KIND}; this is left out",
        f"2: hooks.on_startup.preload.0: 'bee' {gone}; this is left out",
    ]


PINS = """models: {stubborn: {echo: {}}, writer: {echo: {}, aliases: [gpt-4o]}}
profiles:
  calm:
    pins:
      gpt-4: writer
      stubbon:
      zzz: writer
      gpt-4o: stubborn
"""


def test_a_pin_of_a_name_that_nobody_has_is_noted(tmp_path: Path) -> None:
    """It may be meant, and it may be a slip."""
    new, none = "is a name only while this profile is active", "so nothing is taken away"
    assert told(loaded(PINS, tmp_path).notes) == [
        f"5: profiles.calm.pins.gpt-4: {new}; did you mean gpt-4o?",
        f"6: profiles.calm.pins.stubbon: is nobody's name, {none}; did you mean stubborn?",
        f"7: profiles.calm.pins.zzz: {new}",
    ]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        *(("comand", "cmd"), ("command", "cmd"), ("environment", "env"), ("alias", "aliases")),
        *(("tll", "ttl"), ("healthcheck", "healthCheckTimeout"), ("timeout", "timeouts")),
        *(("modelName", "useModelName"), ("desc", "description"), ("ctxs", None)),
    ],
)
def test_the_key_that_was_meant_is_named(tmp_path: Path, key: str, meant: str | None) -> None:
    """Also where it was abbreviated, or drawn out."""
    (found,) = mistakes(f"models: {{m: {{echo: {{}}, {key}: 1}}}}\n", tmp_path)

    hint = f"did you mean {meant}?" if meant else "known are: llama, sd, "
    assert f"models.m.{key}: unknown key; {hint}" in found


@pytest.mark.parametrize("pattern", ["", "[]", r"['.*\.(js|css)$']"])
def test_a_long_path_is_soon_looked_at(tmp_path: Path, pattern: str) -> None:
    """A pattern that begins with anything is not tried from each place to the end."""
    upstream = f"upstream: {{ignorePaths: {pattern}}}\n" if pattern else ""
    config = load(f"{upstream}models: {{m: {{echo: {{}}}}}}\n", tmp_path)

    assert not any(config.ignored_at_upstream("." * 8000) for _ in range(200))
    assert config.ignored_at_upstream("/ui/a.css")


def test_with_compat_it_is_left_out(tmp_path: Path) -> None:
    """With a warning for each; what is sound is served."""
    found = loaded(PASSING, tmp_path, compat=True)
    config = found.config

    assert [line.split(": ")[1] for line in told(found.warnings)] == [
        *("logLevel", "logTimeFormat", "futureKey", "apiKeys.1", "hooks.on_startup.preload.1"),
        *("models.a.aliases.1", "models.a.aliases.3", "models.a.env.0", "models.a.TTL"),
        *("models.b.timeouts.conect", "models.c", "models.d"),
    ]
    assert told(found.warnings)[8] == (
        "11: models.a.TTL: unknown key; did you mean ttl?; this is left out"
    )
    assert list(config.models) == ["a", "b"]
    assert config.models["a"].aliases == ("x", "y", "z")
    assert config.models["a"].env == {"PATH": "/opt:${PATH}"}
    assert config.models["b"].timeouts.connect == 2
    assert (config.log_level, config.log_time_format, config.preload) == ("info", "", ("a", "b"))
    assert [entry.key.get_secret_value() for entry in config.api_keys] == ["aa", "bb"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unknown: 1\nmodels: {m: {echo: {}, ttl: -2}}", "swap.yaml:2: models.m.ttl: invalid TTL"),
        (
            "models: {m: {echo: {}, name: '${x}'}}",
            "swap.yaml:1: models.m.name: unknown macro ${x}",
        ),
        ("models: {m: }", "swap.yaml:1: models: is empty: name at least one model"),
        ("logToStdout: all\nmodels: {m: {echo: {}}}", "swap.yaml:1: logToStdout: must be"),
        ("models: {m: {echo: {}, cmd: 'x ${PORT}'}}", "swap.yaml:1: models.m: names echo and cmd"),
        ("a: 1\na: 1\nmodels: {m: {echo: {}}}", "swap.yaml:2: a: is given twice"),
        (
            "models: {m: {echo: {}, aliases: [n, x]}, n: {echo: {}, aliases: [x]}}",
            "swap.yaml:1: models.n.aliases.0: 'x' is an alias of 'm' already",
        ),
    ],
)
def test_what_llama_swap_refuses_is_an_error_with_compat_too(
    tmp_path: Path, text: str, message: str
) -> None:
    """Only that is told then."""
    found = mistakes(text, tmp_path, compat=True)

    assert len(found) == 1
    assert found[0].startswith(message)


def test_what_was_understood_is_told(every: Config) -> None:
    """A line for each model, with no secret in it, and one for everything else."""
    text = understood(every)

    assert text.splitlines() == [
        "  coder    cmd llama-server · port from 10001 · unloaded after 60 s · 20 at once",
        "           also gpt-4o, coder-latest, coder:high · called qwen/coder",
        "           strips temperature, top_k · sets temperature, chat_template_kwargs.thinking",
        "           as coder:high sets reasoning_effort · env CUDA_VISIBLE_DEVICES, KEY",
        "           healthCheckTimeout 500 s · cmdStop docker · unloadTimeout 3 s · preloaded",
        "           unlisted",
        "  painter  cmd sd-server · port from 10001 · unloaded after 300 s · 10 at once",
        "           strips seed · healthCheckTimeout 60 s · unloadTimeout 5 s · sendLoadingState",
        "  group both: coder, painter (exclusive)",
        "  selector any: warm of coder, painter",
        "  profile work: gpt-4o → painter, gone → nothing",
        "  peer far: big at https://example.com/api",
    ]


def test_what_is_not_as_usual_is_told_too(tmp_path: Path) -> None:
    """Where it serves and sits, how it is asked and stopped; the usual takes no words."""
    config = load(
        "routes: [/v2, /tokenize]\n"
        "models:\n"
        "  a: {cmd: 'x ${PORT}', proxy: 'http://me:hush@[::1]:${PORT}/v1', checkEndpoint: none}\n"
        "  b: {echo: {}, memory: {gpu: 6GiB, host: 0}, gpu: 1}\n"
        "  c: {echo: {}, memory: 310MiB, device: cpu}\n",
        tmp_path,
    )

    assert understood(config).splitlines() == [
        "  a  cmd x · any free port · http://[::1]:${PORT}/v1 · stays · 10 at once",
        "     checkEndpoint none",
        "  b  echo · socket · stays · 10 at once · on gpu 1 · memory 6.0 GiB gpu, 0 B host",
        "  c  echo · socket · stays · 10 at once · on cpu · memory 310 MiB host",
        "  routes /v2, /tokenize",
    ]


def test_company_that_does_not_count_is_not_told(tmp_path: Path) -> None:
    """Of groups and a matrix in `routing`, only what its router uses is a rule."""
    told = [
        understood(
            load(
                "models: {a: {echo: {}}, b: {echo: {}}}\n"
                f"routing: {{router: {{use: {use}, settings: "
                "{groups: {g: {members: [a, b]}}, matrix: {sets: {s: a & b}}}}}\n",
                tmp_path,
            )
        )
        for use in ("group", "matrix")
    ]

    assert ["group g" in one for one in told] == [True, False]
    assert ["set s" in one for one in told] == [False, True]
