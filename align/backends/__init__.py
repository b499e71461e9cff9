"""Where completions are computed: here by transformers, CTranslate2 or vLLM, or by a server.

A backend takes a `Job` and yields what it made, in batches as they come; what was asked of it, what
is already there and where it is kept, align.completions knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from annotate.errors import InputError

if TYPE_CHECKING:
    from align.model_ref import ModelRef
    from align.sampling import Sampling
    from annotate.runs import Project

AUTO = "auto"
BACKENDS = ("transformers", "ctranslate2", "vllm", "openai")


@dataclass(frozen=True)
class Wanted:
    """A completion to make."""

    prompt_id: str
    says: str
    """The prompt's fingerprint, from which its random numbers come."""
    sample: int


@dataclass(frozen=True)
class Made:
    """A completion."""

    wanted: Wanted
    completion: str
    tokens: int | None
    """Without the end token; None where a server does not count them."""
    logprob: float | None
    """Natural log of the model's probability, the end token's included; None where not told."""


@dataclass(frozen=True)
class Unfit:
    """A prompt that this model cannot complete."""

    prompt_id: str
    reason: str


@dataclass(frozen=True)
class Job:
    """What one model is to complete."""

    ref: ModelRef
    wanted: Sequence[Wanted]
    messages: Mapping[str, Any]
    """Each prompt's conversation, by prompt_id."""
    rules: Sampling
    batch_size: int
    """Completions computed together."""


Batch = list[Made | Unfit]


class Backend(Protocol):
    """One way to complete prompts, with its settings."""

    @property
    def name(self) -> str:
        """One of `BACKENDS`."""

    @property
    def batch_size(self) -> int:
        """Completions computed together where nobody says how many."""

    def settings(self, batch_size: int) -> dict[str, Any]:
        """What of it changes completions, for the run's manifest and id."""

    def model(self, project: Project, name: str) -> ModelRef:
        """What `name` means to it.

        Raises:
            HandloomError: there is no such model.
        """

    def complete(self, job: Job) -> Iterator[Batch]:
        """Batches of completions, and of prompts that do not fit.

        Raises:
            TrainingError: the model cannot be loaded or sampled.
            ServerError: a server refuses, or is away for too long.
        """


def backend_named(
    name: str,
    project: Project,
    *,
    url: str | None = None,
    concurrency: int = 8,
    requests_per_minute: float | None = None,
) -> Backend:
    """The backend of this name.

    Args:
        name: one of `BACKENDS`, or "auto": a server where `url` names one, else transformers.
        project: where CTranslate2 keeps its form of a model.
        url: of a server with OpenAI's protocol, up to and with `/v1`.
        concurrency: requests under way at once, of a server.
        requests_per_minute: of a server; None: no limit.

    Raises:
        InputError: no such backend, or a server's options without or with another backend.
    """
    if name == AUTO:
        name = "openai" if url else "transformers"
    if name not in BACKENDS:
        from align.recipe import nearest

        raise InputError(
            "no such backend", where=name, remedy=nearest(name, (AUTO, *BACKENDS), "Known")
        )
    if name == "openai":
        from align.backends.openai_server import OpenAIServer

        return OpenAIServer(url or "", concurrency, requests_per_minute)
    if url:
        raise InputError("only the backend openai asks a server", where=f"--backend {name}")
    if name == "ctranslate2":
        from align.backends.ctranslate2_cpu import CTranslate2

        return CTranslate2(project.state_dir / "ctranslate2")
    if name == "vllm":
        from align.backends.vllm_engine import Vllm

        return Vllm()
    from align.backends.transformers_loop import Transformers

    return Transformers()
