"""Ways around reading the picture, and what follows from them.

Pure functions over what is written in a drawing, its picture's ink and its proposal. Each detector
fires only where something gives the answer away beyond what reading the picture demands, or where
text is there that no reader can see; docs/SHORTCUTS.md has the rules, one by one.
"""
