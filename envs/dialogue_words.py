"""The dialogue's words in each language: slots and values, the system's acts, the user's sentences."""

# ruff: noqa: RUF001  (Chinese has a punctuation of its own)

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sb3_llm.envs.dialogue_user import UserAct
from sb3_llm.errors import SetupError

N_WORDINGS = 3


@dataclass(frozen=True)
class Slot:
    """What a restaurant has, or a booking of it."""

    name: str
    said: str  # how a value is put in a sentence
    values: tuple[str, ...]


@dataclass(frozen=True)
class Words:
    """One language."""

    slots: tuple[Slot, ...]
    ask: str
    confirm: str
    book: str
    user: Mapping[UserAct, tuple[str, str, str]]  # N_WORDINGS of each act
    extra: str  # added to a sentence that tells one slot more
    transcript: str  # who said what
    speakers: tuple[str, str]  # user, system
    right: str
    wrong: str
    comma: str

    @property
    def phrases(self) -> tuple[str, ...]:
        """:return: the system's acts: ask for each slot, confirm each slot, book."""
        names = [slot.name for slot in self.slots]
        return *map(self.ask.format, names), *map(self.confirm.format, names), self.book

    def value(self, slot: int, value: int) -> str:
        """:return: the name of a value, numbered from 1."""
        return self.slots[slot].values[value - 1]

    def put(self, slot: int, value: int) -> str:
        """:return: a value as the user puts it in a sentence, nothing for 0."""
        return self.slots[slot].said.format(self.value(slot, value)) if value else ""

    def table(self, values: list[int]) -> str:
        """:return: the values of all slots."""
        return self.comma.join(self.put(slot, value) for slot, value in enumerate(values) if value)

    def sentence(self, obs: Mapping[str, Any]) -> str:
        """
        :param obs: an observation of the dialogue
        :return: what the user was heard to say last
        """
        heard = [int(value) for value in obs["heard"]]
        slot, extra = int(obs["user_slot"]) - 1, int(obs["extra"]) - 1
        pattern = self.user[UserAct(int(obs["user_act"]))][int(obs["wording"])]
        said, denied = ("", "") if slot < 0 else (self.put(slot, heard[slot]), self.put(slot, int(obs["denied"])))
        added = "" if extra < 0 else self.extra.format(self.put(extra, heard[extra]))
        return pattern.format(said=said, denied=denied) + added


ENGLISH = Words(
    slots=(
        Slot("food", "{} food", ("italian", "chinese", "indian", "thai", "french", "greek")),
        Slot("area", "in the {}", ("north", "south", "east", "west", "middle")),
        Slot("people", "for {}", ("two", "three", "four", "five")),
        Slot("day", "on {}", ("monday", "tuesday", "wednesday", "thursday", "friday")),
    ),
    ask="ask for the {}",
    confirm="confirm the {}",
    book="book the restaurant",
    user={
        UserAct.GREET: (
            "hello, I want to book a restaurant",
            "a restaurant please",
            "hi, can you book a restaurant for me",
        ),
        UserAct.TELL: ("{said} please", "let us say {said}", "{said} would be good"),
        UserAct.YES: ("yes, {said}", "that is right", "yes please"),
        UserAct.NO: ("no, not {denied}", "that is wrong, not {denied}", "I did not say {denied}"),
        UserAct.CORRECT: (
            "no, not {denied}, {said} please",
            "not {denied}, I said {said}",
            "that is wrong, {said}, not {denied}",
        ),
        UserAct.CHANGE: ("wait, make that {said}", "I changed my mind, {said} please", "sorry, {said} would be better"),
        UserAct.PUZZLED: ("what do you mean", "I did not tell you yet", "sorry, what should I confirm"),
        UserAct.GOODBYE: ("goodbye", "thank you, goodbye", "bye"),
    },
    extra=", and {}",
    transcript="{}: {}.",
    speakers=("User", "System"),
    right="Booked: {booked}. That is right.",
    wrong="Booked: {booked}. Wanted: {wanted}.",
    comma=", ",
)

CHINESE = Words(
    slots=(
        Slot("菜系", "{}", ("意大利菜", "中国菜", "印度菜", "泰国菜", "法国菜", "希腊菜")),
        Slot("地区", "在{}", ("北区", "南区", "东区", "西区", "中心")),
        Slot("人数", "{}", ("两个人", "三个人", "四个人", "五个人")),
        Slot("日期", "{}", ("星期一", "星期二", "星期三", "星期四", "星期五")),
    ),
    ask="询问{}",
    confirm="确认{}",
    book="预订餐厅",
    user={
        UserAct.GREET: ("你好，我想订一家餐厅", "请给我订个位", "您好，可以帮我订位吗"),
        UserAct.TELL: ("{said}，谢谢", "我想要{said}", "{said}就好"),
        UserAct.YES: ("对，{said}", "没错", "是的"),
        UserAct.NO: ("不，不是{denied}", "不对，不要{denied}", "我没说{denied}"),
        UserAct.CORRECT: ("不，不是{denied}，是{said}", "不要{denied}，我说的是{said}", "不对，要{said}，不是{denied}"),
        UserAct.CHANGE: ("等一下，改成{said}", "我改主意了，要{said}", "抱歉，还是{said}更好"),
        UserAct.PUZZLED: ("您是什么意思", "我还没有告诉您", "抱歉，要我确认什么"),
        UserAct.GOODBYE: ("再见", "谢谢，再见", "拜拜"),
    },
    extra="，还有{}",
    transcript="{}：{}。",
    speakers=("用户", "系统"),
    right="已预订：{booked}。正确。",
    wrong="已预订：{booked}。想要的是：{wanted}。",
    comma="，",
)

LANGUAGES = {"en": ENGLISH, "zh": CHINESE}


def words_of(language: str) -> Words:
    """
    :param language: "en" or "zh"
    :return: its words
    :raises SetupError: for another
    """
    if not isinstance(language, str) or language not in LANGUAGES:
        raise SetupError(f"language={language!r}", f"one of {list(LANGUAGES)}", "pass language='en'")
    return LANGUAGES[language]
