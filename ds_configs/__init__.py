"""Complete DeepSpeed JSON files, one for each ZeRO stage and precision.

A recipe names one as `deepspeed.config`. They set ZeRO, offload and communication; "auto" marks
what the recipe or the number of ranks determines. With DeepSpeed 0.19.8:

ZeRO-1 accumulates the micro-batches of a step on each rank, and ranks reduce once per step: in fp32
and fp16 bucket by bucket during the last backward pass, in bf16 after it, with the sums in fp32.
ZeRO-2 and ZeRO-3 reduce every micro-batch, which saves memory and costs traffic: prefer ZeRO-1 for
batches of many micro-batches. `overlap_comm` makes ZeRO-2 synchronise with the device after every
backward pass, so it is off with one rank. In bf16 no step is skipped for an overflow, see
`pretrain/train/deepspeed_engine.py`.
"""
