"""The names of the nodes that PLC and line agree on, and their OPC UA types.

The page for the PLC integrator is `connectors/opcua/README.md`.
"""

from typing import Final

TRIGGER: Final = "Trigger"
BUSY: Final = "Busy"
DONE: Final = "Done"
HEARTBEAT: Final = "Heartbeat"
HANDSHAKE: Final = {TRIGGER: "UInt32", BUSY: "Boolean", DONE: "UInt32", HEARTBEAT: "UInt32"}
"""The handshake's nodes; a PLC has them all."""

PART_ID: Final = "PartId"
PASS: Final = "Pass"  # noqa: S105 - the pass of a part, no password
PRODUCT: Final = "Product"
LOT: Final = "Lot"
ORDER: Final = "Order"
OPERATION: Final = "Operation"
REAL_PART_ID: Final = "RealPartId"
PART: Final = {
    PART_ID: "String",
    PASS: "Int32",
    PRODUCT: "String",
    LOT: "String",
    ORDER: "String",
    OPERATION: "String",
    REAL_PART_ID: "String",
}
"""What a PLC says of a part, beside one Double for each process value of `line.yaml`."""

REQUIRED: Final = (*HANDSHAKE, PART_ID, PRODUCT)
"""Nodes without which there is no part event; the others may be left out."""

LAST_PART_ID: Final = "LastPartId"
DISPOSITION: Final = "Disposition"
DISPOSITION_CODE: Final = "DispositionCode"
REVISION: Final = "Revision"
P_VALUE: Final = "PValue"
REASONS: Final = "Reasons"
VERDICT_ID: Final = "VerdictId"
UPDATES: Final = "Updates"
VERDICT: Final = {
    LAST_PART_ID: "String",
    PASS: "Int32",
    DISPOSITION: "String",
    DISPOSITION_CODE: "Int32",
    REVISION: "UInt32",
    P_VALUE: "Double",
    REASONS: "String",
    VERDICT_ID: "String",
    UPDATES: "UInt32",
}
"""What the sink shows, of the line and of each part."""

NO_VERDICT: Final = "NO_VERDICT"
DISPOSITION_CODES: Final = {
    "": 0,
    "ACCEPT": 1,
    "REJECT": 2,
    "HOLD": 3,
    "UNDECIDABLE": 4,
    NO_VERDICT: 5,
}
"""Stable numbers for PLC programs; 0 stands before the first verdict."""
