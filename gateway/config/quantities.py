"""Fields that are numbers: counts, times, sizes, rates, shares."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, PlainSerializer, PlainValidator, WithJsonSchema

from gateway.config import values
from gateway.config.environment import as_read
from gateway.config.fields import text
from gateway.config.values import MOST_WORKERS, shown

MOST = (1 << 31) - 1  # what fits the C int that most of these numbers end up in
_FASTEST = 1_000_000  # requests in a second: more than a machine answers, and what a microsecond can tell apart


def whole(least: int, most: int = MOST) -> Callable[[object], int]:
    """A validator for whole numbers in this range."""

    def check(value: object) -> int:
        number = as_read(value)
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError(f"expected a whole number, got {shown(value)}")
        if not least <= number <= most:
            bounds = f"from {least} to {most}" if most < MOST or number > most else f"of at least {least}"
            raise ValueError(f"expected a whole number {bounds}, got {shown(number)}")
        return number

    return check


def integer(least: int, most: int | None = None) -> WithJsonSchema:
    """The schema of such numbers."""
    bounds = {"minimum": least} if most is None else {"minimum": least, "maximum": most}
    return WithJsonSchema({"type": "integer", **bounds})


Count = Annotated[int, PlainValidator(whole(1)), integer(1)]
CountOrZero = Annotated[int, PlainValidator(whole(0)), integer(0)]
Weight = Annotated[int, PlainValidator(whole(1, 65535)), integer(1, 65535)]
WeightOrZero = Annotated[int, PlainValidator(whole(0, 65535)), integer(0, 65535)]
Priority = Annotated[int, PlainValidator(whole(-MOST)), WithJsonSchema({"type": "integer"})]


def _workers(value: object) -> int | str:
    if value == "auto":
        return "auto"
    if isinstance(value, str) and not isinstance(as_read(value), int):
        raise ValueError(f'expected a whole number or "auto", got {shown(value)}')
    return whole(1, MOST_WORKERS)(value)


Workers = Annotated[
    int | Literal["auto"],
    PlainValidator(_workers),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": MOST_WORKERS}, {"const": "auto"}]}),
]

Duration = Annotated[
    float,
    PlainValidator(values.parse_duration),
    PlainSerializer(values.format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{values.DURATION}$", "examples": ["250ms", "30s", "5m", "1h"]}),
]
Size = Annotated[
    int,
    PlainValidator(values.parse_size),
    PlainSerializer(values.format_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{values.SIZE}$", "examples": ["64KiB", "10MiB", "1GB"]}),
]


def _rate(value: object) -> float:
    rate = values.parse_rate(value)
    if not 0 < rate <= _FASTEST:
        raise ValueError(f"expected a rate above 0 and at most a million in a second, got {shown(value)}")
    return rate


Rate = Annotated[
    float,
    PlainValidator(_rate),
    PlainSerializer(values.format_rate, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{values.RATE}$", "examples": ["50/s", "100/m", "1000/h"]}),
]
ByteRate = Annotated[
    float,
    PlainValidator(values.parse_byte_rate),
    PlainSerializer(values.format_byte_rate, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{values.BYTE_RATE}$", "examples": ["1KiB/s", "10MiB/m"]}),
]


def _hedge_after(value: str) -> str:
    if not re.fullmatch(r"p([1-9]\d?)(\.\d)?", value, re.ASCII):
        try:
            values.parse_duration(value)
        except ValueError:
            raise ValueError(f'expected a percentile such as "p95" or a duration, got {shown(value)}') from None
    return value


HedgeAfter = Annotated[
    str,
    AfterValidator(_hedge_after),
    text(rf"(p[1-9]\d?(\.\d)?|{values.DURATION})", examples=["p95", "100ms"]),
]


def _of_a_hundred(is_fit: Callable[[float], bool], range: str) -> Callable[[object], float]:
    def read(value: object) -> float:
        number = as_read(value)
        if isinstance(number, bool) or not isinstance(number, int | float) or not is_fit(number):
            raise ValueError(f"expected a number {range}, got {shown(value)}")
        return float(number)

    return read


Percent = Annotated[
    float,
    PlainValidator(_of_a_hundred(lambda number: 0 < number <= 100, "above 0 and at most 100")),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 100, "examples": [100, 0.5]}),
]
PercentOrZero = Annotated[
    float,
    PlainValidator(_of_a_hundred(lambda number: 0 <= number <= 100, "from 0 to 100")),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 100}),
]


def _percentage(value: object) -> float:
    if not isinstance(value, str) or not re.fullmatch(r"\d{1,3}(\.\d{1,3})?%", value, re.ASCII):
        raise ValueError(f'expected a percentage such as "50%", got {shown(value)}')
    share = float(value[:-1]) / 100
    if not 0 < share <= 1:
        raise ValueError(f'expected a percentage above 0 and at most "100%", got {shown(value)}')
    return share


Percentage = Annotated[
    float,
    PlainValidator(_percentage),
    PlainSerializer(lambda share: f"{share * 100:g}%", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d{1,3}(\.\d{1,3})?%$", "examples": ["20%", "50%"]}),
]
