"""Facts of a room and of a maze that several test files tell."""

from sb3_llm.words.facts import Free, MazePast, MazeView, Passage, Past, Rows, Spot, Thing, Trail, View
from sb3_llm.words.languages import LANGUAGES

KEYS = list(LANGUAGES["en"].phrases)
COMPASS = ("north", "south", "east", "west")
COLORS = list(LANGUAGES["en"].colors)

BALL, KEY, LOCKED = Thing("ball", "blue"), Thing("key", "red"), Thing("door", "red", "locked")
VIEW = View(
    compass="east",
    carrying=KEY,
    free=(Free("ahead", 3, Thing("wall")), Free("left", 0, LOCKED), Free("right", 2, None)),
    seen=(Spot(BALL, 3, -1, "left", 6), Spot(LOCKED, 0, -1, "here", 0), Spot(Thing("lava"), 2, 4)),
    floor=(Rows(0, 0, 0, 0), Rows(1, 5, -2, 1)),
)
PAST = Past(
    turns=("turn left", "go forward"),
    visits=2,
    untried=(Spot(Thing("opening"), 3, 0, "ahead", 4), Spot(Thing("door", "red", "closed"), -2, 4, "open", 3)),
    before=(Spot(Thing("box", "grey"), -3, 0, "right", 9),),
    deeds=(("reached", BALL), ("picked up", KEY)),
)
BARE = View(None, None, (Free("ahead", 0, Thing("wall")),), (), None)
MAZE = MazeView(
    south=3,
    east=2,
    row=1,
    column=2,
    passages=(
        Passage("north", "wall"),
        Passage("south", "open", exits=("east", "south")),
        Passage("east", "open", walked=True),
        Passage("west", "goal"),
    ),
)
MAZE_PAST = MazePast(("north",), 2, (Trail("south", 1), Trail("east", 4)))
