"""The embedded model's tokenizer: byte-level BPE, so any text can be read, learnt from the corpus."""

from collections.abc import Iterable

from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

END = "<|end|>"


def train_tokenizer(texts: Iterable[str], vocab_size: int, context: int) -> PreTrainedTokenizerFast:
    """
    :param texts: what it is to compress
    :param vocab_size: how many tokens, the 256 bytes and the end mark included
    :param context: the model's context length, in tokens
    :return: a tokenizer that adds no special tokens
    """
    core = ByteLevelBPETokenizer(add_prefix_space=False)
    core.train_from_iterator(texts, vocab_size=vocab_size, special_tokens=[END], show_progress=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=core._tokenizer,
        eos_token=END,
        pad_token=END,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
