"""Keep libraries from talking over our own progress."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the logs, warnings and bars of transformers, TRL and datasets."""
    import datasets
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    bars = os.environ.get("TQDM_DISABLE", "")
    # TRL asks this before it draws a bar for the reference's log-probabilities.
    os.environ["TQDM_DISABLE"] = "1"
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            # TRL's own use of names that transformers is about to rename.
            warnings.simplefilter("ignore", FutureWarning)
            # PEFT saves embeddings that are trained, as it should.
            warnings.filterwarnings("ignore", "Setting `save_embedding_layers`", UserWarning)
            yield
    finally:
        os.environ["TQDM_DISABLE"] = bars
        transformers_logging.set_verbosity(before)
        datasets.enable_progress_bars()
