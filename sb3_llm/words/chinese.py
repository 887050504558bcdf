"""The Chinese words: for every meaning those of the corpus, and those kept out of it."""

# ruff: noqa: RUF001  (Chinese has a punctuation of its own)

from itertools import product

from sb3_llm.words.chinese_templates import HELD_TEMPLATES, MARKS, TEMPLATES
from sb3_llm.words.pools import Language, Pool

PHRASES = {
    "turn left": Pool(("向左转", "左转", "往左转", "朝左转"), ("向左旋转", "左拐")),
    "turn right": Pool(("向右转", "右转", "往右转", "朝右转"), ("向右旋转", "右拐")),
    "go forward": Pool(("向前走", "前进", "往前走", "走一步"), ("朝前移动", "前移一格")),
    "pick up": Pool(("捡起", "拿起", "拾起", "捡起来"), ("抓取", "取走")),
    "drop": Pool(("放下", "丢下", "扔下", "搁下"), ("松开", "放手")),
    "open": Pool(("打开", "开启", "开", "使用"), ("开关一下", "开动")),
    "done": Pool(("完成", "结束", "做完了", "说完成"), ("全部做好", "停止")),
    "north": Pool(("向北走", "往北走", "北", "朝北走"), ("向北移动", "北行")),
    "south": Pool(("向南走", "往南走", "南", "朝南走"), ("向南移动", "南行")),
    "east": Pool(("向东走", "往东走", "东", "朝东走"), ("向东移动", "东行")),
    "west": Pool(("向西走", "往西走", "西", "朝西走"), ("向西移动", "西行")),
}

NOUNS = {
    "key": Pool(("钥匙", "锁匙", "开锁器"), ("门卡", "阿夫泽")),
    "ball": Pool(("球", "圆球", "球体", "珠子"), ("弹丸", "椅子", "达克斯")),
    "box": Pool(("盒子", "箱子", "匣子", "柜子"), ("纸盒", "书包", "汽车", "佐洛")),
    "door": Pool(("门", "房门", "门扇", "大门"), ("闸门", "入口")),
    "goal": Pool(("终点", "目的地", "旗子", "出口"), ("靶子", "归宿")),
    "lava": Pool(("岩浆", "熔岩", "火海"), ("火焰", "强酸")),
    "wall": Pool(("墙", "墙壁", "石墙", "砖墙"), ("隔板", "围栏")),
    "opening": Pool(("缺口", "开口", "豁口"), ("洞口", "裂口")),
    "floor": Pool(("地板", "空地"), ("路面",)),
    "unseen": Pool(("未知处", "看不见处"), ("盲区",)),
    "object": Pool(("物体", "东西", "物品"), ("物件", "玩意")),
    "empty": Pool(("空格",)),
    "agent": Pool(("自己",)),
    "open": Pool(("开着", "敞开"), ("洞开",)),
    "closed": Pool(("关着", "关上"), ("紧闭",)),
    "locked": Pool(("锁着", "上锁"), ("锁死", "锁住")),
}

COLORS = {
    "red": Pool(("红色", "大红色", "赤色"), ("朱砂色", "法泽色")),
    "green": Pool(("绿色", "草绿色", "翠绿色"), ("玉色", "亚图色")),
    "blue": Pool(("蓝色", "天蓝色", "深蓝色"), ("青色", "克罗色")),
    "purple": Pool(("紫色", "紫红色", "茄色"), ("罗兰色", "沃斯色")),
    "yellow": Pool(("黄色", "米黄色", "橙黄色"), ("金色", "加库色")),
    "grey": Pool(("灰色", "深灰色", "炭色"), ("银色", "西尔色")),
}

MISSIONS = {
    "reach": Pool(("到达{goal}", "去{goal}", "走到{goal}", "找到{goal}"), ("前往{goal}", "赶到{goal}")),
    "lava": Pool(
        ("避开{lava}，{reach}", "{reach}，别碰{lava}", "绕开{lava}，{reach}", "{reach}，小心{lava}"),
        ("离{lava}远点，{reach}", "{reach}，不要踩{lava}"),
    ),
    "opening": Pool(
        ("找到{opening}，{reach}", "穿过{opening}，{reach}", "从{opening}过去，{reach}", "先找{opening}，{reach}"),
        ("通过{opening}，{reach}", "{reach}，要走{opening}"),
    ),
    "key": Pool(
        (
            "用{key}打开{door}，{reach}",
            "拿{key}开{door}，{reach}",
            "先拿{key}，打开{door}，{reach}",
            "捡起{key}，打开{door}，{reach}",
        ),
        ("找{key}来开{door}，{reach}", "{reach}，先用{key}把{door}打开"),
    ),
    "rooms": Pool(
        ("穿过各个房间，{reach}", "走过房间，{reach}", "一间一间走，{reach}", "过了所有房间，{reach}"),
        ("走遍房间，{reach}", "{reach}，要过几个房间"),
    ),
    "locked": Pool(
        (
            "从{room}的房间拿{color}的{key}，打开{color}的{door}，{reach}",
            "去{room}的房间取{color}的{key}，开{color}的{door}，{reach}",
            "用{room}的房间里{color}的{key}打开{color}的{door}，{reach}",
        ),
        (
            "到{room}的房间找{color}的{key}，用来开{color}的{door}，{reach}",
            "{reach}，先在{room}的房间捡{color}的{key}，把{color}的{door}打开",
        ),
    ),
    "go to": Pool(("走到{a}旁边", "去{a}那里", "到{a}前面", "走近{a}", "走向{a}"), ("靠近{a}", "来到{a}跟前")),
    "say done": Pool(
        ("{go}，说完成", "{go}，然后说完成", "{go}，再说做完了", "{go}并说完成"), ("{go}，到了就说", "{go}，最后说一声")
    ),
    "pick up": Pool(("捡起{a}", "拿起{a}", "把{a}捡起来", "取来{a}", "拿到{a}"), ("拿走{a}", "把{a}拿在手里")),
    "open": Pool(("打开{a}", "把{a}打开", "开启{a}", "去开{a}"), ("弄开{a}", "让{a}开着")),
    "put next": Pool(
        ("把{a}放到{b}旁边", "将{a}放在{b}旁", "把{a}搬到{b}那里", "把{a}摆在{b}边上"),
        ("让{a}挨着{b}", "把{a}送到{b}身边"),
    ),
    "then": Pool(("先{x}，再{y}", "{x}，然后{y}", "{x}之后{y}", "{y}之前先{x}"), ("{x}，接着{y}", "等{x}完了就{y}")),
    "both": Pool(("{x}，并且{y}", "{x}，还要{y}", "{x}和{y}都要做", "{x}，也{y}"), ("{x}，另外{y}", "{x}以及{y}")),
    "match": Pool(
        (
            "走到走廊尽头相同的{object}旁边",
            "去走廊尽头，找一样的{object}",
            "记住开头的{object}，到尽头找同样的",
            "去走廊尽头和开头相同的{object}那里",
        ),
        ("走到跟开头那个一样的{object}前", "认准开头的{object}，去尽头找它"),
    ),
    "roam": Pool(("随便走走", "到处看看", "自由探索", "想做什么就做什么"), ("四处走动", "随意看看")),
    "front": Pool(("你前面", "你前方", "前面"), ("你正前", "面对")),
    "behind": Pool(("你后面", "你后方", "后面"), ("你身后", "背后")),
    "left": Pool(("你左边", "你左面", "左边"), ("你左侧", "左手边")),
    "right": Pool(("你右边", "你右面", "右边"), ("你右侧", "右手边")),
}

#: The 3,755 common characters, level 1 of GB 2312: of them invented words are made.
COMMON = tuple(
    bytes(pair).decode("gb2312") for pair in product(range(0xB0, 0xD8), range(0xA1, 0xFF)) if pair < (0xD7, 0xFA)
)

CHINESE = Language(
    name="zh",
    phrases=PHRASES,
    nouns=NOUNS,
    colors=COLORS,
    missions=MISSIONS,
    templates=TEMPLATES,
    held_templates=HELD_TEMPLATES,
    marks=MARKS,
    compass={"north": "北", "south": "南", "east": "东", "west": "西"},
    thing_order=("color", "state", "kind"),
    thing_glue="的",
    located="{location}的{thing}",
    action="动作{}",
    keeps_unknown=False,
    syllables=(COMMON, COMMON, ("",) * len(COMMON) + COMMON),
    color_suffix="色",
)
