"""Complete DeepSpeed JSON files, one for each ZeRO stage and precision.

A recipe names one as `deepspeed.config`. They own ZeRO, offload and communication; "auto" marks
what the recipe owns.
"""
