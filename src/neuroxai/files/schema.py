"""Base class of the pydantic schemas that describe the project's JSON and YAML files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from neuroxai.core.errors import ModelError, NeuroXAIError
from neuroxai.files.schema_error import describe_error

_Item = TypeVar("_Item")
_Items = TypeVar("_Items", bound=tuple[Any, ...])

Text = Annotated[str, Field(min_length=1)]
"""Non-empty text."""

List = Annotated[_Items, Field(strict=False)]
"""A tuple, also accepted as a list: JSON and YAML have no tuples."""

if TYPE_CHECKING:
    Table = Mapping[str, Any]
else:
    Table = Mapping[str, JsonValue]
"""A mapping of text to anything that JSON can hold; NaN and infinity are rejected."""


class Schema(BaseModel):
    """Base of the model card, the preprocessing recipe and the training configuration.

    Types are strict, unknown keys are errors, numbers are finite and instances are immutable. Read
    files with :meth:`from_dict`, which raises the project's one-sentence errors; a constructor
    raises pydantic's ``ValidationError``.
    """

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    title: ClassVar[str] = "file"
    """What errors call the schema when no file name is given."""
    error: ClassVar[type[NeuroXAIError]] = ModelError
    """Type of the errors that :meth:`from_dict` raises."""

    @classmethod
    def from_dict(cls, table: object, *, source: str | Path | None = None) -> Self:
        """Validate the content of a JSON or YAML file.

        Parameters
        ----------
        table
            Content of the file, as plain Python values.
        source
            The file's name, for error messages.

        Raises
        ------
        NeuroXAIError
            Of the type :attr:`error`: one sentence that names the file, the key, the value and what
            was expected.
        """
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            sentence = describe_error(error, table, cls.model_json_schema())
            raise cls.error(f"{source or cls.title}: {sentence}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain values that JSON and YAML can hold."""
        return self.model_dump(mode="json")

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some values changed; the copy is validated.

        Raises
        ------
        NeuroXAIError
            As :meth:`from_dict`.
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return self.from_dict({**values, **changes})
