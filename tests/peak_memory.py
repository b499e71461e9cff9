"""The most bytes that tensors take at once while something runs, on a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class PeakMemory(TorchDispatchMode):
    """Counts what operators have read or written of every storage, while it lives.

    Memory that is only asked for, and never written, takes no room.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live: Any = WeakIdKeyDictionary()
        self.peak = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        returned = func._schema.returns
        view = any(one.alias_info is not None and not one.alias_info.is_write for one in returned)
        if view or func is torch.ops.aten.empty.memory_format:
            return found
        for leaf in tree_leaves((args, kwargs, found)):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu":
                storage, used = leaf.untyped_storage(), leaf.numel() * leaf.element_size()
                self.live[storage] = max(used, self.live.get(storage, 0))
        self.peak = max(self.peak, sum(self.live.values()))
        return found
