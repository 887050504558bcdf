"""The embedded model's tokenizer: byte-level BPE, so any text can be read, learnt from the corpus."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END = "<|end|>"
#: Chinese has no spaces: without this split whole clauses become one token, in which nothing can be looked up.
ONE_CHARACTER = pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated")


def train_tokenizer(texts: Iterable[str], vocab_size: int, context: int) -> PreTrainedTokenizerFast:
    """
    :param texts: what it is to compress
    :param vocab_size: how many tokens, the 256 bytes and the end mark included
    :param context: the model's context length, in tokens
    :return: a tokenizer that adds no special tokens
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence([ONE_CHARACTER, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END,
        pad_token=END,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
