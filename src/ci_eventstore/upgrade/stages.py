"""The stages of an upgrade, as the store itself notes them, and the moves from one to the next."""

from enum import Enum

from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_text
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.keys import Keys
from ci_eventstore.store_format import FORMAT_VERSION, NO_VERSION, refusal

MOVE_STAGE = load_script(__package__, "move_stage")


class Stage(Enum):
    """How far an upgrade has come: the store's fields `format` and `upgrading`. No program opens a store in between."""

    OLD = (str(FORMAT_VERSION - 1), "")
    #: Nothing is converted: the store can still be given back to programs of the old version.
    WAITING = (str(NO_VERSION), "waiting")
    CONVERTING = (str(NO_VERSION), "converting")
    DONE = (str(FORMAT_VERSION), "")


#: The moves there are, each by its name.
MOVES = {
    "begin": (Stage.OLD, Stage.WAITING),
    "cancel": (Stage.WAITING, Stage.OLD),
    "convert": (Stage.WAITING, Stage.CONVERTING),
    "finish": (Stage.CONVERTING, Stage.DONE),
}


async def move(nodes: Nodes, prefix: str, name: str) -> tuple[Stage, Keys]:
    """Make one of the moves if the store is where it begins; return the stage that it is in then, and its keys.

    StoreFormatError if there is no such store, or one of another version.
    """
    store = Keys(prefix).store
    before, after = (stage.value for stage in MOVES[name])
    reply = await nodes.run(MOVE_STAGE, [store], [*before, *after])
    version, mark, partitions = (as_text(part or b"") for part in reply)
    if not version:
        raise StoreFormatError(f"there is no store {prefix!r}")
    stage = next((stage for stage in Stage if stage.value == (version, mark)), None)
    if stage is None or not partitions.isdecimal():
        raise StoreFormatError(refusal(prefix, version))
    return stage, Keys(prefix, int(partitions))
