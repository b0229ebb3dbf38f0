"""Janus and Janus-Pro (arXiv 2410.13848, 2501.17811): autoregressive over VQ codes, SigLIP for understanding."""
