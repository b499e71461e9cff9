"""What may stand in the server's log: no password, key or token, whatever an error carries.

Argilla logs every error it answers with, and what was wrong about a request is said with the
request's own values; SQLAlchemy says the parameters of a statement that failed.
"""

import logging
import re
from collections.abc import Iterable

HIDDEN = "…"

_LAYOUT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_TELLING = (
    # To the end of the line: a statement's parameters, which SQLAlchemy says (hashes and keys of
    # users), and what was given, which FastAPI and pydantic say.
    re.compile(r"(?<=\[parameters: ).*"),
    re.compile(r"(?<='input': ).*"),
    re.compile(r"(?<=input_value=).*"),
    # A session token, wherever it stands; then the usual places of a key or a password.
    re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+"),
    re.compile(
        r"(?i)(?<![a-z])(?:x-argilla-api-key|authorization|api[_-]?key|password|secret|token)"
        r"(?:['\"]?\s*[:=,]\s*)(?:b?['\"])?(?:bearer\s+)?([^\s'\"&,)}\]]+)"
    ),
)


class SecretFreeFormatter(logging.Formatter):
    """Formats as the server's log does, with what may be a secret hidden.

    Args:
        secrets: what must not appear in any case.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__(_LAYOUT)
        self._secrets = tuple(secret for secret in secrets if secret)

    def format(self, record: logging.LogRecord) -> str:
        """One entry, with its traceback."""
        return self.hide(super().format(record))

    def hide(self, text: str) -> str:
        """A text without what may be a secret."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        for pattern in _TELLING:
            text = pattern.sub(_hidden, text)
        return text


def log_without_secrets(secrets: Iterable[str] = (), level: int = logging.WARNING) -> None:
    """Have the root logger write to stderr in this format, and nothing else."""
    handler = logging.StreamHandler()
    handler.setFormatter(SecretFreeFormatter(secrets))
    logging.basicConfig(handlers=[handler], level=level, force=True)


def _hidden(match: re.Match[str]) -> str:
    if not match.re.groups:
        return HIDDEN
    start, stop = (at - match.start() for at in match.span(1))
    return match[0][:start] + HIDDEN + match[0][stop:]
