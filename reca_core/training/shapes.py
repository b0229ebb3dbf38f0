"""Networks of shape alone, and what a step on them would hold: every allocation is followed and none is made.

Parameters are torch's fake tensors (``FakeTensorMode``): they have shape, type and device and no memory. Whatever is
computed from them is fake as well, so autograd, activation checkpointing and autocast do what they always do. What
depends on the batch alone (token ids, masks, draws) stays real, because families decide shapes by its values.
``Allocations`` stands below autograd and counts the storages that are alive.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from reca_core.models.state import reading_as, without_memory

META = torch.device("meta")
ATEN = torch.ops.aten
FACTORIES = (ATEN.empty.memory_format, ATEN.zeros.default, ATEN.ones.default, ATEN.full.default)
"""Operations that make room for values which come later: where it has several dimensions, for the network's own."""
CONSTANTS = (
    *(ATEN.new_ones.default, ATEN.new_zeros.default, ATEN.new_full.default),
    *(ATEN.ones_like.default, ATEN.zeros_like.default, ATEN.full_like.default),
)
"""Operations that take no more than a shape and a type from their first argument."""
INDEXED = (ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default, ATEN._index_put_impl_.default)
"""Operations whose second argument may hold masks."""


class _Shapes(TorchDispatchMode):
    """Loaders run as they are, on tensors of shape alone, which stay so; equality looks at the files."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[int, Tensor] = {}
        self.stored: dict[torch.dtype, int] = {}
        self._held: list[Tensor] = []

    def shape_of(self, tensor: Tensor) -> Tensor:
        """A tensor of a file without its values, which are mapped and not read."""
        self.stored[tensor.dtype] = self.stored.get(tensor.dtype, 0) + tensor.nbytes
        shape = torch.empty_like(tensor, device=META)
        self._held.append(shape)  # so that no other object gets its id
        self.files[id(shape)] = tensor
        return shape

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is ATEN._to_copy.default and args[0].device == META:
            kwargs["device"] = META
        if func is ATEN.equal.default and args[0].device == META:
            return torch.equal(*(self.files[id(tensor)] for tensor in args[:2]))
        return func(*args, **kwargs)


@contextmanager
def loading_shapes(stored: dict[torch.dtype, int]) -> Iterator[None]:
    """Models loaded in this block have parameters of shape alone; ``stored`` receives bytes by type of their files."""
    shapes = _Shapes()
    with reading_as(shapes.shape_of), shapes:
        yield
    stored.update(shapes.stored)


@contextmanager
def making_shapes() -> Iterator[None]:
    """The same for models made with random weights."""
    with without_memory(), _Shapes():
        yield


class FakeParameters:
    """Gives networks fake parameters on the CPU; a parameter with several names stays one."""

    def __init__(self) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)

    def put_into(self, network: nn.Module) -> None:
        """Replace every parameter that is not fake yet."""
        made: dict[int, nn.Parameter] = {}
        for module in network.modules():
            for name, parameter in module._parameters.items():
                if parameter is None or isinstance(parameter, FakeTensor):
                    continue
                if id(parameter) not in made:
                    made[id(parameter)] = self._fake(parameter)
                module._parameters[name] = made[id(parameter)]
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.device == META:
                    module._buffers[name] = FakeTensor(self.mode, buffer, torch.device("cpu"))

    def _fake(self, parameter: nn.Parameter) -> nn.Parameter:
        shape = torch.empty_like(parameter, device=META)
        return nn.Parameter(FakeTensor(self.mode, shape, torch.device("cpu")), requires_grad=parameter.requires_grad)


class Allocations(TorchDispatchMode):
    """Counts the bytes of storages that are alive and were made inside the block; what was there before is free.

    ``peak`` is the most at one time. Gradients are told apart by ``is_gradient``, because sharding divides them:
    ``peak_without_gradients`` leaves them out. Not seen: memory inside one operation.
    """

    def __init__(self, fakes: FakeTensorMode) -> None:
        super().__init__()
        self._fakes = fakes
        self.alive = self.gradients = self.peak = self.peak_without_gradients = 0
        self._sizes: dict[int, int] = {}
        self._known: set[int] = set()

    def leave_out(self, network: nn.Module) -> None:
        """Parameters and buffers are counted elsewhere."""
        for tensor in (*network.parameters(), *network.buffers()):
            self._known.add(tensor.untyped_storage()._cdata)

    def is_gradient(self, parameter: Tensor) -> None:
        """To be called when a parameter's gradient is complete."""
        if parameter.grad is not None and self._sizes.get(parameter.grad.untyped_storage()._cdata):
            key = parameter.grad.untyped_storage()._cdata
            size = self._sizes[key]
            self._sizes[key] = 0
            self.alive -= size
            self.gradients += size
            self._known.add(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        room = func in FACTORIES and len(args[0]) > 1 and _fractions(func, args, given)
        with self._fakes if room else contextlib.nullcontext():
            result = func(*_real_constants(func, _plain_masks(func, args), given), **given)
        _refuse_lost_writes(func, args)
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._see(value)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes or key in self._known:
            return
        self._sizes[key] = storage.nbytes()
        weakref.finalize(storage, self._gone, key)
        self.alive += storage.nbytes()
        self.peak_without_gradients = max(self.peak_without_gradients, self.alive)
        self.peak = max(self.peak, self.alive + self.gradients)

    def _gone(self, key: int) -> None:
        self.alive -= self._sizes.pop(key, 0)
        self._known.discard(key)


def _plain_masks(func: Any, args: Any) -> Any:
    """Masks as positions: how many there are decides a shape, and a fake tensor cannot look.

    A mask that depends on the network counts as full, the most it can be: pictures of one size have no padding.
    """
    if func not in INDEXED or not isinstance(args[0], FakeTensor):
        return args
    positions: list[Tensor | None] = []
    for index in args[1]:
        if isinstance(index, Tensor) and index.dtype == torch.bool:
            mask = torch.ones(index.shape, dtype=torch.bool) if isinstance(index, FakeTensor) else index
            positions += list(mask.nonzero().unbind(1))
        else:
            positions.append(index)
    return (args[0], positions, *args[2:])


def _real_constants(func: Any, args: Any, given: dict[str, Any]) -> Any:
    """Whole numbers and masks that are made as constants are known, whatever gave them their shape."""
    if func not in CONSTANTS or not isinstance(args[0], FakeTensor):
        return args
    kind = given.get("dtype") or args[0].dtype
    return args if kind.is_floating_point else (torch.empty((), dtype=kind).expand(args[0].shape), *args[1:])


def _refuse_lost_writes(func: Any, args: Any) -> None:
    """A fake value written into a real tensor would be lost, and what follows from it not counted."""
    if not func._schema.is_mutable or not any(isinstance(value, FakeTensor) for value in tree_iter(args)):
        return
    for value, argument in zip(args, func._schema.arguments, strict=False):
        written = argument.alias_info is not None and argument.alias_info.is_write
        if written and isinstance(value, Tensor) and not isinstance(value, FakeTensor):
            raise RuntimeError(f"{func} writes what is not known into a tensor that is")


def _fractions(func: Any, args: Any, given: dict[str, Any]) -> bool:
    """True where the new tensor's type is a floating one."""
    kind = given.get("dtype")
    if kind is None and func is ATEN.full.default:
        return isinstance(args[1], float)
    return (kind or torch.get_default_dtype()).is_floating_point
