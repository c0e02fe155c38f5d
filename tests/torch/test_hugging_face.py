"""SparseTrainingCallback: what SparseTraining does, in a Trainer that accumulates, clips and resumes."""

import importlib
import itertools
import sys

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

import masksolve.torch as mt
from masksolve.errors import MissingDependencyError, OptionError
from masksolve.torch.hugging_face import SparseTrainingCallback


@pytest.fixture(autouse=True)
def one_thread():
    """On a busy machine the threads of so small a model wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def bert(seed=0):
    """Two layers, with dropout; the decoder shares its weight with the embedding."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=24,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
    )
    return BertForMaskedLM(config)


def sparse_bert(seed=0):
    model = bert(seed)
    mt.sparsify(model, 2, 4)
    return model


TOKENS = torch.randint(24, (20, 8), generator=torch.Generator().manual_seed(0))
DATA = [{"input_ids": row, "labels": row.roll(1)} for row in TOKENS]


def trainer_of(model, folder, *callbacks, compute_metrics=None, **options):
    defaults = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_grad_norm": 0.1,
        "learning_rate": 0.02,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    arguments = TrainingArguments(
        str(folder), report_to="none", use_cpu=True, **{**defaults, **options}
    )
    return Trainer(
        model,
        arguments,
        train_dataset=DATA,
        eval_dataset=DATA[:2],
        callbacks=list(callbacks),
        compute_metrics=compute_metrics,
    )


def masks_of(model):
    return [each.masked.mask.clone() for each in mt.masked_layers(model)]


def alike(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def all_of(trainer):
    """Weights, masks and the optimizer's state."""
    states = [trainer.model.state_dict(), *trainer.optimizer.state_dict()["state"].values()]
    return [tensor.clone() for state in states for tensor in state.values()]


class Watch(TrainerCallback):
    """Notes what is there at the beginning and after each step, and what is logged."""

    def __init__(self):
        self.masks, self.density, self.logs = [], [], []

    def on_train_begin(self, args, state, control, model, **_):
        self.best = [mt.find_mask(each.weight, 2, 4) for each in mt.masked_layers(model)]
        self.on_step_end(args, state, control, model)

    def on_step_end(self, args, state, control, model, **_):  # noqa: ARG002
        self.masks.append(masks_of(model))
        layer = model.bert.encoder.layer[0].output.dense
        self.density.append(layer.weight.count_nonzero().item() / layer.weight.numel())

    def on_log(self, args, state, control, logs, **_):  # noqa: ARG002
        self.logs.append(dict(logs))


class Fault(TrainerCallback):
    """Fails at a step, once."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):  # noqa: ARG002
        if state.global_step == self.step:
            self.step = None
            raise RuntimeError("a fault")


def flip_rates(logs):
    return [log["flip_rate"] for log in logs if "flip_rate" in log]


def test_updates_at_optimizer_steps_and_their_flip_rates_in_the_logs(tmp_path):
    updates, watch, model = [], Watch(), sparse_bert()
    callback = SparseTrainingCallback(update_every=3, on_update=updates.append)
    trainer = trainer_of(model, tmp_path, callback, watch, max_steps=7)
    trainer.train()
    assert callback.training.step == 7, "of 14 micro-batches"
    assert [update.step for update in updates] == [3, 6]
    changed = [not alike(*pair) for pair in itertools.pairwise(watch.masks)]
    assert changed == [False, False, True, False, False, True, False]
    history = trainer.state.log_history
    assert [log["step"] for log in history if "flip_rate" in log] == [3, 6]
    rates = [update.flip_rate for update in updates]
    assert min(rates) > 0
    assert flip_rates(history) == flip_rates(watch.logs) == rates
    mt.check_sparsity(model)


def test_a_log_of_the_loss_has_the_last_flip_rate_once(tmp_path):
    updates = []
    callback = SparseTrainingCallback(update_every=2, on_update=updates.append)
    options = {"max_steps": 7, "logging_steps": 3, "eval_strategy": "steps", "eval_steps": 1}
    trainer = trainer_of(sparse_bert(), tmp_path, callback, **options)
    trainer.train()
    history = trainer.state.log_history
    assert [log["step"] for log in history if "flip_rate" in log] == [3, 6]
    assert flip_rates(history) == [updates[0].flip_rate, updates[2].flip_rate]


def test_decay_is_neither_accumulated_nor_clipped(tmp_path):
    """Without it the same step of SGD is taken, but for lr decay (1 - x) w."""
    start = {each.name: each.weight for each in mt.masked_layers(sparse_bert())}
    found = []
    for decay in (0.0, 0.25):
        model = sparse_bert()
        callback = SparseTrainingCallback(decay=decay)
        trainer_of(model, tmp_path, callback, max_steps=1, optim="sgd", learning_rate=0.5).train()
        found.append(list(mt.masked_layers(model)))
    for without, decayed in zip(*found, strict=True):
        pruned = ~without.masked.mask * start[without.name]
        torch.testing.assert_close(without.weight - decayed.weight, 0.5 * 0.25 * pruned)
        assert not torch.equal(without.weight, start[without.name])


def test_dense_at_the_end_and_masked_again_in_the_next_training(tmp_path):
    watch = Watch()
    callback = SparseTrainingCallback(update_every=2, dense_after=0.5)
    trainer = trainer_of(sparse_bert(), tmp_path, callback, watch, max_steps=6)
    trainer.train()
    trainer.train()
    assert watch.density == 2 * ([0.5] * 3 + [1.0] * 4)
    training = callback.training
    assert (training.dense_after, training.step, training.last_update.step) == (3, 6, 2)
    assert not alike(watch.masks[6], watch.best), "or the next is not tested"
    assert alike(watch.masks[7], watch.best)


def test_after_a_fault_it_can_be_trained_again(tmp_path):
    callback = SparseTrainingCallback(update_every=2)
    trainer = trainer_of(sparse_bert(), tmp_path, callback, Fault(3), max_steps=5)
    with pytest.raises(RuntimeError, match="a fault"):
        trainer.train()
    assert callback.training.step == 3
    trainer.train()
    assert (callback.training.step, callback.training.last_update.step) == (5, 4)
    mt.SparseTraining(trainer.model, trainer.optimizer.optimizer)  # which is free


def test_resumed_bit_for_bit(tmp_path):
    """Masks are new after steps 2 and 4; all is dense after step 5."""
    given = {"max_steps": 8, "save_strategy": "steps", "save_steps": 3}
    options = {"update_every": 2, "decay": 0.01, "dense_after": 5 / 8}

    def ends(trainer):
        (callback,) = (c for c in trainer.callback_handler.callbacks if hasattr(c, "training"))
        assert not alike(masks_of(trainer.model), masks_of(sparse_bert()))
        return (
            all_of(trainer),
            flip_rates(trainer.state.log_history),
            callback.training.state_dict(),
        )

    whole = trainer_of(sparse_bert(), tmp_path, SparseTrainingCallback(**options), **given)
    whole.train()
    expected = ends(whole)
    assert len(expected[1]) == 2
    for cut, anew in ((3, False), (3, True), (6, False)):
        callback = SparseTrainingCallback(**({} if anew else options))
        given["restore_callback_states_from_checkpoint"] = anew
        resumed = trainer_of(sparse_bert(seed=1), tmp_path / "resumed", callback, **given)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{cut}"))
        tensors, *rest = ends(resumed)
        assert alike(tensors, expected[0])
        assert tuple(rest) == expected[1:]
    set_seed(whole.args.seed)  # as a new Trainer does, for the order of the data
    whole.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))  # it is dense by now
    tensors, *rest = ends(whole)
    assert alike(tensors, expected[0])
    assert tuple(rest) == expected[1:]


def test_the_best_model_has_its_masks(tmp_path):
    scores = iter([3.0, 2.0, 1.0])
    callback, model = SparseTrainingCallback(update_every=1, dense_after=3), sparse_bert()
    trainer = trainer_of(
        model,
        tmp_path,
        callback,
        compute_metrics=lambda _: {"score": next(scores)},
        max_steps=6,
        **{f"{name}_strategy": "steps" for name in ("eval", "save")},
        **{f"{name}_steps": 2 for name in ("eval", "save")},
        load_best_model_at_end=True,
        metric_for_best_model="score",
        greater_is_better=True,
    )
    trainer.train()
    assert trainer.state.best_global_step == callback.training.step == 2
    assert {check.density for check in mt.check_sparsity(model)} == {0.5}


def test_what_cannot_be_resumed(tmp_path):
    given = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}

    def resume(*callbacks, **options):
        trainer = trainer_of(sparse_bert(), tmp_path, *callbacks, **{**given, **options})
        try:
            trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
        finally:  # its optimizer is free
            for layer in mt.masked_layers(trainer.model):
                layer.masked.dense = False
            mt.SparseTraining(trainer.model, trainer.optimizer.optimizer)

    trainer_of(sparse_bert(), tmp_path, **given).train()
    with pytest.raises(OptionError, match=r"step 1 was taken without a SparseTrainingCallback"):
        resume(SparseTrainingCallback())
    callback = SparseTrainingCallback(dense_after=1.0, on_update=lambda _: None)
    trainer_of(sparse_bert(), tmp_path, callback, **given).train()
    with pytest.raises(OptionError, match="made this callback anew, without on_update: leave it"):
        resume(callback, restore_callback_states_from_checkpoint=True)
    with pytest.raises(OptionError, match="other options: dense_after is 3 here, 2 there"):
        resume(SparseTrainingCallback(dense_after=1.0), max_steps=3)
    resume(SparseTrainingCallback(dense_after=2), max_steps=3)


def test_a_model_without_masks_is_refused(tmp_path):
    trainer = trainer_of(bert(), tmp_path, SparseTrainingCallback(), max_steps=1)
    with pytest.raises(OptionError, match=r"has no masks; masksolve\.torch\.sparsify puts them on"):
        trainer.train()
    mt.sparsify(trainer.model, 2, 4)
    trainer.train()


@pytest.mark.parametrize("missing", ["accelerate.optimizer", "transformers"])
def test_what_it_needs_is_named(monkeypatch, missing):
    monkeypatch.delitem(sys.modules, "masksolve.torch.hugging_face")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependencyError, match=r'pip install "masksolve\[hugging-face\]"'):
        importlib.import_module("masksolve.torch.hugging_face")
