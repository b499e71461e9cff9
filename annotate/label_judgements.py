"""What annotators together hold of each prompt or output that they labelled, rated or gave a thumb.

One row a label that could be given. Every question is judged by itself, by the same aggregations as
comparisons; of several labels each is a question of its own, given or not.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from annotate.annotations import MultiLabels
from annotate.consensus import Method, aggregate
from annotate.labels import Labels
from annotate.question_labels import Answers
from annotate.records import SCHEMAS, conform


def label_judgements(answers: Mapping[str, Answers], method: Method) -> pa.Table:
    """Table `label_judgements`, sorted by question, unit and label.

    Whoever answered under several versions of a guideline counts with the latest.

    Args:
        answers: of `question_labels`; questions without labels are passed over.
        method: as for `annotate.consensus.aggregate`.
    """
    tables = [SCHEMAS["label_judgements"].empty_table()]
    for question, given in sorted(answers.items()):
        if isinstance(given, Labels) and len(given):
            tables.append(_judged(question, given.pooled(), method))
        elif isinstance(given, MultiLabels) and len(given):
            tables += _judged_each(question, given.pooled(), method)
    order = [(name, "ascending") for name in ("question", "unit", "label")]
    return pa.concat_tables(tables).sort_by(order)


def _judged(question: str, labels: Labels, method: Method) -> pa.Table:
    """Every class of one question."""
    consensus = aggregate(labels, method)
    units, classes = len(labels.items), len(labels.classes)
    given = np.zeros((units, classes), dtype=np.int64)
    np.add.at(given, (labels.item, labels.label), 1)
    answered = given.sum(axis=1)
    mean = given @ labels.values / answered  # NaN where a class is no number
    best = consensus.best[:, None] == np.arange(classes)
    columns = {
        "question": pa.repeat(question, units * classes),
        "unit": pa.array(np.repeat(labels.items, classes)),
        "label": pa.array(np.tile(labels.classes, units)),
        "given": given.ravel(),
        "votes": np.repeat(answered, classes),
        "probability": consensus.probability.ravel(),
        "chosen": best.ravel(),
        "mean": pa.array(np.repeat(mean, classes), from_pandas=True),
        "method": pa.repeat(consensus.method, units * classes),
    }
    return conform("label_judgements", pa.table(columns))


def _judged_each(question: str, sets: MultiLabels, method: Method) -> list[pa.Table]:
    """Every class of a question by itself: given or not."""
    tables = []
    member = sets.member.toarray()
    for code, name in enumerate(sets.classes):
        labels = Labels(
            sets.item, sets.annotator, member[:, code].astype(np.int64),
            sets.items, sets.annotators, ["no", "yes"], prompt=sets.prompt,
        )  # fmt: skip
        table = _judged(question, labels, method)
        yes = table.filter(pa.array(np.tile([False, True], len(sets.items))))
        at = yes.column_names.index("label")
        tables.append(yes.set_column(at, "label", pa.repeat(name, yes.num_rows)))
    return tables
