"""GenEval (Ghosh et al. 2023, arXiv 2310.11513): are the named objects there, as many, coloured and placed as asked?

geometry -> requirement -> verdict -> summary; crops is what the colour classifier is shown; benchmark joins them.
Rules follow djghosh13/geneval at commit af4902f; every one is pinned by golden cases in tests/parity.
"""
