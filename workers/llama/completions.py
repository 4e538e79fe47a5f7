"""POST /v1/completions: a text goes on."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from itertools import accumulate

from aiohttp import web

from workers import wire
from workers.llama import answers
from workers.llama.bodies import CompletionBody
from workers.llama.conversation import foreign_grammar
from workers.llama.generator import Generator
from workers.llama.loading import Loaded
from workers.llama.sampling import Sampled, Sampler

MAX_ANSWERS = 64  # prompts times n


class Completions:
    """The completion endpoint of a loaded model."""

    def __init__(self, loaded: Loaded, generator: Generator) -> None:
        self._loaded = loaded
        self._vocabulary = loaded.vocabulary
        self._generator = generator

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await wire.read_body(request, CompletionBody)
        prompts, samplers = await asyncio.to_thread(self._prepare, body)
        echoes = [self._vocabulary.text(p, special=False) if body.echo else "" for p in prompts]
        order = answers.Order(
            prompts,
            samplers,
            answers.max_tokens(body.max_tokens, self._loaded.options.defaults),
            body.stops,
            self._vocabulary.piece,
        )
        beginnings = [echo for echo in echoes for _ in range(body.n)]
        async with answers.Answer(self._generator, order) as answer:
            if body.stream:
                return await self._stream(request, body, answer, beginnings)
            return await self._whole(body, answer, beginnings)

    def _prepare(self, body: CompletionBody) -> tuple[list[list[int]], list[Sampler]]:
        """Tokenise and build the samplers, away from the event loop. Raises ApiError 400."""
        given = body.prompts
        if not given or len(given) * body.n > MAX_ANSWERS:
            raise wire.bad_request(
                f"from 1 to {MAX_ANSWERS} answers at once, prompts times n", param="prompt"
            )
        prompts = [self._tokens(prompt) for prompt in given]
        options = self._loaded.options
        rules = foreign_grammar(body, allowed=options.allow_grammar)
        wanted = answers.sampling(
            body, options.defaults, grammar=rules, top_logprobs=body.logprobs
        )
        return prompts, answers.samplers(self._vocabulary, wanted, len(prompts) * body.n)

    def _tokens(self, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, str):
            answers.refuse_unreadable(prompt, self._loaded.n_ctx, "prompt")
            tokens = self._vocabulary.prompt(prompt)
        else:
            answers.refuse_unknown(prompt, self._vocabulary, "prompt")
            tokens = prompt
        answers.refuse_too_long(len(tokens), self._loaded.n_ctx, "prompt")
        return tokens or [self._vocabulary.warm_up_token()]

    async def _whole(
        self, body: CompletionBody, answer: answers.Answer, beginnings: Sequence[str]
    ) -> web.Response:
        texts = [[beginning] for beginning in beginnings]
        tokens: list[list[Sampled]] = [[] for _ in beginnings]
        finishes = [""] * len(beginnings)
        async for event in answer.events():
            if isinstance(event, answers.End):
                finishes[event.choice] = event.finish
            else:
                texts[event.choice].append(event.text)
                tokens[event.choice] += event.tokens
        choices = [
            _choice(
                number,
                "".join(texts[number]),
                self._logprobs(body, tokens[number], len(beginnings[number])),
                finish,
            )
            for number, finish in enumerate(finishes)
        ]
        told = {**self._head(body), "choices": choices, "usage": answer.usage().body}
        return web.json_response({**told, **answer.timings})

    async def _stream(
        self,
        request: web.Request,
        body: CompletionBody,
        answer: answers.Answer,
        beginnings: Sequence[str],
    ) -> web.StreamResponse:
        head, beginnings = self._head(body), list(beginnings)
        offsets = [len(beginning) for beginning in beginnings]
        async with wire.EventStream(request) as events:
            async for event in answer.events():
                number = event.choice
                finish = event.finish if isinstance(event, answers.End) else None
                said, tokens = (
                    (event.text, event.tokens) if isinstance(event, answers.Piece) else ("", ())
                )
                said, beginnings[number] = beginnings[number] + said, ""
                if said or finish or body.logprobs is not None:
                    logprobs = self._logprobs(body, tokens, offsets[number])
                    offsets[number] += sum(len(self._name(t.token)) for t in tokens)
                    choice = _choice(number, said, logprobs, finish)
                    await events.send({**head, "choices": [choice], **answer.timings})
            if body.wants_usage:
                await events.send({**head, "choices": [], "usage": answer.usage().body})
        return events.response

    def _logprobs(
        self, body: CompletionBody, tokens: Sequence[Sampled], offset: int
    ) -> Mapping[str, object] | None:
        """Write log probabilities, where asked for, in the older shape of this endpoint.

        `offset`: the characters of the choice that come before these tokens.
        """
        if body.logprobs is None:
            return None
        texts = [self._name(sampled.token) for sampled in tokens]
        return {
            "tokens": texts,
            "token_logprobs": [sampled.logprob for sampled in tokens],
            "top_logprobs": [{self._name(t): p for t, p in sampled.top} for sampled in tokens],
            "text_offset": [*accumulate(map(len, texts), initial=offset)][: len(texts)],
        }

    def _name(self, token: int) -> str:
        return self._vocabulary.piece(token, special=True).decode(errors="replace")

    def _head(self, body: CompletionBody) -> dict[str, object]:
        return {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model or self._loaded.name,
        }


def _choice(
    number: int, text: str, logprobs: Mapping[str, object] | None, finish: str | None
) -> dict[str, object]:
    return {"index": number, "text": text, "logprobs": logprobs, "finish_reason": finish}
