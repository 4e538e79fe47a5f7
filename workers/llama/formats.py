"""Chat templates for model files that bring none, and the names to choose them by."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CHATML = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""
VICUNA = """\
{%- for message in messages -%}
{%- if message.role == 'system' -%}{{ message.content }} {% endif -%}
{%- if message.role == 'user' -%}USER: {{ message.content }} {% endif -%}
{%- if message.role == 'assistant' -%}ASSISTANT: {{ message.content }}{{ eos_token }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}ASSISTANT:{%- endif -%}
"""
"""What LLaVA 1.5 was trained on; its usual GGUF files carry no template."""

FORMATS: Mapping[str, str] = MappingProxyType({"chatml": CHATML, "vicuna": VICUNA})
