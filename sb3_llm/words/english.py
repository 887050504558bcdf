"""The English words: for every meaning those of the corpus, and those kept out of it."""

from sb3_llm.words.english_held_templates import HELD_TEMPLATES, MARKS
from sb3_llm.words.english_templates import TEMPLATES
from sb3_llm.words.pools import Language, Pool

# Held out are the action synonyms of GLAM's test (arXiv 2302.02662, table of prompts) and others. They are made of
# words that stand elsewhere in the corpus, so that a reader can know what they mean.
PHRASES = {
    "turn left": Pool(
        ("turn left", "turn to the left", "face left", "spin left", "swing left"), ("rotate left", "twist left")
    ),
    "turn right": Pool(
        ("turn right", "turn to the right", "face right", "spin right", "swing right"), ("rotate right", "twist right")
    ),
    "go forward": Pool(
        ("go forward", "walk forward", "step forward", "go ahead", "go straight on", "advance"),
        ("move ahead", "walk straight"),
    ),
    "pick up": Pool(("pick up", "grab", "lift", "pick it up", "get"), ("take", "fetch")),
    "drop": Pool(("drop", "put down", "set down", "lay down", "let go"), ("release", "leave")),
    "open": Pool(("open", "toggle", "use", "open it", "operate"), ("switch", "unlock")),
    "done": Pool(("done", "finished", "say done", "stop", "all done"), ("complete", "end")),
    "north": Pool(("north", "go north", "walk north", "head north", "step north"), ("move north", "travel north")),
    "south": Pool(("south", "go south", "walk south", "head south", "step south"), ("move south", "travel south")),
    "east": Pool(("east", "go east", "walk east", "head east", "step east"), ("move east", "travel east")),
    "west": Pool(("west", "go west", "walk west", "head west", "step west"), ("move west", "travel west")),
}

# GLAM's test nouns are chair, table and car, its invented words dax, xolo and afze.
NOUNS = {
    "key": Pool(("key", "latchkey", "passkey", "opener"), ("keycard", "unlocker", "afze")),
    "ball": Pool(("ball", "sphere", "orb", "globe", "marble"), ("pellet", "chair", "dax")),
    "box": Pool(("box", "crate", "chest", "case", "bin"), ("carton", "casket", "table", "car", "xolo")),
    "door": Pool(("door", "gate", "hatch", "doorway", "portal"), ("gateway", "entrance")),
    "goal": Pool(("goal", "target", "exit", "finish", "flag"), ("destination", "endpoint")),
    "lava": Pool(("lava", "magma", "fire", "molten rock"), ("flames", "acid")),
    "wall": Pool(("wall", "barrier", "stone", "brick"), ("partition", "boundary")),
    "opening": Pool(("opening", "gap", "passage", "way on"), ("hole", "breach")),
    "floor": Pool(("floor", "ground", "tile"), ("pavement",)),
    "unseen": Pool(("unseen", "unknown", "hidden"), ("obscured",)),
    "object": Pool(("object", "thing", "item"), ("article", "entity")),
    "empty": Pool(("empty",)),
    "agent": Pool(("agent",)),
    "open": Pool(("open", "opened"), ("wide-open", "ajar")),
    "closed": Pool(("closed", "shut"), ("unopened", "sealed")),
    "locked": Pool(("locked", "bolted", "barred"), ("latched", "fastened")),
}

COLORS = {
    "red": Pool(("red", "crimson", "scarlet", "ruby", "cherry"), ("vermilion", "faze")),
    "green": Pool(("green", "emerald", "olive", "lime", "mint"), ("jade", "jatu")),
    "blue": Pool(("blue", "azure", "navy", "sapphire", "cobalt"), ("cyan", "croh")),
    "purple": Pool(("purple", "lilac", "plum", "mauve", "lavender"), ("violet", "vurst")),
    "yellow": Pool(("yellow", "amber", "lemon", "mustard", "honey"), ("golden", "gakul")),
    "grey": Pool(("grey", "gray", "ash", "slate", "charcoal"), ("silver", "sil")),
}

MISSIONS = {
    "reach": Pool(
        ("reach the {goal}", "get to the {goal}", "go to the {goal}", "find the {goal}", "walk to the {goal}"),
        ("make it to the {goal}", "end up at the {goal}"),
    ),
    "lava": Pool(
        (
            "avoid the {lava} and {reach}",
            "{reach} without touching the {lava}",
            "{reach} but keep off the {lava}",
            "{reach} and mind the {lava}",
            "keep away from the {lava} and {reach}",
        ),
        ("{reach} and steer clear of the {lava}", "watch out for the {lava} and {reach}"),
    ),
    "opening": Pool(
        (
            "find the {opening} and {reach}",
            "{reach} through the {opening}",
            "look for the {opening} and {reach}",
            "pass the {opening} and {reach}",
            "go through the {opening} to {reach}",
        ),
        ("make use of the {opening} to {reach}", "{reach} by way of the {opening}"),
    ),
    "key": Pool(
        (
            "use the {key} to open the {door} and then {reach}",
            "open the {door} with the {key} and {reach}",
            "take the {key}, open the {door} and {reach}",
            "unlock the {door} with the {key}, then {reach}",
            "get the {key}, unlock the {door} and {reach}",
        ),
        ("find the {key} for the {door}, open it and {reach}", "{reach}, but first open the {door} with the {key}"),
    ),
    "rooms": Pool(
        (
            "traverse the rooms to {reach}",
            "go through the rooms and {reach}",
            "{reach} through all the rooms",
            "pass the rooms and {reach}",
            "walk from room to room and {reach}",
        ),
        ("cross one room after the other and {reach}", "{reach} on the far side of the rooms"),
    ),
    "locked": Pool(
        (
            "get the {color} {key} from the {room} room, unlock the {color} {door} and {reach}",
            "fetch the {color} {key} in the {room} room, open the {color} {door} and {reach}",
            "go to the {room} room for the {color} {key}, open the {color} {door} and {reach}",
            "open the {color} {door} with the {color} {key} of the {room} room and {reach}",
            "take the {color} {key} out of the {room} room, unlock the {color} {door} and {reach}",
        ),
        (
            "look in the {room} room for the {color} {key}, open the {color} {door} with it and {reach}",
            "{reach} behind the {color} {door}, whose {color} {key} is in the {room} room",
        ),
    ),
    "go to": Pool(
        ("go to {a}", "walk to {a}", "head for {a}", "approach {a}", "go and stand before {a}"),
        ("step up to {a}", "travel to {a}"),
    ),
    "say done": Pool(
        (
            "{go} and say done",
            "{go} and say that you are done",
            "{go}, then say done",
            "{go} and stop there",
            "{go} and report that you are there",
        ),
        ("{go} and tell me when you are there", "say done once you {go}"),
    ),
    "pick up": Pool(
        ("pick up {a}", "get {a}", "fetch {a}", "take {a}", "grab {a}", "lift {a}"),
        ("collect {a}", "get hold of {a}"),
    ),
    "open": Pool(
        ("open {a}", "go and open {a}", "get {a} open", "make {a} open", "see that {a} is open"),
        ("open up {a}", "pull {a} open"),
    ),
    "put next": Pool(
        (
            "put {a} next to {b}",
            "put {a} near {b}",
            "place {a} beside {b}",
            "set {a} down next to {b}",
            "bring {a} to {b}",
        ),
        ("lay {a} by the side of {b}", "carry {a} over to {b}"),
    ),
    "then": Pool(
        ("{x}, then {y}", "{y} after you {x}", "first {x}, then {y}", "{x} and after that {y}", "{x} before you {y}"),
        ("{x} and only then {y}", "{y} as soon as you {x}"),
    ),
    "both": Pool(
        ("{x} and {y}", "{x} and also {y}", "{x}, and {y} too", "both {x} and {y}", "{x} and, in any order, {y}"),
        ("{x} as well as {y}", "{x} plus {y}"),
    ),
    "match": Pool(
        (
            "go to the matching {object} at the end of the hallway",
            "find the same {object} at the end of the hallway",
            "remember the first {object} and go to its like at the end",
            "go to the {object} that matches the one you saw first",
            "go to the {object} at the end of the hallway that you know from the start",
        ),
        (
            "go to the {object} that is just like the first",
            "see the {object} at the start and find its double at the end",
        ),
    ),
    "roam": Pool(
        ("look around", "walk around freely", "do what you like", "explore", "see what there is"),
        ("go wherever you like", "have a look at the rooms"),
    ),
    "front": Pool(
        ("in front of you", "ahead of you", "before you", "to the front", "on the side you face"),
        ("that you are facing", "somewhere ahead"),
    ),
    "behind": Pool(
        ("behind you", "at your back", "behind your back", "to the back", "in the back"),
        ("on the side behind", "somewhere behind"),
    ),
    "left": Pool(
        ("on your left", "to your left", "on the left", "to the left", "at the left side"),
        ("on your left hand", "somewhere left"),
    ),
    "right": Pool(
        ("on your right", "to your right", "on the right", "to the right", "at the right side"),
        ("on your right hand", "somewhere right"),
    ),
    "article": Pool(("the", "a")),
}

#: Invented words have to be read letter by letter: from these come so many that no piece is met often.
ONSETS = (
    "b bl br c ch cl cr d dr dw f fl fr g gl gr h j k kl kn l m n p ph pl pr qu r s sc sh sk sl sm sn sp spr squ st "
    "str sw t th tr tw v w wh y z zh"
)
VOWELS = "a e i o u ai au ea ee ei ie oa oi oo ou ue"
CODAS = "b c ck ct d ff ft g ght k l ld lk ll lt m mp n nd nk nt p pt r rk rl rm rt s sk sp ss st t v x z"
ENDS = (
    "a ade age al ant ar ax ce de e ed el en ep er et ey ft ge ic ide ie im in is ize ke le ly ment min ne o on op "
    "or ous que se st t te ter tion ul ure ve xu y za"
)
SYLLABLES = tuple(tuple(part.split(" ")) for part in (ONSETS, VOWELS, CODAS, " " * ENDS.count(" ") + " " + ENDS))

ENGLISH = Language(
    name="en",
    phrases=PHRASES,
    nouns=NOUNS,
    colors=COLORS,
    missions=MISSIONS,
    templates=TEMPLATES,
    held_templates=HELD_TEMPLATES,
    marks=MARKS,
    compass={compass: compass for compass in ("north", "south", "east", "west")},
    thing_order=("state", "color", "kind"),
    thing_glue=" ",
    located="{thing} {location}",
    action="{}",
    keeps_unknown=True,
    syllables=SYLLABLES,
)
