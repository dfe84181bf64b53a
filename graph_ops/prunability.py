"""Which channel classes of a network may go, and why the others may not."""

from __future__ import annotations

from collections.abc import Container, Mapping
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from graph_ops.channel_classes import ChannelClasses
from graph_ops.channels import Convolution
from graph_ops.errors import FilterGlobError
from graph_ops.options import PruneOptions


class Prunability:
    """Classes that may go: not frozen, not excluded, and with a gradient where one is needed.

    Args:
        classes: Channel classes of the model.
        options: Globs and floors.

    Raises:
        FilterGlobError: a glob matches no convolution.
    """

    def __init__(self, classes: ChannelClasses, options: PruneOptions) -> None:
        self._classes = classes
        self._options = options
        self._excluded = self._match_globs()
        self._barriers: Mapping[str, str] = {}
        self.mask: NDArray[np.bool_] = classes.is_prunable.copy()
        """[classes] which may go."""
        self._bar(self._excluded)

    def set_barriers(self, barriers: Mapping[str, str]) -> None:
        """Keep what no gradient reaches.

        Args:
            barriers: Reasons by name of a convolution.
        """
        self._barriers = barriers
        self._bar(barriers)

    def scored(self) -> list[Convolution]:
        """The convolutions whose filters may go, in graph order."""
        return [
            c
            for c in self._convolutions
            if c.is_producer and self.mask[self._classes.of_filters(c)].any()
        ]

    def reason(self, convolution: Convolution) -> str | None:
        """Why no filter of a convolution may be dropped, or None."""
        if convolution.why_whole is not None:
            return convolution.why_whole
        ids = self._classes.of_filters(convolution)
        if self.mask[ids].any():
            floor = self._options.min_filters
            if convolution.is_producer and convolution.filter_count <= floor:
                return f"it has no more than {floor} filters"
            return None
        frozen = [c for c in ids if self._classes.is_frozen[c]]
        if frozen:
            return self._classes.reason(int(frozen[0]))
        for other in self._convolutions:
            if np.isin(self._classes.of_filters(other), ids).any():
                if other.name in self._excluded:
                    return f"convolution {other.name!r} is excluded by the options"
                if other.name in self._barriers:
                    return self._barriers[other.name]
        return "no convolution produces its channels"

    @property
    def _convolutions(self) -> list[Convolution]:
        return self._classes.channels.convolutions

    def _bar(self, names: Container[str]) -> None:
        """Keep every class that holds a filter of these convolutions."""
        for convolution in self._convolutions:
            if convolution.name in names:
                self.mask[self._classes.of_filters(convolution)] = False

    def _match_globs(self) -> frozenset[str]:
        names = [c.name for c in self._convolutions]
        for field in ("include", "exclude"):
            for pattern in getattr(self._options, field):
                if not any(fnmatchcase(name, pattern) for name in names):
                    raise FilterGlobError(
                        f"Option {field!r}: {pattern!r} matches no convolution.",
                        field=field,
                        pattern=pattern,
                        convolutions=names,
                    )
        return frozenset(
            name
            for name in names
            if not any(fnmatchcase(name, p) for p in self._options.include)
            or any(fnmatchcase(name, p) for p in self._options.exclude)
        )
