"""The amount of structure in an ONNX file, counted on the wire before protobuf builds it.

An empty message is two bytes in a file and up to 200 in memory, so that a file of many messages and little in them
would take a hundred times its size. Numbers and strings take at most twelve times theirs. Source of the encoding:
protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import functools
from typing import Any

from onnx import ModelProto

from hwrnn.errors import Damaged

__all__ = ["check_amount"]

MOST_FIELDS = 500_000
"""Fields (nodes, names, attributes, ...) of a file; a network of ten thousand nodes has about a hundred thousand."""

_SMALL = 1 << 18  # bytes; whatever is in them takes less than 30 MB
_DEEPEST = 100  # messages within messages, as protobuf has it


class _NoMessage(Exception):
    """These bytes are not how protobuf writes a message."""


def check_amount(content: bytes) -> None:
    """Find out whether a serialized ``ModelProto`` can be parsed in memory of a small multiple of its size.

    Raises:
        Damaged: bytes that are no protobuf message, or more fields than a network has.
    """
    if len(content) > _SMALL:
        _count(content)


def _count(content: bytes) -> None:
    at, fields = 0, 0
    open_messages = [(len(content), _children(ModelProto.DESCRIPTOR.full_name))]
    try:
        while open_messages:
            end, children = open_messages[-1]
            if at == end:
                open_messages.pop()
                continue
            fields += 1
            if fields > MOST_FIELDS:
                raise Damaged(f"hold at most {MOST_FIELDS} nodes, names and attributes in all")
            tag, at = _number(content, at)
            if tag & 7 == 2:
                length, at = _number(content, at)
                inside = children.get(tag >> 3)
                if at + length > end or len(open_messages) > _DEEPEST:
                    raise _NoMessage
                if inside is None:
                    at += length
                else:
                    open_messages.append((at + length, _children(inside)))
            elif tag & 7 == 0:
                _, at = _number(content, at)
            else:
                at += {1: 8, 5: 4}[tag & 7]
            if at > end or not tag >> 3:
                raise _NoMessage
    except (_NoMessage, IndexError, KeyError) as error:
        raise Damaged("be an ONNX file, not damaged or of another kind") from error


def _number(content: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where the next field begins."""
    byte = content[at]
    if byte < 128:
        return byte, at + 1
    value = byte & 127
    for shift in range(7, 70, 7):
        at += 1
        byte = content[at]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at + 1
    raise _NoMessage


@functools.cache
def _children(name: str) -> dict[int, str]:
    """Field number -> name of the message in it, of the fields of a message that are messages."""
    return {f.number: f.message_type.full_name for f in _messages()[name].fields if f.message_type is not None}


@functools.cache
def _messages() -> dict[str, Any]:
    """The descriptors of all messages that a ``ModelProto`` can hold, by name."""
    found: dict[str, Any] = {}
    waiting = [ModelProto.DESCRIPTOR]
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name not in found:
            found[descriptor.full_name] = descriptor
            waiting += [f.message_type for f in descriptor.fields if f.message_type is not None]
    return found
