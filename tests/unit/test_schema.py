"""The version of the schema, and the ids of operations."""

from uuid import UUID

from alembic.script import ScriptDirectory

from tests.support.old_schema import MIGRATIONS, OPERATION
from worker.model.identity import device_operation_id
from worker.store import schema


def test_the_version_that_the_code_expects_is_that_of_the_last_migration() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == schema.HEAD


def test_the_ids_of_an_operation_lie_together_and_tell_its_devices_apart() -> None:
    operation = UUID(OPERATION)
    ids = {device_operation_id(operation, UUID(int=number)) for number in range(1_000)}

    assert len(ids) == 1_000
    assert {id_.bytes[:4] for id_ in ids} == {operation.bytes[:4]}
    assert {UUID(str(id_)).version for id_ in ids} == {8}
