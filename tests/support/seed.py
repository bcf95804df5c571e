"""The documents of the API reference that the project grew from."""

import json
from pathlib import Path
from typing import Any

SEED = json.loads((Path(__file__).with_name("seed.json")).read_text())
OPERATION = SEED["operations_of_device"]["results"][0]
DEVICE_OPERATION = SEED["device_operation"]["content"]
DEVICE_ID = DEVICE_OPERATION["device_id"]


def assert_same_shape(document: Any, seed: Any, where: str = "document") -> None:
    """The same keys in the same order, and values of the same types, all the way down."""
    assert type(document) is type(seed), where
    if isinstance(seed, dict):
        assert list(document) == list(seed), where
        for key, value in seed.items():
            assert_same_shape(document[key], value, f"{where}.{key}")
    if isinstance(seed, list):
        for index, item in enumerate(document):
            assert_same_shape(item, seed[0], f"{where}[{index}]")
