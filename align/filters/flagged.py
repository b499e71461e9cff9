"""The filter on what people flagged."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from align.filters.rule import Rule, one_array


class Flags(Rule):
    """Drop a pair with a flagged response (unsafe, personal data, off topic, untrue)."""

    rule: Literal["flags"] = "flags"
    whose: Literal["winner", "either"] = "winner"
    """Whose flags count. A flagged loser is what a preference should teach against."""
    names: tuple[str, ...] | None = None
    """Which flags; None means all of them."""

    @property
    def threshold(self) -> str:
        """As in "no flag on the winner"."""
        which = "no flag" if self.names is None else f"no {' or '.join(self.names)}"
        return f"{which} on {'the winner' if self.whose == 'winner' else 'either response'}"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """The flags that count, as in "unsafe, untrue"."""
        flags = _flag_rows(evidence)
        if self.whose == "winner":
            flags = flags.filter(pc.equal(flags["output"], flags["winner_output"]))
        if self.names is not None:
            flags = flags.filter(pc.is_in(flags["flag"], value_set=pa.array(self.names)))
        flags = flags.group_by(["row", "flag"]).aggregate([])
        flags = flags.sort_by([("row", "ascending"), ("flag", "ascending")])
        rows = flags.group_by("row", use_threads=False).aggregate([("flag", "list")])
        text = pc.binary_join(rows["flag_list"], ", ")
        every = pa.array(np.arange(evidence.num_rows, dtype=np.int64))
        return one_array(text.take(pc.index_in(every, value_set=rows["row"])))


def _flag_rows(evidence: pa.Table) -> pa.Table:
    """One row a (pair, flag): row, output, flag, winner_output, from "<output_id>:<flag>"."""
    flags = evidence["flags"].combine_chunks()
    row = pc.list_parent_indices(flags)
    parts = pc.extract_regex(pc.list_flatten(flags), "^(?P<output>.*):(?P<flag>[^:]*)$")
    return pa.table(
        {
            "row": row,
            "output": pc.struct_field(parts, "output"),
            "flag": pc.struct_field(parts, "flag"),
            "winner_output": evidence["winner_output"].take(row),
        }
    )
