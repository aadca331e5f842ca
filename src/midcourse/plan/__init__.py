"""What a run will cost, before it runs: arithmetic on a recipe, without a model, GPU or network.

`work` composes the recipe's own method and says what each step asks for, `hardware` what that takes
of a device, `search` what a hard-set search saves. Everything that is not in the recipe is an
assumption with a name (`assumptions`), which a user can give or `measure` from a finished run.
"""
