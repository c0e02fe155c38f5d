"""SparseTrainingCallback: SparseTraining in the Trainer of Hugging Face Transformers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from ..errors import MissingDependencyError, OptionError
from ..methods import BlockSolver
from .layers import masked_layers
from .training import MaskUpdate, SparseTraining

try:
    from accelerate.optimizer import AcceleratedOptimizer
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_callback import ExportableState
except ImportError as error:
    raise MissingDependencyError(
        f"masksolve.torch.hugging_face needs the packages transformers and accelerate: "
        f'pip install "masksolve[hugging-face]" ({error})'
    ) from error

__all__ = ["SparseTrainingCallback"]


class SparseTrainingCallback(TrainerCallback, ExportableState):
    """A `masksolve.torch.SparseTraining` for every ``train()`` of a Transformers ``Trainer``.

    The model is sparsified before. Logs of the loss have a ``flip_rate``, if masks were updated
    since the log before. Checkpoints have all that an exact resume needs.

    Parameters
    ----------
    update_every, decay, method, backend, workers, on_update
        As in `SparseTraining`.
    dense_after : int or float, optional
        The last step with masks; a float is a fraction of the Trainer's ``max_steps``.

    Attributes
    ----------
    training : SparseTraining or None
        Of the ``train()`` that runs, or ran last; None before the first. After an exception it is
        attached to the optimizer till the next ``train()``, or till its ``detach()``.

    Raises
    ------
    OptionError
        At the beginning of ``train()``: as in `SparseTraining`, or the checkpoint to resume from
        has no state of it, or was taken with other options.
    MissingDependencyError
        At the import of this module: transformers or accelerate is not installed.

    Notes
    -----
    With `dense_after`, a ``train()`` that does not resume begins with masks, which are found anew
    if the one before ended dense. Under ``load_best_model_at_end`` layers end masked or dense as
    they were at the best checkpoint.

    Transformers makes callbacks anew under ``restore_callback_states_from_checkpoint=True``, and
    has no functions in its checkpoints: it cannot be had with `on_update`, or with one's own
    `method`. This state is restored either way.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from transformers import Trainer, TrainingArguments
    >>> import masksolve.torch as mt
    >>> class Model(torch.nn.Linear):
    ...     def forward(self, x):
    ...         return {"loss": super().forward(x).square().mean()}
    >>> model = Model(16, 16)
    >>> report = mt.sparsify(model, n=2, m=4)
    >>> options = TrainingArguments(
    ...     tempfile.mkdtemp(), max_steps=6, save_strategy="no", report_to="none", use_cpu=True
    ... )
    >>> callback = SparseTrainingCallback(update_every=2, dense_after=5 / 6)
    >>> data = [{"x": torch.randn(16)} for _ in range(8)]
    >>> trainer = Trainer(model, options, train_dataset=data, callbacks=[callback])
    >>> result = trainer.train()  # doctest: +ELLIPSIS
    {'train_runtime': ...}
    >>> callback.training.step, callback.training.last_update.step, callback.training.dense_after
    (6, 4, 5)
    """

    def __init__(
        self,
        *,
        update_every: int = 40,
        decay: float = 0.0,
        dense_after: int | float | None = None,
        method: str | BlockSolver = "auto",
        backend: str | None = None,
        workers: int | None = None,
        on_update: Callable[[MaskUpdate], object] | None = None,
    ) -> None:
        self._options: dict[str, Any] = {
            "update_every": update_every, "decay": decay, "dense_after": dense_after,
            "method": method, "backend": backend, "workers": workers, "on_update": on_update,
        }  # fmt: skip
        self.training: SparseTraining | None = None
        self._logged: MaskUpdate | None = None
        self._lost: list[str] = []  # options, if Transformers made this from a checkpoint

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, in the form that Transformers asks for."""
        lost = [name for name, value in self._options.items() if callable(value)]
        return {
            "args": {name: value for name, value in self._options.items() if name not in lost},
            "attributes": {"_lost": lost},
            "training": None if self.training is None else self.training.state_dict(),
        }

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the `SparseTraining`, with its state if a checkpoint is resumed."""
        if self.training is not None:  # an exception may have ended it
            self.training.detach()
        if self._lost:
            raise OptionError(
                f"restore_callback_states_from_checkpoint=True made this callback anew, without "
                f"{' and '.join(self._lost)}: leave it False, the state of SparseTraining is "
                f"restored either way"
            )
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        if isinstance(optimizer, AcceleratedOptimizer):
            optimizer = optimizer.optimizer
        dense = [layer.masked for layer in masked_layers(model) if layer.masked.dense]
        if self._options["dense_after"] is None and not state.global_step:
            dense = []  # they stay so
        with ExitStack() as undo:
            for masked in dense:
                masked.dense = False
                undo.callback(setattr, masked, "dense", True)
            training = undo.enter_context(
                SparseTraining(model, optimizer, total_steps=state.max_steps, **self._options)
            )
            if state.global_step:
                training.load_state_dict(self._saved(state))
            elif dense:
                training.update()
            undo.pop_all()
        self.training = training

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the flip rate of the last update to the log, for the history and later callbacks."""
        update = None if self.training is None else self.training.last_update
        if update is not None and update is not self._logged and "loss" in kwargs["logs"]:
            for log in (kwargs["logs"], state.log_history[-1]):
                log["flip_rate"] = update.flip_rate
            self._logged = update

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let go of the optimizer; if the best model was loaded, return to its state."""
        if self.training is None:
            return
        self.training.detach()
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            file = Path(state.best_model_checkpoint) / "trainer_state.json"
            self.training.load_state_dict(self._saved(TrainerState.load_from_json(str(file))))

    def _saved(self, state: TrainerState) -> dict[str, Any]:
        """Return the state of the `SparseTraining` in that of a checkpoint."""
        name, callbacks = type(self).__name__, cast("dict[str, Any]", state.stateful_callbacks)
        if name not in callbacks:
            raise OptionError(
                f"the checkpoint of step {state.global_step} was taken without a {name}, maybe of "
                f"a model without masks: load its weights, sparsify, and train without "
                f"resume_from_checkpoint"
            )
        saved: dict[str, Any] = callbacks[name]["training"]
        return saved
