"""`wrap(model)`: a model whose predictions are logged."""

from __future__ import annotations

import copy
import functools
import inspect
import time
import uuid
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ._rows import log_rows

if TYPE_CHECKING:
    from . import Logger

Model = TypeVar("Model")
#: The last is XGBoost's.
_METHODS = ("predict", "predict_proba", "inplace_predict")
#: These answer the model itself, which is then the wrapped one; of other names only its own methods may.
_OF_ITSELF = ("fit", "partial_fit", "set_params")
#: What models call the rows, when they are given by name.
_KEYWORDS = ("X", "data")
#: What Python looks for in the class alone: the wrapper's has those that the model's has.
_SPECIAL = ("__len__", "__getitem__", "__iter__", "__contains__", "__bool__", "__exit__")


class _Wrapped:
    """Passes everything to the model, and logs what its `predict` methods and its calls answer, a record for each row."""

    __slots__ = ("_model", "_logger", "_model_name", "_model_version", "__weakref__")
    _model: Any
    _logger: Logger | None
    _model_name: str
    _model_version: str | None

    def __new__(cls, model: Any, *_: Any) -> _Wrapped:
        kind: Any = type(model)
        return object.__new__(_class_for(kind))

    def __init__(self, model: Any, logger: Logger | None, model_name: str, model_version: str | None) -> None:
        own = {"_model": model, "_logger": logger, "_model_name": model_name, "_model_version": model_version}
        for name, value in own.items():
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name in _Wrapped.__slots__:
            raise AttributeError(name)  # Not made yet, but asked what it has: there is no model to ask.
        value = getattr(self._model, name)
        if name in _METHODS:
            return functools.wraps(value)(self._logged(value))
        is_own = inspect.ismethod(value) and value.__self__ is self._model
        # scikit-learn's `set_fit_request` is a function that knows its model.
        is_own = is_own or name in _OF_ITSELF or inspect.isfunction(value) and name.startswith("set_")
        if is_own and not inspect.iscoroutinefunction(value):
            return functools.wraps(value)(functools.partial(self._change, value))
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._model, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._model, name)

    # Copies are the wrapper's own: some models have methods for this, which would give the bare model.
    def __copy__(self) -> _Wrapped:
        return _Wrapped(copy.copy(self._model), self._logger, self._model_name, self._model_version)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Wrapped:
        return _Wrapped(copy.deepcopy(self._model, memo), self._logger, self._model_name, self._model_version)

    def __reduce__(self) -> tuple[Any, ...]:
        # A logger is of its process: where the model is loaded, it is that one's default logger.
        return _Wrapped, (self._model, None, self._model_name, self._model_version)

    def __repr__(self) -> str:
        return f"predlog.wrap({self._model!r})"

    def _change(self, method: Any, /, *arguments: Any, **keywords: Any) -> Any:
        """A method that may answer the model itself, which is then the wrapped one: `fit`, `set_output`, `eval`."""
        answer = method(*arguments, **keywords)
        return self if answer is self._model else answer

    def _logged(self, method: Any) -> functools.partial[Any]:
        """`method`, logged; async where it is."""
        # Partials can be pickled; that of a function, not of a method, is a coroutine function to all versions of Python.
        is_async = inspect.iscoroutinefunction(method) or inspect.iscoroutinefunction(getattr(method, "__call__", None))
        return functools.partial(_Wrapped._call_async if is_async else _Wrapped._call, self, method)

    def _call(self, method: Any, /, *arguments: Any, **keywords: Any) -> Any:
        inputs = _inputs(method, arguments, keywords)
        start = time.perf_counter()
        try:
            outputs = method(*arguments, **keywords)
        except Exception as error:
            self._log(inputs, None, start, error)
            raise
        if inspect.iscoroutine(outputs):
            return self._awaited(outputs, inputs, start)
        self._log(inputs, outputs, start, None)
        return outputs

    async def _call_async(self, method: Any, /, *arguments: Any, **keywords: Any) -> Any:
        answer = self._call(method, *arguments, **keywords)
        return await answer if inspect.isawaitable(answer) else answer

    async def _awaited(self, answer: Coroutine[Any, Any, Any], inputs: Any, start: float) -> Any:
        try:
            outputs = await answer
        except Exception as error:
            self._log(inputs, None, start, error)
            raise
        self._log(inputs, outputs, start, None)
        return outputs

    def _log(self, inputs: Any, outputs: Any, start: float, error: Exception | None) -> None:
        from ._capture import default, tell_once, text_of

        latency_ms = (time.perf_counter() - start) * 1e3
        request_id = str(uuid.uuid4())
        logger = self._logger or default()
        if logger is None:
            return
        text = None if error is None else text_of(error)
        fields: dict[str, Any] = {"model_version": self._model_version, "request_id": request_id, "latency_ms": latency_ms, "error": text}
        try:
            try:
                log_rows(logger, self._model_name, inputs, outputs, fields, _feature_names(self._model))
            except Exception:
                # Whatever the model takes is its own affair: what does not come apart in rows is one record.
                logger.log(self._model_name, inputs, outputs, **fields)
        except Exception:
            tell_once()  # A strict logger raises for what has no JSON form: the model's answer is not to be lost for that.


@functools.lru_cache(maxsize=256)
def _class_for(kind: type) -> type[_Wrapped]:
    """The wrapper's class for models of the class `kind`: it has a length, or items, where they have."""
    members: dict[str, Any] = {"__slots__": ()}
    # scikit-learn finds out by `vars()` whether a model was fitted.
    members["__dict__"] = property(lambda wrapped: wrapped._model.__dict__)
    own = {name for base in kind.__mro__ for name in vars(base)}
    members.update((name, _passing(name)) for name in _SPECIAL if name in own)
    if "__enter__" in own:
        members["__enter__"] = lambda wrapped: wrapped._change(wrapped._model.__enter__)
    if "__call__" in own:
        # Properties, so that frameworks see whether the call is async, and what it takes.
        members["__call__"] = property(lambda wrapped: wrapped._logged(wrapped._model))
        members["__signature__"] = property(lambda wrapped: inspect.signature(wrapped._model))
    # Pipelines call their steps by the names of classes.
    return cast("type[_Wrapped]", type(kind.__name__, (_Wrapped,), members))


def _passing(name: str) -> Any:
    """A method that calls the model's."""
    return lambda wrapped, *arguments, **keywords: getattr(wrapped._model, name)(*arguments, **keywords)


def _inputs(method: Any, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
    """What a call of `method` is to predict of."""
    if arguments or not keywords:
        return arguments[0] if arguments else None
    try:
        first = list(inspect.signature(method).parameters)[:1]
    except (TypeError, ValueError):  # It is not written in Python.
        first = []
    return next(keywords[name] for name in (*_KEYWORDS, *first, *keywords) if name in keywords)


def _feature_names(model: Any) -> Any:
    """The names of the features that the model was trained with, where it has them."""
    try:
        names = getattr(model, "feature_names_in_", None)  # scikit-learn, and the classes of LightGBM and XGBoost that are like its own
        if names is None:
            names = getattr(model, "feature_names", None)  # xgboost.Booster
        if names is None:
            names = getattr(model, "feature_names_", None)  # CatBoost
        if names is None and hasattr(model, "feature_name"):  # lightgbm.Booster
            names = model.feature_name()
        return names
    except Exception:  # Some raise for a model that was not trained.
        return None


def wrap(model: Model, *, model_name: str | None = None, model_version: str | None = None, logger: Logger | None = None) -> Model:
    """`model` with its `predict`, `predict_proba` and `inplace_predict`, and calls of itself, logged: a record for each row, with the names of its features,
    the call's request_id and latency. Without `logger` it is the default one; without `model_name` the model's class, or a function's name.

    Inputs are read when the model has answered: what it changes in them is in the records. Methods that answer the model itself, such as `fit()`, answer
    the wrapped one. Copies log by the same logger, but for scikit-learn's clones, which a search or a cross-validation trains; pickled (joblib), the model is
    wrapped as before, and logs by the default logger of the process that loads it.

    It is for models of scikit-learn and those with its methods, for the boosters of LightGBM and XGBoost, and for models that are called: functions, and
    those of Keras and torch. What is async stays so, and is logged once it was awaited. Of a model with several outputs, whose `predict_proba` answers an array
    for each of them, a record has the row's probabilities of each output. Rows wait for room in the queue as long as calls of `log()` would take, at most 10 s.
    """
    named: Any = model if inspect.isroutine(model) else type(model)
    return cast(Model, _Wrapped(model, logger, model_name or named.__name__, model_version))
