"""The ground truth: objects of other people's and of ours, and what becomes of the advice on them.

`python -m tests.corpus`, as root, builds the corpus, says what is wrong with the advice for each
object that this kernel can load, and how many are right.
"""
