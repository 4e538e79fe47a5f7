"""Who may ask: the entries of `apiKeys`, which are secrets."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, SecretStr

from proxy.config.section import Priority, Section


def _is_one_word(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not text:
        raise ValueError("the key is empty")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError("the key holds a space")
    return key


class ApiKey(Section):
    """A key, whose it is, and how urgent their requests are."""

    key: Annotated[SecretStr, AfterValidator(_is_one_word)]
    name: str = ""
    priority: Priority | None = None


def _entry(value: object) -> object:
    """Take a bare key; never repeat what is wrong, as it may be the secret."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        return {"key": str(value)}
    if isinstance(value, dict) and set(value) <= set(ApiKey.model_fields):
        return value
    raise ValueError("an entry is the key as a text, or has key, name and priority")


KeyEntry: TypeAlias = Annotated[ApiKey, BeforeValidator(_entry)]
