"""The lines of the ledger: each holds the hash of the one before, apart from what it says.

    {"seq", "prev", "digest", "hash", "salt", "payload"}

    seq      0, 1, 2, …
    prev     `hash` of the line before; 64 zeros for the first
    digest   sha256 of the salt's hex digits followed by the payload as canonical JSON
    hash     sha256 of "seq:prev:digest"
    salt     16 random bytes in hex, so that nobody finds an erased payload by trying answers
    payload  an object

Canonical JSON has sorted keys, no spaces and only ASCII. Because `hash` covers the digest and not
the payload, a payload can be erased later: `salt` and `payload` give way to
`"erased": {"time", "reason"}`, and the chain still holds. Every erasure is itself a line, whose
payload is `{"erasure": {"time", "reason", "seqs"}}`; a line emptied without one is tampering.

The first format, still read, had the members of the payload in the line itself and one unsalted
`hash` over all of it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from annotate.errors import ProjectError

FIRST = "0" * 64
"""`prev` of the first line."""

_UNREAD = ""
"""In the place of the hash of a line that has none."""

Line = Mapping[str, Any]

_REPAIR = "Restore the ledger from a backup; what Argilla still has, `handloom pull` sees again"


def canonical(content: object) -> str:
    """The one JSON text of a value."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def sealed(payload: Mapping[str, Any], seq: int, prev: str) -> tuple[bytes, str]:
    """A payload's line, with its line break, and its hash."""
    text, salt = canonical(payload), secrets.token_hex(16)
    digest = _sha256(salt + text)
    own = _sha256(f"{seq}:{prev}:{digest}")
    line = (
        f'{{"seq":{seq},"prev":"{prev}","digest":"{digest}","hash":"{own}",'
        f'"salt":"{salt}","payload":{text}}}\n'
    )
    return line.encode(), own


def parsed(line: bytes, where: str) -> Line:
    """A line's members.

    Raises:
        ProjectError: it is not a line of a ledger.
    """
    try:
        content = json.loads(line)
    except ValueError:
        content = None
    if not isinstance(content, dict) or not {"seq", "prev", "hash"} <= content.keys():
        raise damaged(where)
    return content


def damaged(where: str) -> ProjectError:
    """What to say of a line that is none of ours."""
    return ProjectError("the ledger is damaged: not an entry", where=where, remedy=_REPAIR)


def payload(line: Line) -> Mapping[str, Any] | None:
    """What a line says; None if that was erased, or the line only records an erasure."""
    if "erased" in line:
        return None
    said: Mapping[str, Any] = line.get("payload", line)
    return None if "erasure" in said else said


def emptied(line: Line, time: str, reason: str) -> bytes:
    """The line without what it said, which the chain cannot tell from the line before."""
    kept = {name: line[name] for name in ("seq", "prev", "digest", "hash") if name in line}
    return canonical({**kept, "erased": {"time": time, "reason": reason}}).encode() + b"\n"


def erasure(seqs: Sequence[int], time: str, reason: str) -> Mapping[str, Any]:
    """The payload that records an erasure; `seqs` as [first, last] pairs."""
    spans: list[list[int]] = []
    for seq in seqs:
        if spans and seq == spans[-1][1] + 1:
            spans[-1][1] = seq
        else:
            spans.append([seq, seq])
    return {"erasure": {"time": time, "reason": reason, "seqs": spans}}


@dataclass
class Verdict:
    """What a walk along the chain found."""

    problems: list[str] = field(default_factory=list)
    """One line each; empty where all is well."""
    lines: int = 0
    erased: int = 0
    """Lines whose payload was erased on record."""
    head: str = FIRST
    """Hash of the last line. Who keeps a copy elsewhere can later show that nothing before it was
    changed and that nothing was cut off the end."""


def verdict(lines: Iterable[tuple[int, bytes]], known_head: str | None = None) -> Verdict:
    """Follow the chain through whole lines, numbered from 1.

    After a broken line it is taken up again from that line's own hash, so that each tampering is
    reported once. Memory in proportion to the lines that were erased.

    Args:
        known_head: a `head` seen earlier, which must still be a line's hash.
    """
    found = Verdict()
    emptied_at: dict[int, int] = {}
    on_record: list[tuple[int, int]] = []
    seq, prev = -1, FIRST
    met = known_head in (None, FIRST)
    for found.lines, line in lines:
        try:
            content = parsed(line, str(found.lines))
            if content["seq"] != seq + 1 or prev not in (content["prev"], _UNREAD):
                found.problems.append(f"line {found.lines} does not follow the line before it")
            elif not _is_whole(content):
                found.problems.append(f"line {found.lines} was changed")
            if "erased" in content:
                emptied_at[int(content["seq"])] = found.lines
            on_record += _erasure_of(content)
            seq, prev = int(content["seq"]), str(content["hash"])
        except (ProjectError, KeyError, TypeError, ValueError):
            found.problems.append(f"line {found.lines} is not an entry")
            seq, prev = seq + 1, _UNREAD
        met = met or prev == known_head
    for number, at in emptied_at.items():
        if any(first <= number <= last for first, last in on_record):
            found.erased += 1
        else:
            found.problems.append(f"line {at} was emptied, and no erasure on record says so")
    found.head = prev
    if not met:
        found.problems.append(f"no line has the hash {known_head}: lines were cut off or rewritten")
    return found


def _is_whole(line: Line) -> bool:
    """Whether the hashes of a line are those of what it says."""
    if "digest" not in line:  # the first format
        said = {name: value for name, value in line.items() if name != "hash"}
        return "erased" in line or _sha256(canonical(said)) == line["hash"]
    if _sha256(f"{line['seq']}:{line['prev']}:{line['digest']}") != line["hash"]:
        return False
    if "erased" in line:
        return "payload" not in line and "salt" not in line
    return bool(_sha256(line["salt"] + canonical(line["payload"])) == line["digest"])


def _erasure_of(line: Line) -> list[tuple[int, int]]:
    """The spans of lines that this line records as erased."""
    said = line.get("payload")
    return (
        [(a, b) for a, b in said["erasure"]["seqs"]]
        if isinstance(said, dict) and "erasure" in said
        else []
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
