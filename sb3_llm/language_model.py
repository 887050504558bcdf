"""The base model: loading it from the package, a folder or the hub, with dropout off and every bad input named."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING
from transformers.utils import logging as transformers_logging

from sb3_llm.errors import SetupError

EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
CAUSAL_LM = 'a causal language model: "embedded", a local folder, or a hub name such as "Qwen/Qwen3-0.6B"'
# transformers 5 builds an empty tokenizer, without a word, from a folder that holds none of these.
TOKENIZER_FILES = ("tokenizer.*", "vocab*", "*.model", "*.tiktoken", "tekken.json")
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length")


def load_language_model(
    model: str, revision: str | None = None, dtype: str = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    Load a causal language model and its tokenizer, with every dropout off.

    Dropout stays off in training mode too: PPO compares the probabilities of the rollout with those of the update, and
    GPT-2's default dropout alone moves the mean log ratio by 0.7 at identical weights.

    :param model: ``"embedded"``, a local folder, or a hub name
    :param revision: branch, tag or commit of a hub model
    :param dtype: ``"float32"``, ``"bfloat16"`` or ``"float64"``, of the weights
    :return: the language model, in evaluation mode on the CPU, and its tokenizer
    :raises SetupError: if the name, the folder's contents, the architecture or the dtype can't be used
    """
    if dtype not in DTYPES:
        raise SetupError(f"dtype={dtype!r}", f"one of {', '.join(map(repr, DTYPES))}", 'leave it at "float32" on a CPU')
    source = _locate(model, revision)
    options = {"revision": revision, "trust_remote_code": False, "local_files_only": isinstance(source, Path)}
    with _quiet():
        config = _load_config(str(source), options)
        _require_causal(config, str(source))
        zero_dropouts(config)  # before the model is built
        tokenizer = _load_tokenizer(str(source), options)
        lm = _load_weights(str(source), config, DTYPES[dtype], options)
    _require_rows_for(tokenizer, lm, str(source))
    zero_dropouts(lm)  # what the configuration did not reach
    return lm, tokenizer


def context_length(config: PreTrainedConfig) -> int | None:
    """
    Say how many tokens a model can attend to.

    :param config: configuration of a language model
    :return: tokens, or ``None`` where the configuration sets no limit (BLOOM, Mamba)
    """
    text_config = config.get_text_config()
    found = [getattr(text_config, key, None) for key in CONTEXT_KEYS]
    limits = [value for value in found if isinstance(value, int) and value > 0]
    return min(limits) if limits else None


def _locate(model: str, revision: str | None) -> Path | str:
    """Return a folder that exists, or a hub name."""
    if not isinstance(model, str) or not model.strip():
        raise SetupError(f"model={model!r}", CAUSAL_LM, 'pass model="embedded"')
    folder = EMBEDDED_FOLDER if model == "embedded" else Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise SetupError(
                f"revision={revision!r} with the folder {model!r}", "a revision only with a hub name", "drop revision"
            )
        return folder
    looks_like_a_path = model.startswith((".", "/", "~")) or "\\" in model or model.count("/") > 1 or folder.exists()
    if looks_like_a_path:
        raise SetupError(
            f"model={model!r}, which is no existing folder",
            CAUSAL_LM,
            "check the path for a typo; to load a zip whose model has moved, name its new folder: "
            "PPO.load(path, custom_objects={'policy_kwargs': {'model': 'NEW/FOLDER'}})",
        )
    return model


def _load_config(source: str, options: dict[str, Any]) -> PreTrainedConfig:
    if options["local_files_only"] and not (Path(source) / "config.json").is_file():
        raise SetupError(
            f"the folder {source!r} has no config.json",
            CAUSAL_LM,
            "save a model there with lm.save_pretrained(folder) and tokenizer.save_pretrained(folder)",
        )
    try:
        return AutoConfig.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(source, options, "configuration", error) from error


def _require_causal(config: PreTrainedConfig, source: str) -> None:
    """Refuse what AutoModelForCausalLM would load all the same: half an encoder-decoder, or an untrained head."""
    mend = "choose a causal language model, such as the one that ships in the package: model='embedded'"
    kind = f"{source!r} holds a {config.model_type!r} model"
    if config.is_encoder_decoder:
        raise SetupError(f"{kind}, an encoder-decoder", CAUSAL_LM, mend)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise SetupError(f"{kind}, for which transformers has no causal language model", CAUSAL_LM, mend)
    entry: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    causal_classes = {each.__name__ for each in (entry if isinstance(entry, tuple) else (entry,)) if each}
    architectures = config.architectures or sorted(causal_classes)
    # Encoders share a class with their decoder twins: without is_decoder every token sees the tokens after it.
    bidirectional = type(config) in MODEL_FOR_MASKED_LM_MAPPING and getattr(config, "is_decoder", None) is False
    if bidirectional or causal_classes.isdisjoint(architectures):
        raise SetupError(f"{kind} saved as {', '.join(architectures)}, not a causal one", CAUSAL_LM, mend)


def _load_tokenizer(source: str, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    if options["local_files_only"] and not any(any(Path(source).glob(pattern)) for pattern in TOKENIZER_FILES):
        raise SetupError(
            f"the folder {source!r} has no tokenizer",
            "the tokenizer's files (tokenizer.json, tokenizer_config.json) beside the weights",
            "call tokenizer.save_pretrained(folder)",
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except Exception as error:  # tokenizer files of the wrong kind fail in many ways, down to bare Exception
        raise _unusable(source, options, "tokenizer", error) from error
    ids = tokenizer("turn left", add_special_tokens=False)["input_ids"]
    if not ids or set(ids) == {tokenizer.unk_token_id}:
        raise SetupError(
            f"{source!r} has a tokenizer that knows no token of 'turn left'",
            "the tokenizer the model was trained with, beside its weights",
            "call tokenizer.save_pretrained(folder)",
        )
    return tokenizer


def _load_weights(
    source: str, config: PreTrainedConfig, dtype: torch.dtype, options: dict[str, Any]
) -> PreTrainedModel:
    if options["local_files_only"]:
        _require_safetensors(Path(source))
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise _unusable(source, options, "weights", error) from error
    lm, found = loaded
    absent = sorted(map(str, found["missing_keys"]))
    if absent:
        raise SetupError(
            f"the weights of {source!r} lack {len(absent)} of the model's tensors, {absent[0]!r} the first",
            "a complete checkpoint: transformers fills what is absent with random numbers",
            "save the whole model with lm.save_pretrained(folder)",
        )
    return lm


def _require_safetensors(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    found = f"only pickle weights ({pickled[0]})" if pickled else "no weights"
    raise SetupError(
        f"the folder {str(folder)!r} has {found}",
        "weights as safetensors (model.safetensors), because unpickling runs code from the file",
        "load the model where you trust it and call lm.save_pretrained(folder)",
    )


def _require_rows_for(tokenizer: PreTrainedTokenizerBase, lm: PreTrainedModel, source: str) -> None:
    embeddings: Any = lm.get_input_embeddings()
    rows = embeddings.weight.shape[0]
    if len(tokenizer) > rows:
        raise SetupError(
            f"{source!r} has a tokenizer of {len(tokenizer)} tokens and a model of {rows} embedding rows",
            "at least one row for each token",
            "save the tokenizer the model was trained with, or call lm.resize_token_embeddings(len(tokenizer))",
        )


def _unusable(source: str, options: dict[str, Any], part: str, error: Exception) -> SetupError:
    """Turn a failure of transformers into one sentence on what was asked for and why it failed."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
    if options["local_files_only"]:
        return SetupError(
            f"the {part} in the folder {source!r} can't be loaded: {reason}",
            CAUSAL_LM,
            "save model and tokenizer again with save_pretrained(folder)",
        )
    revision = f" at revision {options['revision']!r}" if options["revision"] else ""
    return SetupError(
        f"the {part} of the hub model {source!r}{revision} could not be fetched: {reason}",
        CAUSAL_LM,
        'check the spelling and the network; without one use model="embedded" or a local folder, which needs a path',
    )


def dropouts(owner: Any, place: str = "") -> Iterator[tuple[dict[str, Any], str, str]]:
    """
    Find every dropout probability above 0: of a configuration, its parts and dicts, or of a model's modules, where some
    are hard-coded, and some are attributes of functional dropout (OPT).

    :param owner: a configuration, a dict of one, or a module
    :param place: its name
    :return: where each is held, under which key, and its whole name
    """
    if isinstance(owner, nn.Module):
        held = [
            (name, vars(module), isinstance(module, nn.modules.dropout._DropoutNd))
            for name, module in owner.named_modules()
        ]
    else:
        held = [(place, owner if isinstance(owner, dict) else vars(owner), False)]
    for name, entries, dropping in held:
        for key, value in entries.items():
            if isinstance(value, (dict, PreTrainedConfig)) and not isinstance(owner, nn.Module):
                yield from dropouts(value, f"{name}.{key}")
            elif isinstance(value, float) and value > 0 and ("drop" in str(key).lower() or (dropping and key == "p")):
                yield entries, key, f"{name}.{key}"


def zero_dropouts(owner: Any) -> None:
    """:param owner: as :func:`dropouts` takes it; every probability in it becomes 0"""
    for entries, key, _ in list(dropouts(owner)):
        entries[key] = 0.0


@contextmanager
def _quiet() -> Iterator[None]:
    """
    Silence transformers' notes and its weight-loading bar, and give back the user's settings afterwards.

    Both settings are global in transformers. The bars of hub downloads belong to huggingface_hub and stay: a person who
    fetches gigabytes wants to see them move.
    """
    verbosity = transformers_logging.get_verbosity()
    hook = transformers_logging.set_tqdm_hook(lambda factory, args, kwargs: transformers_logging.EmptyTqdm(*args))
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.set_tqdm_hook(hook)
