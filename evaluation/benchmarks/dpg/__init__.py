"""DPG-Bench (Hu et al. 2024, arXiv 2403.05135): yes/no questions about dense prompts, with dependencies.

table -> scoring -> summary; recorded scores recorded answers, benchmark joins the rules to judges.
Rules follow TencentQQGYLab/ELLA at commit 3c228f1, folder dpg_bench; every one is pinned by golden cases.
"""
