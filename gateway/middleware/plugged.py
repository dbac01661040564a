"""What the kinds that run other people's code share: how it is found and built, and how much time it may take."""

from __future__ import annotations

import asyncio
import dataclasses
import difflib
import inspect
import re
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import CoroutineType
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, TypeAdapter, ValidationError

from gateway.blame import told
from gateway.errors import StartError

_USE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")


def _use(text: str) -> str:
    if _USE.fullmatch(text) is None:
        raise ValueError(f'expected "module:Name", got "{text}"')
    return text


Use = Annotated[str, AfterValidator(_use)]


def found(kind: str, use: str, plugin: Callable[[str], Any]) -> Any:
    """What `use` names; None while a configuration is only tried. Raises StartError."""
    try:
        return plugin(use)
    except StartError as error:
        raise type(error)(f'{kind} "{use}": {error}') from error.__cause__


def built(kind: str, use: str, make: Callable[[], Any]) -> Any:
    """What a constructor makes. Raises StartError, also for a constructor that wants to end the process."""
    try:
        return make()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise StartError(f'{kind} "{use}": it can\'t be built: {told(error)}') from error


def options_of(kind: str, use: str, model: Any, options: dict[str, Any]) -> Any:
    """The options as `model` has them, a pydantic model or a dataclass. Raises StartError that names every mistake."""
    is_model = isinstance(model, type) and issubclass(model, BaseModel)
    if not is_model and not dataclasses.is_dataclass(model):
        raise StartError(f'{kind} "{use}": its Options is neither a pydantic model nor a dataclass')
    strange: set[str] = set()
    if is_model and "extra" not in model.model_config:
        fields = model.model_fields
        strange = options.keys() - fields.keys() - {one.alias for one in fields.values() if one.alias is not None}
    elif not is_model:
        strange = options.keys() - {one.name for one in dataclasses.fields(model)}
    mistakes = [f"options.{name}: there is no such option" for name in sorted(strange)]
    try:
        value = TypeAdapter(model).validate_python(options)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            path = ".".join(["options", *map(str, one["loc"])])
            mistakes.append(f"{path}: {one['msg']}")
    except Exception as error:
        mistakes.append(told(error))
    if mistakes:
        raise StartError(f'{kind} "{use}": ' + "; ".join(mistakes))
    return value


# What a hook is called with, and whether the last of it may be left out.
_HOOKS = {
    "rewrite_request": (1, 1),
    "modify_response": (1, 1),
    "on_error": (2, 2),
    "transform_request_body": (1, 2),
    "transform_response_body": (1, 2),
}


def with_second(method: Callable[..., Any] | None) -> Callable[[bytes, Any], Any] | None:
    """A method for bodies, which need not want to know whose body it is."""
    if method is None or _takes(method, 2):
        return method
    return lambda chunk, of: method(chunk)


def _takes(method: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(method).bind(*(None,) * count)
    except TypeError:
        return False
    except ValueError:  # something without a signature
        return True
    return True


def as_bytes(body: Any) -> bytes:
    """Raises TypeError, where bytes() would make a body of a number or of a list, too."""
    if not isinstance(body, bytes | bytearray | memoryview):
        raise TypeError(f"expected bytes, got {type(body).__name__}")
    return bytes(body)


def check_shape(use: str, plugin: Any) -> None:
    """Raises StartError for an object that can't be a plug-in."""
    names = [name for name in dir(plugin) if not name.startswith("_")]
    for name in names:
        if name not in _HOOKS and callable(inspect.getattr_static(plugin, name)):
            near = difflib.get_close_matches(name, _HOOKS, 1, 0.8)
            if near:
                raise StartError(f'hooks "{use}": there is no hook "{name}"; did you mean "{near[0]}"?')
    hooks = [name for name in _HOOKS if name in names]
    if not hooks:
        raise StartError(f'hooks "{use}": it has none of {", ".join(_HOOKS)}')
    for name in hooks:
        method = getattr(plugin, name)
        least, most = _HOOKS[name]
        if not callable(method) or not (_takes(method, least) or _takes(method, most)):
            wanted = {1: "(self, request)", 2: "(self, request, error)"}[least]
            if name == "modify_response":
                wanted = "(self, response)"
            elif name.startswith("transform"):
                wanted = f"(self, chunk) or (self, chunk, {name.split('_')[1]})"
            raise StartError(f'hooks "{use}": {name} must be a method {wanted}')


class TookTooLong(Exception):
    """Something did not end within its time."""


class Waiting:
    """A coroutine that has taken its first step, to be awaited from there on."""

    __slots__ = ("_coroutine", "_yielded")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], yielded: Any) -> None:
        self._coroutine = coroutine
        self._yielded = yielded

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, yielded = self._coroutine, self._yielded
        while True:
            try:
                sent = yield yielded
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                step: Callable[[Any], Any] = coroutine.throw
                sent = error
            else:
                step = coroutine.send
            try:
                yielded = step(sent)
            except StopIteration as end:
                return end.value


def is_from_outside(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Whether what ends foreign code is not of its own making: the request's task is cancelled, or a coroutine that
    nobody runs any more is thrown away. Anything else that it raises concerns its request alone, also what would end
    the task or the process. task: the one in which the foreign code was called."""
    if isinstance(error, Exception):
        return False
    try:
        running = asyncio.current_task()
    except RuntimeError:  # no event loop
        return True
    if isinstance(error, asyncio.CancelledError):
        return running is not None and running.cancelling() > 0
    return isinstance(error, GeneratorExit) and running is not task


def begin(method: Callable[..., Any], *arguments: Any) -> Any:
    """What a plug-in's method gives back, or Waiting, when it is a coroutine that waits for something: `rest` is to be
    awaited then. Raises what the method raises, but never anything that would end the worker or the request's task.

    Most methods never wait for anything, and for those nothing has to be awaited: no coroutine, no timer.
    """
    try:
        result = method(*arguments)
        if result is None:
            return None
        if type(result) is not CoroutineType:
            if not isinstance(result, Awaitable):
                return result
            result = _awaited(result)
        try:
            return Waiting(result, result.send(None))
        except StopIteration as end:
            return end.value
    except Exception:
        raise
    except BaseException as error:
        if is_from_outside(error, asyncio.current_task()):
            raise
        raise _ended(error) from None


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


async def rest(seconds: float, waiting: Waiting) -> Any:
    """What comes of it in the end, which must be within this time. Raises TookTooLong, and what `begin` may raise."""
    task = asyncio.current_task()
    try:
        return await _timed(seconds, waiting)
    except Exception:
        raise
    except BaseException as error:
        if is_from_outside(error, task):
            raise
        raise _ended(error) from None


async def within(seconds: float, method: Callable[..., Any], *arguments: Any) -> Any:
    """Both in one."""
    result = begin(method, *arguments)
    return await rest(seconds, result) if type(result) is Waiting else result


class _Ended(RuntimeError):
    """A method wanted to end more than itself."""


def _ended(error: BaseException) -> _Ended:
    return _Ended(f"it ended itself by {type(error).__name__}").with_traceback(error.__traceback__)


async def _timed(seconds: float, awaited: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(seconds) as limit:
            value = await awaited
    except TimeoutError:
        if limit.expired():
            raise TookTooLong from None
        raise
    if limit.expired():  # it heard that it was to end and went on
        raise TookTooLong
    return value
