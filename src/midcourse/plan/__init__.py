"""What a run will cost, before it runs: arithmetic on a recipe, without a model, GPU or network.

`compose` makes the recipe's own method, without problems. `work` says what each of its steps asks
for, `rates` how long that takes, `memory` what must fit on a device, `search` what a hard-set
search saves. Everything that is not in the recipe is an assumption with a name (`assumptions`),
which a user can give or `measure` from a finished run.
"""
