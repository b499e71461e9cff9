"""Settings of questions and metadata properties, parsed once instead of at every look.

Argilla builds a pydantic adapter (5 to 8 ms) each time, several times a record.
"""

import copy
from typing import Any

from argilla_server.api.schemas.v1.questions import QuestionSettings
from argilla_server.models import MetadataProperty, Question
from argilla_server.models.metadata_properties import MetadataPropertySettings
from pydantic import TypeAdapter

from annotate.embedded.patches.replacement import Patch, Replacement, by

_KEPT = "_handloom_parsed_settings"


def _parsed_by(adapter: "TypeAdapter[Any]") -> property:
    """`parsed_settings` with an adapter that was built once; parsed again when they have changed.

    What is given is shared: Argilla only reads it.
    """

    def parsed_settings(owner: Any) -> Any:
        settings = owner.settings
        kept = owner.__dict__.get(_KEPT)
        if kept is None or kept[0] != settings:
            kept = copy.deepcopy(dict(settings)), adapter.validate_python(settings)
            owner.__dict__[_KEPT] = kept
        return kept[1]

    return property(parsed_settings)


PATCH = Patch(
    Replacement(Question, "parsed_settings", by(_parsed_by(TypeAdapter(QuestionSettings)))),
    Replacement(
        MetadataProperty, "parsed_settings", by(_parsed_by(TypeAdapter(MetadataPropertySettings)))
    ),
)
