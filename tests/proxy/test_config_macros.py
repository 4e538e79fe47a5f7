"""Macros of a config: order, types, places, the environment, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proxy.configs import load, loaded, mistakes, told


def model(body: str, above: str = "") -> str:
    """Make a file with one model, which has this body."""
    return f"{above}models:\n  m:\n    cmd: serve ${{PORT}}\n    {body}\n"


def test_a_macro_may_use_those_before_it(tmp_path: Path) -> None:
    """A model's macro of the same name takes the place of the file's, a new one comes last."""
    config = load(
        """\
macros: {dir: /models, file: "${dir}/${MODEL_ID}.gguf", args: "--model ${file}"}
models:
  plain: {cmd: "serve ${args} ${PORT}"}
  other:
    macros: {dir: /other, more: "${args} -v"}
    cmd: serve ${more} ${PORT}
""",
        tmp_path,
    )

    assert config.models["plain"].argv == ("serve", "--model", "/models/plain.gguf", "${PORT}")
    assert config.models["other"].argv == (
        *("serve", "--model", "/other/other.gguf", "-v", "${PORT}"),
    )
    assert config.models["other"].macros == {
        "dir": "/other",
        "more": "--model /other/other.gguf -v",
    }


def test_a_macro_that_stands_alone_keeps_its_type(tmp_path: Path) -> None:
    """Numbers, booleans and texts, in every section; within a text they are written as in YAML."""
    config = load(
        """\
macros: {n: 7, x: 0.5, whole: 2.0, yes: true, level: debug}
logLevel: ${level}
globalTTL: ${n}
hooks: {on_startup: {preload: ["${level}"]}}
models:
  m:
    cmd: serve ${PORT} ${n} ${x} ${whole} ${yes}
    name: ${n}
    unlisted: ${yes}
    aliases: ["${level}"]
    metadata: {n: "${n}", deep: [{x: "${x}", all: "${n}-${x}-${yes}"}]}
    filters: {setParams: {temperature: "${x}", "${n}": 1}}
""",
        tmp_path,
    )
    one = config.models["m"]

    assert (config.log_level, config.global_ttl, config.preload) == ("debug", 7.0, ("m",))
    assert one.argv == ("serve", "${PORT}", "7", "0.5", "2", "true")
    assert (one.name, one.unlisted) == ("7", True)
    assert one.metadata == {"n": 7, "deep": [{"x": 0.5, "all": "7-0.5-true"}]}
    assert one.filters.set_params == {"temperature": 0.5, "${n}": 1}


def test_keys_are_expanded_where_they_are_names(tmp_path: Path) -> None:
    """The names that have parameters of their own may hold macros, and are names of the model."""
    config = load(
        model(
            'filters: {setParamsByID: {"${MODEL_ID}": {t: 1}, "m:${mode}": {t: "${n}"}}}',
            "macros: {mode: high, n: 3}\n",
        ),
        tmp_path,
    )

    assert config.models["m"].filters.set_params_by_id == {"m": {"t": 1}, "m:high": {"t": 3}}
    assert (config.resolve("m:high"), config.resolve("m"), config.resolve("x")) == ("m", "m", None)


def test_some_macros_wait_until_the_worker_runs(tmp_path: Path) -> None:
    """The port and the process id stay in the places where they will be known."""
    config = load(
        model(
            """\
cmdStop: stop ${PID} ${PORT}
    proxy: http://localhost:${port}
    checkEndpoint: /up?port=${PORT}
    env: ["ADDRESS=:${PORT}"]""",
            'macros: {port: "${PORT}"}\n',
        ),
        tmp_path,
    )
    one = config.models["m"]

    assert one.stop_argv == ("stop", "${PID}", "${PORT}")
    assert (one.proxy, one.check_endpoint) == ("http://localhost:${PORT}", "/up?port=${PORT}")
    assert one.env == {"ADDRESS": ":${PORT}"}


def test_elsewhere_the_port_stays_a_text(tmp_path: Path) -> None:
    """It cannot be known yet; so it is said."""
    found = loaded(model("metadata: {port: '${PORT}'}"), tmp_path)

    assert found.config.models["m"].metadata == {"port": "${PORT}"}
    assert told(found.notes) == [
        (
            "4: models.m.metadata.port: keeps ${PORT} as it is: "
            "the port is known only when the worker starts"
        )
    ]


def test_comments_of_a_command_are_left_out_first(tmp_path: Path) -> None:
    """What they name need not be there; a # within a line is no comment, lines may go on."""
    config = load(
        """\
# ${env.NOT_SET}
models:
  m: # ${env.NOT_SET}
    cmd: |
      serve ${PORT} \\
        --tag #1
      # --key ${env.NOT_SET} ${unknown}
        --colour '#fff' "two words"
      #end
""",
        tmp_path,
    )

    assert config.models["m"].argv == (
        *("serve", "${PORT}", "--tag", "#1", "--colour", "#fff", "two words"),
    )


MACROS = "swap.yaml:1: macros"


@pytest.mark.parametrize(
    ("macros", "message"),
    [
        ("{PORT: 1}", f"{MACROS}.PORT: macro name 'PORT' is reserved"),
        ("{PID: 1}", f"{MACROS}.PID: macro name 'PID' is reserved"),
        ("{MODEL_ID: x}", f"{MACROS}.MODEL_ID: macro name 'MODEL_ID' is reserved"),
        ("{a.b: 1}", f"{MACROS}.a.b: a macro's name has letters, digits, - and _ only"),
        (f"{{{'n' * 64}: 1}}", f"{MACROS}.{'n' * 64}: a macro's name has letters"),
        ("{a: [1]}", f"{MACROS}.a: a macro is a text, a number, true or false"),
        ("{a: {b: 1}}", f"{MACROS}.a: a macro is a text, a number, true or false"),
        ("{a: 'x${a}'}", f"{MACROS}.a: macro 'a' contains self-reference"),
        (
            "{a: 'x${b}', b: 1}",
            f"{MACROS}.a: unknown macro ${{b}}: a macro may use only those that",
        ),
        ("{a: 'x${b}'}", f"{MACROS}.a: unknown macro ${{b}}; known are: "),
        ("[1]", f"{MACROS}: must be a mapping"),
    ],
)
def test_mistakes_of_definitions(tmp_path: Path, macros: str, message: str) -> None:
    """Each is told once, where the macro is defined, however often it is used."""
    found = mistakes(model("name: ${PORT}${a}", f"macros: {macros}\n"), tmp_path)
    own = mistakes(
        f"models:\n  m:\n    cmd: serve ${{PORT}} ${{nope}}\n    macros: {macros}\n", tmp_path
    )

    assert [line for line in found if line.startswith("swap.yaml:1:")] == [found[0]]
    assert found[0].startswith(message)
    assert own[-1].startswith(message.replace(":1: macros", ":4: models.m.macros"))


def test_a_macro_in_braces_wants_quotes(tmp_path: Path) -> None:
    """YAML cannot tell the braces of a macro from its own."""
    found = mistakes("macros: {a: 1}\nmodels:\n  m: {echo: {}, name: x${a}}\n", tmp_path)

    assert found == [
        (
            "swap.yaml:3: not valid YAML: expected ',' or '}', but got '{'; "
            "within braces or brackets a text with ${...} needs quotes"
        )
    ]


def test_the_longest_name_of_a_macro(tmp_path: Path) -> None:
    """63 characters are not too many."""
    name = "n" * 63

    assert load(model(f"name: ${{{name}}}", f"macros: {{{name}: x}}\n"), tmp_path).models["m"].name


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("name: ${x}", "4: models.m.name: unknown macro ${x}; known are: MODEL_ID, a"),
        ("description: ${PID}", "4: models.m.description: ${PID} is for cmdStop only"),
        ("cmdStop: stop ${x}", "4: models.m.cmdStop: unknown macro ${x}"),
        ("checkEndpoint: /${x}", "4: models.m.checkEndpoint: unknown macro ${x}"),
        ("metadata: {deep: ['${x}']}", "4: models.m.metadata.deep.0: unknown macro ${x}"),
        ("filters: {stripParams: '${x}'}", "4: models.m.filters.stripParams: unknown macro ${x}"),
        ("filters: {setParams: {t: '${x}'}}", "4: models.m.filters.setParams.t: unknown macro"),
        ("env: ['A=${PATH}']", "4: models.m.env.0: unknown macro ${PATH}"),
        ("env: ['A=${PID}']", "4: models.m.env.0: ${PID} is for cmdStop only"),
        (
            "filters: {setParamsByID: {'m:${a}': {}, 'm:1': {}}}",
            "4: models.m.filters.setParamsByID.m:1: comes to 'm:1', as another key does",
        ),
    ],
)
def test_mistakes_of_use(tmp_path: Path, body: str, message: str) -> None:
    """Each is told with the line of the text that uses the macro."""
    found = mistakes(model(body, "macros: {a: 1}\n").replace("\n  m:", "\n  m:", 1), tmp_path)

    assert [line[: len(message) + 10] for line in found] == [
        f"swap.yaml:{int(message[0]) + 1}{message[1:]}"[: len(message) + 10]
    ]


def test_what_follows_from_a_wrong_macro_is_not_told_as_well(tmp_path: Path) -> None:
    """Without it nobody knows whether the command uses its port."""
    entry = "{cmd: '${serve}', metadata: {port: '${PORT}'}}"
    found = mistakes(
        f"macros: {{serve: 'serve ${{Port}}'}}\nmodels: {{m: {entry}, n: {entry}}}\n", tmp_path
    )

    assert found == ["swap.yaml:1: macros.serve: unknown macro ${Port}; known are: none"]


def test_macros_of_models_are_not_for_the_file(tmp_path: Path) -> None:
    """Above the models there is no model, no port and no process."""
    found = mistakes(
        "macros: {id: 'x${MODEL_ID}'}\n"
        "ui: {activity: {session_id: ['${id}', '${PORT}', '${PID}', '${own}']}}\n"
        "models: {m: {cmd: 'serve ${PORT}', macros: {own: 1}}}\n",
        tmp_path,
    )

    where = "swap.yaml:2: ui.activity.session_id"
    assert found == [
        f"{where}.0: ${{MODEL_ID}} is for models only",
        f"{where}.1: ${{PORT}} is for models only",
        f"{where}.2: ${{PID}} is for cmdStop only",
        f"{where}.3: unknown macro ${{own}}; known are: id",
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("cmd: serve", "models.m.proxy: uses ${PORT} unless you say where the command serves"),
        (
            "cmd: serve\n    proxy: http://x:${PORT}",
            "models.m.proxy: uses ${PORT} but cmd does not",
        ),
        (
            "cmd: serve\n    proxy: http://x\n    env: ['A=${PORT}']",
            "models.m.env.0: uses ${PORT}",
        ),
        ("echo: {}\n    name: ${PORT}", "models.m.name: uses ${PORT} but cmd does not"),
        ("llama: {model: 'm${PORT}'}", "models.m.llama.model: uses ${PORT} but cmd does not"),
    ],
)
def test_the_port_is_of_no_use_unless_cmd_has_it(tmp_path: Path, entry: str, message: str) -> None:
    """Also where the proxy that uses it is the standard one."""
    found = mistakes(f"models:\n  m:\n    {entry}\n", tmp_path)

    assert len(found) == 1
    assert found[0].split(" ", 1)[1].startswith(message)


def test_a_command_with_a_port_of_its_own(tmp_path: Path) -> None:
    """It says where it serves."""
    config = load("models: {m: {cmd: serve, proxy: 'http://127.0.0.1:9000'}}\n", tmp_path)

    assert config.models["m"].proxy == "http://127.0.0.1:9000"


TRICKY = """a"b'c\\d # e: [f, {g}] ${HOME"""


def test_a_value_of_the_environment_is_a_value(tmp_path: Path) -> None:
    """However it is quoted in the file, and whatever it holds, it arrives as it is."""
    config = loaded(
        """\
models:
  m:
    cmd: serve ${PORT}
    name: ${env.TRICKY}
    description: "${env.TRICKY}"
    useModelName: '${env.TRICKY}'
    aliases: [${env.TOKEN}, x${env.TOKEN}]
    metadata:
      ${env.TOKEN}: |
        ${env.TRICKY}
""",
        tmp_path,
        TRICKY=TRICKY,
    ).config
    one = config.models["m"]

    assert [one.name, one.description, one.use_model_name] == [TRICKY] * 3
    assert one.aliases == ("hush-hush", "xhush-hush")
    assert one.metadata == {"hush-hush": f"{TRICKY}\n"}


def test_a_number_of_the_environment_is_a_number(tmp_path: Path) -> None:
    """Without quotes it is what it would be if it stood in the file."""
    config = load(
        "startPort: ${env.PORT_NUMBER}\n"
        "models: {m: {echo: {}, metadata: {a: ${env.PORT_NUMBER}, b: '${env.PORT_NUMBER}'}}}\n",
        tmp_path,
    )

    assert config.start_port == 8080
    assert config.models["m"].metadata == {"a": 8080, "b": "8080"}


def test_there_are_no_macros_in_values_of_the_environment(tmp_path: Path) -> None:
    """A value is a text as it is; through a macro, in a key, and beside a macro too."""
    config = loaded(
        """\
macros: {n: "${env.N}"}
models:
  m:
    cmd: serve ${PORT} '${n}'
    name: ${env.N} ${MODEL_ID}
    metadata: {"${env.N}": 1, a: ["${env.N}"]}
""",
        tmp_path,
        N="of ${MODEL_ID} ${nope} ${env.N}",
    ).config
    one, text = config.models["m"], "of ${MODEL_ID} ${nope} ${env.N}"

    assert (one.argv[-1], one.name) == (text, f"{text} m")
    assert one.metadata == {text: 1, "a": [text]}


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b"])
def test_a_value_with_a_line_break_is_refused(tmp_path: Path, value: str) -> None:
    """It is not shown, and its line is the one that names it."""
    found = mistakes(
        "models:\n  m:\n    cmd: |\n      serve ${PORT}\n      ${env.BAD}\n", tmp_path, BAD=value
    )

    told = "the environment variable BAD holds a line break or a NUL"
    assert found == [f"swap.yaml:5: models.m.cmd: {told}"]


def test_a_variable_that_is_not_set(tmp_path: Path) -> None:
    """Every one is told, where it is named; those in comments are nobody's business."""
    found = mistakes(
        "# ${env.A}\nlogLevel: ${env.B} # ${env.C}\nmodels:\n  ${env.D}: {echo: {}}\n"
        "  m:\n    echo: {}\n    description: |\n      # ${env.E}\n",
        tmp_path,
    )
    last = mistakes("models:\n  m:\n    echo: {}\n    name: |\n      # ${env.E}\n", tmp_path)

    assert found == [
        "swap.yaml:2: logLevel: the environment variable B is not set",
        "swap.yaml:4: models: the environment variable D is not set",
    ]
    assert last == [
        "swap.yaml:4: models.m.name: ${env.E}: the environment variable is not set",
    ]


@pytest.mark.parametrize("name", ["env.MY-KEY", "env.", "env.A B"])
def test_a_variable_with_a_name_that_is_none(tmp_path: Path, name: str) -> None:
    """Its spelling must not become the key that lets people in."""
    found = mistakes(f"apiKeys: ['${{{name}}}']\nmodels: {{m: {{echo: {{}}}}}}", tmp_path)

    told = f"${{{name}}} names no variable: a name has letters, digits and _ only"
    assert found[0] == f"swap.yaml:1: apiKeys.0: {told}"


def test_a_text_may_hold_what_looks_like_a_mark_of_ours(tmp_path: Path) -> None:
    """It stays as it is."""
    name = "\U0010fffc5\U0010fffd"
    config = load(f"models: {{m: {{echo: {{}}, name: '{name} ${{env.TOKEN}}'}}}}", tmp_path)

    assert config.models["m"].name == f"{name} hush-hush"


@pytest.mark.parametrize(
    "text",
    [
        "models: {hush-hush: {echo: {}}, b: {echo: {}, aliases: [${env.TOKEN}]}}",
        "models: {a: {echo: {}, memory: '${env.TOKEN}'}}",
        "models: {a: {echo: {}, ${env.TOKEN}: 1}}",
        "macros: {t: '${env.TOKEN}'}\nmodels: {a: {echo: {}, aliases: ['${t}', '${t}']}}",
        "hooks: {on_startup: {preload: [${env.TOKEN}]}}\nmodels: {a: {echo: {}}}",
    ],
)
def test_no_message_shows_a_value_of_the_environment(tmp_path: Path, text: str) -> None:
    """It shows the variable's name."""
    found = "\n".join(mistakes(text, tmp_path))

    assert "hush" not in found.replace("models.hush-hush", "")
    assert "${env.TOKEN}" in found
