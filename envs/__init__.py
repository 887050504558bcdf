"""The project's own environments. Importing this package registers them with Gymnasium."""

import gymnasium

#: Sizes n that have an id of their own, ``sb3_llm/Maze{n}x{n}-v0``.
MAZE_SIZES = (3, 4, 5, 6, 8, 10)


def register_envs() -> None:
    """Register every environment of the project that Gymnasium's registry doesn't hold yet."""
    sizes = {"sb3_llm/Maze-v0": 5} | {f"sb3_llm/Maze{size}x{size}-v0": size for size in MAZE_SIZES}
    for env_id, size in sizes.items():
        # Gymnasium warns "Overriding environment" on a second registration, so a reload must skip.
        if env_id not in gymnasium.registry:
            gymnasium.register(
                id=env_id,
                entry_point="sb3_llm.envs.maze:MazeEnv",
                max_episode_steps=4 * size * size,
                kwargs={"size": size},
            )
    others = {
        "sb3_llm/MiniGridMaze-v0": "minigrid_maze:MiniGridMazeEnv",
        "sb3_llm/Rooms-v0": "rooms:RoomsEnv",
        "sb3_llm/Dialogue-v0": "dialogue:DialogueEnv",
        "sb3_llm/Balrog-v0": "balrog:BalrogEnv",
    }
    for env_id, where in others.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(id=env_id, entry_point=f"sb3_llm.envs.{where}")


register_envs()
