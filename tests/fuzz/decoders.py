"""All decoders of foreign input."""

from __future__ import annotations

from typing import Any

from fuzz import file_decoders, storage_decoders, vendor_decoders
from fuzz.fuzzing import Decoder

DECODERS: tuple[Decoder[Any, Any], ...] = (
    *vendor_decoders.DECODERS,
    *storage_decoders.DECODERS,
    *file_decoders.DECODERS,
)
