"""What every message is made of: the base class, and the narrow types of its fields."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from connectors.errors import MalformedMessage

PartId = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,128}$")]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Label = Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,128}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Digest = Sha256
TimeNs = Annotated[int, Field(gt=0, lt=2**63)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Message(BaseModel):
    """Base of every message: frozen, strict, closed to unknown fields."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", populate_by_name=True)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Decode one message from its JSON bytes.

        Raises:
            MalformedMessage: `raw` is not JSON in UTF-8, or breaks a field's contract; the first
                field that breaks is named.
        """
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            raise malformed(error) from error

    def to_bytes(self) -> bytes:
        """The canonical JSON bytes: fields in their declared order, no white space."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


def malformed(error: ValidationError) -> MalformedMessage:
    """The error that names the first broken field and says how many more there are."""
    errors = error.errors(include_input=False, include_url=False)
    first = errors[0]
    across = first.get("ctx", {}).get("field", "body")
    field = ".".join(str(step) for step in first["loc"]) or across
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return MalformedMessage(field, f"{first['msg']}{more}")


def inconsistent(field: str, reason: str) -> PydanticCustomError:
    """The error of a validator that sees all fields: `malformed` reads `field` back."""
    return PydanticCustomError("inconsistent", "{reason}", {"field": field, "reason": reason})
