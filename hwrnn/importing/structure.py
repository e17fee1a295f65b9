"""Whether an ONNX model is sound: everything named once, defined before it is read, bounded, and of known versions.

Whoever interprets a model that passed need not think of cycles, missing values, names that are no text, attributes of
two types, functions that call themselves, or tensors that lie about their size. What the operators mean, and whether
they are known, is not looked at. Source: ONNX, docs/IR.md.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from hwrnn.errors import Damaged, shown
from hwrnn.importing.tensors import check_tensor

__all__ = ["check_model", "external_tensors", "node_words"]

OLDEST_OPSET = 7
"""Since then broadcasting and the recurrent operators are as they are today."""

_OLDEST_IR = 3  # the first with versions of operator sets
_MOST_NODES = 100_000  # with all calls of functions written out
_MOST_VALUES = 1 << 18  # in the list of an attribute
_LONGEST_NAME = 4096
_DEEPEST = 16  # graphs within graphs

_A = AttributeProto
_FIELD_OF: dict[int, str] = {
    _A.FLOAT: "f", _A.INT: "i", _A.STRING: "s", _A.TENSOR: "t", _A.GRAPH: "g", _A.SPARSE_TENSOR: "sparse_tensor",
    _A.TYPE_PROTO: "tp", _A.FLOATS: "floats", _A.INTS: "ints", _A.STRINGS: "strings", _A.TENSORS: "tensors",
    _A.GRAPHS: "graphs", _A.SPARSE_TENSORS: "sparse_tensors", _A.TYPE_PROTOS: "type_protos",
}  # fmt: skip
_VALUES = frozenset(_FIELD_OF.values())
_LISTS = frozenset(field for field in _VALUES if field.endswith("s") and field != "s")

_Key = tuple[str, str, str]  # domain, name and overload of an operator or a function


def check_model(model: ModelProto) -> None:
    """Find out whether a model is sound.

    Raises:
        Damaged: what it must hold and does not.
    """
    _check_versions(model)
    if model.training_info:
        raise Damaged("hold a network to run, without a training procedure (training_info)")
    keys = set()
    for entry in model.metadata_props:
        if entry.key in keys:
            raise Damaged(f"hold metadata {shown(entry.key)} once")
        keys.add(_text(entry.key, "metadata"))
        _text(entry.value, "metadata", most=None)
    for value in (model.producer_name, model.producer_version, model.domain):
        _text(value, "producer")
    before = model.ByteSize()
    model.DiscardUnknownFields()
    if model.ByteSize() != before:
        raise Damaged(f"hold nothing that ONNX of version {onnx.__version__} does not know")
    functions: dict[_Key, FunctionProto] = {}
    for function in model.functions:
        names = (function.domain, function.name, function.overload)
        domain, name, overload = (_text(name, "function") for name in names)
        key = (domain, name, overload)
        if functions.setdefault(key, function) is not function:
            raise Damaged(f"describe function {shown(function.name)} once")
    known = _domains(model.opset_import)
    scan = _Scan(functions)
    for key, function in functions.items():
        scan.function(key, function)
    scan.main(model.graph, known)
    scan.check_calls()


def external_tensors(model: ModelProto) -> Iterator[tuple[TensorProto, str]]:
    """The tensors whose data is in another file, in subgraphs and functions too, each with its name in a sentence."""
    yield from _external(model.graph.initializer, model.graph.node)
    for function in model.functions:
        yield from _external((), function.node)


def _external(initializers: Iterable[TensorProto], nodes: Iterable[NodeProto]) -> Iterator[tuple[TensorProto, str]]:
    for tensor in initializers:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield tensor, _tensor_words(tensor)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type in (_A.TENSOR, _A.TENSORS):
                for tensor in (attribute.t, *attribute.tensors):
                    if tensor.data_location == TensorProto.EXTERNAL:
                        yield tensor, _attribute_words(attribute, node)
            elif attribute.type in (_A.GRAPH, _A.GRAPHS):
                for graph in (attribute.g, *attribute.graphs):
                    yield from _external(graph.initializer, graph.node)


def _check_versions(model: ModelProto) -> None:
    newest = int(onnx.IR_VERSION)
    if not _OLDEST_IR <= model.ir_version <= newest:
        newer = ": install a newer onnx package" if model.ir_version > newest else ""
        raise Damaged(f"have an ONNX IR version from {_OLDEST_IR} to {newest}, not {model.ir_version}{newer}")
    opset, newest = _domains(model.opset_import).get(""), int(onnx.defs.onnx_opset_version())
    if opset is None:
        raise Damaged("name the version of ONNX's operators (opset_import)")
    if not OLDEST_OPSET <= opset <= newest:
        newer = ": install a newer onnx package" if opset > newest else ""
        raise Damaged(f"have an ONNX opset from {OLDEST_OPSET} to {newest}, not {opset}{newer}")


def _domains(imports: Iterable[Any]) -> dict[str, int]:
    """Version by domain; ``ai.onnx`` is another name of the empty one."""
    found: dict[str, int] = {}
    for entry in imports:
        domain = _text(entry.domain, "domain")
        domain = "" if domain == "ai.onnx" else domain
        if found.setdefault(domain, entry.version) != entry.version:
            raise Damaged(f"name one version of the operators of domain {shown(domain)}, not two")
    return found


class _Scan:
    """Looks at every graph and function once, and counts the nodes and calls of each."""

    def __init__(self, functions: Mapping[_Key, FunctionProto]) -> None:
        self.functions = functions
        #: Nodes of each function and of the main graph (None), and whom they call, an entry for every call.
        self.sizes: dict[_Key | None, int] = {None: 0} | dict.fromkeys(self.functions, 0)
        self.calls: dict[_Key | None, list[_Key]] = {key: [] for key in self.sizes}
        self._home: _Key | None = None
        self._known: Container[str] = ()
        self._defined: set[str] = set()
        self._operators: set[_Key] = set()  # whose names are text
        self._parameters: Container[str] = ()  # of the function, that its nodes' attributes may refer to

    def function(self, key: _Key, function: FunctionProto) -> None:
        """Look at a function's body."""
        self._home, self._known, self._defined = key, _domains(function.opset_import), set()
        parameters = [*function.attribute, *(attribute.name for attribute in function.attribute_proto)]
        self._parameters = {_text(name, "attribute") for name in parameters}
        for attribute in function.attribute_proto:
            self._attribute(attribute, function, 0)
        self._define(function.input, "an input of", function)
        self._nodes(function.node, 0)
        self._outputs(function.output, function)

    def main(self, graph: GraphProto, known: Container[str]) -> None:
        """Look at the main graph, which knows the domains ``known``."""
        self._home, self._known, self._defined, self._parameters = None, known, set(), ()
        self._graph(graph, 1)

    def _graph(self, graph: GraphProto, depth: int) -> None:
        _text(graph.name, "graph")
        if depth > _DEEPEST:
            raise Damaged(f"nest at most {_DEEPEST} graphs in each other, unlike {_words(graph)}")
        for sparse in graph.sparse_initializer:
            raise Damaged(f"hold dense tensors only, unlike the sparse {shown(sparse.values.name)}")
        for info in (*graph.input, *graph.output, *graph.value_info):
            _check_info(info)
        inputs = [info.name for info in graph.input]
        added = self._define(inputs, "an input of", graph)
        tensors = set()
        for tensor in graph.initializer:
            name = _text(tensor.name, "tensor")
            if name in tensors:
                raise Damaged(f"hold tensor {shown(name)} once")
            check_tensor(tensor, partial(_tensor_words, tensor))
            tensors.add(name)
        added += self._define(tensors.difference(inputs), "a tensor of", graph)  # a tensor may be an input's default
        added += self._nodes(graph.node, depth)
        self._outputs([info.name for info in graph.output], graph)
        self._defined.difference_update(added)

    def _nodes(self, nodes: Sequence[NodeProto], depth: int) -> list[str]:
        """Look at nodes in order; the names that they define."""
        self.sizes[self._home] += len(nodes)
        if self.sizes[self._home] > _MOST_NODES:
            raise Damaged(f"hold at most {_MOST_NODES} nodes")
        added: list[str] = []
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            if key not in self._operators:
                self._operators.add((_text(key[0], "domain"), _text(key[1], "operator"), _text(key[2], "overload")))
            domain = key[0]
            _text(node.name, "node")
            if key in self.functions:
                self.calls[self._home].append(key)
                for kind in ("input", "output"):
                    given, most = len(getattr(node, kind)), len(getattr(self.functions[key], kind))
                    if given > most:
                        raise Damaged(f"call {node_words(node)} with at most {most} {kind}s, not {given}")
            if ("" if domain == "ai.onnx" else domain) not in self._known:
                raise Damaged(f"name the version of domain {shown(domain)}, which {node_words(node)} is of")
            for value in node.input:
                if value not in self._defined and _text(value, "value"):
                    remedy = " and in an order without cycles" if any(value in n.output for n in nodes) else ""
                    raise Damaged(f"define value {shown(value)} before {node_words(node)} reads it{remedy}")
            names = set()
            for attribute in node.attribute:
                if attribute.name in names:
                    raise Damaged(f"give attribute {shown(attribute.name)} of {node_words(node)} once")
                names.add(attribute.name)
                self._attribute(attribute, node, depth)
            added += self._define((name for name in node.output if name != ""), "an output of", node)
        return added

    def _attribute(self, attribute: AttributeProto, home: NodeProto | FunctionProto, depth: int) -> None:
        field = _FIELD_OF.get(attribute.type, "")
        filled = [f.name for f, _ in attribute.ListFields() if f.name in _VALUES]
        _text(attribute.name, "attribute")
        if attribute.ref_attr_name:
            if not field or filled or _text(attribute.ref_attr_name, "attribute") not in self._parameters:
                what, name = _attribute_words(attribute, home), shown(attribute.ref_attr_name)
                raise Damaged(f"refer to a parameter of its function with {what}, not {name}")
            return
        if not field or (filled != [field] and (filled or field not in _LISTS)):
            found = " and ".join(filled) or "nothing"
            raise Damaged(f"hold {_attribute_words(attribute, home)} as {field or 'a type'} says, not {found}")
        value = getattr(attribute, field)
        if field in _LISTS and len(value) > _MOST_VALUES:
            raise Damaged(
                f"hold at most {_MOST_VALUES} values in {_attribute_words(attribute, home)}, not {len(value)}"
            )
        for each in value if field in _LISTS else (value,):
            if field in ("s", "strings"):
                _check_utf8(each, attribute, home)
            elif field in ("t", "tensors"):
                _text(each.name, "tensor")
                check_tensor(each, partial(_attribute_words, attribute, home))
            elif field in ("g", "graphs"):
                self._graph(each, depth + 1)
            elif field in ("sparse_tensor", "sparse_tensors"):
                raise Damaged(f"hold dense tensors only, unlike {_attribute_words(attribute, home)}")
            else:
                return

    def _define(self, names: Iterable[str], what: str, home: NodeProto | GraphProto | FunctionProto) -> list[str]:
        added = []
        for name in names:
            if name in self._defined:
                raise Damaged(f"define value {shown(name)} once, and not again as {what} {_words(home)}")
            if not _text(name, "value"):
                raise Damaged(f"name {what} {_words(home)}")
            self._defined.add(name)
            added.append(name)
        return added

    def _outputs(self, names: Iterable[str], home: GraphProto | FunctionProto) -> None:
        seen = set()
        for name in names:
            if name in seen or _text(name, "output") not in self._defined:
                times = "once" if name in seen else "somewhere"
                raise Damaged(f"define output {shown(name)} of {_words(home)} {times}")
            seen.add(name)

    def check_calls(self) -> None:
        """Find out whether calls of functions end, and after how many nodes.

        Raises:
            Damaged: functions that call each other in a circle, or more nodes than a network has.
        """
        totals: dict[_Key | None, int] = {}
        open_calls: dict[_Key | None, Iterator[_Key]] = {None: iter(self.calls[None])}
        while open_calls:
            caller = next(reversed(open_calls))
            for called in open_calls[caller]:
                if called in open_calls:
                    raise Damaged(f"hold functions that end, unlike {shown(called[1])}, which calls itself")
                if called not in totals:
                    open_calls[called] = iter(self.calls[called])
                    break
            else:
                totals[caller] = self.sizes[caller] + sum(totals[called] for called in self.calls[caller])
                if totals[caller] > _MOST_NODES:
                    raise Damaged(f"hold at most {_MOST_NODES} nodes, with all calls of its functions written out")
                del open_calls[caller]


def node_words(node: NodeProto) -> str:
    """A node in a sentence: its name and operator, and its first output where it has no name."""
    where = f"node {shown(node.name)}" if node.name else f"the node of {shown(next(iter(node.output), ''))}"
    return f"{where} ({shown(node.op_type)[1:-1]})"


def _check_info(info: ValueInfoProto) -> None:
    name = _text(info.name, "value")
    if info.type.HasField("tensor_type"):
        for size in info.type.tensor_type.shape.dim:
            if size.dim_value < 0:
                raise Damaged(f"give {shown(name)} sizes of at least 0, or names for open ones, not {size.dim_value}")
            _text(size.dim_param, "dimension")


def _text(value: object, what: str, most: int | None = _LONGEST_NAME) -> str:
    # Bytes that are no UTF-8 come out of protobuf as bytes.
    if not isinstance(value, str):
        raise Damaged(f"hold names in UTF-8, unlike {what} {shown(value)}")
    if most is not None and len(value) > most:
        raise Damaged(f"hold names of at most {most} characters, unlike {what} {shown(value)}")
    return value


def _check_utf8(value: bytes, attribute: AttributeProto, home: NodeProto | FunctionProto) -> None:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        what = _attribute_words(attribute, home)
        raise Damaged(f"hold text in UTF-8, unlike {what}, {shown(value)}") from error


def _tensor_words(tensor: TensorProto) -> str:
    return f"tensor {shown(tensor.name)}"


def _attribute_words(attribute: AttributeProto, home: NodeProto | FunctionProto) -> str:
    return f"attribute {shown(attribute.name)} of {_words(home)}"


def _words(home: NodeProto | GraphProto | FunctionProto) -> str:
    if isinstance(home, NodeProto):
        return node_words(home)
    return f"{'graph' if isinstance(home, GraphProto) else 'function'} {shown(home.name)}"
