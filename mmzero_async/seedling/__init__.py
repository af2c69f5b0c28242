"""The seedling: a Qwen3-VL of a few million parameters, grown from scratch on made-up scenes.

It is the embedded base model, so that the loop runs without a download. The generator's answers
serve its schooling and the held-out evaluation; the loop itself never sees them.
"""
