"""ImgEdit-Bench, basic suite (Ye et al. 2025, arXiv 2505.20275): a judge rates edits on three 1-to-5 scales.

ratings reads a reply, summary makes the table, recorded scores recorded replies, benchmark joins the rules to judges.
Rules follow PKU-YuanGroup/ImgEdit at commit 547185d and RecA's copy at b250aa1; pinned by golden cases.
"""
