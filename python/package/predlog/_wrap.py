"""`wrap(model)`: a model whose predictions are logged."""

from __future__ import annotations

import copy
import functools
import time
import uuid
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ._rows import log_rows

if TYPE_CHECKING:
    from . import Logger

Model = TypeVar("Model")
#: The last is XGBoost's.
_METHODS = ("predict", "predict_proba", "inplace_predict")
#: These answer the model itself, which is then the wrapped one.
_OF_ITSELF = ("fit", "partial_fit", "set_params")
#: What models call the rows, when they are given by name.
_KEYWORDS = ("X", "data")
#: What Python looks for in the class alone: the wrapper's has those that the model's has.
_SPECIAL = ("__len__", "__getitem__", "__iter__", "__contains__", "__bool__")


class _Wrapped:
    """Passes everything to the model, and logs what its `predict` methods answer, a record for each row."""

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
            return functools.wraps(value)(functools.partial(self._call, value))
        return functools.wraps(value)(functools.partial(self._change, value)) if name in _OF_ITSELF else value

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

    def _change(self, method: Any, *arguments: Any, **keywords: Any) -> Any:
        answer = method(*arguments, **keywords)
        return self if answer is self._model else answer

    def _call(self, method: Any, *arguments: Any, **keywords: Any) -> Any:
        inputs = arguments[0] if arguments else next((keywords[name] for name in _KEYWORDS if name in keywords), None)
        start = time.perf_counter()
        try:
            outputs = method(*arguments, **keywords)
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
    members.update((name, _passing(name)) for name in _SPECIAL if any(name in vars(base) for base in kind.__mro__))
    # Pipelines call their steps by the names of classes.
    return cast("type[_Wrapped]", type(kind.__name__, (_Wrapped,), members))


def _passing(name: str) -> Any:
    """A method that calls the model's."""
    return lambda wrapped, *arguments: getattr(wrapped._model, name)(*arguments)


def _feature_names(model: Any) -> Any:
    """The names of the features that the model was trained with, where it has them."""
    names = getattr(model, "feature_names_in_", None)  # scikit-learn, and the classes of LightGBM and XGBoost that are like its own
    if names is None:
        names = getattr(model, "feature_names", None)  # xgboost.Booster
    if names is None and hasattr(model, "feature_name"):  # lightgbm.Booster
        names = model.feature_name()
    return names


def wrap(model: Model, *, model_name: str | None = None, model_version: str | None = None, logger: Logger | None = None) -> Model:
    """`model` with its `predict`, `predict_proba` and `inplace_predict` logged: a record for each row, with the names of its features, the call's
    request_id and latency. Without `logger` it is the default one; without `model_name` the model's class.

    Inputs are read when the model has answered: what it changes in them is in the records. `fit()` answers the wrapped model. Copies log by the same logger, but
    for scikit-learn's clones, which a search or a cross-validation trains; pickled (joblib), the model is wrapped as before, and logs by the default logger of
    the process that loads it.

    It is for models of scikit-learn and those with its methods, and for the boosters of LightGBM and XGBoost. Of a model with several outputs, whose
    `predict_proba` answers an array for each of them, a record has the row's probabilities of each output.
    """
    return cast(Model, _Wrapped(model, logger, model_name or type(model).__name__, model_version))
