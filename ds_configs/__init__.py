"""Complete DeepSpeed JSON files, one for each ZeRO stage and precision.

A recipe names one as `deepspeed.config`. They own ZeRO, offload and communication; "auto" marks
what the recipe or the number of ranks decides. What DeepSpeed 0.19.8 does with them:

ZeRO-1 adds up the micro-batches of a step on each rank, and ranks meet once a step: in fp32 and
fp16 bucket by bucket during the last backward pass, in bf16 after it, with the sums in fp32. ZeRO-2
and ZeRO-3 reduce every micro-batch, which saves memory and costs traffic: take ZeRO-1 for batches
of many micro-batches. `overlap_comm` makes ZeRO-2 wait for the device after every backward pass, so
it is off where there is one rank. In bf16 no step is skipped for an overflow, see
`pretrain/train/deepspeed_engine.py`.
"""
