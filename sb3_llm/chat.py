"""A tokenizer's own chat template, rendered once around a text that stands for the observation."""

from transformers import PreTrainedTokenizerBase

from sb3_llm.errors import SetupError

Messages = list[dict[str, str]]

# Stands for the observation text while a chat template is rendered; its capitals, signs and lines show a template that
# changes text.
STAND_IN = "{An <observation>\n & its  TEXT}"
REPLY = "Reply"

# Some chat templates write today's date, and a policy must not read another prompt tomorrow than it was trained on.
# This stands in front of theirs: transformers lets no function in through the template's variables.
FIXED_DATE = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro +%}"

MOVE_SYSTEM = 'put the "system" text at the start of "user" and leave "system" out'
USE_STR = 'write the chat\'s marks into a str template: template="... {observation} ..."'


def render_up_to_reply(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> str:
    """
    Render a chat up to where the reply begins, and see that every text went through it unchanged, once.

    :param tokenizer: tokenizer with a chat template
    :param messages: roles and contents; that of "user" holds the stand-in for the observation
    :return: the chat as text, special tokens written out
    :raises SetupError: if there is no chat template, or it fails, or drops, changes or doubles a text
    """
    if not getattr(tokenizer, "chat_template", None):
        raise SetupError(
            f"a dict as template, and a tokenizer ({type(tokenizer).__name__}) without a chat template",
            "an instruction-tuned model, whose tokenizer has one",
            f"pass a str as template, or {USE_STR}",
        )
    try:
        rendered = _render(tokenizer, messages, add_generation_prompt=True)
    except Exception as error:  # chat templates are programs, and fail as they like
        given = f"the tokenizer's chat template failed with {type(error).__name__}: {error}"
        mend = MOVE_SYSTEM if messages[0]["role"] == "system" else USE_STR
        raise SetupError(given, "a chat template that takes these turns", mend) from error
    for message in messages:
        _require_unchanged(message, rendered)
    return rendered


def written_join(tokenizer: PreTrainedTokenizerBase, messages: Messages, head: str) -> str | None:
    """
    Find the white space that the chat template itself writes between a prompt and a reply.

    :param tokenizer: tokenizer with a chat template
    :param messages: the chat up to the reply
    :param head: the same, rendered, without blanks at its end
    :return: white space or nothing; ``None`` if it does not show, as where only prompts hold an empty thought
    """
    try:
        whole = _render(tokenizer, [*messages, {"role": "assistant", "content": REPLY}], add_generation_prompt=False)
    except Exception:  # it writes prompts only; the caller has another rule
        return None
    join, found, _ = whole[len(head) :].partition(REPLY)
    return join if whole.startswith(head) and found and not join.strip() else None


def _require_unchanged(message: dict[str, str], rendered: str) -> None:
    is_user = message["role"] == "user"
    if message["content"].strip() in rendered and (not is_user or rendered.count(STAND_IN) == 1):
        return
    raise SetupError(
        f"the tokenizer's chat template drops, changes or doubles the {message['role']!r} text: {rendered!r}",
        "the text as it is, once",
        USE_STR if is_user else MOVE_SYSTEM,
    )


def _render(tokenizer: PreTrainedTokenizerBase, messages: Messages, add_generation_prompt: bool) -> str:
    chat_template = tokenizer.get_chat_template()
    if "strftime_now" in chat_template:
        chat_template = FIXED_DATE + chat_template
    rendered = tokenizer.apply_chat_template(
        messages,
        chat_template=chat_template,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        enable_thinking=False,  # Qwen3's switch: a phrase is scored as the answer, not as the start of thoughts
    )
    return str(rendered)
