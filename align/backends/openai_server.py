"""The backend `openai`: any server with OpenAI's chat protocol, near or far.

One request a completion, each with a seed of its own that comes from the run's seed, the prompt and
the sample's number: what the server makes of it is the server's affair. Tokens are as it counts
them, log-probabilities as it reports them, null where it does not.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, ClassVar

from align.backends import Batch, Job, Made, Unfit, Wanted
from align.backends.openai_http import Client, PromptRefusedError, checked_address
from align.model_ref import ModelRef
from align.sampling import seed_of
from annotate.errors import HandloomError, ServerError
from annotate.runs import Project

_SHARD = 32
"""Completions kept at a time: they may have been paid for."""


@dataclass(frozen=True)
class OpenAIServer:
    """A server at an address."""

    url: str
    concurrency: int = 8
    requests_per_minute: float | None = None
    first_pause: float = 0.5
    """Seconds before a request is tried again for the first time."""
    timeout: float = 600.0
    """Seconds for one answer."""
    name: ClassVar[str] = "openai"
    batch_size: ClassVar[int] = 128

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", checked_address(self.url))

    def settings(self, batch_size: int) -> dict[str, Any]:
        """Which server; how it is asked changes no completion."""
        return {"url": self.url}

    def model(self, project: Project, name: str) -> ModelRef:
        """The server's own name."""
        return ModelRef(name, self.url)

    def complete(self, job: Job) -> Iterator[Batch]:
        """As answers come; what is made when a request fails for good is yielded before it raises.

        Raises:
            ServerError: the server refuses, or is away for too long.
        """
        client = Client(
            self.url,
            self.requests_per_minute,
            first_pause=self.first_pause,
            timeout=self.timeout,
        )
        with ThreadPoolExecutor(self.concurrency) as pool:
            try:
                yield from self._all(job, client, pool)
            finally:
                client.close()  # before the pool waits for what is under way

    def _all(self, job: Job, client: Client, pool: ThreadPoolExecutor) -> Iterator[Batch]:
        waiting, ready = deque(job.wanted), Batch()
        running: set[Future[Made | Unfit]] = set()
        failure: HandloomError | None = None
        while waiting or running:
            while waiting and len(running) < self.concurrency:
                running.add(pool.submit(_one, client, job, waiting.popleft()))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    ready.append(future.result())
                except HandloomError as error:
                    failure = failure or error
                    waiting.clear()
            if len(ready) >= _SHARD or not (waiting or running):
                yield ready
                ready = Batch()
        if failure is not None:
            raise failure


def _one(client: Client, job: Job, wanted: Wanted) -> Made | Unfit:
    rules = job.rules
    body = {
        "model": job.ref.name,
        "messages": job.messages[wanted.prompt_id],
        "temperature": rules.temperature,
        "top_p": rules.top_p,
        "max_tokens": rules.max_new_tokens,
        "seed": seed_of(rules.seed, wanted.says, wanted.sample),
        "logprobs": True,
    }
    try:
        answer = client.ask(body)
    except PromptRefusedError as refusal:
        return Unfit(wanted.prompt_id, str(refusal))
    try:
        return _made(wanted, answer)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise ServerError("its answer is not of OpenAI's form", where=client.url) from None


def _made(wanted: Wanted, answer: Any) -> Made | Unfit:
    choice = answer["choices"][0]
    if choice.get("finish_reason") == "content_filter":
        return Unfit(wanted.prompt_id, "the server's filter withheld the completion")
    # JSON can spell half of a character, which no file can hold.
    text = str(choice["message"].get("content") or "").encode("utf-8", "replace").decode()
    tokens = (answer.get("usage") or {}).get("completion_tokens")
    told = (choice.get("logprobs") or {}).get("content")
    logprob = math.fsum(float(one["logprob"]) for one in told) if told else None
    return Made(wanted, text, None if tokens is None else int(tokens), logprob)
