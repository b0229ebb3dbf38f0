"""GEdit-Bench (Liu et al. 2025, arXiv 2504.17761): a judge scores edits by two calls, consistency and quality.

replies reads one reply, rounds decides what is asked again and what a picture scores, summary makes the table, recorded
scores recorded replies or rows, benchmark joins the rules to judges. Rules follow stepfun-ai/Step1X-Edit @ 570eba6.
"""
