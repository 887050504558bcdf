"""Loading: dropout never runs, nothing is printed, and each bad input is named with its mend."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2Model,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils import logging as transformers_logging

from sb3_llm.errors import SetupError
from sb3_llm.language_model import (
    context_length,
    load_language_model,
    zero_dropouts,
)
from tests.tiny import byte_level_tokenizer, save_language_model, tiny_config, tiny_lm

DROPOUT = {
    "gpt2": {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5},
    "opt": {"dropout": 0.5, "attention_dropout": 0.5, "layerdrop": 0.5},
    "llama": {"attention_dropout": 0.5},
    "mpt": {"resid_pdrop": 0.5, "emb_pdrop": 0.5},
}


def saved(folder: Path, kind: str = "gpt2", with_tokenizer: bool = True, **options: object) -> Path:
    tokenizer = byte_level_tokenizer()
    lm = tiny_lm(kind, len(tokenizer), torch.float32, **options)  # type: ignore[arg-type]
    save_language_model(folder, lm, tokenizer if with_tokenizer else None)
    return folder


@pytest.mark.parametrize("kind", DROPOUT)
def test_dropout_never_runs(kind: str, tmp_path: Path) -> None:
    saved(tmp_path, kind, **DROPOUT[kind])
    lm, tokenizer = load_language_model(str(tmp_path))
    lm.train()
    ids = torch.tensor([tokenizer("You see a wall. Action:")["input_ids"]])
    with torch.no_grad():
        first, second = lm(ids).logits, lm(ids).logits
    assert torch.equal(first, second)
    lm.eval()
    assert torch.equal(first, lm(ids).logits)
    assert all(module.p == 0 for module in lm.modules() if isinstance(module, nn.Dropout))


def test_the_saved_model_would_drop_out_without_care(tmp_path: Path) -> None:
    """The test above means something: the same model, loaded plainly, gives two answers."""
    lm = AutoModelForCausalLM.from_pretrained(saved(tmp_path, "opt", **DROPOUT["opt"])).train()
    ids = torch.tensor([[5, 6, 7]])
    assert not torch.equal(lm(ids).logits, lm(ids).logits)


def test_dropout_is_off_in_nested_configurations() -> None:
    config = tiny_config("mpt", 100, emb_pdrop=0.5)
    vars(config.attn_config)["attn_pdrop"] = 0.5
    config.vision = {"dropout_rate": 0.5, "layers": 2}
    zero_dropouts(config)
    assert (config.attn_config.attn_pdrop, config.emb_pdrop) == (0.0, 0.0)
    assert config.vision == {"dropout_rate": 0.0, "layers": 2}


def test_dropout_is_off_where_no_configuration_reaches() -> None:
    layer = nn.Sequential(nn.Dropout(0.5))
    layer.activation_dropout = 0.5  # type: ignore[assignment]
    zero_dropouts(layer)
    assert (layer[0].p, layer.activation_dropout) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float64", torch.float64)],
)
def test_dtype_is_that_of_the_weights(dtype: str, expected: torch.dtype, tmp_path: Path) -> None:
    lm, _ = load_language_model(str(saved(tmp_path, "llama")), dtype=dtype)
    assert {parameter.dtype for parameter in lm.parameters()} == {expected}
    assert not lm.training


def test_weights_are_those_saved(tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer()
    lm = tiny_lm("llama", len(tokenizer), torch.float32)
    loaded, read = load_language_model(save_language_model(tmp_path, lm, tokenizer))
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in lm.state_dict().items())
    assert read("You see a wall")["input_ids"] == tokenizer("You see a wall")["input_ids"]


def test_embedded_is_the_packages_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_llm.language_model.EMBEDDED_FOLDER", saved(tmp_path / "weights"))
    lm, _ = load_language_model("embedded")
    assert lm.config.model_type == "gpt2"


def test_quiet_and_the_users_settings_are_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path)
    capfd.readouterr()
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_info()

    def hook(factory: Any, args: tuple, kwargs: dict) -> Any:
        return factory(*args, **kwargs)

    transformers_logging.set_tqdm_hook(hook)
    try:
        load_language_model(str(tmp_path))
        with pytest.raises(SetupError):
            load_language_model(str(tmp_path / "absent"))
        assert transformers_logging.get_verbosity() == transformers_logging.INFO
        assert transformers_logging.set_tqdm_hook(None) is hook
    finally:
        transformers_logging.set_tqdm_hook(None)
        transformers_logging.set_verbosity(before)
    out, err = capfd.readouterr()
    assert out + err == ""


# -- bad inputs --------------------------------------------------------------------------------------------------------


def no_config(folder: Path) -> None:
    byte_level_tokenizer().save_pretrained(folder)


def no_tokenizer(folder: Path) -> None:
    saved(folder, with_tokenizer=False)


def pickle_weights(folder: Path) -> None:
    saved(folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def no_weights(folder: Path) -> None:
    saved(folder)
    (folder / "model.safetensors").unlink()


def damaged_weights(folder: Path) -> None:
    saved(folder)
    (folder / "model.safetensors").write_bytes(b"not safetensors")


def damaged_config(folder: Path) -> None:
    saved(folder)
    (folder / "config.json").write_text("{")


def damaged_tokenizer(folder: Path) -> None:
    saved(folder)
    (folder / "tokenizer.json").write_text("{")


def unknown_architecture(folder: Path) -> None:
    saved(folder)
    (folder / "config.json").write_text('{"model_type": "abacus"}')


def half_the_weights(folder: Path) -> None:
    saved(folder)
    wider = tiny_config("gpt2", 340, n_layer=3)
    wider.architectures = ["GPT2LMHeadModel"]
    wider.save_pretrained(folder)


def other_shapes(folder: Path) -> None:
    saved(folder)
    wider = tiny_config("gpt2", 340, n_embd=64)
    wider.architectures = ["GPT2LMHeadModel"]
    wider.save_pretrained(folder)


def encoder_decoder(folder: Path) -> None:
    config = T5Config(vocab_size=340, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    save_language_model(folder, T5ForConditionalGeneration(config), byte_level_tokenizer())


def masked_lm(folder: Path) -> None:
    config = BertConfig(
        vocab_size=340, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    save_language_model(folder, BertForMaskedLM(config), byte_level_tokenizer())


def bare_bert_head(folder: Path) -> None:
    masked_lm(folder)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace("BertForMaskedLM", "BertLMHeadModel"))


def no_head(folder: Path) -> None:
    config = GPT2Config(vocab_size=340, n_embd=16, n_layer=1, n_head=2)
    save_language_model(folder, GPT2Model(config), byte_level_tokenizer())


def empty_tokenizer(folder: Path) -> None:
    saved(folder, with_tokenizer=False)
    (folder / "vocab.json").write_text("{}")
    (folder / "merges.txt").write_text("")


def tokenizer_of_another_model(folder: Path) -> None:
    save_language_model(folder, tiny_lm("gpt2", 60, torch.float32), byte_level_tokenizer())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_config, "no config.json"),
        (no_tokenizer, "no tokenizer"),
        (empty_tokenizer, "knows no token of 'turn left'"),
        (damaged_tokenizer, "the tokenizer in the folder"),
        (tokenizer_of_another_model, "tokenizer of 340 tokens and a model of 60"),
        (pickle_weights, "only pickle weights .pytorch_model.bin.*safetensors"),
        (no_weights, "no weights"),
        (damaged_weights, "the weights in the folder"),
        (half_the_weights, "lack 1[0-9] of the model's tensors, 'transformer.h.2"),
        (other_shapes, "the weights in the folder"),
        (damaged_config, "the configuration in the folder"),
        (unknown_architecture, "abacus"),
        (encoder_decoder, "'t5' model, an encoder-decoder"),
        (masked_lm, "saved as BertForMaskedLM, not a causal one"),
        (bare_bert_head, "saved as BertLMHeadModel, not a causal one"),
        (no_head, "saved as GPT2Model, not a causal one"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_folders(make: object, words: str, tmp_path: Path) -> None:
    make(tmp_path)  # type: ignore[operator]
    with pytest.raises(SetupError, match=words) as caught:
        load_language_model(str(tmp_path))
    assert "To mend it" in str(caught.value)


@pytest.mark.parametrize(
    "model", ["./no/such/folder", "/no/such/folder", "~/no_such_folder", "no\\such", "no/such/folder", "a_file"]
)
def test_paths_that_are_no_folder(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a_file").touch()
    with pytest.raises(SetupError, match="no existing folder"):
        load_language_model(model)


@pytest.mark.parametrize("model", ["", "  ", None])
def test_no_model(model: str | None) -> None:
    with pytest.raises(SetupError, match="model="):
        load_language_model(model)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["nobody/no-such-model", "no-such-model", "not a name"])
def test_hub_name_that_cannot_be_fetched(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SetupError, match=f"hub model '{model}' could not be fetched") as caught:
        load_language_model(model)
    assert '"embedded"' in str(caught.value)
    assert "local folder" in str(caught.value)


def test_hub_error_names_the_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SetupError, match="at revision 'v2'"):
        load_language_model("nobody/no-such-model", revision="v2")


def test_unknown_dtype_and_revision_of_a_folder(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(SetupError, match=r"dtype='half'.*'float32', 'bfloat16', 'float64'"):
        load_language_model(str(tmp_path), dtype="half")
    with pytest.raises(SetupError, match="revision only with a hub name"):
        load_language_model(str(tmp_path), revision="main")


@pytest.mark.parametrize(
    ("kind", "length"), [("gpt2", 256), ("llama", 256), ("mpt", 256), ("opt", 256), ("bloom", None)]
)
def test_context_length(kind: str, length: int | None) -> None:
    assert context_length(tiny_config(kind, 100)) == length
